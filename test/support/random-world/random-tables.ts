/** What translation tables may look like with a set of features. */

import type { Random } from '../random.ts';
import type { SlowIds } from '../slow-machine.ts';
import { LEAF, type PageTable, type Shape } from '../tables.ts';

/** TG0 and S2TG, and TG1, by log2 of the granule. */
export const TG0: Record<number, number> = { 12: 0, 14: 2, 16: 1 };
export const TG1: Record<number, number> = { 12: 2, 14: 1, 16: 3 };

export class RandomTables {
  readonly #random: Random;
  readonly #ids: SlowIds;

  constructor(random: Random, ids: SlowIds) {
    this.#random = random;
    this.#ids = ids;
  }

  /** @param DS whether descriptors hold 52 bits, where they can */
  shape(stage2: boolean, DS = this.#random.chance(0.6)): Shape {
    const random = this.#random;
    const ids = this.#ids;
    const log2Granule = random.pick([12, 12, 14, 16] as const);
    const ds = ids.ds && log2Granule !== 16 && DS;
    const wide = log2Granule === 16 || ds;
    const most = stage2 ? Math.min(wide ? 52 : 48, ids.oas) : wide && ids.vax52 ? 52 : 48;
    const least = ids.stt ? (log2Granule === 16 ? 17 : 16) : 25;
    const highBits = log2Granule === 16 ? (ids.oas >= 52 ? 'lpa' : 'none') : ds ? 'ds' : 'none';
    return { log2Granule, inputBits: least + random.below(most - least + 1), highBits };
  }

  /** Whether tables are big-endian. */
  endian(): boolean {
    const { ttendian } = this.#ids;
    return ttendian === 3 || (ttendian === 0 && this.#random.chance(0.3));
  }

  /** Mostly pages, now and then a block as large as there is, and larger. */
  leafLevel({ startLevel }: PageTable): number {
    const random = this.#random;
    if (random.chance(0.6)) return 3;
    if (random.chance(0.7)) return Math.max(2, startLevel);
    return Math.max(startLevel, random.below(3));
  }

  /** Bits of a leaf that nobody looks at: Contiguous is a hint, the others belong to software or to nobody. */
  #ignored(): bigint {
    const random = this.#random;
    return random.chance(0.3) ? (1n << 52n) | (random.big(4) << 55n) : 0n;
  }

  stage2Attributes(): bigint {
    const random = this.#random;
    let bits = this.#ignored();
    bits |= random.chance(0.85) ? LEAF.AF : 0n;
    bits |= BigInt(random.chance(0.7) ? 15 : random.below(16)) << 2n;
    bits |= BigInt(random.chance(0.5) ? 3 : random.below(4)) << 6n;
    if (random.chance(0.3)) bits |= BigInt(random.below(4)) << 53n;
    if (random.chance(0.5)) bits |= LEAF.DBM;
    return bits;
  }

  stage1Attributes(global: boolean): bigint {
    const random = this.#random;
    let bits = this.#ignored();
    bits |= random.chance(0.85) ? LEAF.AF : 0n;
    if (!global || random.chance(0.5)) bits |= LEAF.nG;
    bits |= BigInt(random.chance(0.5) ? 1 : random.below(4)) << 6n;
    if (random.chance(0.3)) bits |= BigInt(random.below(4)) << 53n;
    if (random.chance(0.5)) bits |= LEAF.DBM;
    return bits;
  }
}

/** S2SL0_2 and S2SL0 for a table that starts at this level, if it may. */
export function stage2Sl(shape: Shape, level: number, ids: SlowIds): number | undefined {
  if (shape.log2Granule === 12) {
    if (level === -1) return shape.highBits === 'ds' ? 4 : undefined;
    if (level === 3) return ids.stt ? 3 : undefined;
    if (level === 0 && ids.oas < 44) return undefined;
    return 2 - level;
  }
  if (level === 0) return shape.log2Granule === 14 && shape.highBits === 'ds' ? 3 : undefined;
  if (level === 1 && ids.oas < (shape.log2Granule === 14 ? 42 : 44)) return undefined;
  return level > 0 ? 3 - level : undefined;
}
