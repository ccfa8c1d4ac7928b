import { describe, expect, it } from 'vitest';
import { NOWHERE, RAM, Rig, STRTAB } from '../support/translation-rig.ts';
import { buildSte } from '../support/tables.ts';

const C_BAD_STREAMID = 2;
const F_STE_FETCH = 3;
const C_BAD_STE = 4;
const TWO_LEVEL = 1 << 16;
const cfg = (log2size: number, split: number): number => TWO_LEVEL | (split << 6) | log2size;
const BYPASS = buildSte({ Config: 4 });
const L2 = RAM + 0x8000n;

/** A two-level table whose first descriptor has this Span and points to bypass STEs. */
function twoLevel(span: number, split: number, log2size = 10): Rig {
  const rig = new Rig();
  rig.strtab(STRTAB, cfg(log2size, split));
  rig.write(STRTAB, L2 | BigInt(span));
  for (let i = 0; i < 64; i++) rig.write(L2 + BigInt(64 * i), ...BYPASS);
  return rig;
}

describe('a linear stream table', () => {
  it.each([256, 257, 0xffff, 0x1_0000, 0xffff_ffff])('has no StreamID %i beyond LOG2SIZE=8', (sid) => {
    const rig = new Rig();
    expect(rig.access(sid, 0n)).toBe('abort');
    expect(rig.events()).toEqual([{ type: C_BAD_STREAMID, sid }]);
  });

  it('has no StreamID beyond SIDSIZE however large LOG2SIZE is', () => {
    const rig = new Rig({ SIDSIZE: 6 });
    rig.strtab(STRTAB, 20);
    expect(rig.access(64, 0n)).toBe('abort');
    expect(rig.events()).toEqual([{ type: C_BAD_STREAMID, sid: 64 }]);
  });

  it('keeps quiet about unknown StreamIDs while RECINVSID=0', () => {
    const rig = new Rig();
    rig.cr2 = 0;
    expect(rig.access(256, 0n)).toBe('abort');
    expect(rig.events()).toEqual([]);
    expect(rig.result.event).toBe(0);
  });

  it('reports the address of an STE that cannot be read', () => {
    const rig = new Rig();
    rig.strtab(NOWHERE, 8);
    expect(rig.access(3, 0n, { ssid: 5 })).toBe('abort');
    expect(rig.events()).toEqual([{ type: F_STE_FETCH, sid: 3, ssid: 5, last: NOWHERE + 192n }]);
  });

  it('has one STE with LOG2SIZE=0', () => {
    const rig = new Rig();
    rig.strtab(STRTAB, 0);
    rig.write(STRTAB, ...BYPASS);
    expect(rig.access(0, 0x1234n)).toBe('ok 1234');
    expect(rig.access(1, 0x1234n)).toBe('abort');
  });

  it('is aligned by the literal LOG2SIZE, not by SIDSIZE', () => {
    // 6.3.24: LOG2SIZE=20 clears bits [25:0] although only 2^16 StreamIDs exist.
    const rig = new Rig();
    rig.strtab(RAM + 0x40_0000n, 20);
    rig.write(RAM, ...BYPASS);
    expect(rig.access(0, 0n)).toBe('ok 0');
  });

  it.each([2, 3])('is what FMT=%i means too', (fmt) => {
    const rig = new Rig();
    rig.strtab(STRTAB, (fmt << 16) | 8);
    rig.ste(7, { Config: 4 });
    expect(rig.access(7, 0n)).toBe('ok 0');
  });

  it('is all there is without IDR0.ST_LEVEL', () => {
    const rig = new Rig({ ST_LEVEL: 0, SIDSIZE: 6 });
    rig.strtab(STRTAB, cfg(6, 8));
    rig.ste(7, { Config: 4 });
    expect(rig.access(7, 0n)).toBe('ok 0');
  });
});

describe('a two-level stream table', () => {
  it.each([
    [0, 8, 0],
    [12, 10, 0],
    [31, 10, 0],
    [8, 6, 0],
    [10, 8, 0],
    [1, 8, 1],
    [4, 8, 8],
  ])('is invalid with Span=%i, SPLIT=%i for StreamID %i', (span, split, sid) => {
    const rig = twoLevel(span, split);
    expect(rig.access(sid, 0n)).toBe('abort');
    expect(rig.events()).toEqual([{ type: C_BAD_STREAMID, sid }]);
  });

  it.each([
    [1, 8, 0],
    [4, 8, 7],
    [7, 6, 63],
    [6, 10, 31],
  ])('leads to 2^(Span-1) STEs: Span=%i, SPLIT=%i, StreamID %i', (span, split, sid) => {
    expect(twoLevel(span, split).access(sid, 0x5678n)).toBe('ok 5678');
  });

  it.each([0, 1, 7, 9, 11, 31])('takes SPLIT=%i as 6', (split) => {
    const rig = twoLevel(7, split);
    rig.write(STRTAB + 8n, (L2 + 64n * 16n) | 1n);
    expect(rig.access(64, 0n)).toBe('ok 0');
    expect(rig.access(65, 0n)).toBe('abort');
  });

  it('aligns the second level to its size', () => {
    const rig = twoLevel(4, 8);
    rig.write(STRTAB, (L2 + 0x1c0n) | 4n);
    rig.write(L2, ...buildSte({ Config: 0 }));
    expect(rig.access(0, 0n)).toBe('abort');
    expect(rig.events()).toEqual([]);
  });

  it('reports the address of whichever level cannot be read', () => {
    const rig = twoLevel(4, 8, 16);
    rig.write(STRTAB + 8n, NOWHERE | 9n);
    expect(rig.access(0x102, 0n)).toBe('abort');
    rig.strtab(NOWHERE, cfg(16, 8));
    expect(rig.access(0x302, 0n)).toBe('abort');
    expect(rig.events()).toMatchObject([
      { type: F_STE_FETCH, last: NOWHERE + 128n },
      { type: F_STE_FETCH, last: NOWHERE + 24n },
    ]);
  });

  it('has a first level of one descriptor if LOG2SIZE <= SPLIT', () => {
    const rig = twoLevel(5, 8, 4);
    expect(rig.access(15, 0n)).toBe('ok 0');
    expect(rig.access(16, 0n)).toBe('abort');
  });

  it('shows a descriptor that was filled in at once, without CFGI', () => {
    const rig = twoLevel(0, 8);
    expect(rig.access(1, 0n)).toBe('abort');
    rig.write(STRTAB, L2 | 9n);
    expect(rig.access(1, 0n)).toBe('ok 0');
  });
});

describe('lookupSte', () => {
  it.each([
    ['a StreamID out of range', C_BAD_STREAMID, (rig: Rig) => rig.strtab(STRTAB, 0)],
    ['an unreadable table', F_STE_FETCH, (rig: Rig) => rig.strtab(NOWHERE, 8)],
    ['V=0', C_BAD_STE, (rig: Rig) => rig.ste(3, { V: 0 })],
  ] as const)('answers %s with %i and records nothing', (_what, type, arrange) => {
    const rig = new Rig();
    arrange(rig);
    expect(rig.translator.lookupSte(3, new Uint32Array(16))).toBe(type);
    expect(rig.events()).toEqual([]);
  });

  it('gives the words of memory, not of a cache', () => {
    const rig = new Rig();
    const words = new Uint32Array(16);
    rig.ste(3, { Config: 4 });
    expect(rig.access(3, 0n)).toBe('ok 0');
    rig.ste(3, { Config: 0, S2VMID: 77 });
    expect(rig.translator.lookupSte(3, words)).toBe(0);
    expect([words[0], words[4]]).toEqual([1, 77]);
  });
});

describe('a cached STE', () => {
  const SID = 3n << 32n;

  it.each([
    ['CFGI_STE of another StreamID', 3n | (4n << 32n), 0n],
    ['CFGI_STE_RANGE of others', 4n | (8n << 32n), 2n],
    ['CFGI_CD of another StreamID', 5n | (4n << 32n), 0n],
    ['TLBI_NSNH_ALL', 0x30n, 0n],
  ])('may stay after %s', (_what, w0, w1) => {
    const rig = new Rig();
    rig.ste(3, { Config: 4 });
    rig.access(3, 0n);
    rig.command(w0, w1);
    rig.ste(3, { Config: 0 });
    expect(rig.access(3, 0n)).toBe('ok 0');
  });

  it.each([
    ['CFGI_STE, leaf', 3n | SID, 1n],
    ['CFGI_STE', 3n | SID, 0n],
    ['CFGI_STE_RANGE of 2', 4n | (2n << 32n), 0n],
    ['CFGI_STE_RANGE of 256', 4n, 7n],
    ['CFGI_STE_RANGE of 512', 4n | (0x80n << 32n), 8n],
    ['CFGI_STE_RANGE, low bits of the StreamID ignored', 4n | (1n << 32n), 1n],
    ['CFGI_ALL', 4n | (99n << 32n), 31n],
  ])('is gone after %s', (_what, w0, w1) => {
    const rig = new Rig();
    rig.ste(3, { Config: 4 });
    rig.access(3, 0n);
    rig.ste(3, { Config: 0 });
    rig.command(w0, w1);
    expect(rig.access(3, 0n)).toBe('abort');
  });

  it('was never one that was bad: the next access reads again', () => {
    const rig = new Rig();
    rig.ste(3, { V: 0 });
    expect(rig.access(3, 0n)).toBe('abort');
    rig.ste(3, { Config: 4 });
    expect(rig.access(3, 0n)).toBe('ok 0');
  });

  it('does not outlive reset', () => {
    const rig = new Rig();
    rig.ste(3, { Config: 4 });
    rig.access(3, 0n);
    rig.ste(3, { Config: 0 });
    rig.translator.reset();
    expect(rig.access(3, 0n)).toBe('abort');
  });

  it('is of its own StreamID among thousands', () => {
    const rig = new Rig();
    rig.strtab(RAM + 0x40_0000n, 14);
    for (let sid = 0; sid < 0x4000; sid++)
      rig.write(RAM + 0x40_0000n + BigInt(64 * sid), ...buildSte({ Config: sid % 3 === 0 ? 4 : 0 }));
    for (let round = 0; round < 2; round++)
      for (let sid = 0; sid < 0x4000; sid++)
        expect(rig.access(sid, 1n)).toBe(sid % 3 === 0 ? 'ok 1' : 'abort');
  });
});
