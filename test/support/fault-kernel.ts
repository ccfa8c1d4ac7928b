/** A Kernel that has nothing but a FAULT_QUEUE: a script of reads, and notes of the answers. */

import { FaultQueue } from '../../src/iommufd/fault-queue.ts';
import { Iommufd } from '../../src/iommufd/iommufd.ts';
import type { Kernel, Watch } from '../../src/iommufd/kernel.ts';
import { iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../src/iommufd/uapi/page-fault.ts';

const UNUSED = (): never => {
  throw new Error('not part of this test');
};

export class FaultKernel implements Kernel {
  /** What each read returns: bytes, or a number in place of a count. After the last, reads give 0. */
  readonly reads: (Uint8Array | number)[] = [];
  /** Size of the buffer of each read that was made. */
  readonly asked: number[] = [];
  /** `cookie:code` of each answer. */
  readonly answers: string[] = [];
  /** What the next writes return in place of a count. */
  readonly writes: number[] = [];
  callback: (() => void) | undefined;
  readonly open = (): number => 3;
  readonly close = (): number => 0;
  readonly ioctl = (_fd: number, _request: number, arg: Uint8Array): number => {
    // IOMMU_FAULT_QUEUE_ALLOC: out_fault_id, out_fault_fd.
    const words = new DataView(arg.buffer, arg.byteOffset, arg.byteLength);
    words.setUint32(8, 7, true);
    words.setInt32(12, 4, true);
    return 0;
  };
  readonly pread = UNUSED;
  readonly pwrite = UNUSED;
  readonly eventfd = UNUSED;
  readonly userMemory = (bytes: Uint8Array) => ({ address: 0x1000n, bytes, release() {} });

  read(_fd: number, into: Uint8Array): number {
    this.asked.push(into.length);
    const next = this.reads.shift();
    if (next === undefined || typeof next === 'number') return next ?? 0;
    into.set(next.subarray(0, into.length));
    return next.length;
  }

  write(_fd: number, from: Uint8Array): number {
    const result = this.writes.shift();
    if (result !== undefined && result < 0) return result;
    const { cookie, code } = iommu_hwpt_page_response.decode(from);
    this.answers.push(`${cookie}:${code}`);
    return result ?? from.length;
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

  queue(): FaultQueue {
    return FaultQueue.alloc(Iommufd.open(this));
  }
}

/** A record; what is not given is a read of device 1 at 0x1000, alone in its group. */
export const fault = (values: Parameters<typeof iommu_hwpt_pgfault.encode>[0]): Uint8Array =>
  iommu_hwpt_pgfault.encode({ flags: 2, dev_id: 1, perm: 1, addr: 0x1000n, ...values });

export const joined = (...records: readonly Uint8Array[]): Uint8Array => {
  const bytes = new Uint8Array(records.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const record of records) {
    bytes.set(record, at);
    at += record.length;
  }
  return bytes;
};
