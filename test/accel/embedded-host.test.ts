import { describe, expect, it } from 'vitest';
import { SimHost } from '../../src/host/sim/sim-host.ts';
import { LAB_SMMU, SERVER_SMMU } from '../../src/host/sim/profiles.ts';
import { DmaTester } from '../../src/host/sim/functions/dma-tester.ts';
import { Accelerator } from '../../src/accel/accelerator.ts';
import { AddressSpace } from '../../src/accel/address-space.ts';
import { CD } from '../../src/spec/cd.ts';
import { OPCODE } from '../../src/spec/commands.ts';
import { EVENT_RECORD, EVENT_TYPE } from '../../src/spec/events.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import type { IdRegisters } from '../../src/smmu/identification.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { HostError } from '../../src/iommufd/errors.ts';
import { IOMMUFD_IOCTLS } from '../../src/iommufd/uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../../src/iommufd/uapi/vfio.ts';
import { BenchHost, BenchMachine, BUFFERS, GUEST_IDS, sidOf } from '../support/bench-machine.ts';
import { ScriptedGuest } from '../support/scripted-guest.ts';

const GOOD = 0x1000_0000n;
const NOWHERE = 0x2000_0000n;
const NAMES = new Map<number, string>(
  [...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].map(({ request, ioctl }) => [request, ioctl]),
);

/** A machine with a driver, and a first device that translates one page. */
function running(eventqLog2 = 4, ids?: IdRegisters): BenchMachine {
  const machine = new BenchMachine(new BenchHost({ ids }));
  machine.plug();
  machine.guest.probe({ cmdqLog2: 8, eventqLog2 });
  machine.attach().map(GOOD, BUFFERS, 0x1000);
  machine.settle();
  return machine;
}
/** Faults at consecutive pages, of which the guest hears nothing until its interrupts are let through. */
function faults(machine: BenchMachine, count: number, index = 0, from = 0): void {
  for (let i = 0; i < count; i++) machine.dmaOnly(NOWHERE + BigInt(from + i) * 0x1000n, index);
}

describe('events', () => {
  it('a fault of a device is read by its guest under the StreamID of the guest', () => {
    const machine = running();
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    expect(machine.dma(NOWHERE)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual(['F_TRANSLATION sid 8 iova 0x20000000']);
    expect(machine.guest.warnings).toEqual([]);
    machine.close();
  });
  it('gap 8: what the guest has no room for waits in the host, and all of it arrives', () => {
    const machine = running(4);
    machine.interruptsOff = true;
    faults(machine, 16);
    machine.settle();
    expect(machine.machine.smmu.eventQueueSpace()).toBe(0);
    faults(machine, 16, 0, 16);
    machine.settle();
    expect(machine.machine.accelerator.state.veventq?.paused).toBe(true);
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    expect(machine.takeEvents()).toHaveLength(32);
    expect(machine.guest.overflows).toBe(0);
    expect(machine.machine.accelerator.state.events).toMatchObject({ delivered: 32, lostInHost: 0 });
    machine.close();
  });
  it('gap 5 and 6: what the host has no room for either is an overflow to the guest, and no abort of its queue', () => {
    const machine = running(4);
    machine.interruptsOff = true;
    faults(machine, 16);
    machine.settle();
    faults(machine, 40, 0, 16);
    machine.settle();
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    const { delivered, lostInHost } = machine.machine.accelerator.state.events;
    expect({ delivered, lostInHost }).toEqual({ delivered: 32, lostInHost: 24 });
    expect(machine.takeEvents()).toHaveLength(32);
    // The flag reaches the driver with the next interrupt at the latest.
    machine.dma(NOWHERE);
    expect(machine.guest.overflows).toBeGreaterThan(0);
    expect(machine.machine.smmu.read(OFFSET.GERROR, 4) ^ machine.machine.smmu.read(OFFSET.GERRORN, 4)).toBe(
      0,
    );
    machine.close();
  });
  it('gap 6: every event is delivered, counted as lost, or counted as discarded', () => {
    for (const total of [0, 1, 15, 16, 17, 31, 32, 33, 64, 100]) {
      const machine = running(4);
      machine.interruptsOff = true;
      for (let i = 0; i < total; i++) {
        faults(machine, 1, 0, i);
        if (i % 7 === 0) machine.settle();
      }
      machine.unplug();
      machine.settle();
      const { delivered, lostInHost, discarded, refused } = machine.machine.accelerator.state.events;
      expect(delivered + lostInHost + discarded + refused).toBe(total);
      machine.close();
    }
  });
  it('gap 2: a kdump kernel, which turns events off before SMMUEN, sees no error of its event queue', () => {
    const machine = new BenchMachine(new BenchHost());
    machine.plug();
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4, kdump: true });
    machine.attach();
    machine.dma(NOWHERE);
    machine.expectSettled();
    expect(machine.machine.accelerator.state.veventq).toBeUndefined();
    expect(machine.guest.warnings).toEqual([]);
    expect(machine.machine.smmu.read(OFFSET.GERROR, 4)).toBe(0);
    machine.close();
  });
  it('gap 1: a new kernel gets nothing of the faults of the old one, and a queue of its own depth', () => {
    const machine = running(4);
    machine.interruptsOff = true;
    faults(machine, 10);
    machine.reset();
    machine.interruptsOff = false;
    machine.settle();
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 6 });
    machine.settle();
    expect(machine.takeEvents()).toEqual([]);
    expect(machine.machine.accelerator.state.veventq?.depth).toBe(64);
    machine.expectSettled();
    machine.close();
  });
  it('gap 36: a storm from one device delays another by no more than what is queued before it', () => {
    const machine = running(7);
    machine.plug(1);
    machine.attach(1);
    faults(machine, 100);
    faults(machine, 1, 1);
    machine.settle();
    const events = machine.takeEvents();
    expect(events).toHaveLength(101);
    expect(events.at(-1)).toContain('sid 9');
    expect([...machine.machine.accelerator.eventsBySid]).toMatchObject([
      [8, { delivered: 100 }],
      [9, { delivered: 1 }],
    ]);
    machine.close();
  });
});

describe('a storm', () => {
  it('gap 36: of one device lets the command queue and other work have their turn after at most 64 records', () => {
    const machine = running(7);
    machine.plug(1);
    machine.attach(1).map(GOOD, BUFFERS, 0x1000);
    const { scheduler } = machine.host;
    const { accelerator } = machine.machine;
    let delivered = 0;
    let longest = 0;
    let looks = 0;
    const look = (): void => {
      const { events } = accelerator.state;
      longest = Math.max(longest, events.delivered - delivered);
      delivered = events.delivered;
      if (delivered < 128 && ++looks < 100) scheduler.post(look);
    };
    faults(machine, 128);
    scheduler.post(look);
    // The command queue is not behind it, nor is another device.
    machine.guest.attach(sidOf(1));
    expect(machine.dmaOnly(GOOD, 1)).toBe(true);
    machine.settle();
    expect(delivered).toBe(128);
    expect(longest).toBeLessThanOrEqual(64);
    expect(machine.guest.warnings).toEqual([]);
    machine.close();
  });
});

describe('a storm while the guest does not read', () => {
  /** Two devices, each with a domain, and no interrupt that reaches the guest. */
  function pair(eventqLog2 = 4, ids?: IdRegisters): BenchMachine {
    const machine = running(eventqLog2, ids);
    machine.plug(1);
    machine.attach(1).map(GOOD, BUFFERS, 0x1000);
    machine.settle();
    machine.interruptsOff = true;
    return machine;
  }
  /** Events on their way here: the host has its turn after each few, as it would between those of hardware. */
  function storm(machine: BenchMachine, count: number, from = 0): void {
    for (let i = 0; i < count; i += 8) {
      faults(machine, Math.min(8, count - i), 0, from + i);
      machine.settle();
    }
  }
  /** The guest takes its oldest record, as a driver would that is slow. @returns StreamID and page of the fault. */
  function takeOne({ machine: { smmu, memory } }: BenchMachine): [number, number] | undefined {
    const prod = smmu.read(OFFSET.EVENTQ_PROD, 4);
    const cons = smmu.read(OFFSET.EVENTQ_CONS, 4);
    const log2 = smmu.eventqLog2Size;
    if (((prod ^ cons) & (2 ** (log2 + 1) - 1)) === 0) return undefined;
    const record = new Uint32Array(8);
    const base = (smmu.registers[OFFSET.EVENTQ_BASE >>> 2] & ~0x1f) >>> 0;
    memory.loadWords(0, base + 32 * (cons & (2 ** log2 - 1)), record, 8);
    smmu.write(OFFSET.EVENTQ_CONS, 4, 0, (cons & 0x8000_0000) | ((cons + 1) & (2 ** (log2 + 1) - 1)));
    return [record[1], (record[4] - Number(NOWHERE)) >>> 12];
  }
  const isOverflown = ({ machine: { smmu } }: BenchMachine): boolean =>
    (smmu.read(OFFSET.EVENTQ_PROD, 4) ^ smmu.read(OFFSET.EVENTQ_CONS, 4)) >>> 31 === 1;
  function accountedFor({ machine }: BenchMachine): number {
    const { events, veventq } = machine.accelerator.state;
    const { delivered, lostInHost, crowdedOut, discarded, refused } = events;
    return delivered + lostInHost + crowdedOut + discarded + refused + (veventq?.backlog ?? 0);
  }

  it('gap 36: the event of another device arrives, a hundred of the storm to one, and the storm pays for itself', () => {
    const machine = pair();
    storm(machine, 200);
    expect(isOverflown(machine)).toBe(true);
    for (let round = 0; round < 3; round++) {
      faults(machine, 1, 1, 1000 + round);
      storm(machine, 100, 200 + 100 * round);
    }
    const { accelerator } = machine.machine;
    expect(accelerator.state.veventq).toMatchObject({ paused: false, backlog: 16 });
    expect(accountedFor(machine)).toBe(503);
    expect(accelerator.state.events).toMatchObject({ delivered: 16, lostInHost: 0, crowdedOut: 471 });
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    const events = machine.takeEvents();
    expect(events).toHaveLength(32);
    expect(events.filter((text) => text.includes('sid 9'))).toEqual(
      [0, 1, 2].map(
        (i) => `F_TRANSLATION sid 9 iova 0x${(Number(NOWHERE) + 0x1000 * (1000 + i)).toString(16)}`,
      ),
    );
    // What the guest kept is the beginning of the storm, in order.
    const stormed = events.filter((text) => text.includes('sid 8'));
    expect(stormed.at(-1)).toContain(`0x${(Number(NOWHERE) + 0x1000 * 28).toString(16)}`);
    machine.dma(NOWHERE);
    expect(machine.guest.overflows).toBeGreaterThan(0);
    expect(accelerator.eventsBySid.get(9)).toMatchObject({ delivered: 3, crowdedOut: 0 });
    expect(accelerator.eventsBySid.get(8)!.crowdedOut).toBe(471);
    machine.expectSettled();
    machine.close();
  });
  it('gap 36: a guest that takes one record at a time gets the other device its turn after one of the storm', () => {
    const machine = pair();
    storm(machine, 100);
    faults(machine, 1, 1);
    machine.settle();
    let taken = 0;
    for (let i = 0; i < 16; i++) expect(takeOne(machine)?.[0]).toBe(8);
    // What was in its own queue comes first; behind that, each stream in its turn.
    const next: (number | undefined)[] = [];
    for (let i = 0; i < 3; i++) {
      next.push(takeOne(machine)?.[0]);
      storm(machine, 100, 100 * (i + 1));
    }
    expect(next).toContain(9);
    const pages: number[] = [];
    for (let one = takeOne(machine); one !== undefined; one = takeOne(machine)) {
      if (one[0] === 8) pages.push(one[1]);
      taken++;
    }
    expect(pages).toEqual(pages.toSorted((a, b) => a - b));
    expect(accountedFor(machine)).toBe(401);
    expect(machine.machine.accelerator.state.events.delivered).toBe(19 + taken);
    machine.close();
  });
  it('gap 36: commands are done, and other devices work, after at most one read of 64 records', () => {
    const machine = pair(7);
    const { scheduler } = machine.host;
    storm(machine, 400);
    let before = accountedFor(machine);
    let longest = 0;
    let looks = 0;
    const look = (): void => {
      longest = Math.max(longest, accountedFor(machine) - before);
      before = accountedFor(machine);
      if (++looks < 100) scheduler.post(look);
    };
    faults(machine, 128);
    scheduler.post(look);
    machine.guest.attach(sidOf(1));
    expect(machine.dmaOnly(GOOD, 1)).toBe(true);
    machine.settle();
    expect(accountedFor(machine)).toBe(528);
    expect(longest).toBe(64);
    expect(machine.guest.warnings).toEqual([]);
    machine.close();
  });
  it('gap 8: the storm of a device that is alone is held back in the host, as if no other had ever been there', () => {
    const machine = pair();
    machine.unplug(1);
    storm(machine, 32);
    expect(machine.machine.accelerator.state.veventq).toMatchObject({ paused: true, backlog: 0 });
    machine.plug(1);
    machine.settle();
    expect(machine.machine.accelerator.state.veventq).toMatchObject({ paused: false, backlog: 16 });
    machine.attach(1);
    faults(machine, 1, 1);
    machine.settle();
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    expect(machine.takeEvents().filter((text) => text.includes('sid 9'))).toHaveLength(1);
    machine.close();
  });
  it('events of a device that was unplugged meanwhile arrive, as they would from the queue of an SMMU', () => {
    const machine = pair();
    storm(machine, 20);
    faults(machine, 1, 1);
    machine.settle();
    machine.unplug(1);
    machine.settle();
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    expect(machine.takeEvents().filter((text) => text.includes('sid 9'))).toHaveLength(1);
    expect(accountedFor(machine)).toBe(21);
    machine.close();
  });
  it('gap 6: what is discarded with the last device is an overflow to a guest that listens', () => {
    const machine = pair();
    storm(machine, 20);
    machine.unplug(0);
    machine.settle();
    expect(machine.machine.accelerator.state.veventq?.backlog).toBe(4);
    expect(isOverflown(machine)).toBe(false);
    machine.unplug(1);
    machine.settle();
    expect(machine.machine.accelerator.state.events.discarded).toBe(4);
    expect(isOverflown(machine)).toBe(true);
    machine.close();
  });
  it.each([
    ['EVENTQEN=0', (machine: BenchMachine) => machine.machine.smmu.write(OFFSET.CR0, 4, 0, 0x9)],
    ['a reset', (machine: BenchMachine) => machine.reset()],
    ['a shutdown', (machine: BenchMachine) => machine.guest.shutdown()],
  ])(
    'gap 1: %s discards what waits, which is no overflow, and the next kernel gets nothing of it',
    (_what, act) => {
      const machine = pair();
      storm(machine, 20);
      act(machine);
      machine.settle();
      expect(machine.machine.accelerator.state.events).toMatchObject({ delivered: 16, discarded: 4 });
      expect(isOverflown(machine)).toBe(false);
      machine.guest.forget();
      machine.interruptsOff = false;
      machine.guest.probe({ cmdqLog2: 8, eventqLog2: 5 });
      machine.settle();
      expect(machine.takeEvents()).toEqual([]);
      expect(machine.guest.overflows).toBe(0);
      machine.close();
    },
  );
  it('no record is of a stalled transaction, whatever CD.S says, so that every one of them may give way', () => {
    // Its hardware stalls where a CD says so, and no STE forbids it.
    const machine = pair(4, SERVER_SMMU);
    storm(machine, 1);
    const { smmu, memory } = machine.machine;
    const pointer = (address: number): number => {
      memory.load64(0, address);
      return (memory.lo & ~0x3f) >>> 0;
    };
    const cd = pointer(pointer((smmu.registers[OFFSET.STRTAB_BASE >>> 2] & ~0x3f) >>> 0) + 8 * 64);
    memory.load64(0, cd);
    memory.store64(0, cd, memory.hi | CD.S.inPlace, memory.lo);
    machine.guest.commands.issueAndSync(Uint32Array.of(OPCODE.CMD_CFGI_CD, 8, 1, 0));
    storm(machine, 24);
    const records = [...machine.machine.accelerator.drainEvents()];
    expect(records).toHaveLength(9);
    const base = (smmu.registers[OFFSET.EVENTQ_BASE >>> 2] & ~0x1f) >>> 0;
    for (let i = 0; i < 16; i++) {
      const record = new Uint32Array(8);
      memory.loadWords(0, base + 32 * i, record, 8);
      records.push(record);
    }
    expect(records.map((record) => EVENT_RECORD.Stall.get(record))).toEqual(records.map(() => 0));
    // 5.4.2: where STE.S1STALLD is 1, a CD that stalls is ILLEGAL.
    const types = records.map((record) => EVENT_RECORD.EventID.get(record));
    expect(types.filter((type) => type === EVENT_TYPE.C_BAD_CD)).toHaveLength(24);
    machine.close();
  });
});

describe('translations', () => {
  it('gap 13: an unmap reaches the hardware even if the host refuses the invalidation at first', () => {
    for (const errno of ['EIO', 'ETIMEDOUT', 'ENOMEM'] as const)
      for (const times of [1, 2, 3]) {
        const machine = running();
        const domain = machine.attach();
        expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
        machine.host.sim.faults.add({ ioctl: 'IOMMU_HWPT_INVALIDATE', errno, times });
        domain.unmap(GOOD, 0x1000);
        expect(machine.dma(GOOD), `${errno} ${times}`).toBe(OUTCOME.Abort);
        machine.host.sim.faults.clear();
        machine.machine.accelerator.retry();
        domain.map(GOOD, BUFFERS, 0x1000);
        expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
        expect(machine.guest.warnings).toEqual([]);
        machine.takeEvents();
        machine.expectSettled();
        machine.close();
      }
  });
  it('gap 13: as long as the host cannot invalidate, nothing is translated', () => {
    const machine = running();
    const domain = machine.attach();
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    machine.host.sim.faults.add({ ioctl: 'IOMMU_HWPT_INVALIDATE', errno: 'EIO', times: 1000 });
    domain.unmap(GOOD, 0x1000);
    expect(machine.dma(GOOD)).toBe(OUTCOME.Abort);
    expect(machine.machine.accelerator.state.devices).toMatchObject([
      { attached: 'abort', wanted: 'translate' },
    ]);
    machine.host.sim.faults.clear();
    domain.map(GOOD, BUFFERS, 0x1000);
    machine.machine.accelerator.retry();
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    machine.close();
  });
  it('gap 26: after a reset nothing of the old translations can be used', () => {
    const machine = running();
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    machine.reset();
    // GBPA bypass: the address is the guest's own, and nothing is there.
    expect(machine.dma(GOOD)).toBe(OUTCOME.Abort);
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    machine.attach();
    expect(machine.dma(GOOD)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual(['F_TRANSLATION sid 8 iova 0x10000000']);
    machine.close();
  });
  it('gap 18: between SMMUEN=1 and its own STE no device reaches anything', () => {
    const machine = new BenchMachine(new BenchHost());
    machine.plug();
    expect(machine.dma(BigInt(BUFFERS))).toBe(OUTCOME.Ok);
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    expect(machine.dma(BigInt(BUFFERS))).toBe(OUTCOME.Abort);
    machine.guest.shutdown();
    expect(machine.dma(BigInt(BUFFERS))).toBe(OUTCOME.Ok);
    machine.close();
  });
  it('gap 20: a second device, hot-plugged, reaches nothing before its driver has attached it', () => {
    const machine = running();
    machine.plug(1);
    expect(machine.dma(BigInt(BUFFERS), 1)).toBe(OUTCOME.Abort);
    machine.attach(1).map(GOOD, BUFFERS + 0x1000, 0x1000);
    expect(machine.dma(GOOD, 1)).toBe(OUTCOME.Ok);
    machine.dma(NOWHERE, 1);
    expect(machine.takeEvents()).toEqual(['F_TRANSLATION sid 9 iova 0x20000000']);
    machine.close();
  });
  it('gap 23: after bus renumbering events come under the new StreamID', () => {
    const machine = running();
    machine.machine.accelerator.setSid('nic0', sidOf(7));
    machine.guest.addDevice({ sid: sidOf(7), name: '0000:07:00.0' });
    machine.guest.attach(sidOf(7)).map(GOOD, BUFFERS, 0x1000);
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    machine.dma(NOWHERE);
    expect(machine.takeEvents()).toEqual([`F_TRANSLATION sid ${sidOf(7)} iova 0x20000000`]);
    machine.expectSettled();
    machine.close();
  });
  it('gap 25: attaching costs at most one new table, however many CFGI_STE the driver sends', () => {
    const machine = new BenchMachine(new BenchHost());
    machine.plug();
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    machine.host.ioctls = [];
    machine.attach();
    machine.settle();
    expect(machine.host.ioctls.map((request) => NAMES.get(request))).toEqual([
      // From "no STE at all", which is reported, to the driver's abort STE, which is not.
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
      'IOMMU_HWPT_ALLOC',
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
    ]);
    machine.guest.detach(sidOf(0));
    machine.host.ioctls = [];
    machine.attach();
    expect(machine.host.ioctls.map((request) => NAMES.get(request))).toEqual([
      'IOMMU_HWPT_ALLOC',
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
    ]);
    machine.close();
  });
  it('gap 11: an unmap of many pages is one call', () => {
    const machine = running();
    const domain = machine.attach();
    domain.map(0x3000_0000n, BUFFERS, 0x4_0000);
    machine.host.ioctls = [];
    domain.unmap(0x3000_0000n, 0x4_0000);
    expect(machine.host.ioctls.map((request) => NAMES.get(request))).toEqual(['IOMMU_HWPT_INVALIDATE']);
    machine.close();
  });
});

describe('any ioctl may fail', () => {
  /** ioctls of an action, in order. */
  function ioctlsOf(prepare: () => BenchMachine, act: (machine: BenchMachine) => void): number[] {
    const machine = prepare();
    machine.host.ioctls = [];
    act(machine);
    machine.settle();
    const { ioctls } = machine.host;
    machine.close();
    return ioctls;
  }
  /** Arms the host so that exactly the call at this place fails. */
  function failAt(machine: BenchMachine, ioctls: readonly number[], place: number): void {
    const nth = ioctls.slice(0, place + 1).filter((request) => request === ioctls[place]).length;
    const ioctl = NAMES.get(ioctls[place]) as 'IOMMU_DESTROY';
    machine.host.sim.faults.add({ ioctl, errno: 'ENOMEM', nth });
  }
  const cold = (): BenchMachine => {
    const machine = new BenchMachine(new BenchHost());
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    return machine;
  };

  it('of a plug: nothing leaks, and the next attempt or run puts it right', () => {
    const ioctls = ioctlsOf(cold, (machine) => machine.plug());
    expect(ioctls.length).toBeGreaterThan(9);
    for (const place of ioctls.keys()) {
      const machine = cold();
      failAt(machine, ioctls, place);
      try {
        machine.plug();
      } catch (error) {
        expect(error).toBeInstanceOf(HostError);
        expect(machine.host.objects()).toEqual({});
        expect(machine.host.sim.openFiles).toBe(0);
        machine.plug();
      }
      machine.host.sim.faults.clear();
      machine.machine.accelerator.retry();
      machine.expectSettled();
      machine.attach();
      machine.dma(NOWHERE);
      expect(machine.takeEvents()).toEqual(['F_TRANSLATION sid 8 iova 0x20000000']);
      machine.close();
    }
  });
  it.each([
    ['an unplug', (machine: BenchMachine) => machine.unplug()],
    ['a reset', (machine: BenchMachine) => machine.reset()],
    ['a second plug', (machine: BenchMachine) => machine.plug(1)],
    ['a shutdown', (machine: BenchMachine) => machine.guest.shutdown()],
  ])('of %s: nothing leaks, and the next run puts it right', (_what, act) => {
    const prepare = (): BenchMachine => running();
    const ioctls = ioctlsOf(prepare, act);
    for (const place of ioctls.keys()) {
      const machine = prepare();
      failAt(machine, ioctls, place);
      try {
        act(machine);
      } catch (error) {
        expect(error).toBeInstanceOf(HostError);
      }
      machine.host.sim.faults.clear();
      machine.machine.accelerator.retry();
      machine.expectSettled();
      machine.close();
    }
  });
});

describe('another physical SMMU', () => {
  it('gap 22: refuses its devices to a vSMMU of the first at once, and takes them in one of its own', () => {
    const host = new SimHost({ schedule: () => {} });
    const paths = [0, 1].map((index) => {
      const smmu = host.addSmmu({ name: `${index}.smmu`, ids: LAB_SMMU });
      const path = `/dev/vfio/devices/vfio${index}`;
      host.addDevice({ path, address: `000${index}:00:01.0`, smmu, sid: 8, function: new DmaTester() });
      return path;
    });
    const space = new AddressSpace(host);
    space.addRam(0x4000_0000, new Uint8Array(0x1_0000));
    const vsmmu = (): Accelerator => {
      const accelerator = new Accelerator({ space, ids: GUEST_IDS });
      accelerator.connect(new ScriptedGuest(accelerator));
      return accelerator;
    };
    const [first, second] = [vsmmu(), vsmmu()];
    first.plug({ name: 'a', path: paths[0], sid: 8 });
    const before = host.snapshotOfObjects();
    expect(() => first.plug({ name: 'b', path: paths[1], sid: 9 })).toThrow(/behind another physical SMMU/);
    expect(() => first.plug({ name: 'b', path: paths[1] })).toThrow(/behind another physical SMMU/);
    expect(host.snapshotOfObjects()).toEqual(before);
    second.plug({ name: 'b', path: paths[1], sid: 9 });
    expect(second.state.devices).toMatchObject([{ name: 'b', attached: 'bypass' }]);
    first.unplug('a');
    second.unplug('b');
    expect(host.snapshotOfObjects()).toEqual([]);
    expect(host.openFiles).toBe(0);
  });
});
