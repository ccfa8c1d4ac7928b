/** The eventfds that a VMM gave for a function's interrupts, and their masks. Owns the descriptors. */

import type { IrqInfo } from './device.ts';
import { IRQ_FLAG } from './messages.ts';

export interface EventfdPort {
  close(fd: number): void;
  signal(fd: number): void;
}

interface Vector {
  fd: number | undefined;
  masked: boolean;
  /** Raised while masked. */
  pending: boolean;
}

export class Interrupts {
  readonly #port: EventfdPort;
  readonly #infos: readonly IrqInfo[];
  readonly #vectors: readonly Vector[][];

  constructor(infos: readonly IrqInfo[], port: EventfdPort) {
    this.#port = port;
    this.#infos = infos;
    this.#vectors = infos.map(({ count }) =>
      Array.from({ length: count }, () => ({ fd: undefined, masked: false, pending: false })),
    );
  }

  /** Replaces eventfds from vector `start` on. The descriptors become ours; [start, start + fds.length) is inside. */
  assign(index: number, start: number, fds: readonly number[]): void {
    fds.forEach((fd, i) => {
      this.#release(this.#vectors[index][start + i]);
      this.#vectors[index][start + i].fd = fd;
    });
  }

  /** Takes the eventfds of vectors [start, start + count) away. */
  remove(index: number, start: number, count: number): void {
    for (const vector of this.#vectors[index].slice(start, start + count)) this.#release(vector);
  }

  mask(index: number, vector: number): void {
    this.#vectors[index][vector].masked = true;
  }

  /** Unmasks; an interrupt that was raised meanwhile goes out now. */
  unmask(index: number, vector: number): void {
    const entry = this.#vectors[index][vector];
    entry.masked = false;
    if (entry.pending) this.raise(index, vector);
  }

  /**
   * Signals the eventfd, or remembers to do so when it is unmasked. An INTx masks itself: the VMM unmasks it when the
   * guest's handler has touched the function.
   * @returns false if there is no eventfd.
   */
  raise(index: number, vector: number): boolean {
    const entry = this.#vectors[index]?.[vector];
    if (entry?.fd === undefined) return false;
    entry.pending = entry.masked;
    if (entry.masked) return true;
    if ((this.#infos[index].flags & IRQ_FLAG.Automasked) !== 0) entry.masked = true;
    this.#port.signal(entry.fd);
    return true;
  }

  /** True if the VMM gave an eventfd. */
  assigned(index: number, vector: number): boolean {
    return this.#vectors[index]?.[vector]?.fd !== undefined;
  }

  /** Closes every eventfd. */
  releaseAll(): void {
    for (const vectors of this.#vectors) for (const vector of vectors) this.#release(vector);
  }

  #release(vector: Vector): void {
    if (vector.fd !== undefined) this.#port.close(vector.fd);
    vector.fd = undefined;
    vector.masked = false;
    vector.pending = false;
  }
}
