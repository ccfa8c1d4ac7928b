/** STEs: where they are, and whether they are right. */

import type { CaseState } from './case-state.ts';
import type { Quirk } from './departures.ts';
import { type Level, OAS, SIZES, flag, get } from './levels.ts';
import { Stop, TYPE } from './stop.ts';

/** The STE of a StreamID, valid or not. @throws Stop where there is none. */
export function fetchSte(state: CaseState, sid: number, quirks: ReadonlySet<Quirk>): bigint[] {
  const base = ((state.register(0x84) << 32n) | state.register(0x80)) & 0xfffffffffc0n & 0xff_ffff_ffff_ffc0n;
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
    if (quirks.has('l2-span')) {
      if (index > 2 ** span - 1) throw new Stop(TYPE.C_BAD_STE);
    } else if (span > split + 1 || index >= 2 ** (span - 1)) throw new Stop(TYPE.C_BAD_STREAMID);
    const l2 = get(l1std, 55, 6) << 6n;
    const aligned = l2 & -(64n << BigInt(span - 1));
    at = (aligned & ((1n << BigInt(OAS)) - 1n)) + 64n * BigInt(index);
  } else at = ((base >> BigInt(log2size + 6)) << BigInt(log2size + 6)) + 64n * BigInt(sid);
  return structureAt(state, at, TYPE.F_STE_FETCH);
}

/** The eight words of an STE or a CD. @throws Stop with this event where there is no memory. */
export function structureAt(state: CaseState, at: bigint, event: number): bigint[] {
  const words: bigint[] = [];
  for (let i = 0n; i < 8n; i++) {
    const word = state.read(at + 8n * i);
    if (word === undefined) throw new Stop(event, { address: at });
    words.push(word);
  }
  return words;
}

/** Stage 2 as an STE has it; undefined if its granule or its first level cannot be. */
export function s2Level(ste: readonly bigint[]): Level | undefined {
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

/** 5.2: whether an STE is ILLEGAL. */
export function isBadSte(ste: readonly bigint[], quirks: ReadonlySet<Quirk>): boolean {
  if (!flag(ste[0], 0)) return true;
  const config = get(ste[0], 3, 1);
  if (config < 4n) return false;
  const s1 = flag(ste[0], 1);
  const s2 = flag(ste[0], 2);
  const stalld = flag(ste[1], 27);
  if (stalld && (s1 || quirks.has('s1stalld'))) return true;
  if ((s1 || s2) && quirks.has('s1cdmax') && get(ste[0], 63, 59) !== 0n) return true;
  if (s1) {
    if (!s2 && (get(ste[0], 55, 6) << 6n) >> BigInt(OAS) !== 0n) return !quirks.has('s1contextptr');
  }
  if (!s2) return false;
  if (flag(ste[2], 57) || !flag(ste[2], 51) || flag(ste[2], 52)) return true;
  if ((flag(ste[2], 56) || flag(ste[2], 55)) && !quirks.has('s2ha')) return true;
  const level = s2Level(ste);
  if (level === undefined) return true;
  if (level.base >> BigInt(level.outputBits) !== 0n) return true;
  const t0sz = 64 - level.inputBits;
  if (t0sz < 64 - OAS || t0sz > 39) return true;
  if (quirks.has('s2-t0sz-ps') && level.inputBits > level.outputBits) return true;
  const bits = level.inputBits - (level.granule + (3 - level.start) * (level.granule - 3));
  if (bits > level.granule - 3 + 4) return true;
  return bits < 1 && !quirks.has('s2sl0-high');
}
