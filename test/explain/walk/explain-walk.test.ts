import { describe, expect, it } from 'vitest';
import { explainWalk } from '../../../src/explain/walk/explain-walk.ts';
import { formatWalk } from '../../../src/explain/walk/format-walk.ts';
import type { WalkExplanation } from '../../../src/explain/walk/walk.ts';
import { identify, QEMU_LIKE, type IdFields } from '../../../src/smmu/identification.ts';
import { Smmu } from '../../../src/smmu/smmu.ts';
import { KIND, Transaction } from '../../../src/smmu/transaction.ts';
import {
  type CdFields,
  hiOf,
  LEAF,
  loOf,
  RW_PAGE,
  S2_RW_PAGE,
  type SteFields,
} from '../../support/tables.ts';
import { type Access, NOWHERE, RAM, Rig, STRTAB } from '../../support/translation-rig.ts';

/** Explains a transaction on an SMMU whose registers and memory are those of the rig. */
function explain(
  rig: Rig,
  address: bigint,
  access: Access & { sid?: number } = {},
  ids: IdFields = {},
): WalkExplanation {
  const smmu = new Smmu({
    ids: identify(QEMU_LIKE, ids),
    memory: rig.memory,
    interrupts: { raise() {}, writeMsi: () => true },
  });
  smmu.registers.set(rig.registers);
  const { ssid, ...rest } = access;
  return explainWalk(
    smmu,
    Object.assign(new Transaction(), { sid: 1, ...rest }, ssid === undefined ? {} : { ssv: true, ssid }, {
      addrHi: hiOf(address),
      addrLo: loOf(address),
    }),
  );
}

/** `<field> <bits>` of the cause. */
const causeOf = ({ cause }: WalkExplanation): string =>
  cause === undefined ? 'none' : `${cause.field} ${cause.bits ?? ''}`.trim();

/** A rig with stage 1 of StreamID 1 that maps 0x1000 with this leaf. */
function withLeaf(leaf: bigint, cd: CdFields = {}, ids: IdFields = {}, tables = 0n): Rig {
  const rig = new Rig(ids);
  const table = rig.stage1();
  table.map(0x1000n, 0x8000_1000n, leaf, 3, tables);
  rig.ste(1, { Config: 5, S1ContextPtr: rig.cd({ T0SZ: 25, IPS: 4, TTB0: table.base, ...cd }) });
  return rig;
}

/** A rig with both stages of StreamID 1: VA 0x1000 is IPA 0x5_0000_1000 is PA 0x8000_1000. */
function nested(leaf: bigint, leaf2: bigint = S2_RW_PAGE, ste: SteFields = {}): Rig {
  const rig = new Rig();
  const s2 = rig.stage2();
  s2.map(0x5_0000_1000n, 0x8000_1000n, leaf2);
  const s1 = rig.stage1();
  s1.map(0x1000n, 0x5_0000_1000n, leaf);
  const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: s1.base });
  rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt, ...ste });
  return rig;
}

describe('a register that stops a transaction', () => {
  it('GBPA.ABORT with SMMUEN=0', () => {
    const rig = new Rig();
    rig.cr0 = 0;
    rig.registers[0x44 >>> 2] = 1 << 20;
    const found = explain(rig, 0x1000n);
    expect([found.outcome, found.event, causeOf(found)]).toEqual(['abort', undefined, 'GBPA.ABORT [20]']);
    expect(found.steps).toHaveLength(1);
  });

  it('CR0.SMMUEN for ATS', () => {
    const rig = new Rig();
    rig.cr0 = 0;
    const found = explain(rig, 0x1000n, { kind: KIND.AtsRequest }, { ATS: 1, NS1ATS: 1 });
    expect([found.outcome, found.event, causeOf(found)]).toEqual([
      'unsupported-request',
      'F_BAD_ATS_TREQ',
      'CR0.SMMUEN [0]',
    ]);
  });

  it('none: with SMMUEN=0 and ABORT=0 it passes, but for addresses that are too large', () => {
    const rig = new Rig();
    rig.cr0 = 0;
    expect(explain(rig, 0x1234n)).toMatchObject({ outcome: 'ok', pa: '0x1234' });
    expect(causeOf(explain(rig, 1n << 44n))).toBe('IDR5.OAS');
  });

  it.each([
    ['the end of the stream table', 2, 300, 'STRTAB_BASE_CFG.LOG2SIZE [5:0]', true],
    ['the same, which nobody wants to hear of', 0, 300, 'STRTAB_BASE_CFG.LOG2SIZE [5:0]', false],
  ])('%s', (_what, cr2, sid, cause, recorded) => {
    const rig = new Rig();
    rig.cr0 = 5;
    rig.cr2 = cr2;
    const found = explain(rig, 0n, { sid });
    expect([found.event, causeOf(found), found.recorded]).toEqual(['C_BAD_STREAMID', cause, recorded]);
  });

  it('STRTAB_BASE where there is no memory', () => {
    const rig = new Rig();
    rig.strtab(NOWHERE, 8);
    const found = explain(rig, 0n);
    expect([found.event, causeOf(found)]).toEqual(['F_STE_FETCH', 'STRTAB_BASE.ADDR']);
    expect(found.cause!.text).toContain('0x90000040');
  });
});

describe('an L1STD that stops a transaction', () => {
  it.each([
    ['nothing below', 0n, 'C_BAD_STREAMID', 'L1STD.Span [4:0]'],
    ['more than SPLIT allows', 8n, 'C_BAD_STREAMID', 'L1STD.Span [4:0]'],
    ['too few STEs', 1n, 'C_BAD_STREAMID', 'L1STD.Span [4:0]'],
    ['no memory below', NOWHERE | 7n, 'F_STE_FETCH', 'L1STD.L2Ptr [55:6]'],
  ])('%s', (_what, l1std, event, cause) => {
    const rig = new Rig();
    rig.strtab(STRTAB, 8 | (6 << 6) | (1 << 16));
    rig.write(STRTAB, l1std);
    const found = explain(rig, 0n, { sid: 3 });
    expect([found.event, causeOf(found), found.cause!.address]).toEqual([event, cause, '0x40000000']);
  });
});

describe('an STE that stops a transaction', () => {
  it('with a SPLIT that is reserved acts as with 6, and says so (6.3.25)', () => {
    const rig = new Rig();
    rig.strtab(STRTAB, 8 | (1 << 16));
    rig.write(STRTAB, (RAM + 0x1_0000n) | 8n);
    const found = explain(rig, 0n, { sid: 0 });
    expect(found.cause!.text).toMatch('Span=8 is more than SPLIT=6 allows');
    expect(found.steps[0].text).toMatch('up to 64 STEs below each L1STD');
  });

  it('at an address that is not aligned to its size is where the SMMU looks (6.3.24)', () => {
    const rig = new Rig();
    rig.strtab(STRTAB + 0x1000n, 8);
    expect(explain(rig, 0n).steps[0].text).toMatch('at 0x40000000 (0x40001000 is not aligned to its size');
  });

  it.each<[string, CdFields | undefined, SteFields, RegExp]>([
    ['TTB0', { IPS: 6, TTB0: 1n << 48n }, { Config: 5 }, /48 bits that this granule has with DS=0/],
    ['TTB0', { IPS: 1, TTB0: 1n << 48n }, { Config: 5 }, /36 bits that IPS=1 allows/],
    [
      'S2TTB',
      undefined,
      { Config: 6, S2PS: 6, S2TTB: 1n << 48n },
      /48 bits that this granule has with S2DS=0/,
    ],
  ])('%s beyond what its address can be says which limit (5.4 TTB0, 5.2 S2TTB)', (_what, cd, ste, text) => {
    const ids = { OAS: 6, VAX: 1, DS: 1 };
    const rig = new Rig(ids);
    const S1ContextPtr = rig.cd({ T0SZ: 25, ...cd });
    rig.ste(1, { ...rig.stage2Fields(rig.stage2()), S1ContextPtr, ...ste });
    expect(explain(rig, 0x1000n, {}, ids).cause!.text).toMatch(text);
  });

  it.each<[string, SteFields, IdFields, string, string | undefined]>([
    ['V=0', { V: 0 }, {}, 'STE.V [0]', 'C_BAD_STE'],
    ['Config=abort', { Config: 0 }, {}, 'STE.Config [3:1]', undefined],
    ['Config=0b011', { Config: 3 }, {}, 'STE.Config [3:1]', undefined],
    ['stage 2 that is not there', { Config: 6 }, { S2P: 0 }, 'STE.Config [3:1]', 'C_BAD_STE'],
    ['S1CDMax', { Config: 5, S1CDMax: 9 }, { SSIDSIZE: 8 }, 'STE.S1CDMax [63:59]', 'C_BAD_STE'],
    ['S1ContextPtr', { Config: 5, S1ContextPtr: 1n << 44n }, {}, 'STE.S1ContextPtr [55:6]', 'C_BAD_STE'],
    ['S1STALLD', { Config: 5, S1STALLD: 1 }, {}, 'STE.S1STALLD [91]', 'C_BAD_STE'],
    ['S2AA64', { Config: 6 }, {}, 'STE.S2AA64 [179]', 'C_BAD_STE'],
    ['S2T0SZ', { Config: 6, S2AA64: 1, S2T0SZ: 15 }, {}, 'STE.S2T0SZ [165:160]', 'C_BAD_STE'],
    ['S2SL0', { Config: 6, S2AA64: 1, S2T0SZ: 25, S2SL0: 3 }, {}, 'STE.S2SL0 [167:166]', 'C_BAD_STE'],
    ['S2TG', { Config: 6, S2AA64: 1, S2TG: 3 }, {}, 'STE.S2TG [175:174]', 'C_BAD_STE'],
    ['S2HA', { Config: 6, S2AA64: 1, S2HA: 1 }, {}, 'STE.S2HA [184]', 'C_BAD_STE'],
    ['S1DSS', { Config: 5, S1CDMax: 2 }, { SSIDSIZE: 8 }, 'STE.S1DSS [65:64]', 'F_STREAM_DISABLED'],
    [
      'no memory at S1ContextPtr',
      { Config: 5, S1ContextPtr: NOWHERE },
      {},
      'STE.S1ContextPtr [55:6]',
      'F_CD_FETCH',
    ],
  ])('%s', (_what, ste, ids, cause, event) => {
    const rig = new Rig(ids);
    rig.ste(1, ste);
    const found = explain(rig, 0x1000n, {}, ids);
    expect([causeOf(found), found.event]).toEqual([cause, event]);
    expect(found.cause!.address).toBe('0x40000040');
    expect(found.outcome).toBe('abort');
  });

  it.each<[string, SteFields, IdFields, number, string]>([
    ['without stage 1', { Config: 4 }, { SSIDSIZE: 8 }, 1, 'STE.Config [3:1]'],
    ['without substreams', { Config: 5 }, { SSIDSIZE: 8 }, 1, 'STE.S1CDMax [63:59]'],
    ['behind the last', { Config: 5, S1CDMax: 2 }, { SSIDSIZE: 8 }, 4, 'STE.S1CDMax [63:59]'],
    ['in an SMMU without', { Config: 5 }, {}, 1, 'IDR1.SSIDSIZE'],
  ])('a SubstreamID %s', (_what, ste, ids, ssid, cause) => {
    const rig = new Rig(ids);
    rig.ste(1, ste);
    const found = explain(rig, 0x1000n, { ssid }, ids);
    expect([causeOf(found), found.event]).toEqual([cause, 'C_BAD_SUBSTREAMID']);
  });

  it('SubstreamID 0 that S1DSS keeps for others', () => {
    const ids = { SSIDSIZE: 8 };
    const rig = new Rig(ids);
    rig.ste(1, { Config: 5, S1CDMax: 2, S1DSS: 2 });
    const found = explain(rig, 0x1000n, { ssid: 0 }, ids);
    expect([causeOf(found), found.event]).toEqual(['STE.S1DSS [65:64]', 'F_STREAM_DISABLED']);
  });

  it('an L1CD that is not valid', () => {
    const ids = { SSIDSIZE: 8, CD2L: 1 };
    const rig = new Rig(ids);
    const l1 = rig.allocator.take(64n);
    rig.ste(1, { Config: 5, S1CDMax: 8, S1Fmt: 1, S1ContextPtr: l1 });
    const found = explain(rig, 0x1000n, { ssid: 65 }, ids);
    expect([causeOf(found), found.cause!.address]).toEqual(['L1CD.V [0]', `0x${(l1 + 8n).toString(16)}`]);
  });

  it('an address beyond the OAS in a stream that bypasses', () => {
    const rig = new Rig();
    rig.ste(1, { Config: 4 });
    const found = explain(rig, 1n << 44n);
    expect([causeOf(found), found.event]).toEqual(['IDR5.OAS', 'F_ADDR_SIZE']);
  });

  it.each<[string, number, SteFields, IdFields, Access, string]>([
    ['EATS=0', 1, { Config: 5 }, { ATS: 1 }, { kind: KIND.AtsRequest }, 'STE.EATS [93:92]'],
    ['EATS=3', 1, { Config: 5, EATS: 3 }, { ATS: 1 }, { kind: KIND.AtsRequest }, 'STE.EATS [93:92]'],
    ['Config', 17, { Config: 4, EATS: 1 }, { ATS: 1 }, { kind: KIND.AtsTranslated }, 'STE.Config [3:1]'],
    ['an SMMU without ATS', 1, { Config: 5, EATS: 1 }, {}, { kind: KIND.AtsRequest }, 'IDR0.ATS'],
    ['the same for what is translated', 1, { Config: 4 }, {}, { kind: KIND.AtsTranslated }, 'IDR0.ATS'],
  ])('%s, for ATS (5.2 EATS)', (_what, cr0, ste, ids, access, cause) => {
    const rig = new Rig(ids);
    rig.cr0 = cr0;
    rig.ste(1, ste);
    expect(causeOf(explain(rig, 0x1000n, access, ids))).toBe(cause);
  });

  it('S1DSS, for what is translated and so counts as without a SubstreamID (3.9.1.3)', () => {
    const ids = { ATS: 1, SSIDSIZE: 8 };
    const rig = new Rig(ids);
    rig.cr0 = 17;
    rig.ste(1, { Config: 5, EATS: 1, S1CDMax: 2 });
    const found = explain(rig, 0x1000n, { kind: KIND.AtsTranslated, ssid: 1 }, ids);
    expect(found.cause!.text).toMatch('S1DSS=0 terminates traffic without a SubstreamID');
  });

  it('CR0.ATSCHK, for split-stage ATS', () => {
    const ids = { ATS: 1, NS1ATS: 0 };
    const rig = nested(RW_PAGE, S2_RW_PAGE, { EATS: 2 });
    expect(causeOf(explain(rig, 0x1000n, { kind: KIND.AtsRequest }, ids))).toBe('CR0.ATSCHK [4]');
  });

  it('is recorded for a translated transaction too if stage 2 cannot be read (3.9.1.3)', () => {
    const ids = { ATS: 1, NS1ATS: 0 };
    const rig = new Rig(ids);
    rig.cr0 = 0b10101;
    const s2 = rig.stage2();
    rig.write(s2.base + 8n * 20n, NOWHERE | 3n);
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, EATS: 2 });
    const found = explain(rig, 20n << 30n, { kind: KIND.AtsTranslated }, ids);
    expect([found.event, found.recorded]).toEqual(['F_WALK_EABT', true]);
  });

  it('EATS, for ATS', () => {
    const ids = { ATS: 1, NS1ATS: 1 };
    const rig = withLeaf(RW_PAGE, {}, ids);
    const found = explain(rig, 0x1000n, { kind: KIND.AtsRequest }, ids);
    expect([causeOf(found), found.event]).toEqual(['STE.EATS [93:92]', 'F_BAD_ATS_TREQ']);
  });
});

describe('a CD that stops a transaction', () => {
  it.each<[string, CdFields, IdFields, string]>([
    ['V=0', { V: 0 }, {}, 'CD.V [31]'],
    ['A=0 where only aborts are', { A: 0 }, {}, 'CD.A [46]'],
    ['S=1 without stalls', { S: 1 }, {}, 'CD.S [44]'],
    ['AA64=0', { AA64: 0 }, {}, 'CD.AA64 [41]'],
    ['HA=1 without HTTU', { HA: 1 }, {}, 'CD.HA [43]'],
    ['TG0', { TG0: 3 }, {}, 'CD.TG0 [7:6]'],
    ['T0SZ', { T0SZ: 10 }, {}, 'CD.T0SZ [5:0]'],
    ['TTB0', { IPS: 0, TTB0: 1n << 40n }, {}, 'CD.TTB0 [119:68]'],
    ['TG1', { EPD1: 0, TG1: 0 }, {}, 'CD.TG1 [23:22]'],
    ['ENDI', { ENDI: 1 }, {}, 'CD.ENDI [15]'],
    ['ASID', { ASID: 256 }, { ASID16: 0 }, 'CD.ASID [63:48]'],
  ])('%s', (_what, cd, ids, cause) => {
    const found = explain(withLeaf(RW_PAGE, cd, ids), 0x1000n, {}, ids);
    expect([causeOf(found), found.event]).toEqual([cause, 'C_BAD_CD']);
  });

  it('is named by its physical address behind stage 2', () => {
    const rig = new Rig();
    const s2 = rig.stage2();
    s2.map(0x5_0000_0000n, RAM + 0x80_0000n, S2_RW_PAGE);
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: 0x5_0000_0040n });
    const found = explain(rig, 0x1000n);
    expect(found.cause).toMatchObject({ field: 'CD.V', address: '0x40800040' });
    expect(found.steps.at(-1)!.text).toContain('0x500000040');
  });

  it.each<[string, CdFields, bigint, string]>([
    ['T0SZ: beyond what TTB0 translates', {}, 1n << 39n, 'CD.T0SZ [5:0]'],
    ['EPD0', { EPD0: 1 }, 0x1000n, 'CD.EPD0 [14]'],
    ['EPD1', {}, 0xffff_ffff_ffff_0000n, 'CD.EPD1 [30]'],
  ])('%s', (_what, cd, address, cause) => {
    const found = explain(withLeaf(RW_PAGE, cd), address);
    expect([causeOf(found), found.event]).toEqual([cause, 'F_TRANSLATION']);
  });

  it('STRW, for an address of the upper half in EL2 (5.2 STRW)', () => {
    const rig = new Rig({ HYP: 1 });
    rig.stage1Stream(1, { EPD1: 0 }, { STRW: 2 });
    const found = explain(rig, 0xffff_ffff_ffff_1000n, {}, { HYP: 1 });
    expect([causeOf(found), found.event]).toEqual(['STE.STRW [95:94]', 'F_TRANSLATION']);
  });

  it('E0PD0', () => {
    const ids = { E0PD: 1 };
    const found = explain(withLeaf(RW_PAGE, { E0PD0: 1 }, ids), 0x1000n, {}, ids);
    expect([causeOf(found), found.event]).toEqual(['CD.E0PD0 [66]', 'F_TRANSLATION']);
  });

  it('TTB0 where there is no memory', () => {
    const found = explain(withLeaf(RW_PAGE, { TTB0: NOWHERE }), 0x1000n);
    expect([causeOf(found), found.event]).toEqual(['CD.TTB0 [119:68]', 'F_WALK_EABT']);
  });
});

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

describe('a translation that succeeds', () => {
  const names = ({ steps }: WalkExplanation): string[] => steps.map(({ name }) => name);

  it('shows every step with its address and value: pages of 4 KiB', () => {
    const found = explain(withLeaf(RW_PAGE), 0x1234n);
    expect(found).toMatchObject({ outcome: 'ok', pa: '0x80001234', log2Size: 12 });
    expect(found.cause).toBeUndefined();
    expect(names(found)).toEqual([
      'STRTAB_BASE, STRTAB_BASE_CFG',
      'STE of StreamID 0x1',
      'CD of the stream',
      'stage 1',
      'level 1',
      'level 2',
      'level 3',
      'permissions',
      'output of stage 1',
    ]);
    const [, ste, cd, , , , leaf, permissions] = found.steps;
    expect(ste.address).toBe('0x40000040');
    expect(ste.words).toHaveLength(8);
    expect(cd.fields.map(({ name }) => name)).toContain('TTB0');
    expect(leaf.words).toEqual(['0x0000000080001c43']);
    expect(leaf.text).toContain('A page of 4 KiB at 0x80001000');
    expect(permissions.text).toBe(
      'It allows unprivileged rwx, privileged rw-; the access needs unprivileged read.',
    );
  });

  it('of a block of 2 MiB', () => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1);
    table.map(0x4000_0000n, 0x8020_0000n, RW_PAGE, 2);
    const found = explain(rig, 0x4000_1234n);
    expect(found).toMatchObject({ pa: '0x80201234', log2Size: 21 });
    expect(names(found)).not.toContain('level 3');
    expect(found.steps.at(-3)!.text).toContain('A block of 2 MiB at 0x80200000');
  });

  it('of both stages, which allow what both do', () => {
    const found = explain(nested(RW_PAGE, S2_RW_PAGE & ~LEAF.S2W), 0x1234n);
    expect(found.pa).toBe('0x80001234');
    expect(found.steps.at(-1)!.text).toBe(
      'PA 0x80001234. Both stages together allow unprivileged r-x, privileged r--.',
    );
    expect(found.steps.filter(({ depth, kind }) => depth === 1 && kind === 'stage')).toHaveLength(4);
  });

  it('of a stream that bypasses', () => {
    const rig = new Rig();
    rig.ste(1, { Config: 4 });
    const found = explain(rig, 0x1234n);
    expect(found).toMatchObject({ outcome: 'ok', pa: '0x1234' });
    expect(names(found)).toEqual(['STRTAB_BASE, STRTAB_BASE_CFG', 'STE of StreamID 0x1']);
  });

  it('of a SubstreamID', () => {
    const ids = { SSIDSIZE: 8 };
    const rig = new Rig(ids);
    const table = rig.stage1();
    table.map(0x1000n, 0x8000_1000n, RW_PAGE);
    const cds = rig.allocator.take(256n);
    const cd = rig.cd({ T0SZ: 25, IPS: 4, TTB0: table.base });
    for (let i = 0n; i < 64n; i += 8n) rig.write(cds + 128n + i, rig.read(cd + i));
    rig.ste(1, { Config: 5, S1CDMax: 2, S1ContextPtr: cds });
    const found = explain(rig, 0x1000n, { ssid: 2 }, ids);
    expect(found).toMatchObject({ outcome: 'ok', ssid: 2 });
    expect(names(found)[2]).toBe('CD of SubstreamID 0x2');
  });

  it('of an ATS request that grants what both stages allow, or nothing', () => {
    const ids = { ATS: 1, NS1ATS: 1 };
    const rig = new Rig(ids);
    const { table } = rig.stage1Stream(1, {}, { EATS: 1 });
    table.map(0x1000n, 0x8000_1000n, RW_PAGE | LEAF.AP2);
    const ats = { kind: KIND.AtsRequest };
    expect(explain(rig, 0x1000n, ats, ids).summary).toMatch(/0x80001000 \(4 KiB\), granting read\.$/);
    const nothing = explain(rig, 0x2000n, ats, ids);
    expect([nothing.outcome, nothing.event, causeOf(nothing)]).toEqual(['ok', 'F_TRANSLATION', 'Valid [0]']);
    expect(nothing.summary).toContain('answered with nothing');
  });
});

describe('the text', () => {
  it('is the outcome, its cause and the way, in lines of the width asked for', () => {
    const text = formatWalk(explain(nested(RW_PAGE & ~LEAF.AF), 0x1000n), { width: 80 });
    expect(text).toMatch(/^An unprivileged read of IOVA 0x1000 by StreamID 0x1 is aborted/);
    expect(text).toContain('\nCause:\n  AF [10] of the level 3 descriptor of stage 1 at 0x');
    expect(text).toContain('\nThe way:\n');
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  it('is sentences: every step ends with a full stop', () => {
    for (const rig of [nested(RW_PAGE), withLeaf(RW_PAGE)])
      for (const { text } of explain(rig, 0x1000n).steps) expect(text).toMatch(/[.:]$/);
  });
});

it('JSON carries the explanation as it is', () => {
  const found = explain(nested(RW_PAGE), 0x1000n, { ssid: 1 });
  expect(JSON.parse(JSON.stringify(found))).toEqual(found);
});
