import { describe, expect, it } from 'vitest';
import type { IdFields } from '../../src/smmu/identification.ts';
import { NOWHERE, Rig } from '../support/translation-rig.ts';
import type { CdFields, SteFields } from '../support/tables.ts';

const C_BAD_STE = 4;
const C_BAD_CD = 0x0a;
const HTTU1: IdFields = { HTTU: 1 };
const HTTU2: IdFields = { HTTU: 2 };
const HTTU3: IdFields = { HTTU: 3 };
const STALL: IdFields = { STALL_MODEL: 0, STALL_MAX: 4 };
const STALL_ONLY: IdFields = { STALL_MODEL: 2, STALL_MAX: 4 };
const ATS: IdFields = { ATS: 1, NS1ATS: 0 };
const HYP: IdFields = { HYP: 1 };
const SSID: IdFields = { SSIDSIZE: 8, CD2L: 1 };
const WIDE: IdFields = { OAS: 6, DS: 1, VAX: 1 };

/** The events that a read of the mapped page makes with this STE. */
function steEvents(ids: IdFields, config: number, ste: SteFields): number[] {
  const rig = new Rig(ids);
  const s2 = rig.stage2Fields(rig.stage2());
  const table = rig.stage1();
  table.map(0x1000n, 0x4000_1000n, 0xc40n);
  const cd = rig.cd({ T0SZ: 25, IPS: 4, TTB0: table.base, S: ids.STALL_MODEL === 2 ? 1 : 0 });
  rig.ste(1, { Config: config, S1ContextPtr: cd, ...s2, ...ste });
  rig.access(1, config === 5 || config === 7 ? 0x1000n : 0x4000_1000n);
  return rig.events().map(({ type }) => type);
}

describe('an STE', () => {
  it.each<[string, IdFields, number, SteFields]>([
    ['V=0', {}, 4, { V: 0 }],
    ['stage 1 without S1P', { S1P: 0, HAD: 0 }, 5, {}],
    ['stage 2 without S2P', { S2P: 0, XNX: 0 }, 6, {}],
    ['both stages without S2P', { S2P: 0, XNX: 0 }, 7, {}],
    ['EATS=2 with stage 1 alone', ATS, 5, { EATS: 2 }],
    ['EATS=2 with stage 2 alone', ATS, 6, { EATS: 2 }],
    ['EATS=2 where NS1ATS says no', { ATS: 1, NS1ATS: 1 }, 7, { EATS: 2 }],
    ['EATS=2 with S2S=1', { ...ATS, ...STALL }, 7, { EATS: 2, S2S: 1 }],
    ['EATS=1 with S2S=1', { ...ATS, ...STALL }, 7, { EATS: 1, S2S: 1 }],
    ['STRW=1 with HYP', HYP, 5, { STRW: 1 }],
    ['STRW=3 with HYP', HYP, 5, { STRW: 3 }],
    ['S1STALLD=1 where nothing can stall', {}, 5, { S1STALLD: 1 }],
    ['S1STALLD=1 where all must stall', STALL_ONLY, 5, { S1STALLD: 1 }],
    ['S1CDMax beyond SSIDSIZE', SSID, 5, { S1CDMax: 9, S1DSS: 2 }],
    ['S1Fmt=1 without CD2L', { SSIDSIZE: 8, CD2L: 0 }, 5, { S1CDMax: 1, S1Fmt: 1, S1DSS: 2 }],
    ['S1Fmt=2 without CD2L', { SSIDSIZE: 8, CD2L: 0 }, 5, { S1CDMax: 1, S1Fmt: 2, S1DSS: 2 }],
    ['S1ContextPtr beyond OAS', {}, 5, { S1ContextPtr: 1n << 44n }],
    ['S2S=1 where nothing can stall', {}, 6, { S2S: 1 }],
    ['S2S=0 where all must stall', STALL_ONLY, 6, { S2S: 0 }],
    ['S2AA64=0', {}, 6, { S2AA64: 0 }],
    ['S2HA without HTTU', {}, 6, { S2HA: 1 }],
    ['S2HD without HTTU', {}, 6, { S2HD: 1 }],
    ['S2HD with HTTU of AF alone', HTTU1, 6, { S2HA: 1, S2HD: 1 }],
    ['S2HAFT without S2HA', HTTU3, 6, { S2HAFT: 1 }],
    ['S2TG reserved', {}, 6, { S2TG: 3 }],
    ['S2TG of a granule that is missing', { GRAN16K: 0 }, 6, { S2TG: 2, S2SL0: 1 }],
    ['S2TTB beyond S2PS', {}, 6, { S2PS: 1, S2TTB: 1n << 36n }],
    ['S2TTB beyond OAS', {}, 6, { S2PS: 7, S2TTB: 1n << 44n }],
    ['S2TTB beyond 48 bits without S2DS', WIDE, 6, { S2PS: 6, S2TTB: 1n << 48n }],
    ['S2T0SZ below 64-OAS', {}, 6, { S2T0SZ: 19, S2SL0: 2 }],
    ['S2T0SZ below 16', WIDE, 6, { S2T0SZ: 15, S2SL0: 2 }],
    ['S2T0SZ above 39', {}, 6, { S2T0SZ: 40 }],
    ['S2T0SZ above 48 with STT', { STT: 1 }, 6, { S2T0SZ: 49, S2SL0: 3 }],
    ['S2T0SZ above 47 with STT and 64 KB', { STT: 1 }, 6, { S2T0SZ: 48, S2TG: 1, S2SL0: 0 }],
    ['S2SL0=3 without STT', {}, 6, { S2SL0: 3 }],
    ['S2SL0=3 with 64 KB', { STT: 1 }, 6, { S2TG: 1, S2SL0: 3 }],
    ['a start level with 32 concatenated tables', {}, 6, { S2T0SZ: 20, S2SL0: 1 }],
    ['a start level of which no table is needed', {}, 6, { S2T0SZ: 25, S2SL0: 2 }],
    ['4 KB level 0 with an OAS of 42 bits', { OAS: 3 }, 6, { S2T0SZ: 24, S2SL0: 2 }],
    ['16 KB level 1 with an OAS of 40 bits', { OAS: 2 }, 6, { S2T0SZ: 24, S2SL0: 2, S2TG: 2 }],
    ['64 KB level 1 with an OAS of 42 bits', { OAS: 3 }, 6, { S2T0SZ: 22, S2SL0: 2, S2TG: 1 }],
    ['big-endian stage 2 where all is little-endian', {}, 6, { S2ENDI: 1 }],
    ['little-endian stage 2 where all is big-endian', { TTENDIAN: 3 }, 6, { S2ENDI: 0 }],
    ['S2VMID of 9 bits without VMID16', { VMID16: 0 }, 6, { S2VMID: 0x100 }],
    ['S2VMID of 9 bits without VMID16, stage 1 alone', { VMID16: 0 }, 5, { S2VMID: 0x100 }],
  ])('is ILLEGAL: %s', (_what, ids, config, ste) => {
    expect(steEvents(ids, config, ste)).toEqual([C_BAD_STE]);
  });

  it.each<[string, IdFields, number, SteFields]>([
    ['EATS=2 without ATS', {}, 5, { EATS: 2 }],
    ['EATS=2 in bypass', ATS, 4, { EATS: 2 }],
    ['EATS=2 nested', ATS, 7, { EATS: 2 }],
    ['EATS=3 without DPT', ATS, 7, { EATS: 3 }],
    ['EATS=1 with S2S=1 and stage 1 alone', { ...ATS, ...STALL }, 5, { EATS: 1, S2S: 1 }],
    ['STRW=3 without HYP', {}, 5, { STRW: 3 }],
    ['STRW=3 with both stages', HYP, 7, { STRW: 3 }],
    ['S1STALLD=1 where stalls are a choice', STALL, 5, { S1STALLD: 1 }],
    ['S1STALLD=1 without stage 1', {}, 6, { S1STALLD: 1 }],
    ['S1CDMax without SubstreamIDs', {}, 5, { S1CDMax: 31, S1Fmt: 2, S1DSS: 3 }],
    ['S1CDMax without stage 1', SSID, 6, { S1CDMax: 31 }],
    ['S1Fmt=3 without CD2L', { SSIDSIZE: 8, CD2L: 0 }, 5, { S1CDMax: 1, S1Fmt: 3, S1DSS: 2 }],
    ['stage 2 fields without stage 2', {}, 5, { S2T0SZ: 0, S2TG: 3, S2AA64: 0, S2S: 1, S2HA: 1, S2ENDI: 1 }],
    ['S2T0SZ with more bits than S2PS', {}, 6, { S2PS: 1 }],
    ['S2PS beyond OAS', {}, 6, { S2PS: 7 }],
    ['S2HA with HTTU of AF', HTTU1, 6, { S2HA: 1 }],
    ['S2HD without S2HA', HTTU2, 6, { S2HD: 1 }],
    ['S2HAFT without S2HA below HTTU=3', HTTU2, 6, { S2HAFT: 1 }],
    ['S2VMID of 16 bits', {}, 6, { S2VMID: 0xffff }],
    ['S2VMID of 9 bits without VMID16, in bypass', { VMID16: 0 }, 4, { S2VMID: 0x100 }],
    ['S2VMID of 9 bits of an EL2 stream', { ...HYP, VMID16: 0 }, 5, { STRW: 2, S2VMID: 0x100 }],
  ])('is legal: %s', (_what, ids, config, ste) => {
    expect(steEvents(ids, config, ste)).toEqual([]);
  });

  it.each([0, 1, 2, 3])('with Config=%i aborts without an event, whatever else it says', (Config) => {
    const rig = new Rig();
    rig.ste(1, { Config, S2TG: 3, S2AA64: 0, S1STALLD: 1, S2ENDI: 1 });
    expect(rig.access(1, 0n, { ssid: 3 })).toBe('abort');
    expect(rig.events()).toEqual([]);
  });
});

/** The events that a read of the mapped page makes with this CD. */
function cdEvents(ids: IdFields, cd: CdFields, ste: SteFields = {}): number[] {
  const rig = new Rig(ids);
  rig.stage1Stream(1, cd, ste);
  rig.access(1, 0x1000n, { privileged: true });
  return rig.events().map(({ type }) => type);
}

describe('a CD', () => {
  it.each<[string, IdFields, CdFields, SteFields?]>([
    ['V=0', {}, { V: 0 }],
    ['S=1 although S1STALLD=1', STALL, { S: 1 }, { S1STALLD: 1 }],
    ['A=0 with TERM_MODEL', {}, { A: 0 }],
    ['S=1 where nothing can stall', {}, { S: 1 }],
    ['S=0 where all must stall', STALL_ONLY, { S: 0 }],
    ['ENDI=1 where all is little-endian', {}, { ENDI: 1 }],
    ['ENDI=0 where all is big-endian', { TTENDIAN: 3 }, { ENDI: 0 }],
    ['AA64=0', {}, { AA64: 0 }],
    ['HA without HTTU', {}, { HA: 1 }],
    ['HD without HTTU', {}, { HD: 1 }],
    ['HD with HTTU of AF alone', HTTU1, { HA: 1, HD: 1 }],
    ['HAFT without HA', HTTU3, { HAFT: 1 }],
    ['ASID of 9 bits without ASID16', { ASID16: 0 }, { ASID: 0x100 }],
    ['T0SZ=15', {}, { T0SZ: 15 }],
    ['T0SZ=15 with 64 KB and 48-bit VAs', {}, { T0SZ: 15, TG0: 1 }],
    ['T0SZ=11 with 52-bit VAs', WIDE, { T0SZ: 11, TG0: 1 }],
    ['T0SZ=15 with 52-bit VAs but DS=0', WIDE, { T0SZ: 15 }],
    ['T0SZ=40', {}, { T0SZ: 40 }],
    ['T0SZ=49 with STT', { STT: 1 }, { T0SZ: 49 }],
    ['T0SZ=48 with STT and 64 KB', { STT: 1 }, { T0SZ: 48, TG0: 1 }],
    ['TG0 reserved', {}, { TG0: 3 }],
    ['TG0 of a granule that is missing', { GRAN64K: 0 }, { TG0: 1 }],
    ['TTB0 beyond IPS', {}, { IPS: 1, TTB0: 1n << 36n }],
    ['TTB0 beyond OAS', {}, { IPS: 7, TTB0: 1n << 44n }],
    ['TTB0 beyond 48 bits without DS', WIDE, { IPS: 6, TTB0: 1n << 48n }],
    ['TG1 reserved', {}, { EPD1: 0, T1SZ: 25, TG1: 0 }],
    ['T1SZ=15', {}, { EPD1: 0, T1SZ: 15, TG1: 2 }],
    ['TTB1 beyond IPS', {}, { EPD1: 0, T1SZ: 25, TG1: 2, TTB1: 1n << 44n }],
  ])('is ILLEGAL: %s', (_what, ids, cd, ste) => {
    expect(cdEvents(ids, cd, ste)).toEqual([C_BAD_CD]);
  });

  it.each<[string, IdFields, CdFields, SteFields?]>([
    ['A=0 without TERM_MODEL', { TERM_MODEL: 0 }, { A: 0 }],
    ['HD without HA', HTTU2, { HD: 1 }],
    ['HAFT without HA below HTTU=3', HTTU2, { HAFT: 1 }],
    ['ASID of 9 bits of a plain EL2 stream', { ...HYP, ASID16: 0 }, { ASID: 0x100 }, { STRW: 2 }],
    ['a bad upper half with EPD1=1', {}, { T1SZ: 63, TG1: 0, TTB1: 0xff_ffff_ffff_fff0n }],
    ['a bad upper half in plain EL2', HYP, { EPD1: 0, T1SZ: 63, TG1: 0 }, { STRW: 2 }],
    ['IPS beyond OAS', {}, { IPS: 7 }],
    ['E0PD0 without E0PD', {}, { E0PD0: 1 }],
  ])('is legal: %s', (_what, ids, cd, ste) => {
    expect(cdEvents(ids, cd, ste)).toEqual([]);
  });

  it('with both halves off is legal whatever its ENDI, and translates nothing', () => {
    expect(cdEvents({}, { EPD0: 1, EPD1: 1, ENDI: 1, TG0: 3, T0SZ: 0 })).toEqual([0x10]);
  });

  it('has no EPD0 in plain EL2', () => {
    expect(cdEvents(HYP, { EPD0: 1 }, { STRW: 2 })).toEqual([]);
    expect(cdEvents(HYP, { EPD0: 1 })).toEqual([0x10]);
  });

  it('that cannot be read is reported with its address', () => {
    const rig = new Rig();
    rig.ste(1, { Config: 5, S1ContextPtr: NOWHERE });
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.events()).toEqual([{ type: 9, sid: 1, last: NOWHERE }]);
  });
});
