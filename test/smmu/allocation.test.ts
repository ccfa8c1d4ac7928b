import { describe, expect, it } from 'vitest';
import { BenchMachine, STREAM } from '../../bench/machine.ts';

const KIB_64 = 64 * 1024;
const MILLION = 1_000_000;
const collect = (globalThis as { gc?: () => void }).gc;

/** Growth of the heap over a million turns, after a warm-up; the least of a few tries, as others share the heap. */
function growth(turn: (i: number) => void): number {
  for (let i = 0; i < 100_000; i++) turn(i);
  let least = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 3 && least >= KIB_64; attempt++) {
    collect?.();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < MILLION; i++) turn(i);
    collect?.();
    least = Math.min(least, process.memoryUsage().heapUsed - before);
  }
  return least;
}

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
