import { describe, expect, it } from 'vitest';
import { BenchMachine, STREAM } from '../../bench/machine.ts';
import { heapGrowth } from '../support/heap-growth.ts';

const KIB_64 = 64 * 1024;
const MILLION = 1_000_000;

/** Growth of the heap over a million turns. */
const growth = (turn: (i: number) => void): number => heapGrowth(MILLION, KIB_64, turn);

describe('a million', () => {
  it.each(['s1', 's2', 'nested', 'bypass'] as const)(
    'warm %s translations leave the heap as it was',
    (stages) => {
      const machine = new BenchMachine(256);
      const { smmu, transaction, result } = machine;
      const grown = growth((i) => {
        machine.aim(STREAM[stages], i & 255);
        smmu.translate(transaction, result);
      });
      expect(grown).toBeLessThan(KIB_64);
    },
  );

  it.each(['s1', 's2', 'nested'] as const)('recorded events of %s leave the heap as it was', (stages) => {
    const machine = new BenchMachine(16);
    const { smmu, transaction, result } = machine;
    const grown = growth((i) => {
      machine.aim(STREAM[stages], 5000);
      smmu.translate(transaction, result);
      if ((i & 1023) === 0) machine.drain();
    });
    expect(result.event).toBe(0x10);
    expect(grown).toBeLessThan(KIB_64);
  });
});
