/** Memory of a random world: two banks of RAM, one of them above 4 GiB. */

import type { MemStatus } from '../../../src/memory/memory.ts';
import { SparseRam } from '../../../src/memory/sparse-ram.ts';
import type { Random } from '../random.ts';
import { Allocator, type TableSpace, hiOf, loOf, writeDwords } from '../tables.ts';

export const RAM_LOW = 0x4000_0000n;
const RAM_HIGH = 0x1_4000_0000n;
/** Where there is no RAM. */
export const NOWHERE = 0x2000_0000n;

/** It notes which descriptors were updated. */
export class RandomMemory extends SparseRam {
  readonly updated = new Set<bigint>();
  readonly #random: Random;
  readonly #low = new Allocator(RAM_LOW, RAM_LOW + 0x1000_0000n);
  readonly #high = new Allocator(RAM_HIGH, RAM_HIGH + 0x1000_0000n);

  constructor(random: Random) {
    super(Number(RAM_LOW), 0x1_8000_0000);
    this.#random = random;
  }

  override compareExchange64(...args: Parameters<SparseRam['compareExchange64']>): MemStatus {
    const status = super.compareExchange64(...args);
    const [hi, lo, oldHi, oldLo] = args;
    if (status === 0 && this.hi === oldHi && this.lo === oldLo)
      this.updated.add((BigInt(hi) << 32n) | BigInt(lo >>> 0));
    return status;
  }

  /** @returns zeroed RAM in either bank, aligned to its size */
  take(size: bigint): bigint {
    return (this.#random.chance(0.5) ? this.#low : this.#high).take(size);
  }

  /** @returns zeroed RAM below 4 GiB */
  takeLow(size: bigint): bigint {
    return this.#low.take(size);
  }

  /** The 64-bit word there, or undefined if nothing answers. */
  dword(at: bigint): bigint | undefined {
    if (this.load64(hiOf(at), loOf(at)) !== 0 || at >> 52n !== 0n) return undefined;
    return (BigInt(this.hi) << 32n) | BigInt(this.lo);
  }

  setDword(at: bigint, value: bigint): void {
    writeDwords(this, at, [value]);
  }

  /** A space for tables of this byte order. */
  space(bigEndian: boolean): TableSpace {
    return {
      take: (size) => this.take(size),
      write: (at, value) => this.setDword(at, bigEndian ? swap(value) : value),
      read: (at) => {
        const value = this.dword(at)!;
        return bigEndian ? swap(value) : value;
      },
    };
  }
}

/** The other byte order. */
export function swap(value: bigint): bigint {
  let out = 0n;
  for (let i = 0n; i < 8n; i++) out |= ((value >> (8n * i)) & 0xffn) << (56n - 8n * i);
  return out;
}
