/** A FAULT_QUEUE: stalled faults of devices, for user space to answer. */

import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import {
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
  IOMMUFD_PAGE_RESP_INVALID,
} from '../../../iommufd/uapi/page-fault.ts';
import { OpenFile, POLLIN, POLLOUT } from '../file.ts';
import type { UserSink } from '../user-space.ts';
import { KernelObject } from './objects.ts';

/** A group of faults that waits for one answer: a stalled transaction, or the page requests of a group. */
export interface PageFault {
  /** Records of `iommu_hwpt_pgfault`, at least one; the cookie is put in here. */
  readonly records: readonly Uint8Array[];
  /** Of the device that it came from. */
  readonly owner: object;
  /** Called once: go on, or end with an abort. */
  answer(success: boolean): void;
}

export class FaultQueue extends KernelObject {
  override readonly type = 'fault';
  file: FaultQueueFile | undefined;
  /** Not yet read. */
  #waiting: PageFault[] = [];
  /** Read, not yet answered, by cookie. */
  readonly #read = new Map<number, PageFault>();

  override destroy(): void {
    this.drop(undefined);
  }

  get readable(): boolean {
    return this.#waiting.length > 0;
  }

  report(fault: PageFault): void {
    this.#waiting.push(fault);
    this.file?.wake();
  }

  /** Answers everything that came from an owner, or everything, with an abort. */
  drop(owner: object | undefined): void {
    const theirs = (fault: PageFault): boolean => owner === undefined || fault.owner === owner;
    for (const fault of this.#waiting) if (theirs(fault)) fault.answer(false);
    this.#waiting = this.#waiting.filter((fault) => !theirs(fault));
    for (const [cookie, fault] of this.#read) {
      if (!theirs(fault)) continue;
      this.#read.delete(cookie);
      fault.answer(false);
    }
  }

  read(into: UserSink, count: number): number {
    const size = iommu_hwpt_pgfault.size;
    if (count % size !== 0) return -ERRNO.ESPIPE;
    let done = 0;
    while (this.#waiting.length > 0) {
      const fault = this.#waiting[0];
      if (done + size * fault.records.length > count) return done > 0 ? done : -ERRNO.EINVAL;
      // The lowest that is free; 0 never is.
      let cookie = 1;
      while (this.#read.has(cookie)) cookie += 1;
      for (const [i, record] of fault.records.entries()) {
        iommu_hwpt_pgfault.set(record, 'cookie', cookie);
        if (!into.copyOut(done + i * size, record)) return done > 0 ? done : -ERRNO.EFAULT;
      }
      done += size * fault.records.length;
      this.#waiting.shift();
      this.#read.set(cookie, fault);
    }
    return done;
  }

  write(from: Uint8Array): number {
    const size = iommu_hwpt_page_response.size;
    if (from.length % size !== 0) return -ERRNO.ESPIPE;
    let done = 0;
    while (done < from.length) {
      const { cookie, code } = iommu_hwpt_page_response.decode(from, done);
      const fault = code <= IOMMUFD_PAGE_RESP_INVALID ? this.#read.get(cookie) : undefined;
      if (fault === undefined) return done > 0 ? done : -ERRNO.EINVAL;
      this.#read.delete(cookie);
      fault.answer(code !== IOMMUFD_PAGE_RESP_INVALID);
      done += size;
    }
    return done;
  }
}

/** The descriptor of a FAULT_QUEUE. It holds the queue and the whole context. */
export class FaultQueueFile extends OpenFile {
  readonly #queue: FaultQueue;
  readonly #unpin: () => void;

  constructor(queue: FaultQueue, unpin: () => void) {
    super();
    this.#queue = queue;
    this.#unpin = unpin;
    queue.users += 1;
    queue.file = this;
  }

  override read(into: UserSink, count: number): number {
    return this.#queue.read(into, count);
  }

  override write(from: Uint8Array): number {
    return this.#queue.write(from);
  }

  override poll(): number {
    return POLLOUT | (this.#queue.readable ? POLLIN : 0);
  }

  override release(): void {
    this.#queue.file = undefined;
    this.#queue.users -= 1;
    this.#unpin();
  }
}
