/** Snapshots that are taken at an awkward moment, and restores that meet less than they need. */

import { describe, expect, it } from 'vitest';
import { command } from '../../src/guest/commands.ts';
import { LAB_SMMU } from '../../src/host/sim/profiles.ts';
import { HostError } from '../../src/iommufd/errors.ts';
import { parseSnapshot, restoreSnapshot, takeSnapshot } from '../../src/machine/snapshot.ts';
import { identify } from '../../src/smmu/identification.ts';
import { SnapshotError } from '../../src/smmu/snapshot.ts';
import { OPCODE } from '../../src/spec/commands.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { BUFFERS, GUEST_IDS, sidOf } from '../support/bench-machine.ts';
import { GOOD, Movable, running } from '../support/movable-machine.ts';

const NOWHERE = 0x2000_0000n;
const SYNC = [0x46, 0, 0, 0];
const NSNH_ALL = [0x30, 0, 0, 0];
const CMDQ_ERR = 1;
const OVFLG = 0x8000_0000;

/** A queue of commands of the test's own, at the start of the buffers; CMDQEN=0 while it is put there. */
function fillQueue({ machine: { memory, smmu } }: Movable, commands: readonly (readonly number[])[]): void {
  const cr0 = smmu.read(OFFSET.CR0, 4);
  smmu.write(OFFSET.CR0, 4, 0, cr0 & ~8);
  smmu.write(OFFSET.CMDQ_BASE, 8, 0, BUFFERS + 0x8_0000 + 12);
  smmu.write(OFFSET.CMDQ_PROD, 4, 0, 0);
  smmu.write(OFFSET.CMDQ_CONS, 4, 0, 0);
  for (const [i, words] of commands.entries())
    for (const [j, word] of words.entries()) memory.store32(0, BUFFERS + 0x8_0000 + 16 * i + 4 * j, word);
  smmu.write(OFFSET.CR0, 4, 0, cr0);
}

describe('a machine that a snapshot was taken of goes on', () => {
  it('with the events that the host held, although the guest had room for them all along', () => {
    const { bench, machine } = running();
    for (let i = 0; i < 3; i++) bench.dmaOnly(NOWHERE + BigInt(i) * 0x1000n);
    // Nobody has read them yet.
    expect(takeSnapshot(machine).events).toHaveLength(3);
    bench.settle();
    expect(bench.takeEvents()).toHaveLength(3);
    bench.dma(NOWHERE);
    expect(bench.takeEvents()).toHaveLength(1);
    bench.close();
  });
});

describe('a snapshot has', () => {
  it('commands that one doorbell left over: they are carried out on the other host', () => {
    const movable = running();
    fillQueue(
      movable,
      Array.from({ length: 3000 }, (_, i) => (i % 3 === 2 ? SYNC : NSNH_ALL)),
    );
    movable.machine.smmu.write(OFFSET.CMDQ_PROD, 4, 0, 3000);
    const cons = movable.machine.smmu.read(OFFSET.CMDQ_CONS, 4);
    expect(cons).toBe(1024);
    movable.move(takeSnapshot(movable.machine));
    expect(movable.machine.smmu.read(OFFSET.CMDQ_CONS, 4)).toBe(3000);
    expect(movable.dma(GOOD)).toBe(true);
  });
  it('no invalidation that was consumed before its CMD_SYNC, and needs none: nothing stale is on the other host', () => {
    const movable = running();
    const { bench } = movable;
    const domain = bench.attach();
    expect(movable.dma(GOOD)).toBe(true);
    // The page goes, and the invalidation is consumed, but its CMD_SYNC is not written yet.
    bench.guest.commands.issue(command(OPCODE.CMD_TLBI_NSNH_ALL));
    domain.unmap(GOOD, 0x1000);
    movable.move(takeSnapshot(movable.machine));
    bench.guest.commands.issueAndSync();
    expect(movable.dma(GOOD)).toBe(false);
    expect(bench.takeEvents()).toHaveLength(1);
  });
  it('an error that nobody has acknowledged: the queue stands still until the guest does', () => {
    const movable = running();
    const { bench } = movable;
    bench.interruptsOff = true;
    fillQueue(movable, [[0xff, 0, 0, 0], SYNC]);
    movable.machine.smmu.write(OFFSET.CMDQ_PROD, 4, 0, 2);
    movable.move(takeSnapshot(movable.machine));
    const { smmu } = movable.machine;
    const active = (): number => smmu.read(OFFSET.GERROR, 4) ^ smmu.read(OFFSET.GERRORN, 4);
    expect(active()).toBe(CMDQ_ERR);
    // CERROR_ILL at the first command.
    expect(smmu.read(OFFSET.CMDQ_CONS, 4)).toBe(1 << 24);
    smmu.write(OFFSET.CMDQ_PROD, 4, 0, 2);
    expect(smmu.read(OFFSET.CMDQ_CONS, 4)).toBe(1 << 24);
    movable.machine.memory.store32(0, BUFFERS + 0x8_0000, 0x46);
    smmu.write(OFFSET.GERRORN, 4, 0, smmu.read(OFFSET.GERROR, 4));
    expect(active()).toBe(0);
    expect(smmu.read(OFFSET.CMDQ_CONS, 4) & 0xfffff).toBe(2);
  });
  it('an error whose interrupt got lost on the way: it is signalled again', () => {
    const movable = running();
    const { bench } = movable;
    const { smmu } = movable.machine;
    bench.interruptsOff = true;
    const { cons, prod } = { cons: smmu.read(OFFSET.CMDQ_CONS, 4), prod: smmu.read(OFFSET.CMDQ_PROD, 4) };
    expect(cons).toBe(prod);
    movable.machine.memory.store32(0, bench.guest.commands.base + 16 * (prod & 0xff), 0xff);
    smmu.write(OFFSET.CMDQ_PROD, 4, 0, prod + 1);
    const taken = takeSnapshot(movable.machine);
    bench.interruptsOff = false;
    movable.move(taken);
    expect(bench.guest.warnings.join()).toContain('CMDQ error');
    expect(movable.machine.smmu.read(OFFSET.CMDQ_CONS, 4) & 0xff).toBe((prod + 1) & 0xff);
  });
  it('an overflow that the guest has not acknowledged: once shown, once acknowledged', () => {
    const movable = running();
    const { bench } = movable;
    bench.interruptsOff = true;
    for (const count of [16, 30]) {
      for (let i = 0; i < count; i++) bench.dmaOnly(NOWHERE + BigInt(i) * 0x1000n);
      movable.settle();
    }
    movable.move(takeSnapshot(movable.machine));
    const prod = (): number => movable.machine.smmu.page1[0xa8 >>> 2];
    const before = prod() & OVFLG;
    expect(before).not.toBe(0);
    bench.interruptsOff = false;
    bench.guest.handleInterrupt('eventq');
    movable.settle();
    expect(bench.guest.overflows).toBe(1);
    expect(movable.machine.smmu.page1[0xac >>> 2] & OVFLG).toBe(prod() & OVFLG);
    expect(bench.takeEvents()).toHaveLength(32);
  });
});

describe('events of a snapshot', () => {
  it('are not for the next event queue, although no device was there in between', () => {
    const movable = running();
    const { bench } = movable;
    for (let i = 0; i < 3; i++) bench.dmaOnly(NOWHERE);
    const taken = takeSnapshot(movable.machine);
    expect(taken.events).toHaveLength(3);
    movable.machine.unplug('nic0');
    movable.settle();
    bench.guest.events.splice(0);
    bench.interruptsOff = true;
    const machine = movable.elsewhere();
    movable.move({ ...taken, devices: [] }, machine);
    const { smmu } = machine;
    const cr0 = smmu.read(OFFSET.CR0, 4);
    smmu.write(OFFSET.CR0, 4, 0, cr0 & ~4);
    smmu.write(OFFSET.EVENTQ_BASE, 8, 0, BUFFERS + 0x8_0000 + 3);
    smmu.write(0x1_00a8, 4, 0, 0);
    smmu.write(0x1_00ac, 4, 0, 0);
    smmu.write(OFFSET.CR0, 4, 0, cr0);
    machine.plug('nic0', '/dev/vfio/devices/vfio0', sidOf(0));
    movable.settle();
    expect(smmu.eventQueueSpace()).toBe(8);
    movable.dma(NOWHERE);
    expect(smmu.eventQueueSpace()).toBe(7);
  });
});

describe('a snapshot that cannot be restored', () => {
  const good = takeSnapshot(running().machine);
  it.each<[string, unknown, RegExp]>([
    ['from a later program', { ...good, version: 99 }, /version 99; this program reads version 1/],
    ['of another program', { ...good, format: 'qemu' }, /format: /],
    ['with a bad StreamID', { ...good, devices: [{ ...good.devices[0], sid: -1 }] }, /devices\.0\.sid: /],
    [
      'with a bad word in an STE',
      { ...good, devices: [{ ...good.devices[0], ste: good.devices[0].ste!.with(3, '0xzz') }] },
      /devices\.0\.ste\.3: /,
    ],
    ['with half an event', { ...good, events: [['0x1']] }, /events\.0: /],
    ['with something more', { ...good, surprise: 1 }, /surprise: /],
    [
      'with a register that there is not',
      { ...good, smmu: { ...good.smmu, registers: { CR7: '0x0' } } },
      /There is no register "CR7"/,
    ],
    [
      'with a register of too many bits',
      { ...good, smmu: { ...good.smmu, registers: { ...good.smmu.registers, GBPA: '0xf0000000' } } },
      /GBPA has bits/,
    ],
    [
      'without an ID register',
      { ...good, smmu: { ...good.smmu, ids: { IDR0: '0x0' } } },
      /IDR1 is missing, or no 32-bit number/,
    ],
  ])('%s says where it is wrong', (_what, value, message) => {
    const machine = new Movable().elsewhere();
    expect(() => restoreSnapshot(machine, value)).toThrow(SnapshotError);
    expect(() => restoreSnapshot(machine, value)).toThrow(message);
    expect(machine.state.devices).toEqual([]);
    // And the machine is none the worse for it.
    restoreSnapshot(machine, good);
    expect(machine.state.devices).toMatchObject([{ attached: 'translate' }]);
  });
  it('leaves the ID registers as they were, and open, if its own were good and its registers are not', () => {
    const machine = new Movable().elsewhere(identify(GUEST_IDS, { OAS: 2 }));
    const { ids } = machine.smmu;
    const bad = { ...good, smmu: { ...good.smmu, registers: { CR0: '0x1' } } };
    expect(() => restoreSnapshot(machine, bad)).toThrow('CR0 and CR0ACK differ');
    expect(machine.smmu.ids).toEqual(ids);
    expect(machine.identity.resolved.ids).toEqual(ids);
    expect(machine.smmu.identified).toBe(false);
  });
  it('has no more text than somebody can read, however much is wrong', () => {
    const events = Array.from({ length: 1000 }, () => ['x']);
    let error: unknown;
    try {
      parseSnapshot({ ...good, events });
    } catch (thrown) {
      error = thrown;
    }
    expect(String(error).length).toBeLessThan(2000);
    const registers = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`X${i}`, '0x0']));
    const machine = new Movable().elsewhere();
    try {
      restoreSnapshot(machine, { ...good, smmu: { ...good.smmu, registers } });
    } catch (thrown) {
      error = thrown;
    }
    expect(String(error)).toContain('There is no register "X0".');
    expect(String(error)).toContain('990 more');
    expect(String(error).length).toBeLessThan(2000);
    try {
      parseSnapshot({ ...good, ['x'.repeat(100_000)]: 'y'.repeat(100_000), format: 'z'.repeat(100_000) });
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(SnapshotError);
    expect(String(error).length).toBeLessThan(2000);
  });
  it('on a host that can do less than the guest knows names every difference, and leaves nothing', () => {
    const movable = new Movable();
    const machine = movable.elsewhere(undefined, identify(LAB_SMMU, { RIL: 0, OAS: 2 }));
    let error: unknown;
    try {
      restoreSnapshot(machine, good);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(HostError);
    // Nothing can be lowered any more: the guest has seen its ID registers.
    expect(error).toMatchObject({
      code: 'EOPNOTSUPP',
      operation: 'restore',
      hint: 'Restore it on a host that can do all that the guest was told, as the one before could.',
    });
    expect(String(error)).toMatch(/IDR3\.RIL=1 must be 0.*IDR5\.OAS=4 \(44 bits\) must be 2 \(40 bits\)/);
    expect(machine.state).toMatchObject({ devices: [], viommu: undefined, veventq: undefined });
    expect(machine.smmu.smmuEnabled).toBe(false);
  });
  it('translates nothing on a host that can, while that host refuses to flush', () => {
    const movable = running();
    const taken = takeSnapshot(movable.machine);
    const machine = movable.elsewhere();
    movable.nextHost!.sim.faults.add({ ioctl: 'IOMMU_HWPT_INVALIDATE', errno: 'EIO', times: 1000 });
    movable.move(taken, machine);
    expect(movable.dma(GOOD)).toBe(false);
    movable.host.sim.faults.clear();
    machine.accelerator.retry();
    expect(movable.dma(GOOD)).toBe(true);
    expect(machine.state.devices).toMatchObject([{ vsid: sidOf(0), attached: 'translate' }]);
  });
});
