import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TLB_KIND, TLB_PA_HI, TLB_PA_LO, Tlb, type TlbKind, tlbFlags } from '../../src/smmu/tlb.ts';
import { Rig } from '../support/translation-rig.ts';
import { RW_PAGE, S2_RW_PAGE, hiOf, loOf } from '../support/tables.ts';

/** What was filled, with when it stopped being valid for certain. */
interface Known {
  kind: TlbKind;
  vmid: number;
  asid: number;
  global: boolean;
  log2Page: number;
  log2Leaf: number;
  va: bigint;
  pa: number;
  alive: boolean;
}

const INVALIDATIONS = ['all', 'stage1', 'vmid', 'asid', 'va', 'vaa', 'ipa'] as const;
type Invalidation = (typeof INVALIDATIONS)[number];

class Pair {
  readonly tlb: Tlb;
  readonly known: Known[] = [];
  constructor(log2Entries: number) {
    this.tlb = new Tlb(log2Entries);
  }

  #tag(e: Known): number {
    return (e.vmid << 16) | (e.global || e.kind === TLB_KIND.Stage2 ? 0 : e.asid);
  }

  /** What a lookup goes by: entries with the same key replace each other. */
  key(e: Known): string {
    return [e.kind, e.log2Page, e.global, this.#tag(e), e.va >> BigInt(e.log2Page)].join(' ');
  }

  enter(e: Known): void {
    const page = loOf(e.va) & -(1 << e.log2Page);
    const flags = tlbFlags(e.kind, e.log2Page, e.global);
    for (const old of this.known) if (this.key(old) === this.key(e)) old.alive = false;
    this.tlb.fill(hiOf(e.va) | 0, page | flags, this.#tag(e), 0, (e.pa << 16) | 63, e.log2Leaf, e.log2Page);
    this.known.push(e);
  }

  /** Carries out an invalidation. @returns whether it names an entry */
  invalidate(op: Invalidation, e: Known, pages: number): (k: Known) => boolean {
    const { tlb } = this;
    const first = e.va & ~0xfffn;
    const inRange = (k: Known): boolean => {
      const base = (k.va >> BigInt(k.log2Leaf)) << BigInt(k.log2Leaf);
      return base < first + BigInt(pages) * 4096n && first < base + (1n << BigInt(k.log2Leaf));
    };
    const stage1 = (k: Known): boolean => k.kind !== TLB_KIND.Stage2 && k.vmid === e.vmid;
    switch (op) {
      case 'all':
        tlb.invalidateAll();
        return () => true;
      case 'stage1':
        tlb.invalidateStage1(e.vmid);
        return stage1;
      case 'vmid':
        tlb.invalidateVmid(e.vmid);
        return (k) => k.vmid === e.vmid;
      case 'asid':
        tlb.invalidateAsid(e.vmid, e.asid);
        return (k) => stage1(k) && !k.global && k.asid === e.asid;
      case 'va':
        tlb.invalidateVa(e.vmid, e.asid, hiOf(first), loOf(first), pages, 0);
        return (k) => stage1(k) && (k.global || k.asid === e.asid) && inRange(k);
      case 'vaa':
        tlb.invalidateVaAllAsids(e.vmid);
        return (k) => stage1(k) && inRange(k);
      default:
        tlb.invalidateIpa(e.vmid, hiOf(first), loOf(first), pages, 0);
        return (k) => k.kind === TLB_KIND.Stage2 && k.vmid === e.vmid && inRange(k);
    }
  }

  /** Looks an entry up again: it may be missing, but if it is there it must still be valid and its own. */
  check(e: Known): 'hit' | 'miss' {
    const { tlb } = this;
    const page = (loOf(e.va) & -(1 << e.log2Page)) | tlbFlags(e.kind, e.log2Page, e.global);
    const floor = tlb.floor(e.kind, e.vmid, e.asid, e.global);
    const at = tlb.find(hiOf(e.va) | 0, page, this.#tag(e), floor);
    if (at < 0) return 'miss';
    expect(tlb.entries[at + TLB_PA_HI]).toBe(0);
    if (e.alive) expect(tlb.entries[at + TLB_PA_LO] >>> 16).toBe(e.pa);
    return 'hit';
  }
}

const entry = fc.record({
  kind: fc.constantFrom(TLB_KIND.Stage1, TLB_KIND.Combined, TLB_KIND.Stage2),
  vmid: fc.integer({ min: 0, max: 2 }),
  asid: fc.integer({ min: 0, max: 2 }),
  global: fc.boolean(),
  log2Page: fc.constantFrom(12, 14, 16),
  log2Leaf: fc.constantFrom(12, 14, 16, 21, 25, 29, 30, 36, 39),
  va: fc.bigInt({ min: 0n, max: 0x1ffn }).map((n) => (n & 15n) * 0x1000n + (n >> 4n) * 0x20_0000_0000n),
});

describe('the TLB against a list', () => {
  it('never gives an entry that an invalidation names, for any sequence', () => {
    const step = fc.oneof(
      { weight: 5, arbitrary: fc.record({ op: fc.constant('fill' as const), entry }) },
      {
        weight: 2,
        arbitrary: fc.record({
          op: fc.constantFrom(...INVALIDATIONS),
          entry,
          pages: fc.constantFrom(1, 2, 16, 512, 300_000),
        }),
      },
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const pair = new Pair(5);
        let n = 1;
        for (const s of steps) {
          const { kind, global } = s.entry;
          const e = { ...s.entry, global: global && kind !== TLB_KIND.Stage2, pa: n++, alive: true };
          if (s.op === 'fill') {
            pair.enter({ ...e, log2Leaf: Math.max(e.log2Leaf, e.log2Page) });
          } else {
            const dies = pair.invalidate(s.op, e, s.pages);
            for (const k of pair.known) if (dies(k)) k.alive = false;
          }
          for (const k of pair.known) {
            const newer = pair.known.some((other) => other.alive && pair.key(other) === pair.key(k));
            if (pair.check(k) === 'hit' && !newer)
              expect(
                k.alive,
                JSON.stringify(s, (_k, v: unknown) => (typeof v === 'bigint' ? v.toString(16) : v)),
              ).toBe(true);
          }
        }
      }),
      { numRuns: 400 },
    );
  });

  it('keeps a working set as large as itself', () => {
    const pair = new Pair(8);
    for (let i = 0; i < 256; i++)
      pair.enter({
        kind: TLB_KIND.Stage1,
        vmid: 1,
        asid: 1,
        global: false,
        log2Page: 12,
        log2Leaf: 12,
        va: BigInt(i) << 12n,
        pa: i,
        alive: true,
      });
    const hits = pair.known.filter((k) => pair.check(k) === 'hit').length;
    expect(hits).toBe(256);
  });

  it('drops everything when its clock runs out, and goes on', () => {
    const tlb = new Tlb(4, 20);
    const flags = tlbFlags(TLB_KIND.Stage1, 12, false);
    const find = (asid: number): number =>
      tlb.find(0, 0x1000 | flags, asid, tlb.floor(TLB_KIND.Stage1, 0, asid, false));
    for (let i = 0; i < 100; i++) {
      tlb.fill(0, 0x1000 | flags, 1, 0, 63, 12, 12);
      expect(find(1)).not.toBe(-1);
      tlb.invalidateAsid(0, 1);
      expect(find(1)).toBe(-1);
    }
    // An entry from before the last turn must not come back to life.
    tlb.fill(0, 0x1000 | flags, 1, 0, 63, 12, 12);
    for (let i = 0; i < 30; i++) {
      tlb.invalidateAsid(0, i === 0 ? 1 : 2);
      expect(find(1)).toBe(-1);
    }
  });
});

/** A stream whose page is in the TLB; then it is unmapped without telling. */
function cached(prepare: (rig: Rig) => bigint, address: bigint): Rig {
  const rig = new Rig({ HYP: 1 });
  const leafAt = prepare(rig);
  expect(rig.access(1, address)).toMatch(/^ok/u);
  rig.write(leafAt, 0n);
  return rig;
}
const stage1 =
  (attributes: bigint, cd = {}, ste = {}) =>
  (rig: Rig): bigint =>
    rig
      .stage1Stream(1, { ASID: 5, ...cd }, { S2VMID: 9, ...ste })
      .table.map(0x1000n, 0x8000_1000n, attributes);
const VMID = 9n << 32n;
const ASID = 5n << 48n;

describe('a stage 1 translation in the TLB', () => {
  it.each<[string, (rig: Rig) => bigint, bigint, bigint, boolean]>([
    ['TLBI_NH_ASID of another ASID', stage1(RW_PAGE), 0x11n | VMID | (6n << 48n), 0n, true],
    ['TLBI_NH_ASID of another VMID', stage1(RW_PAGE), 0x11n | (8n << 32n) | ASID, 0n, true],
    ['TLBI_NH_ASID', stage1(RW_PAGE), 0x11n | VMID | ASID, 0n, false],
    ['TLBI_NH_ASID, global', stage1(RW_PAGE & ~(1n << 11n)), 0x11n | VMID | ASID, 0n, true],
    ['TLBI_NH_VA of another page', stage1(RW_PAGE), 0x12n | VMID | ASID, 0x2000n, true],
    ['TLBI_NH_VA of another ASID', stage1(RW_PAGE), 0x12n | VMID | (6n << 48n), 0x1000n, true],
    [
      'TLBI_NH_VA of another ASID, global',
      stage1(RW_PAGE & ~(1n << 11n)),
      0x12n | VMID | (6n << 48n),
      0x1000n,
      false,
    ],
    [
      'TLBI_NH_VA of another ASID, global with ASET',
      stage1(RW_PAGE & ~(1n << 11n), { ASET: 1 }),
      0x12n | VMID | (6n << 48n),
      0x1000n,
      false,
    ],
    ['TLBI_NH_VA', stage1(RW_PAGE), 0x12n | VMID | ASID, 0x1001n, false],
    [
      'TLBI_NH_VA with a tag',
      stage1(RW_PAGE, { TBI0: 1 }),
      0x12n | VMID | ASID,
      (0x77n << 56n) | 0x1000n,
      false,
    ],
    ['TLBI_NH_VAA', stage1(RW_PAGE), 0x13n | VMID, 0x1000n, false],
    ['TLBI_NH_ALL of another VMID', stage1(RW_PAGE), 0x10n | (8n << 32n), 0n, true],
    ['TLBI_NH_ALL', stage1(RW_PAGE), 0x10n | VMID, 0n, false],
    ['TLBI_NH_ALL, global', stage1(RW_PAGE & ~(1n << 11n)), 0x10n | VMID, 0n, false],
    ['TLBI_S12_VMALL', stage1(RW_PAGE), 0x28n | VMID, 0n, false],
    ['TLBI_S2_IPA', stage1(RW_PAGE), 0x2an | VMID, 0x1000n, true],
    ['TLBI_NSNH_ALL', stage1(RW_PAGE), 0x30n, 0n, false],
    ['TLBI_EL2_ALL', stage1(RW_PAGE), 0x20n, 0n, true],
    ['CFGI_ALL', stage1(RW_PAGE), 4n, 31n, true],
    [
      'range of 2 pages before it',
      stage1(RW_PAGE),
      0x12n | VMID | ASID | (1n << 12n),
      (1n << 10n) | 0xffff_f000n,
      true,
    ],
    ['range with it at the end', stage1(RW_PAGE), 0x12n | VMID | ASID | (1n << 12n), 1n << 10n, false],
    [
      'range of 2^19 pages',
      stage1(RW_PAGE),
      0x12n | VMID | ASID | (0n << 12n) | (19n << 20n),
      1n << 10n,
      false,
    ],
    ['range of level 2', stage1(RW_PAGE), 0x12n | VMID | ASID | (1n << 12n), (1n << 10n) | (2n << 8n), true],
    ['range of level 3', stage1(RW_PAGE), 0x12n | VMID | ASID | (1n << 12n), (1n << 10n) | (3n << 8n), false],
    ['NSNH_ALL in EL2', stage1(RW_PAGE, {}, { STRW: 2 }), 0x30n, 0n, true],
    ['EL2_ALL in EL2', stage1(RW_PAGE, {}, { STRW: 2 }), 0x20n, 0n, false],
    ['EL2_VA in EL2', stage1(RW_PAGE, {}, { STRW: 2 }), 0x22n, 0x1000n, false],
    ['EL2_VAA in EL2', stage1(RW_PAGE, {}, { STRW: 2 }), 0x23n, 0x1000n, false],
  ])('%s', (_what, prepare, w0, w1, stays) => {
    const rig = cached(prepare, 0x1000n);
    rig.command(w0, w1);
    expect(rig.access(1, 0x1000n)).toBe(stays ? 'ok 80001000' : 'abort');
  });

  it('is dropped by any address in its block, and whole', () => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1, { ASID: 5 }, { S2VMID: 9 });
    const leafAt = table.map(0x20_0000n, 0x8020_0000n, RW_PAGE, 2);
    for (const offset of [0n, 0x1000n, 0x1f_f000n])
      expect(rig.access(1, 0x20_0000n + offset)).toMatch(/^ok/u);
    rig.write(leafAt, 0n);
    rig.command(0x12n | VMID | ASID, 0x28_3000n);
    for (const offset of [0n, 0x1000n, 0x1f_f000n]) expect(rig.access(1, 0x20_0000n + offset)).toBe('abort');
  });

  it('is dropped by a range that reaches into its block from below', () => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1, { ASID: 5 }, { S2VMID: 9 });
    const leafAt = table.map(0x20_0000n, 0x8020_0000n, RW_PAGE, 2);
    rig.access(1, 0x20_3000n);
    rig.write(leafAt, 0n);
    // Two pages of 4 KB from 0x1f_f000.
    rig.command(0x12n | VMID | ASID | (1n << 12n), 0x1f_f000n | (1n << 10n));
    expect(rig.access(1, 0x20_3000n)).toBe('abort');
  });

  it.each<[string, bigint, bigint]>([
    ['no level', 0n, 27n],
    ['level 1', 1n << 8n, 26n],
    ['level 1, the largest range', 1n << 8n, 63n],
  ])(
    'in a block of 4 TiB is dropped by a range of 64 TiB and more around it: %s (4.4.1.1)',
    (_what, ttl, scale) => {
      const rig = new Rig({ OAS: 6, VAX: 1 });
      const table = rig.stage1({ log2Granule: 16, inputBits: 52, highBits: 'lpa' });
      const va = 5n << 42n;
      const leafAt = table.map(va, 1n << 43n, RW_PAGE, 1);
      const cdAt = rig.cd({ T0SZ: 12, TG0: 1, IPS: 6, TTB0: table.base, ASID: 5 });
      rig.ste(1, { Config: 5, S1ContextPtr: cdAt, S2VMID: 9 });
      expect(rig.access(1, va)).toBe('ok 80000000000');
      rig.write(leafAt, 0n);
      rig.command(0x12n | VMID | ASID | (15n << 12n) | (scale << 20n), (3n << 10n) | ttl);
      expect(rig.access(1, va)).toBe('abort');
    },
  );

  it('of a global page is dropped by a range too large to take apart', () => {
    const rig = cached(stage1(RW_PAGE & ~(1n << 11n)), 0x1000n);
    rig.command(0x12n | VMID | ASID | (19n << 20n), 1n << 10n);
    expect(rig.access(1, 0x1000n)).toBe('abort');
  });

  it('that a privileged access left does not let unprivileged ones past E0PD', () => {
    const rig = new Rig({ E0PD: 1 });
    rig.stage1Stream(1, { E0PD0: 1 });
    expect(rig.access(1, 0x1000n, { privileged: true })).toBe('ok 80001000');
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.events()).toMatchObject([{ type: 0x10, s2: false, cls: 2 }]);
  });

  it('is not used by a stream of the same VMID and ASID that has stage 2', () => {
    const rig = new Rig();
    const s2 = rig.stage2();
    const { cdAt } = rig.stage1Stream(1, { ASID: 5 }, { S2VMID: 9 });
    rig.ste(2, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt });
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
    expect(rig.access(2, 0x1000n)).toBe('abort');
  });

  it('of a global page serves another ASID only with the same ASET', () => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1, { ASID: 5 });
    table.map(0x1000n, 0x8000_1000n, RW_PAGE & ~(1n << 11n));
    const empty = rig.stage1();
    for (const [sid, ASET] of [
      [2, 0],
      [3, 1],
    ])
      rig.ste(sid, {
        Config: 5,
        S1ContextPtr: rig.cd({ T0SZ: 25, IPS: 4, TTB0: empty.base, ASID: 6, ASET }),
      });
    rig.access(1, 0x1000n);
    expect(rig.access(2, 0x1000n)).toBe('ok 80001000');
    expect(rig.access(3, 0x1000n)).toBe('abort');
  });
});

describe('a global translation of EL2 with E2H in the TLB', () => {
  it('is dropped by TLBI_EL2_VA after TLBI_NSNH_ALL, which does not touch it (4.4.2.8)', () => {
    const rig = new Rig({ HYP: 1 });
    rig.cr2 = 1;
    const { table } = rig.stage1Stream(1, { ASID: 5 }, { STRW: 2 });
    const leafAt = table.map(0x1000n, 0x8000_1000n, RW_PAGE & ~(1n << 11n));
    table.map(0x2000n, 0x8000_2000n, RW_PAGE & ~(1n << 11n));
    rig.stage1Stream(2);
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
    expect(rig.access(2, 0x1000n)).toBe('ok 80001000');
    rig.command(0x30n);
    rig.write(leafAt, 0n);
    rig.command(0x22n | ASID, 0x1000n);
    // Another global page, so that they are looked for.
    expect(rig.access(1, 0x2000n)).toBe('ok 80002000');
    expect(rig.access(1, 0x1000n)).toBe('abort');
  });
});

describe('a stage 2 translation in the TLB', () => {
  const prepare = (rig: Rig): bigint => {
    const table = rig.stage2();
    rig.ste(1, { ...rig.stage2Fields(table), Config: 6 });
    return table.map(0x5_0000_1000n, 0x8000_1000n, S2_RW_PAGE);
  };

  it.each<[string, bigint, bigint, boolean]>([
    ['TLBI_NH_ALL', 0x10n | VMID, 0n, true],
    ['TLBI_NH_VA', 0x12n | VMID, 0x5_0000_1000n, true],
    ['TLBI_S2_IPA of another VMID', 0x2an | (8n << 32n), 0x5_0000_1000n, true],
    ['TLBI_S2_IPA of another page', 0x2an | VMID, 0x5_0000_2000n, true],
    ['TLBI_S2_IPA', 0x2an | VMID, 0x5_0000_1000n, false],
    ['TLBI_S12_VMALL', 0x28n | VMID, 0n, false],
    ['TLBI_NSNH_ALL', 0x30n, 0n, false],
  ])('%s', (_what, w0, w1, stays) => {
    const rig = cached(prepare, 0x5_0000_1000n);
    rig.command(w0, w1);
    expect(rig.access(1, 0x5_0000_1000n)).toBe(stays ? 'ok 80001000' : 'abort');
  });
});

describe('a stage 2 translation of Device memory in the TLB', () => {
  it('does not let a walk through that S2PTW refuses', () => {
    const rig = new Rig();
    const s2 = rig.stage2();
    const s1 = rig.stage1();
    s1.map(0x1000n, 0x4000_1000n, RW_PAGE);
    s2.map(0x6_0000_0000n, s1.base, S2_RW_PAGE & ~(0xfn << 2n));
    const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: 0x6_0000_0000n | (s1.base & 0xfffn) });
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 6 });
    rig.ste(2, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt, S2PTW: 1 });
    expect(rig.access(1, 0x6_0000_0000n)).toMatch(/^ok/u);
    expect(rig.access(2, 0x1000n)).toBe('abort');
    expect(rig.events()).toMatchObject([{ type: 0x13, s2: true, cls: 1, ttrnw: true }]);
  });

  it.each([
    [0, 0b1000n, 'ok'],
    [1, 0b1000n, 'abort'],
    [0, 0b0010n, 'abort'],
    [1, 0b0110n, 'ok'],
  ])('is told by MemAttr: S2FWB=%i, MemAttr=%i', (S2FWB, memAttr, outcome) => {
    const rig = new Rig({ FWB: 1 });
    const s2 = rig.stage2();
    const s1 = rig.stage1();
    s1.map(0x1000n, 0x4000_1000n, RW_PAGE);
    s2.map(0x6_0000_0000n, s1.base, (S2_RW_PAGE & ~(0xfn << 2n)) | (memAttr << 2n));
    const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: 0x6_0000_0000n | (s1.base & 0xfffn) });
    // The CD and the other tables lie in blocks that are Normal either way: MemAttr=0b1111.
    rig.ste(2, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt, S2PTW: 1, S2FWB });
    expect(rig.access(2, 0x1000n).split(' ')[0]).toBe(outcome);
  });
});

describe('VMIDs', () => {
  it('with a wildcard (CR0.VMW) are invalidated together', () => {
    const rig = cached(stage1(RW_PAGE), 0x1000n);
    rig.cr0 = 1 | (4 << 6);
    rig.command(0x10n | (8n << 32n));
    expect(rig.access(1, 0x1000n)).toBe('abort');
  });

  it('do not count in commands without stage 2', () => {
    const rig = new Rig({ S2P: 0, XNX: 0, NS1ATS: 0 });
    const leafAt = stage1(RW_PAGE)(rig);
    rig.access(1, 0x1000n);
    rig.write(leafAt, 0n);
    rig.command(0x10n | (77n << 32n));
    expect(rig.access(1, 0x1000n)).toBe('abort');
  });
});
