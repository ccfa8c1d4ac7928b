import { describe, expect, it } from 'vitest';
import { EventTurns, type TurnsMoment } from '../../src/explore/event-turns.ts';

const A = 8;
const B = 16;
const moment = (backlog: number, crowdedOut: Readonly<Record<number, number>> = {}): TurnsMoment => ({
  bySid: new Map(
    Object.entries(crowdedOut).map(([sid, count]) => [
      Number(sid),
      { delivered: 0, crowdedOut: count, refused: 0, discarded: 0 },
    ]),
  ),
  lostInHost: 0,
  backlog,
  atRest: true,
});
const lines = (a: number, b: number): EventTurns => {
  const turns = new EventTurns();
  for (let i = 0; i < a; i++) turns.fault(A);
  for (let i = 0; i < b; i++) turns.fault(B);
  expect(turns.settle(moment(a + b), true)).toBeUndefined();
  return turns;
};

describe('devices that share a queue', () => {
  it('are served in turn, while both wait', () => {
    const turns = lines(2, 1);
    expect(turns.delivered(A)).toBeUndefined();
    expect(turns.settle(moment(2), true)).toBeUndefined();
    expect(turns.delivered(A)?.invariant).toBe('fairness');
  });

  it('are served twice if nobody else waits', () => {
    const turns = lines(2, 1);
    for (const [sid, left] of [
      [A, 2],
      [B, 1],
      [A, 0],
    ] as const) {
      expect(turns.delivered(sid)).toBeUndefined();
      expect(turns.settle(moment(left), true)).toBeUndefined();
    }
  });

  it('do not lose to others what is their share', () => {
    expect(lines(3, 1).settle(moment(3, { [B]: 1 }), true)?.invariant).toBe('fairness');
    expect(lines(4, 1).settle(moment(4, { [A]: 1 }), true)).toBeUndefined();
  });

  it('do not rest in the host, in the way of others', () => {
    const turns = lines(1, 1);
    turns.fault(A);
    expect(turns.settle(moment(2), true)?.invariant).toBe('fairness');
  });

  it('are not judged by what the host has lost', () => {
    const turns = lines(2, 1);
    expect(turns.settle({ ...moment(2), lostInHost: 1 }, true)).toBeUndefined();
    expect(turns.delivered(A)).toBeUndefined();
    turns.close();
    expect(turns.text).toContain('/');
  });
});
