import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EventBacklog } from '../../src/accel/event-backlog.ts';

/** A record of a stream that can be told from its others. */
const record = (sid: number, serial = 0): Uint32Array =>
  Uint32Array.of(0x10, sid, 0, 0x200, serial, serial ^ 0x5555, 7, 8);

function take(backlog: EventBacklog): [number, number] {
  const words = new Uint32Array(8);
  backlog.take(words);
  expect([...words]).toEqual([...record(words[1], words[4])]);
  return [words[1], words[4]];
}
const takeAll = (backlog: EventBacklog): [number, number][] => {
  const all: [number, number][] = [];
  while (backlog.length > 0) all.push(take(backlog));
  return all;
};

describe('the longest line gives way', () => {
  it('nothing is dropped for a stream that has as much as any other: its own next record has to go', () => {
    const backlog = new EventBacklog();
    expect(backlog.crowdOut(8)).toBe(8);
    for (const sid of [8, 9]) backlog.append(record(sid));
    for (const sid of [8, 9, 10]) expect(backlog.crowdOut(sid)).toBe(sid);
    expect(backlog.length).toBe(2);
  });
  it('its newest record is dropped, its older ones stay in order', () => {
    const backlog = new EventBacklog();
    for (let i = 0; i < 3; i++) backlog.append(record(8, i));
    backlog.append(record(9));
    expect(backlog.crowdOut(9)).toBe(8);
    expect(backlog.crowdOut(9)).toBe(9);
    expect(takeAll(backlog)).toEqual([
      [8, 0],
      [9, 0],
      [8, 1],
    ]);
  });
  it('StreamIDs of 32 bits are no special case', () => {
    const backlog = new EventBacklog();
    for (let i = 0; i < 3; i++) backlog.append(record(0xffff_ffff, i));
    expect(backlog.crowdOut(0)).toBe(0xffff_ffff);
    expect(takeAll(backlog)).toHaveLength(2);
  });
});

describe('streams are served in turn', () => {
  it('a stream that comes waits for one record of each other at most', () => {
    const backlog = new EventBacklog();
    for (let i = 0; i < 50; i++) backlog.append(record(8, i));
    for (let i = 0; i < 50; i++) backlog.append(record(9, i));
    expect([take(backlog), take(backlog)]).toEqual([
      [8, 0],
      [9, 0],
    ]);
    backlog.append(record(10));
    expect([take(backlog), take(backlog), take(backlog), take(backlog)].map(([sid]) => sid)).toEqual([
      8, 9, 10, 8,
    ]);
  });
  it('a record that is given back is the next', () => {
    const backlog = new EventBacklog();
    for (const sid of [8, 9]) for (let i = 0; i < 2; i++) backlog.append(record(sid, i));
    const words = new Uint32Array(8);
    backlog.take(words);
    backlog.giveBack(words);
    expect(takeAll(backlog)).toEqual([
      [8, 0],
      [9, 0],
      [8, 1],
      [9, 1],
    ]);
    backlog.append(record(7));
    backlog.take(words);
    backlog.giveBack(words);
    expect(takeAll(backlog)).toEqual([[7, 0]]);
  });
});

it('clearing tells how many of each, and leaves nothing', () => {
  const backlog = new EventBacklog();
  for (const sid of [8, 9, 9, 10]) backlog.append(record(sid));
  expect(take(backlog)).toEqual([8, 0]);
  const told: [number, number][] = [];
  backlog.clear((sid, count) => told.push([sid, count]));
  expect(told).toEqual([
    [9, 2],
    [10, 1],
  ]);
  expect([backlog.length, backlog.records]).toEqual([0, []]);
  backlog.append(record(9, 5));
  expect(takeAll(backlog)).toEqual([[9, 5]]);
});

it('agrees with one that is obviously right, whatever is done', () => {
  /** Lines in the order of their turns, none empty. */
  type Lines = { sid: number; serials: number[] }[];
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant('append' as const), sid: fc.nat(90) }) },
    { weight: 5, arbitrary: fc.record({ do: fc.constant('append' as const), sid: fc.nat(2) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('crowdOut' as const), sid: fc.nat(3) }) },
    { weight: 6, arbitrary: fc.record({ do: fc.constant('take' as const), sid: fc.constant(0) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('giveBack' as const), sid: fc.constant(0) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('clear' as const), sid: fc.constant(0) }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
      const backlog = new EventBacklog();
      let lines: Lines = [];
      let serial = 0;
      for (const { do: what, sid } of steps) {
        const line = lines.find((one) => one.sid === sid);
        if (what === 'append') {
          serial++;
          backlog.append(record(sid, serial));
          if (line === undefined) lines.push({ sid, serials: [serial] });
          else line.serials.push(serial);
        } else if (what === 'crowdOut') {
          const most = Math.max(0, ...lines.map(({ serials }) => serials.length));
          const longest = lines.find(({ serials }) => serials.length === most);
          const loser = longest !== undefined && most > (line?.serials.length ?? 0) + 1 ? longest : undefined;
          expect(backlog.crowdOut(sid)).toBe(loser?.sid ?? sid);
          loser?.serials.pop();
        } else if (what === 'take' && lines.length > 0) {
          const [first, ...others] = lines;
          expect(take(backlog)).toEqual([first.sid, first.serials.shift()]);
          lines = first.serials.length > 0 ? [...others, first] : others;
        } else if (what === 'giveBack' && lines.length > 0) {
          const words = new Uint32Array(8);
          backlog.take(words);
          backlog.giveBack(words);
        } else if (what === 'clear') {
          backlog.clear();
          lines = [];
        }
        expect(backlog.length).toBe(lines.reduce((sum, { serials }) => sum + serials.length, 0));
      }
      const expected: [number, number][] = [];
      while (lines.length > 0) {
        const [first, ...others] = lines;
        expected.push([first.sid, first.serials.shift()!]);
        lines = first.serials.length > 0 ? [...others, first] : others;
      }
      expect(backlog.records.map((words) => [words[1], words[4]])).toEqual(expected);
      expect(takeAll(backlog)).toEqual(expected);
    }),
  );
});

it('a stream that has less than its share never loses to others', () => {
  const LIMIT = 64;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(7), fc.integer({ min: 1, max: 40 })), { maxLength: 60 }),
      (bursts) => {
        const backlog = new EventBacklog();
        const lengths = new Map<number, number>();
        for (const [sid, count] of bursts)
          for (let i = 0; i < count; i++) {
            if (backlog.length >= LIMIT) {
              const loser = backlog.crowdOut(sid);
              const streams = new Set(lengths.keys()).add(sid).size;
              expect(lengths.get(loser) ?? 0).toBeGreaterThanOrEqual(Math.floor(LIMIT / streams));
              if (loser === sid) continue;
              lengths.set(loser, lengths.get(loser)! - 1);
            }
            backlog.append(record(sid));
            lengths.set(sid, (lengths.get(sid) ?? 0) + 1);
          }
      },
    ),
  );
});
