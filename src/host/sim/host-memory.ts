/**
 * Physical memory of the simulated host. The kernel's own structures come from below 4 GiB; a user's buffer gets a
 * physical address when its pages are pinned, far above, so that IPA, user address and physical address all differ.
 */

import { hiOfNumber, loOfNumber } from '../../bits/u64.ts';
import { Memory } from '../../memory/memory.ts';

export const HOST_PAGE_SIZE = 4096;

/** Kernel allocations come in pieces of RAM of this many bytes: a small one first, for hosts that need no more. */
const FIRST_CHUNK = 0x1_0000;
const CHUNK = 0x4_0000;
const KERNEL_START = 0x4000_0000;
const USER_START = 0x8_0000_0000;
/** Pinned buffers start at multiples of a block of level 1 or 2, so that stage 2 can use its largest blocks. */
const LARGE_ALIGNMENT = 0x4000_0000;
const SMALL_ALIGNMENT = 0x20_0000;

const alignUp = (value: number, alignment: number): number => Math.ceil(value / alignment) * alignment;

export class HostMemory {
  readonly memory = new Memory();
  #kernelEnd = KERNEL_START;
  #userEnd = USER_START;
  #chunkFree = 0;
  #chunkEnd = 0;
  /** Freed kernel memory by size in bytes. */
  readonly #free = new Map<number, number[]>();
  readonly #pinned = new Map<Uint8Array, { readonly address: number; count: number }>();

  /**
   * Zeroed memory for the kernel, naturally aligned.
   * @param size in bytes, a power of two, at least 64.
   * @returns its physical address.
   */
  allocate(size: number): number {
    const reused = this.#free.get(size)?.pop();
    if (reused !== undefined) {
      this.memory.writeBytes(hiOfNumber(reused), loOfNumber(reused), new Uint8Array(size));
      return reused;
    }
    const aligned = alignUp(this.#chunkFree, size);
    if (aligned + size <= this.#chunkEnd) {
      this.#chunkFree = aligned + size;
      return aligned;
    }
    const chunk = Math.max(this.#kernelEnd === KERNEL_START ? FIRST_CHUNK : CHUNK, size);
    const address = alignUp(this.#kernelEnd, chunk);
    this.memory.addRam(hiOfNumber(address), loOfNumber(address), new Uint8Array(chunk));
    this.#kernelEnd = address + chunk;
    this.#chunkFree = address + size;
    this.#chunkEnd = address + chunk;
    return address;
  }

  /** Gives back what {@link allocate} gave, with the same size. */
  free(address: number, size: number): void {
    const list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, [address]);
    else list.push(address);
  }

  /**
   * Makes a user's buffer physical memory, until {@link unpin} was called as often as this. Its length and its offset
   * in the backing buffer are multiples of 8; bytes beyond the last whole 8 are left out.
   * @returns the physical address of its first byte.
   */
  pin(bytes: Uint8Array): number {
    const known = this.#pinned.get(bytes);
    if (known !== undefined) {
      known.count += 1;
      return known.address;
    }
    const alignment = bytes.length >= LARGE_ALIGNMENT ? LARGE_ALIGNMENT : SMALL_ALIGNMENT;
    const address = alignUp(this.#userEnd, alignment);
    this.#userEnd = address + Math.max(bytes.length, HOST_PAGE_SIZE);
    this.memory.addRam(
      hiOfNumber(address),
      loOfNumber(address),
      bytes.subarray(0, bytes.length - (bytes.length % 8)),
    );
    this.#pinned.set(bytes, { address, count: 1 });
    return address;
  }

  /** Takes back one {@link pin}. */
  unpin(bytes: Uint8Array): void {
    const known = this.#pinned.get(bytes);
    if (known === undefined) return;
    known.count -= 1;
    if (known.count > 0) return;
    this.#pinned.delete(bytes);
    this.memory.remove(hiOfNumber(known.address), loOfNumber(known.address), bytes.length);
    if (this.#pinned.size === 0) this.#userEnd = USER_START;
  }

  /** Physical address of a pinned buffer's first byte. */
  addressOf(bytes: Uint8Array): number | undefined {
    return this.#pinned.get(bytes)?.address;
  }

  /** Stores a 64-bit word; the address is inside the kernel's memory. */
  store64(address: number, hi: number, lo: number): void {
    this.memory.store64(hiOfNumber(address), loOfNumber(address), hi, lo);
  }
}
