/** The last things that happened in a virtual SMMU, in one ring: what the device did, and what was asked of the host. */

/** A value of an entry: numbers are shown as the table of names says, texts as they are. */
export type TraceValue = number | string;

/** One thing that happened. */
export interface TraceEntry {
  /** Nanoseconds since some moment. */
  readonly time: number;
  /** QEMU's name of the trace event where it has one; ours begin with `vsmmu_`. */
  readonly event: string;
  readonly values: readonly TraceValue[];
  /** Names of the values, if the event's own do not hold. */
  readonly names?: readonly string[];
}

export class TraceRing {
  /** Entries that newer ones have pushed out. */
  dropped = 0;
  readonly #capacity: number;
  readonly #now: () => number;
  readonly #entries: TraceEntry[] = [];
  /** Where the oldest is, once the ring is full. */
  #first = 0;

  /**
   * @param now nanoseconds, never going back; without it entries are numbered instead.
   * @param capacity how many are kept.
   */
  constructor(now?: () => number, capacity = 2 ** 18) {
    let count = 0;
    this.#now = now ?? (() => count++);
    this.#capacity = capacity;
  }

  /** Passable as it is, as the trace of an SMMU. */
  readonly record = (event: string, ...values: number[]): void =>
    this.#add({ time: this.#now(), event, values });

  /** Records what has values of its own. */
  note(event: string, values: Readonly<Record<string, TraceValue>>): void {
    this.#add({ time: this.#now(), event, values: Object.values(values), names: Object.keys(values) });
  }

  /** Oldest first; before them, if older ones are gone, a `vsmmu_dropped` that says how many. */
  get entries(): readonly TraceEntry[] {
    const kept = [...this.#entries.slice(this.#first), ...this.#entries.slice(0, this.#first)];
    if (this.dropped === 0) return kept;
    return [{ time: kept[0].time, event: 'vsmmu_dropped', values: [this.dropped] }, ...kept];
  }

  #add(entry: TraceEntry): void {
    if (this.#entries.length < this.#capacity) {
      this.#entries.push(entry);
      return;
    }
    this.#entries[this.#first] = entry;
    this.#first = (this.#first + 1) % this.#capacity;
    this.dropped++;
  }
}
