/**
 * From the host's vEVENTQ to the guest's event queue. What is lost on the way shows to the guest as an overflow.
 *
 * While the guest has no room, the records of a single device stay in the kernel: its queue is the guest's buffer. Devices
 * that share the queue would fill it for each other, so theirs are taken out and wait here, each stream for itself.
 *
 * No record is of a stalled transaction, which an SMMU must not drop (7.4): the kernel puts none into a vEVENTQ, and the
 * guest's STE has S1STALLD where the hardware could stall.
 */

import type { Watch } from '../iommufd/kernel.ts';
import { ERRNO } from '../iommufd/uapi/errno.ts';
import { VEVENT_ARM_SMMUV3_SIZE } from '../iommufd/uapi/vevent.ts';
import type { Veventq } from '../iommufd/veventq.ts';
import { EVENT, type EventStatus } from '../smmu/ports.ts';
import { EVENT_RECORD, EVENT_WORDS } from '../spec/events.ts';
import type { QueueReader } from './actual.ts';
import { EventBacklog } from './event-backlog.ts';
import { EventTally, type EventCounters, type StreamEventCounters } from './event-counters.ts';
import { READ_RECORDS, readsFor, VeventReader } from './vevent-reader.ts';

/** The guest's side: the SMMU that it sees. */
export interface EventSink {
  recordEvent(words: Uint32Array): EventStatus;
  /** Records that can be written now. */
  eventQueueSpace(): number;
  /** Tells the guest of a loss: toggles OVFLG unless an overflow is unacknowledged, or the queue is off. */
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

/** Most records that wait here for a guest, however large its queue: 128 KiB. */
export const BACKLOG_MAX = 4096;
/** Records for which each device has room at least, however small the guest's queue. */
const DEVICE_SHARE = 2;

export class EventBridge implements QueueReader {
  readonly #tally = new EventTally();
  readonly #backlog = new EventBacklog();
  readonly #reader = new VeventReader();
  readonly #sink: EventSink;
  readonly #filter: RecordFilter;
  readonly #record = new Uint32Array(EVENT_WORDS);
  readonly #onReadable = (): void => this.#turn();
  #veventq: Veventq | undefined;
  #watch: Watch | undefined;
  /** Devices whose events come through the vEVENTQ. */
  #devices = 0;
  /** Records are on their way to the guest, which may call back from there. */
  #busy = false;

  constructor(sink: EventSink, filter: RecordFilter = NO_FILTER) {
    this.#sink = sink;
    this.#filter = filter;
  }

  get counters(): Readonly<EventCounters> {
    return this.#tally.all;
  }

  /** What is known of each StreamID. */
  get bySid(): ReadonlyMap<number, Readonly<StreamEventCounters>> {
    return this.#tally.bySid;
  }

  /** Waits for room in the guest's queue. */
  get paused(): boolean {
    return this.#veventq !== undefined && this.#watch === undefined;
  }

  /** Records that were taken out of the host's queue, and that the guest has no room for. */
  get backlog(): number {
    return this.#backlog.length;
  }

  /** StreamIDs of those, in the order in which the guest will get them. */
  get waiting(): readonly number[] {
    return this.#backlog.records.map((record) => EVENT_RECORD.StreamID.get(record));
  }

  open(veventq: Veventq): void {
    this.#veventq = veventq;
    this.#reader.begin();
    if (this.#flush() || this.#shared) this.#resumeWatch();
  }

  share(devices: number): void {
    const wasShared = this.#shared;
    this.#devices = devices;
    // What filled the kernel's queue must not be in the way of the newcomer.
    if (this.#shared && !wasShared) this.#resumeWatch();
  }

  /**
   * Takes everything out of the host's queue, to be delivered from here when the guest has room: {@link resume}.
   * @returns copies of the records that the guest has not got yet, in the order in which it will; losses have been shown
   * to it.
   */
  drain(): readonly Uint32Array[] {
    const veventq = this.#veventq;
    this.#putBack();
    for (let reads = veventq === undefined ? 0 : readsFor(veventq); reads > 0; reads--) {
      const bytes = this.#reader.read(veventq!, READ_RECORDS);
      if (bytes < 0) this.#readFailed(-bytes);
      if (bytes <= 0) break;
      this.#putBack();
    }
    if (this.#backlog.length > 0 && !this.#shared) this.#pause();
    return this.#backlog.records;
  }

  /** What was read waits here, however much it is. */
  #putBack(): void {
    while (!this.#reader.empty) if (this.#takeDue()) this.#backlog.append(this.#record);
  }

  /** Records that a snapshot has: they are the guest's first. */
  restore(records: readonly Uint32Array[]): void {
    this.#backlog.clear();
    for (const record of records) this.#backlog.append(record);
  }

  /** The guest's queue that they were for is gone. */
  dropBacklog(): void {
    this.#backlog.clear((sid, records) => this.#tally.notDelivered('discarded', sid, records));
  }

  close(): void {
    const veventq = this.#veventq;
    this.#pause();
    this.#veventq = undefined;
    if (veventq === undefined) return;
    const before = this.counters.discarded;
    this.dropBacklog();
    this.#discard();
    for (let reads = readsFor(veventq); reads > 0; reads--) {
      if (this.#reader.read(veventq, READ_RECORDS) <= 0) break;
      this.#discard();
    }
    // The last device may have gone while the guest still listens.
    if (this.counters.discarded > before) this.#sink.eventsLost();
  }

  /**
   * The guest's queue may have room again. Nothing is read here: this is the guest's own register write, and it is not
   * made to wait. What waits here goes to it, as far as there is room.
   */
  resume(): void {
    // Called from inside a delivery, which goes on by itself.
    if (this.#busy) return;
    const waiting = this.paused || this.#backlog.length > 0;
    if (!waiting || this.#sink.eventQueueSpace() === 0) return;
    if (this.#flush()) this.#resumeWatch();
    this.#filter.turned(false);
  }

  get #shared(): boolean {
    return this.#devices > 1;
  }

  /** One turn of the event loop: one read. Other watches have their turn before the next. */
  #turn(): void {
    const space = this.#flush() ? this.#sink.eventQueueSpace() : 0;
    if (space === 0 && !this.#shared) {
      this.#pause();
      return;
    }
    const veventq = this.#veventq;
    if (veventq === undefined) return;
    const records = this.#shared ? READ_RECORDS : Math.min(space, READ_RECORDS);
    const bytes = this.#reader.read(veventq, records);
    if (bytes < 0) this.#readFailed(-bytes);
    if (bytes > 0) this.#deliver(space > 0);
    // 0 is an empty queue, not an end.
    this.#filter.turned(bytes >= 0 && bytes < records * VEVENT_ARM_SMMUV3_SIZE);
  }

  /**
   * Delivers what was read; what the guest has no room for waits here. A record may raise an interrupt, and a guest in
   * this process may then close the queue or open another one before the next: both leave nothing to be taken.
   * @param hasRoom the guest takes records now; not one whose memory refused a write, until it has seen that (7.2.1).
   */
  #deliver(hasRoom: boolean): void {
    this.#busy = true;
    while (!this.#reader.empty) {
      if (!this.#takeDue()) continue;
      const status = hasRoom && this.#backlog.length === 0 ? this.#send() : EVENT.Full;
      if (status === EVENT.Full) this.#keep();
      else if (status !== EVENT.Queued) hasRoom = this.#sink.eventQueueSpace() > 0;
    }
    this.#busy = false;
    if (this.#backlog.length > 0 && !this.#shared) this.#pause();
  }

  /** Delivers what waits here, each stream in its turn. @returns false if the guest has no room for what is left. */
  #flush(): boolean {
    if (this.#backlog.length === 0) return true;
    if (this.#busy || this.#sink.eventQueueSpace() === 0) return false;
    this.#busy = true;
    let hasRoom = true;
    while (hasRoom && this.#backlog.length > 0) {
      // Taken out before it is sent: in between, the guest may end the life of the queue, and all that waits.
      this.#backlog.take(this.#record);
      const status = this.#send();
      if (status === EVENT.Queued) continue;
      if (status === EVENT.Full) this.#backlog.giveBack(this.#record);
      hasRoom = status !== EVENT.Full && this.#sink.eventQueueSpace() > 0;
    }
    this.#busy = false;
    return hasRoom;
  }

  /** Keeps #record for later. A full backlog is no reason to stop: the kernel's queue would fill up, for all devices. */
  #keep(): void {
    if (this.#shared && this.#backlog.length >= this.#limit) {
      const sid = EVENT_RECORD.StreamID.get(this.#record);
      const loser = this.#backlog.crowdOut(sid);
      this.#tally.notDelivered('crowdedOut', loser);
      this.#sink.eventsLost();
      if (loser === sid) return;
    }
    this.#backlog.append(this.#record);
  }

  /** Records that may wait here. One device alone is held back before it comes to this. */
  get #limit(): number {
    return Math.max(Math.min(this.#veventq?.depth ?? 0, BACKLOG_MAX), DEVICE_SHARE * this.#devices);
  }

  /** Takes the next record into #record, under the name that is due. @returns false if there was a header alone. */
  #takeDue(): boolean {
    if (!this.#takeRecord()) return false;
    this.#filter.rename(this.#record);
    return true;
  }

  /** Takes the next record into #record, and reports what was lost before it. @returns false if there was none. */
  #takeRecord(): boolean {
    const reader = this.#reader;
    const found = reader.take(this.#record);
    if (reader.lost > 0 || reader.malformed > 0) {
      this.#tally.all.lostInHost += reader.lost;
      this.#tally.all.malformed += reader.malformed;
      this.#sink.eventsLost();
    }
    return found;
  }

  /** Gives #record to the guest, which may have made something else of it when this returns; not if it has no room. */
  #send(): EventStatus {
    const sid = EVENT_RECORD.StreamID.get(this.#record);
    const status = this.#sink.recordEvent(this.#record);
    if (status === EVENT.Queued) this.#tally.delivered(sid);
    else if (status !== EVENT.Full) this.#tally.notDelivered('refused', sid);
    return status;
  }

  /** Counts what was read without delivering it. */
  #discard(): void {
    while (!this.#reader.empty)
      if (this.#takeRecord()) this.#tally.notDelivered('discarded', EVENT_RECORD.StreamID.get(this.#record));
  }

  #readFailed(errno: number): void {
    this.#tally.all.readErrors++;
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
