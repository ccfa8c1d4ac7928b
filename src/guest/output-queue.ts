/** A queue that the device fills: the event queue and the PRI queue, from the driver's side. */

import { hex32 } from '../bits/u64.ts';
import { EVENTQ_PROD } from '../spec/registers.ts';
import type { GuestRam } from './guest-ram.ts';
import type { KernelLog } from './kernel-log.ts';
import { advance, distance, indexOf, pointerOf } from './queue-pointer.ts';
import type { RegisterPort } from './register-port.ts';

const OVERFLOW = EVENTQ_PROD.OVFLG.inPlace;

/** No device fills its queue so often while its driver does nothing but read it. */
const QUEUES_PER_INTERRUPT = 64;

export interface OutputQueueParts {
  readonly port: RegisterPort;
  readonly ram: GuestRam;
  readonly log: KernelLog;
  /** What the log calls it. */
  readonly name: string;
  /** Bytes of a record. */
  readonly recordSize: number;
  /** Offsets of its two pointers. */
  readonly prodOffset: number;
  readonly consOffset: number;
}

export class OutputQueue {
  readonly #parts: OutputQueueParts;
  readonly base: number;
  readonly log2Size: number;
  /** As last read, with the overflow flag; and as last written, with the acknowledgement. */
  #prod = 0;
  #cons = 0;

  constructor(parts: OutputQueueParts, base: number, log2Size: number) {
    this.#parts = parts;
    this.base = base;
    this.log2Size = log2Size;
  }

  /**
   * Takes all records, each with a write of CONS behind it, until a fresh look at PROD shows none left. The first look
   * is at the PROD of the last time.
   * @param take called with each record; its buffer is reused.
   * @param lost called when the overflow flag was found changed.
   */
  drain(take: (record: Uint32Array) => void, lost: () => void): void {
    const { port, ram, recordSize, prodOffset, consOffset } = this.#parts;
    const words = recordSize / 4;
    const record = new Uint32Array(words);
    const { log2Size } = this;
    let taken = 0;
    do {
      while (!this.#isEmpty()) {
        ram.loadWords(this.base + indexOf(this.#cons, log2Size) * recordSize, record, words);
        this.#cons = (this.#cons & OVERFLOW) | advance(pointerOf(this.#cons, log2Size), 1, log2Size);
        port.write(consOffset, this.#cons);
        take(record);
        taken += 1;
      }
      if (taken > QUEUES_PER_INTERRUPT * 2 ** log2Size) {
        this.#parts.log.suspect(`${this.#parts.name} does not run empty`);
        return;
      }
      const prod = port.read(prodOffset);
      if (((prod ^ this.#prod) & OVERFLOW) !== 0) lost();
      this.#prod = this.#plausible(prod);
    } while (!this.#isEmpty());
    if (((this.#prod ^ this.#cons) & OVERFLOW) !== 0) {
      this.#cons = (this.#prod & OVERFLOW) | pointerOf(this.#cons, log2Size);
      port.write(consOffset, this.#cons);
    }
  }

  #isEmpty(): boolean {
    return pointerOf(this.#prod, this.log2Size) === pointerOf(this.#cons, this.log2Size);
  }

  /** A PROD that claims more records than the queue holds is noted and taken for "nothing new". */
  #plausible(prod: number): number {
    const cons = pointerOf(this.#cons, this.log2Size);
    const claimed = distance(pointerOf(prod, this.log2Size), cons, this.log2Size);
    if (claimed <= 2 ** this.log2Size) return prod;
    this.#parts.log.suspect(`${this.#parts.name} PROD is ${hex32(prod)} with CONS at ${hex32(this.#cons)}`);
    return (prod & OVERFLOW) | cons;
  }
}
