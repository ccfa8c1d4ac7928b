/**
 * Stage 1 translation tables as Linux builds them. Descriptor bits are spelled out here, not taken from spec/: who
 * builds tables and who walks them should not be able to be wrong together.
 */

import { hiOfNumber, joinNumber, loOfNumber } from '../bits/u64.ts';
import { GuestDriverError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';

export interface Protection {
  readonly read?: boolean;
  readonly write?: boolean;
  /** Reachable for privileged accesses only. */
  readonly privileged?: boolean;
  readonly noExecute?: boolean;
  /** Device memory, such as an interrupt doorbell. */
  readonly mmio?: boolean;
  /** Not cacheable; mappings of a coherent device are. */
  readonly uncached?: boolean;
}

/** What unmapping tells its caller, who owns the invalidations. */
export interface UnmapGather {
  /** A leaf of `size` bytes is gone; it may be invalidated later, together with others. */
  leaf(iova: bigint, size: number): void;
  /** A table that covered `size` bytes is gone, and its memory is given back when this returns. */
  table(iova: bigint, size: number): void;
}

const VALID = 1;
/** With VALID: a table, or a page at the last level; otherwise a block. */
const TABLE_OR_PAGE = 2;
const INDEX_SHIFT = 2;
const AP_UNPRIVILEGED = 1 << 6;
const AP_READ_ONLY = 1 << 7;
const SH_OUTER = 2 << 8;
const SH_INNER = 3 << 8;
const ACCESSED = 1 << 10;
const NOT_GLOBAL = 1 << 11;
/** In the high half: hardware may clear AP_READ_ONLY; no execution at either privilege. */
const DIRTY_MODIFIER = 1 << (51 - 32);
const NO_EXECUTE = 3 << (53 - 32);
/** Attribute indices into MAIR. */
const NON_CACHEABLE = 0;
const CACHED = 1;
const DEVICE = 2;
/** MAIR: Normal non-cacheable 0x44, write-back 0xff, Device-nGnRE 0x04, inner non-cacheable outer write-back 0xf4. */
export const MAIR0 = 0xf404_ff44;
export const MAIR1 = 0;

const LAST = 3;

export interface TableOptions {
  readonly granule: 12 | 14 | 16;
  /** Bits of an input address, 48 unless told otherwise. */
  readonly iovaBits?: number;
  readonly oasBits: number;
  /** Writes to read-only pages may be allowed by hardware that tracks dirty pages. */
  readonly dirtyTracking?: boolean;
}

export class IoPageTable {
  readonly #ram: GuestRam;
  readonly granule: 12 | 14 | 16;
  readonly iovaBits: number;
  readonly #oasBits: number;
  readonly #stride: number;
  readonly #startLevel: number;
  readonly #dirtyTracking: boolean;
  /** Address of the first table. */
  readonly root: number;
  /** Leaf sizes in bytes, largest first. */
  readonly leafSizes: readonly number[];

  /** @throws GuestDriverError GUEST_OUT_OF_MEMORY. */
  constructor(ram: GuestRam, options: TableOptions) {
    this.#ram = ram;
    this.granule = options.granule;
    this.iovaBits = options.iovaBits ?? 48;
    this.#oasBits = options.oasBits;
    this.#dirtyTracking = options.dirtyTracking ?? false;
    this.#stride = options.granule - 3;
    this.#startLevel = 4 - Math.ceil((this.iovaBits - options.granule) / this.#stride);
    const firstBlock = Math.max(options.granule === 12 ? 1 : 2, this.#startLevel);
    const sizes: number[] = [];
    for (let level = firstBlock; level <= LAST; level++) sizes.push(2 ** this.#shift(level));
    this.leafSizes = sizes;
    this.root = ram.allocate(this.#tableBytes(this.#startLevel), 'the first translation table');
  }

  /** Smallest page in bytes. */
  get page(): number {
    return 2 ** this.granule;
  }

  /**
   * Maps [iova, iova + size) to physical memory at `pa`, with the largest leaves that fit. On an error nothing is mapped.
   * @param gather hears of an empty table that made way for a block, and of what an error undid.
   * @throws GuestDriverError GUEST_BAD_ADDRESS, GUEST_ALREADY_MAPPED or GUEST_OUT_OF_MEMORY.
   */
  map(iova: bigint, pa: number, size: number, protection: Protection, gather: UnmapGather): void {
    this.#require(iova, size);
    if (pa % this.page !== 0 || pa + size > 2 ** this.#oasBits)
      throw new GuestDriverError('GUEST_BAD_ADDRESS', `0x${pa.toString(16)} cannot be mapped`);
    let done = 0;
    try {
      while (done < size) {
        const at = iova + BigInt(done);
        const leaf = this.leafSizes.find(
          (bytes) => at % BigInt(bytes) === 0n && (pa + done) % bytes === 0 && bytes <= size - done,
        )!;
        this.#mapLeaf(at, pa + done, leaf, protection, gather);
        done += leaf;
      }
    } catch (error) {
      if (done > 0) this.unmap(iova, done, gather);
      throw error;
    }
  }

  /**
   * Unmaps [iova, iova + size) as far as it is mapped from its start without a gap.
   * @returns bytes unmapped.
   * @throws GuestDriverError GUEST_BAD_ADDRESS, or GUEST_BLOCK_SPLIT if the range ends inside a block.
   */
  unmap(iova: bigint, size: number, gather: UnmapGather): number {
    this.#require(iova, size);
    let done = 0;
    while (done < size) {
      const at = iova + BigInt(done);
      const largest = this.leafSizes.find((bytes) => at % BigInt(bytes) === 0n && bytes <= size - done)!;
      const gone = this.#unmapOne(at, largest, gather);
      if (gone === 0) break;
      done += gone;
    }
    return done;
  }

  /** @returns the physical address that an IOVA leads to, or undefined. */
  lookup(iova: bigint): number | undefined {
    let table = this.root;
    for (let level = this.#startLevel; level <= LAST; level++) {
      this.#ram.load64(this.#slot(table, iova, level));
      if (!this.#isValid(level)) return undefined;
      const address = this.#address();
      if (this.#isLeaf(level)) return address + Number(iova & BigInt(2 ** this.#shift(level) - 1));
      table = address;
    }
    return undefined;
  }

  /** Gives all tables back. Nothing may walk them any more. */
  free(): void {
    this.#freeTable(this.root, this.#startLevel);
  }

  #mapLeaf(iova: bigint, pa: number, size: number, protection: Protection, gather: UnmapGather): void {
    let table = this.root;
    let level = this.#startLevel;
    for (; 2 ** this.#shift(level) > size; level++) {
      const slot = this.#slot(table, iova, level);
      this.#ram.load64(slot);
      if (!this.#isValid(level)) {
        const next = this.#ram.allocate(this.#tableBytes(level + 1), 'a translation table');
        this.#ram.store64(slot, hiOfNumber(next), loOfNumber(next) | VALID | TABLE_OR_PAGE);
        table = next;
      } else if (this.#isLeaf(level)) throw alreadyMapped(iova);
      else table = this.#address();
    }
    const slot = this.#slot(table, iova, level);
    this.#ram.load64(slot);
    if (this.#isValid(level)) {
      // A table that nothing is left in may make way for a block.
      const below = this.#address();
      if (this.#isLeaf(level) || !this.#isEmpty(below, level + 1)) throw alreadyMapped(iova);
      this.#ram.store64(slot, 0, 0);
      gather.table(iova, size);
      this.#freeTable(below, level + 1);
    }
    this.#storeLeaf(slot, level, pa, protection);
  }

  #storeLeaf(slot: number, level: number, pa: number, protection: Protection): void {
    let lo = VALID | (level === LAST ? TABLE_OR_PAGE : 0) | ACCESSED | NOT_GLOBAL;
    let hi = 0;
    if (protection.write !== true) lo |= AP_READ_ONLY;
    else if (this.#dirtyTracking) hi |= DIRTY_MODIFIER;
    if (protection.privileged !== true) lo |= AP_UNPRIVILEGED;
    const cached = protection.mmio !== true && protection.uncached !== true;
    lo |= (protection.mmio === true ? DEVICE : cached ? CACHED : NON_CACHEABLE) << INDEX_SHIFT;
    lo |= cached ? SH_INNER : SH_OUTER;
    if (protection.noExecute === true) hi |= NO_EXECUTE;
    this.#ram.store64(slot, hi | hiOfNumber(pa), lo | loOfNumber(pa));
  }

  /** Clears what maps `iova` at the level of `size`, or one leaf of a table below. @returns bytes, 0 if unmapped. */
  #unmapOne(iova: bigint, size: number, gather: UnmapGather): number {
    let table = this.root;
    for (let level = this.#startLevel; level <= LAST; level++) {
      const slot = this.#slot(table, iova, level);
      this.#ram.load64(slot);
      if (!this.#isValid(level)) return 0;
      const address = this.#address();
      const covers = 2 ** this.#shift(level);
      const leaf = this.#isLeaf(level);
      if (leaf && covers > size)
        throw new GuestDriverError('GUEST_BLOCK_SPLIT', `0x${iova.toString(16)} is inside a larger block`);
      if (leaf || covers === size) {
        this.#ram.store64(slot, 0, 0);
        if (leaf) gather.leaf(iova, covers);
        else {
          gather.table(iova, covers);
          this.#freeTable(address, level + 1);
        }
        return covers;
      }
      table = address;
    }
    return 0;
  }

  #freeTable(table: number, level: number): void {
    const bytes = this.#tableBytes(level);
    if (level < LAST)
      for (let at = table; at < table + bytes; at += 8) {
        this.#ram.load64(at);
        if (this.#isValid(level) && !this.#isLeaf(level)) this.#freeTable(this.#address(), level + 1);
      }
    this.#ram.release(table, bytes);
  }

  #isEmpty(table: number, level: number): boolean {
    for (let at = table; at < table + this.#tableBytes(level); at += 8) {
      this.#ram.load64(at);
      if (!this.#isValid(level)) continue;
      if (this.#isLeaf(level) || !this.#isEmpty(this.#address(), level + 1)) return false;
    }
    return true;
  }

  #shift(level: number): number {
    return this.granule + (LAST - level) * this.#stride;
  }

  #tableBytes(level: number): number {
    const bits = level === this.#startLevel ? this.iovaBits - this.#shift(level) : this.#stride;
    return 2 ** bits * 8;
  }

  #slot(table: number, iova: bigint, level: number): number {
    const entries = BigInt(this.#tableBytes(level) / 8);
    return table + Number((iova >> BigInt(this.#shift(level))) % entries) * 8;
  }

  // These look at the descriptor that was loaded last.
  #isValid(level: number): boolean {
    return (this.#ram.lo & VALID) !== 0 && (level < LAST || (this.#ram.lo & TABLE_OR_PAGE) !== 0);
  }

  #isLeaf(level: number): boolean {
    return level === LAST || (this.#ram.lo & TABLE_OR_PAGE) === 0;
  }

  #address(): number {
    return joinNumber(this.#ram.hi & 0xffff, this.#ram.lo & ~(this.page - 1));
  }

  #require(iova: bigint, size: number): void {
    const end = iova + BigInt(size);
    if (
      size <= 0 ||
      size % this.page !== 0 ||
      iova < 0n ||
      iova % BigInt(this.page) !== 0n ||
      end > 1n << BigInt(this.iovaBits)
    )
      throw new GuestDriverError(
        'GUEST_BAD_ADDRESS',
        `0x${iova.toString(16)} of 0x${size.toString(16)} bytes is not a range of whole pages below 2^${this.iovaBits}`,
      );
  }
}

const alreadyMapped = (iova: bigint): GuestDriverError =>
  new GuestDriverError('GUEST_ALREADY_MAPPED', `0x${iova.toString(16)} is mapped already`);
