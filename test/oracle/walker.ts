/**
 * Translation as the architecture has it for the oracle's ID registers (S1P, S2P, AArch64, OAS 44, HAD, XNX, no HTTU, no
 * SubstreamIDs, no stalls), and as QEMU has it: each way in which QEMU departs can be switched on. Plain, on bigint,
 * without caches; shares nothing with the device.
 */

import type { CaseState } from './case-state.ts';
import type { Quirk } from './departures.ts';
import {
  type Level,
  OAS,
  SIZES,
  alignBase,
  flag,
  get,
  ipsBits,
  isBadCd,
  s1Level,
  tableBytes,
} from './levels.ts';

export interface Access {
  readonly sid: number;
  readonly write: boolean;
  readonly iova: bigint;
}

/** What an access comes to. A record is four 64-bit words; that the Event queue can take it is not looked at. */
export interface Outcome {
  readonly pa?: bigint;
  readonly record?: readonly bigint[];
}

/** What QEMU has kept from earlier accesses of a case. */
export interface Kept {
  /** PA of a stream's first-level table, by {@link tableKey}. */
  readonly tables: ReadonlyMap<string, bigint>;
  /** Leaves, by {@link leavesKey}, through which an access went. */
  readonly reached: ReadonlySet<string>;
  /** Where a page of 4 KiB was found through two stages, by {@link pageKey}. */
  readonly pages: ReadonlyMap<string, bigint>;
}

/** What QEMU's TLB tells pages of two stages apart by. */
const pageKey = (ste: readonly bigint[], cd: readonly bigint[], iova: bigint): string =>
  `${get(ste[2], 15, 0)} ${get(cd[0], 63, 48)} ${BigInt.asIntN(56, iova) >> 12n}`;

export const leavesKey = (leaves: readonly bigint[]): string => leaves.join(' ');

export const tableKey = (sid: number, upper: boolean): string => `${sid} ${upper ? 1 : 0}`;

const TYPE = {
  C_BAD_STREAMID: 0x02,
  F_STE_FETCH: 0x03,
  C_BAD_STE: 0x04,
  F_CD_FETCH: 0x09,
  C_BAD_CD: 0x0a,
  F_WALK_EABT: 0x0b,
  F_TRANSLATION: 0x10,
  F_ADDR_SIZE: 0x11,
  F_ACCESS: 0x12,
  F_PERMISSION: 0x13,
} as const;

const CLASS = { CD: 0n, TT: 1n, IN: 2n } as const;
type Class = (typeof CLASS)[keyof typeof CLASS];

/** What ends an access; `type` undefined: without a record. */
class Stop extends Error {
  readonly type: number | undefined;
  s2 = false;
  cls: Class = CLASS.IN;
  /** IPA, or what was fetched. */
  address = 0n;
  /** Recorded whatever R says. */
  always = false;
  ttRead = false;

  constructor(type: number | undefined, more: Partial<Stop> = {}) {
    super();
    this.type = type;
    Object.assign(this, more);
  }
}

/** The steps of one access. */
class Walk {
  readonly #state: CaseState;
  readonly #access: Access;
  readonly #quirks: ReadonlySet<Quirk>;
  readonly #kept: Kept | undefined;
  #ste: bigint[] = [];
  #cd: bigint[] = [];
  /** PAs of first-level tables, where only these are translated. */
  readonly tables = new Map<string, bigint>();
  /** What the access was translated to, whether something is there or not. */
  destination: bigint | undefined;
  /** {@link pageKey}, with two stages. */
  page: string | undefined;
  /** Addresses of the leaves that made the translation, and how many bits of an address each passes on. */
  readonly leaves: bigint[] = [];
  readonly leafBits: number[] = [];

  constructor(state: CaseState, access: Access, quirks: ReadonlySet<Quirk>, kept?: Kept) {
    this.#state = state;
    this.#access = access;
    this.#quirks = quirks;
    this.#kept = kept;
  }

  #is(quirk: Quirk): boolean {
    return this.#quirks.has(quirk);
  }

  run(): Outcome {
    try {
      return { pa: this.#translate() };
    } catch (stop) {
      if (!(stop instanceof Stop)) throw stop;
      return this.#end(stop);
    }
  }

  /** STE and CD as far as they can be read, valid or not. */
  structures(): { ste: readonly bigint[]; cd?: readonly bigint[] } | undefined {
    if ((this.#state.register(0x20) & 1n) === 0n) return undefined;
    this.run();
    if (this.#ste.length === 0) return undefined;
    return { ste: this.#ste, ...(this.#cd.length > 0 && { cd: this.#cd }) };
  }

  #translate(): bigint {
    const { iova, write } = this.#access;
    const state = this.#state;
    const silent = (condition: boolean): void => {
      if (condition) throw new Stop(undefined);
    };
    if ((state.register(0x20) & 1n) === 0n) {
      silent(flag(state.register(0x44), 20) || iova >> BigInt(OAS) !== 0n);
      return this.#final(iova);
    }
    this.#ste = this.#fetchSte();
    const config = get(this.#ste[0], 3, 1);
    silent(config < 4n);
    const stage2 = flag(this.#ste[0], 2);
    const kind = write ? 'w' : 'r';
    if (!flag(this.#ste[0], 1)) {
      if (iova >> BigInt(OAS) !== 0n) {
        silent(this.#is('bypass-size'));
        throw new Stop(TYPE.F_ADDR_SIZE, { always: true });
      }
      return this.#final(stage2 ? this.#stage2(iova, kind, CLASS.IN) : iova);
    }
    this.#cd = this.#fetchCd(stage2);
    if (stage2) {
      this.page = pageKey(this.#ste, this.#cd, iova);
      const found = this.#kept?.pages.get(this.page);
      if (found !== undefined && this.#is('combined-block')) return found | (iova & 0xfffn);
    }
    const ipa = this.#stage1(stage2, iova, kind);
    return this.#final(stage2 ? this.#stage2(ipa, kind, CLASS.IN) : ipa);
  }

  /** Nothing answers outside RAM, and that is no fault of translation. */
  #final(pa: bigint): bigint {
    this.destination = pa;
    if (this.#state.read(pa & ~7n) === undefined) throw new Stop(undefined);
    return pa;
  }

  #end(stop: Stop): Outcome {
    if (stop.type === undefined) return {};
    const late = stop.type === TYPE.F_PERMISSION && stop.s2 && stop.cls === CLASS.IN;
    if (late && this.#is('s2-hit') && this.#isHit()) {
      if (!flag(this.#ste[0], 1)) return {};
      stop.address = 0n;
    }
    const quiet = !flag(this.#state.register(0x2c), 1) && !this.#is('recinvsid');
    if (stop.type === TYPE.C_BAD_STREAMID && quiet) return {};
    if (stop.type >= TYPE.F_TRANSLATION && !stop.always) {
      const recorded = stop.s2 ? flag(this.#ste[2], 58) : flag(this.#cd[0], 45);
      if (!recorded) return {};
    }
    return { record: this.#record(stop) };
  }

  /** Whether QEMU has this translation in its TLB. */
  #isHit(): boolean {
    return this.#kept?.reached.has(leavesKey(this.leaves)) === true;
  }

  #record({ type = 0, s2, cls, address, ttRead }: Stop): bigint[] {
    const { sid, write, iova } = this.#access;
    const words = [BigInt(type) | (BigInt(sid) << 32n), 0n, 0n, 0n];
    if (type >= TYPE.F_WALK_EABT) {
      const reads = !write || (this.#is('rnw-of-fetch') && s2 && cls !== CLASS.IN);
      words[1] = (reads ? 1n << 35n : 0n) | (s2 ? 1n << 39n : 0n) | (cls << 40n);
      words[2] = iova;
    }
    if (type === TYPE.F_STE_FETCH || type === TYPE.F_CD_FETCH || type === TYPE.F_WALK_EABT)
      words[3] = address & 0xff_ffff_ffff_fff8n;
    else if (type >= TYPE.F_TRANSLATION && s2)
      words[3] = this.#is('ipa-low') ? address : address & 0xff_ffff_ffff_f000n;
    if (type === TYPE.F_CD_FETCH && this.#is('cd-fetch-place')) [words[2], words[3]] = [words[3], 0n];
    if (ttRead && !this.#is('ttrnw')) words[1] |= 1n << 44n;
    return words;
  }

  #words(at: bigint, event: number): bigint[] {
    const words: bigint[] = [];
    for (let i = 0n; i < 8n; i++) {
      const word = this.#state.read(at + 8n * i);
      if (word === undefined) throw new Stop(event, { address: at });
      words.push(word);
    }
    return words;
  }

  #fetchSte(): bigint[] {
    const { sid } = this.#access;
    const state = this.#state;
    const base =
      ((state.register(0x84) << 32n) | state.register(0x80)) & 0xfffffffffc0n & 0xff_ffff_ffff_ffc0n;
    const config = Number(state.register(0x88));
    const log2size = config & 63;
    if (sid >= 2 ** Math.min(log2size, 16)) throw new Stop(TYPE.C_BAD_STREAMID);
    let at: bigint;
    if (((config >> 16) & 3) === 1) {
      const raw = (config >> 6) & 31;
      const split = raw === 8 || raw === 10 ? raw : 6;
      const align = BigInt(Math.max(6, log2size - split + 3));
      const l1 = ((base >> align) << align) + 8n * BigInt(sid >> split);
      const l1std = state.read(l1);
      if (l1std === undefined) throw new Stop(TYPE.F_STE_FETCH, { address: l1 });
      const span = Number(get(l1std, 4, 0));
      const index = sid & (2 ** split - 1);
      if (span === 0 || span > 11) throw new Stop(TYPE.C_BAD_STREAMID);
      if (this.#is('l2-span')) {
        if (index > 2 ** span - 1) throw new Stop(TYPE.C_BAD_STE);
      } else if (span > split + 1 || index >= 2 ** (span - 1)) throw new Stop(TYPE.C_BAD_STREAMID);
      const l2 = get(l1std, 55, 6) << 6n;
      const aligned = l2 & -(64n << BigInt(span - 1));
      at = (aligned & ((1n << BigInt(OAS)) - 1n)) + 64n * BigInt(index);
    } else at = ((base >> BigInt(log2size + 6)) << BigInt(log2size + 6)) + 64n * BigInt(sid);
    const ste = this.#words(at, TYPE.F_STE_FETCH);
    this.#ste = ste;
    if (this.#isBadSte(ste)) throw new Stop(TYPE.C_BAD_STE);
    return ste;
  }

  #s2Level(ste: bigint[]): Level | undefined {
    const granule = [12, 16, 14, 0][Number(get(ste[2], 47, 46))];
    const sl0 = Number(get(ste[2], 39, 38));
    const start = granule === 12 ? [2, 1, 0][sl0] : [3, 2, 1][sl0];
    if (granule === 0 || start === undefined) return undefined;
    return {
      base: ste[3] & 0xf_ffff_ffff_fff0n,
      granule,
      start,
      inputBits: 64 - Number(get(ste[2], 37, 32)),
      outputBits: Math.min(SIZES[Number(get(ste[2], 50, 48))], OAS),
    };
  }

  #isBadSte(ste: bigint[]): boolean {
    if (!flag(ste[0], 0)) return true;
    const config = get(ste[0], 3, 1);
    if (config < 4n) return false;
    const s1 = flag(ste[0], 1);
    const s2 = flag(ste[0], 2);
    const stalld = flag(ste[1], 27);
    if (stalld && (s1 || this.#is('s1stalld'))) return true;
    if ((s1 || s2) && this.#is('s1cdmax') && get(ste[0], 63, 59) !== 0n) return true;
    if (s1) {
      if (!s2 && (get(ste[0], 55, 6) << 6n) >> BigInt(OAS) !== 0n) return !this.#is('s1contextptr');
    }
    if (!s2) return false;
    if (flag(ste[2], 57) || !flag(ste[2], 51) || flag(ste[2], 52)) return true;
    if ((flag(ste[2], 56) || flag(ste[2], 55)) && !this.#is('s2ha')) return true;
    const level = this.#s2Level(ste);
    if (level === undefined) return true;
    if (level.base >> BigInt(level.outputBits) !== 0n) return true;
    const t0sz = 64 - level.inputBits;
    if (t0sz < 64 - OAS || t0sz > 39) return true;
    if (this.#is('s2-t0sz-ps') && level.inputBits > level.outputBits) return true;
    const bits = level.inputBits - (level.granule + (3 - level.start) * (level.granule - 3));
    if (bits > level.granule - 3 + 4) return true;
    return bits < 1 && !this.#is('s2sl0-high');
  }

  #fetchCd(stage2: boolean): bigint[] {
    const pointer = get(this.#ste[0], 55, 6) << 6n;
    const at = stage2 ? this.#stage2(pointer, 'r', CLASS.CD) : pointer;
    const cd = this.#words(at, TYPE.F_CD_FETCH);
    this.#cd = cd;
    if (isBadCd(cd)) throw new Stop(TYPE.C_BAD_CD);
    if (stage2 && this.#is('ttb-with-cd')) {
      for (const upper of [false, true])
        if (!flag(cd[0], upper ? 30 : 14)) this.#firstTable(s1Level(cd, upper)!, upper, false);
    }
    return cd;
  }

  /** PA of the first-level table of stage 1, when QEMU translates only that. */
  #firstTable(level: Level, upper: boolean, keeps: boolean): bigint {
    const key = tableKey(this.#access.sid, upper);
    const kept = keeps && this.#is('ttb-kept') ? this.#kept?.tables.get(key) : undefined;
    const table = kept ?? this.#stage2(level.base, 'r', CLASS.TT);
    this.tables.set(key, table);
    return this.#is('s1-table-ips') ? table & ((1n << BigInt(level.outputBits)) - 1n) : table;
  }

  #descriptor(at: bigint): bigint | undefined {
    // The address that QEMU makes may be in its machine's window for PCI, where reads that nobody takes give ones.
    if (this.#is('s1-table-ips') && at >> 39n === 1n) return 0xffff_ffff_ffff_ffffn;
    return this.#state.read(at);
  }

  #stage2(ipa: bigint, kind: 'r' | 'w', cls: Class): bigint {
    const ste = this.#ste;
    const level = this.#s2Level(ste)!;
    const stop = (type: number, address = ipa): Stop => new Stop(type, { s2: true, cls, address });
    // Only with QEMU's way to look at the size of a table's address here, not where the address is.
    if (cls === CLASS.TT && ipa >> BigInt(ipsBits(this.#cd)) !== 0n)
      throw new Stop(TYPE.F_ADDR_SIZE, { cls });
    if (ipa >> BigInt(level.inputBits) !== 0n) throw stop(TYPE.F_TRANSLATION);
    const allowed = (leaf: bigint): boolean => flag(leaf, kind === 'w' ? 7 : 6);
    const check = (leaf: bigint, _tables: readonly bigint[], at: bigint): void => {
      if (cls === CLASS.IN) this.leaves.push(at);
      if (!flag(leaf, 10) && !flag(ste[2], 53)) throw stop(TYPE.F_ACCESS);
      const hit = kind === 'r' && cls === CLASS.IN && flag(ste[0], 1) && this.#isHit();
      if (hit && this.#is('s2-hit-read')) return;
      const device = get(leaf, 5, 4) === 0n;
      const ptw = cls !== CLASS.IN && device && flag(ste[2], 54) && !this.#is('s2ptw');
      if (!allowed(leaf) || ptw) {
        const permission = stop(TYPE.F_PERMISSION);
        permission.ttRead = cls === CLASS.TT;
        throw permission;
      }
    };
    return this.#descend(level, ipa, (table, offset) => table + offset, stop, check);
  }

  #stage1(stage2: boolean, iova: bigint, kind: 'r' | 'w'): bigint {
    const cd = this.#cd;
    const upper = flag(iova, 55);
    const stop = (type: number, address = 0n): Stop =>
      new Stop(type, { address, cls: type === TYPE.F_WALK_EABT ? CLASS.TT : CLASS.IN });
    if (flag(cd[0], upper ? 30 : 14)) throw stop(TYPE.F_TRANSLATION);
    const level = s1Level(cd, upper)!;
    const tbi = flag(cd[0], upper && !this.#is('tbi1') ? 39 : 38);
    const top = tbi ? 55 : 63;
    const above = get(iova, top, level.inputBits);
    const ones = (1n << BigInt(top - level.inputBits + 1)) - 1n;
    if (above !== (upper ? ones : 0n)) throw stop(TYPE.F_TRANSLATION);
    const physical = (table: bigint, offset: bigint, first: boolean): bigint => {
      if (!stage2) return table + offset;
      const whole = this.#is('s1-table-base');
      // QEMU aligns what comes out, not what goes in.
      if (first && (whole || this.#is('ttb-kept') || this.#is('s1-table-ips')))
        return (this.#firstTable(level, upper, true) & -tableBytes(level)) + offset;
      try {
        if (whole) return this.#stage2(table, 'r', CLASS.TT) + offset;
        return this.#stage2(table + offset, 'r', CLASS.TT);
      } catch (stop) {
        if (!first && stop instanceof Stop && this.#is('next-table-s2')) {
          stop.s2 = false;
          stop.address = table;
        }
        throw stop;
      }
    };
    const had = flag(cd[upper ? 2 : 1], 1);
    const check = (leaf: bigint, tables: readonly bigint[], at: bigint): void => {
      this.leaves.push(at);
      if (!flag(leaf, 10) && !flag(cd[0], 35)) throw stop(TYPE.F_ACCESS);
      const above62 = (bit: number): boolean => !had && tables.some((table) => flag(table, bit));
      const user = (flag(leaf, 6) && !above62(61)) || this.#is('ap1');
      const writable = !flag(leaf, 7) && (!above62(62) || this.#is('aptable-hit'));
      if (!user || (kind === 'w' && !writable)) throw stop(TYPE.F_PERMISSION);
    };
    const early = (table: bigint): void => {
      if (!had && this.#is('aptable-early') && kind === 'w' && flag(table, 62)) throw stop(TYPE.F_PERMISSION);
    };
    return this.#descend(level, iova, physical, stop, check, early);
  }

  #descend(
    level: Level,
    input: bigint,
    physical: (table: bigint, offset: bigint, first: boolean) => bigint,
    stop: (type: number, address?: bigint) => Stop,
    check: (leaf: bigint, tables: readonly bigint[], at: bigint) => void,
    early: (table: bigint) => void = () => {},
  ): bigint {
    const stride = level.granule - 3;
    const tables: bigint[] = [];
    let table = alignBase(level);
    for (let n = level.start; ; n++) {
      const lsb = BigInt(level.granule + (3 - n) * stride);
      let bits = n === level.start ? BigInt(level.inputBits) - lsb : BigInt(stride);
      // Only with QEMU's way to take such a level: its table is at 0 then, where flash reads as zero.
      if (bits < -3n) throw stop(TYPE.F_TRANSLATION);
      if (bits < 0n) bits = 0n;
      let index = (input >> lsb) & ((1n << bits) - 1n);
      if (this.#is('s2-concatenated')) index &= (1n << BigInt(stride)) - 1n;
      const at = physical(table, 8n * index, n === level.start);
      const descriptor = this.#descriptor(at);
      if (descriptor === undefined) throw stop(TYPE.F_WALK_EABT, at);
      const type = get(descriptor, 1, 0);
      const isLeaf = n === 3 ? type === 3n : type === 1n;
      const isTable = n < 3 && type === 3n;
      if (!isLeaf && !isTable) throw stop(TYPE.F_TRANSLATION);
      const first = level.granule === 12 ? 1 : 2;
      if (isLeaf && n < first && !this.#is('block-level')) throw stop(TYPE.F_TRANSLATION);
      const output = descriptor & 0xffff_ffff_ffffn & -(1n << BigInt(level.granule));
      const tooBig = output >> BigInt(level.outputBits) !== 0n;
      if (isTable) {
        if (tooBig && !this.#is('table-size')) throw stop(TYPE.F_ADDR_SIZE);
        early(descriptor);
        tables.push(descriptor);
        table = output;
        continue;
      }
      if (tooBig && !this.#is('size-last')) throw stop(TYPE.F_ADDR_SIZE);
      check(descriptor, tables, at);
      if (tooBig) throw stop(TYPE.F_ADDR_SIZE);
      if (this.leafBits.length < this.leaves.length) this.leafBits.push(Number(lsb));
      const inside = (1n << lsb) - 1n;
      return (output & ~inside) | (input & inside);
    }
  }
}

/** What an access comes to in this state, with some of QEMU's ways. */
export const outcomeOf = (
  state: CaseState,
  access: Access,
  quirks: ReadonlySet<Quirk> = new Set(),
  kept?: Kept,
): Outcome => new Walk(state, access, quirks, kept).run();

/** What QEMU keeps after an access of which this state is the start, and which came to what these ways make of it. */
export function keptAfter(
  state: CaseState,
  access: Access,
  quirks: readonly Quirk[],
  kept: Kept,
): Pick<Walk, 'destination' | 'page' | 'leaves' | 'leafBits' | 'tables'> {
  const walk = new Walk(state, access, new Set([...KEEPING, ...quirks]), kept);
  walk.run();
  if (walk.destination !== undefined) return walk;
  const { tables } = walk;
  const plain = new Walk(state, access, new Set(quirks), kept);
  plain.run();
  const { destination, page, leaves, leafBits } = plain;
  return { destination, page, leaves, leafBits, tables };
}

/** With these QEMU finds first-level tables, and goes on where the architecture stops. */
const KEEPING: readonly Quirk[] = ['s1-table-base', 'ttb-with-cd', 's2ptw'];

/** The STE of an access and its CD, as far as they can be read. */
export const structuresOf = (
  state: CaseState,
  access: Access,
): { ste: readonly bigint[]; cd?: readonly bigint[] } | undefined =>
  new Walk(state, access, new Set()).structures();

/** What an access is translated to, whether something is there or not. */
export function destinationOf(
  state: CaseState,
  access: Access,
  quirks: ReadonlySet<Quirk>,
): bigint | undefined {
  const walk = new Walk(state, access, quirks);
  walk.run();
  return walk.destination;
}
