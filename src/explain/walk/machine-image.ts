/** An SMMU and its memory from a file, to be looked at. What such a file holds is described in docs/explain.md. */

import { hiOf, hiOfNumber, join, loOf, loOfNumber, parseU64 } from '../../bits/u64.ts';
import { Memory } from '../../memory/memory.ts';
import { SparseRam } from '../../memory/sparse-ram.ts';
import { GUEST_DEFAULT, type IdRegisters } from '../../smmu/identification.ts';
import { Smmu } from '../../smmu/smmu.ts';
import { REGISTERS } from '../../spec/registers.ts';

/** The file is no machine image; every reason is in the message. */
export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly code = 'IMAGE_INVALID';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`This is no machine image. ${problems.join(' ')}`);
    this.problems = problems;
  }
}

/** Physical addresses end here. */
const ADDRESS_BITS = 52n;
const CHUNK = 0x1_0000;
const ID_NAMES = ['IDR0', 'IDR1', 'IDR2', 'IDR3', 'IDR4', 'IDR5', 'IIDR', 'AIDR'] as const;

interface Piece {
  readonly at: number;
  readonly bytes: Uint8Array;
}

class Reader {
  readonly problems: string[] = [];

  number(value: unknown, what: string, bits: bigint): bigint {
    let found: bigint | undefined;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) found = BigInt(value);
    else if (typeof value === 'string') found = parseU64(value);
    if (found !== undefined && found < 1n << bits) return found;
    this.problems.push(
      `${what} is ${JSON.stringify(value)}, and a number below 2^${bits} such as "0x1000" is expected.`,
    );
    return 0n;
  }

  /** Names and values; empty if absent. */
  entries(value: unknown, what: string): readonly (readonly [string, unknown])[] {
    if (value === undefined) return [];
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return Object.entries(value);
    this.problems.push(`"${what}" is an object of names and values.`);
    return [];
  }

  /** A list of pairs; empty if absent. */
  pairs(value: unknown, what: string): readonly (readonly [unknown, unknown])[] {
    if (value === undefined) return [];
    if (Array.isArray(value) && value.every((pair) => Array.isArray(pair) && pair.length === 2))
      return value as [unknown, unknown][];
    this.problems.push(`"${what}" is a list of pairs.`);
    return [];
  }

  piece([address, hex]: readonly [unknown, unknown]): Piece {
    const at = Number(this.number(address, 'An address in "memory"', ADDRESS_BITS));
    if (typeof hex !== 'string' || hex.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(hex)) {
      this.problems.push(
        `The bytes at 0x${at.toString(16)} are not pairs of hexadecimal digits, lowest address first.`,
      );
      return { at, bytes: new Uint8Array() };
    }
    const bytes = new Uint8Array(hex.length / 2);
    for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
    return { at, bytes };
  }
}

/** RAM that is exactly where the pieces are, rounded to 8 bytes; later pieces win. */
function exactMemory(pieces: readonly Piece[]): Memory {
  const memory = new Memory();
  const sorted = [...pieces].sort((a, b) => a.at - b.at);
  let first = 0;
  let end = -1;
  const flush = (): void => {
    if (end > first) memory.addRam(hiOfNumber(first), loOfNumber(first), new Uint8Array(end - first));
  };
  for (const { at, bytes } of sorted) {
    const from = Math.floor(at / 8) * 8;
    const to = Math.ceil((at + bytes.length) / 8) * 8;
    if (from > end) {
      flush();
      first = from;
      end = to;
    } else end = Math.max(end, to);
  }
  flush();
  return memory;
}

/**
 * Reads a machine image.
 * @param json the parsed file
 * @throws ImageError with every problem found
 */
export function machineOfImage(json: unknown): Smmu {
  if (typeof json !== 'object' || json === null || !('registers' in json))
    throw new ImageError(['It is a JSON object with "registers" and "memory".']);
  const image = json as Readonly<Record<string, unknown>>;
  const reader = new Reader();
  for (const name of Object.keys(image))
    if (!['ids', 'registers', 'memory', 'ram'].includes(name))
      reader.problems.push(`There is no "${name}" in an image.`);

  const ids: Record<string, number> = { ...GUEST_DEFAULT };
  const values: { readonly at: number; readonly hi: number; readonly lo: number; readonly wide: boolean }[] =
    [];
  for (const [name, raw] of [
    ...reader.entries(image['ids'], 'ids'),
    ...reader.entries(image['registers'], 'registers'),
  ]) {
    const spec = REGISTERS.find((register) => register.name === name);
    if (spec === undefined) {
      reader.problems.push(`There is no register ${JSON.stringify(name)}.`);
      continue;
    }
    const value = reader.number(raw, name, BigInt(spec.width));
    if ((ID_NAMES as readonly string[]).includes(name)) ids[name] = Number(value);
    // Page 1 has the pointers of queues, which do not matter for a walk.
    else if (spec.offset < 0x1000)
      values.push({ at: spec.offset >>> 2, hi: hiOf(value), lo: loOf(value), wide: spec.width === 64 });
  }

  const pieces = reader.pairs(image['memory'], 'memory').map((pair) => reader.piece(pair));
  const ranges = reader.pairs(image['ram'], 'ram').map(([first, size]) => ({
    first: Number(reader.number(first, 'An address in "ram"', ADDRESS_BITS)),
    size: Number(reader.number(size, 'A size in "ram"', ADDRESS_BITS)),
  }));
  for (const { first, size } of ranges)
    if (first % CHUNK !== 0 || size % CHUNK !== 0)
      reader.problems.push(`"ram" is given in multiples of 64 KiB, unlike 0x${first.toString(16)}.`);
  if (reader.problems.length > 0) throw new ImageError(reader.problems);

  let memory: Memory;
  if (ranges.length === 0) memory = exactMemory(pieces);
  else {
    const sparse = new SparseRam(ranges[0].first, ranges[0].size);
    for (const { first, size } of ranges.slice(1)) sparse.addRange(first, size);
    memory = sparse;
  }
  for (const { at, bytes } of pieces)
    if (memory.writeBytes(hiOfNumber(at), loOfNumber(at), bytes) !== 0)
      throw new ImageError([
        `The bytes at 0x${join(hiOfNumber(at), loOfNumber(at)).toString(16)} are outside "ram".`,
      ]);

  const smmu = new Smmu({
    ids: ids as unknown as IdRegisters,
    memory,
    interrupts: { raise() {}, writeMsi: () => false },
  });
  for (const { at, hi, lo, wide } of values) {
    smmu.registers[at] = lo;
    if (wide) smmu.registers[at + 1] = hi;
  }
  return smmu;
}
