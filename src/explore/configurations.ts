/** Small machines to explore, each with what can happen to it. */

import { BARE_HOLE, BARE_PAGE, type SteChoice } from '../guest/bare-guest.ts';
import { requesterId } from '../machine/pci-address.ts';
import type { Action, World, WorldDevice } from './world.ts';

/** Something that can happen, one atomic step. */
export interface Event {
  readonly name: string;
  /** Whether it can happen now; without this always. What would change nothing is left out. */
  readonly enabled: (world: World) => boolean;
  /** The step, or undefined for one that only the driver's program knows. */
  readonly action: (world: World) => Action | undefined;
  /** What it does to the place in the driver's program. */
  readonly program?: 'next' | 'restart';
}

export interface Configuration {
  readonly name: string;
  readonly about: string;
  readonly devices: readonly WorldDevice[];
  /** Steps before the first state. */
  readonly start: readonly Action[];
  readonly events: readonly Event[];
  /** What the guest does in this order, if there is an event with `program`. */
  readonly program: readonly Action[];
  /** Calls to the host that may fail in one schedule. */
  readonly failures: number;
  /** Steps to which it is explored unless told otherwise. */
  readonly depth: number;
}

const NIC0: WorldDevice = { name: 'nic0', at: '00:01.0' };
const NIC1: WorldDevice = { name: 'nic1', at: '00:02.0' };
/** A place that no device has in the beginning. */
const SPARE = '00:03.0';

const event = (name: string, action: Action, enabled: (world: World) => boolean = () => true): Event => ({
  name,
  enabled,
  action: () => action,
});

const isSetUp = ({ model }: World): boolean => model.isSetUp;
const isPlugged =
  (i: number) =>
  ({ model }: World): boolean =>
    model.devices[i].plugged;

const cr0 = (
  name: string,
  args: Extract<Action, { action: 'cr0' }>['args'],
  enabled: (world: World) => boolean,
): Event => event(name, { action: 'cr0', args }, (world) => isSetUp(world) && enabled(world));

const plug = (device: WorldDevice, i: number): Event =>
  event(
    `plug ${device.name}`,
    { action: 'plug', args: { device: device.name } },
    (world) => !isPlugged(i)(world),
  );
const unplug = (device: WorldDevice, i: number): Event =>
  event(`unplug ${device.name}`, { action: 'unplug', args: { device: device.name } }, isPlugged(i));

const EVENTQEN = [
  cr0('EVENTQEN=1', { eventqen: true }, ({ model }) => !model.eventqEnabled),
  cr0('EVENTQEN=0', { eventqen: false }, ({ model }) => model.eventqEnabled),
];
const SMMUEN = [
  cr0('SMMUEN=1', { smmuen: true }, ({ model }) => !model.smmuEnabled),
  cr0('SMMUEN=0', { smmuen: false }, ({ model }) => model.smmuEnabled),
];
const BOTH_OFF = cr0(
  'CR0=0',
  { smmuen: false, eventqen: false, cmdqen: false },
  ({ model }) => model.smmuEnabled || model.eventqEnabled,
);
const BOTH_ON = cr0(
  'SMMUEN=EVENTQEN=1',
  { smmuen: true, eventqen: true },
  ({ model }) => !model.smmuEnabled && !model.eventqEnabled,
);
/** As a kdump kernel does it. */
const KDUMP = cr0(
  'EVENTQEN=0 SMMUEN=1',
  { smmuen: true, eventqen: false },
  ({ model }) => !model.smmuEnabled && model.eventqEnabled,
);
const GBPA = [
  event('GBPA abort', { action: 'gbpa', args: { to: 'abort' } }, ({ model }) => !model.gbpaAbort),
  event('GBPA bypass', { action: 'gbpa', args: { to: 'bypass' } }, ({ model }) => model.gbpaAbort),
];
const RESET = [
  event('reset', { action: 'reset', args: {} }),
  event('set up', { action: 'setup', args: {} }, (world) => !isSetUp(world)),
];
const moveEventq = (log2: number, place: number): Event =>
  event(
    `event queue of ${2 ** log2}`,
    { action: 'move-eventq', args: { log2, place } },
    (world) => isSetUp(world) && !world.model.eventqEnabled && world.model.eventqLog2 !== log2,
  );
const moveStrtab = (table: number): Event =>
  event(
    `stream table ${table}`,
    { action: 'move-strtab', args: { table } },
    (world) => isSetUp(world) && !world.model.smmuEnabled && world.model.streamTable !== table,
  );
const ste = (device: WorldDevice, is: SteChoice, space = 0): Event =>
  event(`STE ${device.name} ${is}${is === 'translate' ? ` ${space}` : ''}`, {
    action: 'ste',
    args: { device: device.name, is, space },
  });
const cfgi = (device?: WorldDevice): Event =>
  event(
    device === undefined ? 'CFGI_ALL' : `CFGI_STE ${device.name}`,
    { action: 'cfgi', args: device === undefined ? {} : { device: device.name } },
    isSetUp,
  );
const SYNC = event('SYNC', { action: 'sync', args: {} }, isSetUp);
const move = (device: WorldDevice, i: number, at: string): Event =>
  event(
    `${device.name} at ${at}`,
    { action: 'move', args: { device: device.name, at } },
    ({ model }) => model.devices[i].plugged && model.devices[i].sid !== requesterId(at),
  );
const page = (space: number, frame: number | undefined): Event =>
  event(`page ${space}: ${frame ?? 'nothing'}`, {
    action: 'page',
    args: { space, ...(frame !== undefined && { frame }) },
  });
const cfgiCd = (device: WorldDevice): Event =>
  event(`CFGI_CD ${device.name}`, { action: 'cfgi-cd', args: { device: device.name } }, isSetUp);
const cfgiCdAll = (device: WorldDevice): Event =>
  event(
    `CFGI_CD_ALL ${device.name}`,
    { action: 'cfgi-cd', args: { device: device.name, all: true } },
    isSetUp,
  );
const tlbiVa = (space?: number, range = false): Event =>
  event(
    `TLBI_NH_VA${space === undefined ? 'A' : ` ${space}`}${range ? ' range' : ''}`,
    { action: 'tlbi-va', args: { range, ...(space !== undefined && { space }) } },
    isSetUp,
  );
const tlbi = (space?: number): Event =>
  event(
    space === undefined ? 'TLBI_NSNH_ALL' : `TLBI_NH_ASID ${space}`,
    { action: 'tlbi', args: space === undefined ? {} : { space } },
    isSetUp,
  );

/** DMA while it is certain what the guest should hear of it. */
const dma = (device: WorldDevice, i: number, iova: number): Event =>
  event(
    `DMA ${device.name} ${iova === BARE_PAGE ? 'page' : 'hole'}`,
    { action: 'dma', args: { device: device.name, read: BigInt(iova), bytes: 8 } },
    ({ model, machine }) =>
      model.devices[i].plugged &&
      model.smmuEnabled &&
      machine.state.failures.size === 0 &&
      model.certainSte(model.devices[i]) !== undefined,
  );
const TAKE = [
  event('take 1', { action: 'take', args: { count: 1 } }, ({ guest }) => guest.pendingEvents().length > 1),
  event(
    'take',
    { action: 'take', args: {} },
    (world) => world.guest.pendingEvents().length > 0 || world.overflow,
  ),
];
const DELIVER = event('deliver', { action: 'deliver', args: {} }, ({ host }) => host.tasks.length > 0);
/** The host takes a device back: it asks, and gets it when its task has run. */
const remove = (device: WorldDevice, i: number): Event =>
  event(
    `the host wants ${device.name}`,
    { action: 'remove', args: { device: device.name } },
    ({ model }) => model.devices[i].plugged && !model.devices[i].leaving,
  );
const MIGRATE = event(
  'migrate',
  { action: 'migrate', args: {} },
  ({ model, machine, retries }) =>
    machine.state.failures.size === 0 &&
    retries.length === 0 &&
    model.devices.every(({ leaving }) => !leaving),
);
const RETRY = event('retry', { action: 'retry', args: {} }, ({ retries }) => retries.length > 0);

const START: readonly Action[] = [{ action: 'setup', args: {} }];
const steStep = (device: WorldDevice, space: number): Action => ({
  action: 'ste',
  args: { device: device.name, is: 'translate', space },
});
const FAULT_DELIVERED: readonly Action[] = [
  { action: 'dma', args: { device: NIC0.name, read: BigInt(BARE_HOLE), bytes: 8 } },
  { action: 'deliver', args: {} },
];
/** A device reads the page, so that its translation is cached. */
const dmaStep = (device: WorldDevice): Action => ({
  action: 'dma',
  args: { device: device.name, read: BigInt(BARE_PAGE), bytes: 8 },
});
const plugStep = (device: WorldDevice): Action => ({ action: 'plug', args: { device: device.name } });

/** What Linux does: reset, queues and tables, invalidation, event queue, translation, and a domain for each device. */
const LINUX: readonly Action[] = [
  { action: 'gbpa', args: { to: 'abort' } },
  { action: 'cr0', args: { smmuen: false, eventqen: false, cmdqen: false } },
  { action: 'setup', args: {} },
  { action: 'cfgi', args: {} },
  { action: 'sync', args: {} },
  { action: 'tlbi', args: {} },
  { action: 'sync', args: {} },
  { action: 'move-eventq', args: { log2: 1, place: 1 } },
  { action: 'cr0', args: { eventqen: true } },
  { action: 'cr0', args: { smmuen: true } },
  steStep(NIC0, 0),
  { action: 'cfgi', args: { device: NIC0.name } },
  { action: 'sync', args: {} },
  steStep(NIC1, 1),
  { action: 'cfgi', args: { device: NIC1.name } },
  { action: 'sync', args: {} },
];

const BASE = { program: [], failures: 0, start: START } as const;

/** In the order in which they are explored. */
export const CONFIGURATIONS: readonly Configuration[] = [
  {
    ...BASE,
    name: 'queue',
    about: 'one device: plug, EVENTQEN, queue sizes, faults, their delivery, reset',
    devices: [NIC0],
    start: [...START, steStep(NIC0, 0), { action: 'cr0', args: { smmuen: true } }],
    events: [
      plug(NIC0, 0),
      unplug(NIC0, 0),
      ...EVENTQEN,
      moveEventq(0, 0),
      moveEventq(1, 1),
      dma(NIC0, 0, BARE_HOLE),
      DELIVER,
      ...TAKE,
      ste(NIC0, 'invalid'),
      ste(NIC0, 'translate', 0),
      cfgi(NIC0),
      ...SMMUEN,
      ...RESET,
    ],
    depth: 8,
  },
  {
    ...BASE,
    name: 'streams',
    about: 'one device: STEs of every kind, CFGI, SMMUEN, GBPA, stream tables, another StreamID',
    devices: [NIC0],
    events: [
      plug(NIC0, 0),
      unplug(NIC0, 0),
      ...SMMUEN,
      ...GBPA,
      ste(NIC0, 'abort'),
      ste(NIC0, 'bypass'),
      ste(NIC0, 'invalid'),
      ste(NIC0, 'translate', 0),
      ste(NIC0, 'translate', 1),
      cfgi(NIC0),
      cfgi(),
      moveStrtab(0),
      moveStrtab(1),
      move(NIC0, 0, SPARE),
      move(NIC0, 0, NIC0.at),
      ...RESET,
    ],
    depth: 7,
  },
  {
    ...BASE,
    name: 'pair',
    about: 'two devices: plug, EVENTQEN, SMMUEN, GBPA, STEs, faults of both',
    devices: [NIC0, NIC1],
    events: [
      plug(NIC0, 0),
      plug(NIC1, 1),
      unplug(NIC0, 0),
      unplug(NIC1, 1),
      ...EVENTQEN,
      ...SMMUEN,
      ...GBPA,
      ste(NIC0, 'translate', 0),
      ste(NIC0, 'bypass'),
      ste(NIC1, 'translate', 0),
      ste(NIC1, 'translate', 1),
      cfgi(NIC0),
      cfgi(NIC1),
      cfgi(),
      dma(NIC0, 0, BARE_HOLE),
      dma(NIC1, 1, BARE_HOLE),
      DELIVER,
      ...TAKE,
      ...RESET,
    ],
    depth: 6,
  },
  {
    ...BASE,
    name: 'storm',
    about:
      'two devices that fault behind a guest that is full, and room for one more: delivery, unplug, EVENTQEN',
    devices: [NIC0, NIC1],
    start: [
      ...START,
      { action: 'move-eventq', args: { log2: 0, place: 0 } },
      steStep(NIC0, 0),
      steStep(NIC1, 1),
      plugStep(NIC0),
      plugStep(NIC1),
      { action: 'cr0', args: { smmuen: true, eventqen: true } },
      // One in the guest's queue, three of the four that may wait.
      ...Array.from({ length: 4 }, () => FAULT_DELIVERED).flat(),
    ],
    events: [
      dma(NIC0, 0, BARE_HOLE),
      dma(NIC1, 1, BARE_HOLE),
      DELIVER,
      ...TAKE,
      plug(NIC1, 1),
      unplug(NIC0, 0),
      unplug(NIC1, 1),
      ...EVENTQEN,
    ],
    depth: 8,
  },
  {
    ...BASE,
    name: 'caches',
    about:
      'one device that translates: pages and STEs change, with and without invalidation, resets, and calls that fail',
    devices: [NIC0],
    start: [
      ...START,
      steStep(NIC0, 0),
      plugStep(NIC0),
      { action: 'cr0', args: { smmuen: true } },
      dmaStep(NIC0),
    ],
    events: [
      dma(NIC0, 0, BARE_PAGE),
      page(0, undefined),
      page(0, 3),
      ste(NIC0, 'translate', 1),
      ste(NIC0, 'translate', 0),
      cfgi(NIC0),
      tlbi(0),
      SYNC,
      unplug(NIC0, 0),
      plug(NIC0, 0),
      RETRY,
      ...SMMUEN,
      ...RESET,
    ],
    failures: 1,
    depth: 5,
  },
  {
    ...BASE,
    name: 'commands',
    about: 'two devices that translate: every kind of invalidation, alone and together, and calls that fail',
    devices: [NIC0, NIC1],
    start: [
      ...START,
      steStep(NIC0, 0),
      steStep(NIC1, 1),
      plugStep(NIC0),
      plugStep(NIC1),
      { action: 'cr0', args: { smmuen: true } },
      dmaStep(NIC0),
      dmaStep(NIC1),
      // Its CD is cached, and another one now.
      { action: 'cd', args: { space: 1, root: 2 } },
    ],
    events: [
      dma(NIC0, 0, BARE_PAGE),
      dma(NIC1, 1, BARE_PAGE),
      page(0, undefined),
      page(1, 3),
      cfgiCd(NIC1),
      cfgiCdAll(NIC1),
      tlbi(0),
      tlbi(1),
      tlbi(),
      tlbiVa(0),
      tlbiVa(1, true),
      tlbiVa(),
      SYNC,
      RETRY,
    ],
    failures: 2,
    depth: 5,
  },
  {
    ...BASE,
    name: 'buses',
    about:
      'two devices that translate: other StreamIDs, one twice, the host takes a device back, a migration',
    devices: [NIC0, NIC1],
    start: [
      ...START,
      steStep(NIC0, 0),
      steStep(NIC1, 1),
      { action: 'cr0', args: { smmuen: true, eventqen: true } },
      plugStep(NIC0),
      plugStep(NIC1),
    ],
    events: [
      move(NIC0, 0, NIC0.at),
      move(NIC0, 0, NIC1.at),
      move(NIC0, 0, SPARE),
      move(NIC1, 1, NIC1.at),
      move(NIC1, 1, NIC0.at),
      plug(NIC0, 0),
      unplug(NIC0, 0),
      plug(NIC1, 1),
      unplug(NIC1, 1),
      remove(NIC0, 0),
      MIGRATE,
      dma(NIC0, 0, BARE_HOLE),
      dma(NIC1, 1, BARE_HOLE),
      DELIVER,
      ...TAKE,
      ste(NIC0, 'bypass'),
      cfgi(),
      ...EVENTQEN,
    ],
    depth: 6,
  },
  {
    ...BASE,
    name: 'race',
    about: 'two devices that do DMA before and after every single call to the host, of which one may fail',
    devices: [NIC0, NIC1],
    start: [
      ...START,
      { action: 'race', args: {} },
      steStep(NIC0, 0),
      steStep(NIC1, 1),
      { action: 'cr0', args: { smmuen: true } },
      plugStep(NIC0),
    ],
    events: [
      plug(NIC0, 0),
      unplug(NIC0, 0),
      plug(NIC1, 1),
      unplug(NIC1, 1),
      ste(NIC0, 'translate', 1),
      ste(NIC0, 'bypass'),
      ste(NIC0, 'abort'),
      cfgi(NIC0),
      cfgi(),
      page(0, undefined),
      tlbi(0),
      SYNC,
      ...SMMUEN,
      ...GBPA,
      move(NIC0, 0, SPARE),
      move(NIC1, 1, NIC0.at),
      ...RESET,
      RETRY,
    ],
    failures: 1,
    depth: 5,
  },
  {
    ...BASE,
    name: 'driver',
    about:
      'two devices under what Linux does, step by step, with plug, unplug, faults, kexec and reset anywhere',
    devices: [NIC0, NIC1],
    start: [],
    program: LINUX,
    events: [
      { name: 'driver', enabled: () => true, action: () => undefined, program: 'next' },
      { name: 'kexec', enabled: () => true, action: () => undefined, program: 'restart' },
      plug(NIC0, 0),
      plug(NIC1, 1),
      unplug(NIC0, 0),
      unplug(NIC1, 1),
      dma(NIC0, 0, BARE_HOLE),
      dma(NIC1, 1, BARE_HOLE),
      DELIVER,
      ...TAKE,
      event('reset', { action: 'reset', args: {} }),
    ],
    depth: 20,
  },
  {
    ...BASE,
    name: 'failures',
    about: 'two devices, and any call to the host may fail, twice',
    devices: [NIC0, NIC1],
    start: [...START, steStep(NIC0, 0), steStep(NIC1, 1)],
    events: [
      plug(NIC0, 0),
      plug(NIC1, 1),
      unplug(NIC0, 0),
      unplug(NIC1, 1),
      BOTH_ON,
      BOTH_OFF,
      KDUMP,
      ...EVENTQEN,
      ste(NIC0, 'bypass'),
      ste(NIC0, 'translate', 1),
      cfgi(NIC0),
      RETRY,
      ...RESET,
    ],
    failures: 2,
    depth: 4,
  },
];
