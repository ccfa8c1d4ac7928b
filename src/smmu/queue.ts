/** Where the entries of one queue are (IHI 0070 3.5.1, 6.3.26), worked out when BASE is written. */

import { EVENTQ_BASE } from '../spec/registers.ts';

export class Queue {
  /** Address of entry 0, aligned and truncated to OAS. */
  baseHi = 0;
  baseLo = 0;
  /** Number of entries, capped by IDR1, and its log2. */
  size = 1;
  log2Size = 0;
  /** Bits of PROD and CONS that mean something: the index and the wrap flag above it. */
  pointerMask = 1;
  readonly #log2EntrySize: number;
  readonly #maxLog2Size: number;
  readonly #addressMaskHi: number;

  /**
   * @param log2EntrySize log2 of the bytes of an entry.
   * @param maxLog2Size IDR1.CMDQS, EVENTQS or PRIQS.
   * @param addressBits output address size, 32..56.
   */
  constructor(log2EntrySize: number, maxLog2Size: number, addressBits: number) {
    this.#log2EntrySize = log2EntrySize;
    this.#maxLog2Size = maxLog2Size;
    // 3.4.3: a queue address beyond OAS is truncated.
    this.#addressMaskHi = (2 ** (addressBits - 32) - 1) >>> 0;
  }

  /** Takes a new value of the BASE register at `registers[at]`; the three BASE registers have one layout. */
  rebase(registers: Uint32Array, at: number): void {
    this.log2Size = Math.min(EVENTQ_BASE.LOG2SIZE.get(registers, at), this.#maxLog2Size);
    this.size = 1 << this.log2Size;
    this.pointerMask = 2 * this.size - 1;
    // 6.3.26: the base is aligned to the size of the queue, at least 32 bytes; lower address bits are ignored.
    const bytes = Math.max(this.size << this.#log2EntrySize, 32);
    this.baseHi = (EVENTQ_BASE.ADDR.getHi(registers, at) & this.#addressMaskHi) >>> 0;
    this.baseLo = (EVENTQ_BASE.ADDR.getLo(registers, at) & ~(bytes - 1)) >>> 0;
  }

  /**
   * Number of entries between the pointers: 0 is empty, `size` full. A larger number means that the pointers are
   * inconsistent, for which 3.5.1 lets a consumer do nothing and a producer treat the queue as full.
   */
  used(prod: number, cons: number): number {
    return (prod - cons) & this.pointerMask;
  }

  /** Low half of the address of the entry that a pointer names; the high half is `baseHi`, for a queue never crosses 4 GiB. */
  entryLo(pointer: number): number {
    return (this.baseLo + ((pointer & (this.size - 1)) << this.#log2EntrySize)) >>> 0;
  }
}
