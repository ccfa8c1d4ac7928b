/** Random streams, tables and changes to them, for comparing the translator with the slow walker. */

import { SparseRam } from '../../src/memory/sparse-ram.ts';
import type { IdRegisters } from '../../src/smmu/identification.ts';
import { QEMU_LIKE, identify, type IdFields } from '../../src/smmu/identification.ts';
import { OUTCOME, Transaction, Translation } from '../../src/smmu/transaction.ts';
import { Translator } from '../../src/smmu/translator.ts';
import {
  type SlowIds,
  type SlowMachine,
  type SlowRequest,
  type SlowResult,
  slowTranslate,
} from './slow-walker.ts';
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

/** Small, seeded and good enough. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b_79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  below(n: number): number {
    return Math.floor(this.next() * n);
  }
  chance(p: number): boolean {
    return this.next() < p;
  }
  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)];
  }
  big(bits: number): bigint {
    let value = 0n;
    for (let i = 0; i < bits; i += 16) value = (value << 16n) | BigInt(this.below(0x1_0000));
    return value & ((1n << BigInt(bits)) - 1n);
  }
}

const WITH_DS: IdFields = { OAS: 6, DS: 1, VAX: 1, STT: 1 };
/** Sets of features that differ in what they let tables do. */
const FEATURES: readonly IdFields[] = [
  {},
  { HTTU: 2 },
  { HTTU: 3, E0PD: 1, EPAN: 1 },
  { TERM_MODEL: 0, STT: 1, FWB: 1, TTENDIAN: 0 },
  { SSIDSIZE: 12, CD2L: 1, HTTU: 1, XNX: 0, HAD: 0, ArchMinorRev: 0 },
  { SSIDSIZE: 4, CD2L: 0, ATTR_PERMS_OVR: 1, E0PD: 1 },
  WITH_DS,
  { ...WITH_DS, HTTU: 3, ATTR_PERMS_OVR: 1 },
  { OAS: 3 },
];

function slowIds(ids: IdRegisters): SlowIds {
  const bit = (value: number, at: number): boolean => ((value >>> at) & 1) !== 0;
  return {
    oas: [32, 36, 40, 42, 44, 48, 52, 52][ids.IDR5 & 7],
    httu: (ids.IDR0 >>> 6) & 3,
    ssidsize: (ids.IDR1 >>> 6) & 31,
    cd2l: bit(ids.IDR0, 19),
    xnx: bit(ids.IDR3, 4),
    fwb: bit(ids.IDR3, 8),
    stt: bit(ids.IDR3, 9),
    e0pd: bit(ids.IDR3, 13),
    epan: bit(ids.IDR3, 17),
    had: bit(ids.IDR3, 2),
    ds: bit(ids.IDR5, 7),
    vax52: ((ids.IDR5 >>> 10) & 3) !== 0,
    permsOvr: bit(ids.IDR1, 26),
    termModel: bit(ids.IDR0, 26),
    ttendian: (ids.IDR0 >>> 21) & 3,
  };
}

const TG0: Record<number, number> = { 12: 0, 14: 2, 16: 1 };
const TG1: Record<number, number> = { 12: 2, 14: 1, 16: 3 };
const RAM_LOW = 0x4000_0000n;
const RAM_HIGH = 0x1_4000_0000n;

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
  shape1: Shape = { log2Granule: 12, inputBits: 39 };
  upper = false;
  bigEndian = false;
  bigEndian2 = false;
  shape2: Shape = { log2Granule: 12, inputBits: 39 };
  mappings: Mapping[] = [];
}

export class RandomWorld {
  readonly random: Random;
  readonly ids: IdRegisters;
  readonly memory = new SparseRam(Number(RAM_LOW), 0x1_8000_0000);
  readonly registers = new Uint32Array(64);
  readonly records: bigint[][] = [];
  readonly streams: Stream[] = [];
  translator: Translator;
  readonly #low = new Allocator(RAM_LOW, RAM_LOW + 0x1000_0000n);
  readonly #high = new Allocator(RAM_HIGH, RAM_HIGH + 0x1000_0000n);
  readonly #slow: SlowIds;
  /** An STE was changed at random: it may use another stream's CD now. */
  #mixed = false;
  readonly #transaction = new Transaction();
  readonly #result = new Translation();

  constructor(seed: number) {
    this.random = new Random(seed);
    this.ids = identify(QEMU_LIKE, this.random.pick(FEATURES));
    this.#slow = slowIds(this.ids);
    this.registers[0x20 >>> 2] = 1;
    this.registers[0x2c >>> 2] = this.random.chance(0.8) ? 2 : 0;
    const strtab = this.#low.take(64n << 4n);
    this.registers[0x80 >>> 2] = loOf(strtab);
    this.registers[0x84 >>> 2] = hiOf(strtab);
    this.registers[0x88 >>> 2] = 4;
    this.translator = this.freshTranslator();
    const count = 1 + this.random.below(4);
    for (let i = 0; i < count; i++) this.#addStream(strtab, i);
  }

  freshTranslator(): Translator {
    return new Translator(this.ids, this.registers, this.memory, (words) => {
      this.records.push([...new BigUint64Array(words.slice().buffer)]);
      return 0;
    });
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

  #addStream(strtab: bigint, i: number): void {
    const { random } = this;
    const stream = new Stream();
    const ids = this.#slow;
    stream.sid = BigInt(random.pick([i, i + 4, i + 8]));
    if (this.streams.some(({ sid }) => sid === stream.sid)) return;
    stream.steAt = strtab + 64n * stream.sid;
    const config = random.pick([4, 5, 5, 6, 7, 7]);
    stream.stage1 = (config & 1) !== 0;
    stream.stage2 = (config & 2) !== 0;
    // Streams of one VMID share it only with stage 1 alone, and then use other ASIDs and no global pages.
    const shared = !stream.stage2 && random.chance(0.5);
    stream.vmid = shared ? 7 : 20 + i;
    stream.asid = 40 + i;
    stream.global = !shared && random.chance(0.3);
    const ste: SteFields = { Config: config, S2VMID: stream.vmid };
    /** IPA of each RAM page that stage 1 uses. */
    let ipaOf = (pa: bigint): bigint => pa;
    let dataIpas: bigint[] = Array.from({ length: 6 }, () => random.big(Math.min(ids.oas, 40)));
    if (stream.stage2) {
      const table = this.#stage2(stream, ste);
      // Low enough for every descriptor and IPS, and all of RAM fits above.
      const base = random.big(Math.min(table.shape.inputBits, 43)) >> 1n;
      ipaOf = (pa) => {
        const log2 = BigInt(table.shape.log2Granule);
        // Within what S2T0SZ allows, RAM pages lie somewhere else, in the order of their PAs.
        const ipa = (pa - RAM_LOW + ((base >> 24n) << 24n)) & ((1n << BigInt(table.shape.inputBits)) - 1n);
        const page = (ipa >> log2) << log2;
        this.#mapStage2(stream, table, page, (pa >> log2) << log2, 3, S2_RW_PAGE);
        return page | (pa & ((1n << log2) - 1n));
      };
      dataIpas = dataIpas.map(() => this.#randomStage2Leaf(stream, table));
    }
    if (stream.stage1) this.#stage1(stream, ste, ipaOf, dataIpas);
    if (random.chance(0.08)) ste.S1STALLD = 1;
    if (ids.permsOvr) {
      ste.PRIVCFG = random.below(4);
      ste.INSTCFG = random.below(4);
    }
    writeDwords(this.memory, stream.steAt, buildSte(ste));
    this.streams.push(stream);
    if (random.chance(0.08)) this.#mixed = true;
    if (this.#mixed) this.#flip(stream.steAt + BigInt(8 * random.pick([0, 1, 3])));
  }

  #shape(stage2: boolean): Shape {
    const { random } = this;
    const ids = this.#slow;
    const log2Granule = random.pick([12, 12, 14, 16] as const);
    const ds = ids.ds && log2Granule !== 16 && random.chance(0.6);
    const wide = (log2Granule === 16 || ds) && ids.oas >= 52;
    const most = stage2 ? Math.min(wide ? 52 : 48, ids.oas) : wide ? 52 : 48;
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
      stream.shape2 = { ...shape, startLevel: level };
      stream.bigEndian2 = ids.ttendian === 0 && random.chance(0.3);
      const table = new PageTable(this.#space(stream.bigEndian2), stream.shape2);
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
    stream.mappings.push({ at, stage: 2, log2Size: table.log2Size(level), input: ipa, level });
  }

  #randomStage2Leaf(stream: Stream, table: PageTable): bigint {
    const { random } = this;
    const ipa = random.big(table.shape.inputBits);
    const level = random.chance(0.6) ? 3 : Math.max(2, table.startLevel);
    try {
      this.#mapStage2(
        stream,
        table,
        ipa,
        random.big(Math.min(this.#slow.oas, 48)),
        level,
        this.#stage2Attributes(),
      );
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
    return ipa;
  }

  #stage2Attributes(): bigint {
    const { random } = this;
    let bits = random.chance(0.85) ? LEAF.AF : 0n;
    bits |= BigInt(random.chance(0.7) ? 15 : random.below(16)) << 2n;
    bits |= BigInt(random.chance(0.7) ? 3 : random.below(4)) << 6n;
    if (random.chance(0.3)) bits |= BigInt(random.below(4)) << 53n;
    if (random.chance(0.3)) bits |= LEAF.DBM;
    return bits;
  }

  #stage1Attributes(global: boolean): bigint {
    const { random } = this;
    let bits = random.chance(0.85) ? LEAF.AF : 0n;
    if (!global || random.chance(0.5)) bits |= LEAF.nG;
    bits |= BigInt(random.chance(0.7) ? 1 : random.below(4)) << 6n;
    if (random.chance(0.3)) bits |= BigInt(random.below(4)) << 53n;
    if (random.chance(0.3)) bits |= LEAF.DBM;
    return bits;
  }

  #stage1(stream: Stream, ste: SteFields, ipaOf: (pa: bigint) => bigint, dataIpas: bigint[]): void {
    const { random } = this;
    const ids = this.#slow;
    stream.shape1 = this.#shape(false);
    stream.upper = random.chance(0.25);
    stream.bigEndian = ids.ttendian === 0 && random.chance(0.3);
    const { shape1: shape, upper } = stream;
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
    const table = new PageTable(space, shape);
    const ha = ids.httu > 0 && random.chance(0.6);
    for (const data of dataIpas) {
      const level = random.chance(0.7) ? 3 : Math.max(2, table.startLevel);
      const va = random.big(shape.inputBits);
      const tableBits = random.chance(0.2) ? random.big(5) << 59n : 0n;
      const at = table.map(va, data, this.#stage1Attributes(stream.global), level, tableBits);
      const where = physical(at);
      stream.mappings.push({
        at: where,
        stage: 1,
        log2Size: table.log2Size(level),
        input: this.#va(stream, va),
        level,
      });
    }
    const size = BigInt(64 - shape.inputBits);
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
      R: random.chance(0.9) ? 1 : 0,
      ASID: stream.asid,
      DS: shape.highBits === 'ds' ? 1 : 0,
      EPD0: upper ? 1 : 0,
      EPD1: upper ? 0 : 1,
    };
    if (upper) Object.assign(cd, { T1SZ: size, TG1: TG1[shape.log2Granule], TTB1: table.base });
    else Object.assign(cd, { T0SZ: size, TG0: TG0[shape.log2Granule], TTB0: table.base });
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

  #va(stream: Stream, va: bigint): bigint {
    return stream.upper
      ? va | ((0xffff_ffff_ffff_ffffn << BigInt(stream.shape1.inputBits)) & 0xffff_ffff_ffff_ffffn)
      : va;
  }

  #flip(at: bigint): void {
    const value = this.read(at);
    if (value !== undefined) this.write(at, value ^ (1n << BigInt(this.random.below(64))));
  }

  /** A transaction that is likely to meet something. */
  request(): SlowRequest {
    const { random } = this;
    const stream = random.pick(this.streams);
    let address: bigint;
    const inputs = stream.mappings.filter(({ stage }) => stage === (stream.stage1 ? 1 : 2));
    if (inputs.length > 0 && random.chance(0.92)) {
      const { input, log2Size } = random.pick(inputs);
      const inside = (1n << BigInt(log2Size)) - 1n;
      address = (input & ~inside) | (random.big(64) & inside);
      if (random.chance(0.1)) address ^= 1n << BigInt(random.below(64));
      if (random.chance(0.1)) address = (address & 0xff_ffff_ffff_ffffn) | (random.big(8) << 56n);
    } else address = random.big(random.pick([32, 48, 64]));
    const ssv = random.chance(stream.ssid === undefined ? 0.03 : 0.7);
    return {
      sid: random.chance(0.97) ? stream.sid : random.big(6),
      ssv,
      ssid: ssv ? (stream.ssid !== undefined && random.chance(0.9) ? stream.ssid : random.big(5)) : 0n,
      address,
      write: random.chance(0.4),
      privileged: random.chance(0.3),
      instruction: random.chance(0.2),
    };
  }

  /** What the slow walker makes of it, and what it would write. Memory is not changed. */
  slow(request: SlowRequest): { result: SlowResult; writes: Map<bigint, bigint> } {
    const writes = new Map<bigint, bigint>();
    const machine: SlowMachine = {
      ids: this.#slow,
      strtabBase: (BigInt(this.registers[0x84 >>> 2]) << 32n) | BigInt(this.registers[0x80 >>> 2]),
      log2size: BigInt(this.registers[0x88 >>> 2] & 63),
      recinvsid: (this.registers[0x2c >>> 2] & 2) !== 0,
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
    this.records.length = 0;
    const outcome = translator.translate(t, this.#result);
    const name = outcome === OUTCOME.Ok ? 'ok' : outcome === OUTCOME.RazWi ? 'razwi' : 'abort';
    const pa = name === 'ok' ? (BigInt(this.#result.paHi) << 32n) | BigInt(this.#result.paLo) : 0n;
    return { outcome: name, pa, events: [...this.records] };
  }

  #command(w0: bigint, w1: bigint): void {
    this.translator.invalidate(Uint32Array.of(loOf(w0), hiOf(w0), loOf(w1), hiOf(w1)), 0);
  }

  /** Changes something in memory and carries out invalidations that are enough for it, and sometimes more. */
  change(): void {
    const { random } = this;
    const stream = random.pick(this.streams);
    if (random.chance(0.15)) this.#over(stream);
    if (random.chance(0.15)) return this.#changeConfiguration(stream);
    if (stream.mappings.length === 0) return;
    const mapping = random.pick(stream.mappings);
    const big = mapping.stage === 1 ? stream.bigEndian : stream.bigEndian2;
    const raw = this.read(mapping.at)!;
    let value = big ? swap(raw) : raw;
    const kind = random.below(4);
    if (kind === 0) value ^= 1n;
    else if (kind === 1) value ^= 1n << BigInt(random.pick([6, 7, 10, 51, 53, 54]));
    else if (kind === 2) value = (value & ~(0xffffn << 24n)) | (random.big(16) << 24n);
    else value |= LEAF.AF | 1n;
    this.write(mapping.at, big ? swap(value) : value);
    // A later mapping may have put a table where this leaf was: all that lies below it changes.
    if (mapping.level < 3 && (value & 2n) !== 0n) {
      this.#any(
        () => this.#command(0x28n | (BigInt(stream.vmid) << 32n), 0n),
        () => this.#command(0x30n, 0n),
      );
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
    let bit = quiet ? (cd ? 45 : 58) : random.below(64);
    // VMIDs and ASIDs stay apart: streams that share them must agree about everything else (5.2.1).
    if (cd && bit >= 48) bit -= 16;
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
    if (!quiet) this.#command(0x30n, 0n);
  }

  #any(...choices: (() => void)[]): void {
    this.random.pick(choices)();
  }

  #range(input: bigint, mapping: Mapping, shape: Shape): { w0: bigint; w1: bigint } {
    // Exactly the leaf, in pages of its granule; NUM+1 a power of two or not.
    const log2 = mapping.log2Size - shape.log2Granule;
    const tg = BigInt((shape.log2Granule - 10) / 2);
    const ttl =
      this.random.chance(0.5) && mapping.level > 0 && !(tg === 2n && mapping.level === 1)
        ? BigInt(mapping.level)
        : 0n;
    const scale = Math.max(log2 - this.random.below(5), 0);
    const num = (1 << (log2 - scale)) - 1;
    // 4.4.1.1: one page without a level is not a range.
    if (num === 0 && scale === 0 && ttl === 0n) return { w0: 0n, w1: input };
    const start = (input >> BigInt(mapping.log2Size)) << BigInt(mapping.log2Size);
    return { w0: (BigInt(num) << 12n) | (BigInt(scale) << 20n), w1: start | (tg << 10n) | (ttl << 8n) };
  }

  #invalidateStage1(stream: Stream, mapping: Mapping): void {
    const vmid = BigInt(stream.vmid) << 32n;
    const asid = BigInt(stream.asid) << 48n;
    const inside = (1n << BigInt(mapping.log2Size)) - 1n;
    const page = -4096n & 0xffff_ffff_ffff_ffffn;
    const address = ((mapping.input & ~inside) | (this.random.big(64) & inside)) & page;
    const range = this.#range(mapping.input & page, mapping, stream.shape1);
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
    const range = this.#range(mapping.input & 0xff_ffff_ffff_f000n, mapping, stream.shape2);
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
    const opcode = this.random.pick([0x10n, 0x11n, 0x12n, 0x13n, 0x28n, 0x2an, 0x30n]);
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
