import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { ACTIONS, asOnPage, costOf, rowOf } from '../contract/costs.ts';
import { simRig } from '../host/sim/machine.ts';
import { BenchHost, BenchMachine, BUFFERS } from '../support/bench-machine.ts';

const page = readFileSync(new URL('../../docs/ioctls.md', import.meta.url), 'utf8');

it.each(Object.keys(ACTIONS))('docs/ioctls.md says what "%s" costs', (action) => {
  expect(rowOf(page, action)?.slice(0, 2)).toEqual(asOnPage(costOf(simRig(), action)));
});

it('an unchanged state costs nothing, whatever makes us look', () => {
  const machine = new BenchMachine(new BenchHost());
  machine.plug();
  machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
  machine.attach().map(0x1000_0000n, BUFFERS, 0x1_0000);
  machine.expectSettled();
});
