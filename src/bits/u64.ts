/** A 64-bit value is two unsigned 32-bit halves inside the model; `bigint` and text exist only at the edges. */

/** High half of a `bigint`; bits above 63 are dropped. */
export const hiOf = (value: bigint): number => Number((value >> 32n) & 0xffff_ffffn);

/** Low half of a `bigint`. */
export const loOf = (value: bigint): number => Number(value & 0xffff_ffffn);

/** Joins two halves. */
export const join = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

/** Joins two halves into a `number`; exact up to 2^53 - 1, so for physical addresses and sizes, never for a VA. */
export const joinNumber = (hi: number, lo: number): number => (hi >>> 0) * 0x1_0000_0000 + (lo >>> 0);

/** High half of a non-negative `number` below 2^53. */
export const hiOfNumber = (value: number): number => Math.floor(value / 0x1_0000_0000);

/** Low half of a non-negative `number` below 2^53. */
export const loOfNumber = (value: number): number => (value % 0x1_0000_0000) >>> 0;

/** `0x` and the hexadecimal digits of a 32-bit word, at least `digits` of them. */
export const hex32 = (value: number, digits = 1): string =>
  `0x${(value >>> 0).toString(16).padStart(digits, '0')}`;

/** `0x` and the hexadecimal digits of two halves, at least `digits` of them. */
export const hex64 = (hi: number, lo: number, digits = 1): string =>
  `0x${join(hi, lo).toString(16).padStart(digits, '0')}`;

/**
 * Reads a 64-bit number from text: decimal, `0x` hexadecimal, underscores between digits allowed.
 * @returns `undefined` if the text is not such a number or does not fit in 64 bits.
 */
export function parseU64(text: string): bigint | undefined {
  if (!/^(0[xX][0-9a-fA-F]+(_[0-9a-fA-F]+)*|[0-9]+(_[0-9]+)*)$/.test(text)) return undefined;
  const value = BigInt(text.replaceAll('_', ''));
  return value < 1n << 64n ? value : undefined;
}
