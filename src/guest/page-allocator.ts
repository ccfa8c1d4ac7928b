/** Physical pages of the guest: naturally aligned blocks of 4 KiB times a power of two. */

/** Smallest block, in bytes: the guest kernel's page. */
export const PAGE = 0x1000;

/** Bytes of the block that holds `size` bytes: the next power of two, at least a page. */
export function blockSize(size: number): number {
  let block = PAGE;
  while (block < size) block *= 2;
  return block;
}

/** Hands out a range of addresses. It touches no memory. */
export class PageAllocator {
  /** First address and end of the range. */
  readonly base: number;
  readonly end: number;
  #next: number;
  /** Free blocks by size. */
  readonly #free = new Map<number, number[]>();

  /** @param base multiple of 4 KiB. @param size in bytes. */
  constructor(base: number, size: number) {
    if (base % PAGE !== 0) throw new RangeError('The range must start on a page');
    this.base = base;
    this.end = base + Math.floor(size / PAGE) * PAGE;
    this.#next = base;
  }

  /** @returns the address of a free block of at least `size` bytes, aligned to its size, or undefined. */
  allocate(size: number): number | undefined {
    const block = blockSize(size);
    for (let from = block; from <= this.end - this.base; from *= 2) {
      const at = this.#free.get(from)?.pop();
      if (at === undefined) continue;
      for (let rest = from / 2; rest >= block; rest /= 2) this.#put(at + rest, rest);
      return at;
    }
    const at = Math.ceil(this.#next / block) * block;
    if (at + block > this.end) return undefined;
    while (this.#next < at) {
      let gap = PAGE;
      while (this.#next % (gap * 2) === 0 && this.#next + gap * 2 <= at) gap *= 2;
      this.#put(this.#next, gap);
      this.#next += gap;
    }
    this.#next = at + block;
    return at;
  }

  /** Takes a block back. `size` is the one it was asked for with. */
  release(at: number, size: number): void {
    this.#put(at, blockSize(size));
  }

  /** Takes everything back. */
  reset(): void {
    this.#next = this.base;
    this.#free.clear();
  }

  #put(at: number, block: number): void {
    const list = this.#free.get(block);
    if (list === undefined) this.#free.set(block, [at]);
    else list.push(at);
  }
}
