import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BACKLOG_MAX, EventBridge } from '../../src/accel/event-bridge.ts';
import { EVENT } from '../../src/smmu/ports.ts';
import { BridgeGuest } from '../support/bridge-guest.ts';
import { LiveVeventqKernel } from '../support/veventq-kernel.ts';

const STORM = 8;
const VICTIM = 9;

/** A vEVENTQ and a guest's queue of the same depth, behind which are so many devices. */
function setUp({ depth = 16, devices = 2 } = {}) {
  const kernel = new LiveVeventqKernel(depth);
  const guest = new BridgeGuest(depth);
  const bridge = new EventBridge(guest);
  bridge.open(kernel.veventq());
  bridge.share(devices);
  const storm = (count: number): void => {
    for (let i = 0; i < count; i++) {
      kernel.produce(STORM);
      kernel.turns(1);
    }
  };
  return { kernel, guest, bridge, storm };
}
/** Every event is somewhere, and only once. */
function expectConserved(bridge: EventBridge, produced: number, inKernel = 0): void {
  const { delivered, lostInHost, crowdedOut, refused, discarded } = bridge.counters;
  expect(delivered + lostInHost + crowdedOut + refused + discarded + bridge.backlog + inKernel).toBe(
    produced,
  );
  const sums = { delivered: 0, crowdedOut: 0, refused: 0, discarded: 0 };
  for (const counters of bridge.bySid.values())
    for (const cause of Object.keys(sums) as (keyof typeof sums)[]) sums[cause] += counters[cause];
  expect(sums).toEqual({ delivered, crowdedOut, refused, discarded });
}

describe('one device behind a full guest', () => {
  it('gap 8: is held back in the host, and nothing waits here', () => {
    const { kernel, guest, bridge, storm } = setUp({ devices: 1 });
    storm(40);
    expect(guest.log).toHaveLength(16);
    expect([bridge.backlog, bridge.paused]).toEqual([0, true]);
    expect(kernel.asked.every((size) => size <= 16 * 40 + 8)).toBe(true);
    guest.room = 16;
    bridge.resume();
    kernel.turns(9);
    expect(bridge.counters).toMatchObject({ delivered: 32, crowdedOut: 0 });
  });
  it('is held back even if the guest takes less than it said', () => {
    const { kernel, guest, bridge } = setUp({ depth: 1, devices: 1 });
    const more = setUp({ depth: 64, devices: 1 });
    more.guest.answers.push(EVENT.Queued, EVENT.Full);
    for (let i = 0; i < 64; i++) more.kernel.produce(STORM);
    more.kernel.turns(1);
    expect(more.bridge.backlog).toBe(63);
    expect(more.bridge.paused).toBe(true);
    expectConserved(more.bridge, 64);
    more.bridge.resume();
    expect(more.guest.of(STORM)).toEqual(Array.from({ length: 63 }, (_, i) => i + 1));
    kernel.produce(STORM);
    kernel.turns(1);
    expect([guest.log.length, bridge.backlog]).toEqual([1, 0]);
  });
});

describe('gap 36: two devices behind a full guest', () => {
  it('gap 36: a storm of one loses its own events, and none of the other', () => {
    const { kernel, guest, bridge, storm } = setUp();
    storm(100);
    for (const at of [1000, 1001]) {
      kernel.produce(VICTIM, at);
      storm(100);
    }
    expect(guest.log.filter((entry) => entry !== 'LOST')).toHaveLength(16);
    expect(bridge.backlog).toBe(16);
    expect(bridge.bySid.get(STORM)!.crowdedOut).toBe(300 - 16 - 14);
    expect(bridge.bySid.get(VICTIM)?.crowdedOut ?? 0).toBe(0);
    expectConserved(bridge, 302);
    guest.room = 16;
    bridge.resume();
    // Each in its turn: the storm's oldest, the victim, the storm, the victim.
    expect(guest.log.filter((entry) => entry !== 'LOST').slice(16, 20)).toEqual([
      [STORM, 16],
      [VICTIM, 1000],
      [STORM, 17],
      [VICTIM, 1001],
    ]);
    expect(bridge.counters).toMatchObject({ delivered: 32, lostInHost: 0, crowdedOut: 270 });
  });
  it('gap 36: every record that gives way shows as an overflow', () => {
    const { guest, bridge, storm } = setUp();
    storm(32);
    expect(guest.losses).toBe(0);
    storm(3);
    expect(guest.losses).toBe(3);
    expect(bridge.counters.crowdedOut).toBe(3);
  });
  it('gap 36: a turn is one read of 64 records at most, even if the guest never takes any', () => {
    const { kernel, bridge } = setUp({ depth: 1024 });
    for (let round = 0; round < 50; round++) {
      for (let i = 0; i < 200; i++) kernel.produce(STORM);
      const reads = kernel.asked.length;
      const { backlog } = bridge;
      const { delivered, crowdedOut } = bridge.counters;
      kernel.turns(1);
      expect(kernel.asked.length - reads).toBe(1);
      const moved =
        bridge.counters.delivered -
        delivered +
        bridge.counters.crowdedOut -
        crowdedOut +
        bridge.backlog -
        backlog;
      expect(moved).toBeLessThanOrEqual(64);
      kernel.turns(10);
    }
    expect(bridge.backlog).toBeLessThanOrEqual(1024);
    expectConserved(bridge, kernel.produced);
  });
  it('what waits is bounded, however large the queue of the guest', () => {
    const { bridge, storm } = setUp({ depth: 2 ** 14 });
    storm(2 ** 14 + BACKLOG_MAX + 100);
    expect(bridge.backlog).toBe(BACKLOG_MAX);
    expect(bridge.counters.crowdedOut).toBe(100);
  });
  it('each device has room for two records, however small the queue of the guest', () => {
    const { kernel, guest, bridge, storm } = setUp({ depth: 1 });
    storm(10);
    for (let i = 0; i < 2; i++) {
      kernel.produce(VICTIM);
      storm(10);
    }
    expect(bridge.bySid.get(VICTIM)?.crowdedOut ?? 0).toBe(0);
    guest.room = 10;
    bridge.resume();
    expect(guest.of(VICTIM)).toHaveLength(2);
    expectConserved(bridge, kernel.produced);
  });
  it('with room in the guest they come as they happened, and nothing waits', () => {
    const { kernel, guest, bridge } = setUp({ depth: 64 });
    for (let i = 0; i < 20; i++) for (const sid of [STORM, STORM, VICTIM]) kernel.produce(sid);
    kernel.turns(1);
    expect(guest.log.map((entry) => entry[1])).toEqual(Array.from({ length: 60 }, (_, i) => i));
    expect(bridge.backlog).toBe(0);
  });
  it('order within a stream holds when room comes and goes', () => {
    const { kernel, guest, bridge } = setUp();
    for (let i = 0; i < 300; i++) {
      kernel.produce(i % 7 === 0 ? VICTIM : STORM);
      if (i % 5 === 0) kernel.turns(1);
      if (i % 3 === 0) {
        guest.room++;
        bridge.resume();
      }
    }
    for (const sid of [STORM, VICTIM]) expect(guest.of(sid)).toEqual(guest.of(sid).toSorted((a, b) => a - b));
    expect(guest.of(VICTIM)).toHaveLength(bridge.bySid.get(VICTIM)!.delivered);
  });
  it('the number of what was read counts, not of what was delivered: no loss is invented at the wrap', () => {
    const { kernel, guest, bridge, storm } = setUp();
    storm(1);
    kernel.queue.setNextSequence(0x7fff_ffff - 20);
    storm(1);
    const jumped = bridge.counters.lostInHost;
    storm(60);
    for (let i = 0; i < 3; i++) {
      guest.room = 16;
      bridge.resume();
    }
    expect(bridge.counters.lostInHost).toBe(jumped);
    expect(bridge.counters.delivered + bridge.counters.crowdedOut).toBe(62);
  });
  it('what the host lost is counted even while the guest is full, and shown', () => {
    const { kernel, guest, bridge, storm } = setUp();
    storm(16);
    for (let i = 0; i < 30; i++) kernel.produce(VICTIM);
    kernel.turns(1);
    expect(bridge.counters.lostInHost).toBe(14);
    expect(guest.losses).toBeGreaterThan(0);
  });
});

describe('devices that come and go', () => {
  it('a second one frees the way at once: what filled the queue is taken out', () => {
    const { kernel, guest, bridge, storm } = setUp({ devices: 1 });
    storm(60);
    expect([bridge.paused, kernel.callback]).toEqual([true, undefined]);
    bridge.share(2);
    kernel.turns(3);
    kernel.produce(VICTIM);
    kernel.turns(3);
    guest.room = 4;
    bridge.resume();
    expect(guest.of(VICTIM)).toHaveLength(1);
    // It was there too late for what the kernel had dropped before.
    expect(bridge.bySid.get(STORM)!.crowdedOut).toBe(1);
  });
  it('when one is left it is held back again, and what waits comes first, of the other too', () => {
    const { kernel, guest, bridge, storm } = setUp();
    storm(20);
    kernel.produce(VICTIM);
    kernel.turns(1);
    bridge.share(1);
    storm(20);
    expect([bridge.paused, bridge.backlog]).toEqual([true, 5]);
    guest.room = 100;
    bridge.resume();
    kernel.turns(5);
    expect(guest.of(VICTIM)).toHaveLength(1);
    expect(guest.of(STORM)).toEqual(guest.of(STORM).toSorted((a, b) => a - b));
    expectConserved(bridge, kernel.produced);
    expect(bridge.paused).toBe(false);
  });
  it('saying the same again changes nothing: a queue that cannot be read is not tried for ever', () => {
    const { kernel, bridge } = setUp();
    kernel.read = () => -9;
    kernel.callback!();
    expect(kernel.callback).toBeUndefined();
    bridge.share(2);
    bridge.share(3);
    expect(kernel.callback).toBeUndefined();
  });
  it('a queue that is opened while they share it is read, although the guest has no room for a backlog', () => {
    const { kernel, guest, bridge, storm } = setUp();
    bridge.close();
    guest.room = 0;
    bridge.restore([Uint32Array.of(0x10, VICTIM, 0, 0, 5, 0, 0, 0)]);
    bridge.open(kernel.veventq());
    storm(3);
    expect(bridge.backlog).toBe(4);
  });
});

describe('the end of a queue', () => {
  it.each([true, false])('discards what waits, of each device; listening: %s', (listens) => {
    const { kernel, guest, bridge, storm } = setUp();
    storm(20);
    kernel.produce(VICTIM);
    kernel.turns(1);
    kernel.produce(VICTIM);
    guest.enabled = listens;
    const before = guest.losses;
    bridge.close();
    expect([bridge.backlog, bridge.bySid.get(STORM)!.discarded, bridge.bySid.get(VICTIM)!.discarded]).toEqual(
      [0, 4, 2],
    );
    expect(guest.losses - before).toBe(listens ? 1 : 0);
    expectConserved(bridge, kernel.produced);
    bridge.open(kernel.veventq());
    guest.enabled = true;
    guest.room = 16;
    bridge.resume();
    expect(guest.of(VICTIM)).toEqual([]);
  });
  it('from inside a delivery: the record is counted once, and the rest discarded', () => {
    const { kernel, guest, bridge, storm } = setUp();
    storm(20);
    guest.onRecord = () => bridge.close();
    guest.room = 16;
    bridge.resume();
    expect(bridge.counters).toMatchObject({ delivered: 17, discarded: 3 });
    expectConserved(bridge, kernel.produced);
  });

  it('from inside what a turn delivers before it reads: there is nothing to read any more', () => {
    const { kernel, guest, bridge, storm } = setUp();
    storm(20);
    guest.onRecord = () => bridge.close();
    guest.room = 16;
    kernel.produce(STORM);
    kernel.turns(1);
    expect(bridge.counters).toMatchObject({ delivered: 17, discarded: 4 });
  });
});

describe('a guest that calls back from inside a delivery', () => {
  it('gets each record once, of a backlog too, and in order', () => {
    const { kernel, guest, bridge } = setUp({ depth: 4096, devices: 1 });
    guest.room = 0;
    for (let i = 0; i < 4096; i++) kernel.produce(STORM);
    expect(bridge.drain()).toHaveLength(4096);
    guest.room = 1;
    guest.onRecord = () => {
      guest.room = 1;
      bridge.resume();
    };
    bridge.resume();
    expect(guest.of(STORM)).toEqual(Array.from({ length: 4096 }, (_, i) => i));
    expect(bridge.counters.delivered).toBe(4096);
  });
  it('does not make the accelerator reconcile in the middle of it', () => {
    const kernel = new LiveVeventqKernel(16);
    const guest = new BridgeGuest(0);
    let inside = false;
    const turns: boolean[] = [];
    const filter = { rename() {}, turned: () => void turns.push(inside) };
    const bridge = new EventBridge(guest, filter);
    bridge.open(kernel.veventq());
    for (let i = 0; i < 16; i++) kernel.produce(STORM);
    bridge.drain();
    guest.onRecord = () => {
      inside = true;
      guest.room = 1;
      bridge.resume();
      inside = false;
    };
    guest.room = 1;
    bridge.resume();
    expect(guest.of(STORM)).toHaveLength(16);
    expect(turns).toEqual([false]);
  });
  it('and makes room while another batch is read', () => {
    const { kernel, guest, bridge } = setUp({ depth: 64 });
    guest.room = 1;
    guest.onRecord = () => {
      guest.room = 1;
      bridge.resume();
    };
    for (let i = 0; i < 64; i++) kernel.produce(i % 2 === 0 ? STORM : VICTIM);
    kernel.turns(1);
    expect(guest.log.map((entry) => entry[1])).toEqual(Array.from({ length: 64 }, (_, i) => i));
    expect(bridge.backlog).toBe(0);
  });
});

describe('a write that the memory of the guest refuses', () => {
  it('costs that record and no other: the rest waits until the guest has put it right', () => {
    const { guest, bridge, storm } = setUp();
    storm(20);
    guest.room = 16;
    guest.aborts = true;
    bridge.resume();
    expect(bridge.bySid.get(STORM)!.refused).toBe(1);
    expect(bridge.backlog).toBe(3);
    bridge.resume();
    expect(bridge.backlog).toBe(3);
    guest.aborted = false;
    bridge.resume();
    expect(guest.of(STORM).slice(16)).toEqual([17, 18, 19]);
  });
  it.each([1, 2])('costs no more, of %i devices, while records go on to come', (devices) => {
    const { kernel, guest, bridge, storm } = setUp({ devices });
    guest.aborts = true;
    for (let i = 0; i < 5; i++) kernel.produce(STORM);
    kernel.turns(1);
    storm(10);
    expect(bridge.counters).toMatchObject({ delivered: 0, refused: 1 });
    guest.aborted = false;
    bridge.resume();
    kernel.turns(5);
    expect(guest.of(STORM)).toEqual(Array.from({ length: 14 }, (_, i) => i + 1));
    expect(guest.losses).toBe(0);
  });
});

describe('a snapshot', () => {
  it('has all that waits, here and in the host, and it arrives elsewhere once and in order', () => {
    const { kernel, guest, bridge, storm } = setUp();
    storm(30);
    for (let i = 0; i < 3; i++) kernel.produce(VICTIM);
    storm(0);
    const records = bridge.drain();
    expect(records).toHaveLength(17);
    expect(bridge.drain()).toEqual(records);
    const there = setUp();
    there.guest.room = 0;
    there.bridge.close();
    there.bridge.restore(records);
    there.bridge.open(there.kernel.veventq());
    there.guest.room = 64;
    there.bridge.resume();
    guest.room = 64;
    bridge.resume();
    expect(guest.log.slice(16)).toEqual(there.guest.log);
    expect(guest.of(VICTIM)).toEqual([30, 31, 32]);
    expect(guest.of(STORM)).toEqual(Array.from({ length: 30 }, (_, i) => i));
    expect(guest.losses).toBe(0);
  });
  it('loses nothing for want of room here; what comes later gives way first', () => {
    const { kernel, guest, bridge, storm } = setUp({ depth: 64 });
    storm(128);
    for (let i = 0; i < 64; i++) kernel.produce(STORM);
    expect(bridge.drain()).toHaveLength(128);
    expect(bridge.counters.crowdedOut).toBe(0);
    storm(5);
    expect(bridge.backlog).toBe(128);
    kernel.produce(VICTIM, 7);
    kernel.turns(1);
    expect(bridge.backlog).toBe(128);
    guest.room = 2;
    bridge.resume();
    expect(guest.of(VICTIM)).toEqual([7]);
    expectConserved(bridge, kernel.produced);
  });
});

it('conservation, order in each stream, and visible losses hold for every interleaving', () => {
  const DEPTH = 8;
  const step = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        do: fc.constant('produce'),
        n: fc.integer({ min: 1, max: 12 }),
        sid: fc.nat(3),
      }),
    },
    ...(['turn', 'take', 'share', 'reopen', 'drain', 'abort'] as const).map((what) => ({
      weight: { turn: 8, take: 5, share: 1, reopen: 1, drain: 1, abort: 1 }[what],
      arbitrary: fc.record({ do: fc.constant(what), n: fc.integer({ min: 1, max: 6 }), sid: fc.constant(0) }),
    })),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 250 }), fc.boolean(), (steps, wraps) => {
      let kernel = new LiveVeventqKernel(DEPTH);
      let produced = 0;
      let serial = 0;
      const guest = new BridgeGuest(DEPTH);
      const bridge = new EventBridge(guest);
      let jumped = 0;
      let aborts = 0;
      const open = (): void => {
        kernel = new LiveVeventqKernel(DEPTH);
        if (wraps) {
          // Numbers start at 0: as if as many had been lost as there are until shortly before the wrap.
          kernel.queue.setNextSequence(0x7fff_fff0);
          jumped += 0x7fff_fff0;
          kernel.produce(8, serial++);
          produced++;
        }
        bridge.open(kernel.veventq());
        kernel.turns(1);
      };
      open();
      bridge.share(2);
      const losses = (): number => {
        const { lostInHost, crowdedOut } = bridge.counters;
        return lostInHost + crowdedOut;
      };
      for (const { do: what, n, sid } of steps) {
        const before = losses();
        const shown = guest.losses;
        const { length } = kernel.asked;
        if (what === 'produce') {
          for (let i = 0; i < n; i++) kernel.produce(8 + sid, serial++);
          produced += n;
        } else if (what === 'turn') {
          kernel.turns(1);
          expect(kernel.asked.length - length).toBeLessThanOrEqual(1);
        } else if (what === 'take') {
          guest.room = Math.min(guest.room + n, DEPTH);
          guest.aborted = false;
          bridge.resume();
          expect(kernel.asked).toHaveLength(length);
        } else if (what === 'share') bridge.share(n % 4);
        else if (what === 'reopen') {
          guest.enabled = false;
          bridge.dropBacklog();
          bridge.close();
          guest.enabled = true;
          guest.aborted = false;
          guest.room = DEPTH;
          open();
        } else if (what === 'drain') {
          const records = bridge.drain();
          expect(records).toHaveLength(bridge.backlog);
          bridge.restore(records);
          bridge.resume();
        } else {
          guest.aborts = true;
          aborts++;
        }
        expect(bridge.counters.refused).toBeLessThanOrEqual(aborts);
        if (losses() > before && what !== 'reopen') expect(guest.losses).toBeGreaterThan(shown);
        if (bridge.backlog > 0) expect(guest.eventQueueSpace()).toBe(0);
        expect(bridge.counters.delivered).toBe(guest.log.length - guest.losses);
      }
      for (let i = 0; i < 200 && (kernel.queue.readable || bridge.backlog > 0); i++) {
        guest.room = DEPTH;
        guest.aborted = false;
        bridge.resume();
        kernel.turns(8);
      }
      expectConserved(bridge, produced + jumped);
      for (let sid = 8; sid < 12; sid++)
        for (const list = guest.of(sid), at = { i: 1 }; at.i < list.length; at.i++)
          expect(list[at.i]).toBeGreaterThan(list[at.i - 1]);
    }),
    { numRuns: 300 },
  );
});
