/**
 * Records that were taken out of the host's queue before the guest had room for them, a line for each stream. Streams
 * are served in turn, and the longest line is the one that gives way: a device that storms waits for itself.
 */

import { EVENT_RECORD, EVENT_WORDS } from '../spec/events.ts';

const NONE = -1;
/** Records for which there is room at first. */
const FIRST_CAPACITY = 64;
/** More than this is given back once it is empty: it took in a host's whole queue for a snapshot. */
const KEPT_CAPACITY = 4096;
/** Lines that stay known while they are empty, so that a stream that comes and goes costs no allocation. */
const KEPT_LINES = 64;

/** The records of one stream, oldest first, as numbers of their slots. */
interface Line {
  readonly sid: number;
  length: number;
  first: number;
  last: number;
  /** Neighbours in the ring of lines that are not empty. */
  before: Line;
  after: Line;
}

export class EventBacklog {
  #length = 0;
  #capacity = 0;
  #words = new Uint32Array(0);
  /** Slots behind and before a slot in its line; free slots are linked by #behind alone. */
  #behind = new Int32Array(0);
  #ahead = new Int32Array(0);
  #free = NONE;
  readonly #lines = new Map<number, Line>();
  /** The line whose turn it is; undefined if all are empty. */
  #turn: Line | undefined;

  /** Records that wait. */
  get length(): number {
    return this.#length;
  }

  /** Appends a copy of a record to the line of its stream. Allocates only where more wait than ever before. */
  append(record: Uint32Array): void {
    const slot = this.#store(record);
    const line = this.#lineOf(EVENT_RECORD.StreamID.get(record));
    this.#ahead[slot] = line.last;
    this.#behind[slot] = NONE;
    if (line.length === 0) {
      line.first = slot;
      this.#enter(line);
    } else this.#behind[line.last] = slot;
    line.last = slot;
    line.length++;
    this.#length++;
  }

  /** Moves the oldest record of the stream whose turn it is to `into`; then it is the next stream's. Not if empty. */
  take(into: Uint32Array): void {
    const line = this.#turn!;
    const slot = line.first;
    for (let i = 0; i < EVENT_WORDS; i++) into[i] = this.#words[slot * EVENT_WORDS + i];
    line.first = this.#behind[slot];
    if (line.first !== NONE) this.#ahead[line.first] = NONE;
    this.#turn = line.after;
    this.#shorten(line, slot);
  }

  /** Undoes the last {@link take}. */
  giveBack(record: Uint32Array): void {
    const slot = this.#store(record);
    const line = this.#lineOf(EVENT_RECORD.StreamID.get(record));
    this.#ahead[slot] = NONE;
    this.#behind[slot] = line.length === 0 ? NONE : line.first;
    if (line.length === 0) {
      line.last = slot;
      this.#enter(line);
    } else this.#ahead[line.first] = slot;
    line.first = slot;
    line.length++;
    this.#length++;
    this.#turn = line;
  }

  /**
   * Makes room for one more record of a stream. The longest line loses its newest record: what an SMMU has in its queue
   * stays there too, and what comes later is lost (7.4).
   * @returns the StreamID that loses a record. If it is `sid`, nothing was dropped, and its next record is the one that
   * has to go: no line is longer than its own would be.
   */
  crowdOut(sid: number): number {
    let longest = this.#turn;
    if (longest === undefined) return sid;
    for (let line = longest.after; line !== this.#turn; line = line.after)
      if (line.length > longest.length) longest = line;
    if (longest.length <= (this.#lines.get(sid)?.length ?? 0) + 1) return sid;
    const slot = longest.last;
    longest.last = this.#ahead[slot];
    this.#behind[longest.last] = NONE;
    this.#shorten(longest, slot);
    return longest.sid;
  }

  /** Forgets all. @param told how many records of each stream. */
  clear(told: (sid: number, records: number) => void = () => {}): void {
    for (const { sid, length } of this.#lines.values()) if (length > 0) told(sid, length);
    this.#lines.clear();
    this.#turn = undefined;
    this.#length = 0;
    this.#resize(0);
  }

  /** Copies of all records in the order in which {@link take} would give them. */
  get records(): Uint32Array[] {
    const records: Uint32Array[] = [];
    let round: number[] = [];
    for (let line = this.#turn; line !== undefined; line = line.after === this.#turn ? undefined : line.after)
      round.push(line.first);
    while (round.length > 0) {
      for (const slot of round) records.push(this.#words.slice(slot * EVENT_WORDS, (slot + 1) * EVENT_WORDS));
      round = round.map((slot) => this.#behind[slot]).filter((slot) => slot !== NONE);
    }
    return records;
  }

  #lineOf(sid: number): Line {
    let line = this.#lines.get(sid);
    if (line === undefined) {
      line = { sid, length: 0, first: NONE, last: NONE } as Line;
      line.before = line;
      line.after = line;
      this.#lines.set(sid, line);
    }
    return line;
  }

  /** Puts a line into the ring, where its turn comes last. */
  #enter(line: Line): void {
    const next = this.#turn ?? line;
    const last = next === line ? line : next.before;
    line.before = last;
    line.after = next;
    last.after = line;
    next.before = line;
    this.#turn = next;
  }

  /** A slot was taken out of a line. */
  #shorten(line: Line, slot: number): void {
    this.#behind[slot] = this.#free;
    this.#free = slot;
    line.length--;
    this.#length--;
    if (line.length > 0) return;
    line.before.after = line.after;
    line.after.before = line.before;
    if (this.#turn === line) this.#turn = line.after === line ? undefined : line.after;
    if (this.#lines.size > KEPT_LINES) this.#lines.delete(line.sid);
    if (this.#length === 0 && this.#capacity > KEPT_CAPACITY) this.#resize(0);
  }

  /** @returns the slot where a copy of the record is now. */
  #store(record: Uint32Array): number {
    if (this.#free === NONE) this.#resize(Math.max(2 * this.#capacity, FIRST_CAPACITY));
    const slot = this.#free;
    this.#free = this.#behind[slot];
    for (let i = 0; i < EVENT_WORDS; i++) this.#words[slot * EVENT_WORDS + i] = record[i];
    return slot;
  }

  /** @param capacity 0, or more than now; what is there stays. */
  #resize(capacity: number): void {
    const from = capacity === 0 ? 0 : this.#capacity;
    const words = new Uint32Array(capacity * EVENT_WORDS);
    const behind = new Int32Array(capacity);
    const ahead = new Int32Array(capacity);
    if (from > 0) {
      words.set(this.#words);
      behind.set(this.#behind);
      ahead.set(this.#ahead);
    }
    for (let slot = from; slot < capacity; slot++) behind[slot] = slot + 1 < capacity ? slot + 1 : NONE;
    this.#words = words;
    this.#behind = behind;
    this.#ahead = ahead;
    this.#free = capacity > from ? from : NONE;
    this.#capacity = capacity;
  }
}
