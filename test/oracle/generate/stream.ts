import {
  type CdFields,
  PageTable,
  type Shape,
  type SteFields,
  type TableSpace,
  buildCd,
  buildSte,
} from '../../support/tables.ts';
import { CD_ATTRIBUTES, STE_ATTRIBUTES, attributesOf } from './attributes.ts';
import type { CaseBuilder } from './case-builder.ts';
import { IpaSpace } from './ipa-space.ts';
import { leafBits1, leafBits2 } from './leaf-bits.ts';
import { type Path, isFree, pathOf } from './path.ts';

const SIZES = [32, 36, 40, 42, 44, 44, 44, 44];
const TG0: Record<number, number> = { 12: 0, 14: 2, 16: 1 };
const TG1: Record<number, number> = { 12: 2, 14: 1, 16: 3 };
const FULL = 0xffff_ffff_ffff_ffffn;

/** One page that an access reaches. */
export interface Mapping {
  /** Of the page of 4 KiB. */
  readonly iova: bigint;
  readonly paths: readonly Path[];
  /** Offset of the page in the block of RAM that the last leaf leads to. */
  readonly offset: bigint;
}

export interface StreamOptions {
  config?: number;
  /** Which endpoints it has: one that reads and one that writes. */
  sids: readonly [reader: number, writer: number];
  vmid?: number;
  asid?: number;
  /** Second stage in pages that do not follow one another. */
  scattered?: boolean;
  /** Both halves of stage 1; QEMU then looks at both tables with the CD. */
  bothHalves?: boolean;
  concatenated?: boolean;
}

/** A stream whose fields are right; what is to be wrong is made so afterwards. */
export class Stream {
  readonly sids: readonly [reader: number, writer: number];
  readonly ste: SteFields;
  readonly cd: CdFields = {};
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly config: number;
  vmid: number;
  asid: number;
  cdAt = 0n;
  /** Second-stage leaf of the CD. */
  cdPath: Path | undefined;
  /** What S1ContextPtr holds. */
  cdIpa = 0n;
  upper = false;
  table1: PageTable | undefined;
  table2: PageTable | undefined;
  readonly mappings: Mapping[] = [];
  /** Second-stage leaves of what stage 1 itself reads: the CD and the tables. */
  readonly tablePaths: Path[] = [];
  readonly builder: CaseBuilder;
  readonly #options: StreamOptions;
  readonly #ipas = new IpaSpace(this);
  /** Where tables of stage 1 live. */
  readonly #space1: TableSpace;

  constructor(builder: CaseBuilder, options: StreamOptions) {
    this.builder = builder;
    this.#options = options;
    this.sids = options.sids;
    const { random } = builder;
    const config = options.config ?? random.pick([4, 5, 5, 6, 7, 7]);
    this.stage1 = (config & 5) === 5;
    this.stage2 = (config & 6) === 6;
    this.vmid = options.vmid ?? random.below(0x1_0000);
    this.asid = options.asid ?? random.below(0x1_0000);
    this.config = config;
    this.ste = { Config: config };
    if (this.stage1 || this.stage2) this.ste.S2VMID = this.vmid;
    if (random.chance(0.7)) Object.assign(this.ste, attributesOf(random, STE_ATTRIBUTES));
    this.#space1 = this.stage2 ? this.#ipas : builder.space;
    if (this.stage2) this.#makeStage2();
    if (this.stage1) this.#makeStage1();
  }

  get sid(): number {
    return this.sids[0];
  }

  /** Writes STE and CD as their fields are now. */
  writeStructures(): void {
    for (const sid of this.sids) this.writeSte(sid);
    this.writeCd();
  }

  writeSte(sid: number): void {
    this.builder.write(this.builder.streamTable.ste(sid), ...buildSte(this.ste));
  }

  writeCd(): void {
    if (this.cdAt !== 0n) this.builder.write(this.cdAt, ...buildCd(this.cd));
  }

  /** Bits that an output of stage 1 may have. */
  get outputBits1(): number {
    return SIZES[Number(this.cd.IPS ?? 4)];
  }

  get outputBits2(): number {
    return SIZES[Number(this.ste.S2PS ?? 4)];
  }

  #makeStage2(): void {
    const { random } = this.builder;
    const shape = this.#stage2Shape();
    this.table2 = new PageTable(this.builder.space, shape);
    const start = this.table2.startLevel;
    const least = [0, 1, 2, 3, 4].filter((ps) => SIZES[ps] >= shape.inputBits);
    Object.assign(this.ste, {
      S2T0SZ: 64 - shape.inputBits,
      S2SL0: shape.log2Granule === 12 ? 2 - start : 3 - start,
      S2TG: TG0[shape.log2Granule],
      S2PS: random.chance(0.95) ? random.pick([...least, 4, 5, 6]) : random.below(2),
      S2AA64: 1,
      S2AFFD: random.chance(0.2) ? 1 : 0,
      S2R: random.chance(0.9) ? 1 : 0,
      S2PTW: random.chance(0.2) ? 1 : 0,
      S2TTB: this.table2.base,
    } satisfies SteFields);
  }

  #stage2Shape(): Shape {
    const { random } = this.builder;
    for (;;) {
      const log2Granule = random.pick([12, 12, 14, 16] as const);
      const inputBits = random.pick([25 + random.below(20), 32 + random.below(13), 40, 44]);
      const stride = log2Granule - 3;
      const startLevel = random.below(4);
      const bits = inputBits - (log2Granule + (3 - startLevel) * stride);
      const most = this.#options.concatenated ? stride + 4 : stride;
      if (bits < 1 || bits > most || (startLevel === 0 && log2Granule !== 12)) continue;
      // Level 3 as the first needs STT.
      if (startLevel === 3 && log2Granule === 12) continue;
      return { log2Granule, inputBits, startLevel };
    }
  }

  /** Second stage in pages that do not follow one another. */
  get scattered(): boolean {
    return this.#options.scattered === true;
  }

  /** Bits of an IPA that both stages can do with. */
  get ipaBits(): number {
    const fromStage1 = this.stage1 ? this.outputBits1 : 44;
    return Math.min(this.table2!.shape.inputBits, fromStage1);
  }

  mapStage2(ipa: bigint, pa: bigint, attributes: bigint, level: number): Path {
    const table = this.table2!;
    table.map(ipa, pa, attributes, level);
    return pathOf(table, this.builder.space, ipa, level, 2, (at) => at);
  }

  #makeStage1(): void {
    const { random } = this.builder;
    const { cd } = this;
    cd.IPS = random.chance(0.9) ? random.pick([2, 3, 4, 5]) : 1;
    this.upper = random.chance(0.4);
    const shape: Shape = {
      log2Granule: random.pick([12, 12, 14, 16] as const),
      inputBits: 25 + random.below(24),
    };
    this.table1 = new PageTable(this.#space1, shape);
    Object.assign(cd, {
      ASID: this.asid,
      AFFD: random.chance(0.2) ? 1 : 0,
      WXN: random.chance(0.2) ? 1 : 0,
      TBI0: random.chance(0.2) ? 1 : 0,
      TBI1: 0,
      HAD0: random.chance(0.2) ? 1 : 0,
      HAD1: random.chance(0.2) ? 1 : 0,
      R: random.chance(0.9) ? 1 : 0,
      ASET: random.below(2),
      EPD0: 1,
      EPD1: 1,
    } satisfies CdFields);
    // QEMU takes TBI0 for both halves.
    cd.TBI1 = random.chance(0.8) ? cd.TBI0! : random.below(2);
    if (random.chance(0.7)) {
      Object.assign(cd, attributesOf(random, CD_ATTRIBUTES));
      cd.MAIR = random.big(64);
    }
    this.#setHalf(this.upper, this.table1);
    if (this.#options.bothHalves !== true) this.#ignoreHalf(!this.upper);
    else {
      const other: Shape = {
        log2Granule: random.pick([12, 14, 16] as const),
        inputBits: 25 + random.below(24),
      };
      this.#setHalf(!this.upper, new PageTable(this.#space1, other));
    }
    this.cdIpa = this.#space1.take(64n);
    this.cdPath = this.tablePaths.at(-1);
    this.ste.S1ContextPtr = this.cdIpa;
    this.cdAt = this.#physical(this.cdIpa);
  }

  /** 5.4 EPD0, EPD1: what is said about a half that is not walked means nothing. */
  #ignoreHalf(upper: boolean): void {
    const { random } = this.builder;
    if (random.chance(0.3)) return;
    const [size, tg, had] = [random.below(64), random.below(4), random.below(2)];
    const table = random.big(52);
    if (upper) Object.assign(this.cd, { T1SZ: size, TG1: tg, HAD1: had, TTB1: table });
    else Object.assign(this.cd, { T0SZ: size, TG0: tg, HAD0: had, TTB0: table });
  }

  #setHalf(upper: boolean, table: PageTable): void {
    const { log2Granule, inputBits } = table.shape;
    const size = 64 - inputBits;
    if (upper) Object.assign(this.cd, { T1SZ: size, TG1: TG1[log2Granule], TTB1: table.base, EPD1: 0 });
    else Object.assign(this.cd, { T0SZ: size, TG0: TG0[log2Granule], TTB0: table.base, EPD0: 0 });
  }

  /** An address of stage 1 as a device sends it. */
  va(offset: bigint): bigint {
    const { inputBits } = this.table1!.shape;
    return this.upper ? offset | (FULL & (FULL << BigInt(inputBits))) : offset;
  }

  /** A level at which a leaf may be, mostly the last. */
  #leafLevel({ log2Granule }: Shape, start: number): number {
    if (this.builder.random.chance(0.5)) return 3;
    return Math.max(start, log2Granule === 12 ? 1 : 2, 1 + this.builder.random.below(3));
  }

  /** An input of a table whose slot at `level` is free, near one that is in use or anywhere. */
  #freeInput(table: PageTable, level: number, space: TableSpace, bits: number): bigint | undefined {
    const { random } = this.builder;
    for (let i = 0; i < 50; i++) {
      let input = random.big(Math.min(table.shape.inputBits, bits));
      if (random.chance(0.2)) input = random.chance(0.5) ? 0n : (1n << BigInt(table.shape.inputBits)) - 1n;
      if (isFree(table, space, input, level)) return input;
    }
    return undefined;
  }

  /**
   * Maps a page of 4 KiB through all stages, with leaves of any size.
   * @returns the mapping, or undefined if there was no room
   */
  map(): Mapping | undefined {
    const { builder } = this;
    const paths: Path[] = [];
    let iova: bigint;
    let offset: bigint;
    if (!this.stage2) {
      const { table1 } = this;
      if (table1 === undefined) {
        ({ page: iova } = builder.dataPage());
        const bypass = { iova, paths, offset: 0n };
        this.mappings.push(bypass);
        return bypass;
      }
      const level = this.#leafLevel(table1.shape, table1.startLevel);
      const size = 1n << BigInt(table1.log2Size(level));
      const input = this.#freeInput(table1, level, this.#space1, 64);
      if (input === undefined || size > 1n << BigInt(this.outputBits1)) return undefined;
      const { block, page } = builder.dataPage(size);
      offset = page - block;
      paths.push(this.#mapStage1(input, block, level));
      iova = this.va((input & -size) | (page - block));
    } else {
      const table2 = this.table2!;
      const level = this.#leafLevel(table2.shape, table2.startLevel);
      const size = 1n << BigInt(table2.log2Size(level));
      const ipaBlock = this.#freeBlock(table2, level, size);
      if (ipaBlock === undefined) return undefined;
      const { block, page } = builder.dataPage(size);
      paths.push(this.mapStage2(ipaBlock, block, leafBits2(builder.random), level));
      offset = page - block;
      const ipa = ipaBlock | offset;
      iova = ipa;
      if (this.stage1) {
        const table1 = this.table1!;
        const level1 = this.#leafLevel(table1.shape, table1.startLevel);
        const size1 = 1n << BigInt(table1.log2Size(level1));
        const input = this.#freeInput(table1, level1, this.#space1, 64);
        if (input === undefined || size1 > 1n << BigInt(this.outputBits1)) return undefined;
        paths.unshift(this.#mapStage1(input, ipa & -size1, level1));
        iova = this.va((input & -size1) | (ipa & (size1 - 1n)));
      }
    }
    const mapping = { iova: iova & -0x1000n & FULL, paths, offset };
    this.mappings.push(mapping);
    return mapping;
  }

  #freeBlock(table: PageTable, level: number, size: bigint): bigint | undefined {
    for (let i = 0; i < 20; i++) {
      if (size > 1n << BigInt(this.ipaBits)) return undefined;
      const ipa = this.#ipas.free(size);
      if (isFree(table, this.builder.space, ipa, level)) return ipa;
    }
    return undefined;
  }

  #mapStage1(input: bigint, block: bigint, level: number): Path {
    const table = this.table1!;
    table.map(input, block, leafBits1(this.builder.random), level);
    return pathOf(table, this.#space1, input, level, 1, (at) => this.#physical(at));
  }

  /** PA of something that stage 1 reads. */
  #physical(at: bigint): bigint {
    return this.stage2 ? this.#ipas.physical(at) : at;
  }
}
