/** Kinds of cases in which QEMU departs from the architecture (docs/oracle.md), each worked out by hand from its clause. */

import { describe, expect, it } from 'vitest';

import { QEMU_LIKE } from '../../src/smmu/identification.ts';
import { EVENT } from '../../src/smmu/ports.ts';
import { Device, EVENTQ, record } from '../support/smmu-device.ts';
import { LEAF, PageTable, RW_PAGE, S2_RW_PAGE, type SteFields } from '../support/tables.ts';
import { NOWHERE, RAM, Rig, STRTAB } from '../support/translation-rig.ts';

const C_BAD_STREAMID = 0x02;
const C_BAD_STE = 0x04;
const F_TRANSLATION = 0x10;
const F_ADDR_SIZE = 0x11;
const F_ACCESS = 0x12;
const F_PERMISSION = 0x13;
const IN = 2;
const TG0 = { 12: 0, 14: 2, 16: 1 } as const;
const TG1 = { 12: 2, 14: 1, 16: 3 } as const;
const OAS = 44n;

type Log2Granule = keyof typeof TG0;

/** Stage 2 alone with tables of its own. @returns the table */
function stage2Only(
  rig: Rig,
  shape: { log2Granule: Log2Granule; inputBits: number; startLevel: number },
  more: SteFields = {},
): PageTable {
  const table = new PageTable(rig.space, shape);
  const { log2Granule, inputBits, startLevel } = shape;
  rig.ste(1, {
    Config: 6,
    S2T0SZ: 64 - inputBits,
    S2TG: TG0[log2Granule],
    S2SL0: log2Granule === 12 ? 2 - startLevel : 3 - startLevel,
    S2PS: 4,
    S2AA64: 1,
    S2R: 1,
    S2TTB: table.base,
    ...more,
  });
  return table;
}

describe('an input address, with stage 1 bypassed', () => {
  // 3.4, 7.3.14: beyond the IAS it is F_ADDR_SIZE of stage 1, recorded whatever S2R says; inside it, it is stage 2's.
  it.each([
    [1n << OAS, 1, { type: F_ADDR_SIZE, s2: false, cls: IN }],
    [1n << OAS, 0, { type: F_ADDR_SIZE, s2: false, cls: IN }],
    [1n << 63n, 0, { type: F_ADDR_SIZE, s2: false, cls: IN }],
    [(1n << OAS) - 0x1000n, 1, { type: F_TRANSLATION, s2: true, cls: IN, last: (1n << OAS) - 0x1000n }],
    [(1n << OAS) - 0x1000n, 0, undefined],
  ])('0x%x, to a stage 2 of 39 bits with S2R=%i', (address, S2R, event) => {
    const rig = new Rig();
    stage2Only(rig, { log2Granule: 12, inputBits: 39, startLevel: 1 }, { S2R });
    expect(rig.access(1, address)).toBe('abort');
    expect(rig.events()).toMatchObject(event === undefined ? [] : [{ ...event, input: address }]);
  });
});

describe('S2PS', () => {
  // 5.2 S2T0SZ: the limit of the IPA size is the IAS, so an IPA size larger than S2PS is no error.
  it.each([
    [0, 32],
    [1, 36],
    [2, 40],
    [3, 42],
    [4, 44],
    [5, 44],
    [7, 44],
  ])('=%i limits what stage 2 gives to %i bits, and not what it takes', (S2PS, bits) => {
    const rig = new Rig();
    const table = stage2Only(rig, { log2Granule: 12, inputBits: 44, startLevel: 0 }, { S2PS });
    const ipa = (1n << 43n) | 0x5000n;
    const last = (1n << BigInt(bits)) - 0x1000n;
    table.map(ipa, last, S2_RW_PAGE);
    expect(rig.access(1, ipa)).toBe(`ok ${last.toString(16)}`);
    table.map(ipa + 0x1000n, 1n << BigInt(bits), S2_RW_PAGE);
    expect(rig.access(1, ipa + 0x1000n)).toBe('abort');
    expect(rig.events()).toMatchObject([{ type: F_ADDR_SIZE, s2: true, cls: IN, last: ipa + 0x1000n }]);
    // A table beyond is not read: F_ADDR_SIZE, and not F_WALK_EABT (7.3.14).
    rig.write(table.base + 8n * (ipa >> 39n), (1n << BigInt(bits)) | 3n);
    expect(rig.access(1, ipa + 0x2000n)).toBe('abort');
    expect(rig.events()).toMatchObject([{ type: F_ADDR_SIZE, s2: true, cls: IN }]);
    // 5.2 S2TTB: the first table beyond it makes the STE ILLEGAL.
    rig.ste(2, {
      ...rig.stage2Fields(table),
      Config: 6,
      S2PS,
      S2TTB: 1n << BigInt(bits),
    });
    expect(rig.access(2, 0n)).toBe('abort');
    expect(rig.events()).toEqual([{ type: C_BAD_STE, sid: 2 }]);
  });
});

describe('IPS', () => {
  // 5.4 IPS: more than the OAS means the OAS.
  it.each([
    [0, 32],
    [3, 42],
    [5, 44],
    [6, 44],
    [7, 44],
  ])('=%i limits leaves and tables of stage 1 to %i bits', (IPS, bits) => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1, { IPS });
    const last = (1n << BigInt(bits)) - 0x1000n;
    table.map(0x2000n, last, RW_PAGE);
    table.map(0x3000n, 1n << BigInt(bits), RW_PAGE);
    rig.write(table.base + 8n, (1n << BigInt(bits)) | 3n);
    expect(rig.access(1, 0x2000n)).toBe(`ok ${last.toString(16)}`);
    expect(rig.access(1, 0x3000n)).toBe('abort');
    expect(rig.access(1, 1n << 30n)).toBe('abort');
    expect(rig.events()).toMatchObject([
      { type: F_ADDR_SIZE, s2: false, input: 0x3000n },
      { type: F_ADDR_SIZE, s2: false, input: 1n << 30n },
    ]);
  });
});

describe('a block descriptor', () => {
  /** [granule, level, whether there are blocks without DS and LPA] */
  const LEVELS = [
    [12, 0, false],
    [12, 1, true],
    [12, 2, true],
    [14, 1, false],
    [14, 2, true],
    [16, 1, false],
    [16, 2, true],
  ] as const;
  const sizeOf = (log2Granule: Log2Granule, level: number): bigint =>
    1n << BigInt(log2Granule + (3 - level) * (log2Granule - 3));

  it.each(LEVELS)('of stage 1, granule 2^%i, level %i', (log2Granule, level, isBlock) => {
    const rig = new Rig();
    const table = new PageTable(rig.space, { log2Granule, inputBits: 48 });
    const cdAt = rig.cd({ T0SZ: 16, TG0: TG0[log2Granule], IPS: 4, TTB0: table.base });
    rig.ste(1, { Config: 5, S1ContextPtr: cdAt });
    const size = sizeOf(log2Granule, level);
    table.map(size, 0n, RW_PAGE, level);
    expect(rig.access(1, size + 0x123n)).toBe(isBlock ? 'ok 123' : 'abort');
    expect(rig.events()).toMatchObject(isBlock ? [] : [{ type: F_TRANSLATION, s2: false, cls: IN }]);
  });

  it.each(LEVELS)('of stage 2, granule 2^%i, level %i', (log2Granule, level, isBlock) => {
    const rig = new Rig();
    const startLevel = log2Granule === 12 ? 0 : 1;
    const table = stage2Only(rig, { log2Granule, inputBits: 44, startLevel });
    const size = sizeOf(log2Granule, level);
    const ipa = size < 1n << OAS ? size : 0n;
    table.map(ipa, 0n, S2_RW_PAGE, level);
    expect(rig.access(1, ipa + 0x123n)).toBe(isBlock ? 'ok 123' : 'abort');
    expect(rig.events()).toMatchObject(isBlock ? [] : [{ type: F_TRANSLATION, s2: true, cls: IN }]);
  });
});

describe('concatenated tables of stage 2', () => {
  // 5.2 S2SL0: up to 16 of them.
  it.each([
    [12, 1, 39],
    [12, 2, 30],
    [14, 2, 36],
    [16, 2, 42],
  ] as const)(
    'granule 2^%i, first level %i, of %i bits and up to four more',
    (log2Granule, startLevel, bits) => {
      for (let more = 1; more <= Math.min(4, 44 - bits); more++) {
        const rig = new Rig();
        const table = stage2Only(rig, { log2Granule, inputBits: bits + more, startLevel });
        const granule = 1n << BigInt(log2Granule);
        for (let n = 0n; n < 1n << BigInt(more); n++) {
          const ipa = (n << BigInt(bits)) + granule;
          table.map(ipa, RAM + granule * n, S2_RW_PAGE);
          expect(rig.access(1, ipa + 4n)).toBe(`ok ${(RAM + granule * n + 4n).toString(16)}`);
        }
      }
    },
  );

  it('are not more than 16', () => {
    const rig = new Rig();
    stage2Only(rig, { log2Granule: 12, inputBits: 35, startLevel: 2 });
    expect(rig.access(1, 0n)).toBe('abort');
    expect(rig.events()).toEqual([{ type: C_BAD_STE, sid: 1 }]);
  });
});

describe('an STE', () => {
  it.each<[string, SteFields, 'bad' | 'good']>([
    ['S2AA64=0', { S2AA64: 0 }, 'bad'],
    ['S2HA=1', { S2HA: 1 }, 'bad'],
    ['S2HD=1', { S2HD: 1 }, 'bad'],
    ['S2SL0 of a higher level than 39 bits have', { S2SL0: 2 }, 'bad'],
    ['S1STALLD=1', { S1STALLD: 1 }, 'good'],
    ['S1CDMax=31', { S1CDMax: 31 }, 'good'],
    ['S1Fmt=3', { S1Fmt: 3 }, 'good'],
    ['S1ContextPtr beyond the OAS', { S1ContextPtr: 1n << 52n }, 'good'],
  ])('of stage 2 alone with %s', (_what, more, is) => {
    const rig = new Rig();
    const table = stage2Only(rig, { log2Granule: 12, inputBits: 39, startLevel: 1 }, more);
    table.map(0x1000n, RAM, S2_RW_PAGE);
    expect(rig.access(1, 0x1000n)).toBe(is === 'good' ? `ok ${RAM.toString(16)}` : 'abort');
    expect(rig.events()).toEqual(is === 'good' ? [] : [{ type: C_BAD_STE, sid: 1 }]);
  });

  it.each<[string, SteFields, string]>([
    ['S1STALLD=1', { S1STALLD: 1 }, 'abort'],
    ['S1CDMax=5', { S1CDMax: 5 }, 'ok 80001000'],
    ['STRW=3', { STRW: 3 }, 'ok 80001000'],
    [
      'S2AA64=0 and S2HD, S2HA, S2S, S2ENDI, S2TG=3',
      { S2HD: 1, S2HA: 1, S2S: 1, S2ENDI: 1, S2TG: 3 },
      'ok 80001000',
    ],
    ['S2TTB beyond the OAS', { S2TTB: 1n << 52n }, 'ok 80001000'],
  ])('of stage 1 alone with %s', (_what, more, outcome) => {
    const rig = new Rig();
    rig.stage1Stream(1, {}, more);
    expect(rig.access(1, 0x1000n)).toBe(outcome);
    expect(rig.events()).toEqual(outcome === 'abort' ? [{ type: C_BAD_STE, sid: 1 }] : []);
  });
});

describe('RECINVSID=0', () => {
  // 6.3.12: no record of C_BAD_STREAMID, however it came about; other records are as ever.
  it.each([
    ['beyond LOG2SIZE', 8, 300],
    ['beyond the span', (1 << 16) | (6 << 6) | 10, 1],
    ['with no second level', (1 << 16) | (6 << 6) | 10, 64],
  ])('a StreamID %s', (_what, config, sid) => {
    for (const cr2 of [0, 2]) {
      const rig = new Rig();
      rig.cr2 = cr2;
      // One STE behind the first descriptor, none behind the second.
      if (config !== 8) rig.write(STRTAB, (RAM + 0x8000n) | 1n);
      rig.strtab(STRTAB, config);
      expect(rig.access(sid, 0n)).toBe('abort');
      expect(rig.events()).toEqual(cr2 === 0 ? [] : [{ type: C_BAD_STREAMID, sid }]);
      expect(rig.access(0, 0n)).toBe('abort');
      expect(rig.events()).toEqual([{ type: C_BAD_STE, sid: 0 }]);
    }
  });
});

describe('the top byte', () => {
  // 5.4 TBI: each half goes by its own bit.
  it.each([
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ])('with TBI0=%i and TBI1=%i', (TBI0, TBI1) => {
    const rig = new Rig();
    const table = rig.stage1();
    table.map(0x1000n, RAM, RW_PAGE);
    const half = { T0SZ: 25, T1SZ: 25, TG1: TG1[12], EPD1: 0, TTB0: table.base, TTB1: table.base };
    const cdAt = rig.cd({ ...half, IPS: 4, TBI0, TBI1 });
    rig.ste(1, { Config: 5, S1ContextPtr: cdAt });
    const upper = 0xffff_ff80_0000_1000n;
    const ok = `ok ${RAM.toString(16)}`;
    for (const tag of [0x01n, 0x5an, 0x80n, 0xfen]) {
      const tagged = (address: bigint): bigint => (address & 0xff_ffff_ffff_ffffn) | (tag << 56n);
      expect(rig.access(1, tagged(0x1000n)), `lower ${tag}`).toBe(TBI0 === 1 ? ok : 'abort');
      expect(rig.access(1, tagged(upper)), `upper ${tag}`).toBe(TBI1 === 1 ? ok : 'abort');
    }
  });
});

describe('the order of what is wrong with a leaf', () => {
  // 7.3.22: F_ADDR_SIZE, F_ACCESS, F_PERMISSION, in both stages.
  it.each([
    ['all', 1n << OAS, 0n, F_ADDR_SIZE],
    ['size and permission', 1n << OAS, LEAF.AF, F_ADDR_SIZE],
    ['access and permission', 0n, 0n, F_ACCESS],
    ['permission', 0n, LEAF.AF, F_PERMISSION],
  ])('%s', (_what, address, bits, type) => {
    const rig = new Rig();
    const table = stage2Only(rig, { log2Granule: 12, inputBits: 39, startLevel: 1 });
    table.map(0x1000n, address, bits);
    const { table: table1 } = rig.stage1Stream(2);
    table1.map(0x2000n, address, bits);
    expect([rig.access(1, 0x1000n), rig.access(2, 0x2000n)]).toEqual(['abort', 'abort']);
    expect(rig.events().map((event) => event.type)).toEqual([type, type]);
  });
});

describe('nested', () => {
  it('TTB1 that stage 2 does not map is no fault of an access that goes by TTB0 (5.4.2)', () => {
    const rig = new Rig();
    const s2 = rig.stage2();
    s2.map(0x5000_0000n, 0x8000_0000n, S2_RW_PAGE);
    const s1 = rig.stage1();
    s1.map(0x1000n, 0x5000_0000n, RW_PAGE);
    const half = { T0SZ: 25, T1SZ: 25, TG1: TG1[12], EPD1: 0, TTB0: s1.base, TTB1: 0x7_0000_0000n };
    const cdAt = rig.cd({ ...half, IPS: 4 });
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt });
    expect(rig.access(1, 0x1000n)).toBe('ok 80000000');
    expect(rig.access(1, 0xffff_ff80_0000_1000n)).toBe('abort');
    expect(rig.events()).toMatchObject([{ type: F_TRANSLATION, s2: true, cls: 1, last: 0x7_0000_0000n }]);
  });

  it('a table of stage 1 may be at a PA that IPS does not reach', () => {
    const rig = new Rig();
    const s2 = rig.stage2();
    const s1 = rig.stage1();
    s1.map(0x1000n, 0x5000_0000n, RW_PAGE);
    // The table is an IPA below 2^32; the PA that stage 2 gives it is not, and nothing is there.
    s2.map(0x6000_0000n, 1n << 33n, S2_RW_PAGE);
    const cdAt = rig.cd({ T0SZ: 25, IPS: 0, TTB0: 0x6000_0000n });
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt });
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.events()).toMatchObject([{ type: 0x0b, s2: false, cls: 1, last: 1n << 33n }]);
  });

  it('a new place of the table of stage 1 is seen after TLBI alone (3.21.1, 16.2.2)', () => {
    const rig = new Rig();
    const s2 = rig.stage2();
    s2.map(0x5000_0000n, 0x8000_0000n, S2_RW_PAGE);
    const s1 = rig.stage1();
    s1.map(0x1000n, 0x5000_0000n, RW_PAGE);
    const leaf = s2.map(0x6000_0000n, s1.base, S2_RW_PAGE);
    const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: 0x6000_0000n, ASID: 3 });
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt });
    expect(rig.access(1, 0x1000n)).toBe('ok 80000000');
    const other = rig.stage1();
    rig.write(leaf, other.base | S2_RW_PAGE | 3n);
    // CMD_TLBI_S12_VMALL of VMID 9.
    rig.command((9n << 32n) | 0x28n);
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.events()).toMatchObject([{ type: F_TRANSLATION, s2: false, cls: IN }]);
  });
});

describe('an STE whose S1ContextPtr is beyond the OAS', () => {
  // 3.4.3, 5.2.2: with stage 1 alone it is ILLEGAL; nothing is read there.
  it.each([44n, 48n, 51n, 55n])('by bit %i', (bit) => {
    const rig = new Rig();
    rig.ste(1, { Config: 5, S1ContextPtr: NOWHERE | (1n << bit) });
    expect(rig.access(1, 0n)).toBe('abort');
    expect(rig.events()).toEqual([{ type: C_BAD_STE, sid: 1 }]);
  });
});

describe('OVFLG', () => {
  // 7.4: it toggles at the first loss after each acknowledgement, stays over EVENTQEN=0, and is no global error.
  it('is 1, then 0, then 1 again', () => {
    const device = new Device(QEMU_LIKE);
    device.write64(0xa0, 0, EVENTQ);
    device.write(0x20, 4);
    const flags: number[][] = [];
    for (let i = 0; i < 3; i++) {
      expect(device.smmu.recordEvent(record(1))).toBe(EVENT.Queued);
      for (let lost = 0; lost < 2; lost++) {
        expect(device.smmu.recordEvent(record(2))).toBe(EVENT.Full);
        device.smmu.eventsLost();
        flags.push([device.read(0x100a8) >>> 31, device.errors]);
        device.write(0x20, 0);
        device.write(0x20, 4);
      }
      device.write(0x100ac, device.read(0x100a8));
    }
    expect(flags).toEqual([1, 1, 0, 0, 1, 1].map((flag) => [flag, 0]));
  });
});
