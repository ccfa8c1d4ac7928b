import { MEM_OK, type Memory } from '../memory/memory.ts';
import { LAST_LEVEL, S1_LEAF, S1_TABLE } from '../spec/descriptors.ts';
import { EVENT_CLASS, EVENT_TYPE } from '../spec/events.ts';
import type { Fault } from './fault.ts';
import {
  HIERARCHY,
  PERM,
  PERM_UNPRIVILEGED,
  PERM_WRITE,
  stage1Permissions,
  stage1PermissionsEl2,
} from './permissions.ts';
import { type Half, type StageOne, WORLD } from './stage-one.ts';
import type { StageTwo } from './stage-two.ts';
import { descriptorAddressHi, swap32 } from './table-geometry.ts';
import type { WalkObserver } from './walk-observer.ts';
import {
  MEM_CHANGED,
  MEM_OK_EXCHANGED,
  type Stage2Walk,
  UPDATE_ATTEMPTS,
  compareExchangeDescriptor,
} from './walk-stage2.ts';

// Numbers of this module cost nothing where they are used; properties of imported objects are loaded every time.
const OK = MEM_OK;
const LAST = LAST_LEVEL;
const IN = EVENT_CLASS.IN;
const TT = EVENT_CLASS.TT;
const READ = PERM.UR;
const WRITES = PERM_WRITE;
const UNPRIVILEGED = PERM_UNPRIVILEGED;
const NO_UNPRIVILEGED = HIERARCHY.NoUnprivileged;
const NO_WRITE = HIERARCHY.NoWrite;
const NO_PX = HIERARCHY.PXN;
const NO_UX = HIERARCHY.UXN;
const EL2 = WORLD.EL2;
const AF = S1_LEAF.AF.inPlace;
const TABLE_AF = S1_TABLE.AF.inPlace;
const DBM = S1_LEAF.DBM.inPlace;
const NG = S1_LEAF.nG.inPlace;
const AP_READ_ONLY = S1_LEAF.AP.put(2);
const APTABLE_UNPRIVILEGED = S1_TABLE.APTable.put(1);
const APTABLE_READ_ONLY = S1_TABLE.APTable.put(2);
const PXNTABLE = S1_TABLE.PXNTable.inPlace;
const UXNTABLE = S1_TABLE.UXNTable.inPlace;

/** Whether a VA, its tag already replaced by copies of bit 55, is outside what TxSZ maps (3.4.1). */
export function outsideHalf(vaHi: number, vaLo: number, inputBits: number, upper: boolean): boolean {
  const hi = upper ? ~vaHi : vaHi;
  if (inputBits >= 32) return hi >>> (inputBits - 32) !== 0;
  return hi >>> 0 !== 0 || (upper ? ~vaLo : vaLo) >>> inputBits !== 0;
}

/** Translates a VA to a PA, or with stage 2 to an IPA. The output of the last success is in the fields. */
export class Stage1Walk {
  outHi = 0;
  /** A signed word, as all low halves are in here: passing a larger number to a call may allocate. */
  outLo = 0;
  log2Size = 0;
  /** PERM bits of the leaf as it is now: writes only if it is dirty already. */
  permissions = 0;
  global = false;
  observer: WalkObserver | undefined;
  /** Look only: no hardware updates. */
  dry = false;
  readonly #memory: Memory;
  readonly #stage2: Stage2Walk;
  readonly #fault: Fault;

  constructor(memory: Memory, stage2: Stage2Walk, fault: Fault) {
    this.#memory = memory;
    this.#stage2 = stage2;
    this.#fault = fault;
  }

  /**
   * Walks the tables of one half of the VA space.
   * @param s2 translates the descriptors' addresses; undefined if stage 2 bypasses
   * @param vaHi the address, its tag replaced by copies of bit 55 where TBI ignores it
   * @param need one PERM bit
   * @returns 0, or the EventType with `fault` filled
   */
  walk(
    s1: StageOne,
    half: Half,
    upper: boolean,
    s2: StageTwo | undefined,
    vaHi: number,
    vaLo: number,
    need: number,
  ): number {
    const table = half.table;
    const fault = this.#fault;
    const memory = this.#memory;
    const stage2 = this.#stage2;
    const observer = this.observer;
    fault.stage1();
    if (s2 !== undefined) stage2.hasTable = false;
    if (observer !== undefined) observer.stage(1, vaHi >>> 0, vaLo >>> 0, IN);
    // 7.3.13, 5.4 E0PD0: all three are Translation faults before the first descriptor.
    if (half.EPD || outsideHalf(vaHi, vaLo, table.inputBits, upper)) return EVENT_TYPE.F_TRANSLATION;
    if (half.E0PD && (need & UNPRIVILEGED) !== 0) return EVENT_TYPE.F_TRANSLATION;
    const outputShift = table.outputBits - 32;
    const granuleMask = -(1 << table.log2Granule);
    let baseHi = table.ttbHi;
    let baseLo = table.ttbLo;
    let mask = table.firstMask;
    let level = table.startLevel;
    let lsb = table.log2Granule + (LAST - level) * table.stride;
    let hierarchy = 0;
    let attempts = UPDATE_ATTEMPTS;
    for (;;) {
      const index = lsb >= 32 ? vaHi >>> (lsb - 32) : (vaLo >>> lsb) | (vaHi << (32 - lsb));
      // Where the descriptor is: an IPA until stage 2 has seen it.
      let atHi = baseHi;
      let atLo = baseLo | ((index & mask) << 3);
      const ipaHi = atHi;
      const ipaLo = atLo;
      if (s2 !== undefined) {
        const status = stage2.translate(s2, ipaHi, ipaLo, READ, TT);
        if (status !== 0) return status;
        atHi = stage2.paHi;
        atLo = stage2.paLo;
      }
      if (memory.load64(atHi, atLo) !== OK) return this.#abort(atHi, atLo);
      let hi = memory.hi;
      let lo = memory.lo;
      if (s1.bigEndian) {
        const word = swap32(hi);
        hi = swap32(lo);
        lo = word;
      }
      if (observer !== undefined) observer.descriptor(1, level, atHi, atLo >>> 0, hi, lo, hierarchy);
      if ((lo & 1) === 0) return this.#stop(EVENT_TYPE.F_TRANSLATION);
      const addressHi = descriptorAddressHi(table.highBits, hi, lo);
      if ((lo & 2) !== 0 && level < LAST) {
        if (addressHi >>> outputShift !== 0) return this.#stop(EVENT_TYPE.F_ADDR_SIZE);
        // 3.13.6: HAFT marks tables as accessed too.
        if (s1.HAFT && (lo & TABLE_AF) === 0) {
          const status = this.#update(s1, s2, ipaHi, ipaLo, atHi, atLo, hi, lo, lo | TABLE_AF);
          if (status < 0) {
            if (--attempts > 0) continue;
            return this.#abort(atHi, atLo);
          }
          if (status > 0) return status;
        }
        if (!half.HAD) {
          if ((hi & APTABLE_UNPRIVILEGED) !== 0) hierarchy |= NO_UNPRIVILEGED;
          if ((hi & APTABLE_READ_ONLY) !== 0) hierarchy |= NO_WRITE;
          if ((hi & PXNTABLE) !== 0) hierarchy |= NO_PX;
          if ((hi & UXNTABLE) !== 0) hierarchy |= NO_UX;
        }
        baseHi = addressHi;
        baseLo = lo & granuleMask;
        level += 1;
        lsb -= table.stride;
        mask = (1 << table.stride) - 1;
        continue;
      }
      // A block where there are none, or a page without bit 1, is reserved: as good as invalid.
      if (level === LAST ? (lo & 2) === 0 : level < table.firstBlockLevel)
        return this.#stop(EVENT_TYPE.F_TRANSLATION);
      if (addressHi >>> outputShift !== 0) return this.#stop(EVENT_TYPE.F_ADDR_SIZE);
      let newLo = lo;
      if ((lo & AF) === 0) {
        if (s1.HA) newLo |= AF;
        else if (!s1.AFFD) return this.#stop(EVENT_TYPE.F_ACCESS);
      }
      const clean = s1.HD && (hi & DBM) !== 0 && (lo & AP_READ_ONLY) !== 0;
      let permissions =
        s1.world === EL2
          ? stage1PermissionsEl2(hi, lo, hierarchy, clean, s1.WXN)
          : stage1Permissions(hi, lo, hierarchy, clean, s1.WXN, s1.PAN, s1.EPAN);
      if (observer !== undefined) observer.permissions(1, permissions, need);
      if ((permissions & need) === 0) return this.#stop(EVENT_TYPE.F_PERMISSION);
      if (clean) {
        // 3.13.3: a write that is let in makes the page dirty; until then the TLB must not let writes through.
        if ((permissions & need & WRITES) !== 0) newLo &= ~AP_READ_ONLY;
        else permissions &= ~WRITES;
      }
      if (newLo !== lo) {
        const status = this.#update(s1, s2, ipaHi, ipaLo, atHi, atLo, hi, lo, newLo);
        if (status < 0) {
          if (--attempts > 0) continue;
          return this.#abort(atHi, atLo);
        }
        if (status > 0) return status;
      }
      if (lsb >= 32) {
        const inside = 2 ** (lsb - 32) - 1;
        this.outHi = (addressHi & ~inside) | (vaHi & inside);
        this.outLo = vaLo | 0;
      } else {
        const inside = (1 << lsb) - 1;
        this.outHi = addressHi;
        this.outLo = (lo & granuleMask & ~inside) | (vaLo & inside);
      }
      this.log2Size = lsb;
      this.permissions = half.E0PD ? permissions & ~UNPRIVILEGED : permissions;
      // Plain EL2 has no ASIDs: everything is global there.
      this.global = (lo & NG) === 0 && s1.world !== EL2;
      if (observer !== undefined) observer.leaf(1, this.outHi, this.outLo >>> 0, this.permissions, lsb);
      return 0;
    }
  }

  /** Stage 2 may have run since: this fault is of stage 1. */
  #stop(type: number): number {
    this.#fault.stage1();
    return type;
  }

  /** 7.3.12: the descriptor could not be read or written; the record names its PA. */
  #abort(atHi: number, atLo: number): number {
    const fault = this.#fault;
    fault.stage1();
    fault.cls = EVENT_CLASS.TT;
    fault.fetch(atHi, atLo);
    return EVENT_TYPE.F_WALK_EABT;
  }

  /**
   * Replaces the low word of a descriptor, if nobody changed it since it was read. In IPA space that is a write, which stage 2
   * must allow (3.13.5). A look asks stage 2 too, and leaves it at that.
   * @returns 0 done, -1 changed: read it again, else an EventType
   */
  #update(
    s1: StageOne,
    s2: StageTwo | undefined,
    ipaHi: number,
    ipaLo: number,
    atHi: number,
    atLo: number,
    hi: number,
    lo: number,
    newLo: number,
  ): number {
    if (s2 !== undefined) {
      const status = this.#stage2.translate(s2, ipaHi, ipaLo, PERM.UW, EVENT_CLASS.TT);
      if (status !== 0) return status;
      // Stage 2 maps it elsewhere by now: begin again with this descriptor.
      if (this.#stage2.paHi !== atHi || this.#stage2.paLo !== atLo) return -1;
    }
    if (this.dry) return 0;
    const status = compareExchangeDescriptor(this.#memory, s1.bigEndian, atHi, atLo, hi, lo, hi, newLo);
    if (status === MEM_OK_EXCHANGED) return 0;
    return status === MEM_CHANGED ? -1 : this.#abort(atHi, atLo);
  }
}
