import { describe, expect, it } from 'vitest';
import type { Configuration } from '../../src/explore/configuration.ts';
import { CONFIGURATIONS } from '../../src/explore/configurations.ts';
import type { ExploreOptions } from '../../src/explore/exploration.ts';
import { explore } from '../../src/explore/explorer.ts';
import {
  MergeError,
  mergeResults,
  RESULT_FORMAT,
  resultOf,
  type ResultEntry,
} from '../../src/explore/result.ts';

const byName = (name: string): Configuration => CONFIGURATIONS.find((one) => one.name === name)!;

/** As deep as a second or so goes. */
const DEPTHS: Readonly<Record<string, number>> = {
  queue: 5,
  streams: 3,
  pair: 2,
  storm: 4,
  caches: 2,
  commands: 2,
  contexts: 2,
  buses: 2,
  race: 2,
  driver: 9,
  failures: 2,
  again: 1,
};

describe('of a small machine every order is right', () => {
  it.each(CONFIGURATIONS.map(({ name, about }) => [name, about]))('%s: %s', (name) => {
    const { violation, depth } = explore(byName(name), { depth: DEPTHS[name] });
    expect(violation).toBeUndefined();
    expect(depth).toBe(DEPTHS[name]);
  });
});

/** One device, and four things that can happen to it: a handful of states. */
const tiny: Configuration = {
  ...byName('queue'),
  events: byName('queue').events.filter(({ name }) =>
    ['plug nic0', 'unplug nic0', 'EVENTQEN=1', 'EVENTQEN=0'].includes(name),
  ),
};

describe('an exploration', () => {
  it('ends when there are no other states', () => {
    expect(explore(tiny, { depth: 100 })).toEqual({
      depth: 3,
      end: 'exhausted',
      states: 4,
      transitions: 8,
      levels: [1, 2, 1, 0],
      violation: undefined,
    });
  });

  it('is the same every time', () => {
    const options = { depth: 3 };
    expect(explore(byName('queue'), options)).toEqual(explore(byName('queue'), options));
  });

  it('stops when it is told to, and says how far it came', () => {
    const { end, depth, levels } = explore(byName('queue'), { depth: 100, stop: () => true });
    expect(end).toBe('stopped');
    expect(levels).toHaveLength(depth + 2);
  });

  it('tells how far it is', () => {
    const seen: number[] = [];
    explore(byName('queue'), { depth: 3, progress: ({ transitions }) => seen.push(transitions) });
    expect(seen).toContain(64);
  });
});

describe('shards', () => {
  const queue = byName('queue');
  const run = (options: ExploreOptions): ResultEntry => resultOf(queue, options, explore(queue, options), 1);
  const shards = [1, 2, 3].map((number) => run({ depth: 4, shard: { number, of: 3, depth: 2 } }));
  const file = (entry: ResultEntry, i: number) => ({
    file: `${i + 1}.json`,
    content: JSON.parse(
      JSON.stringify({ format: RESULT_FORMAT, version: '1.0.0', explorations: [entry] }),
    ) as unknown,
  });
  const merge = (entries: readonly ResultEntry[]): ResultEntry[] => mergeResults(entries.map(file));

  it('try together what one alone tries, and each only a part', () => {
    const whole = run({ depth: 4 });
    const [merged] = merge(shards);
    expect(merged).toMatchObject({ shard: null, depth: 4, end: 'depth', violation: null });
    // Up to where they part each counts its own; beyond, a state may be met by several.
    expect(merged.levels.slice(0, 3)).toEqual(whole.levels.slice(0, 3));
    expect(merged.levels[3]).toBeGreaterThanOrEqual(whole.levels[3]);
    expect(merged.states).toBeGreaterThanOrEqual(whole.states);
    for (const { states } of shards) expect(states).toBeLessThan(whole.states);
  });

  it('are merged only if all are there, once, and of the same exploration', () => {
    const [one, two, three] = shards;
    const complaint = (entries: readonly ResultEntry[]): string => {
      try {
        merge(entries);
      } catch (error) {
        if (error instanceof MergeError) return error.message;
        throw error;
      }
      return '';
    };
    expect(complaint([])).toBe('There is nothing to merge.');
    expect(complaint([one, three])).toBe('Shard 2/3 of queue is missing.');
    expect(complaint([one, two, two])).toBe('3.json and 2.json are both shard 2 of queue.');
    expect(complaint([one, { ...two, limit: 5 }, three])).toMatch(
      /^2\.json and 1\.json do not have the same/,
    );
    expect(complaint([one, { ...two, shard: null }, three])).toBe('2.json is no shard of queue.');
    expect(complaint([one, { ...two, levels: [1, 7, 24] }, three])).toMatch(/not the same program/);
    expect(complaint([one])).toBe('Of the 3 shards of queue, 2, 3 are missing.');
    expect(complaint([one, { ...two, digest: '0' }, three])).toBe(
      '2.json and 1.json have different configurations queue: not the same program.',
    );
    expect(complaint([one, two, three, { ...two, configuration: 'pair' }])).toBe(
      'Of the 3 shards of pair, 1, 3 are missing.',
    );
  });

  it('are not merged if a file is no result, of another program, damaged, or given twice', () => {
    const good = file(shards[0], 0);
    const complaint = (content: unknown, name = 'x.json'): string => {
      try {
        mergeResults([good, { file: name, content }]);
      } catch (error) {
        if (error instanceof MergeError) return error.message;
        throw error;
      }
      return '';
    };
    const whole = good.content as object;
    expect(complaint(null)).toBe('x.json is no result of "vsmmu explore".');
    expect(complaint({ format: 'other' })).toBe('x.json is no result of "vsmmu explore".');
    expect(complaint({ ...whole, format: 'vsmmu-explore-99' })).toBe(
      `x.json has the format vsmmu-explore-99; this program reads ${RESULT_FORMAT}.`,
    );
    expect(complaint({ ...whole, version: '2.0.0' })).toBe(
      'x.json was made by vsmmu 2.0.0, and 1.json by 1.0.0: explore all with the same.',
    );
    expect(complaint(whole, '1.json')).toBe('1.json is given twice.');
    const damaged = (change: object): string =>
      complaint({ ...whole, explorations: [{ ...shards[1], ...change }] });
    expect(damaged({ states: -1 })).toBe('x.json is damaged: exploration 1, states.');
    expect(damaged({ levels: ['1'] })).toBe('x.json is damaged: exploration 1, levels.');
    expect(damaged({ shard: { number: 4, of: 3, depth: 2 } })).toBe(
      'x.json is damaged: exploration 1, shard.',
    );
    expect(damaged({ violation: { schedule: [] } })).toBe('x.json is damaged: exploration 1, violation.');
    expect(complaint({ ...whole, explorations: [7] })).toBe('x.json is damaged: exploration 1, all of it.');
    expect(complaint({ ...whole, explorations: undefined })).toBe('x.json is damaged: explorations.');
  });

  it('give the shortest of what they found, and the depth of the least', () => {
    const [one, two, three] = shards;
    const violation = (length: number): ResultEntry['violation'] => ({
      invariant: 'leaks',
      text: '',
      schedule: Array.from({ length }, () => 'x'),
      scenario: '',
    });
    const [merged] = merge([
      one,
      { ...two, depth: 3, end: 'violation', violation: violation(4) },
      { ...three, depth: 2, end: 'violation', violation: violation(3) },
    ]);
    expect(merged).toMatchObject({ depth: 2, end: 'violation' });
    expect(merged.violation?.schedule).toHaveLength(3);
  });
});
