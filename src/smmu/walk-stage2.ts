import { LAST_LEVEL, S1_TABLE, S2_LEAF } from '../spec/descriptors.ts';
import { EVENT_CLASS, EVENT_TYPE } from '../spec/events.ts';
import { MEM_OK, type Memory } from '../memory/memory.ts';
import type { Fault } from './fault.ts';
import type { Features } from './features.ts';
import { PERM_WRITE, stage2Permissions } from './permissions.ts';
import type { StageTwo } from './stage-two.ts';
import { descriptorAddressHi, swap32 } from './table-geometry.ts';
import { TLB_DEVICE, TLB_KIND, TLB_LOG2_SIZE, TLB_PA_HI, TLB_PA_LO, type Tlb, tlbFlags } from './tlb.ts';
import type { WalkObserver } from './walk-observer.ts';

// Numbers of this module cost nothing where they are used; properties of imported objects are loaded every time.
const OK = MEM_OK;
const LAST = LAST_LEVEL;
const IN = EVENT_CLASS.IN;
const TT = EVENT_CLASS.TT;
const WRITES = PERM_WRITE;
const DEVICE = TLB_DEVICE;
const PA_HI = TLB_PA_HI;
const PA_LO = TLB_PA_LO;
const LOG2_SIZE = TLB_LOG2_SIZE;
const STAGE2 = TLB_KIND.Stage2;
const AF = S2_LEAF.AF.inPlace;
const TABLE_AF = S1_TABLE.AF.inPlace;
const DBM = S2_LEAF.DBM.inPlace;
const S2AP_WRITE = S2_LEAF.S2AP.put(2);

/** Times that a descriptor may change under a hardware update before the walk gives up: a guest could go on forever. */
export const UPDATE_ATTEMPTS = 8;

/** Translates an IPA. The output of the last success is in the fields. */
export class Stage2Walk {
  paHi = 0;
  /** A signed word, as all low halves are in here: passing a larger number to a call may allocate. */
  paLo = 0;
  log2Size = 0;
  /** PERM bits of the leaf as it is now: writes only if it is dirty already. */
  permissions = 0;
  observer: WalkObserver | undefined;
  /** Look only: no TLB, no hardware updates. */
  dry = false;
  /**
   * A walk of stage 1 asks for one descriptor after the other, mostly in the same area: the last table that one of them
   * went through serves the next (CLASS=TT). False at its beginning, so that nothing outlives it.
   */
  hasTable = false;
  /** Address and lowest bit of what the table maps, and where it is. */
  #areaHi = 0;
  #areaLo = 0;
  #areaShift = 0;
  #tableHi = 0;
  #tableLo = 0;
  readonly #memory: Memory;
  readonly #features: Features;
  readonly #tlb: Tlb;
  readonly #fault: Fault;

  constructor(memory: Memory, features: Features, tlb: Tlb, fault: Fault) {
    this.#memory = memory;
    this.#features = features;
    this.#tlb = tlb;
    this.#fault = fault;
  }

  /**
   * Translates through the TLB.
   * @param need one PERM bit
   * @param cls EVENT_CLASS: on whose behalf
   * @returns 0, or the EventType with `fault` filled
   */
  translate(s2: StageTwo, ipaHi: number, ipaLo: number, need: number, cls: number): number {
    if (this.dry) return this.walk(s2, ipaHi, ipaLo, need, cls);
    const tlb = this.#tlb;
    const log2Page = s2.table.log2Granule;
    const page = (ipaLo & -(1 << log2Page)) | tlbFlags(STAGE2, log2Page, false);
    const tag = s2.VMID << 16;
    if (s2.tlbChanges !== tlb.changes) {
      s2.floor = tlb.floor(STAGE2, s2.VMID, 0, false);
      s2.tlbChanges = tlb.changes;
    }
    const at = tlb.find(ipaHi | 0, page, tag, s2.floor);
    if (at >= 0) {
      const entries = tlb.entries;
      const paLo = entries[at + PA_LO];
      if ((paLo & need) !== 0 && !(s2.PTW && cls !== IN && (paLo & DEVICE) !== 0)) {
        const offset = (1 << log2Page) - 1;
        this.paHi = entries[at + PA_HI];
        this.paLo = (paLo & ~offset) | (ipaLo & offset);
        this.log2Size = entries[at + LOG2_SIZE];
        this.permissions = paLo & 63;
        return 0;
      }
    }
    return this.walk(s2, ipaHi, ipaLo, need, cls);
  }

  /** Translates through the tables alone, and enters the result in the TLB. Parameters as for {@link translate}. */
  walk(s2: StageTwo, ipaHi: number, ipaLo: number, need: number, cls: number): number {
    const table = s2.table;
    const fault = this.#fault;
    const memory = this.#memory;
    const observer = this.observer;
    // 7.3.12: the record tells what the access was for; the address asked for goes with all four faults.
    fault.stage2(cls, ipaHi, ipaLo, cls === TT && (need & WRITES) !== 0);
    if (observer !== undefined) observer.stage(2, ipaHi, ipaLo >>> 0, cls);
    // 3.4: beyond what S2T0SZ maps.
    if (beyond(ipaHi, ipaLo, table.inputBits)) return EVENT_TYPE.F_TRANSLATION;
    const outputShift = table.outputBits - 32;
    const granuleMask = -(1 << table.log2Granule);
    let baseHi = table.ttbHi;
    let baseLo = table.ttbLo;
    let mask = table.firstMask;
    let level = table.startLevel;
    let lsb = table.log2Granule + (LAST - level) * table.stride;
    let attempts = UPDATE_ATTEMPTS;
    if (
      cls === TT &&
      this.hasTable &&
      ipaHi === this.#areaHi &&
      (ipaLo ^ this.#areaLo) >>> this.#areaShift === 0
    ) {
      baseHi = this.#tableHi;
      baseLo = this.#tableLo;
      mask = (1 << table.stride) - 1;
      level = LAST;
      lsb = table.log2Granule;
    }
    for (;;) {
      const index = lsb >= 32 ? ipaHi >>> (lsb - 32) : (ipaLo >>> lsb) | (ipaHi << (32 - lsb));
      const atLo = baseLo | ((index & mask) << 3);
      if (memory.load64(baseHi, atLo) !== OK) {
        fault.fetch(baseHi, atLo);
        return EVENT_TYPE.F_WALK_EABT;
      }
      let hi = memory.hi;
      let lo = memory.lo;
      if (s2.bigEndian) {
        const word = swap32(hi);
        hi = swap32(lo);
        lo = word;
      }
      if (observer !== undefined) observer.descriptor(2, level, baseHi, atLo >>> 0, hi, lo, 0);
      if ((lo & 1) === 0) return EVENT_TYPE.F_TRANSLATION;
      const addressHi = descriptorAddressHi(table.highBits, hi, lo);
      if ((lo & 2) !== 0 && level < LAST) {
        if (addressHi >>> outputShift !== 0) return EVENT_TYPE.F_ADDR_SIZE;
        // 3.13.6: HAFT marks tables as accessed too.
        if (s2.HAFT && (lo & TABLE_AF) === 0 && !this.dry) {
          const status = this.#update(s2, baseHi, atLo, hi, lo, hi, lo | TABLE_AF);
          if (status < 0) {
            if (--attempts > 0) continue;
            fault.fetch(baseHi, atLo);
            return EVENT_TYPE.F_WALK_EABT;
          }
          if (status > 0) return status;
        }
        baseHi = addressHi;
        baseLo = lo & granuleMask;
        level += 1;
        lsb -= table.stride;
        mask = (1 << table.stride) - 1;
        if (level === LAST && cls === TT && !this.dry) {
          this.hasTable = true;
          this.#areaHi = ipaHi;
          this.#areaLo = ipaLo | 0;
          this.#areaShift = lsb + table.stride;
          this.#tableHi = baseHi;
          this.#tableLo = baseLo;
        }
        continue;
      }
      // A block where there are none, or a page without bit 1, is reserved: as good as invalid.
      if (level === LAST ? (lo & 2) === 0 : level < table.firstBlockLevel) return EVENT_TYPE.F_TRANSLATION;
      if (addressHi >>> outputShift !== 0) return EVENT_TYPE.F_ADDR_SIZE;
      let newLo = lo;
      if ((lo & AF) === 0) {
        if (s2.HA) newLo |= AF;
        else if (!s2.AFFD) return EVENT_TYPE.F_ACCESS;
      }
      const clean = s2.HD && (hi & DBM) !== 0 && (lo & S2AP_WRITE) === 0;
      let permissions = stage2Permissions(hi, lo, clean, this.#features.XNX);
      const device = (lo & (s2.FWB ? 0x10 : 0x30)) === 0;
      if (observer !== undefined) observer.permissions(2, permissions, need);
      if ((permissions & need) === 0) return EVENT_TYPE.F_PERMISSION;
      // 5.2 S2PTW: a walk or CD fetch that would touch a device.
      if (device && s2.PTW && cls !== IN) return EVENT_TYPE.F_PERMISSION;
      if (clean) {
        // 3.13.3: a write makes the page dirty; until then the TLB must not let writes through.
        if ((need & WRITES) !== 0) newLo |= S2AP_WRITE;
        else permissions &= ~WRITES;
      }
      if (newLo !== lo && !this.dry) {
        const status = this.#update(s2, baseHi, atLo, hi, lo, hi, newLo);
        if (status < 0) {
          if (--attempts > 0) continue;
          fault.fetch(baseHi, atLo);
          return EVENT_TYPE.F_WALK_EABT;
        }
        if (status > 0) return status;
      }
      this.#leaf(
        s2,
        ipaHi,
        ipaLo,
        addressHi,
        lo & granuleMask,
        lsb,
        device ? permissions | DEVICE : permissions,
      );
      return 0;
    }
  }

  #leaf(
    s2: StageTwo,
    ipaHi: number,
    ipaLo: number,
    addressHi: number,
    addressLo: number,
    lsb: number,
    permissionsDevice: number,
  ): void {
    if (lsb >= 32) {
      const inside = 2 ** (lsb - 32) - 1;
      this.paHi = (addressHi & ~inside) | (ipaHi & inside);
      this.paLo = ipaLo | 0;
    } else {
      const inside = (1 << lsb) - 1;
      this.paHi = addressHi;
      this.paLo = (addressLo & ~inside) | (ipaLo & inside);
    }
    this.log2Size = lsb;
    this.permissions = permissionsDevice & 63;
    if (this.observer !== undefined) this.observer.leaf(2, this.paHi, this.paLo >>> 0, this.permissions, lsb);
    if (this.dry) return;
    const log2Page = s2.table.log2Granule;
    const pageMask = -(1 << log2Page);
    this.#tlb.fill(
      ipaHi | 0,
      (ipaLo & pageMask) | tlbFlags(STAGE2, log2Page, false),
      s2.VMID << 16,
      this.paHi | 0,
      (this.paLo & pageMask) | permissionsDevice,
      lsb,
      lsb,
    );
  }

  /**
   * Replaces a descriptor, if nobody changed it since it was read.
   * @returns 0 done, -1 changed: read it again, else an EventType
   */
  #update(
    s2: StageTwo,
    atHi: number,
    atLo: number,
    hi: number,
    lo: number,
    newHi: number,
    newLo: number,
  ): number {
    const status = compareExchangeDescriptor(this.#memory, s2.bigEndian, atHi, atLo, hi, lo, newHi, newLo);
    if (status === MEM_OK_EXCHANGED) return 0;
    if (status === MEM_CHANGED) return -1;
    this.#fault.fetch(atHi, atLo);
    return EVENT_TYPE.F_WALK_EABT;
  }
}

export const MEM_OK_EXCHANGED = 0;
export const MEM_CHANGED = -1;
export const MEM_ABORTED = 1;

/** One atomic update of a descriptor (3.13.1). Values are in this machine's byte order. */
export function compareExchangeDescriptor(
  memory: Memory,
  bigEndian: boolean,
  atHi: number,
  atLo: number,
  hi: number,
  lo: number,
  newHi: number,
  newLo: number,
): number {
  const oldHi = bigEndian ? swap32(lo) : hi >>> 0;
  const oldLo = bigEndian ? swap32(hi) : lo >>> 0;
  const putHi = bigEndian ? swap32(newLo) : newHi;
  const putLo = bigEndian ? swap32(newHi) : newLo;
  if (memory.compareExchange64(atHi, atLo, oldHi, oldLo, putHi, putLo) !== MEM_OK) return MEM_ABORTED;
  return memory.hi === oldHi && memory.lo === oldLo ? MEM_OK_EXCHANGED : MEM_CHANGED;
}

/** Whether an address is at or above 2^bits, 16..52. */
export const beyond = (hi: number, lo: number, bits: number): boolean =>
  bits >= 32 ? hi >>> (bits - 32) !== 0 : hi !== 0 || lo >>> bits !== 0;
