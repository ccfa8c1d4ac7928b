import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { Desired, GuestState } from '../../src/accel/desired.ts';
import { tripwire } from '../../src/accel/tripwire.ts';
import type { Configuration } from '../../src/explore/configuration.ts';
import { CONFIGURATIONS } from '../../src/explore/configurations.ts';
import { explore } from '../../src/explore/explorer.ts';
import type { Invariant } from '../../src/explore/problem.ts';
import { runBareScenario } from '../../src/explore/replay.ts';
import { scenarioText } from '../../src/explore/scenario-text.ts';
import { IOMMU_DESTROY, IOMMU_HWPT_INVALIDATE } from '../../src/iommufd/uapi/iommufd.ts';
import { VFIO_DEVICE_ATTACH_IOMMUFD_PT, VFIO_DEVICE_DETACH_IOMMUFD_PT } from '../../src/iommufd/uapi/vfio.ts';
import type { Machine, MachineOptions } from '../../src/machine/machine.ts';
import { parseScenario } from '../../src/machine/scenario/parse.ts';
import { INVALIDATE } from '../../src/smmu/ports.ts';

/** What is wrong with every machine that is made from now on; made anew for each, as its memory is that machine's. */
interface Mutant {
  /** Changes what should exist. */
  readonly desired?: () => (right: Desired, guest: GuestState) => Desired;
  readonly options?: (options: MachineOptions) => void;
  readonly machine?: (machine: Machine) => void;
}

const wrong = vi.hoisted(() => ({
  mutant: undefined as Mutant | undefined,
  desired: undefined as ((right: Desired, guest: GuestState) => Desired) | undefined,
}));

vi.mock('../../src/accel/desired.ts', async (load) => {
  const original = await load<typeof import('../../src/accel/desired.ts')>();
  const desired: typeof original.desired = (guest, ...others) => {
    const right = original.desired(guest, ...others);
    return wrong.desired === undefined ? right : wrong.desired(right, guest);
  };
  return { ...original, desired };
});

vi.mock('../../src/machine/machine.ts', async (load) => {
  const original = await load<typeof import('../../src/machine/machine.ts')>();
  class Mutated extends original.Machine {
    constructor(options: MachineOptions) {
      wrong.mutant?.options?.(options);
      super(options);
      wrong.desired = wrong.mutant?.desired?.();
      wrong.mutant?.machine?.(this);
    }
  }
  return { ...original, Machine: Mutated };
});

beforeEach(() => {
  wrong.mutant = undefined;
  wrong.desired = undefined;
});

/** @param only names of the events that are tried; all if undefined. */
function configuration(name: string, only?: readonly string[]): Configuration {
  const found = CONFIGURATIONS.find((one) => one.name === name)!;
  return { ...found, events: found.events.filter((event) => only?.includes(event.name) ?? true) };
}

/** Answers calls of one kind itself. */
function intercept(
  { kernel }: MachineOptions,
  request: number,
  answer: (arg: Uint8Array, go: () => number) => number,
): void {
  const ioctl = kernel.ioctl.bind(kernel);
  kernel.ioctl = (fd, number, arg) =>
    number === request ? answer(arg, () => ioctl(fd, number, arg)) : ioctl(fd, number, arg);
}

const MUTANTS: readonly {
  readonly name: string;
  readonly mutant: Mutant;
  readonly where: string;
  readonly only?: readonly string[];
  readonly schedule: readonly string[];
  readonly invariant: Invariant;
}[] = [
  {
    name: 'QEMU gap 1: the vEVENTQ stays as long as the vIOMMU',
    where: 'queue',
    schedule: ['plug nic0', 'EVENTQEN=1', 'EVENTQEN=0'],
    invariant: 'veventq',
    mutant: {
      desired: () => {
        let last: Desired | undefined;
        return (right) => {
          const veventq = (right.viommu && last?.viommu ? last.veventq : undefined) ?? right.veventq;
          return (last = { ...right, veventq });
        };
      },
    },
  },
  {
    name: 'QEMU gap 18: a change of SMMUEN installs nothing',
    where: 'streams',
    schedule: ['plug nic0', 'SMMUEN=1'],
    invariant: 'attachment',
    mutant: {
      desired: () => {
        let last: Desired | undefined;
        let enabled = false;
        return (right, { smmuEnabled }) => {
          const targets = new Map(last?.streams.map(({ name, target }) => [name, target]));
          const changed = smmuEnabled !== enabled;
          enabled = smmuEnabled;
          return (last = {
            ...right,
            streams: right.streams.map((stream) => ({
              ...stream,
              target: (changed ? targets.get(stream.name) : undefined) ?? stream.target,
            })),
          });
        };
      },
    },
  },
  {
    name: 'QEMU gap 20: the second device stays on stage 2, whatever GBPA and the STE say',
    where: 'pair',
    only: ['plug nic0', 'plug nic1', 'unplug nic0', 'GBPA abort', 'SMMUEN=1', 'EVENTQEN=1'],
    schedule: ['plug nic0', 'plug nic1', 'SMMUEN=1'],
    invariant: 'attachment',
    mutant: {
      desired: () => {
        const first = new Set<string>();
        return (right) => {
          const [stream] = right.streams;
          if (stream !== undefined) first.add(stream.name);
          const bypass = { kind: 'bypass', ste: [9, 0, 0, 0], key: 'bypass' } as const;
          return {
            ...right,
            streams: right.streams.map((one) => (first.has(one.name) ? one : { ...one, target: bypass })),
          };
        };
      },
    },
  },
  {
    name: 'QEMU gap 23: the vDEVICE keeps its first StreamID',
    where: 'streams',
    schedule: ['plug nic0', 'nic0 at 00:03.0'],
    invariant: 'attachment',
    mutant: {
      desired: () => {
        const first = new Map<string, number | undefined>();
        return (right) => ({
          ...right,
          streams: right.streams.map((stream) => {
            if (!first.has(stream.name)) first.set(stream.name, stream.vsid);
            return { ...stream, vsid: first.get(stream.name) };
          }),
        });
      },
    },
  },
  {
    name: 'QEMU gap 2: the vEVENTQ is there whether EVENTQEN or not',
    where: 'queue',
    schedule: ['plug nic0'],
    invariant: 'veventq',
    mutant: {
      desired: () => (right) => ({
        ...right,
        veventq: right.viommu ? { depth: 1, log2Size: 0, baseHi: 0, baseLo: 0 } : undefined,
      }),
    },
  },
  {
    name: 'nobody looks again when the guest has made room',
    where: 'queue',
    only: ['plug nic0', 'EVENTQEN=1', 'EVENTQEN=0', 'DMA nic0 hole', 'deliver', 'take', 'SMMUEN=0'],
    schedule: ['plug nic0', 'EVENTQEN=1', 'DMA nic0 hole', 'deliver', 'DMA nic0 hole'],
    invariant: 'events',
    mutant: {
      machine: ({ smmu, accelerator }) => {
        const changed = accelerator.eventQueueChanged.bind(accelerator);
        accelerator.eventQueueChanged = () => {
          if (smmu.eventqEnabled !== accelerator.state.queue.why.includes('EVENTQEN=1')) changed();
          else if (accelerator.state.veventq?.paused !== true) changed();
        };
      },
    },
  },
  {
    name: 'losses are kept from the guest',
    where: 'queue',
    only: ['plug nic0', 'EVENTQEN=1', 'DMA nic0 hole', 'deliver', 'take'],
    schedule: ['plug nic0', 'EVENTQEN=1', 'DMA nic0 hole', 'DMA nic0 hole'],
    invariant: 'events',
    mutant: {
      machine: ({ smmu }) => {
        smmu.eventsLost = () => {};
      },
    },
  },
  {
    name: 'a guest that listens does not hear of what went with the last device',
    where: 'queue',
    schedule: ['plug nic0', 'EVENTQEN=1', 'DMA nic0 hole', 'unplug nic0'],
    invariant: 'events',
    mutant: {
      machine: ({ smmu }) => {
        smmu.eventsLost = () => {};
      },
    },
  },
  {
    name: 'invalidations do not reach the host',
    where: 'caches',
    schedule: ['page 0: nothing', 'TLBI_NH_ASID 0', 'SYNC'],
    invariant: 'isolation',
    mutant: {
      machine: ({ accelerator }) => {
        accelerator.invalidate = () => INVALIDATE.Complete;
      },
    },
  },
  {
    name: 'CFGI_ALL is ignored',
    where: 'streams',
    schedule: ['plug nic0', 'SMMUEN=1', 'STE nic0 bypass'],
    invariant: 'attachment',
    mutant: {
      machine: ({ accelerator, smmu }) => {
        const changed = accelerator.streamsChanged.bind(accelerator);
        let enabled = false;
        accelerator.streamsChanged = (first, last) => {
          const left = (first === last || !smmu.smmuEnabled || !enabled) && changed(first, last);
          enabled = smmu.smmuEnabled;
          return left;
        };
      },
    },
  },
  {
    name: 'reset leaves the caches as they are',
    where: 'caches',
    only: ['page 0: nothing', 'reset', 'set up', 'SMMUEN=1', 'SYNC'],
    schedule: ['page 0: nothing', 'reset', 'set up', 'SMMUEN=1'],
    invariant: 'isolation',
    mutant: {
      machine: ({ accelerator }) => {
        accelerator.reset = () => {};
      },
    },
  },
  {
    name: 'nothing is ever destroyed',
    where: 'streams',
    schedule: ['plug nic0'],
    invariant: 'leaks',
    mutant: {
      options: (options) => {
        intercept(options, IOMMU_DESTROY.request, () => 0);
        options.kernel.close = () => 0;
      },
    },
  },
  {
    name: 'a device without a StreamID of its own goes around the tables',
    where: 'buses',
    schedule: ['nic0 at 00:02.0'],
    invariant: 'attachment',
    mutant: {
      desired: () => (right) => ({
        ...right,
        streams: right.streams.map((stream) =>
          stream.vsid === undefined
            ? { ...stream, target: { kind: 'bypass', ste: [9, 0, 0, 0], key: 'bypass' } }
            : stream,
        ),
      }),
    },
  },
  {
    name: 'an invalidation that the host refused counts as done',
    where: 'caches',
    only: ['page 0: nothing', 'TLBI_NH_ASID 0', 'SYNC', 'CFGI_STE nic0'],
    schedule: ['page 0: nothing', 'TLBI_NH_ASID 0', 'SYNC (IOMMU_HWPT_INVALIDATE 1: EIO)'],
    invariant: 'isolation',
    mutant: {
      options: (options) => {
        intercept(options, IOMMU_HWPT_INVALIDATE.request, (_, go) => {
          go();
          return 0;
        });
      },
    },
  },
  {
    name: 'a flush after a reset that the host refused counts as done',
    where: 'caches',
    only: ['page 0: nothing', 'reset', 'set up', 'SMMUEN=1', 'unplug nic0', 'plug nic0'],
    schedule: ['page 0: nothing', 'reset (IOMMU_HWPT_INVALIDATE 1: EIO)', 'set up', 'SMMUEN=1'],
    invariant: 'isolation',
    mutant: {
      options: (options) => {
        intercept(options, IOMMU_HWPT_INVALIDATE.request, (arg, go) => {
          const count = IOMMU_HWPT_INVALIDATE.get(arg, 'entry_num');
          go();
          IOMMU_HWPT_INVALIDATE.set(arg, 'entry_num', count);
          return 0;
        });
      },
    },
  },
  {
    name: 'of a range of STEs only the first is looked at',
    where: 'pair',
    only: ['plug nic1', 'SMMUEN=1', 'STE nic1 translate 0', 'CFGI_STE_RANGE nic0'],
    schedule: ['plug nic1', 'SMMUEN=1', 'STE nic1 translate 0', 'CFGI_STE_RANGE nic0'],
    invariant: 'attachment',
    mutant: {
      machine: ({ accelerator }) => {
        const changed = accelerator.streamsChanged.bind(accelerator);
        accelerator.streamsChanged = (first, last) => changed(first, last - first === 31 ? first : last);
      },
    },
  },
  {
    name: 'the vEVENTQ is made anew when one of the devices goes',
    where: 'pair',
    only: ['plug nic0', 'plug nic1', 'unplug nic0', 'EVENTQEN=1'],
    schedule: ['plug nic0', 'plug nic1', 'EVENTQEN=1'],
    invariant: 'veventq',
    mutant: {
      desired: () => (right) => ({
        ...right,
        veventq: right.veventq && { ...right.veventq, baseLo: right.streams.length },
      }),
    },
  },
  {
    name: 'an event is asked for that nobody listens to',
    where: 'queue',
    only: ['plug nic0', 'STE nic0 invalid', 'CFGI_STE nic0', 'EVENTQEN=1'],
    schedule: ['plug nic0', 'STE nic0 invalid'],
    invariant: 'attachment',
    mutant: {
      desired: () => (right) => ({
        ...right,
        streams: right.streams.map((stream) =>
          stream.event === 0 ? stream : { ...stream, target: tripwire(0x810_0000) },
        ),
      }),
    },
  },
  {
    name: 'of all commands up to a CMD_SYNC only the first goes to the host',
    where: 'commands',
    only: ['page 0: nothing', 'page 1: 3', 'TLBI_NH_ASID 0', 'TLBI_NH_VA 1 range', 'SYNC'],
    schedule: ['page 1: 3', 'TLBI_NH_ASID 0', 'TLBI_NH_VA 1 range', 'SYNC'],
    invariant: 'isolation',
    mutant: {
      options: (options) => {
        intercept(options, IOMMU_HWPT_INVALIDATE.request, (arg, go) => {
          IOMMU_HWPT_INVALIDATE.set(arg, 'entry_num', 1);
          return go();
        });
      },
    },
  },
  {
    name: 'after a failure, what the host says of the entry is believed',
    where: 'commands',
    only: ['page 0: nothing', 'TLBI_NH_ASID 1', 'TLBI_NH_VA 0', 'SYNC'],
    schedule: [
      'page 0: nothing',
      'TLBI_NH_VA 0',
      // The first has but one command; the second is the attempt to invalidate everything instead.
      'SYNC (IOMMU_HWPT_INVALIDATE 1: EIO, IOMMU_HWPT_INVALIDATE 2: EIO)',
    ],
    invariant: 'isolation',
    mutant: {
      options: (options) => {
        intercept(options, IOMMU_HWPT_INVALIDATE.request, (arg, go) => {
          const count = IOMMU_HWPT_INVALIDATE.get(arg, 'entry_num');
          const errno = go();
          const blamed = IOMMU_HWPT_INVALIDATE.get(arg, 'entry_num');
          // Those before the one that is blamed are done, it seems.
          return errno !== 0 && blamed > 0 && blamed < count ? 0 : errno;
        });
      },
    },
  },
  {
    name: 'a device is detached before it gets another table',
    where: 'race',
    only: ['STE nic0 translate 1', 'STE nic0 bypass', 'CFGI_STE nic0', 'SMMUEN=0'],
    schedule: ['SMMUEN=0'],
    invariant: 'hitless',
    mutant: {
      options: (options) => {
        const { kernel } = options;
        const ioctl = kernel.ioctl.bind(kernel);
        kernel.ioctl = (fd, request, arg) => {
          if (request === VFIO_DEVICE_ATTACH_IOMMUFD_PT.request)
            ioctl(fd, VFIO_DEVICE_DETACH_IOMMUFD_PT.request, VFIO_DEVICE_DETACH_IOMMUFD_PT.encode());
          return ioctl(fd, request, arg);
        };
      },
    },
  },
  {
    name: 'what the host refused is never tried again',
    where: 'failures',
    schedule: ['plug nic0 (IOMMU_HWPT_ALLOC 3: ENOMEM)'],
    invariant: 'recovery',
    mutant: {
      options: (options) => {
        Reflect.deleteProperty(options, 'later');
      },
    },
  },
];

describe('of a machine that is wrong, the explorer finds the shortest way to see it', () => {
  it.each(MUTANTS)('$name', ({ mutant, where, only, schedule, invariant }) => {
    wrong.mutant = mutant;
    const { violation } = explore(configuration(where, only), { depth: schedule.length });
    expect(violation?.problem).toEqual({ invariant, text: expect.any(String) as string });
    expect(violation?.schedule).toEqual(schedule);

    const text = scenarioText(configuration(where), violation!);
    const scenario = parseScenario(text, 'broken.yaml');
    expect(runBareScenario(scenario, () => {}).failed).toBe(1);
    wrong.mutant = undefined;
    wrong.desired = undefined;
    expect(runBareScenario(scenario, () => {}).failed).toBe(0);
  });
});
