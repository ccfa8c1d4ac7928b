import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { INVALIDATE } from '../../src/smmu/ports.ts';
import { restoreSmmu, saveSmmu, SnapshotError, type SmmuSnapshot } from '../../src/smmu/snapshot.ts';
import { Device, NSNH_ALL, record, SYNC } from '../support/smmu-device.ts';

const TRANSPORT = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;
/** A second SMMU over the same memory, in the state of the first. */
function moved(device: Device, ids = QEMU_LIKE): Device {
  const other = new Device(ids);
  other.ram.set(device.ram);
  restoreSmmu(other.smmu, TRANSPORT(saveSmmu(device.smmu)));
  other.smmu.resume();
  return other;
}
const good = (): SmmuSnapshot => saveSmmu(new Device().start().smmu);
const refusal = (snapshot: SmmuSnapshot): SnapshotError => {
  const device = new Device();
  const before = device.smmu.registers.slice();
  try {
    restoreSmmu(device.smmu, snapshot);
  } catch (error) {
    expect(device.smmu.registers).toEqual(before);
    if (error instanceof SnapshotError) return error;
  }
  throw new Error('it was taken');
};

describe('a snapshot that no SMMU can be in is refused, and changes nothing', () => {
  it.each<[string, Record<string, string>, string]>([
    ['an unknown register', { CR7: '0x1' }, 'There is no register "CR7"'],
    ['an ID register among the others', { IDR0: '0x1' }, 'There is no register "IDR0"'],
    ['what is no number', { CR0: 'much' }, 'CR0 is no number'],
    ['more than 64 bits', { CMDQ_BASE: '0x10000000000000000' }, 'CMDQ_BASE is no number'],
    ['bits that do not exist', { CR0: '0x80000000', CR0ACK: '0x80000000' }, 'CR0 has bits'],
    ['the high half of 32 bits', { CR1: '0x100000000' }, 'CR1 has bits'],
    ['bits of a feature that is not there', { CR0: '0x2', CR0ACK: '0x2' }, 'CR0 has bits'],
    ['an Update under way', { CR0: '0x8', CR0ACK: '0' }, 'CR0 and CR0ACK differ'],
    ['an Update of interrupts under way', { IRQ_CTRL: '0x1' }, 'IRQ_CTRL and IRQ_CTRLACK differ'],
    ['GBPA.UPDATE', { GBPA: '0x80000000' }, 'GBPA.UPDATE is set'],
  ])('%s', (_, registers, problem) => {
    const error = refusal({ ...good(), registers });
    expect(error.code).toBe('SNAPSHOT_INVALID');
    expect(error.message).toContain(problem);
  });
  it('of an SMMU that cannot exist', () => {
    const { ids } = good();
    expect(refusal({ ...good(), ids: { ...ids, IDR0: '0' } }).message).toContain('S1P or S2P');
    expect(refusal({ ...good(), ids: { ...ids, IDR5: 'x' } }).message).toContain('IDR5 is missing');
    expect(refusal({ ...good(), ids: {} }).code).toBe('SNAPSHOT_INVALID');
  });
  it('of another SMMU', () => {
    const other = saveSmmu(new Device(identify(QEMU_LIKE, { OAS: 3 })).smmu);
    expect(refusal(other)).toMatchObject({ code: 'SNAPSHOT_IMPOSSIBLE' });
    expect(refusal(other).message).toContain('another IDR5');
  });
});

describe('an SMMU that goes on elsewhere', () => {
  it('has all registers as they were', () => {
    const device = new Device(identify(QEMU_LIKE, { MSI: 1 })).start(0xc);
    device.write(0x2c, 2);
    device.write64(0x80, 0, 0x4000_4000);
    device.write(0x88, 0x1_0208);
    device.write64(0x68, 1, 0x4000);
    device.write(0x44, 0x8010_0000);
    device.smmu.recordEvent(record(1));
    const other = moved(device, device.smmu.ids);
    expect(other.smmu.registers).toEqual(device.smmu.registers);
    expect(other.smmu.page1).toEqual(device.smmu.page1);
    expect(other.smmu.identified).toBe(true);
  });
  it('carries out the commands that were waiting, and those alone', () => {
    const device = new Device(QEMU_LIKE, { defer: () => {} }).start(0, 12);
    for (let slot = 0; slot < 2000; slot++) device.put(slot, slot === 1999 ? NSNH_ALL : SYNC);
    device.write(0x98, 2000);
    device.write(0x20, 8);
    expect(device.cons).toBe(1024);
    const other = moved(device);
    expect(other.cons).toBe(2000);
    expect(device.cons).toBe(1024);
  });
  it('stays stopped at an error, and says so again', () => {
    const device = new Device().start();
    device.write(0x50, 1);
    device.submit([0xff, 0, 0, 0], SYNC);
    const other = moved(device);
    expect([other.cons, other.cerror, other.errors]).toEqual([0, 1, 1]);
    expect(other.interrupts).toEqual(['gerror']);
    other.put(0, SYNC);
    other.write(0x64, 1);
    expect(other.cons).toBe(2);
  });
  it('writes events behind those that are there, with the same wrap and overflow', () => {
    const device = new Device().start(0xc, 4, 2);
    for (let sid = 0; sid < 5; sid++) device.smmu.recordEvent(record(sid));
    device.smmu.eventsLost();
    device.smmu.write(0x1_00ac, 4, 0, 3);
    const other = moved(device);
    other.smmu.recordEvent(record(99));
    expect(other.event(0, 1)).toBe(99);
    expect(other.read(0x1_00a8)).toBe(0x8000_0005);
    expect(other.smmu.eventQueueSpace()).toBe(2);
  });
  it('signals a queue that is not empty: the signal may have been under way', () => {
    const device = new Device().start();
    device.write(0x50, 4);
    device.smmu.recordEvent(record(1));
    expect(moved(device).interrupts).toEqual(['eventq']);
    expect(moved(new Device().start()).interrupts).toEqual([]);
  });
  it('tells the backend when there is room in a queue that was full', () => {
    const device = new Device().start(0xc, 4, 1);
    for (let sid = 0; sid < 3; sid++) device.smmu.recordEvent(record(sid));
    const other = moved(device);
    other.backend.length = 0;
    other.write(0x1_00ac, 1);
    expect(other.backend).toEqual(['eventq']);
  });
  it('has not forgotten an ATC_INV without an answer', () => {
    const ids = identify(QEMU_LIKE, { ATS: 1 });
    const device = new Device(ids).start(0xd);
    device.invalidateStatus = INVALIDATE.AtcInvTimeout;
    device.submit([0x40, 1, 52, 0], [0x03, 2, 1, 0]);
    const other = moved(device, ids);
    other.submit(SYNC);
    expect(other.cerror).toBe(3);
  });
  it('truncates queue addresses and sizes like a guest’s', () => {
    const other = new Device();
    restoreSmmu(other.smmu, {
      ...good(),
      registers: { EVENTQ_BASE: '0xffffffffffffff', CR0: '0xc', CR0ACK: '0xc' },
    });
    expect(other.smmu.eventqLog2Size).toBe(19);
    other.smmu.resume();
    expect(other.smmu.recordEvent(record(1))).toBe(3);
  });
  it('while a transaction is stalled is not possible', () => {
    const device = new Device(identify(QEMU_LIKE, { STALL_MODEL: 0, STALL_MAX: 8 }));
    Object.defineProperty(device.smmu, 'stalled', { value: 2 });
    expect(() => saveSmmu(device.smmu)).toThrow('2 transactions are stalled');
  });
});
