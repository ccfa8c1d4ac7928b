import { Memory } from './memory.ts';

const LOG2_CHUNK = 16;
const CHUNK = 1 << LOG2_CHUNK;
const GIB4 = 0x1_0000_0000;

/** RAM of any size of which only the touched parts exist. Untouched bytes are zero. */
export class SparseRam extends Memory {
  readonly #ranges: { readonly first: number; readonly size: number }[] = [];
  /** Zeroed chunks for later use. */
  readonly #free: Uint8Array[] = [];
  #used: Uint8Array[] = [];

  /** @param first address of the first byte, and `size` in bytes: multiples of 64 KiB below 2^52 */
  constructor(first: number, size: number) {
    super();
    this.addRange(first, size);
  }

  /** Adds RAM elsewhere: multiples of 64 KiB below 2^52. */
  addRange(first: number, size: number): void {
    this.#ranges.push({ first, size });
  }

  protected override ramAt(hi: number, lo: number, size: number): ReturnType<Memory['ramAt']> {
    const region = super.ramAt(hi, lo, size);
    if (region !== undefined) return region;
    if (!this.#holds(hi, lo, size)) return undefined;
    // No access of the SMMU crosses a chunk: structures are aligned to their size. Bytes are copied one by one.
    if ((lo & (CHUNK - 1)) + size > CHUNK) return undefined;
    if (super.ramAt(hi, lo, 1) !== undefined) return undefined;
    const chunk = this.#free.pop() ?? new Uint8Array(CHUNK);
    this.#used.push(chunk);
    this.addRam(hi, (lo & -CHUNK) >>> 0, chunk);
    return super.ramAt(hi, lo, size);
  }

  /** Bytes that exist because something in them, or near them, was touched. */
  get touched(): number {
    return this.#used.length * CHUNK;
  }

  /** Whether the address is RAM. Does not touch it. */
  contains(hi: number, lo: number): boolean {
    return this.#holds(hi, lo, 1);
  }

  #holds(hi: number, lo: number, size: number): boolean {
    const at = hi * GIB4 + lo;
    return this.#ranges.some((range) => at >= range.first && at + size <= range.first + range.size);
  }

  /** Makes all bytes zero again. */
  clear(): void {
    for (const { first, size } of this.#ranges) this.remove(Math.floor(first / GIB4), first % GIB4, size);
    for (const chunk of this.#used) {
      chunk.fill(0);
      this.#free.push(chunk);
    }
    this.#used = [];
  }
}
