/** Numbers by fingerprint: twelve bytes an entry, open addressing. It grows. */

import type { Fingerprint } from './fingerprint.ts';

const FIRST_LOG2 = 12;

export class FingerprintMap {
  #hi = new Uint32Array(1 << FIRST_LOG2);
  #lo = new Uint32Array(1 << FIRST_LOG2);
  #values = new Uint32Array(1 << FIRST_LOG2);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /**
   * Enters a number, 0..2^32-1, unless there is one for this fingerprint.
   * @returns the number that was there before; undefined if there was none.
   */
  enter({ hi, lo }: Fingerprint, value: number): number | undefined {
    if (this.#size * 2 >= this.#hi.length) this.#grow();
    return this.#insert(hi, lo, value);
  }

  #insert(hi: number, lo: number, value: number): number | undefined {
    // Both halves 0 is an empty place.
    const low = hi === 0 && lo === 0 ? 1 : lo;
    const mask = this.#hi.length - 1;
    let at = low & mask;
    while (this.#hi[at] !== 0 || this.#lo[at] !== 0) {
      if (this.#hi[at] === hi && this.#lo[at] === low) return this.#values[at];
      at = (at + 1) & mask;
    }
    this.#hi[at] = hi;
    this.#lo[at] = low;
    this.#values[at] = value;
    this.#size += 1;
    return undefined;
  }

  #grow(): void {
    const hi = this.#hi;
    const lo = this.#lo;
    const values = this.#values;
    this.#hi = new Uint32Array(hi.length * 2);
    this.#lo = new Uint32Array(lo.length * 2);
    this.#values = new Uint32Array(values.length * 2);
    this.#size = 0;
    for (let i = 0; i < hi.length; i++) if (hi[i] !== 0 || lo[i] !== 0) this.#insert(hi[i], lo[i], values[i]);
  }
}
