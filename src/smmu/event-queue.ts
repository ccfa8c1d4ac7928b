/** The event queue as its producer sees it (IHI 0070 3.5, 7.2, 7.4). */

import { MEM_OK, type Memory } from '../memory/memory.ts';
import { EVENT_RECORD, EVENT_WORDS } from '../spec/events.ts';
import { CR0, EVENTQ_CONS, EVENTQ_PROD, GERROR, IDR1, OFFSET } from '../spec/registers.ts';
import { outputAddressBits, type IdRegisters } from './identification.ts';
import type { Interrupts } from './interrupts.ts';
import { EVENT, type EventStatus, type Trace } from './ports.ts';
import { Queue } from './queue.ts';
import { wordOf, type RegisterFile } from './register-file.ts';

const CR0_WORD = wordOf(OFFSET.CR0);
const BASE_WORD = wordOf(OFFSET.EVENTQ_BASE);
const PROD_WORD = wordOf(OFFSET.EVENTQ_PROD);
const CONS_WORD = wordOf(OFFSET.EVENTQ_CONS);
const ENABLED = CR0.EVENTQEN.inPlace;
const ABORTED = GERROR.EVENTQ_ABT_ERR.inPlace;
const OVFLG = EVENTQ_PROD.OVFLG.inPlace;
const OVACKFLG = EVENTQ_CONS.OVACKFLG.inPlace;

export class EventQueue {
  readonly #page0: Uint32Array;
  readonly #page1: Uint32Array;
  readonly #queue: Queue;
  readonly #memory: Memory;
  readonly #interrupts: Interrupts;
  readonly #trace: Trace | undefined;
  /** The record written last, and PROD behind it; only if the device merges. */
  readonly #last: Uint32Array | undefined;
  #lastProd = -1;
  /** Somebody was told that there is no room, and waits to hear that there is. */
  #sawNoRoom = false;

  constructor(
    ids: IdRegisters,
    registers: RegisterFile,
    memory: Memory,
    interrupts: Interrupts,
    trace: Trace | undefined,
    merges: boolean,
  ) {
    this.#page0 = registers.page0;
    this.#page1 = registers.page1;
    this.#memory = memory;
    this.#interrupts = interrupts;
    this.#trace = trace;
    this.#last = merges ? new Uint32Array(EVENT_WORDS) : undefined;
    this.#queue = new Queue(5, IDR1.EVENTQS.of(ids.IDR1), outputAddressBits(ids));
    this.rebase();
  }

  get enabled(): boolean {
    return (this.#page0[CR0_WORD] & ENABLED) !== 0;
  }

  /** Effective log2 of the number of records. */
  get log2Size(): number {
    return this.#queue.log2Size;
  }

  /** EVENTQ_BASE was written, or reset. */
  rebase(): void {
    this.#queue.rebase(this.#page0, BASE_WORD);
    this.#lastProd = -1;
    this.truncate();
  }

  /** The registers are another device's: whoever waited there for room is told here. */
  restored(): void {
    this.rebase();
    this.#sawNoRoom = true;
  }

  /** Signals again what is in the queue, in case a signal got lost on the way here. */
  resignal(): void {
    if (this.enabled && this.#queue.used(this.#page1[PROD_WORD], this.#page1[CONS_WORD]) !== 0)
      this.#interrupts.eventq();
  }

  /** 6.3.95: bits of the index that the SMMU owns read as zero above its wrap flag. */
  truncate(): void {
    this.#page1[PROD_WORD] &= OVFLG | this.#queue.pointerMask;
  }

  /** Records that can be written now; 0 if the queue is not writable (7.2.1). */
  space(): number {
    if (!this.enabled || (this.#interrupts.active & ABORTED) !== 0) {
      this.#sawNoRoom = true;
      return 0;
    }
    const used = this.#queue.used(this.#page1[PROD_WORD], this.#page1[CONS_WORD]);
    // 3.5.1: pointers that are inconsistent are taken as full.
    const space = Math.max(this.#queue.size - used, 0);
    if (space === 0) this.#sawNoRoom = true;
    return space;
  }

  /** True once after somebody met a queue without room, and now there is some. */
  roomAppeared(): boolean {
    if (!this.#sawNoRoom || this.space() === 0) return false;
    this.#sawNoRoom = false;
    return true;
  }

  /**
   * Writes one record of eight words, publishes it and signals it if the queue was empty.
   * @param mayMerge it need not be written if the newest record, which nobody has read yet, says the same (7.3.1)
   */
  record(words: Uint32Array, mayMerge = false): EventStatus {
    const page1 = this.#page1;
    if (this.#trace !== undefined)
      this.#trace('smmuv3_record_event', EVENT_RECORD.EventID.get(words), EVENT_RECORD.StreamID.get(words));
    // 7.4: what is dropped while the queue is disabled is not an overflow.
    if (!this.enabled) return EVENT.Disabled;
    // 7.2.1: nothing is written while an abort is unacknowledged.
    if ((this.#interrupts.active & ABORTED) !== 0) {
      this.#sawNoRoom = true;
      return EVENT.Aborted;
    }
    const prod = page1[PROD_WORD];
    const queue = this.#queue;
    const used = queue.used(prod, page1[CONS_WORD]);
    const last = this.#last;
    if (mayMerge && last !== undefined && used !== 0 && prod === this.#lastProd && says(last, words))
      return EVENT.Queued;
    if (used >= queue.size) {
      this.#sawNoRoom = true;
      return EVENT.Full;
    }
    if (this.#memory.storeWords(queue.baseHi, queue.entryLo(prod), words, EVENT_WORDS) !== MEM_OK) {
      // 7.2.2: our aborts are synchronous, so PROD does not move and what was published stays good.
      this.#sawNoRoom = true;
      this.#interrupts.activate(ABORTED);
      return EVENT.Aborted;
    }
    page1[PROD_WORD] = (prod & OVFLG) | ((prod + 1) & queue.pointerMask);
    if (last !== undefined) {
      last.set(words);
      this.#lastProd = page1[PROD_WORD];
    }
    // 3.18.2: the interrupt is for the step from empty to non-empty only.
    if (used === 0) this.#interrupts.eventq();
    return EVENT.Queued;
  }

  /** A record was discarded because the queue was full (7.4): shown once until software acknowledges it. */
  overflowed(): void {
    if (!this.enabled) return;
    if (((this.#page1[PROD_WORD] ^ this.#page1[CONS_WORD]) & OVACKFLG) === 0) this.#page1[PROD_WORD] ^= OVFLG;
  }
}

/** 7.3.2 to 7.3.17: records are the same if they differ in InputAddr[11:0] only. */
function says(last: Uint32Array, words: Uint32Array): boolean {
  for (let i = 0; i < EVENT_WORDS; i++)
    if (((last[i] ^ words[i]) & (i === 4 ? ~0xfff : -1)) !== 0) return false;
  return true;
}
