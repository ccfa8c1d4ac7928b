/** A device's DMA goes on while its guest changes the stream under it, and what did not change costs nothing. */

import { describe, expect, it } from 'vitest';
import { cfgiSte } from '../../src/guest/commands.ts';
import { IOMMUFD_IOCTLS } from '../../src/iommufd/uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../../src/iommufd/uapi/vfio.ts';
import { OUTCOME, type Outcome } from '../../src/smmu/transaction.ts';
import { BenchHost, BenchMachine, BUFFERS, RAM, sidOf } from '../support/bench-machine.ts';

const GOOD = 0x1000_0000n;
const ATTACH = 'VFIO_DEVICE_ATTACH_IOMMUFD_PT';
const NAMES = new Map<number, string>(
  [...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].map(({ request, ioctl }) => [request, ioctl]),
);

function running(): BenchMachine {
  const machine = new BenchMachine(new BenchHost());
  machine.plug();
  machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
  machine.attach().map(GOOD, BUFFERS, 0x1000);
  expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
  machine.host.ioctls = [];
  return machine;
}
/** Guest-physical address of the STE of device 0, in a two-level table. */
function steOf({ machine: { memory, smmu } }: BenchMachine): number {
  memory.load64(0, smmu.registers[0x80 >>> 2] & ~0x3f);
  return (memory.lo & ~0x3f) + 64 * sidOf(0);
}
/** Has device 0 do DMA before and after each call to the host. @returns how it ended each time. */
function dmaThroughout(machine: BenchMachine): Outcome[] {
  const { sim } = machine.host;
  const ioctl = sim.ioctl.bind(sim);
  const outcomes: Outcome[] = [];
  const access = (): void => void outcomes.push(machine.host.testers[0].dmaWrite32(GOOD, 1));
  sim.ioctl = (...args) => {
    access();
    const errno = ioctl(...args);
    access();
    return errno;
  };
  return outcomes;
}
/**
 * Another context descriptor whose tables map the same IOVA elsewhere: a copy of the CD, and of the tables down to the
 * page.
 * @returns the new pointer for STE.S1ContextPtr.
 */
function otherContext(machine: BenchMachine): number {
  const { memory } = machine.machine;
  const at = BUFFERS + 0x8_0000;
  const copy = (from: number, to: number, bytes: number): void => {
    for (let i = 0; i < bytes; i += 8) {
      memory.load64(0, from + i);
      memory.store64(0, to + i, memory.hi, memory.lo);
    }
  };
  const pointer = (address: number): number => {
    memory.load64(0, address);
    return memory.lo & ~0xfff;
  };
  memory.load64(0, steOf(machine));
  copy(memory.lo & ~0x3f, at, 64);
  memory.load64(0, at);
  // CD.ASID: what is cached under the old one stays the guest's business.
  memory.store64(0, at, (memory.hi & 0xffff) | (77 << 16), memory.lo);
  let table = pointer(at + 8);
  let link = at + 8;
  memory.load64(0, at);
  // TCR.T0SZ and the 4 KiB granule say where the walk starts.
  const levels = Math.ceil((64 - (memory.lo & 0x3f) - 12) / 9);
  for (let level = 0; level < levels; level++) {
    const to = at + 0x1000 * (level + 1);
    copy(table, to, 0x1000);
    memory.load64(0, link);
    memory.store64(0, link, memory.hi, ((memory.lo & 0xfff) | to) >>> 0);
    link = to + 8 * Number((GOOD >> BigInt(12 + 9 * (levels - 1 - level))) & 0x1ffn);
    table = pointer(link);
  }
  memory.load64(0, link);
  memory.store64(0, link, memory.hi, ((memory.lo & 0xfff) | (BUFFERS + 0x1000)) >>> 0);
  return at;
}
const word = ({ host }: BenchMachine, gpa: number): number =>
  new DataView(host.ram.buffer).getUint32(gpa - RAM, true);

describe('one translation for another', () => {
  it('is one replace: DMA between any two calls goes by the old tables or by the new ones, and never aborts', () => {
    const machine = running();
    const { memory } = machine.machine;
    const to = otherContext(machine);
    const ste = steOf(machine);
    memory.load64(0, ste);
    memory.store64(0, ste, memory.hi, ((memory.lo & 0x3f) | to) >>> 0);
    const outcomes = dmaThroughout(machine);
    machine.guest.commands.issueAndSync(cfgiSte(sidOf(0)));
    expect(machine.host.ioctls.map((request) => NAMES.get(request))).toEqual([
      'IOMMU_HWPT_ALLOC',
      ATTACH,
      'IOMMU_DESTROY',
    ]);
    expect(outcomes).toEqual(new Array(6).fill(OUTCOME.Ok));
    machine.host.testers[0].dmaWrite32(GOOD, 0x7777_7777);
    expect([word(machine, BUFFERS) === 0x7777_7777, word(machine, BUFFERS + 0x1000)]).toEqual([
      false,
      0x7777_7777,
    ]);
    expect(machine.takeEvents()).toEqual([]);
    machine.expectSettled();
    machine.close();
  });
  it('that the host refuses aborts: no DMA by either table, whichever call failed', () => {
    for (const ioctl of ['IOMMU_HWPT_ALLOC', ATTACH] as const) {
      const machine = running();
      const { memory } = machine.machine;
      const ste = steOf(machine);
      const to = otherContext(machine);
      memory.load64(0, ste);
      memory.store64(0, ste, memory.hi, ((memory.lo & 0x3f) | to) >>> 0);
      machine.host.sim.faults.add({ ioctl, errno: 'ENOMEM' });
      machine.guest.commands.issueAndSync(cfgiSte(sidOf(0)));
      expect(machine.dma(GOOD), ioctl).toBe(OUTCOME.Abort);
      machine.machine.accelerator.retry();
      expect(machine.dma(GOOD), ioctl).toBe(OUTCOME.Ok);
      machine.expectSettled();
      machine.close();
    }
  });
});

describe('what a guest does to one stream', () => {
  it('does not touch the DMA of another', () => {
    const machine = running();
    machine.plug(1);
    machine.attach(1).map(GOOD, BUFFERS + 0x2000, 0x1000);
    const outcomes = dmaThroughout(machine);
    for (let i = 0; i < 3; i++) {
      machine.guest.attach(sidOf(1), machine.guest.createDomain());
      machine.guest.detach(sidOf(1));
      machine.guest.attachIdentity(sidOf(1));
    }
    machine.unplug(1);
    machine.plug(1);
    machine.machine.accelerator.setSid('nic1', 77);
    expect(outcomes.length).toBeGreaterThan(20);
    expect(outcomes.every((outcome) => outcome === OUTCOME.Ok)).toBe(true);
    machine.close();
  });
  it('costs nothing if it changed nothing: CFGI_STE, CFGI_ALL, EVENTQ_CONS, GBPA with SMMUEN=1, the same CR0', () => {
    const machine = running();
    const { smmu } = machine.machine;
    machine.guest.commands.issueAndSync(cfgiSte(sidOf(0)), Uint32Array.of(4, 0, 31, 0), cfgiSte(99));
    smmu.write(0x20, 4, 0, smmu.read(0x20, 4));
    smmu.write(0x44, 4, 0, 0x8010_0000);
    smmu.write(0x44, 4, 0, 0x8000_0000);
    smmu.write(0x1_00ac, 4, 0, smmu.read(0x1_00ac, 4));
    expect(machine.host.ioctls).toEqual([]);
    machine.close();
  });
  it('costs nothing where only bits changed that the host does not know', () => {
    const machine = running();
    const { memory } = machine.machine;
    const ste = steOf(machine);
    memory.load64(0, ste + 8);
    // SHCFG, MEV and STRW; and words that a stage 1 does not use.
    memory.store64(0, ste + 8, memory.hi | (1 << 12), memory.lo | (1 << 19));
    memory.store64(0, ste + 40, 1, 2);
    machine.guest.commands.issueAndSync(cfgiSte(sidOf(0)));
    expect(machine.host.ioctls).toEqual([]);
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    machine.close();
  });
});
