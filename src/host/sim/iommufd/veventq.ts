/** A vEVENTQ: events of a guest's devices, for user space to read. */

import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import {
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  iommufd_vevent_header,
  VEVENT_SEQUENCE_MAX,
} from '../../../iommufd/uapi/vevent.ts';
import { OpenFile, POLLIN } from '../file.ts';
import type { UserSink } from '../user-space.ts';
import { KernelObject } from './objects.ts';
import type { Viommu } from './viommu.ts';

const HEADER_SIZE = iommufd_vevent_header.size;

export class Veventq extends KernelObject {
  override readonly type = 'veventq';
  readonly viommu: Viommu;
  readonly eventType: number;
  readonly depth: number;
  /** Its descriptor, while that is open. */
  file: VeventqFile | undefined;
  /** Whole records, oldest first; the LOST header, if there is one, comes after all of them. */
  #records: Uint8Array[] = [];
  /** Number of the latest lost event, or undefined if none was lost since the LOST header was read. */
  #lost: number | undefined;
  #nextSequence = 0;

  constructor(viommu: Viommu, eventType: number, depth: number) {
    super();
    this.viommu = viommu;
    this.eventType = eventType;
    this.depth = depth;
    viommu.users += 1;
    viommu.veventqs.set(eventType, this);
  }

  override destroy(): void {
    this.viommu.veventqs.delete(this.eventType);
    this.viommu.users -= 1;
  }

  get readable(): boolean {
    return this.#records.length > 0 || this.#lost !== undefined;
  }

  /** Appends an event, or marks it lost if the queue is full. It is copied. */
  report(event: Uint8Array): void {
    const sequence = this.#nextSequence;
    this.#nextSequence = sequence === VEVENT_SEQUENCE_MAX ? 0 : sequence + 1;
    if (this.#records.length >= this.depth) {
      this.#lost = sequence;
    } else {
      // The gap in the numbers now tells of the loss.
      this.#lost = undefined;
      const record = new Uint8Array(HEADER_SIZE + event.length);
      iommufd_vevent_header.set(record, 'sequence', sequence);
      record.set(event, HEADER_SIZE);
      this.#records.push(record);
    }
    this.file?.wake();
  }

  /** For tests: the number of the next event. */
  setNextSequence(sequence: number): void {
    this.#nextSequence = sequence;
  }

  /** Copies out as many whole records as fit. @returns bytes, or a negative errno. Never waits. */
  read(into: UserSink, count: number): number {
    if (count < HEADER_SIZE) return -ERRNO.EINVAL;
    let done = 0;
    while (this.readable) {
      const record = this.#records.length > 0 ? this.#records[0] : this.#lostHeader();
      if (done + record.length > count) return done > 0 ? done : -ERRNO.EINVAL;
      if (!into.copyOut(done, record)) return done > 0 ? done : -ERRNO.EFAULT;
      done += record.length;
      if (this.#records.length > 0) this.#records.shift();
      else this.#lost = undefined;
    }
    return done;
  }

  #lostHeader(): Uint8Array {
    return iommufd_vevent_header.encode({
      flags: IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
      sequence: this.#lost ?? 0,
    });
  }
}

/** The descriptor of a vEVENTQ. It holds the queue and the whole context. */
export class VeventqFile extends OpenFile {
  readonly queue: Veventq;
  readonly #unpin: () => void;

  /** @param unpin lets go of the context. */
  constructor(queue: Veventq, unpin: () => void) {
    super();
    this.queue = queue;
    this.#unpin = unpin;
    queue.users += 1;
    queue.file = this;
  }

  override read(into: UserSink, count: number): number {
    return this.queue.read(into, count);
  }

  override poll(): number {
    return this.queue.readable ? POLLIN : 0;
  }

  override release(): void {
    this.queue.file = undefined;
    this.queue.users -= 1;
    this.#unpin();
  }
}
