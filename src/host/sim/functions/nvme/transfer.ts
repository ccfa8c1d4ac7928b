/**
 * Data transfers by Physical Region Pages (NVMe 1.4, 4.3). The pages are collected and checked first, and only then is
 * data moved, so a malformed list changes nothing. Pages that follow each other are moved as one piece.
 */

import { OUTCOME } from '../../../../smmu/transaction.ts';
import { STATUS, WORD } from './command.ts';
import type { HostPort } from './host-port.ts';
import { MIN_PAGE_SHIFT } from './registers.ts';

export class Transfer {
  /** log2 of the memory page size that CC.MPS chose. */
  pageShift = MIN_PAGE_SHIFT;
  readonly #port: HostPort;
  readonly #hi: Uint32Array;
  readonly #lo: Uint32Array;
  readonly #bytes: Uint32Array;
  #count = 0;
  readonly #list: Uint8Array;
  readonly #entries: Uint32Array;
  /** Most bytes of one transfer. */
  readonly maxBytes: number;

  constructor(port: HostPort, maxBytes: number) {
    this.#port = port;
    this.maxBytes = maxBytes;
    // An offset in the first page makes one more.
    const pages = (maxBytes >>> MIN_PAGE_SHIFT) + 1;
    this.#hi = new Uint32Array(pages);
    this.#lo = new Uint32Array(pages);
    this.#bytes = new Uint32Array(pages);
    this.#list = new Uint8Array((pages + 1) * 8);
    this.#entries = new Uint32Array(this.#list.buffer);
  }

  /**
   * Finds the memory of a command's data pointer.
   * @param length 1..maxBytes
   * @returns a status; if Success, {@link toHost} and {@link fromHost} may be used.
   */
  gather(sqe: Uint32Array, length: number): number {
    this.#count = 0;
    const page = 2 ** this.pageShift;
    const offsetMask = page - 1;
    const prp1Lo = sqe[WORD.PRP1];
    if ((prp1Lo & 3) !== 0) return STATUS.InvalidPrpOffset;
    const first = Math.min(length, page - (prp1Lo & offsetMask));
    this.#add(sqe[WORD.PRP1 + 1], prp1Lo, first);
    const left = length - first;
    if (left === 0) return STATUS.Success;
    const prp2Hi = sqe[WORD.PRP2 + 1];
    const prp2Lo = sqe[WORD.PRP2];
    if (left > page) return this.#gatherList(prp2Hi, prp2Lo, left);
    if ((prp2Lo & offsetMask) !== 0) return STATUS.InvalidPrpOffset;
    this.#add(prp2Hi, prp2Lo, left);
    return STATUS.Success;
  }

  /** 4.3: each list fills the rest of its page; if it does not suffice, its last entry points to the next one. */
  #gatherList(hi: number, lo: number, left: number): number {
    const page = 2 ** this.pageShift;
    const offsetMask = page - 1;
    if ((lo & 7) !== 0) return STATUS.InvalidPrpOffset;
    for (;;) {
      const needed = Math.ceil(left / page);
      const slots = (page - (lo & offsetMask)) >>> 3;
      const chained = needed > slots;
      const n = chained ? slots : needed;
      if (this.#port.read(hi, lo, this.#list.subarray(0, n * 8)) !== OUTCOME.Ok)
        return STATUS.DataTransferError;
      const data = chained ? n - 1 : n;
      for (let i = 0; i < data; i++) {
        const entryLo = this.#entries[2 * i];
        if ((entryLo & offsetMask) !== 0) return STATUS.InvalidPrpOffset;
        const bytes = Math.min(left, page);
        this.#add(this.#entries[2 * i + 1], entryLo, bytes);
        left -= bytes;
      }
      if (!chained) return STATUS.Success;
      lo = this.#entries[2 * n - 2]!;
      hi = this.#entries[2 * n - 1]!;
      // A next list starts its page, so every list but the first brings data: the chain is as long as the transfer.
      if ((lo & offsetMask) !== 0) return STATUS.InvalidPrpOffset;
    }
  }

  #add(hi: number, lo: number, bytes: number): void {
    const last = this.#count - 1;
    if (last >= 0) {
      // A piece may reach a multiple of 4 GiB but not pass it: its end is then 2^32, which no low half is.
      if (this.#lo[last] + this.#bytes[last] === lo && this.#hi[last] === hi) {
        this.#bytes[last] += bytes;
        return;
      }
    }
    this.#hi[this.#count] = hi;
    this.#lo[this.#count] = lo;
    this.#bytes[this.#count] = bytes;
    this.#count += 1;
  }

  /** Writes `from[at..]` to the memory that was found. @returns a status */
  toHost(from: Uint8Array, at: number): number {
    for (let i = 0; i < this.#count; i++) {
      const end = at + this.#bytes[i];
      if (this.#port.write(this.#hi[i], this.#lo[i], from.subarray(at, end)) !== OUTCOME.Ok)
        return STATUS.DataTransferError;
      at = end;
    }
    return STATUS.Success;
  }

  /** Reads the memory that was found to `into[at..]`. @returns a status; after an error `into` is partly written. */
  fromHost(into: Uint8Array, at: number): number {
    for (let i = 0; i < this.#count; i++) {
      const end = at + this.#bytes[i];
      if (this.#port.read(this.#hi[i], this.#lo[i], into.subarray(at, end)) !== OUTCOME.Ok)
        return STATUS.DataTransferError;
      at = end;
    }
    return STATUS.Success;
  }
}
