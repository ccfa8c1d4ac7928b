/** What a write to a register sets off, once the register file has taken it (IHI 0070 chapter 6). */

import { MAX_LOG2_QUEUE_SIZE } from '../spec/queues.ts';
import { CR0, GERROR, OFFSET, PAGE_SIZE } from '../spec/registers.ts';
import type { CommandQueue } from './command-queue.ts';
import type { EventQueue } from './event-queue.ts';
import type { Interrupts } from './interrupts.ts';
import type { StreamBackend, Trace } from './ports.ts';
import type { PriQueue } from './pri-queue.ts';
import { wordOf } from './register-file.ts';
import type { Translator } from './translator.ts';

// Numbers of this module cost nothing where they are used; properties of imported objects are loaded every time.
const AT_CR0 = OFFSET.CR0;
const AT_GBPA = OFFSET.GBPA;
const AT_IRQ_CTRL = OFFSET.IRQ_CTRL;
const AT_GERRORN = OFFSET.GERRORN;
const AT_CMDQ_BASE = OFFSET.CMDQ_BASE;
const AT_CMDQ_PROD = OFFSET.CMDQ_PROD;
const AT_CMDQ_CONS = OFFSET.CMDQ_CONS;
const AT_EVENTQ_BASE = OFFSET.EVENTQ_BASE;
const AT_EVENTQ_PROD = OFFSET.EVENTQ_PROD;
const AT_EVENTQ_CONS = OFFSET.EVENTQ_CONS;
const AT_PRIQ_BASE = OFFSET.PRIQ_BASE;
const AT_PRIQ_PROD = OFFSET.PRIQ_PROD;
/** Page 0 shows what page 1 has, too. */
const AT_EVENTQ_PROD_0 = OFFSET.EVENTQ_PROD % PAGE_SIZE;
const AT_EVENTQ_CONS_0 = OFFSET.EVENTQ_CONS % PAGE_SIZE;
const AT_PRIQ_PROD_0 = OFFSET.PRIQ_PROD % PAGE_SIZE;

const CR0_WORD = wordOf(OFFSET.CR0);
const CR0ACK_WORD = wordOf(OFFSET.CR0ACK);
const IRQ_CTRL_WORD = wordOf(OFFSET.IRQ_CTRL);
const GERRORN_WORD = wordOf(OFFSET.GERRORN);
const SMMUEN = CR0.SMMUEN.inPlace;
const CMDQEN = CR0.CMDQEN.inPlace;
const EVENTQEN = CR0.EVENTQEN.inPlace;
const PRIQEN = CR0.PRIQEN.inPlace;
const CMDQ_ERR = GERROR.CMDQ_ERR.inPlace;

/** Commands that one register write carries out itself before it hands the rest to `defer`. */
export const COMMANDS_PER_DOORBELL = 1024;
/** Without `defer`: twice the largest queue. Bounded even if a guest inside our process adds commands from an interrupt. */
const COMMANDS_AT_MOST = 2 ** (MAX_LOG2_QUEUE_SIZE + 1);

export interface RegisterEffectsParts {
  /** Page 0, word by word. */
  readonly registers: Uint32Array;
  readonly interrupts: Interrupts;
  readonly commands: CommandQueue;
  readonly events: EventQueue;
  readonly priq: PriQueue;
  readonly translator: Translator;
  readonly backend: StreamBackend;
  readonly maxSid: number;
  /** Asked to see to it that {@link RegisterEffects.run} is called soon. */
  readonly defer: (() => void) | undefined;
  readonly trace: Trace | undefined;
}

export class RegisterEffects {
  readonly #registers: Uint32Array;
  readonly #interrupts: Interrupts;
  readonly #commands: CommandQueue;
  readonly #events: EventQueue;
  readonly #priq: PriQueue;
  readonly #translator: Translator;
  readonly #backend: StreamBackend;
  readonly #maxSid: number;
  readonly #defer: (() => void) | undefined;
  readonly #trace: Trace | undefined;
  /** `defer` was called, and {@link run} was not yet. */
  #deferred = false;

  constructor(parts: RegisterEffectsParts) {
    this.#registers = parts.registers;
    this.#interrupts = parts.interrupts;
    this.#commands = parts.commands;
    this.#events = parts.events;
    this.#priq = parts.priq;
    this.#translator = parts.translator;
    this.#backend = parts.backend;
    this.#maxSid = parts.maxSid;
    this.#defer = parts.defer;
    this.#trace = parts.trace;
  }

  /** Carries out what a stored write sets off. `offset` is that of the word. */
  written(offset: number): void {
    switch (offset) {
      case AT_CMDQ_PROD:
        this.doorbell();
        break;
      case AT_EVENTQ_CONS:
      case AT_EVENTQ_CONS_0:
        this.lookForRoom();
        break;
      case AT_CR0:
        this.#updateCr0();
        break;
      case AT_GBPA:
        // 6.3.14: it counts only while SMMUEN=0.
        if ((this.#registers[CR0_WORD] & SMMUEN) === 0) this.#backend.streamsChanged(0, this.#maxSid);
        break;
      case AT_IRQ_CTRL:
        // IRQ_CTRLACK follows at once.
        this.#registers[IRQ_CTRL_WORD + 1] = this.#registers[IRQ_CTRL_WORD];
        break;
      case AT_GERRORN:
        this.#acknowledged();
        break;
      case AT_CMDQ_BASE:
      case AT_CMDQ_BASE + 4:
        this.#commands.rebase();
        break;
      case AT_CMDQ_CONS:
        this.#commands.truncate();
        break;
      case AT_EVENTQ_BASE:
      case AT_EVENTQ_BASE + 4:
        this.#events.rebase();
        this.#backend.eventQueueChanged();
        break;
      case AT_PRIQ_BASE:
      case AT_PRIQ_BASE + 4:
        this.#priq.rebase();
        this.#backend.eventQueueChanged();
        break;
      case AT_EVENTQ_PROD:
      case AT_EVENTQ_PROD_0:
        this.#events.truncate();
        break;
      case AT_PRIQ_PROD:
      case AT_PRIQ_PROD_0:
        this.#priq.truncate();
        break;
      default:
    }
  }

  /** 6.3.9: the Update is complete, with all its side effects, when the write returns. CR0ACK still has the old value. */
  #updateCr0(): void {
    const value = this.#registers[CR0_WORD];
    const changed = value ^ this.#registers[CR0ACK_WORD];
    this.#registers[CR0ACK_WORD] = value;
    if ((changed & SMMUEN) !== 0) {
      if ((value & SMMUEN) === 0) this.#translator.smmuDisabled();
      this.#backend.streamsChanged(0, this.#maxSid);
    }
    if ((changed & value & EVENTQEN) !== 0) this.#translator.eventQueueWritable();
    if ((changed & (EVENTQEN | PRIQEN)) !== 0) this.#backend.eventQueueChanged();
    if ((changed & value & CMDQEN) !== 0) this.doorbell();
  }

  /** GERRORN was written. 7.1: acknowledging CMDQ_ERR is enough to go on, from CONS and with a new fetch. */
  #acknowledged(): void {
    if (this.#trace !== undefined)
      this.#trace('smmuv3_write_gerrorn', this.#registers[GERRORN_WORD], this.#interrupts.active);
    if ((this.#interrupts.active & CMDQ_ERR) === 0) this.doorbell();
    this.lookForRoom();
  }

  /** Carries out commands that wait, or has them carried out soon. */
  doorbell(): void {
    if (this.#defer === undefined) {
      this.#commands.run(COMMANDS_AT_MOST);
      return;
    }
    if (this.#deferred || !this.#commands.run(COMMANDS_PER_DOORBELL)) return;
    this.#deferred = true;
    this.#defer();
  }

  /** Goes on with queued commands. @returns whether any is left; then call again. */
  run(budget: number): boolean {
    this.#deferred = false;
    const more = this.#commands.run(budget);
    this.#deferred = more && this.#defer !== undefined;
    return more;
  }

  /** Forgets that commands wait: the queue is another one. */
  forgetDeferred(): void {
    this.#deferred = false;
  }

  /** The event queue may take records again: tells those who met it full. */
  lookForRoom(): void {
    if (!this.#events.roomAppeared()) return;
    this.#translator.eventQueueWritable();
    this.#backend.eventQueueChanged();
  }
}
