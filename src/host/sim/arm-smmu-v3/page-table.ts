/**
 * Translation tables that the kernel builds for a domain: VMSAv8-64, 4 KiB granule, stage 1 or stage 2, blocks where
 * the addresses allow. Concatenates first-level tables at stage 2 as far as the architecture can.
 */

import { hiOfNumber, loOfNumber } from '../../../bits/u64.ts';
import {
  DESCRIPTOR_SIZE,
  DESCRIPTOR_TYPE,
  GRANULE_4K,
  LAST_LEVEL,
  log2BytesAt,
  S1_AP,
  S1_LEAF,
  S2_AP,
  S2_LEAF,
} from '../../../spec/descriptors.ts';
import type { HostMemory } from '../host-memory.ts';

const TABLE_SIZE = 4096;
const ENTRIES = 512;
const MIN_ROOT_SIZE = 64;

/** Stage 2 MemAttr of normal write-back memory: outer and inner; with S2FWB, "force write-back". */
const MEMATTR_WB = 0b1111;
const MEMATTR_FWB_WB = 0b0110;
/** Device-nGnRE. */
const MEMATTR_DEVICE = 0b0001;
/** Inner shareable. */
const SH_INNER = 0b11;

/** MAIR of the kernel's stage 1 domains: index 0 normal non-cacheable, 1 normal write-back, 2 Device-nGnRE. */
export const KERNEL_MAIR = { lo: 0x0004_ff44, hi: 0 } as const;
const ATTR_CACHED = 1;
const ATTR_DEVICE = 2;

export interface Protection {
  readonly read: boolean;
  readonly write: boolean;
  /** Device memory instead of write-back. */
  readonly device?: boolean;
}

export interface PageTableOptions {
  readonly stage: 1 | 2;
  /** Width of input addresses in bits. */
  readonly inputBits: number;
  /** Stage 2 descriptors in the form of STE.S2FWB=1. */
  readonly fwb?: boolean;
}

export class PageTable {
  readonly stage: 1 | 2;
  readonly inputBits: number;
  /** Level of the first table, 0..3. */
  readonly startLevel: number;
  /** Physical address of the first table. */
  readonly root: number;
  readonly #memory: HostMemory;
  readonly #rootSize: number;
  readonly #fwb: boolean;
  #replacedTables = 0;

  constructor(memory: HostMemory, options: PageTableOptions) {
    this.#memory = memory;
    this.stage = options.stage;
    this.inputBits = options.inputBits;
    this.#fwb = options.fwb === true;
    let level = 0;
    while (log2BytesAt(GRANULE_4K, level) >= options.inputBits) level += 1;
    // Up to 16 first-level tables may stand side by side at stage 2, which saves a level.
    const topBits = options.inputBits - log2BytesAt(GRANULE_4K, level);
    if (options.stage === 2 && topBits <= 4 && level < LAST_LEVEL) level += 1;
    this.startLevel = level;
    const entries = 2 ** (options.inputBits - log2BytesAt(GRANULE_4K, level));
    this.#rootSize = Math.max(MIN_ROOT_SIZE, entries * DESCRIPTOR_SIZE);
    this.root = memory.allocate(this.#rootSize);
  }

  /**
   * Maps [iova, iova + size) to [pa, pa + size), replacing what was there. All are multiples of 4 KiB inside the input
   * and output ranges.
   * @returns whether a table was replaced, so that what the SMMU holds of it has to be dropped.
   */
  map(iova: number, pa: number, size: number, protection: Protection, blocks: boolean): boolean {
    const tables = this.#replacedTables;
    let done = 0;
    while (done < size) done += this.#mapOne(iova + done, pa + done, size - done, protection, blocks);
    return this.#replacedTables !== tables;
  }

  /** Removes [iova, iova + size), which covers whole mappings of {@link map}. */
  unmap(iova: number, size: number): void {
    let done = 0;
    while (done < size) done += this.#unmapOne(iova + done, size - done);
  }

  /** Gives all tables back. */
  free(): void {
    this.#freeTable(this.root, this.startLevel, this.#rootSize / DESCRIPTOR_SIZE);
  }

  #entryAddress(table: number, level: number, iova: number): number {
    const index = Math.floor(iova / 2 ** log2BytesAt(GRANULE_4K, level));
    // Only the first level may have more than 512 entries.
    const count = level === this.startLevel ? this.#rootSize / DESCRIPTOR_SIZE : ENTRIES;
    return table + (index % count) * DESCRIPTOR_SIZE;
  }

  /** Loads the descriptor and returns the table that it points to, or undefined. */
  #nextTable(entry: number, level: number): number | undefined {
    const { memory } = this.#memory;
    memory.load64(hiOfNumber(entry), loOfNumber(entry));
    if (level === LAST_LEVEL || (memory.lo & 3) !== DESCRIPTOR_TYPE.Table) return undefined;
    return (memory.hi & 0xffff) * 2 ** 32 + ((memory.lo & ~0xfff) >>> 0);
  }

  /** Maps as much as one descriptor covers, and returns that size. */
  #mapOne(iova: number, pa: number, left: number, protection: Protection, blocks: boolean): number {
    let table = this.root;
    for (let level = this.startLevel; ; level++) {
      const covered = 2 ** log2BytesAt(GRANULE_4K, level);
      const entry = this.#entryAddress(table, level, iova);
      const next = this.#nextTable(entry, level);
      const fits =
        level === LAST_LEVEL ||
        (blocks &&
          level >= GRANULE_4K.firstBlockLevel &&
          covered <= left &&
          iova % covered === 0 &&
          pa % covered === 0);
      if (fits) {
        this.#memory.store64(entry, hiOfNumber(pa), this.#leafLow(pa, level, protection));
        if (next !== undefined) {
          this.#replacedTables += 1;
          this.#freeTable(next, level + 1, ENTRIES);
        }
        return covered;
      }
      if (next === undefined) {
        table = this.#memory.allocate(TABLE_SIZE);
        this.#memory.store64(entry, hiOfNumber(table), loOfNumber(table) | DESCRIPTOR_TYPE.Table);
      } else {
        table = next;
      }
    }
  }

  #leafLow(pa: number, level: number, protection: Protection): number {
    const type = level === LAST_LEVEL ? DESCRIPTOR_TYPE.Page : DESCRIPTOR_TYPE.Block;
    const common = loOfNumber(pa) | type | S2_LEAF.AF.put(1) | S2_LEAF.SH.put(SH_INNER);
    if (this.stage === 1)
      return (
        (common |
          S1_LEAF.nG.put(1) |
          S1_LEAF.AP.put(protection.write ? S1_AP.Rw : S1_AP.Ro) |
          S1_LEAF.AttrIndx.put(protection.device === true ? ATTR_DEVICE : ATTR_CACHED)) >>>
        0
      );
    const writeBack = this.#fwb ? MEMATTR_FWB_WB : MEMATTR_WB;
    const access = (protection.read ? S2_AP.Read : 0) | (protection.write ? S2_AP.Write : 0);
    return (
      (common |
        S2_LEAF.S2AP.put(access) |
        S2_LEAF.MemAttr.put(protection.device === true ? MEMATTR_DEVICE : writeBack)) >>>
      0
    );
  }

  #unmapOne(iova: number, left: number): number {
    let table = this.root;
    for (let level = this.startLevel; ; level++) {
      const covered = 2 ** log2BytesAt(GRANULE_4K, level);
      const entry = this.#entryAddress(table, level, iova);
      const next = this.#nextTable(entry, level);
      if (next === undefined) {
        this.#memory.store64(entry, 0, 0);
        return Math.min(covered - (iova % covered), left);
      }
      table = next;
    }
  }

  #freeTable(table: number, level: number, entries: number): void {
    for (let i = 0; i < entries; i++) {
      const next = this.#nextTable(table + i * DESCRIPTOR_SIZE, level);
      if (next !== undefined) this.#freeTable(next, level + 1, ENTRIES);
    }
    this.#memory.free(table, level === this.startLevel ? this.#rootSize : TABLE_SIZE);
  }
}
