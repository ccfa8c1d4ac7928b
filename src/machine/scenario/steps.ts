/** The actions that a scenario file can ask for: one table, from which files are checked and the docs are read. */

import * as v from 'valibot';
import { parseU64 } from '../../bits/u64.ts';
import {
  BARE_FRAMES,
  BARE_SPACES,
  BARE_STREAM_TABLES,
  MAX_BARE_EVENTQ_LOG2,
} from '../../guest/bare-guest.ts';
import { ERRNO, type ErrnoName } from '../../iommufd/uapi/errno.ts';

/** A 64-bit number: a YAML integer (`0x1000`), or text where underscores help (`"0x8000_0000"`). */
const u64 = v.pipe(
  v.union([v.bigint(), v.string()], 'a number, such as 0x1000, is expected'),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const value = typeof dataset.value === 'bigint' ? dataset.value : parseU64(dataset.value);
    if (value === undefined || value < 0n || value >= 1n << 64n) {
      addIssue({ message: 'a number from 0 to 2^64 - 1 is expected' });
      return NEVER;
    }
    return value;
  }),
);

const integer = (min: number, max: number) =>
  v.pipe(
    v.bigint('a whole number is expected'),
    v.check((n) => n >= BigInt(min) && n <= BigInt(max), `a number from ${min} to ${max} is expected`),
    v.transform(Number),
  );

const text = v.string('text is expected');
const flag = v.boolean('true or false is expected');
const device = v.pipe(text, v.nonEmpty('the name of a device is expected'));
const pciAddress = v.pipe(
  text,
  v.regex(/^[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/, 'a PCI address such as "01:00.0" is expected'),
);
const oneOf = <const T extends readonly string[]>(...names: T) =>
  v.picklist(names, `one of ${names.join(', ')} is expected`);

const onOffAuto = v.pipe(
  v.union([v.picklist(['on', 'off', 'auto']), v.boolean()], 'on, off or auto is expected'),
  v.transform((value) => (typeof value === 'boolean' ? (value ? 'on' : 'off') : value)),
);

/** An event as the guest's driver read it; only what is given is compared. */
export const expectedEvent = v.strictObject({
  type: text,
  device: v.optional(device),
  iova: v.optional(u64),
  access: v.optional(oneOf('read', 'write')),
  stage: v.optional(integer(1, 2)),
  ssid: v.optional(integer(0, 0xf_ffff)),
  /** The transaction waits for CMD_RESUME. */
  stall: v.optional(flag),
});
export type ExpectedEvent = v.InferOutput<typeof expectedEvent>;

const probe = v.strictObject({
  kdump: v.optional(flag, false),
  /** log2 of the number of event queue entries. */
  eventq: v.optional(integer(0, 19)),
});
const dma = v.strictObject({
  device,
  write: v.optional(u64),
  read: v.optional(u64),
  bytes: v.optional(integer(1, 1 << 20), 64n),
  expect: v.optional(oneOf('ok', 'abort', 'wait')),
});
const expectation = v.strictObject({
  eventqen: v.optional(flag),
  viommu: v.optional(flag),
  /** `none`, or the depth of the vEVENTQ. */
  veventq: v.optional(v.union([v.literal('none'), integer(1, 1 << 19)], '"none" or a depth is expected')),
  /** All events that the guest has read since the last `expect` with `events`, in order. */
  events: v.optional(v.array(expectedEvent)),
  attached: v.optional(v.record(text, oneOf('translate', 'bypass', 'abort', 'none'))),
  /** Host objects that exist, by kind; kinds that are not named are not compared. */
  objects: v.optional(v.record(text, integer(0, 1 << 20))),
  /** Faults that wait for the guest's answer. */
  waiting: v.optional(integer(0, 1 << 20)),
  /** ioctls since the last `expect` with `ioctls`. */
  ioctls: v.optional(integer(0, 1 << 30)),
  /** The properties as the guest sees them. */
  smmu: v.optional(
    v.strictObject({
      ril: v.optional(onOffAuto),
      ats: v.optional(onOffAuto),
      oas: v.optional(integer(32, 52)),
      ssidsize: v.optional(integer(0, 20)),
      stall: v.optional(onOffAuto),
      pri: v.optional(onOffAuto),
    }),
  ),
  overflow: v.optional(flag),
  warnings: v.optional(integer(0, 1 << 20)),
  /** Real guest only: text that must be in the guest kernel's log, or a regular expression between slashes. */
  dmesg: v.optional(text),
});
export type Expectation = v.InferOutput<typeof expectation>;

/** What each action takes. `short` names the field that stands alone: `plug: nic0` is `plug: { device: nic0 }`. */
export const STEPS = {
  plug: {
    about: 'plugs a device, cold if the guest is not running yet',
    guest: 'any',
    short: 'device',
    schema: v.strictObject({ device }),
  },
  unplug: { about: 'takes a device away', guest: 'any', short: 'device', schema: v.strictObject({ device }) },
  reset: { about: 'system reset', guest: 'embedded', short: undefined, schema: v.strictObject({}) },
  probe: { about: "loads the guest's SMMU driver", guest: 'reference', short: undefined, schema: probe },
  shutdown: {
    about: "shuts the guest's driver down, as before a kexec",
    guest: 'reference',
    short: undefined,
    schema: v.strictObject({}),
  },
  eventq: {
    about: 'sets CR0.EVENTQEN by hand',
    guest: 'reference',
    short: 'on',
    schema: v.strictObject({ on: flag }),
  },
  attach: {
    about: 'gives a device its own translated domain (STE.Config = stage 1)',
    guest: 'reference',
    short: 'device',
    schema: v.strictObject({ device }),
  },
  bypass: {
    about: 'puts a device in the identity domain (STE.Config = bypass)',
    guest: 'reference',
    short: 'device',
    schema: v.strictObject({ device }),
  },
  detach: {
    about: 'takes a device out of its domain (STE.Config = abort)',
    guest: 'reference',
    short: 'device',
    schema: v.strictObject({ device }),
  },
  map: {
    about: 'maps fresh guest memory in the domain of a device',
    guest: 'reference',
    short: undefined,
    schema: v.strictObject({
      device,
      iova: u64,
      size: v.optional(u64, 0x1000n),
      access: v.optional(oneOf('rw', 'r', 'w'), 'rw'),
    }),
  },
  unmap: {
    about: 'unmaps it again, with the invalidation',
    guest: 'reference',
    short: undefined,
    schema: v.strictObject({ device, iova: u64, size: v.optional(u64, 0x1000n) }),
  },
  'on-fault': {
    about: 'says what the driver does with faults that wait for its answer',
    guest: 'reference',
    short: 'do',
    schema: v.strictObject({ do: oneOf('map', 'abort', 'wait') }),
  },
  answer: {
    about: 'answers all that waits of a device',
    guest: 'reference',
    short: undefined,
    schema: v.strictObject({ device, with: oneOf('retry', 'abort') }),
  },
  explain: {
    about: "shows the way of an access through the guest's tables, and what stops it",
    guest: 'reference',
    short: undefined,
    schema: v.strictObject({
      device,
      iova: u64,
      access: v.optional(oneOf('r', 'w', 'x'), 'r'),
      ssid: v.optional(integer(0, 0xf_ffff)),
      /** The field that is expected to stop it, such as `AF` or `STE.V`; or `none`. */
      cause: v.optional(text),
    }),
  },
  setup: {
    about: 'points the SMMU at its queues and a stream table, enables the command queue and interrupts',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({}),
  },
  cr0: {
    about: 'changes bits of CR0, all in one write',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({
      smmuen: v.optional(flag),
      eventqen: v.optional(flag),
      cmdqen: v.optional(flag),
    }),
  },
  gbpa: {
    about: 'says what becomes of DMA while SMMUEN=0',
    guest: 'bare',
    short: 'to',
    schema: v.strictObject({ to: oneOf('abort', 'bypass') }),
  },
  'move-eventq': {
    about: 'gives the event queue another size or place, empty; EVENTQEN must be 0',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({
      log2: integer(0, MAX_BARE_EVENTQ_LOG2),
      place: v.optional(integer(0, 1), 0n),
    }),
  },
  'move-strtab': {
    about: 'points the SMMU at one of two stream tables; SMMUEN must be 0',
    guest: 'bare',
    short: 'table',
    schema: v.strictObject({ table: integer(0, BARE_STREAM_TABLES - 1) }),
  },
  ste: {
    about: 'stores the STE of a device, and no more',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({
      device,
      is: oneOf('abort', 'bypass', 'translate', 'invalid'),
      space: v.optional(integer(0, BARE_SPACES - 1), 0n),
    }),
  },
  cd: {
    about: 'has the CD of an address space use the page tables of another, and no more',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({ space: integer(0, BARE_SPACES - 1), root: integer(0, BARE_SPACES - 1) }),
  },
  page: {
    about: 'maps the page of an address space to a frame, or to nothing, and no more',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({
      space: integer(0, BARE_SPACES - 1),
      frame: v.optional(integer(0, BARE_FRAMES - 1)),
    }),
  },
  cfgi: {
    about: 'issues CMD_CFGI_STE or CMD_CFGI_STE_RANGE for a device, or CMD_CFGI_ALL',
    guest: 'bare',
    short: 'device',
    schema: v.strictObject({ device: v.optional(device), log2: v.optional(integer(1, 31)) }),
  },
  'cfgi-cd': {
    about: 'issues CMD_CFGI_CD for a device, or CMD_CFGI_CD_ALL',
    guest: 'bare',
    short: 'device',
    schema: v.strictObject({ device, all: v.optional(flag) }),
  },
  tlbi: {
    about: 'issues CMD_TLBI_NH_ASID for an address space, or CMD_TLBI_NSNH_ALL',
    guest: 'bare',
    short: 'space',
    schema: v.strictObject({ space: v.optional(integer(0, BARE_SPACES - 1)) }),
  },
  'tlbi-va': {
    about: 'issues CMD_TLBI_NH_VA for the page of an address space, or CMD_TLBI_NH_VAA',
    guest: 'bare',
    short: 'space',
    schema: v.strictObject({
      space: v.optional(integer(0, BARE_SPACES - 1)),
      /** As a range that starts one page before. */
      range: v.optional(flag),
    }),
  },
  sync: { about: 'issues CMD_SYNC', guest: 'bare', short: undefined, schema: v.strictObject({}) },
  take: {
    about: 'the guest reads events and moves CONS',
    guest: 'bare',
    short: 'count',
    schema: v.strictObject({ count: v.optional(integer(1, 1 << 19)) }),
  },
  deliver: {
    about: 'lets the oldest task of the host run, such as the callback of a readable vEVENTQ',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({}),
  },
  retry: {
    about: 'lets the time pass after which what the host refused is tried again',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({}),
  },
  move: {
    about: 'the guest gives a device another place on its buses, and so another StreamID',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({ device, at: pciAddress }),
  },
  remove: {
    about: 'the host asks for a device back, and has it when the machine lets go of it',
    guest: 'bare',
    short: 'device',
    schema: v.strictObject({ device }),
  },
  race: {
    about:
      'from now on every device reads its page before and after each call to the host; no events are checked',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({}),
  },
  migrate: {
    about: 'saves the virtual SMMU, ends it, and goes on with it in a new one',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({}),
  },
  fail: {
    about: 'has the nth ioctl of a kind fail, counted within the next step',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({
      ioctl: v.pipe(text, v.nonEmpty('the name of an ioctl is expected')),
      errno: v.optional(v.picklist(Object.keys(ERRNO) as ErrnoName[], 'an errno is expected'), 'EIO'),
      nth: v.optional(integer(1, 1 << 20), 1n),
    }),
  },
  check: {
    about: 'checks all that must hold; devices are used and taken away, so it is the last step',
    guest: 'bare',
    short: undefined,
    schema: v.strictObject({}),
  },
  dma: { about: 'has the device read or write at an IOVA', guest: 'any', short: undefined, schema: dma },
  snapshot: {
    about: 'takes a snapshot of the virtual SMMU, which goes on',
    guest: 'reference',
    short: undefined,
    schema: v.strictObject({}),
  },
  restore: {
    about: 'ends the machine, and lets the guest go on with the snapshot on a fresh host',
    guest: 'reference',
    short: undefined,
    schema: v.strictObject({}),
  },
  boot: { about: 'starts the guest kernel', guest: 'qemu', short: undefined, schema: v.strictObject({}) },
  reboot: { about: 'restarts the guest kernel', guest: 'qemu', short: undefined, schema: v.strictObject({}) },
  run: {
    about: 'runs a shell command in the guest',
    guest: 'qemu',
    short: 'command',
    schema: v.strictObject({
      command: text,
      status: v.optional(integer(0, 255), 0n),
      output: v.optional(text),
    }),
  },
  storage: {
    about:
      'writes random data to an NVMe device in the guest, reads it back past the cache and compares checksums',
    guest: 'qemu',
    short: 'device',
    schema: v.strictObject({ device, mib: v.optional(integer(1, 4096), 64n) }),
  },
  expect: {
    about: 'compares what is with what should be',
    guest: 'any',
    short: undefined,
    schema: expectation,
  },
} as const satisfies Record<string, StepRule>;

export type ScenarioGuest = 'reference' | 'bare' | 'qemu';

interface StepRule {
  readonly about: string;
  /** Which guests can do it; `embedded` is reference and bare. */
  readonly guest: 'any' | 'embedded' | ScenarioGuest;
  readonly short: string | undefined;
  readonly schema: v.GenericSchema;
}

export type StepName = keyof typeof STEPS;

/** One step of a scenario: an action, what it takes, and where it stands in the file. */
export type Step = {
  [Name in StepName]: {
    readonly action: Name;
    readonly args: v.InferOutput<(typeof STEPS)[Name]['schema']>;
    /** From 1. */
    readonly line: number;
  };
}[StepName];

const orAuto = (size: ReturnType<typeof integer>) =>
  v.union([v.literal('auto'), size], 'a number, or auto, is expected');

/** What the guest's SMMU is asked to be, under QEMU's names. */
export const SMMU_PROPERTIES = v.strictObject({
  /** As in QEMU; there is no vsmmu without. */
  accel: v.optional(
    v.pipe(
      onOffAuto,
      v.check((value) => value === 'on', 'on is expected: without accel QEMU needs no vsmmu'),
    ),
  ),
  ril: v.optional(onOffAuto),
  ats: v.optional(onOffAuto),
  oas: v.optional(orAuto(integer(32, 52))),
  ssidsize: v.optional(orAuto(integer(0, 20))),
  stall: v.optional(onOffAuto),
  pri: v.optional(onOffAuto),
});

/** The file around the steps. */
export const SCENARIO = v.strictObject({
  title: text,
  about: v.optional(text),
  guest: v.optional(oneOf('reference', 'bare', 'qemu'), 'reference'),
  host: v.optional(
    v.strictObject({ smmu: v.optional(oneOf('qemu', 'server', 'server-with-pri'), 'qemu') }),
    {},
  ),
  smmu: v.optional(SMMU_PROPERTIES, {}),
  devices: v.record(
    v.pipe(
      text,
      v.regex(/^[a-z][a-z0-9-]{0,30}$/, 'a name of lower-case letters, digits and dashes is expected'),
    ),
    v.strictObject({
      function: v.optional(oneOf('dma-tester', 'nvme'), 'dma-tester'),
      /** Where the guest sees it: bus:device.function, in hexadecimal. */
      at: v.optional(pciAddress),
      /** What it does where a page is missing, besides aborting: waits, or asks. For the embedded host. */
      faults: v.optional(oneOf('stall', 'page-request')),
    }),
  ),
  cases: v.pipe(
    v.array(v.strictObject({ title: text, steps: v.array(v.unknown()) })),
    v.minLength(1, 'at least one case is expected'),
  ),
});
