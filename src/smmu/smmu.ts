/**
 * The SMMUv3: registers, queues, interrupts and translation put together. It does not know whose memory this is, who
 * takes its interrupts or who moves the DMA; those are its ports.
 */

import type { Memory } from '../memory/memory.ts';
import { EVENT_RECORD, EVENT_TYPE } from '../spec/events.ts';
import { CR0, GBPA, INTERFACE_SIZE, OFFSET } from '../spec/registers.ts';
import { CommandQueue } from './command-queue.ts';
import { EventQueue } from './event-queue.ts';
import { maxStreamId, type IdRegisters } from './identification.ts';
import { Interrupts } from './interrupts.ts';
import type { PageRequest, PageRequestStatus } from './page-request.ts';
import {
  EVENT,
  NO_BACKEND,
  type EventStatus,
  type InterruptPort,
  type PageResponsePort,
  type StallCommandPort,
  type StallPort,
  type StreamBackend,
  type Trace,
} from './ports.ts';
import { PriQueue } from './pri-queue.ts';
import { COMMANDS_PER_DOORBELL, RegisterEffects } from './register-effects.ts';
import { RegisterFile, wordOf, type RegisterValue } from './register-file.ts';
import type { Outcome, Transaction, Translation } from './transaction.ts';
import { Translator } from './translator.ts';
import type { WalkObserver } from './walk-observer.ts';

const CR0_WORD = wordOf(OFFSET.CR0);
const GBPA_WORD = wordOf(OFFSET.GBPA);
const SMMUEN = CR0.SMMUEN.inPlace;
const CMDQEN = CR0.CMDQEN.inPlace;
const INTERFACE = INTERFACE_SIZE;
const CMDQ_BASE = OFFSET.CMDQ_BASE;
const EVENTQ_BASE = OFFSET.EVENTQ_BASE;
const PRIQ_BASE = OFFSET.PRIQ_BASE;
const PRIQEN = CR0.PRIQEN.inPlace;

export interface SmmuOptions {
  readonly ids: IdRegisters;
  readonly memory: Memory;
  readonly interrupts: InterruptPort;
  /** Who moves the DMA of streams that the device does not translate itself; nobody if absent. */
  readonly backend?: StreamBackend;
  /** Takes the answers to page requests: CMD_PRI_RESP, and what the SMMU answers by itself. */
  readonly responses?: PageResponsePort;
  /** Takes CMD_RESUME and CMD_STALL_TERM for streams that the backend moves. */
  readonly stallCommands?: StallCommandPort;
  /** Learns what became of stalled transactions; without it nothing stalls. */
  readonly stalls?: StallPort;
  /**
   * Asked to call {@link Smmu.run} soon, and again while it returns true. Without it a register write carries out all
   * the commands that are there.
   */
  readonly defer?: () => void;
  readonly trace?: Trace;
  /**
   * Writes one record for a device that faults at one page again and again, where STE.MEV allows it (7.3.1), as long as
   * software has not read the first. Off unless said: a record for each fault is easier to understand.
   */
  readonly mergeEvents?: boolean;
  /** Called at the first register access, before it: {@link Smmu.identify} works for the last time. */
  readonly settled?: () => void;
  /** log2 of the TLB's entries, 4..20; by default a large one. A small one costs less to make. */
  readonly log2TlbEntries?: number | undefined;
}

export class Smmu {
  /** High word of the last 8-byte {@link read}. */
  readHi = 0;
  readonly #options: SmmuOptions;
  readonly #backend: StreamBackend;
  readonly #trace: Trace | undefined;
  #ids!: IdRegisters;
  #file!: RegisterFile;
  #interrupts!: Interrupts;
  #events!: EventQueue;
  #commands!: CommandQueue;
  #priq!: PriQueue;
  #translator!: Translator;
  #effects!: RegisterEffects;
  #maxSid!: number;
  #identified = false;

  constructor(options: SmmuOptions) {
    this.#options = options;
    this.#backend = options.backend ?? NO_BACKEND;
    this.#trace = options.trace;
    this.#build(options.ids);
  }

  /** Makes all that depends on the ID registers, in the state after power-on. */
  #build(ids: IdRegisters): void {
    const options = this.#options;
    const { memory, trace } = options;
    this.#ids = ids;
    this.#maxSid = maxStreamId(ids);
    this.#file = new RegisterFile(ids);
    this.#interrupts = new Interrupts(ids, this.registers, options.interrupts, trace);
    this.#events = new EventQueue(
      ids,
      this.#file,
      memory,
      this.#interrupts,
      trace,
      options.mergeEvents ?? false,
    );
    this.#translator = new Translator(
      ids,
      this.registers,
      memory,
      (words, mayMerge) => this.#recordOwn(words, mayMerge),
      trace,
      options.log2TlbEntries,
    );
    this.#translator.stallPort = options.stalls;
    this.#commands = new CommandQueue(
      ids,
      this.registers,
      memory,
      this.#interrupts,
      this.#backend,
      this.#translator,
      options.responses,
      options.stallCommands,
      trace,
    );
    this.#priq = new PriQueue(ids, {
      registers: this.#file,
      memory,
      interrupts: this.#interrupts,
      responses: options.responses,
      lookupSte: (sid, into) => this.#translator.lookupSte(sid, into),
      record: (words) => void this.#recordOwn(words, false),
      trace,
    });
    this.#effects = new RegisterEffects({
      registers: this.registers,
      interrupts: this.#interrupts,
      commands: this.#commands,
      events: this.#events,
      priq: this.#priq,
      translator: this.#translator,
      backend: this.#backend,
      maxSid: this.#maxSid,
      defer: options.defer,
      trace,
    });
  }

  get ids(): IdRegisters {
    return this.#ids;
  }

  /** Page 0, word by word: `registers[offset >>> 2]`. Another array after {@link identify}. */
  get registers(): Uint32Array {
    return this.#file.page0;
  }

  /** Page 1; PROD and CONS of the event and PRI queues are here, at their offsets inside the page. Likewise. */
  get page1(): Uint32Array {
    return this.#file.page1;
  }

  /** Software has had a look: what the ID registers say is settled for good. */
  get identified(): boolean {
    return this.#identified;
  }

  /**
   * Gives the SMMU other ID registers, as long as no software can know the old ones (6.2: they never change).
   * @throws Error once it is {@link identified}.
   */
  identify(ids: IdRegisters): void {
    if (this.#identified) throw new Error('Software knows the ID registers already');
    this.#build(ids);
  }

  get smmuEnabled(): boolean {
    return (this.registers[CR0_WORD] & SMMUEN) !== 0;
  }

  get cmdqEnabled(): boolean {
    return (this.registers[CR0_WORD] & CMDQEN) !== 0;
  }

  get eventqEnabled(): boolean {
    return this.#events.enabled;
  }

  /** 6.3.9.5: PRIQEN, which has its effect only together with SMMUEN. */
  get priqEnabled(): boolean {
    const enabled = PRIQEN | SMMUEN;
    return (this.registers[CR0_WORD] & enabled) === enabled;
  }

  /** Effective log2 of the number of event records: EVENTQ_BASE.LOG2SIZE, at most IDR1.EVENTQS. */
  get eventqLog2Size(): number {
    return this.#events.log2Size;
  }

  /** What happens to all traffic while SMMUEN=0: abort, or else bypass (6.3.14). */
  get gbpaAbort(): boolean {
    return (this.registers[GBPA_WORD] & GBPA.ABORT.inPlace) !== 0;
  }

  /**
   * Reads a register. Where nothing is, and for offsets or sizes that no register has, the value is 0 (6.2).
   * @returns the low word; the high word of an 8-byte read is in `readHi`.
   */
  read(offset: number, size: number): number {
    this.readHi = 0;
    if (!accessible(offset, size)) return 0;
    if (!this.#identified) this.#settle();
    const lo = this.#file.load(offset);
    if (size === 8) this.readHi = this.#file.load(offset + 4);
    if (this.#trace !== undefined) this.#trace('smmuv3_read_mmio', offset, lo, this.readHi, size);
    return lo;
  }

  /** The first access of software: the last moment for other ID registers. */
  #settle(): void {
    this.#options.settled?.();
    this.#identified = true;
  }

  /**
   * Writes a register. What the architecture says is ignored changes nothing. Everything that the write sets off has
   * happened when this returns, except commands left to `defer`.
   */
  write(offset: number, size: number, hi: number, lo: number): void {
    if (!accessible(offset, size)) return;
    if (!this.#identified) this.#settle();
    if (this.#trace !== undefined) this.#trace('smmuv3_write_mmio', offset, lo >>> 0, hi >>> 0, size);
    const low = this.#file.store(offset, lo);
    const high = size === 8 && this.#file.store(offset + 4, hi);
    if (low) this.#effects.written(offset);
    // A queue that moved, moved once. 6.2: an 8-byte write over two 32-bit registers may write both.
    if (high && !(low && isQueueBase(offset))) this.#effects.written(offset + 4);
  }

  /**
   * Goes on with queued commands.
   * @param budget how many at most.
   * @returns whether any is left; then call again.
   */
  run(budget = COMMANDS_PER_DOORBELL): boolean {
    return this.#effects.run(budget);
  }

  /**
   * Writes an event record of eight words to the guest's event queue, and signals it if the queue was empty. The
   * record is taken as it is: who calls this has put in the guest's StreamID.
   */
  recordEvent(words: Uint32Array): EventStatus {
    return this.#events.record(words);
  }

  /** Tells the guest that records were lost for want of room: OVFLG toggles if it equals OVACKFLG (7.4). */
  eventsLost(): void {
    this.#events.overflowed();
  }

  /**
   * Records that the guest's event queue takes now; 0 also while it is disabled or an abort is unacknowledged. After a
   * 0, `eventQueueChanged` tells when there is room.
   */
  eventQueueSpace(): number {
    return this.#events.space();
  }

  /** Translates one transaction of an endpoint that the device serves itself. */
  translate(transaction: Transaction, result: Translation): Outcome {
    return this.#translator.translate(transaction, result);
  }

  /**
   * Takes a PRI message of an endpoint. What the architecture answers by itself has gone to the response port when this
   * returns; from inside that call no other request may be sent.
   */
  pageRequest(request: PageRequest): PageRequestStatus {
    return this.#priq.receive(request);
  }

  /**
   * Shows each step that a transaction would take now, with the tables as they are: past all caches, no event is
   * recorded, nothing stalls and no table is written. `result.event` names what stopped it, recorded or not.
   */
  observe(transaction: Transaction, result: Translation, observer: WalkObserver): Outcome {
    return this.#translator.observe(transaction, result, observer);
  }

  /**
   * Reads the STE of a stream from memory, past all caches, and records nothing.
   * @param into 16 words; after F_STE_FETCH the first two are the address that could not be read, low half first.
   * @returns 0 if it is there and legal, else the EventType that using it would raise.
   */
  lookupSte(sid: number, into: Uint32Array): number {
    return this.#translator.lookupSte(sid, into);
  }

  /** Back to the state after power-on. The backend is told that all streams and the event queue have changed. */
  reset(): void {
    this.#file.reset();
    this.#translator.reset();
    this.#commands.reset();
    this.#events.rebase();
    this.#priq.rebase();
    this.#effects.forgetDeferred();
    this.#backend.streamsChanged(0, this.#maxSid);
    this.#backend.eventQueueChanged();
  }

  /** Transactions that wait for CMD_RESUME or CMD_STALL_TERM. */
  get stalled(): number {
    return this.#translator.stalled;
  }

  /** An ATC_INV was not answered, and no CMD_SYNC has said so yet. */
  get atcInvTimeout(): boolean {
    return this.#commands.atcTimeout;
  }

  /**
   * Takes over the registers of another SMMU with the same ID registers: {@link import('./snapshot.ts')}. All caches
   * are empty. Nothing happens until {@link resume}; the backend is told nothing.
   */
  restore(registers: readonly RegisterValue[], atcInvTimeout: boolean): void {
    if (!this.#identified) this.#settle();
    this.#file.reset();
    for (const { spec, hi, lo } of registers) this.#file.restore(spec.offset, hi, lo, spec.width);
    this.#translator.reset();
    this.#commands.restored(atcInvTimeout);
    this.#events.restored();
    this.#priq.rebase();
    this.#effects.forgetDeferred();
  }

  /** Goes on after {@link restore}: with commands that wait, and with signals that may have been under way. */
  resume(): void {
    this.#interrupts.resignal();
    this.#events.resignal();
    this.#effects.lookForRoom();
    this.#effects.doorbell();
  }

  /** Records an event of the translator; a lost one shows as overflow, a stalled transaction's is kept by its owner. */
  #recordOwn(words: Uint32Array, mayMerge: boolean): EventStatus {
    const status = this.#events.record(words, mayMerge);
    if (status === EVENT.Full && !isStall(words)) this.#events.overflowed();
    return status;
  }
}

function accessible(offset: number, size: number): boolean {
  return (
    (size === 4 || size === 8) &&
    offset >>> 0 === offset &&
    offset + size <= INTERFACE &&
    (offset & (size - 1)) === 0
  );
}

const isQueueBase = (offset: number): boolean =>
  offset === CMDQ_BASE || offset === EVENTQ_BASE || offset === PRIQ_BASE;

function isStall(words: Uint32Array): boolean {
  const type = EVENT_RECORD.EventID.get(words);
  return (
    type >= EVENT_TYPE.F_TRANSLATION && type <= EVENT_TYPE.F_PERMISSION && EVENT_RECORD.Stall.get(words) === 1
  );
}
