import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RandomWorld } from '../support/random-world/random-world.ts';

const seed = fc.integer();
const text = (value: unknown): string =>
  JSON.stringify(value, (_key, item: unknown) =>
    typeof item === 'bigint' ? `0x${item.toString(16)}` : item,
  );

/** Compares one transaction, and what it wrote to tables. */
function expectSame(world: RandomWorld, fresh: boolean): string {
  const request = world.request();
  const { result, writes } = world.slow(request);
  // For one transaction the smallest TLB does.
  const got = fresh ? world.fast(request, world.freshTranslator(4)) : world.fast(request);
  expect(text(got), text(request)).toBe(text(result));
  const hex = (addresses: Iterable<bigint>): string[] => [...addresses].map((at) => at.toString(16)).sort();
  expect(hex(world.memory.updated), text(request)).toEqual(hex(writes.keys()));
  for (const [at, value] of writes)
    expect(`0x${at.toString(16)}: ${world.memory.dword(at)?.toString(16)}`, text(request)).toBe(
      `0x${at.toString(16)}: ${value.toString(16)}`,
    );
  return result.outcome;
}

describe('translation', () => {
  it('without caches is what the slow walker says, for random streams and tables', () => {
    fc.assert(
      fc.property(seed, (s) => {
        const world = new RandomWorld(s);
        for (let i = 0; i < 12; i++) expectSame(world, true);
      }),
      { numRuns: 300 },
    );
  });

  it('with caches is what the slow walker says, for random changes that are invalidated as they must be', () => {
    fc.assert(
      fc.property(seed, (s) => {
        const world = new RandomWorld(s);
        for (let i = 0; i < 80; i++) {
          expectSame(world, false);
          if (world.random.chance(0.3)) world.change();
        }
      }),
      { numRuns: 300 },
    );
  });

  it('meets success and every kind of failure in these worlds', () => {
    const seen = new Map<string, number>();
    for (let s = 1; s <= 200; s++) {
      const world = new RandomWorld(s);
      for (let i = 0; i < 20; i++) {
        const { result } = world.slow(world.request());
        const name = `${result.outcome} ${result.events.length === 0 ? '-' : (result.events[0][0] & 0xffn).toString(16)}`;
        seen.set(name, (seen.get(name) ?? 0) + 1);
      }
    }
    for (const name of [
      'ok -',
      'abort -',
      'abort 4',
      'abort a',
      'abort b',
      'abort 10',
      'abort 11',
      'abort 12',
      'abort 13',
      'abort 6',
      'abort 8',
      'abort 2',
      'razwi 10',
      'abort 3',
      'abort 7',
      'ur 5',
      'ca -',
      'ca 4',
    ])
      expect(seen.get(name) ?? 0, `${name} in ${text([...seen])}`).toBeGreaterThan(2);
    expect(seen.get('ok -')).toBeGreaterThan(1000);
  });
});
