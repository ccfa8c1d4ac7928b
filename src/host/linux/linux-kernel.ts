/** The Kernel port on the Linux that this process runs on. */

import { HostError } from '../../iommufd/errors.ts';
import type { Errno, Fd, Kernel, UserMemory, Watch } from '../../iommufd/kernel.ts';
import { IOMMU_FAULT_QUEUE_ALLOC, IOMMU_VEVENTQ_ALLOC } from '../../iommufd/uapi/iommufd.ts';
import { ERRNO } from '../../sys/errno.ts';
import { O_RDWR } from '../../sys/linux.ts';
import { Mapping } from '../../sys/mapping.ts';
import type { Syscalls } from '../../sys/syscalls.ts';

/** Has `ready` called from the owner's event loop whenever the descriptor is readable, until it is stopped. */
export type WatchReadable = (fd: Fd, ready: () => void) => Watch;

export interface LinuxKernelOptions {
  readonly sys: Syscalls;
  /** How to wait for descriptors; Node's own event loop if not given. A thread in a poll loop gives that loop's watch. */
  readonly watch?: WatchReadable;
}

/** ioctls that return a descriptor, which the kernel made in this process, and where it is in their argument. */
const MAKES_FD: ReadonlyMap<number, number> = new Map([
  [IOMMU_VEVENTQ_ALLOC.request, IOMMU_VEVENTQ_ALLOC.members.out_veventq_fd.offset],
  [IOMMU_FAULT_QUEUE_ALLOC.request, IOMMU_FAULT_QUEUE_ALLOC.members.out_fault_fd.offset],
]);

const NOT_WATCHED: Watch = { stop() {} };

/**
 * It owns every descriptor that came into being through it, and every mapping and address that it gave out:
 * {@link release} lets go of what is left, at any moment.
 */
export class LinuxKernel implements Kernel {
  readonly #sys: Syscalls;
  readonly #watch: WatchReadable;
  /** Descriptors that are open, in the order in which they came. */
  readonly #open = new Set<Fd>();
  readonly #watches = new Map<Fd, Set<Watch>>();
  readonly #mappings = new Set<Mapping>();
  /** Bytes that the kernel knows by address: this keeps them from being collected. */
  readonly #pinned = new Set<UserMemory>();

  constructor({ sys, watch }: LinuxKernelOptions) {
    this.#sys = sys;
    this.#watch =
      watch ??
      ((fd, ready) => {
        const stop = sys.watchReadable(fd, ready);
        return typeof stop === 'number' ? NOT_WATCHED : stop;
      });
  }

  /** Descriptors that are open. */
  get openFiles(): readonly Fd[] {
    return [...this.#open];
  }

  open(path: string): Fd {
    return this.#own(this.#sys.open(path, O_RDWR));
  }

  /** @returns EBADF for a descriptor that did not come from here: its number may be another's by now. */
  close(fd: Fd): Errno {
    if (!this.#open.delete(fd)) return ERRNO.EBADF;
    for (const watch of this.#watches.get(fd) ?? []) watch.stop();
    return Math.abs(this.#sys.close(fd));
  }

  ioctl(fd: Fd, request: number, arg: Uint8Array): Errno {
    const result = this.#sys.ioctl(fd, request, arg);
    if (result < 0) return -result;
    const at = MAKES_FD.get(request);
    if (at !== undefined) this.#own(new DataView(arg.buffer, arg.byteOffset).getInt32(at, true));
    return 0;
  }

  read(fd: Fd, into: Uint8Array): number {
    return this.#sys.read(fd, into);
  }

  write(fd: Fd, from: Uint8Array): number {
    return this.#sys.write(fd, from);
  }

  pread(fd: Fd, into: Uint8Array, offset: number): number {
    return Number.isSafeInteger(offset) ? this.#sys.pread(fd, into, offset) : -ERRNO.EINVAL;
  }

  pwrite(fd: Fd, from: Uint8Array, offset: number): number {
    return Number.isSafeInteger(offset) ? this.#sys.pwrite(fd, from, offset) : -ERRNO.EINVAL;
  }

  eventfd(): Fd {
    return this.#own(this.#sys.eventfd());
  }

  /** Nothing happens for a descriptor that cannot be waited for. A watch ends when its descriptor is closed. */
  onReadable(fd: Fd, callback: () => void): Watch {
    if (!this.#open.has(fd)) return NOT_WATCHED;
    const inner = this.#watch(fd, callback);
    const ofFd = this.#watches.get(fd) ?? new Set();
    this.#watches.set(fd, ofFd);
    const watch: Watch = {
      stop: () => {
        if (!ofFd.delete(watch)) return;
        if (ofFd.size === 0) this.#watches.delete(fd);
        inner.stop();
      },
    };
    ofFd.add(watch);
    return watch;
  }

  userMemory(bytes: Uint8Array): UserMemory {
    const memory: UserMemory = {
      address: this.#sys.address(bytes),
      bytes,
      release: () => void this.#pinned.delete(memory),
    };
    this.#pinned.add(memory);
    return memory;
  }

  /**
   * Memory for a guest: zeros, shared, beginning at a page of the host, as IOMMU_IOAS_MAP wants it.
   * @param size in bytes, up to 4 GiB. @throws HostError
   */
  guestRam(size: number): Uint8Array {
    const mapping = Mapping.ofMemory(this.#sys, 'vsmmu-guest-ram', size);
    if (typeof mapping === 'number') throw HostError.of(-mapping, 'mmap of guest RAM');
    this.#mappings.add(mapping);
    return mapping.view(0, size);
  }

  /**
   * Closes every descriptor and lets go of all memory. The kernel then frees all iommufd objects and takes the devices
   * back, in whatever state they were. The port stays usable; releasing twice is harmless.
   */
  release(): void {
    // Last first: event queues and devices before the iommufd in which they live.
    for (const fd of [...this.#open].toReversed()) this.close(fd);
    for (const mapping of this.#mappings) mapping.release();
    this.#mappings.clear();
    this.#pinned.clear();
  }

  #own(fd: Fd): Fd {
    if (fd >= 0) this.#open.add(fd);
    return fd;
  }
}
