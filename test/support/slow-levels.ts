/** Shape and place of the slow walker's tables, as a legal STE or CD says. */

import { flag, get, type SlowIds, type SlowMachine } from './slow-machine.ts';

const SIZES = [32, 36, 40, 42, 44, 48, 52, 52];

/** Tables of one stage, or of one half of the address space. */
export interface Level {
  base: bigint;
  granule: number;
  start: number;
  inputBits: number;
  outputBits: number;
  ds: boolean;
}

/** The regime of stage 1. */
export type SlowWorld = 'EL1' | 'EL2' | 'EL2-E2H';
export function worldOf(machine: SlowMachine, ste: bigint[]): SlowWorld {
  if (!machine.ids.hyp || get(ste[0], 3, 1) !== 5n || get(ste[1], 31, 30) === 0n) return 'EL1';
  return machine.e2h ? 'EL2-E2H' : 'EL2';
}

export function s2Level(ids: SlowIds, ste: bigint[]): Level | undefined {
  const granule = [12, 16, 14, 0][Number(get(ste[2], 47, 46))];
  if (granule === 0) return undefined;
  const ds = ids.ds && flag(ste[3], 3) && granule !== 16;
  const sl0 = Number(get(ste[2], 39, 38)) + (ds && granule === 12 && flag(ste[3], 2) ? 4 : 0);
  const starts: Record<number, Record<number, number>> = {
    12: { 0: 2, 1: 1, 2: 0, ...(ids.stt ? { 3: 3 } : {}), ...(ds ? { 4: -1 } : {}) },
    14: { 0: 3, 1: 2, 2: 1, ...(ds ? { 3: 0 } : {}) },
    16: { 0: 3, 1: 2, 2: 1 },
  };
  const start = starts[granule][sl0];
  if (start === undefined) return undefined;
  return {
    base: ste[3] & 0xf_ffff_ffff_fff0n,
    granule,
    start,
    inputBits: 64 - Number(get(ste[2], 37, 32)),
    outputBits: Math.min(SIZES[Number(get(ste[2], 50, 48))], ids.oas),
    ds,
  };
}

export function s1Level(ids: SlowIds, cd: bigint[], upper: boolean): Level | undefined {
  const granule = upper
    ? [0, 14, 12, 16][Number(get(cd[0], 23, 22))]
    : [12, 16, 14, 0][Number(get(cd[0], 7, 6))];
  if (granule === 0) return undefined;
  const inputBits = 64 - Number(upper ? get(cd[0], 21, 16) : get(cd[0], 5, 0));
  let start = 3;
  while (granule + (3 - start + 1) * (granule - 3) < inputBits) start -= 1;
  return {
    base: cd[upper ? 2 : 1] & 0xf_ffff_ffff_fff0n,
    granule,
    start,
    inputBits,
    outputBits: Math.min(SIZES[Number(get(cd[0], 34, 32))], ids.oas),
    ds: ids.ds && flag(cd[2], 58) && granule !== 16,
  };
}
