import { expect, it } from 'vitest';
import { BridgeMachine } from '../../bench/bridge.ts';
import { heapGrowth } from '../support/heap-growth.ts';

const KIB_64 = 64 * 1024;
/** Of 64 records. */
const TURNS = Math.ceil(1_000_000 / 64);

it.each([
  ['one device, to a guest that keeps up', 1, 64],
  ['two devices, to a guest that keeps up', 2, 64],
  ['two devices, to a guest that is slow', 2, 8],
  ['two devices, to a guest that never reads', 2, 0],
])('a million events of %s leave the heap as it was', (_what, devices, taken) => {
  const machine = new BridgeMachine([8, 8, 8, 9].slice(0, 2 * devices), devices);
  const grown = heapGrowth(TURNS, KIB_64, () => {
    machine.turn();
    machine.take(taken);
  });
  const { delivered, crowdedOut } = machine.bridge.counters;
  expect(delivered + crowdedOut).toBeGreaterThan(1_000_000);
  expect(grown).toBeLessThan(KIB_64);
});
