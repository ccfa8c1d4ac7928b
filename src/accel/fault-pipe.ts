/** The records of one FAULT_QUEUE: read in batches, taken one by one, and answered by their cookies. */

import type { FaultQueue } from '../iommufd/fault-queue.ts';
import type { Watch } from '../iommufd/kernel.ts';
import { ERRNO } from '../iommufd/uapi/errno.ts';
import {
  iommu_hwpt_pgfault,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMU_PGFAULT_PERM_EXEC,
  IOMMU_PGFAULT_PERM_PRIV,
  IOMMU_PGFAULT_PERM_READ,
  IOMMU_PGFAULT_PERM_WRITE,
  IOMMUFD_PAGE_RESP_INVALID,
  IOMMUFD_PAGE_RESP_SUCCESS,
} from '../iommufd/uapi/page-fault.ts';
import type { Trace } from '../smmu/ports.ts';

/**
 * Where faults that wait went, for people. What one answer is for is a group: a stalled transaction, or page requests
 * that belong together. Every group that was read is counted once more when it ends.
 */
export interface FaultCounters {
  /** Groups taken out of the host. */
  read: number;
  /** Records written to the guest's queue. */
  delivered: number;
  /** Page requests that the PRI queue did not take. */
  discarded: number;
  /** Groups that the guest, or the PRI queue for it, had tried again. */
  retried: number;
  /** Groups that the guest, or the PRI queue for it, ended. */
  aborted: number;
  /** Groups that were tried again before the guest answered: after an invalidation, or for a snapshot. */
  released: number;
  /** Groups that nobody could answer any more: the guest's queue was turned off, or the device has no StreamID. */
  ended: number;
  /** Groups that the host had ended by itself, because the device's page table was replaced. */
  forgotten: number;
  /** Answers that the host refused; their groups are counted above. */
  refused: number;
  /** Answers of the guest that name nothing that waits. */
  unknown: number;
  /** Bytes that made no record. */
  malformed: number;
  /** Reads that failed. */
  readErrors: number;
}

export const noFaults = (): FaultCounters => ({
  read: 0,
  delivered: 0,
  discarded: 0,
  retried: 0,
  aborted: 0,
  released: 0,
  ended: 0,
  forgotten: 0,
  refused: 0,
  unknown: 0,
  malformed: 0,
  readErrors: 0,
});

/** How a group ended. */
export type Ending = 'retried' | 'aborted' | 'released' | 'ended';

const SIZE = iommu_hwpt_pgfault.size;
const WORDS = SIZE / 4;
const word = (name: keyof typeof iommu_hwpt_pgfault.members): number =>
  iommu_hwpt_pgfault.members[name].offset / 4;
const FLAGS = word('flags');
const DEVICE = word('dev_id');
const PASID = word('pasid');
const GROUP = word('grpid');
const PERM = word('perm');
const ADDR = word('addr');
const COOKIE = word('cookie');

export class FaultPipe {
  readonly counters = noFaults();
  /** The record that {@link next} took. */
  deviceId = 0;
  hasPasid = false;
  pasid = 0;
  /** It is the last of its group. */
  last = false;
  /** STAG of the physical SMMU, or Page Request Group Index. */
  group = 0;
  addrHi = 0;
  addrLo = 0;
  read = false;
  write = false;
  execute = false;
  privileged = false;
  cookie = 0;
  readonly #buffer: Uint8Array;
  readonly #words: Uint32Array;
  /** 1 for each record that the host has ended by itself. */
  readonly #gone: Uint8Array;
  /** Element n is the buffer cut for n records. */
  readonly #views: readonly Uint8Array[];
  readonly #onReadable: () => void;
  readonly #trace: Trace | undefined;
  #queue: FaultQueue | undefined;
  #watch: Watch | undefined;
  /** A read failed for good: it would fail again at once and for ever. */
  #broken = false;
  /** Records that were read and not taken: #at..#end. */
  #at = 0;
  #end = 0;

  /** @param capacity records of one read. */
  constructor(capacity: number, onReadable: () => void, trace: Trace | undefined) {
    this.#trace = trace;
    this.#buffer = new Uint8Array(capacity * SIZE);
    this.#words = new Uint32Array(this.#buffer.buffer);
    this.#gone = new Uint8Array(capacity);
    this.#views = Array.from({ length: capacity + 1 }, (_, n) => this.#buffer.subarray(0, n * SIZE));
    this.#onReadable = onReadable;
  }

  get isOpen(): boolean {
    return this.#queue !== undefined;
  }

  /** Open, and not read from. */
  get paused(): boolean {
    return this.#queue !== undefined && this.#watch === undefined;
  }

  open(queue: FaultQueue): void {
    this.#queue = queue;
    this.#broken = false;
    this.resume();
  }

  /** What was read and not taken is ended. */
  close(): void {
    while (this.next()) if (this.last) this.answer(this.cookie, 'ended');
    this.pause();
    this.#queue = undefined;
  }

  pause(): void {
    this.#watch?.stop();
    this.#watch = undefined;
  }

  resume(): void {
    if (!this.#broken) this.#watch ??= this.#queue?.onReadable(this.#onReadable);
  }

  /**
   * Reads at most `most` records; all that were read before are taken.
   * @returns whether the host has no more for now.
   */
  fill(most: number): boolean {
    this.#at = 0;
    this.#end = 0;
    const view = this.#views[most];
    const bytes = this.#queue!.read(view);
    if (bytes < 0) {
      this.counters.readErrors++;
      const passes = bytes === -ERRNO.EINTR || bytes === -ERRNO.EAGAIN || bytes === -ERRNO.ENOMEM;
      if (passes) return false;
      this.#broken = true;
      this.pause();
      return true;
    }
    // The kernel never splits a record: whatever the rest is, it has no cookie to be answered by.
    this.counters.malformed += bytes % SIZE;
    this.#gone.fill(0);
    this.#end = Math.min(Math.floor(bytes / SIZE), most);
    return this.#end < most;
  }

  /** Takes the next record into the fields. @returns false if there is none. */
  next(): boolean {
    while (this.#at < this.#end) {
      const index = this.#at++;
      if (this.#gone[index] === 1) continue;
      const at = index * WORDS;
      const words = this.#words;
      this.deviceId = words[at + DEVICE];
      const flags = words[at + FLAGS];
      const perm = words[at + PERM];
      this.hasPasid = (flags & IOMMU_PGFAULT_FLAGS_PASID_VALID) !== 0;
      this.pasid = words[at + PASID];
      this.last = (flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE) !== 0;
      this.group = words[at + GROUP];
      this.addrHi = words[at + ADDR + 1];
      this.addrLo = words[at + ADDR];
      this.read = (perm & IOMMU_PGFAULT_PERM_READ) !== 0;
      this.write = (perm & IOMMU_PGFAULT_PERM_WRITE) !== 0;
      this.execute = (perm & IOMMU_PGFAULT_PERM_EXEC) !== 0;
      this.privileged = (perm & IOMMU_PGFAULT_PERM_PRIV) !== 0;
      this.cookie = words[at + COOKIE];
      if (this.last) this.counters.read++;
      if (this.#trace !== undefined)
        this.#trace('vsmmu_fault', this.deviceId, this.group, this.addrHi, this.addrLo, this.cookie);
      return true;
    }
    return false;
  }

  /** Drops what was read of a device and not taken: the host has ended it. */
  forget(deviceId: number): void {
    for (let i = this.#at; i < this.#end; i++) {
      const at = i * WORDS;
      if (this.#words[at + DEVICE] !== deviceId || this.#gone[i] === 1) continue;
      this.#gone[i] = 1;
      if ((this.#words[at + FLAGS] & IOMMU_PGFAULT_FLAGS_LAST_PAGE) === 0) continue;
      this.counters.read++;
      this.counters.forgotten++;
    }
  }

  /** Answers a group, for which nothing waits afterwards. */
  answer(cookie: number, ending: Ending): void {
    this.counters[ending]++;
    const again = ending === 'retried' || ending === 'released';
    const code = again ? IOMMUFD_PAGE_RESP_SUCCESS : IOMMUFD_PAGE_RESP_INVALID;
    if (this.#trace !== undefined) this.#trace('vsmmu_fault_answer', cookie, code);
    if (this.#queue!.respond(cookie, code) !== 0) this.counters.refused++;
  }
}
