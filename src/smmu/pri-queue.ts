/** The PRI queue as its producer sees it (IHI 0070 3.5, chapter 8). */

import { MEM_OK, type Memory } from '../memory/memory.ts';
import { PRI_RESP } from '../spec/commands.ts';
import { EVENT_TYPE } from '../spec/events.ts';
import { PRI_ENTRY, PRI_ENTRY_WORDS } from '../spec/queues.ts';
import {
  CR0,
  CR2,
  EVENTQ_CONS,
  EVENTQ_PROD,
  GERROR,
  IDR0,
  IDR1,
  IDR3,
  OFFSET,
  PRIQ_IRQ_CFG2,
} from '../spec/registers.ts';
import { STE, STE_WORDS } from '../spec/ste.ts';
import { EventRecord } from './event-record.ts';
import { Fault } from './fault.ts';
import { outputAddressBits, type IdRegisters } from './identification.ts';
import type { Interrupts } from './interrupts.ts';
import { PAGE_REQUEST, type PageRequest, type PageRequestStatus } from './page-request.ts';
import type { PageResponsePort, Trace } from './ports.ts';
import { Queue } from './queue.ts';
import { wordOf, type RegisterFile } from './register-file.ts';
import { Transaction } from './transaction.ts';

const CR0_WORD = wordOf(OFFSET.CR0);
const CR2_WORD = wordOf(OFFSET.CR2);
const BASE_WORD = wordOf(OFFSET.PRIQ_BASE);
const CFG2_WORD = wordOf(OFFSET.PRIQ_IRQ_CFG2);
const PROD_WORD = wordOf(OFFSET.PRIQ_PROD);
const CONS_WORD = wordOf(OFFSET.PRIQ_CONS);
/** 6.3.9.5: PRIQEN has its effect only together with SMMUEN. */
const ENABLED = CR0.PRIQEN.inPlace | CR0.SMMUEN.inPlace;
const ABORTED = GERROR.PRIQ_ABT_ERR.inPlace;
const OVFLG = EVENTQ_PROD.OVFLG.inPlace;
const OVACKFLG = EVENTQ_CONS.OVACKFLG.inPlace;

/** What the queue asks of the rest of the device. */
export interface PriQueueParts {
  readonly registers: RegisterFile;
  readonly memory: Memory;
  readonly interrupts: Interrupts;
  readonly responses: PageResponsePort | undefined;
  /** Reads an STE as `Smmu.lookupSte` does. */
  lookupSte(sid: number, into: Uint32Array): number;
  /** Records an event. */
  record(words: Uint32Array): void;
  readonly trace: Trace | undefined;
}

export class PriQueue {
  readonly #page0: Uint32Array;
  readonly #page1: Uint32Array;
  readonly #parts: PriQueueParts;
  readonly #queue: Queue;
  readonly #supported: boolean;
  readonly #substreams: boolean;
  readonly #PPS: boolean;
  readonly #ATSRECERR: boolean;
  readonly #entry = new Uint32Array(PRI_ENTRY_WORDS);
  readonly #ste = new Uint32Array(STE_WORDS);
  readonly #event = new EventRecord();
  readonly #fault = new Fault();
  readonly #transaction = new Transaction();

  constructor(ids: IdRegisters, parts: PriQueueParts) {
    this.#page0 = parts.registers.page0;
    this.#page1 = parts.registers.page1;
    this.#parts = parts;
    this.#queue = new Queue(4, IDR1.PRIQS.of(ids.IDR1), outputAddressBits(ids));
    this.#supported = IDR0.PRI.of(ids.IDR0) === 1;
    this.#substreams = IDR1.SSIDSIZE.of(ids.IDR1) !== 0;
    this.#PPS = IDR3.PPS.of(ids.IDR3) === 1;
    this.#ATSRECERR = IDR0.ATSRECERR.of(ids.IDR0) === 1;
    this.rebase();
  }

  /** PRIQ_BASE was written, or reset. */
  rebase(): void {
    this.#queue.rebase(this.#page0, BASE_WORD);
    this.truncate();
  }

  /** 6.3.97: bits of the index that the SMMU owns read as zero above its wrap flag. */
  truncate(): void {
    this.#page1[PROD_WORD] &= OVFLG | this.#queue.pointerMask;
  }

  /** Takes one PRI message, or discards it with the automatic response that belongs to the reason. */
  receive(request: PageRequest): PageRequestStatus {
    if (!this.#supported) return PAGE_REQUEST.Unsupported;
    const { interrupts, trace } = this.#parts;
    // Chapter 8: SSV=0 where there are no substreams. Only with a PASID is "last" alone a Stop Marker.
    const ssv = request.ssv && this.#substreams;
    const marker = ssv && request.last && !request.read && !request.write;
    if (trace !== undefined) trace('smmuv3_page_request', request.sid, request.prgIndex);
    // 8.2: for both reasons every page request is answered, the last of its group or not; no PASID.
    if ((this.#page0[CR0_WORD] & ENABLED) !== ENABLED || (interrupts.active & ABORTED) !== 0)
      return this.#discard(request, marker, PRI_RESP.ResponseFailure, false);
    const page1 = this.#page1;
    const queue = this.#queue;
    const prod = page1[PROD_WORD];
    const overflow = ((prod ^ page1[CONS_WORD]) & OVACKFLG) !== 0;
    const used = queue.used(prod, page1[CONS_WORD]);
    // 8.1: unlike the event queue, an unacknowledged overflow keeps everything out, room or not. 3.5.1: pointers that
    // are inconsistent are taken as full.
    if (overflow || used >= queue.size) {
      if (!overflow) page1[PROD_WORD] = (prod ^ OVFLG) >>> 0;
      if (request.last) {
        if (this.#lastOnly) interrupts.priq();
        this.#answerOverflow(request, ssv, marker);
      }
      return PAGE_REQUEST.Discarded;
    }
    this.#encode(request, ssv);
    if (
      this.#parts.memory.storeWords(queue.baseHi, queue.entryLo(prod), this.#entry, PRI_ENTRY_WORDS) !==
      MEM_OK
    ) {
      // 8.2: our aborts are synchronous, so PROD does not move and the request is answered.
      interrupts.activate(ABORTED);
      return this.#discard(request, marker, PRI_RESP.ResponseFailure, false);
    }
    page1[PROD_WORD] = ((prod & OVFLG) | ((prod + 1) & queue.pointerMask)) >>> 0;
    // 6.3.36: LO=1 signals the last request of a group, LO=0 the step from empty to non-empty.
    if (this.#lastOnly ? request.last : used === 0) interrupts.priq();
    return PAGE_REQUEST.Queued;
  }

  get #lastOnly(): boolean {
    return PRIQ_IRQ_CFG2.LO.get(this.#page0, CFG2_WORD) === 1;
  }

  #encode(request: PageRequest, ssv: boolean): void {
    const entry = this.#entry;
    entry.fill(0);
    entry[0] = request.sid;
    if (ssv) {
      PRI_ENTRY.SSV.set(entry, 1);
      PRI_ENTRY.SubstreamID.set(entry, request.ssid);
      // 8: X and Priv are 0 without a PASID.
      PRI_ENTRY.X.set(entry, request.execute ? 1 : 0);
      PRI_ENTRY.Priv.set(entry, request.privileged ? 1 : 0);
    }
    PRI_ENTRY.R.set(entry, request.read ? 1 : 0);
    PRI_ENTRY.W.set(entry, request.write ? 1 : 0);
    PRI_ENTRY.Last.set(entry, request.last ? 1 : 0);
    PRI_ENTRY.PRGIndex.set(entry, request.prgIndex);
    PRI_ENTRY.Addr.set(entry, request.addrHi, request.addrLo);
  }

  /** 8.2: nobody answers a Stop Marker. */
  #discard(request: PageRequest, marker: boolean, response: number, ssv: boolean): PageRequestStatus {
    if (!marker)
      this.#parts.responses?.respond(
        request.sid,
        ssv,
        ssv ? request.ssid : 0,
        request.prgIndex & 0x1ff,
        response,
      );
    return PAGE_REQUEST.Discarded;
  }

  /** 8.1: which answer the last request of a group gets that met an overflow. */
  #answerOverflow(request: PageRequest, ssv: boolean, marker: boolean): void {
    if (marker) return;
    let PASID = ssv;
    let response: number = PRI_RESP.Success;
    if (ssv && !this.#PPS) {
      const status = this.#parts.lookupSte(request.sid, this.#ste);
      PASID = status === 0 && STE.PPAR.get(this.#ste) === 1;
      if (status !== 0) {
        response = PRI_RESP.ResponseFailure;
        this.#recordSteError(status, request);
      }
    }
    this.#discard(request, marker, response, PASID);
  }

  /** 8.1: the check of PPAR found no good STE; software hears of it only if it asked to. */
  #recordSteError(type: number, request: PageRequest): void {
    if (!this.#ATSRECERR || CR2.REC_CFG_ATS.get(this.#page0, CR2_WORD) === 0) return;
    if (type === EVENT_TYPE.C_BAD_STREAMID && CR2.RECINVSID.get(this.#page0, CR2_WORD) === 0) return;
    const transaction = this.#transaction;
    transaction.sid = request.sid;
    transaction.ssv = true;
    transaction.ssid = request.ssid;
    if (type === EVENT_TYPE.F_STE_FETCH) this.#fault.fetch(this.#ste[1], this.#ste[0]);
    this.#event.configuration(type, transaction, this.#fault);
    this.#parts.record(this.#event.words);
  }
}
