import { MEM_OK, type Memory } from '../memory/memory.ts';
import { CD_SIZE, CD_WORDS } from '../spec/cd.ts';
import { EVENT_CLASS, EVENT_TYPE } from '../spec/events.ts';
import { STE, STE_S1DSS, STE_S1FMT } from '../spec/ste.ts';
import { L1CD } from '../spec/stream-table.ts';
import type { Fault } from './fault.ts';
import type { Features } from './features.ts';
import { PERM } from './permissions.ts';
import type { StageTwo } from './stage-two.ts';
import { exceeds } from './ste-legality.ts';
import type { WalkObserver } from './walk-observer.ts';
import type { Stage2Walk } from './walk-stage2.ts';

/** What {@link selectCd} answers besides an index of a CD and EventTypes. */
export const NO_CD = -1;

/**
 * Which CD a transaction uses (5.2 S1CDMax and S1DSS, 7.3.7, 7.3.9).
 * @param ste a legal STE with Config[2]=1
 * @param selection receives the index of the CD, or NO_CD if stage 1 is bypassed
 * @returns 0, C_BAD_SUBSTREAMID or F_STREAM_DISABLED
 */
export function selectCd(
  ste: Uint32Array,
  features: Features,
  ssv: boolean,
  ssid: number,
  selection: CdSelection,
): number {
  selection.index = NO_CD;
  const stage1 = (STE.Config.get(ste) & 1) !== 0;
  if (!stage1) return ssv ? EVENT_TYPE.C_BAD_SUBSTREAMID : 0;
  const S1CDMax = features.SSIDSIZE === 0 ? 0 : STE.S1CDMax.get(ste);
  if (S1CDMax === 0) {
    if (ssv) return EVENT_TYPE.C_BAD_SUBSTREAMID;
    selection.index = 0;
    return 0;
  }
  const S1DSS = STE.S1DSS.get(ste);
  if (ssv) {
    if (ssid >= 2 ** S1CDMax) return EVENT_TYPE.C_BAD_SUBSTREAMID;
    if (ssid === 0 && S1DSS === STE_S1DSS.Ssid0) return EVENT_TYPE.F_STREAM_DISABLED;
    selection.index = ssid;
    return 0;
  }
  if (S1DSS === STE_S1DSS.Ssid0) {
    selection.index = 0;
    return 0;
  }
  return S1DSS === STE_S1DSS.Bypass ? 0 : EVENT_TYPE.F_STREAM_DISABLED;
}

export interface CdSelection {
  index: number;
}

/** Finds Context Descriptors in memory. Level 1 descriptors are read every time and never cached. */
export class CdTable {
  observer: WalkObserver | undefined;
  readonly #features: Features;
  readonly #memory: Memory;
  readonly #stage2: Stage2Walk;
  readonly #fault: Fault;
  readonly #l1cd = new Uint32Array(2);

  constructor(features: Features, memory: Memory, stage2: Stage2Walk, fault: Fault) {
    this.#features = features;
    this.#memory = memory;
    this.#stage2 = stage2;
    this.#fault = fault;
  }

  /**
   * Reads CD number `index` of a legal STE with stage 1.
   * @param s2 translates all addresses; undefined if stage 2 bypasses
   * @returns 0, C_BAD_SUBSTREAMID, F_CD_FETCH, or the event of stage 2
   */
  fetch(ste: Uint32Array, s2: StageTwo | undefined, index: number, cd: Uint32Array): number {
    const pointerHi = STE.S1ContextPtr.getHi(ste);
    const pointerLo = STE.S1ContextPtr.getLo(ste);
    const S1CDMax = this.#features.SSIDSIZE === 0 ? 0 : STE.S1CDMax.get(ste);
    const S1Fmt = STE.S1Fmt.get(ste);
    // 5.2 S1Fmt: tables are aligned to their size; the bits below are treated as zero.
    if (S1CDMax === 0 || (S1Fmt !== STE_S1FMT.Leaf4K && S1Fmt !== STE_S1FMT.Leaf64K))
      return this.#read(s2, pointerHi, (pointerLo & -(CD_SIZE << S1CDMax)) >>> 0, index, cd);
    const split = S1Fmt === STE_S1FMT.Leaf4K ? 6 : 10;
    const l1Bits = Math.max(S1CDMax - split, 0);
    const l1Lo = ((pointerLo & -(8 << Math.max(l1Bits, 3))) | ((index >>> split) << 3)) >>> 0;
    const status = this.#load(s2, pointerHi, l1Lo, this.#l1cd, 2);
    if (status !== 0) return status;
    if (this.observer !== undefined) this.observer.structure('L1CD', pointerHi, l1Lo, this.#l1cd);
    if (L1CD.V.get(this.#l1cd) === 0) return EVENT_TYPE.C_BAD_SUBSTREAMID;
    const l2Hi = L1CD.L2Ptr.getHi(this.#l1cd);
    const l2Lo = (L1CD.L2Ptr.getLo(this.#l1cd) & -(CD_SIZE << split)) >>> 0;
    // 3.4.3: as a PA it must be in range. As an IPA the stage 2 fault is one of the two behaviours allowed.
    if (s2 === undefined && exceeds(l2Hi, this.#features.oasBits)) return EVENT_TYPE.C_BAD_SUBSTREAMID;
    return this.#read(s2, l2Hi, l2Lo, index & ((1 << split) - 1), cd);
  }

  #read(s2: StageTwo | undefined, baseHi: number, baseLo: number, index: number, cd: Uint32Array): number {
    const lo = (baseLo | (index * CD_SIZE)) >>> 0;
    const status = this.#load(s2, baseHi, lo, cd, CD_WORDS);
    if (status === 0 && this.observer !== undefined) this.observer.structure('CD', baseHi, lo, cd);
    return status;
  }

  #load(s2: StageTwo | undefined, hi: number, lo: number, into: Uint32Array, words: number): number {
    let atHi = hi;
    let atLo = lo;
    if (s2 !== undefined) {
      const status = this.#stage2.translate(s2, hi, lo, PERM.UR, EVENT_CLASS.CD);
      if (status !== 0) return status;
      atHi = this.#stage2.paHi;
      atLo = this.#stage2.paLo;
    }
    if (this.#memory.loadWords(atHi, atLo, into, words) === MEM_OK) return 0;
    this.#fault.fetch(atHi, atLo);
    return EVENT_TYPE.F_CD_FETCH;
  }
}
