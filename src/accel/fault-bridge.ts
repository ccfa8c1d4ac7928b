/**
 * From the host's FAULT_QUEUE to the guest's event queue, and back: a transaction that the physical SMMU stalled is a
 * stall record of the guest's own SMMU, and CMD_RESUME answers it. Such a record is never merged and never lost (7.2.1):
 * while there is no room it waits, and what is still in the host waits there.
 */

import type { FaultQueue } from '../iommufd/fault-queue.ts';
import { EventRecord } from '../smmu/event-record.ts';
import { Fault } from '../smmu/fault.ts';
import { EVENT, type EventStatus, type StallCommandPort, type Trace } from '../smmu/ports.ts';
import { Transaction } from '../smmu/transaction.ts';
import { EVENT_CLASS, EVENT_TYPE, EVENT_WORDS } from '../spec/events.ts';
import type { FaultReader } from './actual.ts';
import { FaultPipe } from './fault-pipe.ts';
import { STALLS_MAX } from './recoverable-faults.ts';
import { StallSlots } from './stall-slots.ts';

/** What the bridge needs of the guest's SMMU, and of the accelerator. */
export interface StallSink {
  recordEvent(words: Uint32Array): EventStatus;
  /** Records that can be written now. */
  eventQueueSpace(): number;
  /** StreamID of a device, or -1 if it has none. */
  sidOf(deviceId: number): number;
  /** EventType of a stage 1 fault of a transaction, by the guest's tables as they are; 0 if it would pass. */
  typeOf(transaction: Transaction): number;
}

/** Most faults that one turn of the event loop takes. */
export const READ_FAULTS = 64;

/** How often a record is written to a queue that says that it takes it. */
const ATTEMPTS = 2;

export class FaultBridge implements FaultReader, StallCommandPort {
  readonly #sink: StallSink;
  readonly #pipe: FaultPipe;
  /** Made when first needed: a machine without stalls has none. */
  #slots: StallSlots | undefined;
  readonly #transaction = new Transaction();
  readonly #fault = new Fault();
  readonly #event = new EventRecord();
  /** STAGs whose records wait for room, oldest first, and the records: #firstHeld..#endHeld. */
  readonly #held = new Uint16Array(READ_FAULTS);
  readonly #heldWords = new Uint32Array(READ_FAULTS * EVENT_WORDS);
  #firstHeld = 0;
  #endHeld = 0;
  /** {@link #deliverHeld} is at work, and the guest may call back from there. */
  #delivering = false;
  /**
   * Faults that may be of before the last invalidation, at most: what was in the host then and is not read yet. One that
   * the guest's tables let pass now is tried again. The number keeps a guest whose caches say otherwise from making us
   * do so for ever.
   */
  #stale = 0;
  /** Counts invalidations. */
  #invalidations = 0;

  constructor(sink: StallSink, trace?: Trace) {
    this.#sink = sink;
    this.#pipe = new FaultPipe(READ_FAULTS, () => this.#turn(), trace);
    this.#fault.cls = EVENT_CLASS.IN;
  }

  get counters(): FaultPipe['counters'] {
    return this.#pipe.counters;
  }

  /** Waits for room in the guest's queue, or for answers. */
  get paused(): boolean {
    return this.#pipe.paused;
  }

  /** Stalled transactions that wait for an answer, those whose records wait for room included. */
  get outstanding(): number {
    return this.#slots?.used ?? 0;
  }

  open(queue: FaultQueue): void {
    this.#slots ??= new StallSlots();
    this.#pipe.open(queue);
  }

  close(): void {
    this.#endAll('ended');
    this.#pipe.close();
  }

  forget(deviceId: number): void {
    const slots = this.#slots;
    this.#pipe.forget(deviceId);
    if (slots === undefined || slots.used === 0) return;
    for (let stag = 0; stag < slots.size; stag++)
      if (slots.isOfDevice(stag, deviceId)) {
        slots.release(stag);
        this.counters.forgotten++;
      }
    this.#resumeReading();
  }

  /** For a snapshot, which no stalled transaction can be part of: all are tried again, and may stall anew. */
  releaseAll(): void {
    this.#endAll('released');
    this.#resumeReading();
  }

  /** For a snapshot: names that the guest may know, and none of which waits. */
  get givenStags(): readonly number[] {
    return this.#slots?.given ?? [];
  }

  /** Those of a snapshot: they come again last, as if they had been given out here. No queue was open yet. */
  restoreStags(given: readonly number[]): void {
    this.#slots = given.length === 0 ? undefined : new StallSlots(given);
  }

  /**
   * The guest has invalidated something. A record that is not in its queue by now may tell of what was before, which
   * must not appear behind the CMD_SYNC (4.7.3): those transactions are tried again instead.
   */
  invalidated(): void {
    if (!this.#pipe.isOpen) return;
    this.#stale = STALLS_MAX;
    this.#invalidations++;
    if (this.#firstHeld === this.#endHeld) return;
    const slots = this.#slots!;
    for (let i = this.#firstHeld; i < this.#endHeld; i++)
      if (slots.isHeld(this.#held[i])) this.#end(this.#held[i], 'released');
    this.#firstHeld = this.#endHeld = 0;
    // They may be back at once, and there may still be no room: then the next turn pauses again.
    this.#pipe.resume();
  }

  /** The guest's queue may have room again. Nothing is read here: this is the guest's own register write. */
  roomAppeared(): void {
    if (!this.#pipe.isOpen || !this.#deliverHeld()) return;
    this.#resumeReading();
  }

  /** 4.7.1: a STAG of another stream, one that was answered, or one that the guest cannot know does nothing. */
  resume(sid: number, stag: number, retry: boolean): void {
    const slots = this.#slots;
    if (slots === undefined || !this.#pipe.isOpen) return;
    if (!slots.isVisible(sid, stag)) {
      this.counters.unknown++;
      return;
    }
    // CMD_RESUME.Ab=0, RAZ/WI, is no answer that a host takes: without TERM_MODEL=1 too it is an abort.
    this.#end(stag, retry ? 'retried' : 'aborted');
    this.#resumeReading();
  }

  terminateStalls(sid: number): void {
    const slots = this.#slots;
    if (slots === undefined || slots.usedBy(sid) === 0) return;
    for (let stag = 0; stag < slots.size; stag++) if (slots.isOf(stag, sid)) this.#end(stag, 'aborted');
    this.#resumeReading();
  }

  #end(stag: number, ending: 'retried' | 'aborted' | 'released' | 'ended'): void {
    const cookie = this.#slots!.cookie(stag);
    this.#slots!.release(stag);
    this.#pipe.answer(cookie, ending);
  }

  #endAll(ending: 'released' | 'ended'): void {
    const slots = this.#slots;
    this.#firstHeld = this.#endHeld = 0;
    if (slots === undefined || slots.used === 0) return;
    for (let stag = 0; stag < slots.size; stag++) if (slots.isUsed(stag)) this.#end(stag, ending);
  }

  /** Goes on reading if nothing is in the way. */
  #resumeReading(): void {
    const free = this.#slots?.free ?? 0;
    if (this.#firstHeld === this.#endHeld && free > 0) this.#pipe.resume();
  }

  /** One turn of the event loop: one read. Other watches have their turn before the next. */
  #turn(): void {
    const pipe = this.#pipe;
    const most = Math.min(this.#sink.eventQueueSpace(), this.#slots!.free, READ_FAULTS);
    if (most === 0 || !this.#deliverHeld()) {
      pipe.pause();
      return;
    }
    const invalidations = this.#invalidations;
    const emptied = pipe.fill(most);
    // A record may raise an interrupt, and a guest in this process may then answer, or close this queue: what was read
    // is gone then.
    while (pipe.next()) this.#take();
    // Between the read and an invalidation from inside an interrupt, more may have come to the host.
    if (emptied && this.#invalidations === invalidations) this.#stale = 0;
    if (this.#firstHeld < this.#endHeld) pipe.pause();
  }

  /** Gives the transaction that was read last a name, and its record to the guest. */
  #take(): void {
    const pipe = this.#pipe;
    const slots = this.#slots!;
    const sid = this.#sink.sidOf(pipe.deviceId);
    if (sid < 0 || !pipe.last || slots.free === 0) {
      // Nobody of the guest's, or one of several: a stalled transaction comes alone.
      if (pipe.last) pipe.answer(pipe.cookie, 'ended');
      return;
    }
    const transaction = this.#asked(sid);
    const type = this.#sink.typeOf(transaction);
    if (type === 0 && this.#stale > 0) {
      this.#stale--;
      pipe.answer(pipe.cookie, 'released');
      return;
    }
    const stag = slots.take(sid, pipe.deviceId, pipe.cookie);
    const { privileged, instruction } = transaction;
    const name = type === 0 ? EVENT_TYPE.F_TRANSLATION : type;
    this.#event.translation(name, transaction, this.#fault, privileged, instruction);
    this.#event.stalled(stag);
    if (this.#firstHeld === this.#endHeld && this.#send(stag, this.#event.words)) return;
    this.#held[this.#endHeld] = stag;
    this.#heldWords.set(this.#event.words, this.#endHeld * EVENT_WORDS);
    this.#endHeld++;
  }

  /** The transaction that was read last, as the guest sees it. */
  #asked(sid: number): Transaction {
    const pipe = this.#pipe;
    const transaction = this.#transaction;
    transaction.sid = sid;
    transaction.ssv = pipe.hasPasid;
    transaction.ssid = pipe.hasPasid ? pipe.pasid : 0;
    transaction.addrHi = pipe.addrHi;
    transaction.addrLo = pipe.addrLo;
    transaction.write = pipe.write;
    transaction.privileged = pipe.privileged;
    // 7.3.13: InD is 0 for a write.
    transaction.instruction = pipe.execute && !pipe.write;
    return transaction;
  }

  /** @returns false if the queue does not take the record now, and it is still to be written. */
  #send(stag: number, words: Uint32Array): boolean {
    const slots = this.#slots!;
    const invalidations = this.#invalidations;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      // First: its interrupt may bring the answer before this returns.
      slots.show(stag);
      if (this.#sink.recordEvent(words) === EVENT.Queued) {
        this.counters.delivered++;
        return true;
      }
      // An aborted write has an interrupt too, and the answer may have come from there: the name is free then.
      if (!slots.isUsed(stag)) return true;
      if (this.#invalidations !== invalidations) {
        this.#end(stag, 'released');
        return true;
      }
      slots.hold(stag);
      // Or the guest has acknowledged the abort there: nobody would tell us of that again.
      if (this.#sink.eventQueueSpace() === 0) return false;
    }
    return false;
  }

  /** Writes records that wait. @returns false if there is no room for all. */
  #deliverHeld(): boolean {
    // Called from inside a delivery, which goes on by itself.
    if (this.#delivering) return false;
    this.#delivering = true;
    while (this.#firstHeld < this.#endHeld) {
      const stag = this.#held[this.#firstHeld];
      const at = this.#firstHeld * EVENT_WORDS;
      // It may have been ended while it waited. A STAG that was given back is not out again before all have gone.
      if (this.#slots!.isHeld(stag) && !this.#send(stag, this.#heldWords.subarray(at, at + EVENT_WORDS)))
        break;
      // An interrupt may have brought an invalidation, which released what waited.
      if (this.#firstHeld < this.#endHeld) this.#firstHeld++;
    }
    this.#delivering = false;
    if (this.#firstHeld < this.#endHeld) return false;
    this.#firstHeld = this.#endHeld = 0;
    return true;
  }
}
