/**
 * The TLB. An entry covers one page of the smallest granule that its translation regime uses, so a lookup is one probe
 * of one set; larger leaves are cached in pieces.
 *
 * Nothing is ever searched. An invalidation by VMID or ASID notes the time in a small table, and entries older than
 * that do not count any more. An invalidation by address probes the sets where the page could be, and for leaves
 * that were cached in pieces notes the time for the block. Tables are indexed by a hash: two names that share a slot
 * are invalidated together, which the architecture allows (over-invalidation is always allowed).
 */

/** What an entry translates. Combined entries (VA to PA through both stages) never serve a stream without stage 2. */
export const TLB_KIND = { Stage1: 0, Combined: 1, Stage2: 2, El2: 3 } as const;
export type TlbKind = (typeof TLB_KIND)[keyof typeof TLB_KIND];

/** Words of an entry. */
const VA_HI = 0;
/** Page address, and in its free bits the {@link tlbFlags}. */
const VA_LO = 1;
const TAG = 2;
/** When it was filled, in `#now`. */
const STAMP = 3;
export const TLB_PA_HI = 4;
/** Page address, and in its free bits PERM bits and TLB_DEVICE. */
export const TLB_PA_LO = 5;
/** log2 of the block around the address for which the translation holds. */
export const TLB_LOG2_SIZE = 6;
/** Slot of the time of invalidation of the leaf that this is a piece of; 0, which never has one, if it is not. */
const BLOCK = 7;
const ENTRY_WORDS = 8;
const WAYS = 4;
const SET_WORDS = WAYS * ENTRY_WORDS;

/** In the low bits of TLB_PA_LO: stage 2 maps this as Device memory. */
export const TLB_DEVICE = 1 << 6;

const VALID = 1 << 5;
/** In the flags of an entry that any ASID may use. */
export const TLB_GLOBAL = 1 << 4;

/**
 * Low bits of an entry's address word.
 * @param log2Page 12, 14 or 16
 */
export const tlbFlags = (kind: TlbKind, log2Page: number, global: boolean): number =>
  VALID | (global ? TLB_GLOBAL : 0) | ((log2Page - 12) << 1) | kind;

const STAGE1 = TLB_KIND.Stage1;
const COMBINED = TLB_KIND.Combined;
const EL2 = TLB_KIND.El2;
const STAGE1_4K = tlbFlags(STAGE1, 12, false);
const COMBINED_4K = tlbFlags(COMBINED, 12, false);
/** Value of `#pageSizes`: no larger pages. */
const ONLY_4K = 1;

/** log2 of the slots of each table of times, at most; four for each entry that they are about are enough. */
const TIMES_LOG2 = 12;
/** More probes than this and an invalidation by address takes the whole ASID. */
const PROBES_MAX = 256;
/** The times are compared as signed numbers; long before they would wrap, everything is dropped. */
const TIME_MAX = 0x7fff_0000;

const hash = (a: number, b: number): number => {
  let h = Math.imul(a ^ (b >>> 16), 0x9e37_79b1) ^ Math.imul(b, 0x85eb_ca6b);
  h ^= h >>> 15;
  return Math.imul(h, 0x2c1b_3c6d);
};

/** Stands for all global entries of a VMID in the table of ASID times. */
const ALL_GLOBALS = 0x1_0000;

export class Tlb {
  /** The entries, for the caller of {@link find}. */
  readonly entries: Int32Array;
  readonly #sets: number;
  #now = 1;
  /** Grows with every invalidation by VMID or ASID: a `floor` that was computed before is out of date. */
  changes = 1;
  #allTime = 0;
  #el2Time = 0;
  readonly #stage1Times: Int32Array;
  readonly #stage2Times: Int32Array;
  readonly #asidTimes: Int32Array;
  readonly #blockTimes: Int32Array;
  readonly #timesLog2: number;
  readonly #timesMask: number;
  /** Sizes of leaves of which there may be pieces, as bits, by kind. */
  readonly #leafSizes = new Uint32Array(4).fill(0);
  readonly #leafSizesHigh = new Uint32Array(4).fill(0);
  /** Whether there may be pieces of leaves at all. */
  #hasPieces = false;
  /** Page sizes in use, by kind: bit 0 for 4 KB, 2 for 16 KB, 4 for 64 KB. */
  readonly #pageSizes = new Uint8Array(4);
  /** Nothing but EL2 was entered since everything but EL2 was invalidated: there is nothing to invalidate. */
  isEmpty = true;
  /** Whether there may be global entries: only then is a second probe worth its time. */
  hasGlobals = false;

  readonly #timeMax: number;

  /**
   * @param log2Entries 4..20
   * @param timeMax invalidations after which it starts from empty; below 2^31
   */
  constructor(log2Entries: number, timeMax = TIME_MAX) {
    this.#timeMax = timeMax;
    this.entries = new Int32Array(ENTRY_WORDS << log2Entries);
    this.#sets = (1 << log2Entries) / WAYS - 1;
    this.#timesLog2 = Math.min(log2Entries + 2, TIMES_LOG2);
    const slots = 1 << this.#timesLog2;
    this.#timesMask = slots - 1;
    this.#stage1Times = new Int32Array(slots);
    this.#stage2Times = new Int32Array(slots);
    this.#asidTimes = new Int32Array(slots);
    this.#blockTimes = new Int32Array(slots);
  }

  /** Drops everything. */
  reset(): void {
    this.entries.fill(0);
    this.#stage1Times.fill(0);
    this.#stage2Times.fill(0);
    this.#asidTimes.fill(0);
    this.#blockTimes.fill(0);
    this.#leafSizes.fill(0);
    this.#leafSizesHigh.fill(0);
    this.#pageSizes.fill(0);
    this.#hasPieces = false;
    this.hasGlobals = false;
    this.isEmpty = true;
    this.#allTime = 0;
    this.#el2Time = 0;
    this.#now = 1;
    this.changes += 1;
  }

  #tick(): number {
    this.changes += 1;
    if (this.#now >= this.#timeMax) this.reset();
    return ++this.#now;
  }

  /** Entries of this regime that are older than this have been invalidated; holds while `changes` stands. */
  floor(kind: TlbKind, vmid: number, asid: number, global: boolean): number {
    if (kind === TLB_KIND.El2) {
      const asidTime = global ? 0 : this.#asidTimes[hash(kind, asid) & this.#timesMask];
      return Math.max(this.#el2Time, asidTime);
    }
    if (kind === TLB_KIND.Stage2) return Math.max(this.#allTime, this.#stage2Times[vmid & this.#timesMask]);
    const slot = hash(vmid, global ? ALL_GLOBALS : asid) & this.#timesMask;
    return Math.max(this.#allTime, this.#stage1Times[vmid & this.#timesMask], this.#asidTimes[slot]);
  }

  /** First word of the set where a page would be. */
  #set(vaHi: number, vaLoFlags: number, tag: number): number {
    // Neighbouring pages share no set and lie side by side; regimes and the upper address bits are scattered.
    const page = vaLoFlags >>> 12;
    const scatter = Math.imul(tag, 0x9e37_79b1) + Math.imul(vaHi, 0x85eb_ca6b) + (vaLoFlags & 0xfff);
    return ((page ^ (page >>> 13) ^ (scatter >>> 12)) & this.#sets) * SET_WORDS;
  }

  /**
   * Index in `entries` of the entry for this page, or -1.
   * @param vaLoFlags page address with {@link tlbFlags}
   * @param tag (VMID << 16) | ASID; ASET instead of the ASID for a global entry, 0 for stage 2
   * @param floor see {@link floor}
   */
  find(vaHi: number, vaLoFlags: number, tag: number, floor: number): number {
    const entries = this.entries;
    let at = this.#set(vaHi, vaLoFlags, tag);
    // The newest is mostly the one: on its own it costs less than as the first turn of a loop.
    if (entries[at + VA_LO] !== vaLoFlags || entries[at + TAG] !== tag || entries[at + VA_HI] !== vaHi) {
      const end = at + SET_WORDS;
      do {
        at += ENTRY_WORDS;
        if (at === end) return -1;
      } while (
        entries[at + VA_LO] !== vaLoFlags ||
        entries[at + TAG] !== tag ||
        entries[at + VA_HI] !== vaHi
      );
    }
    const stamp = entries[at + STAMP];
    return stamp >= floor && stamp >= this.#blockTimes[entries[at + BLOCK]] ? at : -1;
  }

  /**
   * Enters a translation. Arguments are signed words.
   * @param paLoPerms page address with PERM bits and TLB_DEVICE
   * @param log2Leaf size of the leaf that invalidations by address name
   * @param log2Size size of the block for which the whole translation holds
   */
  fill(
    vaHi: number,
    vaLoFlags: number,
    tag: number,
    paHi: number,
    paLoPerms: number,
    log2Leaf: number,
    log2Size: number,
  ): void {
    const entries = this.entries;
    const kind = vaLoFlags & 3;
    const log2Page = 12 + ((vaLoFlags >>> 1) & 6);
    let block = 0;
    if (kind !== EL2) this.isEmpty = false;
    this.#pageSizes[kind] |= 1 << (log2Page - 12);
    if (log2Leaf > log2Page) {
      this.#hasPieces = true;
      if (log2Leaf < 32) this.#leafSizes[kind] |= 1 << log2Leaf;
      else this.#leafSizesHigh[kind] |= 1 << (log2Leaf - 32);
      block = this.#block(kind, tag >>> 16, vaHi, vaLoFlags, log2Leaf);
    }
    if ((vaLoFlags & TLB_GLOBAL) !== 0) this.hasGlobals = true;
    const at = this.#set(vaHi, vaLoFlags, tag);
    if (entries[at + VA_LO] !== vaLoFlags || entries[at + TAG] !== tag || entries[at + VA_HI] !== vaHi)
      entries.copyWithin(at + ENTRY_WORDS, at, at + SET_WORDS - ENTRY_WORDS);
    entries[at + VA_HI] = vaHi;
    entries[at + VA_LO] = vaLoFlags;
    entries[at + TAG] = tag;
    entries[at + STAMP] = this.#now;
    entries[at + TLB_PA_HI] = paHi;
    entries[at + TLB_PA_LO] = paLoPerms;
    entries[at + TLB_LOG2_SIZE] = log2Size;
    entries[at + BLOCK] = block;
  }

  /** Slot of the time of invalidation of the block of 2^log2Leaf bytes around an address; never 0. */
  #block(kind: number, vmid: number, vaHi: number, vaLo: number, log2Leaf: number): number {
    const hi = log2Leaf < 32 ? vaHi : vaHi >>> (log2Leaf - 32);
    const lo = log2Leaf < 32 ? vaLo >>> log2Leaf : 0;
    const slot = hash(hash(hi, lo), (vmid << 8) ^ (log2Leaf << 2) ^ kind) >>> (32 - this.#timesLog2);
    return slot === 0 ? 1 : slot;
  }

  /** TLBI_NSNH_ALL: everything but EL2. */
  invalidateAll(): void {
    if (this.isEmpty) return;
    this.isEmpty = true;
    this.#allTime = this.#tick();
    // Those of EL2 stay.
    if (this.#pageSizes[EL2] === 0) this.hasGlobals = false;
  }

  /** TLBI_EL2_ALL. */
  invalidateEl2(): void {
    this.#el2Time = this.#tick();
  }

  /** TLBI_EL2_ASID. */
  invalidateEl2Asid(asid: number): void {
    this.#asidTimes[hash(TLB_KIND.El2, asid) & this.#timesMask] = this.#tick();
  }

  /** TLBI_NH_ALL: stage 1 of a VMID, with or without stage 2. */
  invalidateStage1(vmid: number): void {
    this.#stage1Times[vmid & this.#timesMask] = this.#tick();
  }

  /** TLBI_S12_VMALL. */
  invalidateVmid(vmid: number): void {
    const now = this.#tick();
    this.#stage1Times[vmid & this.#timesMask] = now;
    this.#stage2Times[vmid & this.#timesMask] = now;
  }

  /** TLBI_NH_ASID: not the global entries. */
  invalidateAsid(vmid: number, asid: number): void {
    this.#asidTimes[hash(vmid, asid) & this.#timesMask] = this.#tick();
  }

  #invalidateGlobals(vmid: number): void {
    this.#asidTimes[hash(vmid, ALL_GLOBALS) & this.#timesMask] = this.#tick();
  }

  #invalidateStage2(vmid: number): void {
    this.#stage2Times[vmid & this.#timesMask] = this.#tick();
  }

  /**
   * TLBI_NH_VA: the range in one ASID, and the global entries in it.
   * @param pages length in 4 KB pages, at least 1
   * @param log2Leaf size of the leaves that are meant, 0 for any
   */
  invalidateVa(
    vmid: number,
    asid: number,
    vaHi: number,
    vaLo: number,
    pages: number,
    log2Leaf: number,
  ): void {
    const sizes = this.#pageSizes[STAGE1] | this.#pageSizes[COMBINED];
    if (pages === 1 && sizes === ONLY_4K && log2Leaf <= 12 && !this.hasGlobals && !this.#hasPieces) {
      // What nearly all commands are.
      const tag = (vmid << 16) | asid;
      const page = vaLo & -4096;
      if (this.#pageSizes[STAGE1] !== 0) this.#drop(vaHi | 0, page | STAGE1_4K, tag);
      if (this.#pageSizes[COMBINED] !== 0) this.#drop(vaHi | 0, page | COMBINED_4K, tag);
      return;
    }
    const done =
      this.#invalidateRange(TLB_KIND.Stage1, vmid, asid, vaHi, vaLo, pages, log2Leaf) &&
      this.#invalidateRange(TLB_KIND.Combined, vmid, asid, vaHi, vaLo, pages, log2Leaf);
    if (!done) {
      this.invalidateAsid(vmid, asid);
      this.#invalidateGlobals(vmid);
    }
  }

  /** TLBI_NH_VAA: sets are chosen by ASID too, so this takes stage 1 of the VMID. */
  invalidateVaAllAsids(vmid: number): void {
    this.invalidateStage1(vmid);
  }

  /** TLBI_EL2_VA. */
  invalidateEl2Va(asid: number, vaHi: number, vaLo: number, pages: number, log2Leaf: number): void {
    if (!this.#invalidateRange(TLB_KIND.El2, 0, asid, vaHi, vaLo, pages, log2Leaf)) this.invalidateEl2();
  }

  /** TLBI_S2_IPA: entries of stage 2 alone; combined ones need a stage 1 invalidation (16.2.2). */
  invalidateIpa(vmid: number, ipaHi: number, ipaLo: number, pages: number, log2Leaf: number): void {
    if (!this.#invalidateRange(TLB_KIND.Stage2, vmid, 0, ipaHi, ipaLo, pages, log2Leaf))
      this.#invalidateStage2(vmid);
  }

  /** @returns false if that would be too many probes; something may have been invalidated all the same. */
  #invalidateRange(
    kind: TlbKind,
    vmid: number,
    asid: number,
    vaHi: number,
    vaLo: number,
    pages: number,
    log2Leaf: number,
  ): boolean {
    const pageSizes = this.#pageSizes[kind];
    if (pageSizes === 0) return true;
    const tag = (vmid << 16) | asid;
    for (let shift = 0; shift <= 4; shift += 2) {
      if ((pageSizes & (1 << shift)) === 0) continue;
      // A leaf as large as the entry is the entry; larger ones are found below.
      if (log2Leaf > 12 + shift) continue;
      // One more than fits, as the range need not begin on a page of this size.
      const count = shift === 0 ? pages : Math.floor(pages / (1 << shift)) + 2;
      if (count > PROBES_MAX) return false;
      this.#invalidatePages(kind, 12 + shift, tag, vaHi, vaLo, count);
    }
    let low = this.#leafSizes[kind];
    let high = this.#leafSizesHigh[kind];
    if (log2Leaf !== 0) {
      low &= log2Leaf < 32 ? 1 << log2Leaf : 0;
      high &= log2Leaf < 32 ? 0 : 1 << (log2Leaf - 32);
    }
    return (
      this.#invalidateBlocks(kind, vmid, vaHi, vaLo, pages, low, 0) &&
      this.#invalidateBlocks(kind, vmid, vaHi, vaLo, pages, high, 32)
    );
  }

  #invalidatePages(
    kind: TlbKind,
    log2Page: number,
    tag: number,
    vaHi: number,
    vaLo: number,
    count: number,
  ): void {
    const step = 1 << log2Page;
    let hi = vaHi | 0;
    let lo = (vaLo & -step) >>> 0;
    for (let i = 0; i < count; i++) {
      this.#drop(hi, lo | tlbFlags(kind, log2Page, false), tag);
      if (this.hasGlobals) {
        // Commands match global entries of either ASET (3.17).
        this.#drop(hi, lo | tlbFlags(kind, log2Page, true), tag & 0xffff_0000);
        this.#drop(hi, lo | tlbFlags(kind, log2Page, true), (tag & 0xffff_0000) | 1);
      }
      lo = (lo + step) >>> 0;
      if (lo === 0) hi = (hi + 1) | 0;
    }
  }

  #drop(vaHi: number, vaLoFlags: number, tag: number): void {
    const entries = this.entries;
    let at = this.#set(vaHi, vaLoFlags, tag);
    for (const end = at + SET_WORDS; at < end; at += ENTRY_WORDS)
      if (entries[at + VA_LO] === vaLoFlags && entries[at + TAG] === tag && entries[at + VA_HI] === vaHi)
        entries[at + VA_LO] = 0;
  }

  #invalidateBlocks(
    kind: TlbKind,
    vmid: number,
    vaHi: number,
    vaLo: number,
    pages: number,
    sizes: number,
    sizesFrom: number,
  ): boolean {
    let left = sizes;
    while (left !== 0) {
      const log2Leaf = sizesFrom + 31 - Math.clz32(left);
      left &= ~(1 << (log2Leaf - sizesFrom));
      const count = Math.ceil(pages / 2 ** (log2Leaf - 12)) + 1;
      if (count > PROBES_MAX) return false;
      const now = this.#tick();
      let hi = vaHi | 0;
      let lo = vaLo >>> 0;
      for (let i = 0; i < count; i++) {
        this.#blockTimes[this.#block(kind, vmid, hi, lo, log2Leaf)] = now;
        if (log2Leaf < 32) {
          const next = lo + 2 ** log2Leaf;
          lo = next >>> 0;
          if (next > 0xffff_ffff) hi = (hi + 1) | 0;
        } else hi = (hi + 2 ** (log2Leaf - 32)) | 0;
      }
    }
    return true;
  }
}
