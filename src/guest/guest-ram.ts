/** The guest kernel's RAM: pages from an allocator, and loads and stores by physical address. */

import { hex64, hiOfNumber, loOfNumber } from '../bits/u64.ts';
import { MEM_OK, type Memory, type MemStatus } from '../memory/memory.ts';
import { GuestDriverError } from './errors.ts';
import { blockSize, PAGE, type PageAllocator } from './page-allocator.ts';

const ZEROES = new Uint32Array(PAGE / 4);

/** Physical addresses are numbers below 2^53. An access outside RAM throws: the guest was told of RAM that is not. */
export class GuestRam {
  readonly #memory: Memory;
  readonly #pages: PageAllocator;
  /** Halves of the value of the last {@link load64}. */
  hi = 0;
  lo = 0;

  constructor(memory: Memory, pages: PageAllocator) {
    this.#memory = memory;
    this.#pages = pages;
  }

  /** A zeroed block, aligned to its size, or undefined. */
  tryAllocate(size: number): number | undefined {
    const at = this.#pages.allocate(size);
    if (at === undefined) return undefined;
    const block = blockSize(size);
    for (let done = 0; done < block; done += PAGE) this.storeWords(at + done, ZEROES, PAGE / 4);
    return at;
  }

  /** A zeroed block, aligned to its size. @throws GuestDriverError GUEST_OUT_OF_MEMORY. */
  allocate(size: number, what: string): number {
    const at = this.tryAllocate(size);
    if (at === undefined)
      throw new GuestDriverError('GUEST_OUT_OF_MEMORY', `No ${size} bytes are left for ${what}`);
    return at;
  }

  release(at: number, size: number): void {
    this.#pages.release(at, size);
  }

  load32(at: number): number {
    this.#check(this.#memory.load32(hiOfNumber(at), loOfNumber(at)), at);
    return this.#memory.lo;
  }

  load64(at: number): void {
    this.#check(this.#memory.load64(hiOfNumber(at), loOfNumber(at)), at);
    this.hi = this.#memory.hi;
    this.lo = this.#memory.lo;
  }

  store64(at: number, hi: number, lo: number): void {
    this.#check(this.#memory.store64(hiOfNumber(at), loOfNumber(at), hi >>> 0, lo >>> 0), at);
  }

  loadWords(at: number, into: Uint32Array, n: number): void {
    this.#check(this.#memory.loadWords(hiOfNumber(at), loOfNumber(at), into, n), at);
  }

  storeWords(at: number, words: Uint32Array, n: number, from = 0): void {
    this.#check(this.#memory.storeWords(hiOfNumber(at), loOfNumber(at), words, n, from), at);
  }

  #check(status: MemStatus, at: number): void {
    if (status !== MEM_OK)
      throw new GuestDriverError(
        'GUEST_NO_RAM',
        `There is no RAM at ${hex64(hiOfNumber(at), loOfNumber(at))}`,
      );
  }
}
