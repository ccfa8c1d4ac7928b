import type { Memory } from '../memory/memory.ts';
import { EVENT_TYPE } from '../spec/events.ts';
import { CR0, CR2, OFFSET } from '../spec/registers.ts';
import { CD_WORDS } from '../spec/cd.ts';
import { STE_EATS, STE_WORDS } from '../spec/ste.ts';
import { illegalCdField } from './cd-legality.ts';
import { CdTable, NO_CD, selectCd } from './cd-lookup.ts';
import { ConfigurationCache } from './configuration-cache.ts';
import type { Fault } from './fault.ts';
import type { Features } from './features.ts';
import type { Trace } from './ports.ts';
import { illegalSteField } from './ste-legality.ts';
import { StreamContext } from './stream-context.ts';
import { StreamTable } from './stream-table.ts';
import { KIND, type Transaction } from './transaction.ts';
import type { WalkObserver } from './walk-observer.ts';
import type { Stage2Walk } from './walk-stage2.ts';

const CR0_WORD = OFFSET.CR0 >>> 2;
const CR2_WORD = OFFSET.CR2 >>> 2;

/** Answers to an ATS Translation Request besides EventTypes: Unsupported Request, with and without an event. */
export const ATS_DENIED = -1;
export const ATS_UNSUPPORTED = -2;

/** Finds what the STE and CD say about a transaction: in the configuration cache, or in memory. */
export class StreamContexts {
  readonly cache: ConfigurationCache;
  /** The context of the last transaction: streams come in runs. After a failure, what was read so far is in `partial`. */
  current = new StreamContext();
  /** No stream's: makes the next transaction look its own up. */
  readonly none = new StreamContext();
  /** Also what the next context is read into. */
  partial = new StreamContext();
  /** Look only: nothing is found in the cache or left there. */
  dry = false;
  readonly #features: Features;
  readonly #registers: Uint32Array;
  readonly #fault: Fault;
  readonly #streamTable: StreamTable;
  readonly #cdTable: CdTable;
  readonly #trace: Trace | undefined;
  readonly #selection = { index: NO_CD };
  /** The structures that are being read. */
  readonly #ste = new Uint32Array(STE_WORDS);
  readonly #cd = new Uint32Array(CD_WORDS);

  constructor(
    features: Features,
    registers: Uint32Array,
    memory: Memory,
    stage2: Stage2Walk,
    fault: Fault,
    trace: Trace | undefined,
    log2Contexts: number,
  ) {
    this.cache = new ConfigurationCache(log2Contexts);
    this.#features = features;
    this.#registers = registers;
    this.#fault = fault;
    this.#streamTable = new StreamTable(features, registers, memory, fault);
    this.#cdTable = new CdTable(features, memory, stage2, fault);
    this.#trace = trace;
  }

  set observer(observer: WalkObserver | undefined) {
    this.#streamTable.observer = observer;
    this.#cdTable.observer = observer;
  }

  /** Drops everything. */
  reset(): void {
    this.cache.reset();
    this.current = this.none;
  }

  /**
   * Makes the transaction's context `current`. Only what was read and is legal is cached.
   * @returns 0, or the EventType (or ATS_*) with `fault` filled
   */
  find(transaction: Transaction): number {
    const current = this.current;
    const sid = transaction.sid;
    const substream = transaction.ssv ? transaction.ssid + 1 : 0;
    if (current.sid === sid && current.substream === substream && this.cache.isValid(current)) return 0;
    return this.#lookUp(transaction, sid, substream);
  }

  #lookUp(transaction: Transaction, sid: number, substream: number): number {
    if (!this.dry) {
      const found = this.cache.find(sid, substream);
      if (found !== undefined) {
        this.current = found;
        return 0;
      }
    }
    const context = this.partial;
    const status = this.#read(transaction, context);
    if (status !== 0) return status;
    this.current = context;
    if (this.dry) {
      // Read for one look: it keeps the StreamID of an empty slot and is not found again.
      this.partial = new StreamContext();
      return 0;
    }
    context.sid = sid;
    context.substream = substream;
    this.partial = this.cache.enter(context);
    if (this.#trace !== undefined) this.#trace('smmuv3_config_cache_miss', sid);
    return 0;
  }

  /** The STE of a StreamID, fresh from memory. @returns 0 if it is legal, else an EventType */
  fetchSte(sid: number, ste: Uint32Array): number {
    const status = this.#streamTable.fetch(sid, ste);
    if (status !== 0) return status;
    return illegalSteField(ste, this.#features) === undefined ? 0 : EVENT_TYPE.C_BAD_STE;
  }

  /** Steps 1 to 9 of 7.3.22. */
  #read(transaction: Transaction, context: StreamContext): number {
    const features = this.#features;
    this.#fault.stage1();
    const ste = this.#ste;
    const cd = this.#cd;
    let status = this.fetchSte(transaction.sid, ste);
    if (status !== 0) return status;
    context.setSte(ste, features);
    context.cdIndex = 0;
    if (transaction.kind === KIND.AtsRequest) {
      // 3.9.1.2: what the STE alone refuses comes before substreams and CDs.
      if ((context.config & 4) === 0) return ATS_UNSUPPORTED;
      if (this.effectiveEATS(context) === STE_EATS.Disabled) return ATS_DENIED;
    }
    if ((context.config & 4) === 0) {
      context.setBypass();
      return 0;
    }
    const selection = this.#selection;
    status = selectCd(ste, features, transaction.ssv, transaction.ssid, selection);
    if (status !== 0) return status;
    if (selection.index === NO_CD) {
      context.setBypass();
      return 0;
    }
    const s2 = (context.config & 2) !== 0 ? context.s2 : undefined;
    status = this.#cdTable.fetch(ste, s2, selection.index, cd);
    if (status !== 0) return status;
    const world = context.world(ste, features, CR2.E2H.get(this.#registers, CR2_WORD) === 1);
    if (illegalCdField(cd, ste, world, features) !== undefined) return EVENT_TYPE.C_BAD_CD;
    context.cdIndex = selection.index;
    context.setStage1(ste, cd, world, features);
    return 0;
  }

  /** STE.EATS as it acts: split-stage ATS needs CR0.ATSCHK (5.2 EATS). */
  effectiveEATS(context: StreamContext): number {
    const unchecked = CR0.ATSCHK.get(this.#registers, CR0_WORD) === 0;
    return context.EATS === STE_EATS.SplitStage && unchecked ? STE_EATS.Disabled : context.EATS;
  }
}
