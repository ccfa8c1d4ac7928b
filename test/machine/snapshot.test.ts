import { describe, expect, it } from 'vitest';
import { HostError } from '../../src/iommufd/errors.ts';
import { restoreSnapshot, takeSnapshot, type MachineSnapshot } from '../../src/machine/snapshot.ts';
import { GUEST_DEFAULT, identify } from '../../src/smmu/identification.ts';
import { SnapshotError } from '../../src/smmu/snapshot.ts';
import { BUFFERS, GUEST_IDS, sidOf } from '../support/bench-machine.ts';
import { GOOD, Movable, running } from '../support/movable-machine.ts';

const NOWHERE = 0x2000_0000n;

describe('what cannot be restored is refused with the reason', () => {
  const snapshot = (): MachineSnapshot => takeSnapshot(running().machine);
  it.each<[string, (good: MachineSnapshot) => unknown, string]>([
    ['nothing', () => null, 'SNAPSHOT_INVALID'],
    ['text', () => 'snapshot', 'SNAPSHOT_INVALID'],
    ['another format', (good) => ({ ...good, format: 'qemu' }), 'SNAPSHOT_INVALID'],
    ['a later version', (good) => ({ ...good, version: 2 }), 'SNAPSHOT_IMPOSSIBLE'],
    ['an unknown field', (good) => ({ ...good, more: 1 }), 'SNAPSHOT_INVALID'],
    [
      'a device without a name',
      (good) => ({ ...good, devices: [{ ...good.devices[0], name: '' }] }),
      'SNAPSHOT_INVALID',
    ],
    [
      'a StreamID of 33 bits',
      (good) => ({ ...good, devices: [{ ...good.devices[0], sid: 2 ** 32 }] }),
      'SNAPSHOT_INVALID',
    ],
    [
      'half an STE',
      (good) => ({ ...good, devices: [{ ...good.devices[0], ste: ['0x1'] }] }),
      'SNAPSHOT_INVALID',
    ],
    [
      'two devices of one name',
      (good) => ({ ...good, devices: [good.devices[0], good.devices[0]] }),
      'SNAPSHOT_INVALID',
    ],
    [
      'an event of five words',
      (good) => ({ ...good, events: [['1', '2', '3', '4', '5']] }),
      'SNAPSHOT_INVALID',
    ],
    [
      'impossible registers',
      (good) => ({ ...good, smmu: { ...good.smmu, registers: { CR0: '0x1' } } }),
      'SNAPSHOT_INVALID',
    ],
  ])('%s', (_, change, code) => {
    const movable = new Movable();
    const machine = movable.elsewhere();
    const { ids } = machine.smmu;
    const before = machine.smmu.registers.slice();
    let error: unknown;
    try {
      restoreSnapshot(machine, change(snapshot()));
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(SnapshotError);
    expect(error).toMatchObject({ code });
    expect(machine.state.devices).toEqual([]);
    expect([machine.smmu.ids, machine.smmu.registers]).toEqual([ids, before]);
  });
  it('on a machine that has devices', () => {
    const { machine } = running();
    expect(() => restoreSnapshot(machine, takeSnapshot(machine))).toThrow('unplug them first');
  });
  it('on a host without the device: nothing of the attempt is left', () => {
    const movable = running();
    movable.bench.plug(1);
    const taken = takeSnapshot(movable.machine);
    const machine = movable.elsewhere();
    expect(() => restoreSnapshot(machine, taken, { paths: { nic1: '/dev/vfio/devices/vfio9' } })).toThrow(
      HostError,
    );
    expect(machine.state.devices).toEqual([]);
    expect(machine.state.viommu).toBeUndefined();
    expect(machine.smmu.smmuEnabled).toBe(false);
    // And it can be tried again.
    restoreSnapshot(machine, taken);
    expect(machine.state.devices).toHaveLength(2);
  });
});

describe('gap 28: a machine that goes on on another host', () => {
  it('gap 28: translates and reports as before, with host objects of its own', () => {
    const movable = running();
    const { bench } = movable;
    expect(movable.dma(GOOD)).toBe(true);
    movable.move(takeSnapshot(movable.machine));
    expect(movable.machine.state.devices).toMatchObject([
      { name: 'nic0', attached: 'translate', vsid: sidOf(0) },
    ]);
    expect(movable.machine.state.veventq?.depth).toBe(16);
    expect(movable.dma(GOOD)).toBe(true);
    expect(movable.dma(NOWHERE)).toBe(false);
    expect(bench.takeEvents()).toEqual(['F_TRANSLATION sid 8 iova 0x20000000']);
    // The guest's driver notices nothing: its next unmap reaches the new host's hardware.
    bench.guest.device(sidOf(0));
    const domain = bench.guest.attach(sidOf(0));
    domain.unmap(GOOD, 0x1000);
    expect(movable.dma(GOOD)).toBe(false);
    expect(bench.guest.warnings).toEqual([]);
  });
  it('gives the guest each event once: those that the host still held, and none twice', () => {
    const movable = running(4);
    const { bench } = movable;
    bench.interruptsOff = true;
    for (const count of [16, 10]) {
      for (let i = 0; i < count; i++) bench.dmaOnly(NOWHERE + BigInt(i) * 0x1000n);
      movable.settle();
    }
    const taken = takeSnapshot(movable.machine);
    expect(taken.events).toHaveLength(10);
    movable.move(taken);
    bench.interruptsOff = false;
    bench.guest.handleInterrupt('eventq');
    movable.settle();
    expect(bench.takeEvents()).toHaveLength(26);
    expect(bench.guest.overflows).toBe(0);
    expect(movable.dma(NOWHERE)).toBe(false);
    expect(bench.takeEvents()).toHaveLength(1);
  });
  it('a machine that a snapshot was taken of goes on, and loses no event to it', () => {
    const movable = running(4);
    const { bench } = movable;
    bench.interruptsOff = true;
    for (const count of [16, 10]) {
      for (let i = 0; i < count; i++) bench.dmaOnly(NOWHERE + BigInt(i) * 0x1000n);
      movable.settle();
    }
    takeSnapshot(movable.machine);
    expect(takeSnapshot(movable.machine).events).toHaveLength(10);
    bench.dmaOnly(NOWHERE + 0xff000n);
    bench.interruptsOff = false;
    bench.guest.handleInterrupt('eventq');
    movable.settle();
    const events = bench.takeEvents();
    expect(events).toHaveLength(27);
    expect(events.at(-1)).toContain('0x200ff000');
    bench.expectSettled();
  });
  it('a machine that a snapshot was taken of gives the guest at once what it has room for', () => {
    const movable = running(4);
    const { bench } = movable;
    bench.dmaOnly(NOWHERE);
    const taken = takeSnapshot(movable.machine);
    expect(taken.events).toHaveLength(1);
    movable.settle();
    expect(bench.takeEvents()).toHaveLength(1);
    bench.dma(NOWHERE);
    expect(bench.takeEvents()).toHaveLength(1);
    // The copy, of a moment before, gives it once too.
    movable.move(taken);
    bench.guest.handleInterrupt('eventq');
    movable.settle();
    expect(bench.guest.overflows).toBe(0);
    expect(movable.machine.state.events.delivered).toBe(1);
  });
  it('gap 36: has what waits for two devices, and gives it to the guest in order, each stream in its turn', () => {
    const movable = running(4);
    const { bench } = movable;
    bench.plug(1);
    bench.attach(1);
    movable.settle();
    bench.interruptsOff = true;
    let pages = 0;
    const faults = (count: number, index: number): void => {
      for (let i = 0; i < count; i++) {
        bench.dmaOnly(NOWHERE + BigInt(pages++) * 0x1000n, index);
        movable.settle();
      }
    };
    faults(24, 0);
    faults(2, 1);
    expect(movable.machine.state.veventq).toMatchObject({ backlog: 10, paused: false });
    const taken = takeSnapshot(movable.machine);
    expect(taken.events).toHaveLength(10);
    movable.move(taken);
    expect(movable.machine.state.veventq).toMatchObject({ backlog: 10, paused: false });
    bench.interruptsOff = false;
    bench.guest.handleInterrupt('eventq');
    movable.settle();
    const events = bench.takeEvents();
    expect(events).toHaveLength(26);
    expect(events.slice(16, 20).map((text) => text.slice(14, 19))).toEqual([
      'sid 8',
      'sid 9',
      'sid 8',
      'sid 9',
    ]);
    for (const sid of ['sid 8', 'sid 9']) {
      const own = events.filter((text) => text.includes(sid));
      expect(own).toEqual(own.toSorted());
    }
    expect(bench.guest.overflows).toBe(0);
  });
  it('shows what was lost before, and events of a queue that the guest turned off are not for its next one', () => {
    const movable = running(4);
    const { bench } = movable;
    bench.interruptsOff = true;
    for (const count of [16, 30]) {
      for (let i = 0; i < count; i++) bench.dmaOnly(NOWHERE + BigInt(i) * 0x1000n);
      movable.settle();
    }
    movable.move(takeSnapshot(movable.machine));
    bench.interruptsOff = false;
    bench.guest.handleInterrupt('eventq');
    movable.settle();
    expect(bench.takeEvents()).toHaveLength(32);
    expect(bench.guest.overflows).toBe(1);
    bench.interruptsOff = true;
    for (const count of [16, 10]) {
      for (let i = 0; i < count; i++) movable.host.testers[0].dmaWrite32(NOWHERE + BigInt(i) * 0x1000n, 1);
      movable.settle();
    }
    const taken = takeSnapshot(movable.machine);
    movable.machine.unplug('nic0');
    const alone = movable.elsewhere();
    movable.move({ ...taken, devices: [] }, alone);
    bench.guest.shutdown();
    bench.interruptsOff = false;
    bench.guest.probe({ eventqLog2: 4 });
    movable.settle();
    expect(bench.takeEvents()).toEqual([]);
  });
  it('keeps what the guest has not told the SMMU yet: an STE counts as of its last CFGI', () => {
    const movable = running();
    const { bench } = movable;
    const { memory, smmu } = movable.machine;
    memory.load64(0, smmu.registers[0x80 >>> 2] & ~0x3f);
    const ste = (memory.lo & ~0x3f) + 8 * 64;
    memory.store64(0, ste, 0, 1);
    movable.move(takeSnapshot(movable.machine));
    expect(movable.dma(GOOD)).toBe(true);
    bench.guest.commands.issueAndSync(Uint32Array.of(3, 8, 1, 0));
    expect(movable.dma(GOOD)).toBe(false);
  });
  it('has the ID registers of the snapshot, whatever its own default', () => {
    const movable = running();
    const taken = takeSnapshot(movable.machine);
    const machine = movable.elsewhere(identify(GUEST_DEFAULT, { OAS: 2 }));
    movable.move(taken, machine);
    expect(machine.smmu.ids).toEqual(GUEST_IDS);
    expect(movable.dma(GOOD)).toBe(true);
  });
  it('before any driver has come is a machine before any driver has come', () => {
    const movable = new Movable();
    movable.bench.plug(0);
    movable.move(takeSnapshot(movable.machine));
    expect(movable.dma(BigInt(BUFFERS))).toBe(true);
    movable.bench.guest.probe({ eventqLog2: 4 });
    expect(movable.dma(BigInt(BUFFERS))).toBe(false);
  });
});
