/** A set of fingerprints that grows: eight bytes an entry, open addressing. */

import type { Fingerprint } from './fingerprint.ts';

const FIRST_LOG2 = 12;

export class FingerprintSet {
  #hi = new Uint32Array(1 << FIRST_LOG2);
  #lo = new Uint32Array(1 << FIRST_LOG2);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** @returns false if it was there already. */
  add({ hi, lo }: Fingerprint): boolean {
    if (this.#size * 2 >= this.#hi.length) this.#grow();
    return this.#insert(hi, lo);
  }

  #insert(hi: number, lo: number): boolean {
    // Both halves 0 is an empty place.
    const low = hi === 0 && lo === 0 ? 1 : lo;
    const mask = this.#hi.length - 1;
    let at = low & mask;
    while (this.#hi[at] !== 0 || this.#lo[at] !== 0) {
      if (this.#hi[at] === hi && this.#lo[at] === low) return false;
      at = (at + 1) & mask;
    }
    this.#hi[at] = hi;
    this.#lo[at] = low;
    this.#size += 1;
    return true;
  }

  #grow(): void {
    const hi = this.#hi;
    const lo = this.#lo;
    this.#hi = new Uint32Array(hi.length * 2);
    this.#lo = new Uint32Array(lo.length * 2);
    this.#size = 0;
    for (let i = 0; i < hi.length; i++) if (hi[i] !== 0 || lo[i] !== 0) this.#insert(hi[i], lo[i]);
  }
}
