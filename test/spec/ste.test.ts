import { describe, expect, it } from 'vitest';
import { STE, STE_CONFIG, STE_EATS, STE_S1DSS, STE_S1FMT, STE_SIZE, STE_WORDS } from '../../src/spec/ste.ts';
import { expectNoOverlap, expectPlace, type Place } from './place.ts';

/** As the masks of the Linux driver put them (STRTAB_STE_n_*). It narrows the two addresses to [51:x]. */
const LINUX: readonly Place[] = [
  ['V', 0, 0, 0],
  ['Config', 0, 3, 1],
  ['S1Fmt', 0, 5, 4],
  ['S1CDMax', 0, 63, 59],
  ['S1DSS', 1, 1, 0],
  ['S1CIR', 1, 3, 2],
  ['S1COR', 1, 5, 4],
  ['S1CSH', 1, 7, 6],
  ['PPAR', 1, 18, 18],
  ['MEV', 1, 19, 19],
  ['S2FWB', 1, 25, 25],
  ['S1STALLD', 1, 27, 27],
  ['EATS', 1, 29, 28],
  ['STRW', 1, 31, 30],
  ['SHCFG', 1, 45, 44],
  ['S2VMID', 2, 15, 0],
  ['S2T0SZ', 2, 37, 32],
  ['S2SL0', 2, 39, 38],
  ['S2IR0', 2, 41, 40],
  ['S2OR0', 2, 43, 42],
  ['S2SH0', 2, 45, 44],
  ['S2TG', 2, 47, 46],
  ['S2PS', 2, 50, 48],
  ['S2AA64', 2, 51, 51],
  ['S2ENDI', 2, 52, 52],
  ['S2PTW', 2, 54, 54],
  ['S2S', 2, 57, 57],
  ['S2R', 2, 58, 58],
];

/** As IHI 0070 5.2 numbers them, where the driver has no mask. */
const ARCHITECTURE: readonly Place[] = [
  ['S1ContextPtr', 0, 55, 6],
  ['S2HWU59', 1, 8, 8],
  ['S2HWU60', 1, 9, 9],
  ['S2HWU61', 1, 10, 10],
  ['S2HWU62', 1, 11, 11],
  ['DRE', 1, 12, 12],
  ['CONT', 1, 16, 13],
  ['DCP', 1, 17, 17],
  ['SW_RESERVED', 1, 23, 20],
  ['S1PIE', 1, 24, 24],
  ['S1MPAM', 1, 26, 26],
  ['MemAttr', 1, 35, 32],
  ['MTCFG', 1, 36, 36],
  ['ALLOCCFG', 1, 40, 37],
  ['NSCFG', 1, 47, 46],
  ['PRIVCFG', 1, 49, 48],
  ['INSTCFG', 1, 51, 50],
  ['S2AFFD', 2, 53, 53],
  ['S2HD', 2, 55, 55],
  ['S2HA', 2, 56, 56],
  ['S2HAFT', 2, 59, 59],
  ['S2PIE', 2, 60, 60],
  ['S2POE', 2, 61, 61],
  ['DPT_VMATCH', 2, 63, 62],
  ['S2SL0_2', 3, 2, 2],
  ['S2DS', 3, 3, 3],
  ['S2TTB', 3, 55, 4],
  ['PARTID', 4, 31, 16],
  ['PMG', 5, 7, 0],
  ['VMSPtr', 5, 55, 12],
];

describe('Stream Table Entry', () => {
  it.each(LINUX)('%s sits where the Linux driver puts it', (...place) => expectPlace(STE, STE_WORDS, place));
  it.each(ARCHITECTURE)('%s sits where IHI 0070 numbers it', (...place) =>
    expectPlace(STE, STE_WORDS, place),
  );

  it('leaves no field without a second source', () => {
    const known = [...LINUX, ...ARCHITECTURE].map(([name]) => name);
    expect(Object.keys(STE).sort()).toEqual(known.sort());
  });

  it('gives no bit to two fields', () => expectNoOverlap(STE));

  it('is 64 bytes', () => expect([STE_SIZE, STE_WORDS * 4]).toEqual([64, 64]));

  it('is what Linux writes for a nested stream', () => {
    // First two words that a 6.12 guest wrote for a stage 1 stream: V, Config=5, S1ContextPtr, WBRA, ISH, S1DSS=2.
    const words = Uint32Array.of(0x4403_800b, 0, 0xd6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    expect(STE.V.get(words)).toBe(1);
    expect(STE.Config.get(words)).toBe(STE_CONFIG.S1);
    expect(STE.S1Fmt.get(words)).toBe(STE_S1FMT.Linear);
    expect(STE.S1ContextPtr.getLo(words)).toBe(0x4403_8000);
    expect(STE.S1DSS.get(words)).toBe(STE_S1DSS.Ssid0);
    expect(STE.S1CSH.get(words)).toBe(3);
    expect(STE.EATS.get(words)).toBe(STE_EATS.Disabled);
  });
});
