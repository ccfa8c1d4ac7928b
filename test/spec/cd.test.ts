import { describe, expect, it } from 'vitest';
import { CD, CD_SIZE, CD_TG0, CD_TG1, CD_WORDS } from '../../src/spec/cd.ts';
import { expectNoOverlap, expectPlace, type Place } from './place.ts';

/** As the masks of the Linux driver put them (CTXDESC_CD_n_*). It narrows TTB0 to [51:4]. */
const LINUX: readonly Place[] = [
  ['T0SZ', 0, 5, 0],
  ['TG0', 0, 7, 6],
  ['IR0', 0, 9, 8],
  ['OR0', 0, 11, 10],
  ['SH0', 0, 13, 12],
  ['EPD0', 0, 14, 14],
  ['ENDI', 0, 15, 15],
  ['EPD1', 0, 30, 30],
  ['V', 0, 31, 31],
  ['IPS', 0, 34, 32],
  ['TBI0', 0, 38, 38],
  ['AA64', 0, 41, 41],
  ['HD', 0, 42, 42],
  ['HA', 0, 43, 43],
  ['S', 0, 44, 44],
  ['R', 0, 45, 45],
  ['A', 0, 46, 46],
  ['ASET', 0, 47, 47],
  ['ASID', 0, 63, 48],
];

/** As IHI 0070 5.4 numbers them, where the driver has no mask. */
const ARCHITECTURE: readonly Place[] = [
  ['T1SZ', 0, 21, 16],
  ['TG1', 0, 23, 22],
  ['IR1', 0, 25, 24],
  ['OR1', 0, 27, 26],
  ['SH1', 0, 29, 28],
  ['AFFD', 0, 35, 35],
  ['WXN', 0, 36, 36],
  ['UWXN', 0, 37, 37],
  ['TBI1', 0, 39, 39],
  ['PAN', 0, 40, 40],
  ['NSCFG0', 1, 0, 0],
  ['HAD0', 1, 1, 1],
  ['E0PD0', 1, 2, 2],
  ['HAFT', 1, 3, 3],
  ['TTB0', 1, 55, 4],
  ['PnCH', 1, 58, 58],
  ['EPAN', 1, 59, 59],
  ['HWU059', 1, 60, 60],
  ['HWU060', 1, 61, 61],
  ['HWU061', 1, 62, 62],
  ['HWU062', 1, 63, 63],
  ['NSCFG1', 2, 0, 0],
  ['HAD1', 2, 1, 1],
  ['E0PD1', 2, 2, 2],
  ['AIE', 2, 3, 3],
  ['TTB1', 2, 55, 4],
  ['DS', 2, 58, 58],
  ['PIE', 2, 59, 59],
  ['HWU159', 2, 60, 60],
  ['HWU160', 2, 61, 61],
  ['HWU161', 2, 62, 62],
  ['HWU162', 2, 63, 63],
  ['MAIR0', 3, 31, 0],
  ['MAIR1', 3, 63, 32],
  ['AMAIR0', 4, 31, 0],
  ['AMAIR1', 4, 63, 32],
  ['PARTID', 5, 47, 32],
  ['PMG', 5, 55, 48],
];

describe('Context Descriptor', () => {
  it.each(LINUX)('%s sits where the Linux driver puts it', (...place) => expectPlace(CD, CD_WORDS, place));
  it.each(ARCHITECTURE)('%s sits where IHI 0070 numbers it', (...place) => expectPlace(CD, CD_WORDS, place));

  it('leaves no field without a second source', () => {
    const known = [...LINUX, ...ARCHITECTURE].map(([name]) => name);
    expect(Object.keys(CD).sort()).toEqual(known.sort());
  });

  it('gives no bit to two fields', () => expectNoOverlap(CD));

  it('is 64 bytes', () => expect([CD_SIZE, CD_WORDS * 4]).toEqual([64, 64]));

  it('encodes the granules of the two halves differently', () => {
    expect(CD_TG0).toEqual({ Granule4K: 0, Granule64K: 1, Granule16K: 2 });
    expect(CD_TG1).toEqual({ Granule16K: 1, Granule4K: 2, Granule64K: 3 });
  });
});
