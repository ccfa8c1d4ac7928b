/** The command queue (IHI 0070 3.5, chapter 4, 7.1): fetch, check, carry out, and stop at an error until it is acknowledged. */

import { MEM_OK, type Memory } from '../memory/memory.ts';
import {
  CERROR,
  CFGI_ALL_RANGE,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_SYNC,
  COMMAND_WORDS,
  SYNC_CS,
} from '../spec/commands.ts';
import { CMDQ_CONS, CR0, GERROR, IDR1, OFFSET } from '../spec/registers.ts';
import { ACTION, CommandLegality } from './command-legality.ts';
import { maxStreamId, outputAddressBits, type IdRegisters } from './identification.ts';
import type { Interrupts } from './interrupts.ts';
import {
  INVALIDATE,
  type CommandBatch,
  type PageResponsePort,
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

/** Commands between two CMD_SYNCs that are kept together; a longer window is handed over in pieces. */
const BATCH_COMMANDS = 256;

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
  readonly #trace: Trace | undefined;
  readonly #legality: CommandLegality;
  readonly #maxSid: number;
  /** Commands are fetched into the first free place, where an invalidation stays until the CMD_SYNC. */
  readonly #batch = new PendingBatch();
  /** A piece of the window that was handed over before its CMD_SYNC met an ATC_INV without an answer. */
  #atcTimeout = false;
  #running = false;
  /** The CMD_SYNC that is being completed asked for an interrupt. */
  #signal = false;
  #signalHi = 0;
  #signalLo = 0;
  #signalData = 0;

  constructor(
    ids: IdRegisters,
    page0: Uint32Array,
    memory: Memory,
    interrupts: Interrupts,
    backend: StreamBackend,
    target: CommandTarget,
    responses: PageResponsePort | undefined,
    trace: Trace | undefined,
  ) {
    this.#page0 = page0;
    this.#memory = memory;
    this.#interrupts = interrupts;
    this.#backend = backend;
    this.#target = target;
    this.#responses = responses;
    this.#trace = trace;
    this.#legality = new CommandLegality(ids);
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
    this.#page0[CONS_WORD] &= ERR | this.#queue.pointerMask;
  }

  /** Forgets what was consumed and not yet completed, and the queue. */
  reset(): void {
    this.#batch.count = 0;
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
    for (let left = budget; left > 0 && this.ready; left--) this.#step();
    this.#running = false;
    return this.ready;
  }

  /** Carries out the command at CONS, or reports why not. */
  #step(): void {
    const page0 = this.#page0;
    const queue = this.#queue;
    const batch = this.#batch;
    if (batch.count === BATCH_COMMANDS) this.#flush();
    const cons = page0[CONS_WORD];
    const at = batch.count * COMMAND_WORDS;
    if (
      this.#memory.loadWords(queue.baseHi, queue.entryLo(cons), batch.words, COMMAND_WORDS, at) !== MEM_OK
    ) {
      this.#fail(CERROR.ABT);
      return;
    }
    if (this.#trace !== undefined) this.#trace('smmuv3_cmdq_opcode', batch.words[at] & 0xff);
    const error = this.#execute(batch.words, at);
    // Someone whom the command called may have written CONS: a reset, or a guest inside our process.
    if (page0[CONS_WORD] !== cons) {
      this.#signal = false;
      return;
    }
    if (error !== CERROR.NONE) {
      this.#fail(error);
      return;
    }
    const next = (cons + 1) & queue.pointerMask;
    page0[CONS_WORD] = (cons & ERR) | next;
    // 4.7.3: the signal follows CONS.
    if (!this.#signal) return;
    this.#signal = false;
    this.#interrupts.sync(this.#signalHi, this.#signalLo, this.#signalData);
  }

  /** @returns a CERROR code; NONE if the command is consumed. */
  #execute(words: Uint32Array, at: number): number {
    switch (this.#legality.admit(words, at)) {
      case ACTION.Nothing:
        return CERROR.NONE;
      case ACTION.Invalidate:
        this.#target.invalidate(words, at);
        this.#batch.count++;
        return CERROR.NONE;
      case ACTION.CfgiSte: {
        const sid = CMD_CFGI_STE.StreamID.get(words, at);
        if (this.#trace !== undefined) this.#trace('smmuv3_cmdq_cfgi_ste', sid);
        this.#streamsChanged(words, at, sid, sid);
        return CERROR.NONE;
      }
      case ACTION.CfgiSteRange:
        this.#cfgiSteRange(words, at);
        return CERROR.NONE;
      case ACTION.AtcInv:
        // 4.5.1: ignored while the SMMU is disabled.
        if ((this.#page0[CR0_WORD] & SMMUEN) !== 0) this.#batch.count++;
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
        this.#target.resume(
          CMD_RESUME.StreamID.get(words, at),
          CMD_RESUME.STAG.get(words, at),
          CMD_RESUME.Ac.get(words, at) !== 0,
          CMD_RESUME.Ab.get(words, at) !== 0,
        );
        return CERROR.NONE;
      case ACTION.StallTerm:
        this.#target.terminateStalls(CMD_RESUME.StreamID.get(words, at));
        return CERROR.NONE;
      case ACTION.Sync:
        return this.#sync(words, at);
      default:
        return CERROR.ILL;
    }
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
    this.#backend.streamsChanged(first, Math.min(last, this.#maxSid));
  }

  /** Hands the collected commands over. An unanswered ATC_INV is remembered for the CMD_SYNC. */
  #flush(): void {
    if (this.#backend.invalidate(this.#batch) === INVALIDATE.AtcInvTimeout) this.#atcTimeout = true;
    this.#batch.count = 0;
  }

  #sync(words: Uint32Array, at: number): number {
    // Read first: the command lies where the next one will go.
    const signal = CMD_SYNC.CS.get(words, at) === SYNC_CS.IRQ;
    const hi = CMD_SYNC.MSIAddress.getHi(words, at);
    const lo = CMD_SYNC.MSIAddress.getLo(words, at);
    const data = CMD_SYNC.MSIData.get(words, at);
    if (this.#batch.count > 0) this.#flush();
    if (this.#atcTimeout) {
      // 4.7.3: not consumed, no signal; the next CMD_SYNC completes what else there was.
      this.#atcTimeout = false;
      return CERROR.ATC_INV_SYNC;
    }
    // 4.7.3: SEV without IDR0.SEV acts as no signal.
    this.#signal = signal;
    this.#signalHi = hi;
    this.#signalLo = lo;
    this.#signalData = data;
    return CERROR.NONE;
  }

  /** 7.1: CONS stays at the command, and ERR is there before the error becomes active. */
  #fail(error: number): void {
    const page0 = this.#page0;
    page0[CONS_WORD] = (page0[CONS_WORD] & ~ERR) | CMDQ_CONS.ERR.put(error);
    if (this.#trace !== undefined) this.#trace('smmuv3_cmdq_consume_error', error, page0[CONS_WORD]);
    this.#interrupts.activate(CMDQ_ERR);
  }
}
