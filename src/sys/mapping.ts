/**
 * Files mapped into this process. JavaScript cannot see that a view outlived its mapping, and would die of SIGSEGV; so
 * a released mapping leaves private zero pages behind, and the addresses go back only when no view can be reached.
 */

import { fstatSync } from 'node:fs';
import { ERRNO } from './errno.ts';
import {
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_GROW,
  F_SEAL_SHRINK,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
} from './linux.ts';
import type { Fd, Syscalls } from './syscalls.ts';

/** Node 20 aborts the process on a larger view. */
export const VIEW_MAX = 0x1_0000_0000;

/** What a peer promises about a file that it shares. */
export interface FileRange {
  readonly fd: Fd;
  /** Byte offset in the file, a multiple of the page size. */
  readonly offset: number;
  /** In bytes, above 0. */
  readonly size: number;
  readonly writable: boolean;
}

/** Addresses that were mapped, and how many views of them can still be reached. */
interface Reservation {
  readonly sys: Syscalls;
  readonly address: bigint;
  readonly size: number;
  views: number;
  released: boolean;
}

const VIEWS = new FinalizationRegistry<Reservation>((reservation) => {
  reservation.views--;
  unmapIfUnused(reservation);
});

function unmapIfUnused(reservation: Reservation): void {
  if (reservation.released && reservation.views === 0)
    reservation.sys.munmap(reservation.address, reservation.size);
}

/** A shared mapping of a file, and its owner. */
export class Mapping {
  readonly size: number;
  readonly writable: boolean;
  /**
   * True if the file cannot be made smaller (F_SEAL_SHRINK). If not, a peer that truncates it kills this process with
   * SIGBUS: worth a warning.
   */
  readonly sealed: boolean;
  readonly #reservation: Reservation;

  private constructor(reservation: Reservation, writable: boolean, sealed: boolean) {
    this.size = reservation.size;
    this.writable = writable;
    this.sealed = sealed;
    this.#reservation = reservation;
  }

  /**
   * Maps a range of a file that a peer passed. The descriptor is not needed afterwards, and is not closed.
   * @returns a negative errno if the range is not wholly inside a regular file (EINVAL), or if mmap refuses.
   */
  static ofFile(sys: Syscalls, range: FileRange): Mapping | number {
    const { fd, offset, size, writable } = range;
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(size) || offset < 0 || size <= 0)
      return -ERRNO.EINVAL;
    const fileSize = sizeOfRegularFile(fd);
    if (fileSize < 0) return fileSize;
    // Beyond the end of the file, an access is SIGBUS.
    if (offset + size > fileSize) return -ERRNO.EINVAL;
    const seals = sys.fcntl(fd, F_GET_SEALS, 0);
    // A store to a read-only page would be SIGSEGV. In a private mapping it stays with us instead.
    const flags = (writable ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE;
    const address = sys.mmap(0n, size, PROT_READ | PROT_WRITE, flags, fd, offset);
    if (address < 0n) return Number(address);
    return new Mapping(
      { sys, address, size, views: 0, released: false },
      writable,
      seals >= 0 && (seals & F_SEAL_SHRINK) !== 0,
    );
  }

  /**
   * Maps memory of our own: a file without a name that nobody can make smaller.
   * @param size in bytes; it begins at a page. @returns a negative errno.
   */
  static ofMemory(sys: Syscalls, name: string, size: number): Mapping | number {
    const fd = sys.memfd_create(name);
    if (fd < 0) return fd;
    try {
      const result = sys.ftruncate(fd, size);
      if (result < 0) return result;
      sys.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
      return Mapping.ofFile(sys, { fd, offset: 0, size, writable: true });
    } finally {
      sys.close(fd);
    }
  }

  /**
   * The bytes of [offset, offset + size), at most 4 GiB. What is written to a mapping that is not writable does not
   * reach the file.
   * @throws RangeError if that is not inside the mapping, or too large, or if the mapping was released.
   */
  view(offset: number, size: number): Uint8Array {
    const reservation = this.#reservation;
    if (reservation.released) throw new RangeError('The mapping has been released');
    if (!(offset >= 0 && size >= 0 && offset + size <= this.size && size <= VIEW_MAX))
      throw new RangeError(`[${offset}, ${offset} + ${size}) is not a view of ${this.size} mapped bytes`);
    const buffer = reservation.sys.view(reservation.address + BigInt(offset), size);
    VIEWS.register(buffer, reservation);
    reservation.views++;
    return new Uint8Array(buffer);
  }

  /**
   * Lets go of the file. Views that can still be reached read as zeros and forget what is written to them. Releasing
   * twice is harmless.
   */
  release(): void {
    const reservation = this.#reservation;
    if (reservation.released) return;
    reservation.released = true;
    if (reservation.views > 0)
      reservation.sys.mmap(
        reservation.address,
        reservation.size,
        PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
        -1,
        0,
      );
    unmapIfUnused(reservation);
  }
}

/** Size in bytes, or a negative errno. Devices and pipes have none that could be trusted. */
function sizeOfRegularFile(fd: Fd): number {
  try {
    // By Node, because struct stat differs between CPUs.
    const stat = fstatSync(fd);
    return stat.isFile() ? stat.size : -ERRNO.EINVAL;
  } catch {
    return -ERRNO.EBADF;
  }
}
