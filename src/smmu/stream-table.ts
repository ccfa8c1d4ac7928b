import { MEM_OK, type Memory } from '../memory/memory.ts';
import { EVENT_TYPE } from '../spec/events.ts';
import { OFFSET, STRTAB_BASE, STRTAB_BASE_CFG, STRTAB_FMT } from '../spec/registers.ts';
import { L1STD, SPAN_MAX } from '../spec/stream-table.ts';
import { STE, STE_SIZE, STE_WORDS } from '../spec/ste.ts';
import type { Fault } from './fault.ts';
import type { Features } from './features.ts';
import type { WalkObserver } from './walk-observer.ts';

const BASE_LO = OFFSET.STRTAB_BASE >>> 2;
const CFG = OFFSET.STRTAB_BASE_CFG >>> 2;

// Numbers of this module cost nothing where they are used; properties of imported objects are loaded every time.
const ADDR_LO = STRTAB_BASE.ADDR.loMask;
const ADDR_HI = STRTAB_BASE.ADDR.hiMask;
/** At bit 0 of its register. */
const LOG2SIZE_IN_PLACE = STRTAB_BASE_CFG.LOG2SIZE.inPlace;
const V = STE.V.inPlace;
const FMT_IN_PLACE = STRTAB_BASE_CFG.FMT.inPlace;
const FMT_TWO_LEVEL = STRTAB_BASE_CFG.FMT.put(STRTAB_FMT.TwoLevel);

/**
 * Clears bits [bit:0] of the low half of an address; bit 0..63, with {@link alignHi}. The result is a signed word, as low
 * halves are in here: passing a larger number to a call may allocate.
 */
const alignLo = (lo: number, bit: number): number => (bit >= 31 ? 0 : lo & (-2 << bit));
const alignHi = (hi: number, bit: number): number =>
  bit < 32 ? hi : bit >= 63 ? 0 : (hi & (-2 << (bit - 32))) >>> 0;

/** STRTAB_BASE_CFG.SPLIT as it acts: of the three sizes that there are, 6 for all other values (6.3.25). */
export const effectiveSplit = (SPLIT: number): number => (SPLIT === 8 || SPLIT === 10 ? SPLIT : 6);

/** Lowest bit of the table's address that counts: aligned to what LOG2SIZE says, even beyond SIDSIZE (6.3.24). */
export const strtabAlignment = (LOG2SIZE: number, SPLIT: number, twoLevel: boolean): number =>
  twoLevel ? Math.max(6, LOG2SIZE - SPLIT + 3) : LOG2SIZE + 6;

/** Finds Stream Table Entries in memory (3.3.1). Level 1 descriptors are read every time and never cached. */
export class StreamTable {
  observer: WalkObserver | undefined;
  readonly #sidSize: number;
  readonly #twoLevel: boolean;
  readonly #registers: Uint32Array;
  readonly #memory: Memory;
  readonly #fault: Fault;
  readonly #l1std = new Uint32Array(2);
  readonly #oasMaskHi: number;

  constructor(features: Features, registers: Uint32Array, memory: Memory, fault: Fault) {
    this.#sidSize = features.SIDSIZE;
    this.#twoLevel = features.twoLevelStreamTable;
    this.#registers = registers;
    this.#memory = memory;
    this.#fault = fault;
    this.#oasMaskHi = 2 ** (features.oasBits - 32) - 1;
  }

  /**
   * Reads the STE of a StreamID.
   * @param ste receives it; of an STE with V=0 only the first 64 bits
   * @returns 0, C_BAD_STREAMID, or F_STE_FETCH with the address in `fault`
   */
  fetch(sid: number, ste: Uint32Array): number {
    const registers = this.#registers;
    const cfg = registers[CFG];
    const LOG2SIZE = cfg & LOG2SIZE_IN_PLACE;
    const size = LOG2SIZE < this.#sidSize ? LOG2SIZE : this.#sidSize;
    // 6.3.25: the size is capped here and for the index, but not for the alignment below (6.3.24).
    if (size < 32 && sid >>> size !== 0) return EVENT_TYPE.C_BAD_STREAMID;
    const baseHi = registers[BASE_LO + 1] & ADDR_HI & this.#oasMaskHi;
    const baseLo = registers[BASE_LO] & ADDR_LO;
    if (!this.#twoLevel || (cfg & FMT_IN_PLACE) !== FMT_TWO_LEVEL)
      return this.#read(alignHi(baseHi, LOG2SIZE + 5), alignLo(baseLo, LOG2SIZE + 5), sid, ste);
    const SPLIT = effectiveSplit(STRTAB_BASE_CFG.SPLIT.of(cfg));
    const align = strtabAlignment(LOG2SIZE, SPLIT, true) - 1;
    const atHi = alignHi(baseHi, align);
    const atLo = alignLo(baseLo, align);
    const index = size > SPLIT ? sid >>> SPLIT : 0;
    const at = (atLo >>> 0) + index * 8;
    const l1Hi = at > 0xffff_ffff ? atHi + 1 : atHi;
    const l1Lo = at | 0;
    const l1std = this.#l1std;
    if (this.#memory.loadWords(l1Hi, l1Lo, l1std, 2) !== MEM_OK) return this.#abort(l1Hi, l1Lo);
    if (this.observer !== undefined) this.observer.structure('L1STD', l1Hi, l1Lo >>> 0, l1std);
    const Span = L1STD.Span.get(l1std);
    // 5.1.1, 7.3.3: nothing there, a reserved size, more than the split allows, or beyond its end.
    if (Span === 0 || Span > SPAN_MAX || Span > SPLIT + 1) return EVENT_TYPE.C_BAD_STREAMID;
    const l2Index = sid & ((1 << SPLIT) - 1);
    if (l2Index >>> (Span - 1) !== 0) return EVENT_TYPE.C_BAD_STREAMID;
    // 5.1: the array is aligned to its size.
    return this.#read(
      L1STD.L2Ptr.getHi(l1std) & this.#oasMaskHi,
      alignLo(L1STD.L2Ptr.getLo(l1std), 5 + (Span - 1)),
      l2Index,
      ste,
    );
  }

  #read(baseHi: number, baseLo: number, index: number, ste: Uint32Array): number {
    const at = (baseLo >>> 0) + index * STE_SIZE;
    // An index is below 2^32 and an STE 64 bytes, so this may carry more than once.
    const hi = at <= 0xffff_ffff ? baseHi : (baseHi + Math.floor(at / 0x1_0000_0000)) >>> 0;
    const lo = at | 0;
    const memory = this.#memory;
    // Nobody has to know more of an invalid STE. Never read twice: the guest may be writing it.
    if (memory.loadWords(hi, lo, ste, 2) !== MEM_OK) return this.#abort(hi, lo);
    const whole = (ste[0] & V) !== 0 || this.observer !== undefined;
    if (whole && memory.loadWords(hi, lo + 8, ste, STE_WORDS - 2, 2) !== MEM_OK) return this.#abort(hi, lo);
    if (this.observer !== undefined) this.observer.structure('STE', hi, lo >>> 0, ste);
    return 0;
  }

  #abort(hi: number, lo: number): number {
    this.#fault.fetch(hi, lo);
    return EVENT_TYPE.F_STE_FETCH;
  }
}
