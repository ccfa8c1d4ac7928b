/** What the walker's tables look like, and CDs, for the oracle's ID registers. */

export const OAS = 44;
/** By IPS or S2PS. */
export const SIZES = [32, 36, 40, 42, 44, 48, 52, 52];

export const get = (value: bigint, hi: number, lo = hi): bigint =>
  (value >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n);
export const flag = (value: bigint, bit: number): boolean => get(value, bit) === 1n;

/** Where a walk starts, and what it may give. */
export interface Level {
  readonly base: bigint;
  readonly granule: number;
  readonly start: number;
  readonly inputBits: number;
  readonly outputBits: number;
}

/** Size of the first-level table. */
export function tableBytes(level: Level): bigint {
  const bits = level.inputBits - (level.granule + (3 - level.start) * (level.granule - 3));
  return 8n << BigInt(Math.max(bits, 0));
}

/** A table is aligned to its size. */
export const alignBase = (level: Level): bigint => level.base & -tableBytes(level);

export const ipsBits = (cd: bigint[]): number => Math.min(SIZES[Number(get(cd[0], 34, 32))], OAS);

export function s1Level(cd: bigint[], upper: boolean): Level | undefined {
  const granule = upper
    ? [0, 14, 12, 16][Number(get(cd[0], 23, 22))]
    : [12, 16, 14, 0][Number(get(cd[0], 7, 6))];
  if (granule === 0) return undefined;
  const inputBits = 64 - Number(upper ? get(cd[0], 21, 16) : get(cd[0], 5, 0));
  let start = 3;
  while (granule + (4 - start) * (granule - 3) < inputBits) start -= 1;
  return {
    base: cd[upper ? 2 : 1] & 0xf_ffff_ffff_fff0n,
    granule,
    start,
    inputBits,
    outputBits: ipsBits(cd),
  };
}

export function isBadCd(cd: bigint[]): boolean {
  if (!flag(cd[0], 31) || !flag(cd[0], 41)) return true;
  // A must be 1 (TERM_MODEL), S 0 (STALL_MODEL), HA and HD 0 (HTTU).
  if (!flag(cd[0], 46) || flag(cd[0], 44) || flag(cd[0], 43) || flag(cd[0], 42)) return true;
  const walked = [false, true].filter((upper) => !flag(cd[0], upper ? 30 : 14));
  if (walked.length > 0 && flag(cd[0], 15)) return true;
  return walked.some((upper) => {
    const level = s1Level(cd, upper);
    if (level === undefined) return true;
    const txsz = 64 - level.inputBits;
    return txsz < 16 || txsz > 39 || level.base >> BigInt(level.outputBits) !== 0n;
  });
}
