/**
 * Translation of client transactions: from StreamID and address to a physical address, or to an event. One object
 * serves as the device that a guest drives and, in host/sim, as the physical SMMU. Tables may change under it at any
 * moment: everything is read once, checked, and used from there.
 */

import type { Memory } from '../memory/memory.ts';
import { EVENT_CLASS, EVENT_TYPE } from '../spec/events.ts';
import { CR0, CR2, GBPA, OFFSET } from '../spec/registers.ts';
import { STE_INSTCFG, STE_PRIVCFG } from '../spec/ste.ts';
import { Ats } from './ats.ts';
import { LOG2_CONTEXTS } from './configuration-cache.ts';
import { EventRecord } from './event-record.ts';
import { Fault } from './fault.ts';
import { Features, STALL_MODEL } from './features.ts';
import type { IdRegisters } from './identification.ts';
import { PERM, PRIVILEGED_SHIFT, permissionNeeded } from './permissions.ts';
import type { EventStatus, StallPort, Trace } from './ports.ts';
import { Stalls } from './stalls.ts';
import { PATH, type StreamContext } from './stream-context.ts';
import { StreamContexts } from './stream-contexts.ts';
import { TLB_GLOBAL, TLB_LOG2_SIZE, TLB_PA_HI, TLB_PA_LO, Tlb } from './tlb.ts';
import { KIND, OUTCOME, type Outcome, type Transaction, Translation } from './transaction.ts';
import { Invalidation } from './translator-invalidation.ts';
import type { WalkObserver } from './walk-observer.ts';
import { Stage1Walk } from './walk-stage1.ts';
import { Stage2Walk, beyond } from './walk-stage2.ts';

const CR0_WORD = OFFSET.CR0 >>> 2;
const CR2_WORD = OFFSET.CR2 >>> 2;
const GBPA_WORD = OFFSET.GBPA >>> 2;
const SMMUEN = CR0.SMMUEN.inPlace;

// A number of this module costs nothing where it is used; a property of an imported object is loaded every time.
const READ = PERM.UR;
const TO_PRIVILEGED = PRIVILEGED_SHIFT;
const WRITE = PERM.UW;
const EXECUTE = PERM.UX;
const UNTRANSLATED = KIND.Untranslated;
const OK = OUTCOME.Ok;
const ABORT = PATH.Abort;
const BYPASS = PATH.Bypass;
const STAGE2 = PATH.Stage2;
const NESTED = PATH.Nested;
const IN = EVENT_CLASS.IN;
const GLOBAL = TLB_GLOBAL;
const PA_HI = TLB_PA_HI;
const PA_LO = TLB_PA_LO;
const LOG2_SIZE = TLB_LOG2_SIZE;

/** log2 of the TLB's entries unless told otherwise: 512 KiB, and a working set of 16,384 pages. */
const LOG2_TLB_ENTRIES = 14;
/** A translator with a small TLB gets a configuration cache with four contexts for each of its entries. */
const LOG2_CONTEXTS_PER_ENTRY = 2;

export class Translator {
  /** Who learns what became of stalled transactions; without it nothing stalls. */
  stallPort: StallPort | undefined;
  readonly #features: Features;
  readonly #oasBits: number;
  readonly #registers: Uint32Array;
  readonly #record: (words: Uint32Array, mayMerge: boolean) => EventStatus;
  readonly #fault = new Fault();
  readonly #event = new EventRecord();
  readonly #tlb: Tlb;
  readonly #contexts: StreamContexts;
  readonly #stage1: Stage1Walk;
  readonly #stage2: Stage2Walk;
  readonly #ats: Ats;
  readonly #invalidation: Invalidation;
  readonly #stalls: Stalls;
  /** Result of stalled transactions that are tried again. */
  readonly #retried = new Translation();
  /** Look only: past all caches, without events and without writing anything. */
  #dry = false;
  readonly #retry = (sid: number, stag: number): void => this.resume(sid, stag, true, false);
  /** PnU and InD of the last {@link #override}. */
  #privileged = false;
  #instruction = false;

  /**
   * @param registers page 0 of the register file; CR0, CR2, GBPA and STRTAB_* are read from it when used
   * @param record takes an event record of eight words, which are reused; it may merge it if STE.MEV lets it
   * @param log2TlbEntries 4..20
   */
  constructor(
    ids: IdRegisters,
    registers: Uint32Array,
    memory: Memory,
    record: (words: Uint32Array, mayMerge: boolean) => EventStatus,
    trace?: Trace,
    log2TlbEntries = LOG2_TLB_ENTRIES,
  ) {
    this.#tlb = new Tlb(log2TlbEntries);
    const features = new Features(ids);
    const fault = this.#fault;
    this.#features = features;
    this.#oasBits = features.oasBits;
    this.#registers = registers;
    this.#record = record;
    this.#stage2 = new Stage2Walk(memory, features, this.#tlb, fault);
    this.#stage1 = new Stage1Walk(memory, this.#stage2, fault);
    const log2Contexts = Math.min(log2TlbEntries + LOG2_CONTEXTS_PER_ENTRY, LOG2_CONTEXTS);
    this.#contexts = new StreamContexts(
      features,
      registers,
      memory,
      this.#stage2,
      fault,
      trace,
      log2Contexts,
    );
    this.#ats = new Ats({
      features,
      registers,
      contexts: this.#contexts,
      stage1: this.#stage1,
      stage2: this.#stage2,
      fault,
      event: this.#event,
      send: () => this.#send(false),
    });
    this.#invalidation = new Invalidation(features, registers, this.#tlb, this.#contexts.cache);
    this.#stalls = new Stalls(features.STALL_MAX, (words) => record(words, false));
  }

  /**
   * Translates one transaction, or answers an ATS request. Its event is recorded before this returns.
   * @returns the outcome, which is in `result` too
   */
  translate(transaction: Transaction, result: Translation): Outcome {
    result.event = 0;
    const outcome =
      (this.#registers[CR0_WORD] & SMMUEN) === 0
        ? this.#whileDisabled(transaction, result)
        : transaction.kind === UNTRANSLATED
          ? this.#untranslated(transaction, result)
          : transaction.kind === KIND.AtsRequest
            ? this.#ats.request(transaction, result)
            : this.#ats.translated(transaction, result);
    result.outcome = outcome;
    return outcome;
  }

  /**
   * Reads the STE of a stream from memory, past all caches, and records nothing.
   * @param into 16 words; after F_STE_FETCH the first two are the address that could not be read, low half first
   * @returns 0 if it is there and legal, else the EventType that using it would raise
   */
  lookupSte(sid: number, into: Uint32Array): number {
    const event = this.#contexts.fetchSte(sid, into);
    if (event === EVENT_TYPE.F_STE_FETCH) {
      into[0] = this.#fault.fetchLo;
      into[1] = this.#fault.fetchHi;
    }
    return event;
  }

  /** Carries out one legal CFGI_* or TLBI_* command of four words at words[at]. */
  invalidate(words: Uint32Array, at: number): void {
    this.#invalidation.carryOut(words, at);
    this.#stalls.invalidated();
  }

  /** Transactions that are stalled. */
  get stalled(): number {
    return this.#stalls.count;
  }

  /** Drops all caches and aborts stalled transactions. */
  reset(): void {
    this.#tlb.reset();
    this.#contexts.reset();
    this.smmuDisabled();
  }

  /**
   * Shows each step that a transaction would take now, with the tables as they are: past all caches, no event is
   * recorded, nothing stalls and no table is written. `result.event` names what stopped it, recorded or not.
   */
  observe(transaction: Transaction, result: Translation, observer: WalkObserver): Outcome {
    this.#look(observer);
    const outcome = this.translate(transaction, result);
    if (result.event !== 0) observer.stopped(result.event, this.#fault);
    this.#look(undefined);
    return outcome;
  }

  #look(observer: WalkObserver | undefined): void {
    const dry = observer !== undefined;
    this.#dry = dry;
    this.#ats.dry = dry;
    this.#contexts.dry = dry;
    this.#stage1.dry = dry;
    this.#stage2.dry = dry;
    this.#contexts.observer = observer;
    this.#stage1.observer = observer;
    this.#stage2.observer = observer;
    // What is current was found before, or by looking: neither serves the other.
    this.#contexts.current = this.#contexts.none;
  }

  /** 6.3.14, 3.4: GBPA decides for all; addresses that the system does not have abort. Neither makes an event. */
  #whileDisabled(transaction: Transaction, result: Translation): Outcome {
    if (transaction.kind === KIND.AtsRequest) return this.#ats.denyRequest(transaction, result);
    if (transaction.kind === KIND.AtsTranslated) return this.#ats.forbidTranslated(transaction, result);
    if ((this.#registers[GBPA_WORD] & GBPA.ABORT.inPlace) !== 0) return OUTCOME.Abort;
    return this.#identity(transaction, result) ? OK : OUTCOME.Abort;
  }

  /** Passes the address through. @returns false if it is beyond the OAS */
  #identity(transaction: Transaction, result: Translation): boolean {
    const { addrHi, addrLo } = transaction;
    const oasBits = this.#oasBits;
    if (addrHi >>> (oasBits - 32) !== 0) return false;
    result.paHi = addrHi;
    result.paLo = addrLo;
    result.log2Size = oasBits;
    return true;
  }

  #untranslated(transaction: Transaction, result: Translation): Outcome {
    const contexts = this.#contexts;
    const status = contexts.find(transaction);
    if (status !== 0) return this.#stop(status, transaction, contexts.partial, result);
    const context = contexts.current;
    if (context.path > BYPASS) return this.#translated(transaction, context, result);
    if (context.path === ABORT) return OUTCOME.Abort;
    return this.#identity(transaction, result) ? OK : this.#stopAddressSize(transaction, context, result);
  }

  /** Through the TLB, or else the tables. */
  #translated(transaction: Transaction, context: StreamContext, result: Translation): Outcome {
    const need = context.overrides
      ? this.#override(transaction, context)
      : (transaction.write ? WRITE : transaction.instruction ? EXECUTE : READ) <<
        (transaction.privileged ? TO_PRIVILEGED : 0);
    // Signed words: passing a larger number to a call may allocate.
    let vaHi = transaction.addrHi | 0;
    const vaLo = transaction.addrLo | 0;
    const upper = (vaHi & 0x0080_0000) !== 0;
    if (context.path !== STAGE2 && (upper ? context.s1.upper : context.s1.lower).TBI)
      // 5.4 TBI0: the tag counts as copies of bit 55.
      vaHi = upper ? vaHi | 0xff00_0000 : vaHi & 0x00ff_ffff;
    const tlb = this.#tlb;
    if (context.tlbChanges !== tlb.changes) this.#renewFloors(context);
    const offset = (1 << (upper ? context.upperPage : context.lowerPage)) - 1;
    const page = (vaLo & ~offset) | (upper ? context.upperFlags : context.lowerFlags);
    let at = tlb.find(vaHi, page, context.tag, context.floor);
    if (at < 0 && tlb.hasGlobals && context.path !== STAGE2)
      at = tlb.find(vaHi, page | GLOBAL, context.globalTag, context.globalFloor);
    if (at >= 0) {
      const entries = tlb.entries;
      const paLo = entries[at + PA_LO];
      // An access that the entry does not allow is walked again: the tables say why, or allow it by now.
      if ((paLo & need) !== 0) {
        result.paHi = entries[at + PA_HI];
        result.paLo = ((paLo & ~offset) | (vaLo & offset)) >>> 0;
        result.log2Size = entries[at + LOG2_SIZE];
        return OK;
      }
    }
    return context.path === STAGE2
      ? this.#walkStage2(transaction, context, need, result)
      : this.#walk(transaction, context, vaHi, upper, need, result);
  }

  #renewFloors(context: StreamContext): void {
    const tlb = this.#tlb;
    context.floor = tlb.floor(context.kind, context.vmid, context.s1.ASID, false);
    context.globalFloor = tlb.floor(context.kind, context.vmid, context.s1.ASID, true);
    context.tlbChanges = tlb.changes;
    // No entry is as young as this. A context that was read for a look is not used again.
    if (this.#dry) context.floor = context.globalFloor = 0x7fff_ffff;
  }

  /** Applies PRIVCFG and INSTCFG (13.1.4). @returns the PERM bit that the access needs */
  #override(transaction: Transaction, context: StreamContext): number {
    let privileged = transaction.privileged;
    let instruction = transaction.instruction && !transaction.write;
    if (context.PRIVCFG >= STE_PRIVCFG.Unprivileged) privileged = context.PRIVCFG === STE_PRIVCFG.Privileged;
    if (context.INSTCFG >= STE_INSTCFG.Data)
      instruction = context.INSTCFG === STE_INSTCFG.Instruction && !transaction.write;
    this.#privileged = privileged;
    this.#instruction = instruction;
    return permissionNeeded(transaction.write, instruction, privileged);
  }

  #walkStage2(transaction: Transaction, context: StreamContext, need: number, result: Translation): Outcome {
    const { addrHi, addrLo } = transaction;
    // 3.4: with stage 1 bypassed the input may not exceed the IAS; stage 2 is not asked.
    if (beyond(addrHi, addrLo, this.#features.oasBits))
      return this.#stopAddressSize(transaction, context, result);
    const stage2 = this.#stage2;
    const status = stage2.walk(context.s2, addrHi, addrLo, need, IN);
    if (status !== 0) return this.#stop(status, transaction, context, result);
    result.paHi = stage2.paHi;
    result.paLo = stage2.paLo >>> 0;
    result.log2Size = stage2.log2Size;
    return OK;
  }

  /** TLB miss with stage 1: the tables decide. */
  #walk(
    transaction: Transaction,
    context: StreamContext,
    vaHi: number,
    upper: boolean,
    need: number,
    result: Translation,
  ): Outcome {
    const vaLo = transaction.addrLo | 0;
    const stage1 = this.#stage1;
    const stage2 = this.#stage2;
    const nested = context.path === NESTED;
    const half = upper ? context.s1.upper : context.s1.lower;
    const s2 = nested ? context.s2 : undefined;
    let status = stage1.walk(context.s1, half, upper, s2, vaHi, vaLo, need);
    if (status !== 0) return this.#stop(status, transaction, context, result);
    const log2Leaf = stage1.log2Size;
    let permissions = stage1.permissions;
    let log2Size = log2Leaf;
    let paHi = stage1.outHi;
    let paLo = stage1.outLo;
    if (nested) {
      status = stage2.translate(context.s2, paHi, paLo, need, IN);
      if (status !== 0) return this.#stop(status, transaction, context, result);
      permissions &= stage2.permissions;
      log2Size = Math.min(log2Size, stage2.log2Size);
      paHi = stage2.paHi;
      paLo = stage2.paLo;
    }
    result.paHi = paHi;
    result.paLo = paLo >>> 0;
    result.log2Size = log2Size;
    if (this.#dry) return OK;
    const pageMask = -(1 << (upper ? context.upperPage : context.lowerPage));
    const flags = upper ? context.upperFlags : context.lowerFlags;
    this.#tlb.fill(
      vaHi,
      (vaLo & pageMask) | (stage1.global ? flags | GLOBAL : flags),
      stage1.global ? context.globalTag : context.tag,
      paHi | 0,
      (paLo & pageMask) | permissions,
      log2Leaf,
      log2Size,
    );
    return OK;
  }

  /** Terminates or stalls a transaction, and records why. */
  #stop(type: number, transaction: Transaction, context: StreamContext, result: Translation): Outcome {
    const fault = this.#fault;
    result.event = type;
    if (type < EVENT_TYPE.F_WALK_EABT) {
      // 6.3.12: unknown StreamIDs are reported only if software wants to hear of them.
      const silent = type === EVENT_TYPE.C_BAD_STREAMID && CR2.RECINVSID.get(this.#registers, CR2_WORD) === 0;
      if (silent) {
        if (!this.#dry) result.event = 0;
      } else {
        this.#event.configuration(type, transaction, fault);
        // 7.3.1: MEV does not count before there is an STE.
        this.#send(type <= EVENT_TYPE.C_BAD_STE || context.MEV);
      }
      return OUTCOME.Abort;
    }
    this.#override(transaction, context);
    this.#event.translation(type, transaction, fault, this.#privileged, this.#instruction);
    // 3.12: an external abort always terminates and is always recorded.
    if (type === EVENT_TYPE.F_WALK_EABT) {
      this.#send(context.MEV);
      return OUTCOME.Abort;
    }
    // 5.5: the stage that met the fault says what to do; S forces the record.
    const stall = fault.s2 ? context.s2.S : context.s1.S;
    if (stall && this.#mayStall(transaction)) {
      const stag = this.#stalls.add(transaction, this.#event);
      if (stag >= 0) {
        result.stag = stag;
        return OUTCOME.Stalled;
      }
    }
    if (stall || (fault.s2 ? context.s2.R : context.s1.R)) this.#send(context.MEV);
    else if (!this.#dry) result.event = 0;
    return fault.s2 || context.s1.A ? OUTCOME.Abort : OUTCOME.RazWi;
  }

  /** Stage 1 is bypassed and the address does not fit: always aborted, always recorded, whatever R, S and A (3.12). */
  #stopAddressSize(transaction: Transaction, context: StreamContext, result: Translation): Outcome {
    const type = EVENT_TYPE.F_ADDR_SIZE;
    this.#fault.stage1();
    this.#override(transaction, context);
    this.#event.translation(type, transaction, this.#fault, this.#privileged, this.#instruction);
    this.#send(context.MEV);
    result.event = type;
    return OUTCOME.Abort;
  }

  #send(mayMerge: boolean): void {
    if (!this.#dry) this.#record(this.#event.words, mayMerge);
  }

  /** 3.12: streams that must not stall, as of PCIe, are terminated instead. */
  #mayStall(transaction: Transaction): boolean {
    return (
      transaction.mayStall &&
      !this.#dry &&
      this.stallPort !== undefined &&
      this.#features.STALL_MODEL !== STALL_MODEL.TerminateOnly
    );
  }

  /** CMD_RESUME: an unknown pair of StreamID and STAG is no error (4.7.1). With `retry`, `abort` does not count. */
  resume(sid: number, stag: number, retry: boolean, abort: boolean): void {
    const transaction = this.#stalls.take(sid, stag);
    if (transaction === undefined) return;
    const result = this.#retried;
    if (retry) this.translate(transaction, result);
    else {
      result.event = 0;
      result.outcome = abort || this.#features.TERM_MODEL ? OUTCOME.Abort : OUTCOME.RazWi;
    }
    this.stallPort?.resolved(stag, transaction, result);
  }

  /** CMD_STALL_TERM: aborts everything of a StreamID that is stalled now (4.7.2). */
  terminateStalls(sid: number): void {
    for (let stag = 0; stag < this.#stalls.size; stag++)
      if (this.#stalls.sidOf(stag) === sid) this.resume(sid, stag, false, true);
  }

  /** SMMUEN became 0: stalled transactions are aborted (6.3.9.6). */
  smmuDisabled(): void {
    for (let stag = 0; this.#stalls.count > 0 && stag < this.#stalls.size; stag++) {
      const sid = this.#stalls.sidOf(stag);
      if (sid >= 0) this.resume(sid, stag, false, true);
    }
  }

  /**
   * The event queue takes records again: those of stalled transactions were kept (7.2.1). Where something was invalidated
   * in between, the transaction is tried again instead, and what comes of it is recorded (4.7.3).
   */
  eventQueueWritable(): void {
    this.#stalls.recordKept(this.#retry);
  }
}
