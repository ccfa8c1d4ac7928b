/** The lab as contract cases see it: the real kernel, with real devices behind SMMUs that QEMU plays. */

import { closeSync, openSync, readdirSync, readSync, readlinkSync } from 'node:fs';
import koffi from 'koffi';

import { LinuxKernel } from '../../../src/host/linux/linux-kernel.ts';
import type { Fd, Kernel, UserMemory } from '../../../src/iommufd/kernel.ts';
import {
  F_GETFD,
  F_GETFL,
  FD_CLOEXEC,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  POLLIN,
  POLLOUT,
  PROT_READ,
  PROT_WRITE,
} from '../../../src/sys/linux.ts';
import { POLLFD_SIZE, type Syscalls } from '../../../src/sys/syscalls.ts';
import type { Rig } from '../../contract/rig.ts';
import type { PhysicalSmmus } from './physical-smmus.ts';

const PAGE = 4096;

/** Calls that only cases make, and no program. */
const libc = koffi.load(null);
const readToAddress = libc.func('int64_t read(int fd, uint64_t into, size_t length)') as (
  fd: Fd,
  into: bigint,
  length: number,
) => number;
const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)') as (
  fd: Fd,
  offset: number,
  whence: number,
) => number;
const answer = (result: number): number => (result < 0 ? -koffi.errno() : result);

/** Opens a file for every number below the greatest that is in use: what is opened next comes one after the other. */
export function fillDescriptors(): void {
  const used = (): number[] =>
    readdirSync('/proc/self/fd')
      .map(Number)
      // The listing itself took one that is free again.
      .filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`) !== '';
        } catch {
          return false;
        }
      });
  const last = Math.max(...used());
  for (let fd = 0; fd < last;) {
    fd = openSync('/dev/null', 'r');
    if (fd > last) closeSync(fd);
  }
}

export interface LabRig extends Rig {
  /** Closes and unmaps all that a case left. */
  release(): void;
}

/** Guards user memory: what a case gives is mapped by itself, with nothing behind it. */
class GuardedMemory {
  readonly #sys: Syscalls;
  /** What is mapped, with the copy that the kernel has. */
  readonly #mapped = new Map<UserMemory, Uint8Array>();

  constructor(sys: Syscalls) {
    this.#sys = sys;
  }

  /** Memory with a copy of the bytes, which has its end at the end of a page; what the kernel writes to it comes back. */
  userMemory(bytes: Uint8Array): UserMemory {
    const size = Math.ceil(bytes.length / PAGE) * PAGE;
    const all = MAP_PRIVATE | MAP_ANONYMOUS;
    const base = this.#sys.mmap(0n, size + PAGE, 0, all, -1, 0);
    if (base < 0n) throw new Error(`mmap failed (errno ${-base})`);
    const address = base + BigInt(size - bytes.length);
    let view = new Uint8Array(0);
    if (size > 0) {
      this.#sys.mmap(base, size, PROT_READ | PROT_WRITE, all | MAP_FIXED, -1, 0);
      view = new Uint8Array(this.#sys.view(base, size), size - bytes.length);
      view.set(bytes);
    }
    const memory: UserMemory = {
      address,
      bytes,
      release: () => {
        if (!this.#mapped.delete(memory)) return;
        this.#sys.munmap(base, size + PAGE);
      },
    };
    this.#mapped.set(memory, view);
    return memory;
  }

  /** Shows the kernel what has been written since. */
  bring(): void {
    for (const [{ bytes }, view] of this.#mapped) view.set(bytes);
  }

  /** Shows a case what the kernel has written by now. */
  takeBack(): void {
    for (const [{ bytes }, view] of this.#mapped) bytes.set(view);
  }

  release(): void {
    for (const memory of this.#mapped.keys()) memory.release();
  }
}

/** @param devices as {@link Rig.devices}; the last one is {@link Rig.interrupting}. */
export function labRig(sys: Syscalls, smmus: PhysicalSmmus, devices: Rig['devices']): LabRig {
  const watched = new Map<Fd, () => void>();
  const linux = new LinuxKernel({
    sys,
    watch: (fd, ready) => {
      watched.set(fd, ready);
      return { stop: () => void watched.delete(fd) };
    },
  });
  const guarded = new GuardedMemory(sys);
  const rams = new Set<ArrayBufferLike>();
  const kernel: Kernel = {
    open: (path) => linux.open(path),
    close: (fd) => linux.close(fd),
    ioctl: (fd, request, arg) => {
      guarded.bring();
      const errno = linux.ioctl(fd, request, arg);
      guarded.takeBack();
      return errno;
    },
    read: (fd, into) => linux.read(fd, into),
    pread: (fd, into, offset) => linux.pread(fd, into, offset),
    write: (fd, from) => linux.write(fd, from),
    pwrite: (fd, from, offset) => linux.pwrite(fd, from, offset),
    eventfd: () => linux.eventfd(),
    onReadable: (fd, callback) => linux.onReadable(fd, callback),
    userMemory: (bytes) => (rams.has(bytes.buffer) ? linux : guarded).userMemory(bytes),
  };

  const poll = (fd: Fd): number => {
    const pollfd = new Uint8Array(POLLFD_SIZE);
    const view = new DataView(pollfd.buffer);
    view.setInt32(0, fd, true);
    view.setInt16(4, POLLIN | POLLOUT, true);
    sys.ppoll(pollfd, 1, 0);
    return view.getInt16(6, true);
  };

  return {
    kernel,
    devices,
    interrupting: devices.length - 1,
    ram: (size) => {
      const ram = linux.guestRam(size);
      if (typeof ram === 'number') throw new Error(`no memory (errno ${-ram})`);
      rams.add(ram.buffer);
      return ram;
    },
    settle: () => {
      smmus.settle();
      for (let more = true; more;) {
        more = false;
        for (const [fd, ready] of watched) {
          if ((poll(fd) & POLLIN) === 0) continue;
          ready();
          more = true;
        }
      }
    },
    poll,
    readTo: (fd, address, count) => answer(readToAddress(fd, address, count)),
    lseek: (fd) => answer(lseek(fd, 0, 0)),
    flags: (fd) => ({
      closeOnExec: (sys.fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) !== 0,
      status: sys.fcntl(fd, F_GETFL, 0),
    }),
    physicalAddress: (bytes, offset) => physicalAddress(sys.address(bytes) + BigInt(offset)),
    release: () => {
      linux.release();
      guarded.release();
    },
  };
}

/** Where a byte of this process is in memory; only root is told. */
function physicalAddress(address: bigint): bigint {
  const entry = new BigUint64Array(1);
  const pagemap = openSync('/proc/self/pagemap', 'r');
  try {
    readSync(pagemap, entry, 0, 8, Number(address / BigInt(PAGE)) * 8);
  } finally {
    closeSync(pagemap);
  }
  const present = entry[0] >> 63n === 1n;
  const frame = entry[0] & ((1n << 55n) - 1n);
  if (!present || frame === 0n) throw new Error(`The page at 0x${address.toString(16)} is not in memory`);
  return frame * BigInt(PAGE) + (address % BigInt(PAGE));
}

/** The lab's devices, once vfio-pci has them. @param addresses as Linux calls them. */
export const vfioDevices = (addresses: readonly string[]): Rig['devices'] =>
  addresses.map((address) => {
    const [name] = readdirSync(`/sys/bus/pci/devices/${address}/vfio-dev`);
    return { address, path: `/dev/vfio/devices/${name}` };
  });
