/** Ways to build a TLB: the one in use, and those that were rejected. All keep the same thing and answer the same questions. */

import { TLB_KIND, TLB_PA_LO, Tlb, tlbFlags } from '../src/smmu/tlb.ts';

/** Low word of the PA of a 4 KB page of one ASID, or -1. Addresses are below 4 GiB here: the high half costs all the same. */
export interface TlbDesign {
  find(page: number, asid: number): number;
  fill(page: number, asid: number, pa: number): void;
  invalidateVa(page: number, asid: number): void;
  invalidateAsid(asid: number): void;
}

const FLAGS = tlbFlags(TLB_KIND.Stage1, 12, false);

/** src/smmu/tlb.ts: four ways, never searched. */
class InUse implements TlbDesign {
  readonly #tlb: Tlb;

  constructor(log2Entries: number) {
    this.#tlb = new Tlb(log2Entries);
  }

  find(page: number, asid: number): number {
    const tlb = this.#tlb;
    const at = tlb.find(0, page | FLAGS, asid, tlb.floor(TLB_KIND.Stage1, 0, asid, false));
    return at < 0 ? -1 : tlb.entries[at + TLB_PA_LO];
  }

  fill(page: number, asid: number, pa: number): void {
    this.#tlb.fill(0, page | FLAGS, asid, 0, pa, 12, 12);
  }

  invalidateVa(page: number, asid: number): void {
    this.#tlb.invalidateVa(0, asid, 0, page, 1, 0);
  }

  invalidateAsid(asid: number): void {
    this.#tlb.invalidateAsid(0, asid);
  }
}

const PAGE = 0;
const TAG = 1;
const PA = 2;
const STAMP = 3;
const WORDS = 4;

/** A set of `ways` entries, the newest first; times of ASIDs as in use. With one way it is direct-mapped. */
class SetAssociative implements TlbDesign {
  readonly #entries: Int32Array;
  readonly #ways: number;
  readonly #mask: number;
  readonly #asidTimes = new Int32Array(65536);
  #now = 1;

  constructor(log2Entries: number, ways: number) {
    this.#entries = new Int32Array(WORDS << log2Entries).fill(-1);
    this.#ways = ways;
    this.#mask = (1 << log2Entries) / ways - 1;
  }

  #set(page: number, asid: number): number {
    return (((page >>> 12) ^ (Math.imul(asid, 0x9e37_79b1) >>> 12)) & this.#mask) * this.#ways * WORDS;
  }

  #entry(page: number, asid: number): number {
    const entries = this.#entries;
    let at = this.#set(page, asid);
    for (let way = 0; way < this.#ways; way++, at += WORDS)
      if (entries[at + PAGE] === page && entries[at + TAG] === asid) return at;
    return -1;
  }

  find(page: number, asid: number): number {
    const at = this.#entry(page, asid);
    return at >= 0 && this.#entries[at + STAMP] >= this.#asidTimes[asid] ? this.#entries[at + PA] : -1;
  }

  fill(page: number, asid: number, pa: number): void {
    const entries = this.#entries;
    const at = this.#set(page, asid);
    if (this.#ways > 1) entries.copyWithin(at + WORDS, at, at + (this.#ways - 1) * WORDS);
    entries[at + PAGE] = page;
    entries[at + TAG] = asid;
    entries[at + PA] = pa;
    entries[at + STAMP] = this.#now;
  }

  invalidateVa(page: number, asid: number): void {
    const at = this.#entry(page, asid);
    if (at >= 0) this.#entries[at + PAGE] = -1;
  }

  invalidateAsid(asid: number): void {
    this.#asidTimes[asid] = ++this.#now;
  }
}

/** A Map that is emptied when full. Invalidation by ASID looks at every entry, as QEMU's does. */
class HashMap<Key> implements TlbDesign {
  readonly #map = new Map<Key, { readonly asid: number; readonly pa: number }>();
  readonly #limit: number;
  readonly #key: (page: number, asid: number) => Key;

  constructor(log2Entries: number, key: (page: number, asid: number) => Key) {
    this.#limit = 2 ** log2Entries;
    this.#key = key;
  }

  find(page: number, asid: number): number {
    return this.#map.get(this.#key(page, asid))?.pa ?? -1;
  }

  fill(page: number, asid: number, pa: number): void {
    if (this.#map.size >= this.#limit) this.#map.clear();
    this.#map.set(this.#key(page, asid), { asid, pa });
  }

  invalidateVa(page: number, asid: number): void {
    this.#map.delete(this.#key(page, asid));
  }

  invalidateAsid(asid: number): void {
    for (const [key, entry] of this.#map) if (entry.asid === asid) this.#map.delete(key);
  }
}

/** By name; the first is the one in use. Each makes a TLB of 2^log2Entries. */
export const TLB_DESIGNS: Readonly<Record<string, (log2Entries: number) => TlbDesign>> = {
  'four ways, in use': (log2) => new InUse(log2),
  'direct-mapped': (log2) => new SetAssociative(log2, 1),
  'two ways': (log2) => new SetAssociative(log2, 2),
  'four ways, bare': (log2) => new SetAssociative(log2, 4),
  'eight ways': (log2) => new SetAssociative(log2, 8),
  'Map of numbers': (log2) => new HashMap(log2, (page, asid) => asid * 2 ** 32 + (page >>> 0)),
  'Map of text': (log2) => new HashMap(log2, (page, asid) => `${asid} ${page}`),
};
