/** Reads a vEVENTQ: takes its bytes apart into records, and tells from their numbers what was lost. */

import {
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  iommufd_vevent_header,
  VEVENT_ARM_SMMUV3_SIZE,
  VEVENT_SEQUENCE_MAX,
} from '../iommufd/uapi/vevent.ts';
import type { Veventq } from '../iommufd/veventq.ts';
import { EVENT_WORDS } from '../spec/events.ts';

/** Most records that one read takes. */
export const READ_RECORDS = 64;

const HEADER_SIZE = iommufd_vevent_header.size;
const HEADER_WORDS = HEADER_SIZE / 4;

export class VeventReader {
  /** What the last {@link take} found out: events that were lost before it, and bytes that make no record. */
  lost = 0;
  malformed = 0;
  /** Room for a full read, and for the LOST header that may follow it. */
  readonly #buffer = new Uint8Array(READ_RECORDS * VEVENT_ARM_SMMUV3_SIZE + HEADER_SIZE);
  readonly #words = new Uint32Array(this.#buffer.buffer);
  /** Element n is the buffer cut for n records, so that a read takes no more than is wanted. */
  readonly #views = Array.from({ length: READ_RECORDS + 1 }, (_, n) =>
    this.#buffer.subarray(0, n * VEVENT_ARM_SMMUV3_SIZE + HEADER_SIZE),
  );
  /** Bytes that were read and not taken: #buffer[#at..#end). */
  #at = 0;
  #end = 0;
  /** Sequence number of the next event, if none is lost. */
  #expected = 0;

  /** Nothing is left to take. */
  get empty(): boolean {
    return this.#at >= this.#end;
  }

  /** Begins with a queue that is new: its first event has the number 0. */
  begin(): void {
    this.#at = 0;
    this.#end = 0;
    this.#expected = 0;
  }

  /**
   * Reads once; all that was read before has been taken.
   * @param records at most so many, 1..READ_RECORDS.
   * @returns bytes; 0 says that the queue is empty now and is not an end; negative is an errno.
   */
  read(veventq: Veventq, records: number): number {
    const bytes = veventq.read(this.#views[records]);
    this.#at = 0;
    this.#end = Math.max(bytes, 0);
    return bytes;
  }

  /**
   * Takes the next header, and the record behind it if there is one; says in {@link lost} and {@link malformed} what
   * else it found.
   * @param into receives the event.
   * @returns false if there was none: a LOST header alone, or no whole record.
   */
  take(into: Uint32Array): boolean {
    const left = this.#end - this.#at;
    const at = this.#at / 4;
    this.lost = 0;
    this.malformed = 0;
    const isLost = left >= HEADER_SIZE && (this.#words[at] & IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0;
    if (left < HEADER_SIZE || (!isLost && left < VEVENT_ARM_SMMUV3_SIZE)) {
      // The kernel never splits a record: whatever this is, an event was in it.
      this.malformed = left;
      this.#at = this.#end;
      return false;
    }
    const sequence = this.#words[at + 1] & VEVENT_SEQUENCE_MAX;
    // The number of a LOST header is that of the last lost event, that of a record its own.
    this.lost = ((sequence - this.#expected) & VEVENT_SEQUENCE_MAX) + (isLost ? 1 : 0);
    this.#expected = (sequence + 1) & VEVENT_SEQUENCE_MAX;
    this.#at += isLost ? HEADER_SIZE : VEVENT_ARM_SMMUV3_SIZE;
    if (isLost) return false;
    for (let i = 0; i < EVENT_WORDS; i++) into[i] = this.#words[at + HEADER_WORDS + i];
    return true;
  }
}

/** Reads that empty a queue: it holds no more than its depth, and one LOST header. */
export const readsFor = (veventq: Veventq): number => Math.ceil(veventq.depth / READ_RECORDS) + 1;
