/** A guest's SMMU whose registers and stream table a test sets; it tells its backend what the device model would. */

import type { GuestSmmu } from '../../src/accel/accelerator.ts';
import { PAGE_REQUEST, type PageRequestStatus } from '../../src/smmu/page-request.ts';
import { EVENT, type EventStatus, type StreamBackend } from '../../src/smmu/ports.ts';
import { OUTCOME, type Outcome, type Transaction, type Translation } from '../../src/smmu/transaction.ts';

const MAX_SID = 0xffff;

export class ScriptedGuest implements GuestSmmu {
  smmuEnabled = false;
  gbpaAbort = false;
  eventqEnabled = false;
  eventqLog2Size = 7;
  priqEnabled = false;
  readonly registers = new Uint32Array(0x4000);
  /** Words of each STE, or the event that reading it raises; C_BAD_STREAMID (2) if absent. */
  readonly stes = new Map<number, readonly number[] | number>();
  readonly events: Uint32Array[] = [];
  lost = 0;
  room = 1000;
  readonly #backend: StreamBackend;

  constructor(backend: StreamBackend) {
    this.#backend = backend;
    this.registers[0xa0 >>> 2] = 0x4000_0000;
  }

  lookupSte(sid: number, into: Uint32Array): number {
    const ste = this.stes.get(sid) ?? 2;
    if (typeof ste === 'number') return ste;
    into.fill(0);
    into.set(ste);
    return 0;
  }
  recordEvent(words: Uint32Array): EventStatus {
    if (this.room === 0) return EVENT.Full;
    this.room--;
    this.events.push(words.slice());
    return EVENT.Queued;
  }
  eventQueueSpace(): number {
    return this.eventqEnabled ? this.room : 0;
  }
  eventsLost(): void {
    this.lost++;
  }

  /** The tables are of no interest to this guest: every walk ends with F_TRANSLATION. */
  observe(_transaction: Transaction, result: Translation): Outcome {
    result.event = 0x10;
    return OUTCOME.Abort;
  }
  pageRequest(): PageRequestStatus {
    return PAGE_REQUEST.Unsupported;
  }

  setSmmuen(on: boolean): void {
    if (this.smmuEnabled === on) return;
    this.smmuEnabled = on;
    this.#backend.streamsChanged(0, MAX_SID);
  }
  setGbpa(abort: boolean): void {
    this.gbpaAbort = abort;
    if (!this.smmuEnabled) this.#backend.streamsChanged(0, MAX_SID);
  }
  setEventqen(on: boolean): void {
    if (this.eventqEnabled === on) return;
    this.eventqEnabled = on;
    this.#backend.eventQueueChanged();
  }
  /** EVENTQ_BASE; ignored while EVENTQEN=1. */
  setEventqBase(lo: number, log2Size: number): void {
    if (this.eventqEnabled) return;
    this.registers[0xa0 >>> 2] = (lo & ~0x1f) | log2Size;
    this.eventqLog2Size = log2Size;
    this.#backend.eventQueueChanged();
  }
  /** Writes an STE and tells the SMMU, as Linux does. */
  setSte(sid: number, ste: readonly number[] | number): void {
    this.stes.set(sid, ste);
    this.#backend.streamsChanged(sid, sid);
  }
  cfgiAll(): void {
    this.#backend.streamsChanged(0, MAX_SID);
  }
  consMoved(): void {
    this.#backend.eventQueueChanged();
  }
  reset(): void {
    this.smmuEnabled = false;
    this.gbpaAbort = false;
    this.eventqEnabled = false;
    this.eventqLog2Size = 0;
    this.registers.fill(0);
    this.#backend.streamsChanged(0, MAX_SID);
    this.#backend.eventQueueChanged();
  }
}

/** STE words: V=1 and a Config. */
export const ABORT_STE = [0b0001];
export const BYPASS_STE = [0b1001];
/** Stage 1 with its context descriptor at this address. */
export const s1Ste = (contextPtr: number): readonly number[] => [0b1011 | contextPtr, 0, 0x54, 0];
