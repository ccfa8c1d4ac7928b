/**
 * From the host's vEVENTQ to the guest's event queue. Records are taken out of the kernel only while the guest has room
 * for them, so the kernel's queue is the guest's buffer; what is lost even so shows to the guest as an overflow.
 */

import type { Watch } from '../iommufd/kernel.ts';
import { ERRNO } from '../iommufd/uapi/errno.ts';
import {
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  iommufd_vevent_header,
  VEVENT_ARM_SMMUV3_SIZE,
  VEVENT_SEQUENCE_MAX,
} from '../iommufd/uapi/vevent.ts';
import type { Veventq } from '../iommufd/veventq.ts';
import { EVENT, type EventStatus } from '../smmu/ports.ts';
import { EVENT_RECORD, EVENT_WORDS } from '../spec/events.ts';
import type { QueueReader } from './actual.ts';

/** The guest's side: the SMMU that it sees. */
export interface EventSink {
  recordEvent(words: Uint32Array): EventStatus;
  /** Records that can be written now. */
  eventQueueSpace(): number;
  /** Tells the guest of a loss: toggles OVFLG unless an overflow is unacknowledged. */
  eventsLost(): void;
}

/** What the accelerator knows of records. Neither may reconcile: the bridge is in the middle of its work. */
export interface RecordFilter {
  /** Gives a record of a tripwire the name that is due. */
  rename(words: Uint32Array): void;
  /** A turn is over. @param empty the host's queue had nothing more. */
  turned(empty: boolean): void;
}

const NO_FILTER: RecordFilter = { rename() {}, turned() {} };

/** Where events went, for people. Every event that reached the host's queue is counted exactly once. */
export interface EventCounters {
  /** Written to the guest's queue. */
  delivered: number;
  /** The host's queue had no room for them. */
  lostInHost: number;
  /** The device did not take them: the guest's queue was disabled, or its memory refused the write. */
  refused: number;
  /** Still in the host's queue when it was closed. */
  discarded: number;
  /** Bytes that made no record. */
  malformed: number;
  /** Reads that failed. */
  readErrors: number;
}

/** Most records that one read takes, and one turn of the event loop delivers. */
export const READ_RECORDS = 64;

const HEADER_SIZE = iommufd_vevent_header.size;
const HEADER_WORDS = HEADER_SIZE / 4;

/** Reads that empty a queue: it holds no more than its depth, and one LOST header. */
const readsFor = (veventq: Veventq | undefined): number =>
  veventq === undefined ? 0 : Math.ceil(veventq.depth / READ_RECORDS) + 1;

export class EventBridge implements QueueReader {
  readonly counters: EventCounters = {
    delivered: 0,
    lostInHost: 0,
    refused: 0,
    discarded: 0,
    malformed: 0,
    readErrors: 0,
  };
  /** Delivered events by StreamID. */
  readonly bySid = new Map<number, number>();
  readonly #sink: EventSink;
  readonly #filter: RecordFilter;
  /** Room for a full read, and for the LOST header that may follow it. */
  readonly #buffer = new Uint8Array(READ_RECORDS * VEVENT_ARM_SMMUV3_SIZE + HEADER_SIZE);
  readonly #words = new Uint32Array(this.#buffer.buffer);
  /** Element n is the buffer cut for n records, so that a read takes no more than the guest has room for. */
  readonly #views = Array.from({ length: READ_RECORDS + 1 }, (_, n) =>
    this.#buffer.subarray(0, n * VEVENT_ARM_SMMUV3_SIZE + HEADER_SIZE),
  );
  readonly #record = new Uint32Array(EVENT_WORDS);
  readonly #onReadable = (): void => this.#turn();
  #veventq: Veventq | undefined;
  #watch: Watch | undefined;
  /** Bytes that were read and not delivered: #buffer[#at..#end). */
  #at = 0;
  #end = 0;
  /** Records that were taken out of the host for a snapshot, oldest first; they come before all that is in there. */
  #backlog: Uint32Array[] = [];
  /** Sequence number of the next event, if none is lost. */
  #expected = 0;

  constructor(sink: EventSink, filter: RecordFilter = NO_FILTER) {
    this.#sink = sink;
    this.#filter = filter;
  }

  /** Waits for room in the guest's queue. */
  get paused(): boolean {
    return this.#veventq !== undefined && this.#watch === undefined;
  }

  open(veventq: Veventq): void {
    this.#veventq = veventq;
    this.#at = 0;
    this.#end = 0;
    this.#expected = 0;
    if (this.#deliverBacklog()) this.#resumeWatch();
  }

  /**
   * Takes everything out of the host's queue, to be delivered from here when the guest has room.
   * @returns copies of the records that the guest has not got yet, oldest first; losses have been shown to it.
   */
  drain(): readonly Uint32Array[] {
    const veventq = this.#veventq;
    this.#putBack();
    for (let reads = readsFor(veventq); reads > 0; reads--) {
      const bytes = veventq!.read(this.#buffer);
      if (bytes < 0) this.#readFailed(-bytes);
      if (bytes <= 0) break;
      this.#at = 0;
      this.#end = bytes;
      this.#putBack();
    }
    if (this.#backlog.length > 0) this.#pause();
    return this.#backlog.map((record) => record.slice());
  }

  /** Records that a snapshot has: they are the guest's first. */
  restore(records: readonly Uint32Array[]): void {
    this.#backlog = records.map((record) => record.slice());
  }

  /** The guest's queue that they were for is gone. */
  dropBacklog(): void {
    this.counters.discarded += this.#backlog.length;
    this.#backlog = [];
  }

  /** Moves the records in the buffer to the backlog. */
  #putBack(): void {
    while (this.#at < this.#end) if (this.#takeRecord()) this.#backlog.push(this.#record.slice());
  }

  /** @returns false if the guest has no room for what is left. */
  #deliverBacklog(): boolean {
    let done = 0;
    let full = false;
    while (!full && done < this.#backlog.length) {
      this.#record.set(this.#backlog[done]);
      full = !this.#send();
      if (!full) done++;
    }
    this.#backlog.splice(0, done);
    return !full;
  }

  close(): void {
    const veventq = this.#veventq;
    this.#pause();
    this.#veventq = undefined;
    if (veventq === undefined) return;
    this.dropBacklog();
    this.#discard();
    for (let reads = readsFor(veventq); reads > 0; reads--) {
      const bytes = veventq.read(this.#buffer);
      if (bytes <= 0) break;
      this.#at = 0;
      this.#end = bytes;
      this.#discard();
    }
  }

  /**
   * The guest's queue may have room again. Nothing is read here: this is the guest's own register write, and it is not
   * made to wait.
   */
  resume(): void {
    const waiting = this.paused || this.#backlog.length > 0;
    if (!waiting || this.#sink.eventQueueSpace() === 0) return;
    this.#resumeWatch();
    if (!this.#deliverBacklog() || !this.#deliver()) this.#pause();
    this.#filter.turned(false);
  }

  /** One turn of the event loop: one read. Other watches have their turn before the next. */
  #turn(): void {
    const space = this.#sink.eventQueueSpace();
    if (space === 0) {
      this.#pause();
      return;
    }
    const records = Math.min(space, READ_RECORDS);
    const bytes = this.#veventq!.read(this.#views[records]);
    if (bytes < 0) this.#readFailed(-bytes);
    if (bytes > 0) {
      this.#at = 0;
      this.#end = bytes;
      if (!this.#deliver()) this.#pause();
    }
    // 0 is an empty queue, not an end.
    this.#filter.turned(bytes >= 0 && bytes < records * VEVENT_ARM_SMMUV3_SIZE);
  }

  /**
   * Delivers what is in the buffer. A record may raise an interrupt, and a guest in this process may then close the
   * queue or open another one before the next: both empty the buffer.
   * @returns false if the guest has no room for what is left.
   */
  #deliver(): boolean {
    while (this.#at < this.#end) {
      const at = this.#at;
      if (!this.#takeRecord() || this.#send()) continue;
      this.#at = at;
      // What was lost before it has been shown.
      this.#expected = this.#words[at / 4 + 1];
      return false;
    }
    return true;
  }

  /** Takes the next record into #record, under the name that is due. @returns false if there was a header alone. */
  #takeRecord(): boolean {
    const size = this.#takeHeader();
    if (size === HEADER_SIZE) return false;
    const from = (this.#at - size) / 4 + HEADER_WORDS;
    for (let i = 0; i < EVENT_WORDS; i++) this.#record[i] = this.#words[from + i];
    this.#filter.rename(this.#record);
    return true;
  }

  /** Gives #record to the guest. @returns false if it has no room. */
  #send(): boolean {
    const status = this.#sink.recordEvent(this.#record);
    if (status === EVENT.Full) return false;
    if (status === EVENT.Queued) this.#count();
    else this.counters.refused++;
    return true;
  }

  /**
   * Takes the header at #at, with the record behind it if there is one, and reports what was lost before it.
   * @returns the size of what was taken: that of a header alone, or of a record.
   */
  #takeHeader(): number {
    const left = this.#end - this.#at;
    const at = this.#at / 4;
    const lost = left >= HEADER_SIZE && (this.#words[at] & IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0;
    if (left < HEADER_SIZE || (!lost && left < VEVENT_ARM_SMMUV3_SIZE)) {
      // The kernel never splits a record: whatever this is, an event was in it.
      this.counters.malformed += left;
      this.#at = this.#end;
      this.#sink.eventsLost();
      return HEADER_SIZE;
    }
    const sequence = this.#words[at + 1] & VEVENT_SEQUENCE_MAX;
    // The number of a LOST header is that of the last lost event, that of a record its own.
    const missing = ((sequence - this.#expected) & VEVENT_SEQUENCE_MAX) + (lost ? 1 : 0);
    const size = lost ? HEADER_SIZE : VEVENT_ARM_SMMUV3_SIZE;
    this.#expected = (sequence + 1) & VEVENT_SEQUENCE_MAX;
    this.#at += size;
    if (missing > 0) {
      this.counters.lostInHost += missing;
      this.#sink.eventsLost();
    }
    return size;
  }

  #count(): void {
    this.counters.delivered++;
    const sid = EVENT_RECORD.StreamID.get(this.#record);
    this.bySid.set(sid, (this.bySid.get(sid) ?? 0) + 1);
  }

  /** Counts the records in the buffer without delivering them. */
  #discard(): void {
    while (this.#at < this.#end) {
      const left = this.#end - this.#at;
      if (left < HEADER_SIZE) break;
      const at = this.#at / 4;
      const lost = (this.#words[at] & IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0;
      const sequence = this.#words[at + 1] & VEVENT_SEQUENCE_MAX;
      this.counters.lostInHost += ((sequence - this.#expected) & VEVENT_SEQUENCE_MAX) + (lost ? 1 : 0);
      this.#expected = (sequence + 1) & VEVENT_SEQUENCE_MAX;
      if (!lost) this.counters.discarded++;
      this.#at += lost ? HEADER_SIZE : VEVENT_ARM_SMMUV3_SIZE;
    }
    this.#at = 0;
    this.#end = 0;
  }

  #readFailed(errno: number): void {
    this.counters.readErrors++;
    if (errno === ERRNO.EINTR || errno === ERRNO.EAGAIN || errno === ERRNO.ENOMEM) return;
    // It would fail again at once and for ever. Events are lost from here, and the guest is told so.
    this.#pause();
    this.#sink.eventsLost();
  }

  #resumeWatch(): void {
    this.#watch ??= this.#veventq?.onReadable(this.#onReadable);
  }

  #pause(): void {
    this.#watch?.stop();
    this.#watch = undefined;
  }
}
