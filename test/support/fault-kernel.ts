/** A Kernel that has nothing but a FAULT_QUEUE: a script of reads, and notes of the answers. */

import { FaultQueue } from '../../src/iommufd/fault-queue.ts';
import { Iommufd } from '../../src/iommufd/iommufd.ts';
import { iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../src/iommufd/uapi/page-fault.ts';
import { ReadableKernel } from './readable-kernel.ts';

export class FaultKernel extends ReadableKernel {
  /** `cookie:code` of each answer. */
  readonly answers: string[] = [];
  /** What the next writes return in place of a count. */
  readonly writes: number[] = [];

  override ioctl(_fd: number, _request: number, arg: Uint8Array): number {
    // IOMMU_FAULT_QUEUE_ALLOC: out_fault_id, out_fault_fd.
    const words = new DataView(arg.buffer, arg.byteOffset, arg.byteLength);
    words.setUint32(8, 7, true);
    words.setInt32(12, 4, true);
    return 0;
  }

  override write(_fd: number, from: Uint8Array): number {
    const result = this.writes.shift();
    if (result !== undefined && result < 0) return result;
    const { cookie, code } = iommu_hwpt_page_response.decode(from);
    this.answers.push(`${cookie}:${code}`);
    return result ?? from.length;
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
