/**
 * Builders of stream tables, CDs and translation tables for tests, on bigint. They share no code with the device: fields
 * are placed by the numbers of IHI 0070 and of the Arm ARM as they stand here.
 */

import type { Memory } from '../../src/memory/memory.ts';

export const hiOf = (value: bigint): number => Number((value >> 32n) & 0xffff_ffffn);
export const loOf = (value: bigint): number => Number(value & 0xffff_ffffn);

/** [64-bit word, highest bit, lowest bit] of the fields that tests set. */
type Places = Readonly<Record<string, readonly [dword: number, hi: number, lo: number]>>;

const STE_PLACES = {
  V: [0, 0, 0],
  Config: [0, 3, 1],
  S1Fmt: [0, 5, 4],
  S1ContextPtr: [0, 55, 6],
  S1CDMax: [0, 63, 59],
  S1DSS: [1, 1, 0],
  S1CIR: [1, 3, 2],
  S1COR: [1, 5, 4],
  S1CSH: [1, 7, 6],
  S2FWB: [1, 25, 25],
  S1STALLD: [1, 27, 27],
  EATS: [1, 29, 28],
  STRW: [1, 31, 30],
  MemAttr: [1, 35, 32],
  MTCFG: [1, 36, 36],
  ALLOCCFG: [1, 40, 37],
  SHCFG: [1, 45, 44],
  NSCFG: [1, 47, 46],
  PRIVCFG: [1, 49, 48],
  INSTCFG: [1, 51, 50],
  S2VMID: [2, 15, 0],
  S2T0SZ: [2, 37, 32],
  S2SL0: [2, 39, 38],
  S2IR0: [2, 41, 40],
  S2OR0: [2, 43, 42],
  S2SH0: [2, 45, 44],
  S2TG: [2, 47, 46],
  S2PS: [2, 50, 48],
  S2AA64: [2, 51, 51],
  S2ENDI: [2, 52, 52],
  S2AFFD: [2, 53, 53],
  S2PTW: [2, 54, 54],
  S2HD: [2, 55, 55],
  S2HA: [2, 56, 56],
  S2S: [2, 57, 57],
  S2R: [2, 58, 58],
  S2HAFT: [2, 59, 59],
  S2SL0_2: [3, 2, 2],
  S2DS: [3, 3, 3],
  S2TTB: [3, 55, 4],
} as const satisfies Places;

const CD_PLACES = {
  T0SZ: [0, 5, 0],
  TG0: [0, 7, 6],
  IR0: [0, 9, 8],
  OR0: [0, 11, 10],
  SH0: [0, 13, 12],
  EPD0: [0, 14, 14],
  ENDI: [0, 15, 15],
  T1SZ: [0, 21, 16],
  TG1: [0, 23, 22],
  IR1: [0, 25, 24],
  OR1: [0, 27, 26],
  SH1: [0, 29, 28],
  EPD1: [0, 30, 30],
  V: [0, 31, 31],
  IPS: [0, 34, 32],
  AFFD: [0, 35, 35],
  WXN: [0, 36, 36],
  TBI0: [0, 38, 38],
  TBI1: [0, 39, 39],
  PAN: [0, 40, 40],
  AA64: [0, 41, 41],
  HD: [0, 42, 42],
  HA: [0, 43, 43],
  S: [0, 44, 44],
  R: [0, 45, 45],
  A: [0, 46, 46],
  ASET: [0, 47, 47],
  ASID: [0, 63, 48],
  NSCFG0: [1, 0, 0],
  HAD0: [1, 1, 1],
  E0PD0: [1, 2, 2],
  HAFT: [1, 3, 3],
  TTB0: [1, 55, 4],
  EPAN: [1, 59, 59],
  NSCFG1: [2, 0, 0],
  HAD1: [2, 1, 1],
  E0PD1: [2, 2, 2],
  TTB1: [2, 55, 4],
  DS: [2, 58, 58],
  MAIR: [3, 63, 0],
  AMAIR: [4, 63, 0],
} as const satisfies Places;

export type SteFields = Partial<Record<keyof typeof STE_PLACES, number | bigint>>;
export type CdFields = Partial<Record<keyof typeof CD_PLACES, number | bigint>>;

function build(places: Places, fields: Readonly<Record<string, number | bigint | undefined>>): bigint[] {
  const dwords = [0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n];
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const [dword, hi, lo] = places[name];
    // An address keeps its place; any other field is a number.
    const isAddress = /Ptr$|TTB/u.test(name);
    const mask = ((1n << BigInt(hi - lo + 1)) - 1n) << BigInt(lo);
    dwords[dword] |= (isAddress ? BigInt(value) : BigInt(value) << BigInt(lo)) & mask;
  }
  return dwords;
}

/** An STE as eight 64-bit words. Valid unless said otherwise. */
export const buildSte = (fields: SteFields): bigint[] => build(STE_PLACES, { V: 1, ...fields });

/** A CD as eight 64-bit words: valid, AArch64, faults abort and are recorded, no upper half unless said otherwise. */
export const buildCd = (fields: CdFields): bigint[] =>
  build(CD_PLACES, { V: 1, AA64: 1, A: 1, R: 1, EPD1: 1, ...fields });

/** Writes 64-bit words. */
export function writeDwords(memory: Memory, at: bigint, dwords: readonly bigint[]): void {
  for (const [i, dword] of dwords.entries()) {
    const address = at + BigInt(8 * i);
    if (memory.store64(hiOf(address), loOf(address), hiOf(dword), loOf(dword)) !== 0)
      throw new RangeError(`No memory at 0x${address.toString(16)}`);
  }
}

/** Hands out zeroed RAM from a range, upwards. */
export class Allocator {
  next: bigint;
  readonly end: bigint;

  constructor(first: bigint, end: bigint) {
    this.next = first;
    this.end = end;
  }

  /** @param size in bytes, a power of two; the address is aligned to it, and to 64 bytes */
  take(size: bigint): bigint {
    const align = size < 64n ? 64n : size;
    const at = (this.next + align - 1n) & -align;
    if (at + size > this.end) throw new RangeError('The test has used up its RAM');
    this.next = at + size;
    return at;
  }
}

/** Where tables live. For nested translation, addresses are IPAs and the space knows where these are. */
export interface TableSpace {
  take(size: bigint): bigint;
  write(at: bigint, value: bigint): void;
  read(at: bigint): bigint;
}

/** RAM as a space for tables. */
export const ramSpace = (memory: Memory, allocator: Allocator): TableSpace => ({
  take: (size) => allocator.take(size),
  write: (at, value) => writeDwords(memory, at, [value]),
  read(at) {
    memory.load64(hiOf(at), loOf(at));
    return (BigInt(memory.hi) << 32n) | BigInt(memory.lo);
  },
});

export interface Shape {
  readonly log2Granule: 12 | 14 | 16;
  readonly inputBits: number;
  /** Only for stage 2; otherwise as few levels as possible. */
  readonly startLevel?: number;
  /** How a descriptor holds address bits [51:48]. */
  readonly highBits?: 'none' | 'ds' | 'lpa';
}

/** Bits of leaf descriptors. */
export const LEAF = {
  AF: 1n << 10n,
  nG: 1n << 11n,
  /** Stage 1 AP[1], AP[2]; stage 2 S2AP[0], S2AP[1]. */
  AP1: 1n << 6n,
  AP2: 1n << 7n,
  S2R: 1n << 6n,
  S2W: 1n << 7n,
  DBM: 1n << 51n,
  PXN: 1n << 53n,
  UXN: 1n << 54n,
  /** Stage 2 MemAttr 0b1111: Normal write-back. */
  S2Normal: 0xfn << 2n,
} as const;
export const RW_PAGE = LEAF.AF | LEAF.nG | LEAF.AP1;
export const S2_RW_PAGE = LEAF.AF | LEAF.S2R | LEAF.S2W | LEAF.S2Normal;

/** One set of VMSAv8-64 tables that grows as addresses are mapped. */
export class PageTable {
  readonly base: bigint;
  readonly shape: Shape;
  readonly startLevel: number;
  /** Addresses of all descriptors that were written. */
  readonly descriptors: bigint[] = [];
  readonly #space: TableSpace;
  readonly #stride: number;

  constructor(space: TableSpace, shape: Shape) {
    this.#space = space;
    this.shape = shape;
    this.#stride = shape.log2Granule - 3;
    let level = 3;
    while (this.#lsb(level) + this.#stride < shape.inputBits) level -= 1;
    this.startLevel = shape.startLevel ?? level;
    this.base = space.take(8n << BigInt(shape.inputBits - this.#lsb(this.startLevel)));
  }

  #lsb(level: number): number {
    return this.shape.log2Granule + (3 - level) * this.#stride;
  }

  /** log2 of the bytes that a leaf of this level maps. */
  log2Size(level: number): number {
    return this.#lsb(level);
  }

  #address(output: bigint): bigint {
    const high = (output >> 48n) & 0xfn;
    const low = output & 0xffff_ffff_ffffn;
    if (this.shape.highBits === 'lpa') return low | (high << 12n);
    if (this.shape.highBits === 'ds') return low | ((high & 3n) << 48n) | ((high >> 2n) << 8n);
    return low;
  }

  #follow(descriptor: bigint): bigint {
    const granule = -(1n << BigInt(this.shape.log2Granule));
    const low = descriptor & 0xffff_ffff_ffffn & granule;
    if (this.shape.highBits === 'lpa') return low | (((descriptor >> 12n) & 0xfn) << 48n);
    if (this.shape.highBits === 'ds')
      return low | (((descriptor >> 48n) & 3n) << 48n) | (((descriptor >> 8n) & 3n) << 50n);
    return low;
  }

  /**
   * Maps the block or page around `input` with a leaf at `level`, making tables on the way.
   * @param attributes bits of the leaf besides type and address
   * @param tableAttributes bits of table descriptors that are made
   * @returns the address of the leaf descriptor
   */
  map(input: bigint, output: bigint, attributes: bigint, level = 3, tableAttributes = 0n): bigint {
    let table = this.base;
    for (let at = this.startLevel; ; at++) {
      const lsb = BigInt(this.#lsb(at));
      const bits = at === this.startLevel ? BigInt(this.shape.inputBits) - lsb : BigInt(this.#stride);
      const where = table + 8n * ((input >> lsb) & ((1n << bits) - 1n));
      if (at === level) {
        const block = output & -(1n << lsb);
        this.#space.write(where, this.#address(block) | attributes | (level === 3 ? 3n : 1n));
        this.descriptors.push(where);
        return where;
      }
      let descriptor = this.#space.read(where);
      if ((descriptor & 3n) !== 3n) {
        const next = this.#space.take(1n << BigInt(this.shape.log2Granule));
        descriptor = this.#address(next) | tableAttributes | 3n;
        this.#space.write(where, descriptor);
        this.descriptors.push(where);
      }
      table = this.#follow(descriptor);
    }
  }
}
