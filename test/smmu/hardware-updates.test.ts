import { describe, expect, it } from 'vitest';
import { Memory, type MemStatus } from '../../src/memory/memory.ts';
import { Rig } from '../support/translation-rig.ts';
import { LEAF, type PageTable, RW_PAGE, S2_RW_PAGE, hiOf, loOf } from '../support/tables.ts';

const AF = LEAF.AF;
const AP2 = LEAF.AP2;
const DBM = LEAF.DBM;
const F_WALK_EABT = 0x0b;
const F_ACCESS = 0x12;
const F_PERMISSION = 0x13;

/** Memory in which someone else stores just before a compare-exchange. */
class RacingMemory extends Memory {
  race: () => void = () => {};
  exchanges = 0;
  override compareExchange64(...args: Parameters<Memory['compareExchange64']>): MemStatus {
    this.exchanges++;
    this.race();
    return super.compareExchange64(...args);
  }
}

function stage1(
  leaf: bigint,
  cd = {},
  memory?: Memory,
  ids = {},
): { rig: Rig; at: bigint; table: PageTable } {
  const rig = new Rig({ HTTU: 2, ...ids }, memory);
  const { table } = rig.stage1Stream(1, { HA: 1, HD: 1, ...cd });
  return { rig, at: table.map(0x1000n, 0x8000_1000n, leaf), table };
}

describe('hardware update of stage 1 flags', () => {
  it.each<[string, bigint, object, boolean, string, bigint]>([
    ['no AF, HA=0: F_ACCESS', RW_PAGE & ~AF, { HA: 0, HD: 0 }, false, 'abort', RW_PAGE & ~AF],
    [
      'no AF, HA=0, AFFD=1: allowed, unchanged',
      RW_PAGE & ~AF,
      { HA: 0, HD: 0, AFFD: 1 },
      false,
      'ok',
      RW_PAGE & ~AF,
    ],
    ['no AF, {HA=0, HD=1} acts as none', RW_PAGE & ~AF, { HA: 0 }, false, 'abort', RW_PAGE & ~AF],
    ['no AF, HA=1: set', RW_PAGE & ~AF, {}, false, 'ok', RW_PAGE],
    [
      'no AF, HA=1, permission refused: not set',
      (RW_PAGE & ~AF) | AP2,
      {},
      true,
      'abort',
      (RW_PAGE & ~AF) | AP2,
    ],
    ['clean, a read: stays clean', RW_PAGE | AP2 | DBM, {}, false, 'ok', RW_PAGE | AP2 | DBM],
    ['clean, a write: made dirty', RW_PAGE | AP2 | DBM, {}, true, 'ok', RW_PAGE | DBM],
    ['clean and no AF, a write: both', (RW_PAGE & ~AF) | AP2 | DBM, {}, true, 'ok', RW_PAGE | DBM],
    ['clean, a write with HD=0: refused', RW_PAGE | AP2 | DBM, { HD: 0 }, true, 'abort', RW_PAGE | AP2 | DBM],
    ['read-only without DBM, a write: refused', RW_PAGE | AP2, {}, true, 'abort', RW_PAGE | AP2],
    ['dirty already, a write: unchanged', RW_PAGE | DBM, {}, true, 'ok', RW_PAGE | DBM],
  ])('%s', (_what, leaf, cd, write, outcome, after) => {
    const { rig, at } = stage1(leaf, cd);
    expect(rig.access(1, 0x1000n, { write }).split(' ')[0]).toBe(outcome);
    expect(rig.read(at) & ~0x8000_1003n).toBe(after);
  });

  it('does not make dirty what APTable keeps read-only', () => {
    const { rig, at, table } = stage1(RW_PAGE | AP2 | DBM);
    rig.write(table.base, rig.read(table.base) | (2n << 61n));
    const before = rig.read(at);
    expect(rig.access(1, 0x1000n, { write: true })).toBe('abort');
    expect(rig.read(at)).toBe(before);
  });

  it('does not make dirty what PAN refuses', () => {
    const { rig, at } = stage1(RW_PAGE | AP2 | DBM, { PAN: 1 });
    const before = rig.read(at);
    expect(rig.access(1, 0x1000n, { write: true, privileged: true })).toBe('abort');
    expect(rig.read(at)).toBe(before);
  });

  it('makes a page dirty by the first write after reads that the TLB remembers', () => {
    const { rig, at } = stage1(RW_PAGE | AP2 | DBM);
    for (let i = 0; i < 3; i++) rig.access(1, 0x1000n);
    expect(rig.read(at) & AP2).toBe(AP2);
    expect(rig.access(1, 0x1008n, { write: true })).toBe('ok 80001008');
    expect(rig.read(at) & AP2).toBe(0n);
  });

  it('sets AF in tables with HAFT', () => {
    const { rig, table } = stage1(RW_PAGE, { HAFT: 1 }, undefined, { HTTU: 3 });
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
    expect(rig.read(table.base) & AF).toBe(AF);
  });

  it('leaves tables alone without HAFT, or where HTTU is less', () => {
    const { rig, table } = stage1(RW_PAGE, { HAFT: 1 });
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
    expect(rig.read(table.base) & AF).toBe(0n);
  });
});

describe('a descriptor that changes under a hardware update', () => {
  function racing(
    leaf: bigint,
    race: (rig: Rig, at: bigint) => void,
    times: number,
  ): { rig: Rig; at: bigint; memory: RacingMemory } {
    const memory = new RacingMemory();
    const { rig, at } = stage1(leaf, {}, memory);
    memory.race = () => {
      if (memory.exchanges <= times) race(rig, at);
    };
    return { rig, at, memory };
  }

  it('is looked at again: it may be invalid by now', () => {
    const { rig } = racing(RW_PAGE & ~AF, (r, at) => r.write(at, 0n), 1);
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.events().map(({ type }) => type)).toEqual([0x10]);
  });

  it('is looked at again: it may map another page by now', () => {
    const { rig, at } = racing(
      RW_PAGE & ~AF,
      (r, where) => r.write(where, 0x9000_0000n | (RW_PAGE & ~AF) | 3n),
      1,
    );
    expect(rig.access(1, 0x1000n)).toBe('ok 90000000');
    expect(rig.read(at)).toBe(0x9000_0000n | RW_PAGE | 3n);
  });

  it('is looked at again: someone else may have set AF', () => {
    const { rig, memory } = racing(RW_PAGE & ~AF, (r, at) => r.write(at, r.read(at) | AF), 1);
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
    expect(memory.exchanges).toBe(1);
  });

  it('for ever ends as an external abort after a few attempts', () => {
    const { rig, at, memory } = racing(
      RW_PAGE & ~AF,
      (r, where) => r.write(where, r.read(where) ^ (1n << 55n)),
      Number.POSITIVE_INFINITY,
    );
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.events()).toMatchObject([{ type: F_WALK_EABT, s2: false, cls: 1, last: at }]);
    expect(memory.exchanges).toBeLessThan(20);
  });
});

describe('hardware update of stage 2 flags', () => {
  const IPA = 0x5_0000_1000n;

  function stage2(leaf: bigint, ste = {}): { rig: Rig; at: bigint } {
    const rig = new Rig({ HTTU: 2 });
    const table = rig.stage2();
    const at = table.map(IPA, 0x8000_1000n, leaf);
    rig.ste(1, { ...rig.stage2Fields(table), Config: 6, S2HA: 1, S2HD: 1, ...ste });
    return { rig, at };
  }
  const CLEAN = (S2_RW_PAGE & ~LEAF.S2W) | DBM;

  it.each<[string, bigint, object, boolean, string, bigint]>([
    ['no AF, S2HA=0', S2_RW_PAGE & ~AF, { S2HA: 0, S2HD: 0 }, false, 'abort', S2_RW_PAGE & ~AF],
    [
      'no AF, S2HA=0, S2AFFD=1',
      S2_RW_PAGE & ~AF,
      { S2HA: 0, S2HD: 0, S2AFFD: 1 },
      false,
      'ok',
      S2_RW_PAGE & ~AF,
    ],
    ['no AF, S2HA=1', S2_RW_PAGE & ~AF, {}, false, 'ok', S2_RW_PAGE],
    ['clean, a read', CLEAN, {}, false, 'ok', CLEAN],
    ['clean, a write', CLEAN, {}, true, 'ok', CLEAN | LEAF.S2W],
    ['clean, a write with S2HD=0', CLEAN, { S2HD: 0 }, true, 'abort', CLEAN],
  ])('%s', (_what, leaf, ste, write, outcome, after) => {
    const { rig, at } = stage2(leaf, ste);
    expect(rig.access(1, IPA, { write }).split(' ')[0]).toBe(outcome);
    expect(rig.read(at) & ~0x8000_1003n).toBe(after);
  });

  /** A nested stream whose stage 1 page has no AF; its table is mapped at an IPA with these stage 2 attributes. */
  function nestedUpdate(tableAttributes: bigint): { rig: Rig; leafAt: bigint; s2At: bigint } {
    const rig = new Rig({ HTTU: 2 });
    const s2 = rig.stage2();
    const s1 = rig.stage1();
    s2.map(IPA, 0x8000_1000n, S2_RW_PAGE);
    const leafAt = s1.map(0x1000n, IPA, RW_PAGE & ~AF);
    const level2 = rig.read(s1.base) & 0xffff_ffff_f000n;
    const level3 = rig.read(level2) & 0xffff_ffff_f000n;
    rig.write(level2, 0x6_0000_0003n);
    const s2At = s2.map(0x6_0000_0000n, level3, tableAttributes);
    const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: s1.base, HA: 1 });
    rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt, S2HA: 1, S2HD: 1 });
    return { rig, leafAt, s2At };
  }

  it('of stage 1 through stage 2 needs write permission there', () => {
    const { rig, leafAt } = nestedUpdate(S2_RW_PAGE & ~LEAF.S2W);
    expect(rig.access(1, 0x1000n)).toBe('abort');
    const [event] = rig.events();
    expect(event).toMatchObject({ type: F_PERMISSION, s2: true, cls: 1, rnw: true, last: 0x6_0000_0000n });
    // 7.3.16: TTRnW=0, the refused access was the update.
    expect(event.ttrnw).toBeUndefined();
    expect(rig.read(leafAt) & AF).toBe(0n);
  });

  it('of stage 1 through stage 2 makes the table page dirty there', () => {
    const { rig, leafAt, s2At } = nestedUpdate(CLEAN);
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
    expect(rig.read(leafAt) & AF).toBe(AF);
    expect(rig.read(s2At) & LEAF.S2W).toBe(LEAF.S2W);
  });
});

describe('without HTTU', () => {
  it('nothing is ever written to tables', () => {
    const memory = new RacingMemory();
    const rig = new Rig({}, memory);
    const { table } = rig.stage1Stream(1);
    const at = table.map(0x2000n, 0x8000_2000n, RW_PAGE & ~AF);
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
    expect(rig.access(1, 0x2000n)).toBe('abort');
    expect(rig.events().map(({ type }) => type)).toEqual([F_ACCESS]);
    expect([memory.exchanges, memory.load64(hiOf(at), loOf(at))]).toEqual([0, 0]);
  });
});
