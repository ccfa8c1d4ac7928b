/** Raw system calls for contract cases: nothing is checked, everything that came back is shown. */

import type { Fd, Kernel } from '../../src/iommufd/kernel.ts';
import { errnoName } from '../../src/iommufd/uapi/errno.ts';
import type { Ioctl, Members, Values } from '../../src/iommufd/uapi/struct.ts';

export interface Answer<M extends Members> {
  /** 'OK' or the errno's name. */
  readonly result: string;
  /** The structure as the kernel left it. */
  readonly out: Values<M>;
  readonly bytes: Uint8Array;
}

export class Client {
  readonly kernel: Kernel;

  constructor(kernel: Kernel) {
    this.kernel = kernel;
  }

  /** @param size of the structure as the caller says it, if not the kernel's own. */
  ioctl<M extends Members>(
    fd: Fd,
    ioctl: Ioctl<M>,
    values: Partial<Values<M>> = {},
    size = ioctl.size,
  ): Answer<M> {
    return this.raw(fd, ioctl, ioctl.encode(values, size));
  }

  /** A VFIO ioctl whose `argsz` says less, or more, than there is. */
  vfio<M extends Members>(
    fd: Fd,
    ioctl: Ioctl<M>,
    values: Partial<Values<M>>,
    argsz = ioctl.size,
  ): Answer<M> {
    const bytes = ioctl.encode(values);
    new DataView(bytes.buffer).setUint32(0, argsz, true);
    return this.raw(fd, ioctl, bytes);
  }

  /** @param bytes the structure, however wrong. */
  raw<M extends Members>(fd: Fd, ioctl: Ioctl<M>, bytes: Uint8Array): Answer<M> {
    const errno = this.kernel.ioctl(fd, ioctl.request, bytes);
    return { result: errnoName(errno), out: ioctl.decode(bytes), bytes };
  }

  /** Calls with bytes that stay in user memory during the call. */
  withBytes<T>(bytes: Uint8Array, use: (address: bigint) => T): T {
    const memory = this.kernel.userMemory(bytes);
    try {
      return use(memory.address);
    } finally {
      memory.release();
    }
  }
}

/** 64-bit words as little-endian bytes. */
export const words64 = (...words: readonly bigint[]): Uint8Array => bytesOf(words);

/** As {@link words64}, for any number of words. */
export function bytesOf(words: readonly bigint[]): Uint8Array {
  const bytes = new Uint8Array(words.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [i, word] of words.entries()) view.setBigUint64(i * 8, BigInt.asUintN(64, word), true);
  return bytes;
}
