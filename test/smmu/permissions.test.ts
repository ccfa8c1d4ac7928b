import { describe, expect, it } from 'vitest';
import { type Access, Rig } from '../support/translation-rig.ts';
import { type CdFields, LEAF, PageTable, RW_PAGE, S2_RW_PAGE, type SteFields } from '../support/tables.ts';

const { AP1, AP2, PXN, UXN } = LEAF;
const BASE = LEAF.AF | LEAF.nG;
const ACCESSES: readonly [string, Access][] = [
  ['r', {}],
  ['w', { write: true }],
  ['x', { instruction: true }],
  ['R', { privileged: true }],
  ['W', { privileged: true, write: true }],
  ['X', { privileged: true, instruction: true }],
];

/** Which accesses a stage 1 page allows: r w x for unprivileged, R W X for privileged ones. */
function allowed(leaf: bigint, cd: CdFields = {}, ids = {}, ste: SteFields = {}, tableBits = 0n): string {
  let found = '';
  for (const [name, access] of ACCESSES) {
    // A device of its own each, so that no TLB helps.
    const rig = new Rig(ids);
    const { table } = rig.stage1Stream(1, cd, ste);
    table.map(0x1000n, 0x8000_1000n, BASE | leaf);
    rig.write(table.base, rig.read(table.base) | tableBits);
    if (rig.access(1, 0x1000n, access).startsWith('ok')) found += name;
  }
  return found;
}

describe('stage 1 permissions', () => {
  it.each<[string, bigint, CdFields, string]>([
    ['AP=0', 0n, {}, 'xRWX'],
    ['AP=1', AP1, {}, 'rwxRW'],
    ['AP=2', AP2, {}, 'xRX'],
    ['AP=3', AP1 | AP2, {}, 'rxRX'],
    ['AP=1, UXN', AP1 | UXN, {}, 'rwRW'],
    ['AP=3, UXN', AP1 | AP2 | UXN, {}, 'rRX'],
    ['AP=3, PXN', AP1 | AP2 | PXN, {}, 'rxR'],
    ['AP=0, PXN and UXN', PXN | UXN, {}, 'RW'],
    ['AP=0, WXN', 0n, { WXN: 1 }, 'xRW'],
    ['AP=1, WXN', AP1, { WXN: 1 }, 'rwRW'],
    ['AP=3, WXN', AP1 | AP2, { WXN: 1 }, 'rxRX'],
    ['AP=1, PAN', AP1, { PAN: 1 }, 'rwx'],
    ['AP=3, PAN', AP1 | AP2, { PAN: 1 }, 'rxX'],
    ['AP=0, PAN', 0n, { PAN: 1 }, 'xRWX'],
    ['AP=0, PAN with EPAN unsupported', 0n, { PAN: 1, EPAN: 1 }, 'xRWX'],
  ])('%s', (_what, leaf, cd, expected) => {
    expect(allowed(leaf, cd)).toBe(expected);
  });

  it.each<[string, bigint, CdFields, string]>([
    ['what may be executed unprivileged', 0n, { PAN: 1, EPAN: 1 }, 'xX'],
    ['but not what may not', UXN, { PAN: 1, EPAN: 1 }, 'RWX'],
    ['and nothing with EPAN=0', 0n, { PAN: 1 }, 'xRWX'],
  ])('with EPAN: PAN covers %s', (_what, leaf, cd, expected) => {
    expect(allowed(leaf, cd, { EPAN: 1 })).toBe(expected);
  });

  it.each<[string, bigint, CdFields, string]>([
    ['APTable=1', 1n << 61n, {}, 'xRWX'],
    ['APTable=2', 2n << 61n, {}, 'rxRX'],
    ['APTable=3', 3n << 61n, {}, 'xRX'],
    ['PXNTable', 1n << 59n, {}, 'rwxRW'],
    ['UXNTable', 1n << 60n, {}, 'rwRW'],
    ['all, with HAD0', 31n << 59n, { HAD0: 1 }, 'rwxRW'],
    ['all, with HAD1 only', 31n << 59n, { HAD1: 1 }, 'R'],
  ])('%s above a page with AP=1', (_what, tableBits, cd, expected) => {
    expect(allowed(AP1, cd, {}, {}, tableBits)).toBe(expected);
  });

  it.each<[string, bigint, CdFields, string]>([
    ['AP[1] and PXN do not count', PXN, {}, 'rwxRWX'],
    ['UXN is XN', UXN, {}, 'rwRW'],
    ['AP[2] refuses writes', AP2, {}, 'rxRX'],
    ['PAN does not count', AP1, { PAN: 1 }, 'rwxRWX'],
    ['WXN does', AP1, { WXN: 1 }, 'rwRW'],
  ])('in plain EL2: %s', (_what, leaf, cd, expected) => {
    expect(allowed(leaf, cd, { HYP: 1 }, { STRW: 2 })).toBe(expected);
  });

  it('in EL2 with E2H are as in EL1', () => {
    const rig = new Rig({ HYP: 1 });
    rig.cr2 = 1;
    const { table } = rig.stage1Stream(1, {}, { STRW: 2 });
    table.map(0x1000n, 0x8000_1000n, BASE);
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.access(1, 0x1000n, { privileged: true })).toBe('ok 80001000');
  });

  it.each<[string, SteFields, string]>([
    ['PRIVCFG=2', { PRIVCFG: 2 }, 'xX'],
    ['PRIVCFG=3', { PRIVCFG: 3 }, 'rwxRWX'],
    ['PRIVCFG=1', { PRIVCFG: 1 }, 'xRWX'],
    ['INSTCFG=2', { INSTCFG: 2 }, 'RWX'],
    ['INSTCFG=3', { INSTCFG: 3 }, 'rxRWX'],
  ])('with %s, for a page of AP=0', (_what, ste, expected) => {
    expect(allowed(0n, {}, { ATTR_PERMS_OVR: 1 }, ste)).toBe(expected);
    expect(allowed(0n, {}, {}, ste)).toBe('xRWX');
  });
});

describe('stage 2 permissions', () => {
  function allowed2(leaf: bigint, ids = {}): string {
    let found = '';
    for (const [name, access] of ACCESSES) {
      const rig = new Rig(ids);
      const table = rig.stage2();
      table.map(0x5_0000_0000n, 0x8000_0000n, (S2_RW_PAGE & ~(3n << 6n)) | leaf);
      rig.ste(1, { ...rig.stage2Fields(table), Config: 6 });
      if (rig.access(1, 0x5_0000_0000n, access).startsWith('ok')) found += name;
    }
    return found;
  }

  it.each([
    [0n, 0n, 'xX'],
    [1n, 0n, 'rxRX'],
    [2n, 0n, 'wxWX'],
    [3n, 0n, 'rwxRWX'],
    [3n, 1n, 'rwxRW'],
    [3n, 2n, 'rwRW'],
    [3n, 3n, 'rwRWX'],
  ])('S2AP=%i, XN=%i', (s2ap, xn, expected) => {
    expect(allowed2((s2ap << 6n) | (xn << 53n))).toBe(expected);
  });

  it.each([
    [1n, 'rwxRWX'],
    [3n, 'rwRW'],
  ])('without XNX only XN[1] counts: XN=%i', (xn, expected) => {
    expect(allowed2((3n << 6n) | (xn << 53n), { XNX: 0, HAD: 0, ArchMinorRev: 0 })).toBe(expected);
  });
});

describe('the first table', () => {
  /** A stage 1 stream whose first table has two entries, which lies at `offset` in 64 bytes, with this TTB0. */
  function small(ids: object, IPS: number, offset: bigint, ttbOffset: bigint): string {
    const rig = new Rig(ids);
    const space = {
      ...rig.space,
      take: (size: bigint) => rig.allocator.take(size) + (size === 16n ? offset : 0n),
    };
    const table = new PageTable(space, { log2Granule: 12, inputBits: 40 });
    table.map(0x1000n, 0x8000_1000n, RW_PAGE);
    const TTB0 = table.base - offset + ttbOffset;
    rig.ste(1, { Config: 5, S1ContextPtr: rig.cd({ T0SZ: 24, IPS, TTB0 }) });
    return rig.access(1, 0x1000n);
  }

  it('is aligned to its own size, 16 bytes here', () => {
    expect(small({}, 4, 16n, 16n)).toBe('ok 80001000');
  });

  it('is aligned to 64 bytes if its address may have 52 bits', () => {
    const ids = { OAS: 6, DS: 1, VAX: 1 };
    expect(small(ids, 6, 0n, 16n)).toBe('ok 80001000');
    expect(small(ids, 5, 16n, 16n)).toBe('ok 80001000');
  });
});
