import type { StepResult } from '../../src/conformance/vector.ts';
import { type OracleCase, RAM_END, RAM_FIRST } from './oracle-case.ts';

/** Event records as four 64-bit words. */

export function wordsOf(bytes: string): bigint[] {
  const words = new BigUint64Array(Uint8Array.from(Buffer.from(bytes, 'hex')).buffer);
  return [...words];
}

const SSV = 1n << 11n;
const STALL = 1n << 31n;
const S2 = 1n << 39n;

/** Which bits of a record the architecture determines; the others are UNKNOWN or IMPLEMENTATION DEFINED (7.3). */
export function maskOf(record: readonly bigint[]): bigint[] {
  const all = 0xffff_ffff_ffff_ffffn;
  const mask = [all, all, all, all];
  const type = Number(record[0] & 0xffn);
  if ((record[0] & SSV) === 0n) mask[0] &= ~0xffff_f000n;
  // Reason.
  if (type === 0x03 || type === 0x09 || type === 0x0b) mask[1] &= ~0xffffn;
  if (type >= 0x10 && type <= 0x13) {
    if ((record[1] & STALL) === 0n) mask[1] &= ~0xffffn;
    if ((record[1] & S2) === 0n) mask[3] = 0n;
  }
  return mask;
}

/** Whether two records are the same where the first one is determined. */
export function sameRecord(
  one: readonly bigint[] | undefined,
  other: readonly bigint[] | undefined,
): boolean {
  if (one === undefined || other === undefined) return one === other;
  const mask = maskOf(one);
  return one.every((word, i) => ((word ^ other[i]) & mask[i]) === 0n);
}

/** What an access came to, with its record. */
export interface Seen {
  readonly ok: boolean;
  readonly pa: bigint | undefined;
  readonly events: number;
  readonly record: readonly bigint[] | undefined;
}

/**
 * What each access came to, by step, with the records that the drains found.
 * @returns undefined if the records cannot be told apart: more or fewer were drained than were counted
 */
export function accessesOf(given: OracleCase, out: readonly StepResult[]): Map<number, Seen> | undefined {
  const seen = new Map<number, Seen>();
  const base = Number(given.eventq.base);
  if (base < RAM_FIRST || base >= RAM_END) return undefined;
  let waiting: number[] = [];
  for (const [i, step] of given.steps.entries()) {
    const result = out[i];
    if (step[0] === 'dma') {
      if (result === null || typeof result === 'string' || !('ok' in result)) return undefined;
      const { ok, ev, pa } = result;
      const address = pa === undefined || pa === 'unknown' ? undefined : BigInt(pa);
      seen.set(i, { ok, pa: address, events: ev, record: undefined });
      for (let n = 0; n < ev; n++) waiting.push(i);
    } else if (step[0] === 'drain') {
      const records = result as readonly (string | null)[];
      if (records.length !== waiting.length) return undefined;
      for (const [n, record] of records.entries())
        if (record !== null) seen.set(waiting[n], { ...seen.get(waiting[n])!, record: wordsOf(record) });
      waiting = [];
    }
  }
  return seen;
}
