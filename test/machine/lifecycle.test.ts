/** What happens in the life of a machine with an accelerated SMMU, on the embedded host with the reference guest. */

import { describe, expect, it } from 'vitest';
import { DmaTester } from '../../src/host/sim/functions/dma-tester.ts';
import { LAB_SMMU } from '../../src/host/sim/profiles.ts';
import { SimHost } from '../../src/host/sim/sim-host.ts';
import { ReferenceGuest } from '../../src/guest/reference-guest.ts';
import { HostError } from '../../src/iommufd/errors.ts';
import { Machine } from '../../src/machine/machine.ts';
import { Scheduler } from '../../src/machine/scheduler.ts';
import { Memory } from '../../src/memory/memory.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { GBPA, OFFSET } from '../../src/spec/registers.ts';
import { BenchHost, BenchMachine, BUFFERS, GUEST_IDS, RAM, sidOf } from '../support/bench-machine.ts';

const GOOD = 0x1000_0000n;
const NOWHERE = 0x2000_0000n;
const probe = (machine: BenchMachine, options: { kdump?: boolean; eventqLog2?: number } = {}): void => {
  machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4, ...options });
  machine.settle();
};
const make = (): BenchMachine => new BenchMachine(new BenchHost());
const setGbpa = ({ machine }: BenchMachine, abort: boolean): void =>
  machine.smmu.write(OFFSET.GBPA, 4, 0, (GBPA.UPDATE.put(1) | GBPA.ABORT.put(abort ? 1 : 0)) >>> 0);
/** Whether untranslated DMA reaches RAM. */
const passes = (machine: BenchMachine, index = 0): boolean =>
  machine.dma(BigInt(BUFFERS), index) === OUTCOME.Ok;

describe('the driver comes and goes', () => {
  it('kdump: EVENTQEN 0->1->0 in one probe; SMMUEN=1 with EVENTQEN=0, and translation works', () => {
    const machine = make();
    machine.plug();
    probe(machine, { kdump: true });
    expect(machine.machine.state.veventq).toBeUndefined();
    machine.expectSettled();
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    expect(machine.dma(NOWHERE)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual([]);
    machine.expectSettled();
    machine.close();
  });
  it('SMMUEN 0->1->0: from GBPA to the stream table and back', () => {
    const machine = make();
    machine.plug();
    expect(passes(machine)).toBe(true);
    probe(machine);
    expect(passes(machine)).toBe(false);
    machine.expectSettled();
    machine.guest.shutdown();
    expect(passes(machine)).toBe(true);
    machine.expectSettled();
    machine.close();
  });
  it('a guest that switches SMMUEN many times leaves nothing on the host', () => {
    const machine = make();
    machine.plug();
    const before = machine.host.objects();
    for (let i = 0; i < 20; i++) {
      probe(machine, { eventqLog2: i % 8 });
      machine.attach().map(GOOD, BUFFERS, 0x1000);
      expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
      machine.guest.shutdown();
      machine.settle();
    }
    // Abort and bypass were there; the tripwire is one more.
    expect(machine.host.objects()).toEqual({ ...before, hwpt_nested: 3 });
    machine.expectSettled();
    machine.close();
  });
  it('GBPA changes: at once while SMMUEN=0, without effect while SMMUEN=1', () => {
    const machine = make();
    machine.plug();
    setGbpa(machine, true);
    expect(passes(machine)).toBe(false);
    setGbpa(machine, false);
    expect(passes(machine)).toBe(true);
    probe(machine);
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    machine.host.ioctls = [];
    setGbpa(machine, true);
    expect(machine.host.ioctls).toEqual([]);
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    machine.guest.shutdown();
    expect(passes(machine)).toBe(false);
    machine.expectSettled();
    machine.close();
  });
  it('the stream table moves: what the new one says counts from SMMUEN=1, without a CFGI_STE', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    const { smmu, memory } = machine.machine;
    // A copy with another first level: all of it is empty.
    const elsewhere = BUFFERS + 0x8_0000;
    const cr0 = smmu.read(OFFSET.CR0, 4);
    memory.store64(0, elsewhere, 0, 0);
    smmu.write(OFFSET.CR0, 4, 0, cr0 & ~1);
    const base = smmu.read(OFFSET.STRTAB_BASE, 8);
    smmu.write(OFFSET.STRTAB_BASE, 8, 0, elsewhere);
    smmu.write(OFFSET.CR0, 4, 0, cr0);
    expect(machine.dma(GOOD)).toBe(OUTCOME.Abort);
    machine.expectSettled();
    smmu.write(OFFSET.CR0, 4, 0, cr0 & ~1);
    smmu.write(OFFSET.STRTAB_BASE, 8, 0, base);
    smmu.write(OFFSET.CR0, 4, 0, cr0);
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    machine.expectSettled();
    machine.close();
  });
});

describe('a device that is hot-plugged with SMMUEN=1', () => {
  it('onto an STE that translates is translated from its first access', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    machine.unplug();
    machine.plug();
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    expect(passes(machine)).toBe(false);
    machine.expectSettled();
    machine.close();
  });
  it('onto a bypass STE that firmware asked for (RMR) passes from its first access', () => {
    const machine = new BenchMachine(new BenchHost(), {
      reservedRegions: [{ base: BUFFERS, size: 0x1000, sids: [sidOf(0)] }],
    });
    probe(machine);
    machine.plug();
    expect(passes(machine)).toBe(true);
    machine.expectSettled();
    // Its driver takes over: the region stays reachable, all else does not.
    machine.attach();
    expect(passes(machine)).toBe(true);
    expect(machine.dma(BigInt(BUFFERS) + 0x1000n)).toBe(OUTCOME.Abort);
    machine.close();
  });
  it('onto an abort STE is aborted, without an event', () => {
    const machine = make();
    probe(machine);
    machine.guest.addDevice({ sid: sidOf(0), name: '0000:00:01.0' });
    machine.guest.attach(sidOf(0));
    machine.guest.detach(sidOf(0));
    machine.plug();
    expect(passes(machine)).toBe(false);
    expect(machine.takeEvents()).toEqual([]);
    machine.expectSettled();
    machine.close();
  });
});

describe('two devices', () => {
  it('with the same STE share a table; events and invalidations tell them apart', () => {
    const machine = make();
    probe(machine);
    machine.plug(0);
    machine.plug(1);
    const domain = machine.guest;
    machine.attach(0);
    const shared = domain.createDomain();
    machine.attach(1);
    machine.guest.attach(sidOf(0), shared);
    machine.guest.attach(sidOf(1), shared);
    shared.map(GOOD, BUFFERS, 0x1000);
    expect([machine.dma(GOOD, 0), machine.dma(GOOD, 1)]).toEqual([OUTCOME.Ok, OUTCOME.Ok]);
    machine.dma(NOWHERE, 1);
    machine.dma(NOWHERE, 0);
    expect(machine.takeEvents()).toEqual([
      'F_TRANSLATION sid 9 iova 0x20000000',
      'F_TRANSLATION sid 8 iova 0x20000000',
    ]);
    shared.unmap(GOOD, 0x1000);
    expect([machine.dma(GOOD, 0), machine.dma(GOOD, 1)]).toEqual([OUTCOME.Abort, OUTCOME.Abort]);
    machine.takeEvents();
    machine.expectSettled();
    machine.close();
  });
  it('swap their buses: each is translated and reported under its new StreamID, and neither by the other one’s', () => {
    const machine = make();
    probe(machine);
    machine.plug(0);
    machine.plug(1);
    machine.attach(0).map(GOOD, BUFFERS, 0x1000);
    machine.attach(1).map(GOOD + 0x1000n, BUFFERS, 0x1000);
    const { accelerator } = machine.machine;
    // In the order in which configuration space is written: one of them has both numbers' place for a moment.
    accelerator.setSid('nic0', sidOf(1));
    expect([machine.dma(GOOD, 0), machine.dma(GOOD + 0x1000n, 0)]).toEqual([OUTCOME.Abort, OUTCOME.Abort]);
    accelerator.setSid('nic1', sidOf(0));
    machine.takeEvents();
    expect([machine.dma(GOOD, 0), machine.dma(GOOD + 0x1000n, 0)]).toEqual([OUTCOME.Abort, OUTCOME.Ok]);
    expect([machine.dma(GOOD, 1), machine.dma(GOOD + 0x1000n, 1)]).toEqual([OUTCOME.Ok, OUTCOME.Abort]);
    expect(machine.takeEvents()).toEqual([
      'F_TRANSLATION sid 9 iova 0x10000000',
      'F_TRANSLATION sid 8 iova 0x10001000',
    ]);
    machine.expectSettled();
    machine.close();
  });
});

describe('a device that the host takes away', () => {
  it('is asked back from whoever has it, and is gone with all that it had', () => {
    const machine = new BenchMachine(new BenchHost(), {}, true);
    probe(machine);
    machine.plug(0);
    machine.plug(1);
    machine.attach(0).map(GOOD, BUFFERS, 0x1000);
    machine.attach(1).map(GOOD, BUFFERS, 0x1000);
    expect(machine.host.sim.removeDevice('/dev/vfio/devices/vfio0')).toBe(false);
    machine.settle();
    expect(machine.removed).toEqual(['nic0']);
    expect(machine.host.sim.device('/dev/vfio/devices/vfio0')).toBeUndefined();
    expect(machine.machine.state.devices.map(({ name }) => name)).toEqual(['nic1']);
    expect(machine.dma(GOOD, 1)).toBe(OUTCOME.Ok);
    machine.host.sim.removeDevice('/dev/vfio/devices/vfio1');
    machine.settle();
    machine.close();
    expect(machine.host.sim.openFiles).toBe(0);
  });
  it('and that is unplugged at the same moment is gone once', () => {
    const machine = new BenchMachine(new BenchHost(), {}, true);
    machine.plug(0);
    machine.host.sim.removeDevice('/dev/vfio/devices/vfio0');
    machine.unplug(0);
    machine.settle();
    expect(machine.removed).toEqual([]);
    expect(machine.host.sim.openFiles).toBe(0);
  });
});

describe('two virtual SMMUs of one guest, on two physical ones', () => {
  function twoSmmus(): {
    host: SimHost;
    testers: DmaTester[];
    machines: Machine[];
    guests: ReferenceGuest[];
    settle: () => void;
  } {
    const scheduler = new Scheduler();
    const host = new SimHost({ schedule: scheduler.post });
    const testers = [0, 1].map((index) => {
      const smmu = host.addSmmu({ name: `${index}.smmu`, ids: LAB_SMMU });
      const tester = new DmaTester(host.physicalMemory);
      const path = `/dev/vfio/devices/vfio${index}`;
      host.addDevice({ path, address: `000${index}:00:01.0`, smmu, sid: 0x20, function: tester });
      return tester;
    });
    const memory = new Memory();
    const machines: Machine[] = [];
    const guests: ReferenceGuest[] = [];
    for (const index of [0, 1]) {
      const machine: Machine = new Machine({
        kernel: host,
        memory,
        ids: GUEST_IDS,
        scheduler,
        name: `smmu${index}`,
        interrupts: {
          raise: (line) => scheduler.post(() => guests[index].handleInterrupt(line)),
          writeMsi: () => true,
        },
        ...(index === 1 && { space: machines[0].space }),
      });
      machines.push(machine);
      if (index === 0) machine.addRam(RAM, new Uint8Array(0x40_0000));
      guests.push(
        new ReferenceGuest({
          registers: machine.smmu,
          memory,
          ram: { base: RAM + index * 0x10_0000, size: 0x10_0000 },
          relax: () => void scheduler.run(),
          maxQueueBytes: 0x1000,
        }),
      );
    }
    return { host, testers, machines, guests, settle: () => void scheduler.run() };
  }

  it('share guest RAM; each translates its own devices, and gets its own events', () => {
    const { host, testers, machines, guests, settle } = twoSmmus();
    for (const index of [0, 1]) {
      guests[index].probe({ eventqLog2: 4 });
      machines[index].plug(`nic${index}`, `/dev/vfio/devices/vfio${index}`, 8);
      guests[index].addDevice({ sid: 8, name: '0000:00:01.0' });
      guests[index].attach(8).map(GOOD + BigInt(index) * 0x1000n, BUFFERS, 0x1000);
    }
    for (const index of [0, 1]) {
      expect(testers[index].dmaWrite32(GOOD + BigInt(index) * 0x1000n, 1)).toBe(OUTCOME.Ok);
      expect(testers[index].dmaWrite32(GOOD + BigInt(1 - index) * 0x1000n, 1)).toBe(OUTCOME.Abort);
    }
    settle();
    expect(guests.map(({ events }) => events.map(({ iova }) => iova))).toEqual([[GOOD + 0x1000n], [GOOD]]);
    const counts = host.snapshotOfObjects().map(({ type }) => type);
    expect(counts.filter((type) => type === 'ioas')).toHaveLength(1);
    expect(counts.filter((type) => type === 'viommu')).toHaveLength(2);
    for (const index of [0, 1]) machines[index].unplug(`nic${index}`);
    expect(host.openFiles).toBe(0);
  });
  it('a device in the wrong one is refused at plug, with the name of the right one; nothing is left', () => {
    const { host, machines } = twoSmmus();
    machines[0].plug('nic0', '/dev/vfio/devices/vfio0', 8);
    const refusal = (): HostError => {
      try {
        machines[0].plug('nic1', '/dev/vfio/devices/vfio1', 9);
      } catch (error) {
        if (error instanceof HostError) return error;
      }
      throw new Error('the device was taken');
    };
    const before = host.snapshotOfObjects();
    expect(refusal()).toMatchObject({
      code: 'EINVAL',
      message: expect.stringContaining('behind another physical SMMU') as unknown,
      hint: expect.stringContaining('a virtual SMMU of its own') as unknown,
    });
    expect(host.snapshotOfObjects()).toEqual(before);
    host.addDevice({
      path: '/dev/vfio/devices/vfio2',
      address: '0001:00:02.0',
      smmu: host.device('/dev/vfio/devices/vfio1')!.smmu,
      sid: 0x28,
      function: new DmaTester(),
    });
    machines[1].plug('nic2', '/dev/vfio/devices/vfio2', 8);
    expect(refusal().hint).toBe(
      'Plug it into the virtual SMMU "smmu1", which stands for the physical SMMU of this device.',
    );
    machines[1].plug('nic1', '/dev/vfio/devices/vfio1', 9);
  });
});
