/** The life of a machine, step by step: which objects the host has after each, to the last one, and where DMA goes. */

import { describe, expect, it } from 'vitest';
import { VFIO_DEVICE_RESET } from '../../src/iommufd/uapi/vfio.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { CR0, OFFSET } from '../../src/spec/registers.ts';
import { BenchHost, BenchMachine, BUFFERS, RAM, sidOf } from '../support/bench-machine.ts';

const GOOD = 0x1000_0000n;
const NOWHERE = 0x2000_0000n;
const RAW = BigInt(BUFFERS);

const make = (): BenchMachine => new BenchMachine(new BenchHost());
const probe = (machine: BenchMachine, eventqLog2 = 4, kdump = false): void => {
  machine.guest.probe({ cmdqLog2: 8, eventqLog2, kdump });
  machine.settle();
};

/** All objects of one vSMMU: what every one has, and what is counted. */
function objects(devices: number, nested: number, veventq: number): Record<string, number> {
  return {
    ioas: 1,
    hwpt_paging: 1,
    viommu: 1,
    hwpt_nested: nested,
    device: devices,
    vdevice: devices,
    ...(veventq > 0 && { veventq }),
  };
}
function has(machine: BenchMachine, expected: Record<string, number>): void {
  machine.settle();
  expect(machine.host.objects()).toEqual(expected);
  // /dev/iommu, each device, the vEVENTQ.
  const { device = 0, veventq = 0 } = expected;
  expect(machine.host.sim.openFiles).toBe(device === 0 ? 0 : 1 + device + veventq);
}
/** Where a device's DMA goes: mapped pages, untranslated memory, or nowhere. */
function reach(machine: BenchMachine, index = 0): string {
  const mapped = machine.dma(GOOD, index) === OUTCOME.Ok;
  const raw = machine.dma(RAW, index) === OUTCOME.Ok;
  return mapped ? (raw ? 'both' : 'translated') : raw ? 'bypass' : 'nothing';
}

// Nested tables: abort always; bypass and the tripwire once they were needed; one for each translation.
const ABORT_ONLY = 1;
const WITH_BYPASS = 2;
const WITH_TRIPWIRE = 3;

describe('after each step the host has exactly what the step needs', () => {
  it('plug, probe, attach, detach, unplug, plug again', () => {
    const machine = make();
    has(machine, {});
    machine.plug();
    has(machine, objects(1, WITH_BYPASS, 0));
    expect(reach(machine)).toBe('bypass');
    probe(machine);
    has(machine, objects(1, WITH_TRIPWIRE, 1));
    expect(reach(machine)).toBe('nothing');
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    has(machine, objects(1, WITH_TRIPWIRE + 1, 1));
    expect(reach(machine)).toBe('translated');
    machine.guest.detach(sidOf(0));
    has(machine, objects(1, WITH_TRIPWIRE, 1));
    expect(reach(machine)).toBe('nothing');
    machine.unplug();
    has(machine, {});
    machine.attach();
    machine.plug();
    // A first device of a new vIOMMU, straight onto its STE: no bypass, no tripwire.
    has(machine, objects(1, ABORT_ONLY + 1, 1));
    expect(reach(machine)).toBe('translated');
    machine.close();
  });
  it('kdump: EVENTQEN 0->1->0 in one probe, SMMUEN=1 with EVENTQEN=0', () => {
    const machine = make();
    machine.plug();
    const queues: number[] = [];
    const write = machine.machine.smmu.write.bind(machine.machine.smmu);
    machine.machine.smmu.write = (...args): void => {
      write(...args);
      if (args[0] === OFFSET.CR0) queues.push(machine.host.objects()['veventq'] ?? 0);
    };
    probe(machine, 4, true);
    // One for the moment in which the driver has it on.
    expect(queues.join('')).toMatch(/^0+1+0+$/);
    has(machine, objects(1, WITH_BYPASS, 0));
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    has(machine, objects(1, WITH_BYPASS + 1, 0));
    expect(reach(machine)).toBe('translated');
    expect(machine.takeEvents()).toEqual([]);
    machine.close();
  });
  it('system reset with events pending: nothing of the old guest is there for the new one', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    for (let i = 0; i < 10; i++) machine.dmaOnly(NOWHERE);
    machine.reset();
    has(machine, objects(1, WITH_TRIPWIRE, 0));
    expect(reach(machine)).toBe('bypass');
    probe(machine);
    expect(machine.takeEvents()).toEqual([]);
    has(machine, objects(1, WITH_TRIPWIRE, 1));
    machine.attach();
    has(machine, objects(1, WITH_TRIPWIRE + 1, 1));
    expect(reach(machine)).toBe('nothing');
    machine.close();
  });
  it('system reset: a device is reset while the old guest’s tables still hold it, so that none gets past the SMMU before', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    const { sim } = machine.host;
    const ioctl = sim.ioctl.bind(sim);
    const passed: boolean[] = [];
    sim.ioctl = (fd, request, arg) => {
      if (request === VFIO_DEVICE_RESET.request) passed.push(machine.dmaOnly(RAW));
      return ioctl(fd, request, arg);
    };
    machine.reset();
    expect(passed).toEqual([false]);
    expect(reach(machine)).toBe('bypass');
    machine.close();
  });
  it('bus renumbering: one vDEVICE for each device all along, under the numbers that it has now', () => {
    const machine = make();
    probe(machine);
    machine.plug(0);
    machine.plug(1);
    machine.attach(0).map(GOOD, BUFFERS, 0x1000);
    machine.attach(1).map(GOOD, BUFFERS, 0x1000);
    const two = objects(2, 4, 1);
    // Abort, tripwire, two translations; a bypass was never needed.
    has(machine, two);
    const { accelerator } = machine.machine;
    accelerator.setSid('nic0', undefined);
    has(machine, { ...two, vdevice: 1, hwpt_nested: 3 });
    expect([reach(machine, 0), reach(machine, 1)]).toEqual(['nothing', 'translated']);
    accelerator.setSid('nic1', sidOf(0));
    accelerator.setSid('nic0', sidOf(1));
    has(machine, two);
    expect([reach(machine, 0), reach(machine, 1)]).toEqual(['translated', 'translated']);
    machine.takeEvents();
    machine.dma(NOWHERE, 0);
    machine.dma(NOWHERE, 1);
    expect(machine.takeEvents().map((event) => event.slice(0, 19))).toEqual([
      'F_TRANSLATION sid 9',
      'F_TRANSLATION sid 8',
    ]);
    machine.close();
  });
  it('surprise removal: the one that is left keeps what it needs, and the last one takes all with it', () => {
    const machine = new BenchMachine(new BenchHost(), {}, true);
    probe(machine);
    machine.plug(0);
    machine.plug(1);
    machine.attach(0).map(GOOD, BUFFERS, 0x1000);
    machine.attach(1).map(GOOD, BUFFERS, 0x1000);
    for (let i = 0; i < 5; i++) machine.dmaOnly(NOWHERE, 0);
    machine.host.sim.removeDevice('/dev/vfio/devices/vfio0');
    machine.settle();
    // What it had reported before is the guest's, and its own requests are watched no more.
    expect(machine.host.objects()).toEqual(objects(1, 3, 1));
    expect(reach(machine, 1)).toBe('translated');
    machine.host.sim.removeDevice('/dev/vfio/devices/vfio1');
    machine.settle();
    expect(machine.host.objects()).toEqual({});
    expect(machine.host.sim.openFiles).toBe(0);
  });
});

describe('event queues of one boot', () => {
  it('firmware with a small queue, then Linux with another: each has a vEVENTQ of its size, and its own events', () => {
    const machine = make();
    machine.plug();
    // SmmuDxe: a queue of 2^1 records, and a device that faults more often than that.
    probe(machine, 1);
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    expect(machine.machine.state.veventq?.depth).toBe(2);
    machine.interruptsOff = true;
    for (let i = 0; i < 9; i++) machine.dmaOnly(NOWHERE + BigInt(i) * 0x1000n);
    machine.settle();
    // ExitBootServices: it turns everything off, with two records unread and two in the host.
    machine.guest.shutdown();
    has(machine, objects(1, WITH_TRIPWIRE, 0));
    machine.guest.events.splice(0);
    machine.interruptsOff = false;
    probe(machine, 7);
    expect(machine.machine.state.veventq?.depth).toBe(128);
    has(machine, objects(1, WITH_TRIPWIRE, 1));
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    expect(machine.takeEvents()).toEqual([]);
    expect(reach(machine)).toBe('translated');
    machine.takeEvents();
    for (let i = 0; i < 100; i++) machine.dmaOnly(NOWHERE + BigInt(i) * 0x1000n);
    machine.settle();
    expect(machine.takeEvents()).toHaveLength(100);
    expect(machine.guest.overflows).toBe(0);
    machine.close();
  });
  it('moved to another place of the same size: what was for the old one does not come to the new one', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach();
    const before = machine.machine.state.veventq?.id;
    for (let i = 0; i < 5; i++) machine.dmaOnly(NOWHERE);
    machine.guest.rebaseEventQueue(4);
    machine.settle();
    expect(machine.machine.state.veventq).toMatchObject({ depth: 16 });
    expect(before).toBeDefined();
    expect(machine.takeEvents()).toEqual([]);
    expect(machine.machine.state.events).toMatchObject({ delivered: 0, discarded: 5 });
    machine.dma(NOWHERE);
    expect(machine.takeEvents()).toHaveLength(1);
    machine.close();
  });
});

describe('a kernel that comes after another', () => {
  /** Where DMA goes after each register write of a new driver: 'old' by the old guest's tables. */
  function watched(machine: BenchMachine, kdump: boolean): string[] {
    const seen: string[] = [];
    const { smmu } = machine.machine;
    const write = smmu.write.bind(smmu);
    smmu.write = (...args): void => {
      write(...args);
      const [tester] = machine.host.testers;
      const old = tester.dmaWrite32(GOOD, 1) === OUTCOME.Ok;
      const raw = tester.dmaWrite32(RAW, 1) === OUTCOME.Ok;
      const now = raw ? 'bypass' : old ? 'old' : 'nothing';
      if (seen.at(-1) !== now) seen.push(now);
    };
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4, kdump });
    smmu.write = write;
    machine.settle();
    return seen;
  }
  const translating = (): BenchMachine => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    return machine;
  };

  it.each([false, true])(
    'after a crash takes DMA from the old tables to nothing at all, and never past the SMMU (kdump: %s)',
    (kdump) => {
      const machine = translating();
      machine.guest.forget();
      expect(watched(machine, kdump)).toEqual(['old', 'nothing']);
      expect(machine.guest.warnings).toEqual(['SMMU currently enabled! Resetting...']);
      has(machine, objects(1, WITH_TRIPWIRE, kdump ? 0 : 1));
      machine.attach();
      expect(reach(machine)).toBe('nothing');
      machine.attach().map(GOOD, BUFFERS, 0x1000);
      expect(reach(machine)).toBe('translated');
      // GBPA.ABORT of the crash stays: without the driver nothing passes.
      machine.guest.shutdown();
      expect(reach(machine)).toBe('nothing');
      machine.expectSettled();
      machine.close();
    },
  );
  it('by kexec finds DMA past the SMMU, as CR0=0 and GBPA say, until it has SMMUEN=1', () => {
    const machine = translating();
    machine.guest.shutdown();
    has(machine, objects(1, WITH_TRIPWIRE, 0));
    expect(watched(machine, false)).toEqual(['bypass', 'nothing']);
    has(machine, objects(1, WITH_TRIPWIRE, 1));
    machine.close();
  });
  it('SMMUEN 0->1->0 by nothing but CR0: each step goes to the streams at once', () => {
    const machine = translating();
    const { smmu } = machine.machine;
    const cr0 = smmu.read(OFFSET.CR0, 4);
    for (let i = 0; i < 3; i++) {
      smmu.write(OFFSET.CR0, 4, 0, cr0 & ~CR0.SMMUEN.inPlace);
      has(machine, objects(1, WITH_TRIPWIRE, 1));
      expect(reach(machine)).toBe('bypass');
      smmu.write(OFFSET.CR0, 4, 0, cr0);
      has(machine, objects(1, WITH_TRIPWIRE + 1, 1));
      expect(reach(machine)).toBe('translated');
    }
    machine.close();
  });
});

describe('the stream table moves', () => {
  it('between two linear and two-level places: the STE of the table that SMMUEN=1 finds counts', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(GOOD, BUFFERS, 0x1000);
    const { memory, smmu } = machine.machine;
    const cr0 = smmu.read(OFFSET.CR0, 4);
    const twoLevel = [smmu.registers[0x80 >>> 2], smmu.read(0x88, 4)] as const;
    memory.load64(0, twoLevel[0] & ~0x3f);
    const ste = (memory.lo & ~0x3f) + 64 * sidOf(0);
    // A linear table of 2^5 STEs: the same S1 STE at StreamID 8.
    const linear = BUFFERS + 0x8_0000;
    for (let i = 0; i < 64; i += 8) {
      memory.load64(0, ste + i);
      memory.store64(0, linear + 64 * sidOf(0) + i, memory.hi, memory.lo);
    }
    const move = (base: number, cfg: number): void => {
      smmu.write(OFFSET.CR0, 4, 0, cr0 & ~1);
      smmu.write(OFFSET.STRTAB_BASE, 8, 0, base);
      smmu.write(0x88, 4, 0, cfg);
      smmu.write(OFFSET.CR0, 4, 0, cr0);
    };
    move(linear, 5);
    expect(reach(machine)).toBe('translated');
    // 2^3 STEs: StreamID 8 is out of range.
    move(linear, 3);
    expect(reach(machine)).toBe('nothing');
    expect(machine.takeEvents()[1]).toBe('C_BAD_STREAMID sid 8 iova 0x0');
    // Another place, which says bypass.
    memory.store64(0, linear + 0x1000 + 64 * sidOf(0), 0, 0b1001);
    move(linear + 0x1000, 5);
    expect(reach(machine)).toBe('bypass');
    move(...twoLevel);
    expect(reach(machine)).toBe('translated');
    // A table where no memory is.
    move(RAM - 0x10_0000, 5);
    expect(reach(machine)).toBe('nothing');
    machine.close();
  });
});
