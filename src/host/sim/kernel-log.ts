/** The simulated kernel's log. */

/** printk_ratelimited's defaults: this many lines or groups of lines in this time. */
const RATELIMIT_BURST = 10;
const RATELIMIT_INTERVAL_MS = 5000;

/** Lets a burst through and then nothing more until the interval is over, as the kernel's ratelimit_state. */
export class RateLimit {
  readonly #now: () => number;
  #begin: number | undefined;
  #printed = 0;
  #missed = 0;

  /** @param now milliseconds, from any origin, never going back. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** @returns the number of messages missed in the interval that just ended, or undefined if it goes on. */
  #renew(): number | undefined {
    const now = this.#now();
    if (this.#begin !== undefined && now - this.#begin <= RATELIMIT_INTERVAL_MS) return undefined;
    const missed = this.#missed;
    this.#begin = now;
    this.#printed = 0;
    this.#missed = 0;
    return missed;
  }

  /**
   * Asks to print one message.
   * @param suppressed called with the number of messages that were held back, when an interval with such ends.
   */
  allow(suppressed: (count: number) => void): boolean {
    const missed = this.#renew();
    if (missed !== undefined && missed > 0) suppressed(missed);
    if (this.#printed < RATELIMIT_BURST) {
      this.#printed += 1;
      return true;
    }
    this.#missed += 1;
    return false;
  }
}

export class KernelLog {
  /** Lines without time stamps, oldest first. */
  readonly lines: string[] = [];
  readonly #listener: ((line: string) => void) | undefined;

  constructor(listener?: (line: string) => void) {
    this.#listener = listener;
  }

  print(line: string): void {
    this.lines.push(line);
    this.#listener?.(line);
  }
}
