/**
 * The controller: registers, doorbells and the processing of commands (NVMe 1.4, chapters 3, 4 and 7). Every command is
 * carried out when it is fetched, so nothing is in flight between two calls.
 */

import { OUTCOME } from '../../../../smmu/transaction.ts';
import { AdminCommands, type IdentifyPages } from './admin.ts';
import { HELD, SQE, SQE_WORDS, STATUS, WORD } from './command.ts';
import { DOORBELL_ERROR, Events } from './events.ts';
import { Features } from './features.ts';
import type { HostPort } from './host-port.ts';
import { IoCommands } from './io.ts';
import type { Namespace } from './namespace.ts';
import { CompletionQueue, QueueSet, SubmissionQueue } from './queues.ts';
import {
  AQA,
  BAR_SIZE,
  CAP,
  CC,
  CSTS,
  DOORBELLS,
  MAX_PAGE_SHIFT,
  MAX_QUEUE_ENTRIES,
  MIN_PAGE_SHIFT,
  REGISTER,
  SHUTDOWN_COMPLETE,
  VERSION,
} from './registers.ts';
import { Transfer } from './transfer.ts';

/** What one doorbell may cost before the rest is put off, in commands and pages of 4 KiB. */
const BUDGET = 512;
const PAGE = 4096;

/** Commands taken from one queue before the next one has its turn. */
const BURST = 16;

const FUSE_OR_SGL = SQE.FUSE.inPlace | SQE.PSDT.inPlace;

export interface ControllerOptions {
  readonly port: HostPort;
  readonly namespace: Namespace;
  readonly identify: IdentifyPages;
  readonly firmware: string;
  readonly vectors: number;
  readonly maxIoQueues: number;
  /** log2 of the pages of 4 KiB that one command may transfer. */
  readonly log2MaxPages: number;
  /** Commands remain: {@link Controller.run} wants to be called, later. */
  readonly defer: () => void;
}

export class Controller {
  readonly #port: HostPort;
  readonly #defer: () => void;
  readonly #registers = new Uint32Array(DOORBELLS / 4);
  readonly #queues: QueueSet;
  readonly #transfer: Transfer;
  readonly #events = new Events();
  readonly #features: Features;
  readonly #admin: AdminCommands;
  readonly #io: IoCommands;
  /** The command at work. */
  readonly #sqe = new Uint32Array(SQE_WORDS);
  readonly #sqeBytes = new Uint8Array(this.#sqe.buffer);
  readonly #cqe = new Uint32Array(4);
  readonly #cqeBytes = new Uint8Array(this.#cqe.buffer);
  /** Queue whose turn it is. */
  #turn = 0;
  #deferred = false;
  /** {@link #work} is on the stack: a guest in this process may ring from inside a transfer or an interrupt. */
  #busy = false;
  #again = false;
  /** Counts controller resets, so that a command that caused one is not completed. */
  #epoch = 0;

  constructor(options: ControllerOptions) {
    this.#port = options.port;
    this.#defer = options.defer;
    this.#queues = new QueueSet(options.maxIoQueues);
    this.#transfer = new Transfer(options.port, PAGE << options.log2MaxPages);
    this.#features = new Features(options.vectors, options.maxIoQueues);
    this.#admin = new AdminCommands({
      queues: this.#queues,
      namespace: options.namespace,
      transfer: this.#transfer,
      events: this.#events,
      features: this.#features,
      identify: options.identify,
      vectors: options.vectors,
      firmware: options.firmware,
    });
    this.#io = new IoCommands(options.namespace, this.#transfer);
    this.#powerOn();
  }

  #powerOn(): void {
    const registers = this.#registers;
    registers.fill(0);
    const cap = REGISTER.CAP >>> 2;
    CAP.MQES.set(registers, MAX_QUEUE_ENTRIES - 1, cap);
    CAP.CQR.set(registers, 1, cap);
    CAP.TO.set(registers, 20, cap);
    CAP.CSS.set(registers, 1, cap);
    CAP.MPSMAX.set(registers, MAX_PAGE_SHIFT - MIN_PAGE_SHIFT, cap);
    registers[REGISTER.VS >>> 2] = VERSION;
  }

  /** Function-level reset: as after power-on. */
  reset(): void {
    this.#stop();
    this.#powerOn();
  }

  /** Reads `into.length` bytes of BAR0; doorbells read as zero. */
  read(offset: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) {
      const at = offset + i;
      into[i] = at < DOORBELLS ? (this.#registers[at >>> 2] >>> ((at & 3) * 8)) & 0xff : 0;
    }
  }

  /** Writes BAR0: aligned 4 or 8 bytes, low half first; other accesses are ignored. */
  write(offset: number, from: Uint8Array): void {
    if ((offset & 3) !== 0 || (from.length !== 4 && from.length !== 8)) return;
    for (let at = 0; at < from.length && offset + at < BAR_SIZE; at += 4) {
      const value = (from[at] | (from[at + 1] << 8) | (from[at + 2] << 16) | (from[at + 3] << 24)) >>> 0;
      if (offset + at < DOORBELLS) this.#writeRegister(offset + at, value);
      else this.#writeDoorbell((offset + at - DOORBELLS) >>> 2, value);
    }
  }

  get #cc(): number {
    return this.#registers[REGISTER.CC >>> 2];
  }

  get #csts(): number {
    return this.#registers[REGISTER.CSTS >>> 2];
  }

  set #csts(value: number) {
    this.#registers[REGISTER.CSTS >>> 2] = value;
  }

  /** Commands are processed: ready, not failed, not shut down. */
  get #running(): boolean {
    return this.#csts === CSTS.RDY.put(1);
  }

  /** 3.1.3: one mask for both INTMS and INTMC. */
  get #interruptMask(): number {
    return this.#registers[REGISTER.INTMS >>> 2];
  }

  #setInterruptMask(mask: number): void {
    this.#registers[REGISTER.INTMS >>> 2] = mask;
    this.#registers[REGISTER.INTMC >>> 2] = mask;
  }

  #writeRegister(offset: number, value: number): void {
    const registers = this.#registers;
    const enabled = CC.EN.of(this.#cc) === 1;
    switch (offset) {
      case REGISTER.INTMS:
        this.#setInterruptMask((this.#interruptMask | value) >>> 0);
        this.#updateInterrupts();
        break;
      case REGISTER.INTMC:
        this.#setInterruptMask((this.#interruptMask & ~value) >>> 0);
        this.#updateInterrupts();
        break;
      case REGISTER.CC:
        this.#writeCc(value);
        break;
      case REGISTER.AQA:
        if (!enabled) registers[offset >>> 2] = value & 0x0fff_0fff;
        break;
      case REGISTER.ASQ:
      case REGISTER.ACQ:
        if (!enabled) registers[offset >>> 2] = value & 0xffff_f000;
        break;
      case REGISTER.ASQ + 4:
      case REGISTER.ACQ + 4:
        if (!enabled) registers[offset >>> 2] = value;
        break;
      default:
    }
  }

  /** 3.1.5: enable, reset and shutdown; while enabled only the shutdown field has a meaning. */
  #writeCc(value: number): void {
    const was = this.#cc;
    this.#registers[REGISTER.CC >>> 2] = value & 0x00ff_fff1;
    if (CC.EN.of(was) === 0 && CC.EN.of(value) === 1) this.#start();
    else if (CC.EN.of(was) === 1 && CC.EN.of(value) === 0) this.#stop();
    if (CC.SHN.of(value) !== 0 && CC.SHN.of(was) === 0)
      // 7.6.2: nothing is in flight and the storage needs no flush.
      this.#csts |= CSTS.SHST.put(SHUTDOWN_COMPLETE);
  }

  #start(): void {
    const cc = this.#cc;
    const registers = this.#registers;
    const aqa = registers[REGISTER.AQA >>> 2];
    const asq = REGISTER.ASQ >>> 2;
    const acq = REGISTER.ACQ >>> 2;
    const pageShift = MIN_PAGE_SHIFT + CC.MPS.of(cc);
    const pageMask = 2 ** pageShift - 1;
    const valid =
      pageShift <= MAX_PAGE_SHIFT &&
      CC.CSS.of(cc) === 0 &&
      CC.AMS.of(cc) === 0 &&
      AQA.ASQS.of(aqa) > 0 &&
      AQA.ACQS.of(aqa) > 0 &&
      ((registers[asq] | registers[acq]) & pageMask) === 0;
    if (!valid) {
      this.#csts = CSTS.CFS.put(1);
      return;
    }
    this.#transfer.pageShift = pageShift;
    const completions = new CompletionQueue(
      0,
      AQA.ACQS.of(aqa) + 1,
      registers[acq + 1],
      registers[acq],
      true,
      0,
    );
    this.#queues.completion[0] = completions;
    this.#queues.addSubmission(
      new SubmissionQueue(0, AQA.ASQS.of(aqa) + 1, registers[asq + 1], registers[asq], completions),
    );
    this.#csts = CSTS.RDY.put(1);
  }

  /** 7.3.2: controller reset. The admin queue registers keep their values. */
  #stop(): void {
    this.#epoch += 1;
    this.#queues.clear();
    this.#events.reset();
    this.#features.reset();
    this.#turn = 0;
    this.#csts = 0;
    this.#setInterruptMask(0);
    this.#updateInterrupts();
  }

  /** 3.1.6: a queue cannot be reached; only a reset helps. */
  #fail(): void {
    this.#csts |= CSTS.CFS.put(1);
  }

  #writeDoorbell(index: number, value: number): void {
    if (!this.#running) return;
    const id = index >>> 1;
    if ((index & 1) === 0) this.#submissionTail(id, value);
    else this.#completionHead(id, value);
    this.#work(BUDGET);
  }

  #submissionTail(id: number, tail: number): void {
    const queue = this.#queues.submission[id];
    if (queue === undefined) this.#events.doorbellError(DOORBELL_ERROR.InvalidRegister);
    else if (tail >= queue.size) this.#events.doorbellError(DOORBELL_ERROR.InvalidValue);
    else queue.tail = tail;
  }

  #completionHead(id: number, head: number): void {
    const queue = this.#queues.completion[id];
    if (queue === undefined) {
      this.#events.doorbellError(DOORBELL_ERROR.InvalidRegister);
      return;
    }
    const taken = head >= queue.head ? head - queue.head : head + queue.size - queue.head;
    // 4.1: software cannot take what was not posted.
    if (head >= queue.size || taken > queue.used) {
      this.#events.doorbellError(DOORBELL_ERROR.InvalidValue);
      return;
    }
    queue.head = head;
  }

  /**
   * Goes on with what a doorbell left over.
   * @param budget commands and 4 KiB pages
   * @returns true if commands still remain that could be processed now; `defer` was then called again
   */
  run(budget: number = BUDGET): boolean {
    this.#deferred = false;
    this.#work(budget);
    return this.#deferred;
  }

  #work(budget: number): void {
    this.#again = true;
    if (this.#busy) return;
    this.#busy = true;
    while (this.#again && budget > 0) {
      this.#again = false;
      budget = this.#serveAll(budget);
      this.#raiseInterrupts();
    }
    this.#busy = false;
    if (!this.#deferred && this.#canWork()) {
      this.#deferred = true;
      this.#defer();
    }
  }

  #canWork(): boolean {
    return (
      this.#running &&
      this.#queues.submission.some((queue) => queue !== undefined && !queue.empty && !queue.completions.full)
    );
  }

  /** Round robin until every queue is idle or the budget is spent. @returns what is left of it */
  #serveAll(budget: number): number {
    const submission = this.#queues.submission;
    let idle = 0;
    while (this.#running && idle < submission.length && budget > 0) {
      const queue = submission[this.#turn];
      const cost = queue === undefined ? 0 : this.#serve(queue, budget);
      budget -= cost;
      idle = cost === 0 ? idle + 1 : 0;
      this.#turn = this.#turn + 1 >= submission.length ? 0 : this.#turn + 1;
      this.#completeEvents();
    }
    return budget;
  }

  /** Processes up to a burst of one queue's commands. @returns what it cost */
  #serve(queue: SubmissionQueue, budget: number): number {
    const epoch = this.#epoch;
    let cost = 0;
    // 4.1.2: without room for its completion a command is not fetched.
    for (let n = 0; n < BURST && cost < budget && !queue.empty && !queue.completions.full; n++) {
      if (this.#port.read(queue.headHi, queue.headLo, this.#sqeBytes) !== OUTCOME.Ok) this.#fail();
      if (!this.#running || this.#epoch !== epoch) return cost + 1;
      queue.head = queue.head + 1 === queue.size ? 0 : queue.head + 1;
      cost += 1;
      const status = queue.id === 0 ? this.#executeAdmin() : this.#executeIo();
      cost += Math.ceil(this.#io.touched / PAGE);
      if (!this.#running || this.#epoch !== epoch) return cost;
      if (status !== HELD) this.#complete(queue, SQE.CID.get(this.#sqe), status, this.#result);
      if (!this.#running || this.#epoch !== epoch) return cost;
    }
    return cost;
  }

  /** Dword 0 of the completion of the command at work. */
  #result = 0;

  #executeAdmin(): number {
    this.#io.touched = 0;
    this.#result = 0;
    if ((this.#sqe[0] & FUSE_OR_SGL) !== 0) return STATUS.InvalidField;
    const status = this.#admin.execute(this.#sqe, this.#cc);
    this.#result = this.#admin.result;
    return status;
  }

  #executeIo(): number {
    this.#io.touched = 0;
    this.#result = 0;
    if ((this.#sqe[0] & FUSE_OR_SGL) !== 0) return STATUS.InvalidField;
    return this.#io.execute(this.#sqe);
  }

  /** Posts a completion; there is room. The phase tag lies in the last word, so it is the last to change. */
  #complete(queue: SubmissionQueue, cid: number, status: number, result: number): void {
    const completions = queue.completions;
    if (status !== STATUS.Success) this.#events.log(queue.id, cid, status, this.#sqe[WORD.CDW10]);
    const cqe = this.#cqe;
    cqe[0] = result;
    cqe[1] = 0;
    cqe[2] = (queue.id << 16) | queue.head;
    cqe[3] = (status << 17) | (completions.phase << 16) | cid;
    if (this.#port.write(completions.tailHi, completions.tailLo, this.#cqeBytes) !== OUTCOME.Ok) {
      this.#fail();
      return;
    }
    completions.tail += 1;
    if (completions.tail === completions.size) {
      completions.tail = 0;
      completions.phase ^= 1;
    }
    completions.news = true;
  }

  /** Completes event requests that have something to say, as far as there is room. */
  #completeEvents(): void {
    const events = this.#events;
    const queue = this.#queues.submission[0];
    if (queue === undefined) return;
    while (this.#running && events.ready && !queue.completions.full) {
      const cid = events.take();
      this.#complete(queue, cid, events.status, events.result);
    }
  }

  /** Brings the interrupts up to date after a mask or a queue changed. */
  #updateInterrupts(): void {
    if (this.#busy) this.#again = true;
    else this.#raiseInterrupts();
  }

  /** 7.5.1: a vector interrupts when entries were added to a queue that is not masked; coalescing is off. */
  #raiseInterrupts(): void {
    const mask = this.#interruptMask;
    let vectors = 0;
    let asserted = false;
    for (const queue of this.#queues.completion) {
      if (queue === undefined || !queue.interrupts || ((mask >>> queue.vector) & 1) === 1) continue;
      if (queue.news && !queue.empty) vectors |= 1 << queue.vector;
      queue.news = false;
      asserted ||= !queue.empty;
    }
    this.#port.pin(asserted, vectors !== 0);
    for (let vector = 0; vectors !== 0; vector++, vectors >>>= 1)
      if ((vectors & 1) === 1) this.#port.message(vector);
  }
}
