import { describe, expect, it } from 'vitest';
import { OUTCOME, Transaction, Translation } from '../../src/smmu/transaction.ts';
import type { WalkObserver } from '../../src/smmu/walk-observer.ts';
import { RAM_SIZE, Rig } from '../support/translation-rig.ts';
import { LEAF, RW_PAGE, S2_RW_PAGE } from '../support/tables.ts';

class Steps implements WalkObserver {
  readonly steps: string[] = [];
  structure(name: string): void {
    this.steps.push(name);
  }
  stage(stage: number, _hi: number, _lo: number, cls: number): void {
    this.steps.push(`S${stage} for ${['CD', 'TT', 'IN'][cls]}`);
  }
  descriptor(stage: number, level: number): void {
    this.steps.push(`S${stage} L${level}`);
  }
  permissions(): void {}
  stopped(type: number): void {
    this.steps.push(`event ${type}`);
  }
  leaf(stage: number, hi: number, lo: number): void {
    this.steps.push(`S${stage} -> ${(hi * 2 ** 32 + lo).toString(16)}`);
  }
}

function nested(leaf: bigint): Rig {
  const rig = new Rig({ HTTU: 2, TERM_MODEL: 0 });
  const s2 = rig.stage2();
  s2.map(0x5_0000_1000n, 0x8000_1000n, S2_RW_PAGE);
  const s1 = rig.stage1();
  s1.map(0x1000n, 0x5_0000_1000n, leaf);
  const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: s1.base, HA: 1, HD: 1 });
  rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt });
  return rig;
}

function observe(rig: Rig, address: number, write = false): { steps: string[]; result: Translation } {
  const transaction = new Transaction();
  transaction.sid = 1;
  transaction.addrLo = address;
  transaction.write = write;
  const observer = new Steps();
  const result = new Translation();
  rig.translator.observe(transaction, result, observer);
  return { steps: observer.steps, result };
}

/** All RAM of a rig. */
function snapshot(rig: Rig): Uint8Array {
  const bytes = new Uint8Array(Number(RAM_SIZE));
  rig.memory.readBytes(0, 0x4000_0000, bytes);
  return bytes;
}

describe('an observed walk', () => {
  it('shows every step of a nested translation in its order', () => {
    const { steps, result } = observe(nested(RW_PAGE), 0x1234);
    const through = (what: string): unknown[] => [
      `S2 for ${what}`,
      'S2 L1',
      'S2 L2',
      expect.stringMatching(/^S2 -> 40/u),
    ];
    expect(steps).toEqual([
      'STE',
      ...through('CD'),
      'CD',
      'S1 for IN',
      ...through('TT'),
      'S1 L1',
      ...through('TT'),
      'S1 L2',
      ...through('TT'),
      'S1 L3',
      'S1 -> 500001234',
      'S2 for IN',
      'S2 L1',
      'S2 L2',
      'S2 L3',
      'S2 -> 80001234',
    ]);
    expect(result).toMatchObject({ outcome: OUTCOME.Ok, paHi: 0, paLo: 0x8000_1234 });
  });

  it('shows the same again: it uses no cache and fills none', () => {
    const rig = nested(RW_PAGE);
    rig.access(1, 0x1000n);
    const { steps } = observe(rig, 0x1234);
    expect(observe(rig, 0x1234).steps).toEqual(steps);
    expect(steps.length).toBeGreaterThan(20);
  });

  it('leaves the caches as they are', () => {
    const rig = nested(RW_PAGE);
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
    rig.ste(1, { V: 0 });
    expect(observe(rig, 0x1000).result.event).toBe(4);
    expect(rig.access(1, 0x1000n)).toBe('ok 80001000');
  });

  it.each([
    ['sets no AF and makes nothing dirty', (RW_PAGE & ~LEAF.AF) | LEAF.AP2 | LEAF.DBM, OUTCOME.Ok],
    ['records no event', RW_PAGE | LEAF.AP2, OUTCOME.Abort],
  ])('%s', (_what, leaf, outcome) => {
    const rig = nested(leaf);
    const before = snapshot(rig);
    const { result } = observe(rig, 0x1000, true);
    expect(result.outcome).toBe(outcome);
    expect(rig.events()).toEqual([]);
    expect(Buffer.compare(snapshot(rig), before)).toBe(0);
  });

  it('names the fault even where R=0 would keep it quiet', () => {
    const rig = new Rig();
    rig.stage1Stream(1, { R: 0 });
    expect(observe(rig, 0x7000).result).toMatchObject({ outcome: OUTCOME.Abort, event: 0x10 });
  });
});
