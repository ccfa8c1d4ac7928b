import { StreamContext } from './stream-context.ts';

/** log2 of the contexts that it holds unless told otherwise. */
export const LOG2_CONTEXTS = 12;
const WAYS = 2;
/** Range invalidations of more StreamIDs than this drop everything. */
const SIDS_MAX = 256;
const TIME_MAX = 0x7fff_0000;

/** To be copied: that is fast, and leaves no holes. */
const NO_CONTEXTS: readonly (StreamContext | undefined)[] = Array.from(
  { length: 1 << LOG2_CONTEXTS },
  () => undefined,
);

/**
 * Caches decoded STEs and CDs by {StreamID, SubstreamID}. Only what was read and found legal gets in. Like the TLB it
 * is never searched: an invalidation notes its time, and contexts that are older do not count any more. Contexts are
 * made when first needed and reused for ever.
 */
export class ConfigurationCache {
  readonly #contexts: (StreamContext | undefined)[];
  readonly #log2Sets: number;
  #now = 1;
  /** Grows with every invalidation: a context that was found valid before must be looked at again. */
  changes = 1;
  #allTime = 0;
  /** By StreamID: the STE, and with it all its CDs. */
  readonly #steTimes: Int32Array;
  /** By StreamID and index of the CD. */
  readonly #cdTimes: Int32Array;

  /** @param log2Contexts 1..{@link LOG2_CONTEXTS} */
  constructor(log2Contexts = LOG2_CONTEXTS) {
    this.#contexts = NO_CONTEXTS.slice(0, 1 << log2Contexts);
    this.#log2Sets = log2Contexts - Math.log2(WAYS);
    this.#steTimes = new Int32Array(1 << log2Contexts);
    this.#cdTimes = new Int32Array(1 << log2Contexts);
  }

  /** Drops everything. */
  reset(): void {
    for (const context of this.#contexts) if (context !== undefined) context.sid = -1;
    this.#steTimes.fill(0);
    this.#cdTimes.fill(0);
    this.#allTime = 0;
    this.#now = 1;
    this.changes += 1;
  }

  #tick(): number {
    this.changes += 1;
    if (this.#now >= TIME_MAX) this.reset();
    return ++this.#now;
  }

  /** Whether a context may still be used. */
  isValid(context: StreamContext): boolean {
    if (context.checkedAt === this.changes) return true;
    const stamp = context.stamp;
    if (
      stamp < this.#allTime ||
      stamp < this.#steTimes[this.#slotOf(context.sid, 0)] ||
      stamp < this.#cdTimes[this.#slotOf(context.sid, context.cdIndex + 1)]
    )
      return false;
    context.checkedAt = this.changes;
    return true;
  }

  /** Slot in the tables of times. */
  #slotOf(sid: number, index: number): number {
    const h = Math.imul(sid, 0x9e37_79b1) ^ Math.imul(index, 0x85eb_ca6b);
    return (h ^ (h >>> 15)) & (this.#steTimes.length - 1);
  }

  /** First slot of the set. */
  #set(sid: number, substream: number): number {
    // PCIe StreamIDs lie close together, and so do SubstreamIDs.
    const log2 = this.#log2Sets;
    return ((sid ^ (sid >>> log2) ^ Math.imul(substream, 0x61)) & ((1 << log2) - 1)) * WAYS;
  }

  /** The valid context of this stream, or undefined. */
  find(sid: number, substream: number): StreamContext | undefined {
    const at = this.#set(sid, substream);
    const first = this.#contexts[at];
    if (first !== undefined && first.sid === sid && first.substream === substream)
      return this.isValid(first) ? first : undefined;
    const second = this.#contexts[at + 1];
    if (second !== undefined && second.sid === sid && second.substream === substream)
      return this.isValid(second) ? second : undefined;
    return undefined;
  }

  /** Enters a context that was just read, and gives back another one to fill next. */
  enter(context: StreamContext): StreamContext {
    context.stamp = this.#now;
    context.checkedAt = this.changes;
    const contexts = this.#contexts;
    const at = this.#set(context.sid, context.substream);
    const first = contexts[at];
    if (first !== undefined && first.sid === context.sid && first.substream === context.substream) {
      contexts[at] = context;
      first.sid = -1;
      return first;
    }
    // The newest comes first; the older of the two leaves.
    const out = contexts[at + 1];
    contexts[at + 1] = first;
    contexts[at] = context;
    if (out === undefined) return new StreamContext();
    out.sid = -1;
    return out;
  }

  /** CFGI_STE, CFGI_CD_ALL: the STE of a StreamID and all CDs reached through it. */
  invalidateSte(sid: number): void {
    this.#steTimes[this.#slotOf(sid, 0)] = this.#tick();
  }

  /** CFGI_CD. */
  invalidateCd(sid: number, ssid: number): void {
    this.#cdTimes[this.#slotOf(sid, ssid + 1)] = this.#tick();
  }

  /** CFGI_STE_RANGE: 2^log2Count StreamIDs around this one; 32 is CFGI_ALL. */
  invalidateStes(sid: number, log2Count: number): void {
    const count = 2 ** log2Count;
    if (count > SIDS_MAX) {
      this.#allTime = this.#tick();
      return;
    }
    const first = (sid & -count) >>> 0;
    for (let i = 0; i < count; i++) this.invalidateSte(first + i);
  }
}
