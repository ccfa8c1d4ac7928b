/** STAGs: the names under which a guest answers its stalled transactions (3.12.2). */

import { STALLS_MAX } from './recoverable-faults.ts';

const FREE = 0;
/** It has its name, and its record is not in the guest's queue yet. */
const HELD = 1;
const VISIBLE = 2;

/** One slot a STAG. A name that was given back is the last to be given out again. */
export class StallSlots {
  readonly #state = new Uint8Array(STALLS_MAX);
  readonly #sid = new Uint32Array(STALLS_MAX);
  readonly #device = new Uint32Array(STALLS_MAX);
  readonly #cookie = new Uint32Array(STALLS_MAX);
  /** The names that are free, oldest first, from #first on, in a ring. */
  readonly #names: Uint16Array;
  #first = 0;
  /** Names that were never given out, which come first. */
  #fresh: number;
  /** Slots in use by StreamID. Those of which none is left stay, at 0: there are at most 65,536. */
  readonly #usedBy = new Map<number, number>();
  /** Slots in use. */
  used = 0;
  /** STAGs are below this. */
  readonly size = STALLS_MAX;

  /** @param given names that were given out before, elsewhere: they are the last to come, in this order. */
  constructor(given: readonly number[] = []) {
    const were = new Set(given);
    const fresh = Array.from({ length: STALLS_MAX }, (_, stag) => stag).filter((stag) => !were.has(stag));
    this.#names = Uint16Array.of(...fresh, ...given);
    this.#fresh = fresh.length;
  }

  /** The names that were given out at some time and are free, in the order in which they would come again. */
  get given(): readonly number[] {
    return Array.from(
      { length: Math.max(this.free - this.#fresh, 0) },
      (_, i) => this.#names[(this.#first + this.#fresh + i) % STALLS_MAX],
    );
  }

  get free(): number {
    return STALLS_MAX - this.used;
  }

  /** @returns a STAG, held. There is a free one. */
  take(sid: number, device: number, cookie: number): number {
    const stag = this.#names[this.#first];
    this.#first = (this.#first + 1) % STALLS_MAX;
    this.used++;
    if (this.#fresh > 0) this.#fresh--;
    this.#usedBy.set(sid, this.usedBy(sid) + 1);
    this.#state[stag] = HELD;
    this.#sid[stag] = sid;
    this.#device[stag] = device;
    this.#cookie[stag] = cookie;
    return stag;
  }

  release(stag: number): void {
    this.#state[stag] = FREE;
    // The ring has `free` names from #first on.
    this.#names[(this.#first + this.free) % STALLS_MAX] = stag;
    this.used--;
    const sid = this.#sid[stag];
    this.#usedBy.set(sid, this.usedBy(sid) - 1);
  }

  /** Slots that a stream has in use: a guest may ask for streams without any as fast as it can. */
  usedBy(sid: number): number {
    return this.#usedBy.get(sid) ?? 0;
  }

  show(stag: number): void {
    this.#state[stag] = VISIBLE;
  }

  hold(stag: number): void {
    this.#state[stag] = HELD;
  }

  isHeld(stag: number): boolean {
    return this.#state[stag] === HELD;
  }

  /** Whether the guest knows a stalled transaction of this stream by this name. Any 16-bit number may come. */
  isVisible(sid: number, stag: number): boolean {
    return stag < STALLS_MAX && this.#state[stag] === VISIBLE && this.#sid[stag] === sid;
  }

  isOf(stag: number, sid: number): boolean {
    return this.#state[stag] !== FREE && this.#sid[stag] === sid;
  }

  isOfDevice(stag: number, device: number): boolean {
    return this.#state[stag] !== FREE && this.#device[stag] === device;
  }

  isUsed(stag: number): boolean {
    return this.#state[stag] !== FREE;
  }

  cookie(stag: number): number {
    return this.#cookie[stag];
  }
}
