import { describe, expect, it } from 'vitest';
import {
  DESCRIPTOR,
  GRANULE_16K,
  GRANULE_4K,
  GRANULE_64K,
  S1_LEAF,
  S1_TABLE,
  S2_LEAF,
  log2BytesAt,
} from '../../src/spec/descriptors.ts';
import { expectNoOverlap, expectPlace } from './place.ts';

describe('VMSAv8-64 descriptors', () => {
  it.each([
    // ARM_LPAE_PTE_* of Linux's io-pgtable-arm.
    [DESCRIPTOR, 'Valid', 0, 0],
    [DESCRIPTOR, 'Table', 1, 1],
    [DESCRIPTOR, 'Address', 47, 12],
    [S1_TABLE, 'NSTable', 63, 63],
    [S1_TABLE, 'APTable', 62, 61],
    [S1_TABLE, 'UXNTable', 60, 60],
    [S1_TABLE, 'PXNTable', 59, 59],
    [S1_TABLE, 'AF', 10, 10],
    [S1_LEAF, 'AttrIndx', 4, 2],
    [S1_LEAF, 'NS', 5, 5],
    [S1_LEAF, 'AP', 7, 6],
    [S1_LEAF, 'SH', 9, 8],
    [S1_LEAF, 'AF', 10, 10],
    [S1_LEAF, 'nG', 11, 11],
    [S1_LEAF, 'nT', 16, 16],
    [S1_LEAF, 'DBM', 51, 51],
    [S1_LEAF, 'Contiguous', 52, 52],
    [S1_LEAF, 'PXN', 53, 53],
    [S1_LEAF, 'UXN', 54, 54],
    [S2_LEAF, 'MemAttr', 5, 2],
    [S2_LEAF, 'S2AP', 7, 6],
    [S2_LEAF, 'SH', 9, 8],
    [S2_LEAF, 'AF', 10, 10],
    [S2_LEAF, 'nT', 16, 16],
    [S2_LEAF, 'DBM', 51, 51],
    [S2_LEAF, 'Contiguous', 52, 52],
    [S2_LEAF, 'XN', 54, 53],
  ] as const)('%o: %s sits where Linux puts it', (layout, name, hi, lo) => {
    expectPlace(layout, 2, [name, 0, hi, lo]);
  });

  it.each([S1_TABLE, S1_LEAF, S2_LEAF])('%o gives no bit to two fields', (layout) => expectNoOverlap(layout));

  it('reads a page as Linux maps it for a device', () => {
    // 0x44159f47: page, AttrIndx 1, AP=0b01 (unprivileged read-write), Inner Shareable, AF, nG.
    const words = Uint32Array.of(0x4415_9f47, 0);
    expect(S1_LEAF.AP.get(words)).toBe(1);
    expect(S1_LEAF.SH.get(words)).toBe(3);
    expect(S1_LEAF.AF.get(words)).toBe(1);
    expect(S1_LEAF.nG.get(words)).toBe(1);
    expect(DESCRIPTOR.Address.getLo(words)).toBe(0x4415_9000);
  });
});

describe('granules', () => {
  it.each([
    [GRANULE_4K, 12, [39, 30, 21, 12]],
    [GRANULE_16K, 14, [47, 36, 25, 14]],
    [GRANULE_64K, 16, [55, 42, 29, 16]],
  ] as const)('%o resolve 512 GiB, 1 GiB, 2 MiB and 4 KiB, or their like', (granule, page, sizes) => {
    expect(granule.log2Size).toBe(page);
    expect([0, 1, 2, 3].map((level) => log2BytesAt(granule, level))).toEqual(sizes);
  });

  it('fill one page with one table', () => {
    for (const granule of [GRANULE_4K, GRANULE_16K, GRANULE_64K])
      expect(granule.stride).toBe(granule.log2Size - 3);
  });
});
