/** The guest's RAM as a VMM shares it: files that are mapped here and entered in the memory that the SMMU sees. */

import type { Memory } from '../memory/memory.ts';
import { ERRNO } from '../sys/errno.ts';
import { Mapping, VIEW_MAX } from '../sys/mapping.ts';
import type { Syscalls } from '../sys/syscalls.ts';
import type { DmaRange, Errno } from './vfio-user/device.ts';

/** Who else has to know where RAM is, such as an IOAS. */
export interface RamObserver {
  /** RAM is there. @returns an errno to refuse it; it is then taken away without {@link removing}. */
  added?(address: number, bytes: Uint8Array): Errno;
  /** RAM is about to go; nothing may touch it afterwards. */
  removing?(address: number, size: number): void;
}

/** The largest address that is taken: 48 bits are what QEMU's `virt` machine can have. */
const ADDRESS_END = 2 ** 48;

interface Piece {
  readonly address: number;
  readonly size: number;
  readonly mapping: Mapping;
  /** Parts of it that {@link RamObserver.added} was told. */
  readonly parts: readonly { readonly address: number; readonly bytes: Uint8Array }[];
}

export class GuestRam {
  readonly memory: Memory;
  readonly #sys: Syscalls;
  readonly #warn: (text: string) => void;
  readonly #observer: RamObserver;
  readonly #pieces = new Map<number, Piece>();
  readonly #warned = new Set<string>();

  /** @param warn gets each kind of problem once, as a sentence. */
  constructor(sys: Syscalls, memory: Memory, warn: (text: string) => void, observer: RamObserver = {}) {
    this.#sys = sys;
    this.memory = memory;
    this.#warn = warn;
    this.#observer = observer;
  }

  /** Bytes of RAM that are mapped now. */
  get size(): number {
    let size = 0;
    for (const piece of this.#pieces.values()) size += piece.size;
    return size;
  }

  #warnOnce(kind: string, text: string): void {
    if (this.#warned.has(kind)) return;
    this.#warned.add(kind);
    this.#warn(text);
  }

  /**
   * Maps a range that the VMM announced. Memory that it does not share is accepted and stays unreachable.
   * @returns 0 or an errno; nothing has changed then.
   */
  map(range: DmaRange): Errno {
    const { address, size, fd, offset, writable } = range;
    if (fd === undefined) {
      this.#warnOnce(
        'unshared',
        `QEMU does not share ${size >>> 20} MiB of guest memory at 0x${address.toString(16)}. ` +
          'Start it with -object memory-backend-memfd,id=ram,size=SIZE,share=on -machine memory-backend=ram.',
      );
      return 0;
    }
    if (address + size > ADDRESS_END) return ERRNO.EFBIG;
    const mapping = Mapping.ofFile(this.#sys, { fd, offset, size, writable });
    if (typeof mapping === 'number') return -mapping;
    if (!mapping.sealed)
      this.#warnOnce(
        'unsealed',
        'The file behind guest memory can be made smaller, which would end this process. Use memory-backend-memfd, which seals it.',
      );
    const parts = windows(address, size).map(([at, length]) => ({
      address: at,
      bytes: mapping.view(at - address, length),
    }));
    const piece: Piece = { address, size, mapping, parts };
    const errno = this.#enter(piece);
    if (errno !== 0) mapping.release();
    else this.#pieces.set(address, piece);
    return errno;
  }

  /** Enters all parts, or none. */
  #enter(piece: Piece): Errno {
    for (const [i, { address, bytes }] of piece.parts.entries()) {
      const errno = this.#enterPart(address, bytes);
      if (errno === 0) continue;
      for (const done of piece.parts.slice(0, i)) this.#leave(done.address, done.bytes.length);
      return errno;
    }
    return 0;
  }

  #enterPart(address: number, bytes: Uint8Array): Errno {
    const hi = Math.floor(address / VIEW_MAX);
    try {
      this.memory.addRam(hi, address % VIEW_MAX, bytes);
    } catch {
      return ERRNO.EEXIST;
    }
    const errno = this.#observer.added?.(address, bytes) ?? 0;
    if (errno !== 0) this.memory.remove(hi, address % VIEW_MAX, bytes.length);
    return errno;
  }

  #leave(address: number, size: number): void {
    this.#observer.removing?.(address, size);
    this.memory.remove(Math.floor(address / VIEW_MAX), address % VIEW_MAX, size);
  }

  /** Takes away a range that {@link map} took; one that the VMM did not share is not there. */
  unmap(address: number): void {
    const piece = this.#pieces.get(address);
    if (piece === undefined) return;
    this.#pieces.delete(address);
    for (const part of piece.parts) this.#leave(part.address, part.bytes.length);
    piece.mapping.release();
  }

  /** Takes everything away. */
  unmapAll(): void {
    for (const address of this.#pieces.keys()) this.unmap(address);
  }
}

/** [address, size] cut at multiples of 4 GiB: each part lies in one bank, and no view is larger than Node can hold. */
function windows(address: number, size: number): [number, number][] {
  const parts: [number, number][] = [];
  for (let at = address; at < address + size;) {
    const length = Math.min(VIEW_MAX - (at % VIEW_MAX), address + size - at);
    parts.push([at, length]);
    at += length;
  }
  return parts;
}
