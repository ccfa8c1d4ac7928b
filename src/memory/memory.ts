/**
 * Physical memory as the SMMU and DMA endpoints see it: banks of 4 GiB, one per value of the upper address word
 * (the fastest checked decoding found, and the largest view that Node 20 can map). An access that meets no region, or
 * is not wholly inside one, is an external abort. Addresses are (hi, lo) halves; loads leave their value in `hi`/`lo`.
 */

export const MEM_OK = 0;
/** The access met no memory, or a device that refused it: an external abort, nothing was changed. */
export const MEM_ABORT = 1;
export type MemStatus = typeof MEM_OK | typeof MEM_ABORT;

/** A device in the address space that takes 32-bit writes, such as an interrupt doorbell. */
export interface Mmio {
  /** @returns false to abort the access. `offset` is from the start of the region. */
  write32(offset: number, value: number): boolean;
}

/** A piece of one bank. RAM has `bytes`; a device has `mmio`. */
export interface Region {
  readonly hi: number;
  readonly lo: number;
  /** In bytes; `lo + size` never passes 2^32. */
  readonly size: number;
  readonly bytes: Uint8Array | undefined;
  readonly mmio: Mmio | undefined;
}

class RamRegion implements Region {
  readonly hi: number;
  readonly lo: number;
  readonly size: number;
  readonly bytes: Uint8Array;
  readonly mmio = undefined;
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
  /** Place and length in 32-bit words: unlike bytes, small integers everywhere, which the hot paths live on. */
  readonly firstWord: number;
  readonly words: number;

  constructor(hi: number, lo: number, bytes: Uint8Array) {
    this.firstWord = lo >>> 2;
    this.words = Math.floor(bytes.length / 4);
    this.hi = hi;
    this.lo = lo;
    this.size = bytes.length;
    this.bytes = bytes;
    this.u32 = new Uint32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / 4));
    this.u64 = new BigUint64Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / 8));
  }
}

class MmioRegion implements Region {
  readonly hi: number;
  readonly lo: number;
  readonly size: number;
  readonly bytes = undefined;
  readonly mmio: Mmio;

  constructor(hi: number, lo: number, size: number, mmio: Mmio) {
    this.hi = hi;
    this.lo = lo;
    this.size = size;
    this.mmio = mmio;
  }
}

const BANK_SIZE = 0x1_0000_0000;

/** Memory with one user: loads and stores are plain. For a guest in another process use {@link TearFreeMemory}. */
export class Memory {
  /** Halves of the value of the last successful load. */
  hi = 0;
  lo = 0;
  /** The region that the last access met in each bank comes first in its array. */
  readonly #ram: (RamRegion[] | undefined)[] = [];
  readonly #mmio: MmioRegion[] = [];

  /**
   * Adds RAM at a physical address that is a multiple of 8, as is its length. A piece that crosses a 4 GiB boundary is
   * entered as two regions over the same bytes.
   * @throws RangeError if it is misaligned or overlaps what is there.
   */
  addRam(hi: number, lo: number, bytes: Uint8Array): void {
    if (lo % 8 !== 0 || bytes.length % 8 !== 0 || bytes.byteOffset % 8 !== 0)
      throw new RangeError('RAM must be aligned to 8 bytes, in address, length and backing buffer');
    this.#requireFree(hi, lo, bytes.length);
    let at = 0;
    while (at < bytes.length) {
      const size = Math.min(bytes.length - at, BANK_SIZE - lo);
      (this.#ram[hi] ??= []).push(new RamRegion(hi, lo, bytes.subarray(at, at + size)));
      at += size;
      lo = 0;
      hi += 1;
    }
  }

  /** Adds a device that takes 32-bit writes. @throws RangeError if it overlaps what is there or crosses 4 GiB. */
  addMmio(hi: number, lo: number, size: number, mmio: Mmio): void {
    if (lo + size > BANK_SIZE) throw new RangeError('A device may not cross a 4 GiB boundary');
    this.#requireFree(hi, lo, size);
    this.#mmio.push(new MmioRegion(hi, lo, size, mmio));
  }

  /** Removes every region that lies wholly inside [address, address + size). The views are not touched any more. */
  remove(hi: number, lo: number, size: number): void {
    const first = hi * BANK_SIZE + lo;
    const inside = (region: Region): boolean => {
      const start = region.hi * BANK_SIZE + region.lo;
      return start >= first && start + region.size <= first + size;
    };
    for (const [bank, regions] of this.#ram.entries())
      if (regions !== undefined) this.#ram[bank] = regions.filter((region) => !inside(region));
    for (let i = this.#mmio.length - 1; i >= 0; i--) if (inside(this.#mmio[i])) this.#mmio.splice(i, 1);
  }

  /** All regions in address order. */
  regions(): readonly Region[] {
    const all: Region[] = [...this.#mmio];
    for (const bank of this.#ram) if (bank !== undefined) all.push(...bank);
    return all.sort((a, b) => a.hi - b.hi || a.lo - b.lo);
  }

  #requireFree(hi: number, lo: number, size: number): void {
    const first = hi * BANK_SIZE + lo;
    for (const region of this.regions()) {
      const start = region.hi * BANK_SIZE + region.lo;
      if (start < first + size && first < start + region.size)
        throw new RangeError(`Memory at 0x${first.toString(16)} overlaps 0x${start.toString(16)}`);
    }
  }

  /** The RAM region that holds `size` bytes at the address, or undefined. */
  protected ramAt(hi: number, lo: number, size: number): RamRegion | undefined {
    const bank = this.#ram[hi];
    if (bank === undefined) return undefined;
    for (let i = 0; i < bank.length; i++) {
      const region = bank[i];
      const offset = lo - region.lo;
      if (offset >= 0 && offset + size <= region.size) {
        if (i > 0) {
          bank[i] = bank[0]!;
          bank[0] = region;
        }
        return region;
      }
    }
    return undefined;
  }

  /** The RAM region that holds `n` words from the one at the address, or undefined. `lo` may be a signed word. */
  protected wordsAt(hi: number, lo: number, n: number): RamRegion | undefined {
    const region = this.#ram[hi]?.[0];
    if (region !== undefined) {
      const i = (lo >>> 2) - region.firstWord;
      if (i >= 0 && i + n <= region.words) return region;
    }
    return this.ramAt(hi, lo >>> 0, n * 4);
  }

  /** Loads the aligned 32-bit word into `lo`; `hi` becomes 0. */
  load32(hi: number, lo: number): MemStatus {
    const region = this.wordsAt(hi, lo, 1);
    if (region === undefined) return MEM_ABORT;
    this.lo = region.u32[(lo >>> 2) - region.firstWord]!;
    this.hi = 0;
    return MEM_OK;
  }

  /** Loads the aligned 64-bit word into `hi` and `lo`. */
  load64(hi: number, lo: number): MemStatus {
    const region = this.wordsAt(hi, lo, 2);
    if (region === undefined) return MEM_ABORT;
    const i = (lo >>> 2) - region.firstWord;
    this.lo = region.u32[i]!;
    this.hi = region.u32[i + 1]!;
    return MEM_OK;
  }

  /** Stores the aligned 32-bit word, in RAM or to a device. */
  store32(hi: number, lo: number, value: number): MemStatus {
    const region = this.wordsAt(hi, lo, 1);
    if (region !== undefined) {
      region.u32[(lo >>> 2) - region.firstWord] = value;
      return MEM_OK;
    }
    for (const device of this.#mmio) {
      const offset = (lo >>> 0) - device.lo;
      if (device.hi === hi && offset >= 0 && offset + 4 <= device.size)
        return device.mmio.write32(offset, value >>> 0) ? MEM_OK : MEM_ABORT;
    }
    return MEM_ABORT;
  }

  /** Stores the aligned 64-bit word. */
  store64(hi: number, lo: number, valueHi: number, valueLo: number): MemStatus {
    const region = this.wordsAt(hi, lo, 2);
    if (region === undefined) return MEM_ABORT;
    const i = (lo >>> 2) - region.firstWord;
    region.u32[i] = valueLo;
    region.u32[i + 1] = valueHi;
    return MEM_OK;
  }

  /**
   * Replaces the aligned 64-bit word if it still holds the expected value, and leaves what was found in `hi` and `lo`:
   * it was replaced exactly if these equal the expected halves.
   */
  compareExchange64(
    hi: number,
    lo: number,
    expectedHi: number,
    expectedLo: number,
    newHi: number,
    newLo: number,
  ): MemStatus {
    const region = this.wordsAt(hi, lo, 2);
    if (region === undefined) return MEM_ABORT;
    const found = Atomics.compareExchange(
      region.u64,
      ((lo >>> 2) - region.firstWord) >>> 1,
      (BigInt(expectedHi >>> 0) << 32n) | BigInt(expectedLo >>> 0),
      (BigInt(newHi >>> 0) << 32n) | BigInt(newLo >>> 0),
    );
    this.lo = Number(found & 0xffff_ffffn);
    this.hi = Number(found >> 32n);
    return MEM_OK;
  }

  /** Loads `n` 32-bit words (an even number) from an address that is a multiple of 8; each 64-bit word at once. */
  loadWords(hi: number, lo: number, into: Uint32Array, n: number, at = 0): MemStatus {
    const region = this.wordsAt(hi, lo, n);
    if (region === undefined) return MEM_ABORT;
    const from = (lo >>> 2) - region.firstWord;
    const u32 = region.u32;
    for (let i = 0; i < n; i += 2) {
      into[at + i] = u32[from + i]!;
      into[at + i + 1] = u32[from + i + 1]!;
    }
    return MEM_OK;
  }

  /** Stores `n` 32-bit words (an even number) at an address that is a multiple of 8; each 64-bit word at once. */
  storeWords(hi: number, lo: number, words: Uint32Array, n: number, from = 0): MemStatus {
    const region = this.wordsAt(hi, lo, n);
    if (region === undefined) return MEM_ABORT;
    const to = (lo >>> 2) - region.firstWord;
    const u32 = region.u32;
    for (let i = 0; i < n; i += 2) {
      u32[to + i] = words[from + i]!;
      u32[to + i + 1] = words[from + i + 1]!;
    }
    return MEM_OK;
  }

  /** Copies bytes out of RAM, at any address and length; nothing is promised about concurrent stores. */
  readBytes(hi: number, lo: number, into: Uint8Array): MemStatus {
    return this.#eachPiece(hi, lo, into.length, (ram, at) => into.set(ram, at));
  }

  /** Copies bytes into RAM, at any address and length. On an abort nothing was written. */
  writeBytes(hi: number, lo: number, from: Uint8Array): MemStatus {
    return this.#eachPiece(hi, lo, from.length, (ram, at) => ram.set(from.subarray(at, at + ram.length)));
  }

  /** Calls `use` for each piece of RAM under the range, or aborts before the first call if part of it is missing. */
  #eachPiece(hi: number, lo: number, size: number, use: (ram: Uint8Array, at: number) => void): MemStatus {
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < size;) {
      const region = this.ramAt(hi, lo, 1);
      if (region === undefined) return MEM_ABORT;
      const offset = lo - region.lo;
      const piece = region.bytes.subarray(offset, Math.min(region.size, offset + size - at));
      pieces.push(piece);
      at += piece.length;
      lo += piece.length;
      if (lo === BANK_SIZE) {
        lo = 0;
        hi += 1;
      }
    }
    let at = 0;
    for (const piece of pieces) {
      use(piece, at);
      at += piece.length;
    }
    return MEM_OK;
  }
}

/**
 * Memory that another process stores to while we load: every 64-bit word is read and written by one access. Measured:
 * two 32-bit loads tear, one `BigUint64Array` element copied through a one-element scratch does not.
 */
export class TearFreeMemory extends Memory {
  /** One 64-bit word and its halves. Reuse is safe: it is filled and emptied inside one synchronous call. */
  readonly #word = new BigUint64Array(1);
  readonly #halves = new Uint32Array(this.#word.buffer);

  override load64(hi: number, lo: number): MemStatus {
    const region = this.wordsAt(hi, lo, 2);
    if (region === undefined) return MEM_ABORT;
    this.#word[0] = region.u64[((lo >>> 2) - region.firstWord) >>> 1]!;
    this.lo = this.#halves[0]!;
    this.hi = this.#halves[1]!;
    return MEM_OK;
  }

  override store64(hi: number, lo: number, valueHi: number, valueLo: number): MemStatus {
    const region = this.wordsAt(hi, lo, 2);
    if (region === undefined) return MEM_ABORT;
    this.#halves[0] = valueLo;
    this.#halves[1] = valueHi;
    region.u64[((lo >>> 2) - region.firstWord) >>> 1] = this.#word[0]!;
    return MEM_OK;
  }

  override loadWords(hi: number, lo: number, into: Uint32Array, n: number, at = 0): MemStatus {
    const region = this.wordsAt(hi, lo, n);
    if (region === undefined) return MEM_ABORT;
    const from = ((lo >>> 2) - region.firstWord) >>> 1;
    const word = this.#word;
    const halves = this.#halves;
    const u64 = region.u64;
    for (let i = 0; i < n >>> 1; i++) {
      word[0] = u64[from + i]!;
      into[at + 2 * i] = halves[0]!;
      into[at + 2 * i + 1] = halves[1]!;
    }
    return MEM_OK;
  }

  override storeWords(hi: number, lo: number, words: Uint32Array, n: number, from = 0): MemStatus {
    const region = this.wordsAt(hi, lo, n);
    if (region === undefined) return MEM_ABORT;
    const to = ((lo >>> 2) - region.firstWord) >>> 1;
    const word = this.#word;
    const halves = this.#halves;
    const u64 = region.u64;
    for (let i = 0; i < n >>> 1; i++) {
      halves[0] = words[from + 2 * i]!;
      halves[1] = words[from + 2 * i + 1]!;
      u64[to + i] = word[0]!;
    }
    return MEM_OK;
  }
}
