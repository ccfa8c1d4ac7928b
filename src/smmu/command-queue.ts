/** The command queue (IHI 0070 3.5, chapter 4, 7.1): fetch, check, carry out, and stop at an error until it is acknowledged. */

import { MEM_OK, type Memory } from '../memory/memory.ts';
import {
  CERROR,
  CFGI_ALL_RANGE,
  CMD_CFGI_STE_RANGE,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_SYNC,
  COMMAND_WORDS,
  SYNC_CS,
} from '../spec/commands.ts';
import { CMDQ_CONS, CR0, GERROR, IDR1, OFFSET } from '../spec/registers.ts';
import { ACTION, commandLegality, type Action, type CommandLegality } from './command-legality.ts';
import { maxStreamId, outputAddressBits, type IdRegisters } from './identification.ts';
import type { Interrupts } from './interrupts.ts';
import {
  INVALIDATE,
  NO_BACKEND,
  type CommandBatch,
  type PageResponsePort,
  type StallCommandPort,
  type StreamBackend,
  type Trace,
} from './ports.ts';
import { Queue } from './queue.ts';
import { wordOf } from './register-file.ts';

const CR0_WORD = wordOf(OFFSET.CR0);
const BASE_WORD = wordOf(OFFSET.CMDQ_BASE);
const PROD_WORD = wordOf(OFFSET.CMDQ_PROD);
const CONS_WORD = wordOf(OFFSET.CMDQ_CONS);
const ENABLED = CR0.CMDQEN.inPlace;
const SMMUEN = CR0.SMMUEN.inPlace;
const CMDQ_ERR = GERROR.CMDQ_ERR.inPlace;
const ERR = CMDQ_CONS.ERR.inPlace;

/** Commands between two CMD_SYNCs that are kept together, as many as a doorbell carries out; a longer window is handed over in pieces. */
const BATCH_COMMANDS = 1024;
/** Commands that are fetched at a time. */
const STRETCH_COMMANDS = 64;

// Numbers of this module cost nothing where they are used; properties of imported objects are loaded every time.
const OK = MEM_OK;
const NONE = CERROR.NONE;
const NOTHING = ACTION.Nothing;
const CFGI_STE = ACTION.CfgiSte;
const INVALIDATION = ACTION.Invalidate;
const SYNC = ACTION.Sync;
const SIGNAL = CMD_SYNC.CS.inPlace;

/** What commands act on besides the backend: the translator. */
export interface CommandTarget {
  /** Carries out one legal CFGI_* or TLBI_* command. */
  invalidate(words: Uint32Array, at: number): void;
  /** CMD_RESUME; an unknown pair of StreamID and STAG is no error (4.7.1). */
  resume(sid: number, stag: number, retry: boolean, abort: boolean): void;
  /** CMD_STALL_TERM. */
  terminateStalls(sid: number): void;
}

/** A batch whose commands are counted up in place. */
class PendingBatch implements CommandBatch {
  readonly words = new Uint32Array(BATCH_COMMANDS * COMMAND_WORDS);
  count = 0;
}

export class CommandQueue {
  readonly #page0: Uint32Array;
  readonly #queue: Queue;
  readonly #memory: Memory;
  readonly #interrupts: Interrupts;
  readonly #backend: StreamBackend;
  readonly #target: CommandTarget;
  readonly #responses: PageResponsePort | undefined;
  readonly #stalls: StallCommandPort | undefined;
  readonly #trace: Trace | undefined;
  readonly #legality: CommandLegality;
  readonly #maxSid: number;
  /** Nobody but us has to hear of invalidations, nor wants to. */
  readonly #alone: boolean;
  /** Commands are fetched into this; what was fetched and not carried out is forgotten and fetched again. */
  readonly #fetched = new Uint32Array(STRETCH_COMMANDS * COMMAND_WORDS);
  /** With a backend, invalidations stay here until the CMD_SYNC. */
  readonly #batch = new PendingBatch();
  /** The backend has something left for the CMD_SYNC, whether or not a command comes in between. */
  #backendWaits = false;
  /** A piece of the window that was handed over before its CMD_SYNC met an ATC_INV without an answer. */
  #atcTimeout = false;
  #running = false;
  /** Grows whenever somebody else than a command moves CONS: a reset, or software inside our process. */
  #moves = 0;

  constructor(
    ids: IdRegisters,
    page0: Uint32Array,
    memory: Memory,
    interrupts: Interrupts,
    backend: StreamBackend,
    target: CommandTarget,
    responses: PageResponsePort | undefined,
    stalls: StallCommandPort | undefined,
    trace: Trace | undefined,
  ) {
    this.#page0 = page0;
    this.#memory = memory;
    this.#interrupts = interrupts;
    this.#backend = backend;
    this.#alone = backend === NO_BACKEND && trace === undefined;
    this.#target = target;
    this.#responses = responses;
    this.#stalls = stalls;
    this.#trace = trace;
    this.#legality = commandLegality.of(ids);
    this.#maxSid = maxStreamId(ids);
    this.#queue = new Queue(4, IDR1.CMDQS.of(ids.IDR1), outputAddressBits(ids));
    this.rebase();
  }

  /** Effective log2 of the number of commands. */
  get log2Size(): number {
    return this.#queue.log2Size;
  }

  /** CMDQ_BASE was written. */
  rebase(): void {
    this.#queue.rebase(this.#page0, BASE_WORD);
    this.truncate();
  }

  /** 6.3.28: bits of the index that the SMMU owns read as zero above its wrap flag. */
  truncate(): void {
    this.#moves += 1;
    this.#page0[CONS_WORD] &= ERR | this.#queue.pointerMask;
  }

  /** Forgets what was consumed and not yet completed, and the queue. */
  reset(): void {
    this.#batch.count = 0;
    this.#backendWaits = false;
    this.#atcTimeout = false;
    this.rebase();
  }

  /** An ATC_INV was not answered, and no CMD_SYNC has said so yet. */
  get atcTimeout(): boolean {
    return this.#atcTimeout;
  }

  /** The registers are another device's, and with them what its last window of commands met. */
  restored(atcTimeout: boolean): void {
    this.reset();
    this.#atcTimeout = atcTimeout;
  }

  /** Whether there is a command that may be carried out now (4.1). */
  get ready(): boolean {
    if ((this.#page0[CR0_WORD] & ENABLED) === 0 || (this.#interrupts.active & CMDQ_ERR) !== 0) return false;
    const used = this.#queue.used(this.#page0[PROD_WORD], this.#page0[CONS_WORD]);
    // 3.5.1: with inconsistent pointers a consumer may do nothing.
    return used !== 0 && used <= this.#queue.size;
  }

  /**
   * Carries out at most `budget` commands.
   * @returns whether a command is left that could be carried out. A call from inside a command does nothing.
   */
  run(budget: number): boolean {
    if (this.#running) return false;
    this.#running = true;
    const most = this.#trace === undefined ? STRETCH_COMMANDS : 1;
    for (let left = budget; left > 0 && this.ready;) left -= this.#stretch(Math.min(left, most));
    this.#running = false;
    return this.ready;
  }

  /**
   * Fetches up to `most` commands and carries them out. CONS is written only where somebody could see it: before anyone
   * is called, at an error and at the end. 3.5.1: commands up to PROD are ours to fetch ahead.
   * @returns how many were tried.
   */
  #stretch(most: number): number {
    const page0 = this.#page0;
    const queue = this.#queue;
    const words = this.#fetched;
    const legality = this.#legality;
    const target = this.#target;
    const alone = this.#alone;
    const first = page0[CONS_WORD];
    const toEnd = queue.size - (first & (queue.size - 1));
    let count = Math.min(most, toEnd, queue.used(page0[PROD_WORD], first));
    if (!this.#fetch(first, count)) {
      // Perhaps a later one is where no memory is, or in another piece of it.
      count = 1;
      if (!this.#fetch(first, 1)) {
        this.#fail(CERROR.ABT);
        return 1;
      }
    }
    for (let i = 0; i < count; i++) {
      const at = i * COMMAND_WORDS;
      if (this.#trace !== undefined) this.#trace('smmuv3_cmdq_opcode', words[at] & 0xff);
      const action = legality.judge(words, at);
      if (action === NOTHING) continue;
      if (alone) {
        // The translator looks at no bit without a meaning.
        if (action === INVALIDATION) {
          target.invalidate(words, at);
          continue;
        }
        if (action === CFGI_STE) {
          // StreamIDs that cannot be have no effect (4.1.7).
          if (words[at + 1] <= this.#maxSid) target.invalidate(words, at);
          continue;
        }
      } else if (action === INVALIDATION && this.#batch.count < BATCH_COMMANDS) {
        legality.strip(words, at);
        target.invalidate(words, at);
        this.#collect(words, at);
        continue;
      }
      const nothingLeft = this.#batch.count === 0 && !this.#backendWaits && !this.#atcTimeout;
      if (action === SYNC && (words[at] & SIGNAL) === 0 && nothingLeft) continue;
      // From here on somebody may be called who looks at CONS, or changes everything.
      this.#consume(first + i);
      if (action !== SYNC) legality.strip(words, at);
      this.#step(action, words, at);
      return i + 1;
    }
    this.#consume(first + count);
    return count;
  }

  #fetch(cons: number, count: number): boolean {
    const queue = this.#queue;
    return (
      this.#memory.loadWords(queue.baseHi, queue.entryLo(cons), this.#fetched, count * COMMAND_WORDS) === OK
    );
  }

  /** Moves CONS to a command; ERR stays. */
  #consume(pointer: number): void {
    const page0 = this.#page0;
    page0[CONS_WORD] = (page0[CONS_WORD] & ERR) | (pointer & this.#queue.pointerMask);
  }

  /** Carries out the command at CONS, or reports why not. */
  #step(action: Action, words: Uint32Array, at: number): void {
    const moves = this.#moves;
    const error = this.#execute(action, words, at);
    // Someone whom the command called may have written CONS.
    if (this.#moves !== moves) return;
    if (error !== NONE) {
      this.#fail(error);
      return;
    }
    this.#consume(this.#page0[CONS_WORD] + 1);
    // 4.7.3: the signal follows CONS. SEV without IDR0.SEV acts as no signal.
    if (action === SYNC && CMD_SYNC.CS.get(words, at) === SYNC_CS.IRQ)
      this.#interrupts.sync(
        CMD_SYNC.MSIAddress.getHi(words, at),
        CMD_SYNC.MSIAddress.getLo(words, at),
        CMD_SYNC.MSIData.get(words, at),
      );
  }

  /** @returns a CERROR code; NONE if the command is consumed. */
  #execute(action: Action, words: Uint32Array, at: number): number {
    switch (action) {
      case ACTION.Nothing:
        return CERROR.NONE;
      case ACTION.Invalidate:
        this.#target.invalidate(words, at);
        this.#collect(words, at);
        return CERROR.NONE;
      case ACTION.CfgiSte:
        this.#cfgiSte(words, at);
        return CERROR.NONE;
      case ACTION.CfgiSteRange:
        this.#cfgiSteRange(words, at);
        return CERROR.NONE;
      case ACTION.AtcInv:
        // 4.5.1: ignored while the SMMU is disabled.
        if ((this.#page0[CR0_WORD] & SMMUEN) !== 0) this.#collect(words, at);
        return CERROR.NONE;
      case ACTION.PriResp:
        if ((this.#page0[CR0_WORD] & SMMUEN) !== 0)
          this.#responses?.respond(
            CMD_PRI_RESP.StreamID.get(words, at),
            CMD_PRI_RESP.SSV.get(words, at) !== 0,
            CMD_PRI_RESP.SubstreamID.get(words, at),
            CMD_PRI_RESP.PRGIndex.get(words, at),
            CMD_PRI_RESP.Resp.get(words, at),
          );
        return CERROR.NONE;
      case ACTION.Resume:
        this.#resume(words, at);
        return CERROR.NONE;
      case ACTION.StallTerm:
        this.#target.terminateStalls(CMD_RESUME.StreamID.get(words, at));
        this.#stalls?.terminateStalls(CMD_RESUME.StreamID.get(words, at));
        return CERROR.NONE;
      case ACTION.Sync:
        return this.#sync();
      default:
        return CERROR.ILL;
    }
  }

  /** One of the two has stalled the transaction: a STAG belongs to a StreamID, and a StreamID to one of them. */
  #resume(words: Uint32Array, at: number): void {
    const sid = CMD_RESUME.StreamID.get(words, at);
    const stag = CMD_RESUME.STAG.get(words, at);
    const retry = CMD_RESUME.Ac.get(words, at) !== 0;
    const abort = CMD_RESUME.Ab.get(words, at) !== 0;
    this.#target.resume(sid, stag, retry, abort);
    this.#stalls?.resume(sid, stag, retry, abort);
  }

  #cfgiSte(words: Uint32Array, at: number): void {
    const sid = words[at + 1];
    if (this.#trace !== undefined) this.#trace('smmuv3_cmdq_cfgi_ste', sid);
    this.#streamsChanged(words, at, sid, sid);
  }

  #cfgiSteRange(words: Uint32Array, at: number): void {
    const range = CMD_CFGI_STE_RANGE.Range.get(words, at);
    const sid = CMD_CFGI_STE_RANGE.StreamID.get(words, at);
    // 4.3.2: 31 names every StreamID and makes the StreamID IGNORED.
    const low = range === CFGI_ALL_RANGE ? 0xffff_ffff : 2 ** (range + 1) - 1;
    const first = (sid & ~low) >>> 0;
    const last = (sid | low) >>> 0;
    if (this.#trace !== undefined) this.#trace('smmuv3_cmdq_cfgi_ste_range', first, last);
    this.#streamsChanged(words, at, first, last);
  }

  /** The STEs of first..last may have changed; StreamIDs that cannot be have no effect (4.1.7). */
  #streamsChanged(words: Uint32Array, at: number, first: number, last: number): void {
    if (first > this.#maxSid) return;
    this.#target.invalidate(words, at);
    // What came before in this window has to come before for the backend too.
    if (this.#batch.count > 0) this.#flush();
    if (this.#backend.streamsChanged(first, Math.min(last, this.#maxSid)) === true) this.#backendWaits = true;
  }

  /** Keeps a command until the CMD_SYNC. */
  #collect(words: Uint32Array, at: number): void {
    const batch = this.#batch;
    if (batch.count === BATCH_COMMANDS) this.#flush();
    const to = batch.count * COMMAND_WORDS;
    for (let i = 0; i < COMMAND_WORDS; i++) batch.words[to + i] = words[at + i];
    batch.count += 1;
  }

  /** Hands the collected commands over. An unanswered ATC_INV is remembered for the CMD_SYNC. */
  #flush(): void {
    this.#backendWaits = false;
    if (this.#backend.invalidate(this.#batch) === INVALIDATE.AtcInvTimeout) this.#atcTimeout = true;
    this.#batch.count = 0;
  }

  #sync(): number {
    if (this.#batch.count > 0 || this.#backendWaits) this.#flush();
    if (!this.#atcTimeout) return CERROR.NONE;
    // 4.7.3: not consumed, no signal; the next CMD_SYNC completes what else there was.
    this.#atcTimeout = false;
    return CERROR.ATC_INV_SYNC;
  }

  /** 7.1: CONS stays at the command, and ERR is there before the error becomes active. */
  #fail(error: number): void {
    const page0 = this.#page0;
    page0[CONS_WORD] = (page0[CONS_WORD] & ~ERR) | CMDQ_CONS.ERR.put(error);
    if (this.#trace !== undefined) this.#trace('smmuv3_cmdq_consume_error', error, page0[CONS_WORD]);
    this.#interrupts.activate(CMDQ_ERR);
  }
}
