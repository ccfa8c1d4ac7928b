import { describe, expect, it } from 'vitest';
import { EventBridge, type EventSink } from '../../src/accel/event-bridge.ts';
import { EVENT, type EventStatus } from '../../src/smmu/ports.ts';
import { bytes, event, lost, VeventqKernel } from '../support/veventq-kernel.ts';

/** A guest queue of some size that notes what it gets; losses are noted as 'LOST'. */
class Guest implements EventSink {
  readonly log: (number | 'LOST')[] = [];
  /** The addresses among them. */
  get records(): number[] {
    return this.log.filter((entry) => entry !== 'LOST');
  }
  room: number;
  /** Answers in place of Queued, in turn. */
  readonly answers: EventStatus[] = [];
  onRecord: () => void = () => {};

  constructor(room = 1000) {
    this.room = room;
  }
  recordEvent(words: Uint32Array): EventStatus {
    const answer = this.answers.shift();
    if (answer !== undefined) return answer;
    if (this.room === 0) return EVENT.Full;
    this.room--;
    this.log.push(words[4]);
    this.onRecord();
    return EVENT.Queued;
  }
  eventQueueSpace(): number {
    return this.room;
  }
  eventsLost(): void {
    this.log.push('LOST');
  }
}

function setUp(room?: number) {
  const kernel = new VeventqKernel();
  const guest = new Guest(room);
  const bridge = new EventBridge(guest);
  bridge.open(kernel.veventq());
  const turn = (...reads: (Uint8Array | number)[]): void => {
    kernel.reads.push(...reads);
    kernel.callback?.();
  };
  return { kernel, guest, bridge, turn };
}
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

describe('reading', () => {
  it('gap 10: takes up to 64 records and a LOST header in one read', () => {
    const { kernel, guest, turn } = setUp();
    turn(bytes(...range(0, 64).map((n) => event(n))));
    expect(kernel.asked).toEqual([64 * 40 + 8]);
    expect(guest.log).toEqual(range(0, 64));
  });
  it('gap 36: reads once a turn, however much there is', () => {
    const { kernel, turn } = setUp();
    turn(bytes(event(0)), bytes(event(1)));
    expect(kernel.asked).toHaveLength(1);
    expect(kernel.callback).toBeDefined();
  });
  it('gap 9: an empty read is not an end', () => {
    const { guest, bridge, turn } = setUp();
    turn(0);
    turn(bytes(event(0)));
    expect(guest.log).toEqual([0]);
    expect(bridge.counters.readErrors).toBe(0);
  });
  it.each([4, 11, 12])('errno %i is tried again', (errno) => {
    const { guest, turn } = setUp();
    turn(-errno);
    turn(bytes(event(0)));
    expect(guest.log).toEqual([0]);
  });
  it('any other error stops the watch instead of spinning, and shows as a loss', () => {
    const { kernel, guest, bridge, turn } = setUp();
    turn(-9);
    expect(kernel.callback).toBeUndefined();
    expect(guest.log).toEqual(['LOST']);
    expect(bridge.counters.readErrors).toBe(1);
  });
  it.each([1, 7, 12, 39, 41, 47, 60])(
    '%i bytes, which make no whole records, count as a loss and nothing breaks',
    (size) => {
      const { guest, bridge, turn } = setUp();
      turn(bytes(event(0), event(1)).slice(0, size));
      expect(guest.log.at(-1)).toBe('LOST');
      expect(bridge.counters.malformed).toBe(size % 40);
      turn(bytes(event(5)));
      expect(guest.log).toContain(5);
    },
  );
});

describe('back-pressure', () => {
  it('gap 8: asks for no more than the guest has room for', () => {
    const { kernel, turn } = setUp(3);
    turn(bytes(event(0)));
    expect(kernel.asked).toEqual([3 * 40 + 8]);
  });
  it('gap 5 and 8: reads nothing while the guest is full, and goes on when it is not', () => {
    const { kernel, guest, bridge, turn } = setUp(0);
    turn(bytes(event(0)));
    expect(kernel.asked).toEqual([]);
    expect(bridge.paused).toBe(true);
    expect(kernel.callback).toBeUndefined();
    bridge.resume();
    expect(bridge.paused).toBe(true);
    guest.room = 1;
    bridge.resume();
    expect(bridge.paused).toBe(false);
    kernel.callback!();
    expect(guest.log).toEqual([0]);
  });
  it('a record for which there turns out to be no room is kept, in order, and not counted twice', () => {
    const { kernel, guest, bridge, turn } = setUp();
    guest.answers.push(EVENT.Queued, EVENT.Full);
    turn(bytes(event(0), event(3), event(4)));
    expect(guest.log).toEqual(['LOST']);
    expect(bridge.paused).toBe(true);
    bridge.resume();
    expect(guest.log).toEqual(['LOST', 3, 4]);
    expect(bridge.counters).toMatchObject({ delivered: 3, lostInHost: 2 });
    expect(kernel.asked).toHaveLength(1);
  });
  it('a guest that makes room from its interrupt handler does not start a second reader', () => {
    const { kernel, guest, bridge, turn } = setUp(1);
    guest.onRecord = () => {
      guest.room = 1;
      bridge.resume();
    };
    turn(bytes(event(0)));
    expect(guest.log).toEqual([0]);
    expect(kernel.asked).toHaveLength(1);
    expect(bridge.paused).toBe(false);
  });
});

describe('losses', () => {
  const LAST = 0x7fff_ffff;
  it.each([
    ['events before the first record', [event(3)], 3],
    ['a gap', [event(0), event(1), event(5)], 3],
    ['a LOST header', [event(0), lost(4)], 4],
    ['a LOST header, then a gap', [event(0), lost(4), event(7)], 6],
    ['a LOST header alone', [lost(0)], 1],
    ['no loss', [event(0), event(1)], 0],
  ])('gap 6 and 7: %s are counted', (_what, records, count) => {
    const { guest, bridge, turn } = setUp();
    turn(bytes(...records));
    expect(bridge.counters.lostInHost).toBe(count);
    expect(guest.log.includes('LOST')).toBe(count > 0);
  });
  it('gap 7: the number after 2^31-1 is 0', () => {
    const { bridge, turn } = setUp();
    turn(bytes(event(LAST - 1), event(LAST), event(0), event(1)));
    expect(bridge.counters.lostInHost).toBe(LAST - 1);
    turn(bytes(event(3)));
    expect(bridge.counters.lostInHost).toBe(LAST);
    turn(bytes(event(LAST), lost(1)));
    expect(bridge.counters.lostInHost).toBe(LAST + (LAST - 4) + 2);
  });
  it('gap 6: every loss is shown, not only the first', () => {
    const { guest, turn } = setUp();
    turn(bytes(event(0), lost(1)));
    turn(bytes(event(2), lost(3)));
    expect(guest.log).toEqual([0, 'LOST', 2, 'LOST']);
  });
  it('what the device does not take is counted', () => {
    const { guest, bridge, turn } = setUp();
    guest.answers.push(EVENT.Disabled, EVENT.Aborted);
    turn(bytes(event(0), event(1), event(2)));
    expect(guest.log).toEqual([2]);
    expect(bridge.counters).toMatchObject({ delivered: 1, refused: 2 });
  });
});

describe('closing', () => {
  it('gap 1 and 2: delivers nothing more, and counts what was left', () => {
    const { kernel, guest, bridge } = setUp(0);
    kernel.reads.push(bytes(event(0), event(1)), bytes(event(2), lost(5)));
    bridge.close();
    expect(kernel.callback).toBeUndefined();
    // A guest that still listens hears of it.
    expect(guest.log).toContain('LOST');
    expect(guest.records).toEqual([]);
    expect(bridge.counters).toMatchObject({ delivered: 0, discarded: 3, lostInHost: 3 });
  });
  it('reads a bounded number of times, even if the queue is refilled meanwhile', () => {
    const { kernel, bridge } = setUp();
    for (let i = 0; i < 1000; i++) kernel.reads.push(bytes(event(i)));
    bridge.close();
    expect(kernel.asked.length).toBeLessThanOrEqual(4);
  });
  it('by the guest, from inside its interrupt handler, ends the batch', () => {
    const { guest, bridge, turn, kernel } = setUp();
    guest.onRecord = () => bridge.close();
    turn(bytes(event(0), event(1), event(2)));
    expect(guest.log).toEqual([0, 'LOST']);
    expect(bridge.counters).toMatchObject({ delivered: 1, discarded: 2 });
    expect(kernel.callback).toBeUndefined();
  });
  it('and opening another one in that handler starts its numbers anew', () => {
    const { guest, bridge, turn, kernel } = setUp();
    guest.onRecord = () => {
      guest.onRecord = () => {};
      bridge.close();
      bridge.open(kernel.veventq());
    };
    turn(bytes(event(0), event(1)));
    turn(bytes(event(0)));
    expect(guest.records).toEqual([0, 0]);
    expect(bridge.counters.lostInHost).toBe(0);
  });
  it('events are counted by StreamID, whatever becomes of them', () => {
    const { guest, bridge, kernel, turn } = setUp();
    guest.answers.push(EVENT.Queued, EVENT.Queued, EVENT.Queued, EVENT.Disabled, EVENT.Aborted);
    turn(bytes(event(0, 8), event(1, 9), event(2, 8), event(3, 9), event(4, 10)));
    kernel.reads.push(bytes(event(5, 8), event(6, 8)));
    bridge.close();
    const none = { delivered: 0, crowdedOut: 0, refused: 0, discarded: 0 };
    expect([...bridge.bySid]).toEqual([
      [8, { ...none, delivered: 2, discarded: 2 }],
      [9, { ...none, delivered: 1, refused: 1 }],
      [10, { ...none, refused: 1 }],
    ]);
  });
  it('a record keeps its StreamID in the counts, whatever its delivery sets off', () => {
    const { guest, bridge, turn } = setUp();
    guest.onRecord = () => bridge.close();
    turn(bytes(event(0, 8), event(1, 9)));
    expect(bridge.bySid.get(8)).toMatchObject({ delivered: 1, discarded: 0 });
    expect(bridge.bySid.get(9)).toMatchObject({ delivered: 0, discarded: 1 });
  });
});
