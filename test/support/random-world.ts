/** Random streams, tables and changes to them, for comparing the translator with the slow walker. */

import type { MemStatus } from '../../src/memory/memory.ts';
import { SparseRam } from '../../src/memory/sparse-ram.ts';
import type { IdRegisters } from '../../src/smmu/identification.ts';
import { QEMU_LIKE, identify } from '../../src/smmu/identification.ts';
import { KIND, OUTCOME, Transaction, Translation } from '../../src/smmu/transaction.ts';
import { Translator } from '../../src/smmu/translator.ts';
import type { SlowIds, SlowMachine, SlowRequest, SlowResult } from './slow-machine.ts';
import { Random } from './random.ts';
import { FEATURES, slowIds } from './random-features.ts';
import { slowTranslate } from './slow-walker.ts';
import {
  Allocator,
  type CdFields,
  LEAF,
  PageTable,
  S2_RW_PAGE,
  type Shape,
  type SteFields,
  type TableSpace,
  buildCd,
  buildSte,
  hiOf,
  loOf,
  writeDwords,
} from './tables.ts';

const TG0: Record<number, number> = { 12: 0, 14: 2, 16: 1 };
const TG1: Record<number, number> = { 12: 2, 14: 1, 16: 3 };
const RAM_LOW = 0x4000_0000n;
const RAM_HIGH = 0x1_4000_0000n;
/** Where there is no RAM. */
const NOWHERE = 0x2000_0000n;

const KINDS = {
  ordinary: KIND.Untranslated,
  'ats-request': KIND.AtsRequest,
  'ats-translated': KIND.AtsTranslated,
} as const;
const OUTCOMES = {
  [OUTCOME.Ok]: 'ok',
  [OUTCOME.Abort]: 'abort',
  [OUTCOME.RazWi]: 'razwi',
  // Never: nobody takes what stalls.
  [OUTCOME.Stalled]: 'abort',
  [OUTCOME.AtsUr]: 'ur',
  [OUTCOME.AtsCa]: 'ca',
} as const;

interface Descriptor {
  /** Physical address. */
  at: bigint;
  /** 0 for a table. */
  log2Size: number;
  input: bigint;
  level: number;
}

/** A leaf that was mapped: what a TLBI for it names. */
interface Mapping extends Descriptor {
  stage: 1 | 2;
  shape: Shape;
}

interface Focus {
  readonly stream: Stream;
  readonly mapping: Mapping;
}

class Stream {
  sid = 0n;
  steAt = 0n;
  cdAt = 0n;
  /** CD 0, if it is the same as the one of the stream's SubstreamID. */
  cdCopy = 0n;
  vmid = 0;
  asid = 0;
  ssid: bigint | undefined;
  stage1 = false;
  stage2 = false;
  global = false;
  ASET = 0;
  /** The regime is EL2, with or without E2H. */
  el2 = false;
  bigEndian = false;
  bigEndian2 = false;
  mappings: Mapping[] = [];
}

/** RAM that notes which descriptors were updated. */
class NotingRam extends SparseRam {
  readonly updated = new Set<bigint>();
  override compareExchange64(...args: Parameters<SparseRam['compareExchange64']>): MemStatus {
    const status = super.compareExchange64(...args);
    const [hi, lo, oldHi, oldLo] = args;
    if (status === 0 && this.hi === oldHi && this.lo === oldLo)
      this.updated.add((BigInt(hi) << 32n) | BigInt(lo >>> 0));
    return status;
  }
}

export class RandomWorld {
  readonly random: Random;
  readonly ids: IdRegisters;
  readonly memory = new NotingRam(Number(RAM_LOW), 0x1_8000_0000);
  readonly registers = new Uint32Array(64);
  readonly records: bigint[][] = [];
  readonly streams: Stream[] = [];
  translator: Translator;
  readonly #low = new Allocator(RAM_LOW, RAM_LOW + 0x1000_0000n);
  readonly #high = new Allocator(RAM_HIGH, RAM_HIGH + 0x1000_0000n);
  readonly #slow: SlowIds;
  #e2h = false;
  /** Of the streams that share a VMID, by ASET. */
  readonly #sharedAsets = new Map<number, 'globals' | 'no globals'>();
  /** What was used last, and then what was changed last: likely to be changed, and to be used again. */
  #used: Focus | undefined;
  #changed: Focus | undefined;
  /** An STE was changed at random: it may use another stream's CD now. */
  #mixed = false;
  readonly #transaction = new Transaction();
  readonly #result = new Translation();

  constructor(seed: number) {
    this.random = new Random(seed);
    // One world in four has ATS, and one has EL2.
    const sort = this.random.below(4);
    const sets = FEATURES.filter(({ ATS, HYP }) => (sort === 0 ? ATS : sort === 1 ? HYP : true));
    this.ids = identify(QEMU_LIKE, this.random.pick(sets));
    this.#slow = slowIds(this.ids);
    const { random } = this;
    this.registers[0x20 >>> 2] = 1 | (this.#slow.ats && random.chance(0.8) ? 1 << 4 : 0);
    this.#e2h = this.#slow.hyp && random.chance(0.6);
    this.registers[0x2c >>> 2] =
      (this.#e2h ? 1 : 0) | (random.chance(0.8) ? 2 : 0) | (random.chance(0.5) ? 8 : 0);
    const table = this.#streamTable();
    this.translator = this.freshTranslator();
    const count = 1 + this.random.below(4);
    for (let i = 0; i < count; i++) this.#addStream(table, i);
  }

  freshTranslator(): Translator {
    return new Translator(this.ids, this.registers, this.memory, (words) => {
      this.records.push([...new BigUint64Array(words.slice().buffer)]);
      return 0;
    });
  }

  /** A stream table of up to 256 StreamIDs. @returns where the STE of a StreamID is, if there is one */
  #streamTable(): (sid: bigint) => bigint | undefined {
    const { random, registers } = this;
    const twoLevel = random.chance(0.3);
    const log2 = twoLevel ? 8 : 4;
    const base = this.#low.take(twoLevel ? 64n : 64n << 4n);
    registers[0x80 >>> 2] = loOf(base);
    registers[0x84 >>> 2] = hiOf(base);
    if (!twoLevel) {
      registers[0x88 >>> 2] = log2;
      return (sid) => base + 64n * sid;
    }
    // 6.3.25: a SPLIT that is reserved acts as 6.
    registers[0x88 >>> 2] = log2 | (random.pick([6, 6, 7]) << 6) | (1 << 16);
    const arrays = Array.from({ length: 4 }, (_, i) => {
      const span = random.pick([7, 7, 4, 1, 0, 8, 13]);
      const stes = span > 7 ? 0 : (1 << span) >> 1;
      const at = this.#take(64n * 64n);
      this.write(base + 8n * BigInt(i), (random.chance(0.95) ? at : NOWHERE) | BigInt(span));
      return { at, stes };
    });
    return (sid) => {
      const { at, stes } = arrays[Number(sid >> 6n)];
      return Number(sid & 63n) < stes ? at + 64n * (sid & 63n) : undefined;
    };
  }

  #take(size: bigint): bigint {
    return (this.random.chance(0.5) ? this.#low : this.#high).take(size);
  }

  #space(bigEndian: boolean): TableSpace {
    return {
      take: (size) => this.#take(size),
      write: (at, value) => this.write(at, bigEndian ? swap(value) : value),
      read: (at) => {
        const value = this.read(at)!;
        return bigEndian ? swap(value) : value;
      },
    };
  }

  read(at: bigint): bigint | undefined {
    if (this.memory.load64(hiOf(at), loOf(at)) !== 0 || at >> 52n !== 0n) return undefined;
    return (BigInt(this.memory.hi) << 32n) | BigInt(this.memory.lo);
  }

  write(at: bigint, value: bigint): void {
    writeDwords(this.memory, at, [value]);
  }

  #addStream(steOf: (sid: bigint) => bigint | undefined, i: number): void {
    const { random } = this;
    const stream = new Stream();
    const ids = this.#slow;
    const twoLevel = this.registers[0x88 >>> 2] >>> 16 !== 0;
    const sids = [i, i + 4, i + 8, ...(twoLevel ? [64 + i, 130 + i, 200 + i] : [])].map(BigInt);
    stream.sid = random.pick(sids.filter((sid) => steOf(sid) !== undefined).concat(sids[0]));
    if (this.streams.some(({ sid }) => sid === stream.sid)) return;
    // Where the table has no room for it, the STE is somewhere else, and nobody finds it.
    stream.steAt = steOf(stream.sid) ?? this.#low.take(64n);
    // Plain EL2 is one address space, so there can be but one stream of it (5.4.1).
    const another = this.streams.some(({ el2 }) => el2);
    const globals = this.streams.some(({ el2, global }) => el2 && global);
    stream.el2 = ids.hyp && random.chance(0.5) && (this.#e2h ? !globals : !another);
    const config = stream.el2 ? 5 : random.pick([4, 5, 5, 6, 7, 7]);
    stream.stage1 = (config & 1) !== 0;
    stream.stage2 = (config & 2) !== 0;
    // Streams of one VMID share it only with stage 1 alone, and then use other ASIDs.
    // With global pages they must be apart in ASET too (3.17.1).
    const free = [0, 1].filter((aset) => !this.#sharedAsets.has(aset));
    const mates = [0, 1].filter((aset) => this.#sharedAsets.get(aset) === 'no globals');
    const shared = !stream.stage2 && !stream.el2 && free.length + mates.length > 0 && random.chance(0.5);
    stream.vmid = shared ? 7 : 20 + i;
    stream.asid = 40 + i;
    // Global pages of EL2 with E2H serve all ASIDs.
    stream.ASET = random.chance(0.2) ? 1 : 0;
    if (shared) stream.ASET = random.pick([...free, ...free, ...mates]);
    stream.global =
      (stream.el2 ? !another : !shared || free.includes(stream.ASET)) && random.chance(shared ? 0.5 : 0.3);
    if (shared) this.#sharedAsets.set(stream.ASET, stream.global ? 'globals' : 'no globals');
    const ste: SteFields = { Config: config, S2VMID: stream.vmid, STRW: stream.el2 ? 2 : 0 };
    if (ids.ats) ste.EATS = random.pick([0, 1, 1, 1, 2, 3]);
    if (ids.stallModel !== 1) ste.S2S = ids.stallModel === 2 || random.chance(0.3) ? 1 : 0;
    /** IPA of each RAM page that stage 1 uses. */
    let ipaOf = (pa: bigint): bigint => pa;
    let dataIpas: bigint[] = Array.from({ length: 6 }, () => random.big(random.pick([40, ids.oas])));
    if (stream.stage2) {
      const table = this.#stage2(stream, ste);
      // Low enough for every descriptor and IPS, and all of RAM fits above.
      const base = random.big(Math.min(table.shape.inputBits, 43)) >> 1n;
      ipaOf = (pa) => {
        const log2 = BigInt(table.shape.log2Granule);
        // Within what S2T0SZ allows, RAM pages lie somewhere else, in the order of their PAs.
        const ipa = (pa - RAM_LOW + ((base >> 24n) << 24n)) & ((1n << BigInt(table.shape.inputBits)) - 1n);
        const page = (ipa >> log2) << log2;
        // Few of these, or nothing would work any more.
        let attributes = random.chance(0.98) ? S2_RW_PAGE : this.#stage2Attributes();
        if (random.chance(0.06)) attributes = (attributes & ~0x3cn) | (random.big(4) << 2n);
        this.#mapStage2(stream, table, page, (pa >> log2) << log2, 3, attributes);
        return page | (pa & ((1n << log2) - 1n));
      };
      dataIpas = dataIpas.map(() => this.#randomStage2Leaf(stream, table));
    }
    if (stream.stage1) this.#stage1(stream, ste, ipaOf, dataIpas);
    if (random.chance(ids.stallModel === 0 ? 0.3 : 0.08)) ste.S1STALLD = 1;
    if (ids.permsOvr) {
      ste.PRIVCFG = random.below(4);
      ste.INSTCFG = random.below(4);
    }
    writeDwords(this.memory, stream.steAt, buildSte(ste));
    this.streams.push(stream);
    if (random.chance(0.08)) this.#mixed = true;
    if (this.#mixed) this.#flip(stream.steAt + BigInt(8 * random.pick([0, 1, 3])), stream.steAt + 8n);
  }

  #shape(stage2: boolean, DS = this.random.chance(0.6)): Shape {
    const { random } = this;
    const ids = this.#slow;
    const log2Granule = random.pick([12, 12, 14, 16] as const);
    const ds = ids.ds && log2Granule !== 16 && DS;
    const wide = log2Granule === 16 || ds;
    const most = stage2 ? Math.min(wide ? 52 : 48, ids.oas) : wide && ids.vax52 ? 52 : 48;
    const least = ids.stt ? (log2Granule === 16 ? 17 : 16) : 25;
    const highBits = log2Granule === 16 ? (ids.oas >= 52 ? 'lpa' : 'none') : ds ? 'ds' : 'none';
    return { log2Granule, inputBits: least + random.below(most - least + 1), highBits };
  }

  #stage2(stream: Stream, ste: SteFields): PageTable {
    const { random } = this;
    const ids = this.#slow;
    for (;;) {
      const shape = this.#shape(true);
      const stride = shape.log2Granule - 3;
      const level =
        random.below(shape.highBits === 'ds' && shape.log2Granule === 12 ? 5 : 4) -
        1 +
        (shape.highBits === 'ds' && shape.log2Granule === 12 ? 0 : 1);
      const bits = shape.inputBits - (shape.log2Granule + (3 - level) * stride);
      const sl = stage2Sl(shape, level, ids);
      if (sl === undefined || bits < 1 || bits > stride + 4 || shape.inputBits < 34) continue;
      stream.bigEndian2 = this.#endian();
      const table = new PageTable(this.#space(stream.bigEndian2), { ...shape, startLevel: level });
      const ha = ids.httu > 0 && random.chance(0.6);
      Object.assign(ste, {
        S2T0SZ: 64 - shape.inputBits,
        S2SL0: sl & 3,
        S2SL0_2: sl >> 2,
        S2TG: TG0[shape.log2Granule],
        S2PS: random.pick([4, 5, 6, 7, 7]),
        S2AA64: 1,
        S2ENDI: stream.bigEndian2 ? 1 : 0,
        S2AFFD: random.chance(0.2) ? 1 : 0,
        S2PTW: random.chance(0.3) ? 1 : 0,
        S2R: random.chance(0.9) ? 1 : 0,
        S2FWB: random.chance(0.5) ? 1 : 0,
        S2DS: shape.highBits === 'ds' ? 1 : 0,
        S2HA: ha ? 1 : 0,
        S2HD: ids.httu > 1 && ha && random.chance(0.6) ? 1 : 0,
        S2HAFT: ids.httu === 3 && ha && random.chance(0.5) ? 1 : 0,
        S2TTB: table.base,
      } satisfies SteFields);
      return table;
    }
  }

  #mapStage2(
    stream: Stream,
    table: PageTable,
    ipa: bigint,
    pa: bigint,
    level: number,
    attributes: bigint,
  ): void {
    const at = table.map(ipa, pa, attributes, level);
    stream.mappings.push({
      at,
      stage: 2,
      log2Size: table.log2Size(level),
      input: ipa,
      level,
      shape: table.shape,
    });
  }

  #randomStage2Leaf(stream: Stream, table: PageTable): bigint {
    const { random } = this;
    const ipa = random.big(table.shape.inputBits);
    const level = this.#leafLevel(table);
    try {
      this.#mapStage2(
        stream,
        table,
        ipa,
        random.big(random.pick([44, this.#slow.oas])),
        level,
        this.#stage2Attributes(),
      );
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
    return ipa;
  }

  #endian(): boolean {
    const { ttendian } = this.#slow;
    return ttendian === 3 || (ttendian === 0 && this.random.chance(0.3));
  }

  /** Mostly pages, now and then a block as large as there is, and larger. */
  #leafLevel({ startLevel }: PageTable): number {
    const { random } = this;
    if (random.chance(0.6)) return 3;
    if (random.chance(0.7)) return Math.max(2, startLevel);
    return Math.max(startLevel, random.below(3));
  }

  /** Bits of a leaf that nobody looks at: Contiguous is a hint, the others belong to software or to nobody. */
  #ignored(): bigint {
    const { random } = this;
    return random.chance(0.3) ? (1n << 52n) | (random.big(4) << 55n) : 0n;
  }

  #stage2Attributes(): bigint {
    const { random } = this;
    let bits = this.#ignored();
    bits |= random.chance(0.85) ? LEAF.AF : 0n;
    bits |= BigInt(random.chance(0.7) ? 15 : random.below(16)) << 2n;
    bits |= BigInt(random.chance(0.5) ? 3 : random.below(4)) << 6n;
    if (random.chance(0.3)) bits |= BigInt(random.below(4)) << 53n;
    if (random.chance(0.5)) bits |= LEAF.DBM;
    return bits;
  }

  #stage1Attributes(global: boolean): bigint {
    const { random } = this;
    let bits = this.#ignored();
    bits |= random.chance(0.85) ? LEAF.AF : 0n;
    if (!global || random.chance(0.5)) bits |= LEAF.nG;
    bits |= BigInt(random.chance(0.5) ? 1 : random.below(4)) << 6n;
    if (random.chance(0.3)) bits |= BigInt(random.below(4)) << 53n;
    if (random.chance(0.5)) bits |= LEAF.DBM;
    return bits;
  }

  #stage1(stream: Stream, ste: SteFields, ipaOf: (pa: bigint) => bigint, dataIpas: bigint[]): void {
    const { random } = this;
    const ids = this.#slow;
    stream.bigEndian = this.#endian();
    const pas = new Map<bigint, bigint>();
    const inner = this.#space(stream.bigEndian);
    /** Tables live at IPAs: each is contiguous there only as far as a page of stage 2 goes. */
    const physical = (ipa: bigint): bigint => {
      const pa = pas.get(ipa >> 4n);
      return pa === undefined ? ipa : pa + (ipa & 15n);
    };
    const space: TableSpace = {
      take: (size) => {
        const pa = inner.take(size);
        if (!stream.stage2) return pa;
        const base = ipaOf(pa);
        for (let offset = 0n; offset < size; offset += 16n) {
          const ipa = offset % 4096n === 0n ? ipaOf(pa + offset) : 0n;
          if (ipa !== 0n && ipa !== base + offset) throw new RangeError('not contiguous');
          pas.set((base + offset) >> 4n, pa + offset);
        }
        return base;
      },
      write: (at, value) => inner.write(physical(at), value),
      read: (at) => inner.read(physical(at)),
    };
    const ha = ids.httu > 0 && random.chance(0.6);
    const DS = random.chance(0.6);
    const half = (upper: boolean): PageTable => {
      const table = new PageTable(space, this.#shape(false, DS));
      for (const data of dataIpas) {
        const level = this.#leafLevel(table);
        const va = random.big(table.shape.inputBits);
        const tableBits = random.chance(0.3) ? random.big(5) << 59n : 0n;
        const at = table.map(va, data, this.#stage1Attributes(stream.global), level, tableBits);
        const high = (0xffff_ffff_ffff_ffffn << BigInt(table.shape.inputBits)) & 0xffff_ffff_ffff_ffffn;
        stream.mappings.push({
          at: physical(at),
          stage: 1,
          log2Size: table.log2Size(level),
          input: upper ? va | high : va,
          level,
          shape: table.shape,
        });
      }
      return table;
    };
    const plainEl2 = stream.el2 && !this.#e2h;
    const which = plainEl2 ? 0 : random.below(4);
    const lower = which < 3 ? half(false) : undefined;
    const upper = which > 1 ? half(true) : undefined;
    const cd: CdFields = {
      ENDI: stream.bigEndian ? 1 : 0,
      IPS: random.pick([4, 5, 6, 7, 7]),
      AFFD: random.chance(0.2) ? 1 : 0,
      WXN: random.chance(0.2) ? 1 : 0,
      PAN: random.chance(0.2) ? 1 : 0,
      EPAN: random.chance(0.3) ? 1 : 0,
      TBI0: random.chance(0.3) ? 1 : 0,
      TBI1: random.chance(0.3) ? 1 : 0,
      HAD0: random.chance(0.3) ? 1 : 0,
      HAD1: random.chance(0.3) ? 1 : 0,
      E0PD0: random.chance(0.1) ? 1 : 0,
      E0PD1: random.chance(0.1) ? 1 : 0,
      HA: ha ? 1 : 0,
      HD: ids.httu > 1 && ha && random.chance(0.6) ? 1 : 0,
      HAFT: ids.httu === 3 && ha && random.chance(0.5) ? 1 : 0,
      A: ids.termModel || random.chance(0.6) ? 1 : 0,
      S: ids.stallModel === 2 || (ids.stallModel === 0 && random.chance(0.3)) ? 1 : 0,
      ASET: stream.ASET,
      R: random.chance(0.9) ? 1 : 0,
      ASID: stream.asid,
      DS: DS ? 1 : 0,
      EPD0: lower === undefined ? 1 : 0,
      EPD1: upper === undefined ? 1 : 0,
    };
    if (lower !== undefined)
      Object.assign(cd, {
        T0SZ: 64 - lower.shape.inputBits,
        TG0: TG0[lower.shape.log2Granule],
        TTB0: lower.base,
      });
    if (upper !== undefined)
      Object.assign(cd, {
        T1SZ: 64 - upper.shape.inputBits,
        TG1: TG1[upper.shape.log2Granule],
        TTB1: upper.base,
      });
    let count = 1n;
    if (ids.ssidsize > 0 && random.chance(0.6)) {
      const log2 = 1 + random.below(ids.ssidsize);
      const fmt = ids.cd2l ? random.below(4) : random.pick([0, 3]);
      Object.assign(ste, { S1CDMax: log2, S1DSS: random.below(4), S1Fmt: fmt });
      stream.ssid = random.big(log2);
      count = 1n << BigInt(log2);
      if (fmt === 1 || fmt === 2) {
        const split = fmt === 1 ? 6n : 10n;
        const leaf = this.#tableIpa(stream, ipaOf, 64n << split);
        const entries = count >> split === 0n ? 1n : count >> split;
        const l1 = this.#tableIpa(stream, ipaOf, 8n * entries < 64n ? 64n : 8n * entries);
        this.write(l1.pa + 8n * (stream.ssid >> split), leaf.ipa | 1n);
        if (random.chance(0.3)) this.write(l1.pa, leaf.ipa | 1n);
        stream.cdAt = leaf.pa + 64n * (stream.ssid & ((1n << split) - 1n));
        Object.assign(ste, { S1ContextPtr: l1.ipa });
        writeDwords(this.memory, stream.cdAt, buildCd(cd));
        return;
      }
    }
    const cds = this.#tableIpa(stream, ipaOf, 64n * count);
    Object.assign(ste, { S1ContextPtr: cds.ipa });
    stream.cdAt = cds.pa + 64n * (stream.ssid ?? 0n);
    if (random.chance(0.3)) {
      stream.cdCopy = cds.pa;
      writeDwords(this.memory, cds.pa, buildCd(cd));
    }
    writeDwords(this.memory, stream.cdAt, buildCd(cd));
  }

  #tableIpa(stream: Stream, ipaOf: (pa: bigint) => bigint, size: bigint): { pa: bigint; ipa: bigint } {
    const pa = this.#take(size);
    if (!stream.stage2) return { pa, ipa: pa };
    for (let offset = 4096n; offset < size; offset += 4096n) ipaOf(pa + offset);
    return { pa, ipa: ipaOf(pa) };
  }

  /** A random bit of an STE's word; STRW, in word 1, stays: who is in EL2 must agree with all others there (5.4.1). */
  #bit(isWord1: boolean): number {
    for (;;) {
      const bit = this.random.below(64);
      if (!isWord1 || (bit !== 30 && bit !== 31)) return bit;
    }
  }

  #flip(at: bigint, word1: bigint): void {
    const value = this.read(at);
    if (value !== undefined) this.write(at, value ^ (1n << BigInt(this.#bit(at === word1))));
  }

  /** A transaction that is likely to meet something. */
  request(): SlowRequest {
    const { random } = this;
    const focus = random.chance(0.7) ? this.#changed : undefined;
    const stream = focus?.stream ?? random.pick(this.streams);
    let address: bigint;
    const kind =
      this.#slow.ats || random.chance(0.02)
        ? random.pick(['ordinary', 'ats-request', 'ats-request', 'ats-translated'] as const)
        : 'ordinary';
    const wanted = stream.stage1 && kind !== 'ats-translated' ? 1 : 2;
    // Now and then an address of another stream: what that left in caches must not serve this one.
    const whose = random.chance(0.12) ? random.pick(this.streams) : stream;
    const inputs = whose.mappings.filter(({ stage }) => stage === wanted);
    if (inputs.length > 0 && random.chance(0.92)) {
      const again = focus !== undefined && inputs.includes(focus.mapping);
      const mapping = again ? focus.mapping : random.pick(inputs);
      this.#used = { stream: whose, mapping };
      const { input, log2Size } = mapping;
      const inside = (1n << BigInt(log2Size)) - 1n;
      address = (input & ~inside) | (random.big(64) & inside);
      if (random.chance(0.1)) address ^= 1n << BigInt(random.below(64));
      if (random.chance(0.1)) address = (address & 0xff_ffff_ffff_ffffn) | (random.big(8) << 56n);
    } else address = random.big(random.pick([32, 48, 64]));
    const ssv = random.chance(stream.ssid === undefined ? 0.03 : 0.7);
    return {
      kind,
      noWrite: kind === 'ats-request' && random.chance(0.4),
      sid: random.chance(0.97) ? stream.sid : random.big(random.pick([6, 9])),
      ssv,
      ssid: ssv ? (stream.ssid !== undefined && random.chance(0.9) ? stream.ssid : random.big(5)) : 0n,
      address,
      write: kind !== 'ats-request' && random.chance(0.4),
      privileged: random.chance(0.3),
      instruction: random.chance(0.2),
    };
  }

  /** What the slow walker makes of it, and what it would write. Memory is not changed. */
  slow(request: SlowRequest): { result: SlowResult; writes: Map<bigint, bigint> } {
    const writes = new Map<bigint, bigint>();
    const cfg = this.registers[0x88 >>> 2];
    const cr2 = this.registers[0x2c >>> 2];
    const machine: SlowMachine = {
      ids: this.#slow,
      strtabBase: (BigInt(this.registers[0x84 >>> 2]) << 32n) | BigInt(this.registers[0x80 >>> 2]),
      log2size: BigInt(cfg & 63),
      split: cfg >>> 16 === 0 ? undefined : 6n,
      e2h: this.#e2h,
      recinvsid: (cr2 & 2) !== 0,
      recCfgAts: (cr2 & 8) !== 0 && ((this.ids.IDR0 >>> 23) & 1) === 1,
      atschk: (this.registers[0x20 >>> 2] & (1 << 4)) !== 0,
      read: (at) => writes.get(at) ?? this.read(at),
      write: (at, value) => void writes.set(at, value),
    };
    return { result: slowTranslate(machine, request), writes };
  }

  /** What the translator makes of it. */
  fast(request: SlowRequest, translator = this.translator): SlowResult {
    const t = this.#transaction;
    t.sid = Number(request.sid);
    t.ssv = request.ssv;
    t.ssid = Number(request.ssid);
    t.addrHi = hiOf(request.address);
    t.addrLo = loOf(request.address);
    t.write = request.write;
    t.privileged = request.privileged;
    t.instruction = request.instruction;
    t.kind = KINDS[request.kind];
    t.noWrite = request.noWrite;
    this.records.length = 0;
    this.memory.updated.clear();
    const outcome = OUTCOMES[translator.translate(t, this.#result)];
    const events = [...this.records];
    const { paHi, paLo, readable, writable, executable, log2Size } = this.#result;
    let pa = outcome === 'ok' ? (BigInt(paHi) << 32n) | BigInt(paLo) : 0n;
    if (request.kind !== 'ats-request' || outcome !== 'ok') return { outcome, pa, events };
    const rights = `${readable ? 'r' : '-'}${writable ? 'w' : '-'}${executable ? 'x' : '-'}`;
    // An answer that grants nothing has no address.
    if (rights === '---') pa = 0n;
    return { outcome, pa, grant: `${rights} ${log2Size}`, events };
  }

  #command(w0: bigint, w1: bigint): void {
    this.translator.invalidate(Uint32Array.of(loOf(w0), hiOf(w0), loOf(w1), hiOf(w1)), 0);
  }

  /** Changes something in memory and carries out invalidations that are enough for it, and sometimes more. */
  change(): void {
    const { random } = this;
    const focus = random.chance(0.6) ? this.#used : undefined;
    const stream = focus?.stream ?? random.pick(this.streams);
    if (random.chance(0.15)) this.#over(stream);
    if (random.chance(0.15)) return this.#changeConfiguration(stream);
    if (stream.mappings.length === 0) return;
    const mapping = focus?.mapping ?? random.pick(stream.mappings);
    this.#changed = { stream, mapping };
    const big = mapping.stage === 1 ? stream.bigEndian : stream.bigEndian2;
    const raw = this.read(mapping.at)!;
    let value = big ? swap(raw) : raw;
    const kind = random.below(4);
    if (kind === 0) value ^= 1n;
    else if (kind === 1) value ^= 1n << BigInt(random.pick([6, 7, 10, 51, 52, 53, 54]));
    else if (kind === 2) value = (value & ~(0xffffn << 24n)) | (random.big(16) << 24n);
    else value |= LEAF.AF | 1n;
    this.write(mapping.at, big ? swap(value) : value);
    // A later mapping may have put a table where this leaf was: all that lies below it changes.
    if (mapping.level < 3 && (value & 2n) !== 0n) {
      this.#any(
        () => this.#command(0x28n | (BigInt(stream.vmid) << 32n), 0n),
        () => this.#command(0x30n, 0n),
      );
      if (stream.el2) this.#command(0x20n, 0n);
      if (stream.stage1 && mapping.stage === 2) this.#command(0x06n | (stream.sid << 32n), 0n);
    } else if (mapping.stage === 1) this.#invalidateStage1(stream, mapping);
    else this.#invalidateStage2(stream, mapping);
  }

  #changeConfiguration(stream: Stream): void {
    const { random } = this;
    const sid = stream.sid << 32n;
    const cd = stream.stage1 && random.chance(0.5);
    // R of either stage is not kept in a TLB: CFGI alone must do.
    const quiet = random.chance(0.5);
    const at = cd ? stream.cdAt : stream.steAt + (quiet ? 16n : 8n * BigInt(random.below(4)));
    const value = this.read(at)!;
    let bit = quiet ? (cd ? 45 : 58) : this.#bit(at === stream.steAt + 8n);
    // VMIDs and ASIDs stay apart: streams that share them must agree about everything else (5.2.1).
    if (cd && bit >= 47) bit -= 16;
    if (at === stream.steAt + 16n && bit < 16) bit += 16;
    this.write(at, value ^ (1n << BigInt(bit)));
    if (cd)
      this.#any(
        () => this.#command(0x05n | ((stream.ssid ?? 0n) << 12n) | sid, 1n),
        () => this.#command(0x05n | ((stream.ssid ?? 0n) << 12n) | sid, 0n),
        () => this.#command(0x06n | sid, 0n),
      );
    else
      this.#any(
        () => this.#command(0x03n | sid, 1n),
        () => this.#command(0x04n | sid, BigInt(random.below(4))),
        () => this.#command(0x04n | sid, 31n),
      );
    // A copy for other SubstreamIDs has the same ASID, so it stays the same (5.4.1).
    if (cd && stream.cdCopy !== 0n && stream.cdCopy !== stream.cdAt) {
      this.write(stream.cdCopy, this.read(stream.cdAt)!);
      this.#command(0x06n | sid, 0n);
    }
    if (!cd && !quiet) this.#mixed = true;
    if (cd && this.#mixed) this.#command(0x04n, 31n);
    // A bad bit may do anything: all translations go.
    if (!quiet) {
      this.#command(0x30n, 0n);
      this.#command(0x20n, 0n);
    }
  }

  #any(...choices: (() => void)[]): void {
    this.random.pick(choices)();
  }

  /** A range that covers the leaf, in pages of its granule: exactly, or from before it. */
  #range(input: bigint, { log2Size, level, shape }: Mapping): { w0: bigint; w1: bigint } {
    const { random } = this;
    const log2 = log2Size - shape.log2Granule;
    const tg = BigInt((shape.log2Granule - 10) / 2);
    // 4.4.1.1: level 1 of 16 KB needs DS, and level 0 has no hint.
    const noHint = level < 1 || (tg === 2n && level === 1 && !this.#slow.ds);
    const ttl = !noHint && random.chance(0.5) ? BigInt(level) : 0n;
    const leaf = (input >> BigInt(log2Size)) << BigInt(log2Size);
    const before = random.chance(0.5) ? 0 : random.below(40);
    const start = leaf - (BigInt(before) << BigInt(log2Size));
    const wrapped = start < 0n || start >> 55n !== leaf >> 55n;
    const from = wrapped ? leaf : start;
    // NUM+1 a power of two or not.
    const pages = (wrapped ? 1 : before + 1) * 2 ** log2;
    let scale = Math.max(log2 - random.below(5), 0);
    while (Math.ceil(pages / 2 ** scale) > 32) scale += 1;
    const num = Math.ceil(pages / 2 ** scale) - 1;
    // 4.4.1.1: one page without a level is not a range.
    if (num === 0 && scale === 0 && ttl === 0n) return { w0: 0n, w1: input };
    return { w0: (BigInt(num) << 12n) | (BigInt(scale) << 20n), w1: from | (tg << 10n) | (ttl << 8n) };
  }

  #invalidateStage1(stream: Stream, mapping: Mapping): void {
    const vmid = BigInt(stream.vmid) << 32n;
    const asid = BigInt(stream.asid) << 48n;
    const inside = (1n << BigInt(mapping.log2Size)) - 1n;
    const page = -4096n & 0xffff_ffff_ffff_ffffn;
    const address = ((mapping.input & ~inside) | (this.random.big(64) & inside)) & page;
    const range = this.#range(mapping.input & page, mapping);
    if (stream.el2) {
      const el2 = [
        () => this.#command(0x22n | asid, address | 1n),
        () => this.#command(0x22n | asid | range.w0, range.w1),
        () => this.#command(0x23n, address),
        () => this.#command(0x20n, 0n),
      ];
      if (!stream.global && this.#e2h) el2.push(() => this.#command(0x21n | asid, 0n));
      return this.#any(...el2);
    }
    const choices = [
      () => this.#command(0x12n | vmid | asid, address | 1n),
      () => this.#command(0x12n | vmid | asid | range.w0, range.w1 | BigInt(this.random.below(2))),
      () => this.#command(0x13n | vmid, address),
      () => this.#command(0x13n | vmid | range.w0, range.w1),
      () => this.#command(0x10n | vmid, 0n),
      () => this.#command(0x28n | vmid, 0n),
      () => this.#command(0x30n, 0n),
    ];
    if (!stream.global) choices.push(() => this.#command(0x11n | vmid | asid, 0n));
    this.#any(...choices);
  }

  #invalidateStage2(stream: Stream, mapping: Mapping): void {
    const vmid = BigInt(stream.vmid) << 32n;
    const inside = (1n << BigInt(mapping.log2Size)) - 1n;
    const address = ((mapping.input & ~inside) | (this.random.big(64) & inside)) & 0xff_ffff_ffff_f000n;
    const range = this.#range(mapping.input & 0xff_ffff_ffff_f000n, mapping);
    this.#any(
      () => {
        this.#command(0x2an | vmid, address | 1n);
        if (stream.stage1) this.#command(0x10n | vmid, 0n);
      },
      () => {
        this.#command(0x2an | vmid | range.w0, range.w1);
        if (stream.stage1) this.#command(0x10n | vmid, 0n);
      },
      () => this.#command(0x28n | vmid, 0n),
      () => this.#command(0x30n, 0n),
    );
    // What stage 2 maps may be the CD, and that is in the configuration cache.
    if (stream.stage1) this.#command(0x06n | (stream.sid << 32n), 0n);
  }

  /** An invalidation of something that did not change. */
  #over(stream: Stream): void {
    const vmid = BigInt(this.random.chance(0.5) ? stream.vmid : 99) << 32n;
    const opcode = this.random.pick([
      0x10n,
      0x11n,
      0x12n,
      0x13n,
      0x20n,
      0x21n,
      0x22n,
      0x23n,
      0x28n,
      0x2an,
      0x30n,
    ]);
    this.#command(opcode | vmid | (this.random.big(6) << 48n), this.random.big(48) & ~0xfffn);
  }
}

function stage2Sl(shape: Shape, level: number, ids: SlowIds): number | undefined {
  if (shape.log2Granule === 12) {
    if (level === -1) return shape.highBits === 'ds' ? 4 : undefined;
    if (level === 3) return ids.stt ? 3 : undefined;
    if (level === 0 && ids.oas < 44) return undefined;
    return 2 - level;
  }
  if (level === 0) return shape.log2Granule === 14 && shape.highBits === 'ds' ? 3 : undefined;
  if (level === 1 && ids.oas < (shape.log2Granule === 14 ? 42 : 44)) return undefined;
  return level > 0 ? 3 - level : undefined;
}

function swap(value: bigint): bigint {
  let out = 0n;
  for (let i = 0n; i < 8n; i++) out |= ((value >> (8n * i)) & 0xffn) << (56n - 8n * i);
  return out;
}
