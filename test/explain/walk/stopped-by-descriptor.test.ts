import { describe, expect, it } from 'vitest';
import { type CdFields, LEAF, RW_PAGE, S2_RW_PAGE } from '../../support/tables.ts';
import { type Access, NOWHERE, RAM, Rig } from '../../support/translation-rig.ts';
import { explain, causeOf, withLeaf, nested } from './explained-rig.ts';

describe('a stage 1 descriptor that stops a transaction', () => {
  const WRITE = { write: true };
  it.each<[string, bigint, CdFields, Access, string, string]>([
    ['AF', RW_PAGE & ~LEAF.AF, {}, {}, 'AF [10]', 'F_ACCESS'],
    ['AP[2]', RW_PAGE | LEAF.AP2, {}, WRITE, 'AP[2] [7]', 'F_PERMISSION'],
    ['AP[1]', RW_PAGE & ~LEAF.AP1, {}, {}, 'AP[1] [6]', 'F_PERMISSION'],
    ['UXN', RW_PAGE | LEAF.UXN, {}, { instruction: true }, 'UXN [54]', 'F_PERMISSION'],
    [
      'PXN',
      (RW_PAGE & ~LEAF.AP1) | LEAF.PXN,
      {},
      { instruction: true, privileged: true },
      'PXN [53]',
      'F_PERMISSION',
    ],
    ['WXN', RW_PAGE, { WXN: 1 }, { instruction: true }, 'CD.WXN [36]', 'F_PERMISSION'],
    ['PAN', RW_PAGE, { PAN: 1 }, { privileged: true }, 'CD.PAN [40]', 'F_PERMISSION'],
    [
      'AP[1]: privileged code does not run what others may write',
      RW_PAGE,
      {},
      { instruction: true, privileged: true },
      'AP[1] [6]',
      'F_PERMISSION',
    ],
  ])('%s', (_what, leaf, cd, access, cause, event) => {
    const found = explain(withLeaf(leaf, cd), 0x1000n, access);
    expect([causeOf(found), found.event]).toEqual([cause, event]);
  });

  it('valid bit, at the level where it is 0', () => {
    const found = explain(withLeaf(RW_PAGE), 0x2000n);
    expect(found.cause).toMatchObject({
      field: 'Valid',
      of: 'the level 3 descriptor of stage 1',
      bits: '[0]',
    });
    expect(explain(withLeaf(RW_PAGE), 0x4000_0000n).cause!.of).toBe('the level 1 descriptor of stage 1');
  });

  it('bit 1 of a page, and a block where there are none', () => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1);
    const leaf = table.map(0x1000n, 0x8000_1000n, RW_PAGE);
    rig.write(leaf, rig.read(leaf) & ~2n);
    expect(causeOf(explain(rig, 0x1000n))).toBe('Table [1]');
    const wide = new Rig();
    const top = wide.stage1({ log2Granule: 12, inputBits: 48 });
    top.map(0n, 0n, RW_PAGE, 0);
    wide.ste(1, { Config: 5, S1ContextPtr: wide.cd({ T0SZ: 16, IPS: 4, TTB0: top.base }) });
    const found = explain(wide, 0x1000n);
    expect([causeOf(found), found.cause!.of]).toEqual(['Table [1]', 'the level 0 descriptor of stage 1']);
  });

  it('an address that IPS does not allow', () => {
    const rig = withLeaf(RW_PAGE, { IPS: 1 });
    const { table } = rig.stage1Stream(2, { IPS: 1 });
    table.map(0x3000n, 1n << 36n, RW_PAGE);
    const found = explain(rig, 0x3000n, { sid: 2 });
    expect([causeOf(found), found.event]).toEqual(['Address [47:12]', 'F_ADDR_SIZE']);
    expect(found.cause!.text).toContain('0x1000000000 has more than the 36 bits');
  });

  it('a table where there is no memory', () => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1);
    rig.write(table.base + 8n, NOWHERE | 3n);
    const found = explain(rig, 0x4000_0000n);
    expect([causeOf(found), found.cause!.of, found.event]).toEqual([
      'Address [47:12]',
      'the level 1 descriptor of stage 1',
      'F_WALK_EABT',
    ]);
  });

  it('APTable of a table above, every one that has it, and the leaf behind it', () => {
    const rig = withLeaf(RW_PAGE | LEAF.AP2, {}, {}, 1n << 62n);
    const found = explain(rig, 0x1000n, WRITE);
    expect(found.cause).toMatchObject({
      field: 'APTable[1]',
      of: 'the level 1 descriptor of stage 1',
      bits: '[62]',
    });
    expect(found.cause!.also).toHaveLength(2);
    expect(found.cause!.also[1]).toContain('AP[2]=1');
  });

  it('is told of even where nobody records it', () => {
    const rig = withLeaf(RW_PAGE & ~LEAF.AF, { R: 0 });
    rig.cr0 = 5;
    const found = explain(rig, 0x1000n);
    expect([found.event, found.recorded]).toEqual(['F_ACCESS', false]);
    expect(found.summary).toContain('CD.R=0');
  });

  it('reads zero with CD.A=0', () => {
    const ids = { TERM_MODEL: 0 };
    const rig = withLeaf(RW_PAGE, { A: 0 }, ids);
    expect(explain(rig, 0x2000n, {}, ids).outcome).toBe('raz-wi');
  });
});

describe('a stage 2 descriptor that stops a transaction', () => {
  it.each<[string, bigint, Access, string, string]>([
    ['S2AP[0]', S2_RW_PAGE & ~LEAF.S2R, {}, 'S2AP[0] [6]', 'F_PERMISSION'],
    ['S2AP[1]', S2_RW_PAGE & ~LEAF.S2W, { write: true }, 'S2AP[1] [7]', 'F_PERMISSION'],
    ['XN', S2_RW_PAGE | (2n << 53n), { instruction: true }, 'XN[1] [54]', 'F_PERMISSION'],
    ['AF', S2_RW_PAGE & ~LEAF.AF, {}, 'AF [10]', 'F_ACCESS'],
  ])('%s', (_what, leaf, access, cause, event) => {
    const found = explain(nested(RW_PAGE, leaf), 0x1000n, access);
    expect([causeOf(found), found.cause!.of, found.event]).toEqual([
      cause,
      'the level 3 descriptor of stage 2',
      event,
    ]);
  });

  it('one that a stage 1 table needs', () => {
    const rig = nested(RW_PAGE);
    const s1 = rig.stage1();
    rig.write(s1.base, 0x6_0000_0003n);
    const { base } = s1;
    const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: base });
    const s2 = rig.stage2();
    rig.ste(2, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt });
    const found = explain(rig, 0x1000n, { sid: 2 });
    expect([causeOf(found), found.cause!.of, found.event]).toEqual([
      'Valid [0]',
      'the level 1 descriptor of stage 2',
      'F_TRANSLATION',
    ]);
  });

  it('write permission for a stage 1 table in which hardware would set AF (3.13.5)', () => {
    const ids = { HTTU: 2 };
    const rig = new Rig(ids);
    const s2 = rig.stage2();
    const s1 = rig.stage1();
    const at = s1.map(0x1000n, 0x4010_0000n, RW_PAGE & ~LEAF.AF);
    const above = s1.descriptors.at(-2)!;
    const leafAt2 = s2.map(0x5_0000_0000n, at & ~0xfffn, S2_RW_PAGE & ~LEAF.S2W);
    rig.write(above, 0x5_0000_0000n | 3n);
    const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: s1.base, HA: 1 });
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt });
    const before = rig.read(at);
    const found = explain(rig, 0x1000n, {}, ids);
    expect([found.event, causeOf(found)]).toEqual(['F_PERMISSION', 'S2AP[1] [7]']);
    expect(found.cause!.address).toBe(`0x${leafAt2.toString(16)}`);
    expect(rig.read(at)).toBe(before);
    // The same, in earnest.
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.events()).toMatchObject([{ type: 0x13, s2: true, cls: 1 }]);
  });

  it('XN[0], for privileged execution (13.4.3)', () => {
    const rig = nested(RW_PAGE & ~LEAF.AP1, S2_RW_PAGE | (1n << 53n));
    expect(causeOf(explain(rig, 0x1000n, { privileged: true, instruction: true }))).toBe('XN[0] [53]');
  });

  it('device memory under a table with S2PTW', () => {
    const rig = new Rig();
    const s2 = rig.stage2();
    const device = LEAF.AF | LEAF.S2R | LEAF.S2W;
    s2.map(0x5_0000_0000n, RAM + 0x80_0000n, device);
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S2PTW: 1, S1ContextPtr: 0x5_0000_0000n });
    const found = explain(rig, 0x1000n);
    expect([causeOf(found), found.event]).toEqual(['MemAttr [5:2]', 'F_PERMISSION']);
  });

  it('S2T0SZ', () => {
    const rig = new Rig();
    rig.ste(1, { ...rig.stage2Fields(rig.stage2()), Config: 6 });
    const found = explain(rig, 1n << 40n);
    expect([causeOf(found), found.event]).toEqual(['STE.S2T0SZ [165:160]', 'F_TRANSLATION']);
  });
});
