import { describe, expect, it } from 'vitest';
import type { IdFields } from '../../../src/smmu/identification.ts';
import { KIND } from '../../../src/smmu/transaction.ts';
import { type CdFields, RW_PAGE, S2_RW_PAGE, type SteFields } from '../../support/tables.ts';
import { type Access, NOWHERE, RAM, Rig, STRTAB } from '../../support/translation-rig.ts';
import { explain, causeOf, withLeaf, nested } from './explained-rig.ts';

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
    s2.map(0x5_0000_0000n, RAM + 0x40_0000n, S2_RW_PAGE);
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: 0x5_0000_0040n });
    const found = explain(rig, 0x1000n);
    expect(found.cause).toMatchObject({ field: 'CD.V', address: '0x40400040' });
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
