/** One access, step by step: as the architecture has it, and with QEMU's ways. */

import { type Access, type Kept, type Outcome, leavesKey, pageKey, tableKey } from './access.ts';
import type { CaseState } from './case-state.ts';
import type { Quirk } from './departures.ts';
import { type Level, OAS, alignBase, flag, get, ipsBits, isBadCd, s1Level, tableBytes } from './levels.ts';
import { CLASS, type Class, Stop, TYPE, recordOf } from './stop.ts';
import { fetchSte, isBadSte, s2Level, structureAt } from './stream-entry.ts';

/** The steps of one access. */
export class Walk {
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
    this.#ste = fetchSte(state, this.#access.sid, this.#quirks);
    if (isBadSte(this.#ste, this.#quirks)) throw new Stop(TYPE.C_BAD_STE);
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
    return { record: recordOf(stop, this.#access, this.#quirks) };
  }

  /** Whether QEMU has this translation in its TLB. */
  #isHit(): boolean {
    return this.#kept?.reached.has(leavesKey(this.leaves)) === true;
  }

  #fetchCd(stage2: boolean): bigint[] {
    const pointer = get(this.#ste[0], 55, 6) << 6n;
    const at = stage2 ? this.#stage2(pointer, 'r', CLASS.CD) : pointer;
    const cd = structureAt(this.#state, at, TYPE.F_CD_FETCH);
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
    const level = s2Level(ste)!;
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
