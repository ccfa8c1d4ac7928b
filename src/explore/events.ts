/** What can happen to a small machine, one atomic step each: the events of which configurations are made. */

import { BARE_PAGE, type SteChoice } from '../guest/bare-guest.ts';
import { requesterId } from '../machine/pci-address.ts';
import type { Event } from './configuration.ts';
import type { Action, World, WorldDevice } from './world.ts';

export const NIC0: WorldDevice = { name: 'nic0', at: '00:01.0' };
export const NIC1: WorldDevice = { name: 'nic1', at: '00:02.0' };
/** A place that no device has in the beginning. */
export const SPARE = '00:03.0';

export const event = (
  name: string,
  action: Action,
  enabled: (world: World) => boolean = () => true,
): Event => ({
  name,
  enabled,
  action: () => action,
});

const isSetUp = ({ model }: World): boolean => model.isSetUp;
const isPlugged =
  (i: number) =>
  ({ model }: World): boolean =>
    model.devices[i].plugged;

export const cr0 = (
  name: string,
  args: Extract<Action, { action: 'cr0' }>['args'],
  enabled: (world: World) => boolean,
): Event => event(name, { action: 'cr0', args }, (world) => isSetUp(world) && enabled(world));

export const plug = (device: WorldDevice, i: number): Event =>
  event(
    `plug ${device.name}`,
    { action: 'plug', args: { device: device.name } },
    (world) => !isPlugged(i)(world),
  );
/** Where devices are alike, they come in their order: the other way round has nothing new. */
export const plugInOrder = (device: WorldDevice, i: number): Event => {
  const one = plug(device, i);
  return {
    ...one,
    enabled: (world) => one.enabled(world) && world.model.devices.some(({ plugged }, k) => k < i && plugged),
  };
};
export const unplug = (device: WorldDevice, i: number): Event =>
  event(`unplug ${device.name}`, { action: 'unplug', args: { device: device.name } }, isPlugged(i));

export const EVENTQEN = [
  cr0('EVENTQEN=1', { eventqen: true }, ({ model }) => !model.eventqEnabled),
  cr0('EVENTQEN=0', { eventqen: false }, ({ model }) => model.eventqEnabled),
];
export const SMMUEN = [
  cr0('SMMUEN=1', { smmuen: true }, ({ model }) => !model.smmuEnabled),
  cr0('SMMUEN=0', { smmuen: false }, ({ model }) => model.smmuEnabled),
];
export const BOTH_OFF = cr0(
  'CR0=0',
  { smmuen: false, eventqen: false, cmdqen: false },
  ({ model }) => model.smmuEnabled || model.eventqEnabled,
);
export const BOTH_ON = cr0(
  'SMMUEN=EVENTQEN=1',
  { smmuen: true, eventqen: true },
  ({ model }) => !model.smmuEnabled && !model.eventqEnabled,
);
/** As a kdump kernel does it. */
export const KDUMP = cr0(
  'EVENTQEN=0 SMMUEN=1',
  { smmuen: true, eventqen: false },
  ({ model }) => !model.smmuEnabled && model.eventqEnabled,
);
export const GBPA = [
  event('GBPA abort', { action: 'gbpa', args: { to: 'abort' } }, ({ model }) => !model.gbpaAbort),
  event('GBPA bypass', { action: 'gbpa', args: { to: 'bypass' } }, ({ model }) => model.gbpaAbort),
];
export const RESET = [
  event('reset', { action: 'reset', args: {} }),
  event('set up', { action: 'setup', args: {} }, (world) => !isSetUp(world)),
];
export const moveEventq = (log2: number, place: number): Event =>
  event(
    `event queue of ${2 ** log2}`,
    { action: 'move-eventq', args: { log2, place } },
    (world) => isSetUp(world) && !world.model.eventqEnabled && world.model.eventqLog2 !== log2,
  );
export const moveStrtab = (table: number): Event =>
  event(
    `stream table ${table}`,
    { action: 'move-strtab', args: { table } },
    (world) => isSetUp(world) && !world.model.smmuEnabled && world.model.streamTable !== table,
  );
export const ste = (device: WorldDevice, is: SteChoice, space = 0): Event =>
  event(`STE ${device.name} ${is}${is === 'translate' ? ` ${space}` : ''}`, {
    action: 'ste',
    args: { device: device.name, is, space },
  });
export const cfgi = (device?: WorldDevice): Event =>
  event(
    device === undefined ? 'CFGI_ALL' : `CFGI_STE ${device.name}`,
    { action: 'cfgi', args: device === undefined ? {} : { device: device.name } },
    isSetUp,
  );
/** CMD_CFGI_STE_RANGE that is of all devices in their first places. */
export const cfgiRange = (device: WorldDevice): Event =>
  event(`CFGI_STE_RANGE ${device.name}`, { action: 'cfgi', args: { device: device.name, log2: 5 } }, isSetUp);
/** Has the CD of an address space use the page tables of another. */
export const cd = (space: number, root: number): Event =>
  event(
    `CD ${space}: root ${root}`,
    { action: 'cd', args: { space, root } },
    ({ model }) => model.rootOf(space) !== root,
  );
export const SYNC = event('SYNC', { action: 'sync', args: {} }, isSetUp);
export const move = (device: WorldDevice, i: number, at: string): Event =>
  event(
    `${device.name} at ${at}`,
    { action: 'move', args: { device: device.name, at } },
    ({ model }) => model.devices[i].plugged && model.devices[i].sid !== requesterId(at),
  );
export const page = (space: number, frame: number | undefined): Event =>
  event(`page ${space}: ${frame ?? 'nothing'}`, {
    action: 'page',
    args: { space, ...(frame !== undefined && { frame }) },
  });
export const cfgiCd = (device: WorldDevice): Event =>
  event(`CFGI_CD ${device.name}`, { action: 'cfgi-cd', args: { device: device.name } }, isSetUp);
export const cfgiCdAll = (device: WorldDevice): Event =>
  event(
    `CFGI_CD_ALL ${device.name}`,
    { action: 'cfgi-cd', args: { device: device.name, all: true } },
    isSetUp,
  );
export const tlbiVa = (space?: number, range = false): Event =>
  event(
    `TLBI_NH_VA${space === undefined ? 'A' : ` ${space}`}${range ? ' range' : ''}`,
    { action: 'tlbi-va', args: { range, ...(space !== undefined && { space }) } },
    isSetUp,
  );
export const tlbi = (space?: number): Event =>
  event(
    space === undefined ? 'TLBI_NSNH_ALL' : `TLBI_NH_ASID ${space}`,
    { action: 'tlbi', args: space === undefined ? {} : { space } },
    isSetUp,
  );

/** As an operating system unmaps a page: the descriptor, TLBI_NH_ASID, CMD_SYNC. */
export const unmap = (space: number): Event => ({
  name: `unmap ${space}`,
  enabled: (world) => isSetUp(world) && world.model.isMapped(space),
  first: [
    { action: 'page', args: { space } },
    { action: 'tlbi', args: { space } },
  ],
  action: () => ({ action: 'sync', args: {} }),
});
/** DMA while it is certain what the guest should hear of it. */
export const dma = (device: WorldDevice, i: number, iova: number): Event =>
  event(
    `DMA ${device.name} ${iova === BARE_PAGE ? 'page' : 'hole'}`,
    { action: 'dma', args: { device: device.name, read: BigInt(iova), bytes: 8 } },
    ({ model, machine }) =>
      model.devices[i].plugged &&
      model.smmuEnabled &&
      machine.state.failures.size === 0 &&
      model.certainSte(model.devices[i]) !== undefined,
  );
export const TAKE = [
  event('take 1', { action: 'take', args: { count: 1 } }, ({ guest }) => guest.pendingEvents().length > 1),
  event(
    'take',
    { action: 'take', args: {} },
    (world) => world.guest.pendingEvents().length > 0 || world.overflow,
  ),
];
export const DELIVER = event('deliver', { action: 'deliver', args: {} }, ({ host }) => host.tasks.length > 0);
/** The host takes a device back: it asks, and gets it when its task has run. */
export const remove = (device: WorldDevice, i: number): Event =>
  event(
    `the host wants ${device.name}`,
    { action: 'remove', args: { device: device.name } },
    ({ model }) => model.devices[i].plugged && !model.devices[i].leaving,
  );
export const MIGRATE = event(
  'migrate',
  { action: 'migrate', args: {} },
  ({ model, machine, retries }) =>
    machine.state.failures.size === 0 &&
    retries.length === 0 &&
    model.devices.every(({ leaving }) => !leaving),
);
export const RETRY = event('retry', { action: 'retry', args: {} }, ({ retries }) => retries.length > 0);
