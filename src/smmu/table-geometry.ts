import { LAST_LEVEL } from '../spec/descriptors.ts';

/** log2 of the page size that TG0 and S2TG encode; 0 if reserved. */
export const LOG2_GRANULE_TG0: readonly number[] = [12, 16, 14, 0];
/** log2 of the page size that TG1 encodes; 0 if reserved. */
export const LOG2_GRANULE_TG1: readonly number[] = [0, 14, 12, 16];

/** Address bits [51:48] of a descriptor: nowhere, in [15:12] (64 KB granule, 52 bits), or in [9:8] and [49:48] (DS). */
export const HIGH_BITS = { None: 0, Lpa: 1, Ds: 2 } as const;

/** First level of a walk that resolves `inputBits`: as few levels as do it. */
export const firstLevel = (log2Granule: number, inputBits: number): number =>
  LAST_LEVEL + 1 - Math.ceil((inputBits - log2Granule) / (log2Granule - 3));

/** Shape of one set of VMSAv8-64 tables, precomputed for the walk. */
export class TableGeometry {
  /** Table base, aligned as the architecture aligns it. */
  ttbHi = 0;
  /** A signed word. */
  ttbLo = 0;
  log2Granule = 12;
  stride = 9;
  startLevel = 0;
  inputBits = 48;
  /** An output or table address at or above 2^outputBits is an Address size fault. */
  outputBits = 48;
  /** Mask of the index into the first table; wider than a stride if stage 2 tables are concatenated. */
  firstMask = 0;
  highBits = 0;
  /** Descriptors above this level may not be blocks. */
  firstBlockLevel = 1;

  /**
   * @param ttbHi the table base as programmed; it is aligned here (5.2 S2TTB, 5.4 TTB0)
   * @param DS the effective value: 52-bit addresses with 4 KB and 16 KB granules
   */
  set(
    log2Granule: number,
    inputBits: number,
    startLevel: number,
    ttbHi: number,
    ttbLo: number,
    outputBits: number,
    DS: boolean,
    oasBits: number,
  ): void {
    this.log2Granule = log2Granule;
    this.stride = log2Granule - 3;
    this.inputBits = inputBits;
    this.startLevel = startLevel;
    this.outputBits = outputBits;
    this.highBits =
      log2Granule === 16
        ? oasBits >= 52
          ? HIGH_BITS.Lpa
          : HIGH_BITS.None
        : DS
          ? HIGH_BITS.Ds
          : HIGH_BITS.None;
    const firstBits = inputBits - (log2Granule + (LAST_LEVEL - startLevel) * this.stride);
    this.firstMask = (1 << firstBits) - 1;
    // A first table is aligned to its own size, and to 64 bytes at least where its address may have 52 bits.
    const log2Align = Math.max(firstBits + 3, outputBits >= 52 ? 6 : 0);
    this.ttbHi = ttbHi;
    this.ttbLo = ttbLo & -(1 << log2Align);
    // Blocks of 512 GB and 64 GB need DS, of 4 TB a PA size of 52 bits.
    if (log2Granule === 12) this.firstBlockLevel = DS ? 0 : 1;
    else if (log2Granule === 14) this.firstBlockLevel = DS ? 1 : 2;
    else this.firstBlockLevel = oasBits >= 52 ? 1 : 2;
  }
}

/** High half of the address in a table or leaf descriptor. */
export function descriptorAddressHi(highBits: number, hi: number, lo: number): number {
  if (highBits === HIGH_BITS.None) return hi & 0xffff;
  if (highBits === HIGH_BITS.Lpa) return (hi & 0xffff) | ((lo & 0xf000) << 4);
  return (hi & 0x3_ffff) | ((lo & 0x300) << 10);
}

/** Byte order of a big-endian table. */
export const swap32 = (word: number): number =>
  ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
