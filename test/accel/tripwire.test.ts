import { describe, expect, it } from 'vitest';
import { rename, tripped } from '../../src/accel/tripwire.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import { Bench } from '../support/accelerated.ts';
import { BenchHost, BenchMachine, BUFFERS, RAM, RAM_SIZE, sidOf } from '../support/bench-machine.ts';
import { ABORT_STE, s1Ste } from '../support/scripted-guest.ts';

const C_BAD_STREAMID = 2;
const F_STE_FETCH = 3;
const C_BAD_STE = 4;
/** CR2 with RECINVSID. */
const RECINVSID = 2;
/** Where the page of zeros is, while RAM is elsewhere. */
const ZEROS = 0x0810_0000;
const TRIPPED = `translate ${ZEROS.toString(16)}`;

/** A guest that listens, with one device. */
function listening(ste: readonly number[] | number, cr2 = RECINVSID): Bench {
  const bench = new Bench();
  bench.guest.registers[OFFSET.CR2 >>> 2] = cr2;
  bench.guest.stes.set(8, ste);
  bench.guest.setEventqen(true);
  bench.guest.setSmmuen(true);
  bench.plug();
  return bench;
}

describe('a stream without a valid STE', () => {
  it.each([C_BAD_STREAMID, F_STE_FETCH, C_BAD_STE])('gap 21 and 24: is reported (event %i)', (event) => {
    const bench = listening(event);
    expect(bench.host.attached(0)).toBe(TRIPPED);
    expect(bench.accelerator.state.devices).toMatchObject([
      { attached: 'abort', wanted: 'abort', event, reported: true },
    ]);
    bench.expectSettled(1);
  });
  it('is not, if the event queue is off: the host would print the events', () => {
    const bench = listening(C_BAD_STE);
    bench.guest.setEventqen(false);
    expect(bench.host.attached(0)).toBe('abort');
    expect(bench.accelerator.state.devices).toMatchObject([{ event: C_BAD_STE, reported: false }]);
    bench.guest.setEventqen(true);
    expect(bench.host.attached(0)).toBe(TRIPPED);
    bench.expectSettled(1);
  });
  it('is not, if the StreamID is unknown and RECINVSID=0', () => {
    const bench = listening(C_BAD_STREAMID, 0);
    expect(bench.host.attached(0)).toBe('abort');
    expect(listening(F_STE_FETCH, 0).host.attached(0)).toBe(TRIPPED);
  });
  it('is not, while SMMUEN=0, or if the STE says abort', () => {
    const bench = listening(ABORT_STE);
    expect(bench.host.attached(0)).toBe('abort');
    bench.guest.setSmmuen(false);
    bench.guest.setSte(8, C_BAD_STE);
    expect(bench.host.attached(0)).toBe('bypass');
  });
  it('is not, without a StreamID', () => {
    const bench = new Bench();
    bench.guest.setEventqen(true);
    bench.guest.setSmmuen(true);
    bench.accelerator.plug({ name: 'd0', path: '/dev/vfio/devices/vfio0' });
    expect(bench.host.attached(0)).toBe('abort');
  });
  it('aborts in silence if the host has no room for the page', () => {
    const bench = new Bench();
    bench.guest.stes.set(8, C_BAD_STE);
    bench.guest.setEventqen(true);
    bench.guest.setSmmuen(true);
    let maps = 0;
    bench.host.failing = (name) => (name === 'IOMMU_IOAS_MAP' && ++maps > 1 ? ERRNO.ENOMEM : 0);
    bench.plug();
    expect(bench.host.attached(0)).toBe('abort');
    expect(bench.accelerator.state.failures.get('device d0')).toMatchObject({ operation: 'IOMMU_IOAS_MAP' });
    bench.host.failing = () => 0;
    bench.accelerator.retry();
    expect(bench.host.attached(0)).toBe(TRIPPED);
    bench.expectSettled(1);
    bench.unplug();
    bench.expectSettled(0);
  });
  it('shares its table with others, which is made once', () => {
    const bench = listening(C_BAD_STE);
    bench.guest.stes.set(9, F_STE_FETCH);
    bench.takeIoctls();
    bench.plug(1);
    expect(bench.takeIoctls()).not.toContain('IOMMU_HWPT_ALLOC');
    bench.guest.setSte(8, s1Ste(0x5000));
    bench.guest.setSte(9, s1Ste(0x5000));
    bench.takeIoctls();
    bench.guest.setSte(8, C_BAD_STE);
    expect(bench.takeIoctls()).toEqual(['VFIO_DEVICE_ATTACH_IOMMUFD_PT']);
    bench.expectSettled(2);
  });
});

describe('the page of zeros', () => {
  it('gives way to RAM, and no stream points there when the RAM is mapped', () => {
    const bench = listening(C_BAD_STE);
    bench.takeIoctls();
    bench.accelerator.addRam(0x0800_0000 + 0x10_0000, new Uint8Array(0x1_0000));
    expect(bench.host.attached(0)).toBe('translate 7ff0000');
    expect(bench.takeIoctls()).toEqual([
      'IOMMU_IOAS_MAP',
      'IOMMU_HWPT_ALLOC',
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
      'IOMMU_DESTROY',
      'IOMMU_IOAS_UNMAP',
      'IOMMU_IOAS_MAP',
    ]);
    bench.expectSettled(1);
  });
  it('does not give way while a stream cannot be taken off it: the RAM is refused', () => {
    const bench = listening(C_BAD_STE);
    bench.host.failing = (name) => (name.startsWith('VFIO_DEVICE') ? ERRNO.EIO : 0);
    expect(() => bench.accelerator.addRam(0x0810_0000, new Uint8Array(0x1_0000))).toThrow('EBUSY');
    bench.host.failing = () => 0;
    bench.accelerator.retry();
    bench.accelerator.addRam(0x0810_0000, new Uint8Array(0x1_0000));
    bench.expectSettled(1);
    bench.unplug();
    bench.expectSettled(0);
  });
  it('is nowhere if RAM is everywhere, and then the abort is silent', () => {
    const bench = listening(C_BAD_STE);
    for (const gpa of [0x0810_0000, 0x07ff_0000, 0xffff_0000, 0x0001_0000])
      bench.accelerator.addRam(gpa, new Uint8Array(0x1_0000));
    expect(bench.host.attached(0)).toBe('abort');
    expect(bench.accelerator.state.devices).toMatchObject([{ event: C_BAD_STE, reported: false }]);
    bench.expectSettled(1);
  });
  it('is shared by the vSMMUs of a machine', () => {
    const bench = listening(C_BAD_STE);
    const other = new Bench({ beside: bench });
    other.guest.registers[OFFSET.CR2 >>> 2] = RECINVSID;
    other.guest.setEventqen(true);
    other.guest.setSmmuen(true);
    bench.takeIoctls();
    other.plug(2);
    expect(bench.takeIoctls()).not.toContain('IOMMU_IOAS_MAP');
    bench.accelerator.addRam(0x0810_0000, new Uint8Array(0x1_0000));
    expect([bench.host.attached(0), bench.host.attached(2)]).toEqual([
      'translate 7ff0000',
      'translate 7ff0000',
    ]);
    bench.unplug(0);
    other.unplug(2);
    expect(bench.host.objects).toEqual({});
  });
});

describe('a record of a tripwire', () => {
  const record = (...words: number[]): Uint32Array =>
    Uint32Array.from({ length: 8 }, (_, i) => words[i] ?? 0);
  it('is C_BAD_CD, or C_BAD_SUBSTREAMID, and nothing else', () => {
    expect(Array.from({ length: 256 }, (_, type) => type).filter((type) => tripped(record(type)))).toEqual([
      0x08, 0x0a,
    ]);
  });
  it('keeps StreamID and SubstreamID only', () => {
    const words = record(0xffff_f80a, 9, 0xffff, 5, 6, 7, 8, 9);
    rename(words, { event: C_BAD_STREAMID, fetchHi: 1, fetchLo: 8 });
    expect([...words]).toEqual([0xffff_f802, 9, 0, 0, 0, 0, 0, 0]);
  });
  it('has SSV=1 after C_BAD_SUBSTREAMID, which has none', () => {
    const words = record(0x0000_3008, 9);
    rename(words, { event: C_BAD_STE, fetchHi: 0, fetchLo: 0 });
    expect([...words]).toEqual([0x0000_3804, 9, 0, 0, 0, 0, 0, 0]);
  });
  it('has no SubstreamID with SSV=0', () => {
    const words = record(0x0000_300a, 9);
    rename(words, { event: C_BAD_STE, fetchHi: 0, fetchLo: 0 });
    expect([...words]).toEqual([0x04, 9, 0, 0, 0, 0, 0, 0]);
  });
  it('has the address for F_STE_FETCH', () => {
    const words = record(0x0a, 9);
    rename(words, { event: F_STE_FETCH, fetchHi: 2, fetchLo: 0x40 });
    expect([...words]).toEqual([0x03, 9, 0, 0, 0, 0, 0x40, 2]);
  });
});

describe('on the embedded host', () => {
  const NOWHERE = 0x2000_0000n;
  function probed(): BenchMachine {
    const machine = new BenchMachine(new BenchHost());
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    machine.plug();
    return machine;
  }
  const store = (machine: BenchMachine, gpa: number, lo: number, hi = 0): void =>
    void machine.machine.memory.store64(0, gpa, hi, lo);
  /** The pointer in the 64-bit word there. */
  const pointer = (machine: BenchMachine, gpa: number): number => {
    machine.machine.memory.load64(0, gpa);
    return machine.machine.memory.lo & ~0x3f;
  };
  /** Address of the level 1 descriptor of StreamIDs 0..255. */
  const l1 = (machine: BenchMachine): number => machine.machine.smmu.registers[0x80 >>> 2] & ~0x3f;

  it('gap 21: DMA under an unknown StreamID is C_BAD_STREAMID to the guest', () => {
    const machine = probed();
    expect(machine.dma(NOWHERE)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual(['C_BAD_STREAMID sid 8 iova 0x0']);
    expect(machine.guest.warnings).toEqual([]);
    machine.close();
  });
  it('gap 21: an STE that cannot be fetched is F_STE_FETCH, with its address', () => {
    const machine = probed();
    // Span 9 at 8 GiB, where nothing is.
    store(machine, l1(machine), 9, 2);
    machine.machine.accelerator.streamsChanged(8, 8);
    machine.dma(NOWHERE);
    const [event] = machine.guest.events.splice(0);
    expect(event).toMatchObject({ name: 'F_STE_FETCH', sid: 8 });
    expect([event.words[7], event.words[6]]).toEqual([2, 8 * 64]);
    machine.close();
  });
  it('gap 24: an STE with V=0 is C_BAD_STE', () => {
    const machine = probed();
    machine.attach();
    const ste = pointer(machine, l1(machine)) + 8 * 64;
    store(machine, ste, 0);
    machine.guest.commands.issueAndSync(Uint32Array.of(3, 8, 1, 0));
    machine.dma(NOWHERE);
    expect(machine.takeEvents()).toEqual(['C_BAD_STE sid 8 iova 0x0']);
    machine.close();
  });
  it('gap 24: a stream table entry that appears without a CFGI is seen after the next DMA', () => {
    const machine = probed();
    machine.guest.addDevice({ sid: sidOf(0), name: '0000:01:00.0' });
    // The driver has made an abort STE and told nobody, as an SMMU that caches no failures needs not be told.
    expect(machine.dma(NOWHERE)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual(['C_BAD_STREAMID sid 8 iova 0x0']);
    expect(machine.machine.accelerator.state.devices).toMatchObject([{ attached: 'abort', reported: false }]);
    expect(machine.dma(NOWHERE)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual([]);
    machine.expectSettled();
    machine.close();
  });
  it('records that wait in the host while the guest mends its STE keep their name', () => {
    const machine = probed();
    machine.interruptsOff = true;
    for (const count of [16, 10]) {
      for (let i = 0; i < count; i++) machine.dmaOnly(NOWHERE + BigInt(i) * 0x1000n);
      machine.settle();
    }
    machine.attach().map(0x1000n, BUFFERS, 0x1000);
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    const events = machine.takeEvents();
    expect(events).toHaveLength(26);
    expect(new Set(events)).toEqual(new Set(['C_BAD_STREAMID sid 8 iova 0x0']));
    expect(machine.dma(0x1000n)).toBe(OUTCOME.Ok);
    machine.close();
  });
  it("a real C_BAD_CD of the guest's own keeps its name", () => {
    const machine = probed();
    machine.attach();
    machine.dma(NOWHERE);
    machine.takeEvents();
    const ste = pointer(machine, l1(machine)) + 8 * 64;
    const cd = pointer(machine, ste);
    store(machine, cd, 0);
    machine.guest.commands.issueAndSync(Uint32Array.of(5, 8, 1, 0));
    machine.dma(NOWHERE);
    expect(machine.takeEvents()).toEqual(['C_BAD_CD sid 8 iova 0x0']);
    machine.close();
  });
  it('reaches nothing by the page of zeros, not even by its own address', () => {
    const machine = probed();
    for (const iova of [0n, BigInt(ZEROS), BigInt(RAM), BigInt(RAM + RAM_SIZE - 0x1000)])
      expect(machine.dma(iova)).toBe(OUTCOME.Abort);
    machine.close();
  });
  it('nobody can write the page of zeros, not even a device that bypasses', () => {
    const machine = probed();
    machine.plug(1);
    machine.guest.addDevice({ sid: sidOf(1), name: '0000:02:00.0' });
    machine.guest.attachIdentity(sidOf(1));
    expect(machine.dma(BigInt(BUFFERS), 1)).toBe(OUTCOME.Ok);
    expect(machine.dma(BigInt(ZEROS), 1)).toBe(OUTCOME.Abort);
    machine.close();
  });
});
