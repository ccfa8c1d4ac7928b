/** How explorations begin. */

import { BARE_HOLE, BARE_PAGE } from '../../guest/bare-guest.ts';
import { NIC0 } from '../events.ts';
import type { Action, WorldDevice } from '../world.ts';

export const START: readonly Action[] = [{ action: 'setup', args: {} }];
export const steStep = (device: WorldDevice, space: number): Action => ({
  action: 'ste',
  args: { device: device.name, is: 'translate', space },
});
export const FAULT_DELIVERED: readonly Action[] = [
  { action: 'dma', args: { device: NIC0.name, read: BigInt(BARE_HOLE), bytes: 8 } },
  { action: 'deliver', args: {} },
];
/** A device reads the page, so that its translation is cached. */
export const dmaStep = (device: WorldDevice): Action => ({
  action: 'dma',
  args: { device: device.name, read: BigInt(BARE_PAGE), bytes: 8 },
});
export const plugStep = (device: WorldDevice): Action => ({ action: 'plug', args: { device: device.name } });

export const BASE = { program: [], failures: 0, start: START } as const;
