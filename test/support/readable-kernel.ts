/** A Kernel that has nothing but one readable descriptor, whose reads follow a script. */

import type { Kernel, Watch } from '../../src/iommufd/kernel.ts';

const UNUSED = (): never => {
  throw new Error('not part of this test');
};

export abstract class ReadableKernel implements Kernel {
  /**
   * What each read returns: bytes, or a number in place of a count. After the last, reads give 0. More bytes than fit are
   * counted all the same.
   */
  readonly reads: (Uint8Array | number)[] = [];
  /** Size of the buffer of each read that was made. */
  readonly asked: number[] = [];
  callback: (() => void) | undefined;
  readonly pread = UNUSED;
  readonly pwrite = UNUSED;
  readonly eventfd = UNUSED;

  open(): number {
    return 3;
  }

  close(): number {
    return 0;
  }

  /** Makes the queue that is read. */
  abstract ioctl(fd: number, request: number, arg: Uint8Array): number;

  read(_fd: number, into: Uint8Array): number {
    this.asked.push(into.length);
    const next = this.reads.shift();
    if (next === undefined || typeof next === 'number') return next ?? 0;
    into.set(next.subarray(0, into.length));
    return next.length;
  }

  write(_fd: number, _from: Uint8Array): number {
    return UNUSED();
  }

  onReadable(_fd: number, callback: () => void): Watch {
    if (this.callback !== undefined) throw new Error('watched twice');
    this.callback = callback;
    return {
      stop: () => {
        if (this.callback === callback) this.callback = undefined;
      },
    };
  }

  userMemory(bytes: Uint8Array) {
    return { address: 0x1000n, bytes, release() {} };
  }
}
