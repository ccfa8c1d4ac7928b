import { EVENT_WORDS } from '../spec/events.ts';
import type { EventRecord } from './event-record.ts';
import { EVENT, type EventStatus } from './ports.ts';
import { Transaction } from './transaction.ts';

/** More stalled transactions than this are terminated, whatever IDR5.STALL_MAX says. */
const STALLS_MAX = 4096;

/** A transaction that waits for CMD_RESUME or CMD_STALL_TERM. */
class Stalled {
  readonly transaction = new Transaction();
  readonly words = new Uint32Array(EVENT_WORDS);
  waiting = false;
  /** Its record could not be written yet. */
  unrecorded = false;
  /** Something was invalidated since: its record may not be written any more. */
  stale = false;
}

/** The stalled transactions by STAG (3.12.2). Objects are made when first needed and reused. */
export class Stalls {
  readonly #capacity: number;
  readonly #record: (words: Uint32Array) => EventStatus;
  readonly #slots: Stalled[] = [];
  /** STAGs that are free. */
  readonly #free: number[] = [];
  #unrecorded = 0;
  count = 0;

  constructor(STALL_MAX: number, record: (words: Uint32Array) => EventStatus) {
    this.#capacity = Math.min(STALL_MAX, STALLS_MAX);
    this.#record = record;
  }

  /**
   * Takes a transaction in and records its event with Stall=1; a record that cannot be written now is kept (7.2.1).
   * @returns its STAG, or -1 if there is none left
   */
  add(transaction: Transaction, event: EventRecord): number {
    let stag = this.#free.pop();
    if (stag === undefined) {
      if (this.#slots.length >= this.#capacity) return -1;
      stag = this.#slots.length;
      this.#slots.push(new Stalled());
    }
    const stalled = this.#slots[stag];
    copyTransaction(transaction, stalled.transaction);
    event.stalled(stag);
    stalled.words.set(event.words);
    stalled.waiting = true;
    stalled.stale = false;
    this.count += 1;
    stalled.unrecorded = this.#record(stalled.words) !== EVENT.Queued;
    if (stalled.unrecorded) this.#unrecorded += 1;
    return stag;
  }

  /** The transaction that waits under this name, which is free afterwards; undefined if there is none (4.7.1). */
  take(sid: number, stag: number): Transaction | undefined {
    const stalled = this.#slots[stag];
    if (stalled === undefined || !stalled.waiting || stalled.transaction.sid !== sid) return undefined;
    stalled.waiting = false;
    if (stalled.unrecorded) {
      stalled.unrecorded = false;
      this.#unrecorded -= 1;
    }
    this.count -= 1;
    this.#free.push(stag);
    return stalled.transaction;
  }

  /** Highest STAG ever used, plus one. */
  get size(): number {
    return this.#slots.length;
  }

  /** StreamID of the transaction that waits under this name, or -1. */
  sidOf(stag: number): number {
    const stalled = this.#slots[stag];
    return stalled.waiting ? stalled.transaction.sid : -1;
  }

  /**
   * Configuration or translations were invalidated. A record that was not written by now may tell of what they were
   * before, which must not appear behind the CMD_SYNC (4.7.3). Which transactions are affected is not worked out: any
   * may be tried again instead of being recorded (3.12.2).
   */
  invalidated(): void {
    if (this.#unrecorded === 0) return;
    for (const stalled of this.#slots) if (stalled.waiting && stalled.unrecorded) stalled.stale = true;
  }

  /**
   * Writes the records that were kept, as far as there is room.
   * @param retry releases the transaction of this name and tries it again: its record is stale
   */
  recordKept(retry: (sid: number, stag: number) => void): void {
    for (let stag = 0; this.#unrecorded > 0 && stag < this.#slots.length; stag++) {
      const stalled = this.#slots[stag];
      if (!stalled.waiting || !stalled.unrecorded) continue;
      if (stalled.stale) {
        retry(stalled.transaction.sid, stag);
        continue;
      }
      if (this.#record(stalled.words) !== EVENT.Queued) return;
      stalled.unrecorded = false;
      this.#unrecorded -= 1;
    }
  }
}

/** Copies every field. */
export function copyTransaction(from: Transaction, to: Transaction): void {
  to.kind = from.kind;
  to.sid = from.sid;
  to.ssid = from.ssid;
  to.ssv = from.ssv;
  to.addrHi = from.addrHi;
  to.addrLo = from.addrLo;
  to.write = from.write;
  to.privileged = from.privileged;
  to.instruction = from.instruction;
  to.noWrite = from.noWrite;
  to.mayStall = from.mayStall;
}
