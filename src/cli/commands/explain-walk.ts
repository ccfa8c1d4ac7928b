/** `vsmmu explain --walk`: the way of one transaction through the tables of a machine image or of a test vector. */

import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { hiOf, loOf, parseU64 } from '../../bits/u64.ts';
import { vectorMoment } from '../../conformance/vector-moment.ts';
import { explainWalk } from '../../explain/walk/explain-walk.ts';
import { formatWalk } from '../../explain/walk/format-walk.ts';
import { machineOfImage } from '../../explain/walk/machine-image.ts';
import type { Smmu } from '../../smmu/smmu.ts';
import { Transaction } from '../../smmu/transaction.ts';
import { EXIT, UsageError } from '../exit.ts';

export interface WalkOptions {
  readonly walk: string;
  readonly id?: string;
  readonly step?: string;
  readonly sid?: string;
  readonly ssid?: string;
  readonly iova?: string;
  readonly access?: string;
  readonly privileged?: boolean;
  readonly json?: boolean;
}

/** What is looked at, and what the file itself says of the transaction. */
interface Subject {
  readonly smmu: Smmu;
  readonly dma: { readonly sid: number; readonly write: boolean; readonly iova: string } | undefined;
}

/**
 * @returns 0 if the transaction goes through, 1 if not.
 * @throws UsageError
 */
export function explainWalkOf(options: WalkOptions): number {
  const { smmu, dma } = subjectOf(options);
  const transaction = new Transaction();
  const sid = number('--sid', options.sid, 32) ?? (dma === undefined ? undefined : BigInt(dma.sid));
  const iova = number('--iova', options.iova, 64) ?? number('the iova of the vector', dma?.iova, 64);
  if (sid === undefined || iova === undefined)
    throw new UsageError('--walk needs --sid and --iova, unless the file is a vector with a DMA.');
  const access = options.access ?? (dma?.write === true ? 'w' : 'r');
  if (!['r', 'w', 'x'].includes(access)) throw new UsageError(`--access is r, w or x, not ${access}.`);
  const ssid = number('--ssid', options.ssid, 20);
  transaction.sid = Number(sid);
  transaction.ssv = ssid !== undefined;
  transaction.ssid = Number(ssid ?? 0n);
  transaction.addrHi = hiOf(iova);
  transaction.addrLo = loOf(iova);
  transaction.write = access === 'w';
  transaction.instruction = access === 'x';
  transaction.privileged = options.privileged === true;
  const walk = explainWalk(smmu, transaction);
  const width = process.stdout.isTTY ? process.stdout.columns : 100;
  process.stdout.write(
    options.json === true ? `${JSON.stringify(walk)}\n` : `${formatWalk(walk, { width })}\n`,
  );
  return walk.outcome === 'ok' ? EXIT.Fine : EXIT.Failed;
}

function number(name: string, text: string | undefined, bits: number): bigint | undefined {
  if (text === undefined) return undefined;
  const value = parseU64(text);
  if (value === undefined || value >= 1n << BigInt(bits))
    throw new UsageError(`${name}: ${text} is not a number below 2^${bits}, such as 0x1000.`);
  return value;
}

function subjectOf({ walk: file, id, step }: WalkOptions): Subject {
  const text = read(file);
  try {
    const image = imageIn(text);
    if (image === undefined) {
      const at = number('--step', step, 32);
      return vectorMoment(text.split('\n'), id, at === undefined ? undefined : Number(at));
    }
    if (id !== undefined || step !== undefined)
      throw new UsageError('--id and --step go with vectors: this file is a machine image.');
    return { smmu: machineOfImage(image), dma: undefined };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${file}: ${(error as Error).message}`);
  }
}

/** The image that the text is; undefined if it is vectors, one on each line. */
function imageIn(text: string): unknown {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    // Several lines with a vector each are no JSON together.
    if (/^\s*\{"/.test(text) && text.trim().includes('\n{')) return undefined;
    throw error;
  }
  return typeof json === 'object' && json !== null && 'steps' in json ? undefined : json;
}

function read(file: string): string {
  try {
    const bytes = readFileSync(file === '-' ? 0 : file);
    const gzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
    return (gzip ? gunzipSync(bytes) : bytes).toString('utf8');
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${(error as Error).message}`);
  }
}
