/** What follows from the ID registers alone, worked out once for all SMMUs that have the same. */

import type { IdRegisters } from './id-registers.ts';

/** Sets of ID registers that are remembered; a process rarely has more than two. */
const MOST = 8;

export class PerIdentification<T> {
  readonly #make: (ids: IdRegisters) => T;
  /** By the values of the registers, the oldest first. */
  readonly #made = new Map<string, T>();

  /** @param make what it makes is shared, and must not change afterwards. */
  constructor(make: (ids: IdRegisters) => T) {
    this.#make = make;
  }

  /** @throws what `make` throws. */
  of(ids: IdRegisters): T {
    const key = `${ids.IDR0},${ids.IDR1},${ids.IDR2},${ids.IDR3},${ids.IDR4},${ids.IDR5},${ids.IIDR},${ids.AIDR}`;
    let made = this.#made.get(key);
    if (made === undefined) {
      made = this.#make(ids);
      if (this.#made.size === MOST) this.#made.delete(this.#made.keys().next().value!);
      this.#made.set(key, made);
    }
    return made;
  }
}
