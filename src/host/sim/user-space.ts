/**
 * The address space of the process that calls the kernel, as far as the kernel needs it: buffers at made-up addresses,
 * with nothing between them. An address that lies in no buffer is a bad pointer (EFAULT).
 */

import type { UserMemory } from '../../iommufd/kernel.ts';

const PAGE_SIZE = 4096;
const FIRST_ADDRESS = 0x7f00_0000_0000;
const ADDRESS_LIMIT = 2 ** 53;

/** A registered buffer, and where an address lies in it. */
export interface UserRange {
  readonly bytes: Uint8Array;
  readonly offset: number;
}

interface Buffer {
  readonly address: number;
  readonly bytes: Uint8Array;
}

/** Destination of a read: bytes of the caller, or a user address that may turn out to be bad. */
export interface UserSink {
  /** @returns false if the destination cannot be written (EFAULT); nothing was written then. */
  copyOut(offset: number, from: Uint8Array): boolean;
}

export class UserSpace {
  /** In order of their addresses. */
  readonly #buffers: Buffer[] = [];
  #next = FIRST_ADDRESS;

  /** Gives the bytes an address. It starts a page if the bytes start at a multiple of 8 of their backing buffer. */
  register(bytes: Uint8Array): UserMemory {
    const address = this.#next + (bytes.byteOffset % 8);
    const buffer: Buffer = { address, bytes };
    // One page stays empty behind each buffer, so that overruns are bad pointers.
    this.#next = Math.ceil((address + bytes.length) / PAGE_SIZE) * PAGE_SIZE + PAGE_SIZE;
    this.#buffers.push(buffer);
    return {
      address: BigInt(address),
      bytes,
      release: () => {
        const i = this.#buffers.indexOf(buffer);
        if (i >= 0) this.#buffers.splice(i, 1);
      },
    };
  }

  /** The buffer that holds all of [address, address + length), or undefined. Any values may be given. */
  find(address: bigint, length: bigint | number): UserRange | undefined {
    if (address <= 0n || address >= ADDRESS_LIMIT || length > ADDRESS_LIMIT) return undefined;
    const start = Number(address);
    let low = 0;
    let high = this.#buffers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#buffers[middle].address <= start) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return undefined;
    const { address: first, bytes } = this.#buffers[low - 1];
    const offset = start - first;
    return offset + Number(length) <= bytes.length ? { bytes, offset } : undefined;
  }

  /** Copies from user space. @returns false for a bad pointer; `into` is unchanged then. */
  copyIn(address: bigint, into: Uint8Array): boolean {
    if (into.length === 0) return true;
    const range = this.find(address, into.length);
    if (range === undefined) return false;
    into.set(range.bytes.subarray(range.offset, range.offset + into.length));
    return true;
  }

  /** Copies to user space. @returns false for a bad pointer; nothing was written then. */
  copyOut(address: bigint, from: Uint8Array): boolean {
    if (from.length === 0) return true;
    const range = this.find(address, from.length);
    if (range === undefined) return false;
    range.bytes.set(from, range.offset);
    return true;
  }

  /** Where a read at a user address goes. */
  sink(address: bigint): UserSink {
    return { copyOut: (offset, from) => this.copyOut(address + BigInt(offset), from) };
  }
}

/** Where a read into the caller's own bytes goes: never a bad pointer. */
export function bytesSink(into: Uint8Array): UserSink {
  return {
    copyOut(offset, from) {
      into.set(from, offset);
      return true;
    },
  };
}
