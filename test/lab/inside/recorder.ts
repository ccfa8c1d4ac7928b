/** Writes down every system call and its answer, so that two kernels can be compared line by line. */

import type { Kernel } from '../../../src/iommufd/kernel.ts';
import { errnoName } from '../../../src/iommufd/uapi/errno.ts';
import { IOMMUFD_IOCTLS } from '../../../src/iommufd/uapi/iommufd.ts';
import type { Ioctl, Members } from '../../../src/iommufd/uapi/struct.ts';
import { VFIO_IOCTLS } from '../../../src/iommufd/uapi/vfio.ts';

const IOCTLS = new Map<number, Ioctl<Members>>(
  [...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].map((ioctl) => [ioctl.request, ioctl as Ioctl<Members>]),
);

/** Regions of a VFIO descriptor have this distance; the first is BAR0. */
const REGION = 2 ** 40;

/** Members that hold addresses and descriptors of this process; each process has its own. */
const OWN = /uptr$|^user_va$|^allowed_iovas$|fd$/;

const show = (value: unknown): string =>
  typeof value === 'bigint' ? `0x${value.toString(16)}` : JSON.stringify(value);

function members(ioctl: Ioctl<Members>, bytes: Uint8Array): string {
  return Object.entries(ioctl.decode(bytes))
    .filter(([name]) => !OWN.test(name))
    .map(([name, value]) => `${name}=${show(value)}`)
    .join(' ');
}

/** @returns the number of bytes, or the errno's name. */
const counted = (result: number): string => (result < 0 ? errnoName(-result) : `${result} bytes`);

/** @returns the kernel, of which each answer is also given to `line`. */
export function recorded(kernel: Kernel, line: (text: string) => void): Kernel {
  const told = <T>(result: T, text: string): T => {
    line(text);
    return result;
  };
  return {
    open: (path) => {
      const fd = kernel.open(path);
      // Which device a case takes depends on the machine.
      const name = path.replace(/^\/dev\/vfio\/devices\/vfio\d$/, 'a device');
      return told(fd, `open ${name}: ${fd < 0 ? errnoName(-fd) : 'OK'}`);
    },
    close: (fd) => {
      const errno = kernel.close(fd);
      return told(errno, `close: ${errnoName(errno)}`);
    },
    ioctl: (fd, request, arg) => {
      const errno = kernel.ioctl(fd, request, arg);
      const ioctl = IOCTLS.get(request);
      const name = ioctl?.ioctl ?? `ioctl 0x${request.toString(16)}`;
      const after = ioctl === undefined ? '' : ` ${members(ioctl, arg)}`;
      return told(errno, `${name}: ${errnoName(errno)}${after}`);
    },
    read: (fd, into) => {
      const got = kernel.read(fd, into);
      const hex = got > 0 ? ` ${Buffer.from(into.subarray(0, got)).toString('hex')}` : '';
      return told(got, `read(${into.length}): ${counted(got)}${hex}`);
    },
    write: (fd, from) => {
      const got = kernel.write(fd, from);
      return told(got, `write(${from.length}): ${counted(got)}`);
    },
    // What a region holds is the device's affair, not the kernel's; and most accesses are those that make it do DMA.
    pread: (fd, into, offset) => {
      const got = kernel.pread(fd, into, offset);
      return got === 4 && offset < REGION
        ? got
        : told(got, `pread(${into.length}, ${offset}): ${counted(got)}`);
    },
    pwrite: (fd, from, offset) => {
      const got = kernel.pwrite(fd, from, offset);
      return got === 4 && offset < REGION
        ? got
        : told(got, `pwrite(${from.length}, ${offset}): ${counted(got)}`);
    },
    eventfd: () => kernel.eventfd(),
    onReadable: (fd, callback) => kernel.onReadable(fd, callback),
    userMemory: (bytes) => kernel.userMemory(bytes),
  };
}
