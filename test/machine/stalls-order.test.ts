/** Stalls in every order of events, and with every call failing once: nothing waits that nobody can answer. */

import { expect, it } from 'vitest';
import { resume } from '../../src/guest/commands.ts';
import type { GuestEvent } from '../../src/guest/event.ts';
import { SERVER_SMMU } from '../../src/host/sim/profiles.ts';
import { HostError } from '../../src/iommufd/errors.ts';
import { IOMMUFD_IOCTLS } from '../../src/iommufd/uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../../src/iommufd/uapi/vfio.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { BenchHost, BenchMachine } from '../support/bench-machine.ts';

const PAGE = 0x8000_0000n;

class Stalling {
  readonly bench: BenchMachine;
  /** Transactions that stalled, ever. */
  stalled = 0;
  /** What the driver has not answered. */
  waiting: GuestEvent[] = [];

  constructor() {
    this.bench = new BenchMachine(
      new BenchHost({ ids: SERVER_SMMU, device: { stalls: true } }),
      {
        onStall: (event) => {
          this.waiting.push(event);
          return 'later';
        },
      },
      false,
      undefined,
      { properties: { stall: 'on' }, faultsOf: () => 'stall' },
    );
  }

  plug(): void {
    this.bench.plug();
    if (this.bench.guest.probed) this.bench.attach();
  }

  start(): void {
    const { guest, plugged } = this.bench;
    if (guest.probed) guest.setEventQueueEnabled(true);
    else {
      guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
      if (plugged.size > 0) this.bench.attach();
    }
  }

  fault(): void {
    if (this.bench.dma(PAGE) === OUTCOME.Stalled) this.stalled++;
  }

  answer(): void {
    if (!this.bench.guest.probed) return;
    for (const { sid, stag } of this.waiting.splice(0))
      this.bench.guest.commands.issue(resume(sid, stag, 'abort'));
    this.bench.settle();
  }

  /** Each transaction has ended, or the guest can end it. */
  check(): void {
    this.bench.expectSettled();
    const [{ id, outstanding, counters }] = this.bench.machine.state.faults;
    const { smmu } = this.bench.machine;
    expect(id !== undefined).toBe(this.bench.plugged.size > 0 && smmu.eventqEnabled);
    expect(this.stalled - this.bench.host.testers[0].resumed.length).toBe(outstanding);
    expect(counters.refused).toBe(0);
    const { read, retried, aborted, released, ended, forgotten } = counters;
    expect(retried + aborted + released + ended + forgotten + outstanding).toBe(read);
  }
}

const ACTIONS: Readonly<Record<string, (machine: Stalling) => void>> = {
  plug: (machine) => machine.plug(),
  'EVENTQEN=1': (machine) => machine.start(),
  fault: (machine) => machine.fault(),
  'EVENTQEN=0': ({ bench }) => {
    if (bench.guest.probed) bench.guest.setEventQueueEnabled(false);
  },
  answer: (machine) => machine.answer(),
  unplug: ({ bench }) => bench.unplug(),
  reset: ({ bench }) => bench.reset(),
  'next domain': ({ bench }) => {
    if (!bench.guest.probed || bench.plugged.size === 0) return;
    bench.attach();
    bench.guest.attach(8, bench.guest.createDomain());
  },
};

it('every order of three events after a device waits', () => {
  const names = Object.keys(ACTIONS);
  for (let number = 0; number < names.length ** 3; number++) {
    const sequence = [0, 1, 2].map((i) => names[Math.floor(number / names.length ** i) % names.length]);
    // The rest says nothing of stalls.
    if (!sequence.includes('fault')) continue;
    const machine = new Stalling();
    machine.plug();
    machine.start();
    machine.fault();
    try {
      for (const name of sequence) ACTIONS[name](machine);
      machine.check();
      machine.bench.close();
    } catch (error) {
      throw new Error(`after ${sequence.join(', ')}`, { cause: error });
    }
  }
});

const JOURNEY = [
  'EVENTQEN=1',
  'plug',
  'fault',
  'EVENTQEN=0',
  'fault',
  'EVENTQEN=1',
  'fault',
  'next domain',
  'fault',
  'unplug',
  'plug',
  'fault',
];

function travel(machine: Stalling): void {
  for (const name of JOURNEY) {
    try {
      ACTIONS[name](machine);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      // Refused: it is not there.
      machine.bench.plugged.clear();
    }
  }
}

it.each([
  'IOMMU_FAULT_QUEUE_ALLOC',
  'IOMMU_HWPT_ALLOC',
  'IOMMU_VDEVICE_ALLOC',
  'IOMMU_VEVENTQ_ALLOC',
  'IOMMU_HWPT_INVALIDATE',
  'IOMMU_DESTROY',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
  'VFIO_DEVICE_DETACH_IOMMUFD_PT',
] as const)('%s fails once, at any place: a retry mends it, and nothing waits for ever', (ioctl) => {
  const request = [...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].find((known) => known.ioctl === ioctl)!.request;
  const whole = new Stalling();
  travel(whole);
  const times = whole.bench.host.ioctls.filter((made) => made === request).length;
  whole.check();
  expect(times).toBeGreaterThan(0);
  for (let nth = 1; nth <= times; nth++) {
    const machine = new Stalling();
    const { bench } = machine;
    bench.host.sim.faults.add({ ioctl, errno: 'ENOMEM', nth });
    travel(machine);
    bench.machine.accelerator.retry();
    machine.check();
    bench.close();
  }
});
