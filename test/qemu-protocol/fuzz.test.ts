import { describe, expect, it } from 'vitest';
import {
  Bench,
  concat,
  dmaMap,
  dmaUnmap,
  getInfo,
  getIrqInfo,
  getRegionInfo,
  message,
  pack,
  RecordingDevice,
  regionRead,
  regionWrite,
  reset,
  setIrqs,
  version,
} from '../support/vfio-user.ts';

/** Numbers that look random and are the same in every run. */
function generator(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x45d9_f3b) ^ (mixed >>> 13);
    return (mixed >>> 0) % limit;
  };
}

const CORPUS: readonly (() => Uint8Array)[] = [
  () => version(),
  () => dmaMap(0x4000_0000, 0x10_0000),
  () => dmaMap(0x8000_0000, 0x1000, { flags: 1 }),
  () => dmaUnmap(0x4000_0000, 0x10_0000),
  () => dmaUnmap(0, 0, { flags: 2 }),
  () => getInfo(),
  () => getRegionInfo(0),
  () => getRegionInfo(7),
  () => getIrqInfo(1),
  () => setIrqs(0x24, 0, 0, 1),
  () => setIrqs(0x24, 1, 0, 4),
  () => setIrqs(0x21, 1, 0, 0),
  () => setIrqs(0x11, 0, 0, 1),
  () => setIrqs(0x22, 1, 0, 4, [1, 0, 1, 0]),
  () => regionRead(0, 0x10, 4),
  () => regionRead(7, 0, 256),
  () => regionWrite(0, 0x20, [1, 2, 3, 4, 5, 6, 7, 8]),
  () => regionWrite(7, 4, [6, 0]),
  () => message(15, concat(pack([8, 1], [8, 0], [4, 0], [4, 4], [8, 1]))),
  () => reset(),
  () => message(11, pack([8, 0], [8, 4], [4, 1]), { id: 0, flags: 1 }),
  () => message(12, undefined, { id: 1, flags: 0x21, error: 14 }),
];

/** Values at which checks go wrong. */
const EDGES = [
  0, 1, 3, 7, 15, 16, 20, 0xfff, 0x1000, 0x1001, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
];

function mutate(bytes: Uint8Array, random: (limit: number) => number): Uint8Array {
  let result: Uint8Array = bytes.slice();
  for (let n = random(4); n >= 0; n--) {
    const view = new DataView(result.buffer);
    switch (random(7)) {
      case 0: // a bit
        if (result.length > 0) result[random(result.length)] ^= 1 << random(8);
        break;
      case 1: // a 32-bit field
        if (result.length >= 4)
          view.setUint32(4 * random(result.length >> 2), EDGES[random(EDGES.length)], true);
        break;
      case 2: // a 64-bit field
        if (result.length >= 24)
          view.setBigUint64(16 + 8 * random((result.length - 16) >> 3), 0xffff_ffff_ffff_f000n, true);
        break;
      case 3: // its end is missing
        result = result.slice(0, random(result.length + 1));
        break;
      case 4: // it goes on
        result = concat(
          result,
          Uint8Array.from({ length: random(64) }, () => random(256)),
        );
        break;
      case 5: // another command
        if (result.length >= 4) view.setUint16(2, random(20), true);
        break;
      default: // noise
        for (let i = 0; i < result.length; i++) if (random(8) === 0) result[i] = random(256);
    }
  }
  // Half of them keep a size that is right, or the stream would end at almost every message.
  if (result.length >= 16 && random(2) === 0) new DataView(result.buffer).setUint32(4, result.length, true);
  return result;
}

const MESSAGES = 10_000;

/** Sends mutated messages over as many connections as it takes. @returns what happened, for the test to judge. */
function attack(seed: number): { connections: number; replies: number; calls: number } {
  const random = generator(seed);
  const totals = { connections: 0, replies: 0, calls: 0 };
  let bench: Bench | undefined;
  const finish = (): void => {
    if (bench === undefined) return;
    bench.session.end();
    totals.calls += bench.device.calls.length;
    totals.replies += bench.sent().length;
    expect(bench.openFds.size).toBe(0);
    expect(bench.device.windows.size).toBe(0);
    expect(bench.violations.length).toBeLessThanOrEqual(32);
    bench = undefined;
  };
  for (let i = 0; i < MESSAGES; i++) {
    if (bench === undefined) {
      bench = new Bench(new RecordingDevice());
      totals.connections++;
      if (random(8) !== 0) bench.session.receive(version(), []);
      bench.session.dmaRead(0, 4, () => {});
      bench.session.dmaWrite(0, Uint8Array.of(1));
    }
    const bytes = mutate(CORPUS[random(CORPUS.length)](), random);
    const fds = random(3) === 0 ? bench.fds(random(random(10) === 0 ? 30 : 5)) : [];
    const cut = random(2) === 0 ? bytes.length : random(bytes.length + 1);
    let alive = bench.session.receive(bytes.subarray(0, cut), fds);
    if (alive) alive = bench.session.receive(bytes.subarray(cut), []);
    bench.device.link?.interrupt(random(5), random(5));
    if (!alive || random(50) === 0) finish();
  }
  finish();
  return totals;
}

describe('10,000 mutated messages', () => {
  // Access outside a region, a descriptor closed twice or used after that, and memory unmapped twice all throw.
  it.each([1, 2, 3, 0x5eed])('of seed %i break nothing and leave no descriptor open', (seed) => {
    const { connections, replies, calls } = attack(seed);
    // The attack got somewhere: not every message ended its connection, and some reached the device.
    expect(connections).toBeLessThan(MESSAGES / 2);
    expect(replies).toBeGreaterThan(MESSAGES / 10);
    expect(calls).toBeGreaterThan(MESSAGES / 20);
  });

  it('of pure noise do neither', () => {
    const random = generator(4);
    for (let i = 0; i < MESSAGES; i++) {
      const bench = Bench.ready();
      const noise = Uint8Array.from({ length: 64 }, () => random(256));
      bench.session.receive(noise, bench.fds(random(4)));
      bench.session.end();
      expect(bench.openFds.size).toBe(0);
    }
  });
});
