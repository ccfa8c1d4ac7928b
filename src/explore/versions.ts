/** Which values of a structure in memory an SMMU may use, by the rules of caching and invalidation. */

/** Values of one structure that may be in force. */
export class Versions<T> {
  /** What memory holds. */
  now: T;
  /** All that may be used. */
  readonly live: Set<T>;
  /** What has been there since an invalidation that is not complete yet. */
  #since: Set<T> | undefined;

  constructor(now: T) {
    this.now = now;
    this.live = new Set([now]);
  }

  store(value: T): void {
    this.now = value;
    this.live.add(value);
    this.#since?.add(value);
  }

  /** The invalidation was issued. */
  invalidate(): void {
    this.#since = new Set([this.now]);
  }

  /** All invalidations so far are complete. */
  complete(): void {
    if (this.#since === undefined) return;
    this.live.clear();
    for (const value of this.#since) this.live.add(value);
    this.#since = undefined;
  }

  /** Nothing but what memory holds is in force. */
  collapse(): void {
    this.#since = undefined;
    this.live.clear();
    this.live.add(this.now);
  }

  get text(): string {
    const list = (set: ReadonlySet<T>): string => [...set].map(String).sort().join('.');
    return `${String(this.now)}/${list(this.live)}${this.#since === undefined ? '' : `/${list(this.#since)}`}`;
  }
}
