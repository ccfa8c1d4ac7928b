import { describe, expect, it } from 'vitest';
import { KIND } from '../../src/smmu/transaction.ts';
import { NOWHERE, Rig, type Access } from '../support/translation-rig.ts';
import { type CdFields, LEAF, RW_PAGE, S2_RW_PAGE, type SteFields, buildCd } from '../support/tables.ts';

const IDS = { ATS: 1, NS1ATS: 0, SSIDSIZE: 8, CD2L: 1, ATSRECERR: 1, HTTU: 2, ATTR_PERMS_OVR: 1 };
const F_BAD_ATS_TREQ = 5;
const F_TRANSL_FORBIDDEN = 7;
const SMMUEN = 1;
const ATSCHK = 1 << 4;
const RECINVSID = 2;
const REC_CFG_ATS = 8;
const REQUEST: Access = { kind: KIND.AtsRequest };
const TRANSLATED: Access = { kind: KIND.AtsTranslated };

/** Outcome of a Translation Request with what it grants: `ok <address> RWX <log2 of the size>`. */
function request(rig: Rig, address: bigint, access: Access = {}): string {
  const outcome = rig.access(1, address, { ...REQUEST, ...access });
  const { readable, writable, executable, log2Size } = rig.result;
  if (!outcome.startsWith('ok')) return outcome;
  const granted = `${readable ? 'R' : ''}${writable ? 'W' : ''}${executable ? 'X' : ''}`;
  return granted === '' ? `none ${log2Size}` : `${outcome} ${granted} ${log2Size}`;
}

function rigWith(config: number, ste: SteFields = {}, cd: CdFields = {}, leaf = RW_PAGE): Rig {
  const rig = new Rig(IDS);
  rig.cr0 = SMMUEN | ATSCHK;
  const s2 = rig.stage2();
  s2.map(0x5_0000_1000n, 0x8000_1000n, S2_RW_PAGE);
  const s1 = rig.stage1();
  s1.map(0x1000n, config === 7 ? 0x5_0000_1000n : 0x8000_1000n, leaf);
  s1.map(0x20_0000n, config === 7 ? 0x4020_0000n : 0x8020_0000n, RW_PAGE, 2);
  const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: s1.base, ...cd });
  rig.ste(1, { ...rig.stage2Fields(s2), Config: config, S1ContextPtr: cdAt, EATS: 1, ...ste });
  return rig;
}

describe('an ATS Translation Request', () => {
  it.each<[string, () => Rig, string, number[]]>([
    ['while SMMUEN=0', () => Object.assign(rigWith(5), { cr0: 0 }), 'ur', [F_BAD_ATS_TREQ]],
    ['in bypass', () => rigWith(4), 'ur', [F_BAD_ATS_TREQ]],
    ['with EATS=0', () => rigWith(5, { EATS: 0 }), 'ur', [F_BAD_ATS_TREQ]],
    ['with EATS=3 and no DPT', () => rigWith(5, { EATS: 3 }), 'ur', [F_BAD_ATS_TREQ]],
    [
      'with EATS=2 but ATSCHK=0',
      () => Object.assign(rigWith(7, { EATS: 2 }), { cr0: SMMUEN }),
      'ur',
      [F_BAD_ATS_TREQ],
    ],
    ['with Config=0', () => rigWith(0), 'ur', []],
    ['with V=0', () => rigWith(5, { V: 0 }), 'ca', []],
    ['with an unreadable CD', () => rigWith(5, { S1ContextPtr: NOWHERE }), 'ca', []],
    ['with a bad CD', () => rigWith(5, {}, { V: 0 }), 'ca', []],
    ['with a disabled default substream', () => rigWith(5, { S1CDMax: 2, S1DSS: 0 }), 'ca', []],
    ['with a table that cannot be read', () => rigWith(5, {}, { TTB0: NOWHERE }), 'ca', []],
  ])('%s', (_what, make, outcome, events) => {
    const rig = make();
    expect(request(rig, 0x1000n)).toBe(outcome);
    expect(rig.events().map(({ type }) => type)).toEqual(events);
  });

  it('that meets a configuration error is recorded only with REC_CFG_ATS, a bad StreamID with RECINVSID too', () => {
    const rig = rigWith(5, { V: 0 });
    rig.cr2 = REC_CFG_ATS;
    expect(request(rig, 0n)).toBe('ca');
    rig.strtab(0x4000_0000n, 0);
    expect(request(rig, 0n)).toBe('ca');
    rig.cr2 = REC_CFG_ATS | RECINVSID;
    expect(request(rig, 0n)).toBe('ca');
    expect(rig.events().map(({ type }) => type)).toEqual([4, 2]);
  });

  it('says what was asked for, before overrides, in F_BAD_ATS_TREQ', () => {
    const rig = rigWith(4);
    rig.access(1, 0x1234_5678n, { ...REQUEST, ssid: 3, privileged: true, instruction: true, noWrite: true });
    // Bits 95..92 are R, W, X and Priv; Span is 1.
    // 13.7: without a PASID nothing can ask for X and Priv.
    rig.access(1, 0x1234_5678n, { ...REQUEST, privileged: true, instruction: true });
    expect(rig.records).toEqual([
      [0x1_0000_3805n, (0b1011n << 28n) | 1n, 0x1234_5000n, 0n],
      [0x1_0000_0005n, (0b1100n << 28n) | 1n, 0x1234_5000n, 0n],
    ]);
  });

  it.each<[string, bigint, Access, string]>([
    ['a page', 0x1abcn, {}, 'ok 80001abc RW 12'],
    ['a page, no write wanted', 0x1000n, { noWrite: true }, 'ok 80001000 RW 12'],
    ['a block', 0x20_1000n, {}, 'ok 80201000 RW 21'],
    ['nothing', 0x9000n, {}, 'none 12'],
    ['an address out of range', 1n << 45n, {}, 'none 12'],
  ])('for %s', (_what, address, access, answer) => {
    const rig = rigWith(5);
    expect(request(rig, address, access)).toBe(answer);
    expect(rig.events()).toEqual([]);
  });

  it.each<[string, bigint, Access, string]>([
    ['read-only', RW_PAGE | LEAF.AP2, {}, 'ok 80001000 R 12'],
    ['privileged only', RW_PAGE & ~LEAF.AP1, {}, 'none 12'],
    ['privileged only, without a PASID', RW_PAGE & ~LEAF.AP1, { privileged: true }, 'none 12'],
    ['no AF', RW_PAGE & ~LEAF.AF, {}, 'none 12'],
    ['execute only', (RW_PAGE & ~LEAF.AP1) | LEAF.PXN, {}, 'none 12'],
  ])('for a page that is %s', (_what, leaf, access, answer) => {
    expect(request(rigWith(5, {}, {}, leaf), 0x1000n, access)).toBe(answer);
  });

  it.each<[string, SteFields, bigint, Access, string]>([
    ['X wanted and allowed', {}, RW_PAGE, { instruction: true }, 'RWX'],
    ['X not wanted', {}, RW_PAGE, {}, 'RW'],
    ['X wanted, UXN', {}, RW_PAGE | LEAF.UXN, { instruction: true }, 'RW'],
    ['privileged', {}, RW_PAGE & ~LEAF.AP1, { privileged: true }, 'RW'],
    ['privileged, overridden', { PRIVCFG: 2 }, RW_PAGE & ~LEAF.AP1, { privileged: true }, ''],
    [
      'execute only, all taken as instructions',
      { INSTCFG: 3 },
      RW_PAGE & ~LEAF.AP1,
      { instruction: true },
      'RX',
    ],
    ['all taken as data', { INSTCFG: 2 }, RW_PAGE | LEAF.UXN, { instruction: true }, 'RWX'],
  ])('with a PASID: %s', (_what, ste, leaf, access, granted) => {
    const rig = rigWith(5, { S1CDMax: 1, S1DSS: 2, ...ste }, {}, leaf);
    // CD 1 is a copy of CD 0.
    const cdAt = rig.read(0x4000_0040n) & 0xffff_ffff_ffc0n;
    const copy = rig.allocator.take(128n);
    for (let i = 0n; i < 64n; i += 8n) rig.write(copy + 64n + i, rig.read(cdAt + i));
    rig.write(0x4000_0040n, (rig.read(0x4000_0040n) & ~0xffff_ffff_ffc0n) | copy);
    expect(request(rig, 0x1000n, { ssid: 1, ...access })).toBe(
      granted === '' ? 'none 12' : `ok 80001000 ${granted} 12`,
    );
  });

  it.each([
    [false, 'ok 80001000 RW 12', 0n],
    [true, 'ok 80001000 R 12', LEAF.AP2],
  ])('with NW=%s for a clean page answers %s', (noWrite, answer, after) => {
    const rig = rigWith(5, {}, { HA: 1, HD: 1 }, (RW_PAGE & ~LEAF.AF) | LEAF.AP2 | LEAF.DBM);
    const at = rig.read(rig.read(0x4000_0040n) & 0xffff_ffff_ffc0n);
    expect(at).not.toBe(0n);
    expect(request(rig, 0x1000n, { noWrite })).toBe(answer);
    // Walk down to the leaf by hand.
    const cdAt = rig.read(0x4000_0040n) & 0xffff_ffff_ffc0n;
    const follow = (descriptor: bigint): bigint => descriptor & 0xffff_ffff_f000n;
    const leaf = rig.read(follow(rig.read(follow(rig.read(rig.read(cdAt + 8n))))) + 8n);
    expect([leaf & LEAF.AF, leaf & LEAF.AP2]).toEqual([LEAF.AF, after]);
  });

  it.each<[string, SteFields, string]>([
    ['with EATS=1 gives the PA', {}, 'ok 80001000 RW 12'],
    ['with EATS=2 gives the IPA', { EATS: 2 }, 'ok 500001000 RW 12'],
    ['that skips stage 1 has only stage 2 to pass', { S1CDMax: 1, S1DSS: 1 }, 'none 12'],
  ])('nested %s', (_what, ste, answer) => {
    expect(request(rigWith(7, ste), 0x1000n)).toBe(answer);
  });

  it.each([
    [RW_PAGE, LEAF.S2W, 'ok 80001000 RW 12'],
    [RW_PAGE | LEAF.AP2, 0n, 'ok 80001000 R 12'],
  ])('nested makes stage 2 dirty only if stage 1 may be written (leaf 0x%x)', (leaf, after, answer) => {
    const rig = new Rig(IDS);
    rig.cr0 = SMMUEN | ATSCHK;
    const s2 = rig.stage2();
    const at = s2.map(0x5_0000_1000n, 0x8000_1000n, (S2_RW_PAGE & ~LEAF.S2W) | LEAF.DBM);
    const s1 = rig.stage1();
    s1.map(0x1000n, 0x5_0000_1000n, leaf);
    const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: s1.base });
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt, EATS: 1, S2HA: 1, S2HD: 1 });
    expect(request(rig, 0x1000n)).toBe(answer);
    expect(rig.read(at) & LEAF.S2W).toBe(after);
  });

  it.each<[string, bigint, bigint, string]>([
    ['APTable keeps read-only', RW_PAGE | LEAF.AP2 | LEAF.DBM, 2n << 61n, 'ok 80001000 R 12'],
    ['is for privileged accesses', (RW_PAGE & ~LEAF.AP1) | LEAF.AP2 | LEAF.DBM, 0n, 'none 12'],
  ])('does not make dirty what %s (3.13.3.1, 13.7)', (_what, leaf, tableBits, answer) => {
    const rig = new Rig(IDS);
    const s1 = rig.stage1();
    const at = s1.map(0x1000n, 0x8000_1000n, leaf, 3, tableBits);
    rig.ste(1, {
      Config: 5,
      EATS: 1,
      S1ContextPtr: rig.cd({ T0SZ: 25, IPS: 4, TTB0: s1.base, HA: 1, HD: 1 }),
    });
    const before = rig.read(at);
    expect(request(rig, 0x1000n)).toBe(answer);
    expect(rig.read(at)).toBe(before);
  });

  it.each<[string, bigint, Access]>([
    ['execute-only', (RW_PAGE & ~LEAF.AP1) | LEAF.PXN, {}],
    ['not executable, all reads taken as instructions', RW_PAGE | LEAF.AP2 | LEAF.UXN, { ssid: 1 }],
  ])('for a page of stage 1 that is %s does not ask stage 2 (3.9.1.2)', (_what, leaf, access) => {
    const rig = new Rig(IDS);
    const s2 = rig.stage2();
    // Stage 2 of the output cannot be read: were it asked, the answer would be Completer Abort.
    rig.write(s2.base + 8n * 20n, NOWHERE | 3n);
    const s1 = rig.stage1();
    s1.map(0x1000n, 20n << 30n, leaf);
    const cdAt = rig.allocator.take(128n);
    rig.write(cdAt, ...buildCd({ T0SZ: 25, IPS: 4, TTB0: s1.base }));
    rig.write(cdAt + 64n, ...buildCd({ T0SZ: 25, IPS: 4, TTB0: s1.base }));
    const INSTCFG = access.ssid === undefined ? 0 : 3;
    const substreams = { S1CDMax: 1, S1DSS: 2, INSTCFG };
    rig.ste(1, { ...rig.stage2Fields(s2), ...substreams, Config: 7, EATS: 1, S1ContextPtr: cdAt });
    expect(request(rig, 0x1000n, access)).toBe('none 12');
  });

  it.each<[string, Access, SteFields, object]>([
    [
      'as requested with a PASID',
      { ssid: 1, privileged: true, instruction: true },
      {},
      { pnu: true, ind: true },
    ],
    [
      'data and unprivileged without',
      { privileged: true, instruction: true },
      {},
      { pnu: false, ind: false },
    ],
    [
      'as overridden',
      { ssid: 1, privileged: true, instruction: true },
      { PRIVCFG: 2, INSTCFG: 2 },
      { pnu: false, ind: false },
    ],
  ])(
    'that ends in F_WALK_EABT is recorded with PnU and InD %s (7.3.12, 13.7)',
    (_what, access, ste, seen) => {
      const rig = new Rig(IDS);
      rig.cr2 = REC_CFG_ATS;
      const cdAt = rig.allocator.take(128n);
      rig.write(cdAt, ...buildCd({ T0SZ: 25, IPS: 4, TTB0: NOWHERE }));
      rig.write(cdAt + 64n, ...buildCd({ T0SZ: 25, IPS: 4, TTB0: NOWHERE }));
      rig.ste(1, { Config: 5, EATS: 1, S1CDMax: 1, S1DSS: 2, S1ContextPtr: cdAt, ...ste });
      expect(request(rig, 0x1000n, access)).toBe('ca');
      expect(rig.events()).toMatchObject([{ type: 0x0b, s2: false, cls: 1, input: 0x1000n, ...seen }]);
    },
  );

  it('nested is as large as the smaller leaf', () => {
    expect(request(rigWith(7), 0x20_1000n)).toBe('ok 40201000 RW 21');
  });

  it('that skips stage 1 with no stage 2 gets everything at the same address', () => {
    expect(request(rigWith(5, { S1CDMax: 1, S1DSS: 1 }), 0x1000n)).toBe('ok 1000 RW 44');
    expect(request(rigWith(5, { S1CDMax: 1, S1DSS: 1 }), 1n << 44n)).toBe('none 12');
  });
});

describe('an ATS translated transaction', () => {
  it.each<[string, () => Rig, string, number[]]>([
    ['while SMMUEN=0', () => Object.assign(rigWith(5), { cr0: 0 }), 'abort', [F_TRANSL_FORBIDDEN]],
    ['in bypass', () => rigWith(4), 'abort', [F_TRANSL_FORBIDDEN]],
    ['with EATS=0', () => rigWith(5, { EATS: 0 }), 'abort', [F_TRANSL_FORBIDDEN]],
    ['with Config=0', () => rigWith(0), 'abort', []],
    ['with V=0', () => rigWith(5, { V: 0 }), 'abort', []],
    ['with a disabled default substream', () => rigWith(5, { S1CDMax: 1, S1DSS: 0 }), 'abort', []],
    ['with EATS=1', () => rigWith(5), 'ok 50000', []],
    ['with a bad CD', () => rigWith(5, {}, { V: 0 }), 'ok 50000', []],
    ['without ATSCHK', () => Object.assign(rigWith(5, { V: 0 }), { cr0: SMMUEN }), 'ok 50000', []],
    ['with EATS=2 and an IPA that is not mapped', () => rigWith(7, { EATS: 2 }), 'abort', [0x10]],
  ])('%s', (_what, make, outcome, events) => {
    const rig = make();
    expect(rig.access(1, 0x5_0000n, TRANSLATED)).toBe(outcome);
    expect(rig.events().map(({ type }) => type)).toEqual(events);
  });

  it('with EATS=2 is translated by stage 2', () => {
    const rig = rigWith(7, { EATS: 2 });
    expect(rig.access(1, 0x5_0000_1234n, TRANSLATED)).toBe('ok 80001234');
    expect(rig.access(1, 1n << 44n, TRANSLATED)).toBe('abort');
    expect(rig.access(1, 1n << 43n, { ...TRANSLATED, write: true })).toBe('abort');
    expect(rig.events()).toMatchObject([
      { type: 0x11, s2: false },
      { type: 0x10, s2: true, cls: 2, rnw: false, last: 1n << 43n },
    ]);
  });

  it('with a PASID counts as one without where PASIDTT=0 (3.9.1.3)', () => {
    const rig = rigWith(7, { EATS: 2, S1CDMax: 1, S1DSS: 2 });
    const access = { ...TRANSLATED, ssid: 1, privileged: true, instruction: true };
    expect(rig.access(1, 0x5_0000_1234n, access)).toBe('ok 80001234');
    expect(rig.access(1, 0x5_0000_9000n, access)).toBe('abort');
    rig.ste(1, { Config: 5, EATS: 0 });
    rig.command(3n | (1n << 32n));
    expect(rig.access(1, 0x1000n, access)).toBe('abort');
    rig.cr0 = 0;
    expect(rig.access(1, 0x1000n, access)).toBe('abort');
    // Without SSV, SubstreamID, PnU and InD.
    expect(rig.events()).toEqual([
      {
        type: 0x10,
        sid: 1,
        rnw: true,
        pnu: false,
        ind: false,
        s2: true,
        cls: 2,
        input: 0x5_0000_9000n,
        last: 0x5_0000_9000n,
      },
      { type: F_TRANSL_FORBIDDEN, sid: 1, input: 0x1000n },
      { type: F_TRANSL_FORBIDDEN, sid: 1, input: 0x1000n },
    ]);
  });

  it.each([SMMUEN, SMMUEN | ATSCHK])('does not pass an SMMU without ATS, CR0=%i (5.2 EATS)', (cr0) => {
    const rig = new Rig();
    rig.cr0 = cr0;
    rig.ste(1, { Config: 4, EATS: 1 });
    expect(rig.access(1, 0x4000_0000n, TRANSLATED)).toBe('abort');
  });

  it('beyond the OAS aborts silently', () => {
    const rig = rigWith(5);
    expect(rig.access(1, 1n << 44n, TRANSLATED)).toBe('abort');
    expect(rig.events()).toEqual([]);
  });

  it('reports an unknown StreamID with REC_CFG_ATS whatever RECINVSID', () => {
    const rig = rigWith(5);
    rig.strtab(0x4000_0000n, 0);
    rig.cr2 = REC_CFG_ATS;
    expect(rig.access(1, 0n, TRANSLATED)).toBe('abort');
    expect(rig.events()).toEqual([{ type: 2, sid: 1 }]);
  });
});
