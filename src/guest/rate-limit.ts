/** The kernel's limit on what a storm of events may print. */

const INTERVAL_MS = 5000;
const BURST = 10;

export class RateLimit {
  readonly #now: (() => number) | undefined;
  #since = Number.NEGATIVE_INFINITY;
  #printed = 0;

  /** @param now milliseconds; without it nothing is limited. */
  constructor(now: (() => number) | undefined) {
    this.#now = now;
  }

  /** Asks to print once more: at most 10 times in 5 seconds. */
  allows(): boolean {
    if (this.#now === undefined) return true;
    const now = this.#now();
    if (now - this.#since >= INTERVAL_MS) {
      this.#since = now;
      this.#printed = 0;
    }
    this.#printed += 1;
    return this.#printed <= BURST;
  }
}
