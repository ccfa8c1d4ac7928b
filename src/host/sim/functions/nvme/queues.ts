/** Submission and completion queues (NVMe 1.4, 4.1). Indices are below the size; empty is head = tail. */

import { CQE_SHIFT, SQE_SHIFT } from './registers.ts';

const TWO_32 = 0x1_0000_0000;

export class CompletionQueue {
  readonly id: number;
  readonly size: number;
  readonly baseHi: number;
  readonly baseLo: number;
  /** Interrupts are enabled, and which vector. */
  readonly interrupts: boolean;
  readonly vector: number;
  head = 0;
  tail = 0;
  phase = 1;
  /** Submission queues that complete here. */
  users = 0;
  /** Entries were added and no interrupt was raised for them yet. */
  news = false;

  constructor(id: number, size: number, baseHi: number, baseLo: number, interrupts: boolean, vector: number) {
    this.id = id;
    this.size = size;
    this.baseHi = baseHi;
    this.baseLo = baseLo;
    this.interrupts = interrupts;
    this.vector = vector;
  }

  get empty(): boolean {
    return this.head === this.tail;
  }

  get full(): boolean {
    const next = this.tail + 1;
    return (next === this.size ? 0 : next) === this.head;
  }

  /** Entries that software has not taken yet. */
  get used(): number {
    return this.tail >= this.head ? this.tail - this.head : this.tail + this.size - this.head;
  }

  /** Halves of the address of the entry at the tail. */
  get tailHi(): number {
    return (this.baseHi + (this.baseLo + (this.tail << CQE_SHIFT) >= TWO_32 ? 1 : 0)) >>> 0;
  }

  get tailLo(): number {
    return (this.baseLo + (this.tail << CQE_SHIFT)) >>> 0;
  }
}

export class SubmissionQueue {
  readonly id: number;
  readonly size: number;
  readonly baseHi: number;
  readonly baseLo: number;
  readonly completions: CompletionQueue;
  head = 0;
  tail = 0;

  constructor(id: number, size: number, baseHi: number, baseLo: number, completions: CompletionQueue) {
    this.id = id;
    this.size = size;
    this.baseHi = baseHi;
    this.baseLo = baseLo;
    this.completions = completions;
  }

  get empty(): boolean {
    return this.head === this.tail;
  }

  /** Halves of the address of the entry at the head. */
  get headHi(): number {
    return (this.baseHi + (this.baseLo + (this.head << SQE_SHIFT) >= TWO_32 ? 1 : 0)) >>> 0;
  }

  get headLo(): number {
    return (this.baseLo + (this.head << SQE_SHIFT)) >>> 0;
  }
}

/** The queues that exist; index 0 is the admin pair. */
export class QueueSet {
  readonly submission: (SubmissionQueue | undefined)[];
  readonly completion: (CompletionQueue | undefined)[];
  /** Pairs of I/O queues that may exist. */
  readonly maxIoQueues: number;

  constructor(maxIoQueues: number) {
    this.maxIoQueues = maxIoQueues;
    this.submission = new Array<SubmissionQueue | undefined>(maxIoQueues + 1).fill(undefined);
    this.completion = new Array<CompletionQueue | undefined>(maxIoQueues + 1).fill(undefined);
  }

  addSubmission(queue: SubmissionQueue): void {
    this.submission[queue.id] = queue;
    queue.completions.users += 1;
  }

  removeSubmission(queue: SubmissionQueue): void {
    this.submission[queue.id] = undefined;
    queue.completions.users -= 1;
  }

  /** Any I/O queue exists. */
  get anyIo(): boolean {
    return this.completion.some((queue, id) => id > 0 && queue !== undefined);
  }

  clear(): void {
    this.submission.fill(undefined);
    this.completion.fill(undefined);
  }
}
