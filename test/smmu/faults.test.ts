import { describe, expect, it } from 'vitest';
import { NOWHERE, RAM, Rig, type Seen } from '../support/translation-rig.ts';
import { LEAF, type PageTable, RW_PAGE, S2_RW_PAGE } from '../support/tables.ts';

const F_WALK_EABT = 0x0b;
const F_TRANSLATION = 0x10;
const F_ADDR_SIZE = 0x11;
const F_ACCESS = 0x12;
const F_PERMISSION = 0x13;
const CLASS = { CD: 0, TT: 1, IN: 2 };
const CFGI_ALL = [4n, 31n] as const;

/** Flips bits of a structure in memory. */
function flip(rig: Rig, at: bigint, ...bits: number[]): void {
  rig.write(
    at,
    bits.reduce((value, bit) => value ^ (1n << BigInt(bit)), rig.read(at)),
  );
}

interface Nested {
  rig: Rig;
  s1: PageTable;
  s2: PageTable;
  cdAt: bigint;
  /** S1 descriptor of IOVA 0x1000, which maps to IPA 0x5_0000_1000, which maps to PA 0x8000_1000. */
  s1Leaf: bigint;
  s2Leaf: bigint;
}

const IPA = 0x5_0000_1000n;

function nested(): Nested {
  const rig = new Rig();
  const s2 = rig.stage2();
  const s2Leaf = s2.map(IPA, 0x8000_1000n, S2_RW_PAGE);
  const s1 = rig.stage1();
  const s1Leaf = s1.map(0x1000n, IPA, RW_PAGE);
  const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: s1.base, ASID: 1 });
  rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt });
  return { rig, s1, s2, cdAt, s1Leaf, s2Leaf };
}

describe('a fault of stage 1', () => {
  it.each([
    [{ A: 0, R: 0 }, 'razwi', 0],
    [{ A: 0, R: 1 }, 'razwi', 1],
    [{ A: 1, R: 0 }, 'abort', 0],
    [{ A: 1, R: 1 }, 'abort', 1],
  ])('with %o ends as %s and makes %i records', (cd, outcome, records) => {
    const rig = new Rig({ TERM_MODEL: 0 });
    rig.stage1Stream(1, cd);
    expect(rig.access(1, 0x2000n)).toBe(outcome);
    expect(rig.events()).toHaveLength(records);
    expect(rig.result.event).toBe(records * F_TRANSLATION);
  });

  it('that is an external abort is recorded and aborted even with A=0, R=0', () => {
    const rig = new Rig({ TERM_MODEL: 0 });
    const { table } = rig.stage1Stream(1, { A: 0, R: 0 });
    rig.write(table.base, NOWHERE | 3n);
    expect(rig.access(1, 0x1000n, { write: true })).toBe('abort');
    expect(rig.events()).toEqual([
      {
        type: F_WALK_EABT,
        sid: 1,
        rnw: false,
        pnu: false,
        ind: false,
        s2: false,
        cls: CLASS.TT,
        input: 0x1000n,
        last: NOWHERE,
      },
    ]);
  });

  it('carries the whole input address with its tag, and the attributes of the transaction', () => {
    const rig = new Rig();
    rig.stage1Stream(1, { TBI0: 1 });
    const input = (0xa5n << 56n) | 0x2345n;
    rig.access(1, input, { privileged: true, instruction: true });
    rig.access(1, input, { privileged: true, instruction: true, write: true });
    expect(rig.events()).toMatchObject([
      { input, rnw: true, pnu: true, ind: true, s2: false, cls: CLASS.IN },
      { input, rnw: false, pnu: true, ind: false },
    ]);
  });

  it('shows attributes after PRIVCFG and INSTCFG', () => {
    const rig = new Rig({ ATTR_PERMS_OVR: 1 });
    rig.stage1Stream(1, {}, { PRIVCFG: 3, INSTCFG: 3 });
    rig.access(1, 0x2000n);
    expect(rig.events()).toMatchObject([{ pnu: true, ind: true }]);
  });

  it('follows A and R after CFGI alone, also for what the TLB holds', () => {
    const rig = new Rig({ TERM_MODEL: 0 });
    const { cdAt } = rig.stage1Stream(1);
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
    expect(rig.access(1, 0x1000n, { instruction: true })).toBe('ok 80001000');
    flip(rig, cdAt, 36);
    rig.command(...CFGI_ALL);
    rig.command(0x30n);
    rig.access(1, 0x1000n);
    expect(rig.access(1, 0x1000n, { instruction: true })).toBe('abort');
    expect(rig.events()).toHaveLength(1);
    flip(rig, cdAt, 45, 46);
    rig.command(...CFGI_ALL);
    expect(rig.access(1, 0x1000n, { instruction: true })).toBe('razwi');
    expect(rig.events()).toEqual([]);
  });
});

describe('one stage faults in the order of 7.3.22', () => {
  const bad = { high: 1n << 45n, noAf: LEAF.AF, readOnly: LEAF.AP2 };

  it.each<[string, bigint, number]>([
    ['an invalid descriptor comes before everything', 0n, F_TRANSLATION],
    ['address size before access and permission', bad.high, F_ADDR_SIZE],
    ['access before permission', 0x1n, F_ACCESS],
    ['permission last', LEAF.AF | bad.readOnly, F_PERMISSION],
  ])('%s', (_what, kind, type) => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1);
    const leaf =
      kind === 0n ? 0n : kind === bad.high ? bad.high | 3n : kind === 1n ? 0x8000_2083n : kind | 0x8000_2003n;
    rig.write(table.map(0x2000n, 0n, 0n), leaf);
    rig.access(1, 0x2000n, { write: true });
    expect(rig.events().map((event) => event.type)).toEqual([type]);
  });

  it('finds a table beyond IPS without reading there', () => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1);
    rig.write(table.base, (1n << 44n) | 3n);
    rig.access(1, 0x1000n);
    expect(rig.events()).toMatchObject([{ type: F_ADDR_SIZE, s2: false, cls: CLASS.IN }]);
  });

  it('lets a later level fault before what APTable forbids', () => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1);
    rig.write(table.base, rig.read(table.base) | (3n << 61n));
    rig.access(1, 0x2000n, { write: true });
    rig.access(1, 0x1000n, { write: true });
    expect(rig.events().map(({ type }) => type)).toEqual([F_TRANSLATION, F_PERMISSION]);
  });
});

describe('nested translation', () => {
  const expected = (event: Partial<Seen>): Partial<Seen>[] => [{ input: 0x1000n, ...event }];

  it('works when nothing is wrong', () => {
    expect(nested().rig.access(1, 0x1abcn)).toBe('ok 80001abc');
  });

  it.each<[string, (n: Nested) => void, Partial<Seen>]>([
    [
      'the final IPA',
      ({ rig, s2Leaf }) => rig.write(s2Leaf, 0n),
      { type: F_TRANSLATION, s2: true, cls: 2, last: IPA },
    ],
    [
      'the final IPA, beyond S2T0SZ',
      ({ rig, s1Leaf }) => rig.write(s1Leaf, (1n << 40n) | 0xc43n),
      { type: F_TRANSLATION, s2: true, cls: 2, last: 1n << 40n },
    ],
    [
      'the output of stage 2 beyond S2PS',
      ({ rig, s2Leaf }) => rig.write(s2Leaf, (1n << 45n) | 0x4ffn),
      { type: F_ADDR_SIZE, s2: true, cls: 2, last: IPA },
    ],
    [
      'AF=0 in stage 2',
      ({ rig, s2Leaf }) => flip(rig, s2Leaf, 10),
      { type: F_ACCESS, s2: true, cls: 2, last: IPA },
    ],
    [
      'S2AP without write',
      ({ rig, s2Leaf }) => flip(rig, s2Leaf, 7),
      { type: F_PERMISSION, s2: true, cls: 2, last: IPA },
    ],
    [
      'S2AP without write, but stage 1 refuses first',
      ({ rig, s2Leaf, s1Leaf }) => (flip(rig, s2Leaf, 7), flip(rig, s1Leaf, 7)),
      { type: F_PERMISSION, s2: false, cls: 2 },
    ],
    [
      'S1 descriptor that stage 2 does not map',
      ({ rig, s1 }) => rig.write(s1.base, 0x7_0000_0003n),
      { type: F_TRANSLATION, s2: true, cls: CLASS.TT, last: 0x7_0000_0000n },
    ],
    [
      'S1 descriptor that stage 2 maps to nowhere',
      ({ rig, s1, s2 }) => (s2.map(0x6_0000_0000n, NOWHERE, S2_RW_PAGE), rig.write(s1.base, 0x6_0000_0003n)),
      { type: F_WALK_EABT, s2: false, cls: CLASS.TT, last: NOWHERE },
    ],
    [
      'S2 descriptor that cannot be read, for a table',
      ({ rig, s1, s2 }) => (rig.write(s1.base, 0x7_0000_0003n), rig.write(s2.base + 8n * 28n, NOWHERE | 3n)),
      { type: F_WALK_EABT, s2: true, cls: CLASS.TT, last: NOWHERE },
    ],
    [
      'S2 descriptor that cannot be read, for the final IPA',
      ({ rig, s2 }) => rig.write(s2.base + 8n * 20n, NOWHERE | 3n),
      { type: F_WALK_EABT, s2: true, cls: CLASS.IN, last: NOWHERE },
    ],
    [
      'stage 2 without read for a table',
      ({ rig, s1, s2 }) => (
        s2.map(0x6_0000_0000n, RAM, S2_RW_PAGE & ~LEAF.S2R),
        rig.write(s1.base, 0x6_0000_0003n)
      ),
      { type: F_PERMISSION, s2: true, cls: CLASS.TT, ttrnw: true, last: 0x6_0000_0000n },
    ],
  ])('reports %s', (_what, arrange, event) => {
    const n = nested();
    arrange(n);
    expect(n.rig.access(1, 0x1000n, { write: true })).toBe('abort');
    expect(n.rig.events()).toMatchObject(expected({ rnw: false, ...event }));
  });

  it.each([0n, 1n])('reports a stage 2 fault of the CD fetch, if S2R=%i', (r) => {
    const { rig, s2 } = nested();
    rig.ste(2, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: 0x7_0000_0040n, S2R: r });
    expect(rig.access(2, 0x1000n, { instruction: true })).toBe('abort');
    expect(rig.events()).toEqual(
      r === 0n
        ? []
        : [
            {
              type: F_TRANSLATION,
              sid: 2,
              rnw: true,
              pnu: false,
              ind: true,
              s2: true,
              cls: CLASS.CD,
              input: 0x1000n,
              last: 0x7_0000_0000n,
            },
          ],
    );
  });

  it('reads every descriptor through stage 2: a table may be scattered', () => {
    const { rig, s1, s2 } = nested();
    // The last table of stage 1, 4 KB at an IPA whose page lies elsewhere.
    const copy = rig.allocator.take(4096n);
    s2.map(0x6_0000_0000n, copy, S2_RW_PAGE);
    rig.write(copy + 8n, rig.read((rig.read(rig.read(s1.base) & ~0xfffn) & ~0xfffn) + 8n));
    rig.write(rig.read(s1.base) & ~0xfffn, 0x6_0000_0003n);
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
  });

  it.each([
    ['device memory with S2PTW=1', 0b0001n, 1, 'abort'],
    ['device memory with S2PTW=0', 0b0001n, 0, 'ok 80001000'],
    ['normal memory with S2PTW=1', 0b0101n, 1, 'ok 80001000'],
  ] as const)('of tables in %s', (_what, memAttr, S2PTW, outcome) => {
    const { rig, s1, s2, cdAt } = nested();
    const attributes = (S2_RW_PAGE & ~(0xfn << 2n)) | (memAttr << 2n);
    s2.map(0x6_0000_0000n, s1.base, attributes);
    flip(rig, cdAt + 8n, ...bitsOf((s1.base ^ 0x6_0000_0000n) & ~0xfffn));
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt, S2PTW });
    expect(rig.access(1, 0x1000n)).toBe(outcome);
    if (outcome === 'abort')
      expect(rig.events()).toMatchObject([{ type: F_PERMISSION, s2: true, cls: CLASS.TT, ttrnw: true }]);
  });
});

const bitsOf = (value: bigint): number[] =>
  Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => ((value >> BigInt(bit)) & 1n) !== 0n);

describe('addresses', () => {
  it.each([
    [44, 'abort', [{ type: F_ADDR_SIZE, s2: false, cls: 2, input: 1n << 44n }]],
    [43, 'ok 80000000000', []],
  ] as const)('of a bypassed stream: bit %i', (bit, outcome, events) => {
    const rig = new Rig();
    rig.ste(1, { Config: 4 });
    expect(rig.access(1, 1n << BigInt(bit))).toBe(outcome);
    expect(rig.events()).toMatchObject(events);
  });

  it.each([
    [0x7f_ffff_ffffn, 'lower'],
    [0xffff_ff80_0000_0000n, 'upper'],
  ])('0x%x is in the %s half, and what lies next to it is not', (address) => {
    const rig = new Rig();
    const table = rig.stage1();
    table.map(0x7f_ffff_f000n, 0x8000_0000n, RW_PAGE);
    table.map(0n, 0x9000_0000n, RW_PAGE);
    const cdAt = rig.cd({ T0SZ: 25, T1SZ: 25, TG1: 2, EPD1: 0, IPS: 4, TTB0: table.base, TTB1: table.base });
    rig.ste(1, { Config: 5, S1ContextPtr: cdAt });
    expect(rig.access(1, address)).toMatch(/^ok/u);
    const outside = address >> 63n === 0n ? address + 1n : address - 1n;
    expect(rig.access(1, outside)).toBe('abort');
    expect(rig.access(1, address ^ (1n << 63n))).toBe('abort');
    expect(rig.events().map(({ type }) => type)).toEqual([F_TRANSLATION, F_TRANSLATION]);
  });

  it.each([
    ['TBI0', { TBI0: 1 }, 0x5a00_0000_0000_1000n, 'ok 80001000'],
    ['TBI0 does not serve the upper half', { TBI0: 1 }, 0x5aff_ffff_ffff_f000n, 'abort'],
    ['no TBI0', { TBI1: 1 }, 0x5a00_0000_0000_1000n, 'abort'],
    ['TBI0, but bit 54 set', { TBI0: 1 }, 0x5a40_0000_0000_1000n, 'abort'],
  ] as const)('with a tag: %s', (_what, cd, address, outcome) => {
    const rig = new Rig();
    rig.stage1Stream(1, cd);
    expect(rig.access(1, address)).toBe(outcome);
  });

  it('of plain EL2 have no upper half, and TBI0 for all', () => {
    const rig = new Rig({ HYP: 1 });
    rig.stage1Stream(1, { TBI0: 1, EPD1: 0 }, { STRW: 2 });
    expect(rig.access(1, 0x5a00_0000_0000_1000n)).toBe('ok 80001000');
    expect(rig.access(1, 0x0080_0000_0000_1000n)).toBe('abort');
    expect(rig.access(1, 0xffff_ffff_ffff_f000n)).toBe('abort');
  });
});

describe('SMMUEN=0', () => {
  it.each([
    [0, 0x1234n, 'ok 1234'],
    [0, (1n << 44n) - 1n, `ok ${((1n << 44n) - 1n).toString(16)}`],
    [0, 1n << 44n, 'abort'],
    [1 << 20, 0x1234n, 'abort'],
  ])('with GBPA=0x%x: address %x', (gbpa, address, outcome) => {
    const rig = new Rig();
    rig.cr0 = 0;
    rig.registers[0x44 >>> 2] = gbpa;
    rig.strtab(NOWHERE, 8);
    expect(rig.access(999, address, { ssid: 4 })).toBe(outcome);
    expect(rig.events()).toEqual([]);
  });
});
