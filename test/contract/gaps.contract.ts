/**
 * Gaps of QEMU's accelerated SMMUv3 (docs/qemu-gaps.md) that take a host to show, on either host. Where a host has to
 * refuse something it is given a reason to: the refusal is the kernel's own.
 */

import { describe, expect, it } from 'vitest';
import { describeIds, GUEST_DEFAULT, identify } from '../../src/smmu/identification.ts';
import { IOMMU_DESTROY, IOMMU_VEVENTQ_ALLOC } from '../../src/iommufd/uapi/iommufd.ts';
import { restoreSnapshot, takeSnapshot } from '../../src/machine/snapshot.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { BUFFERS, GapBench, nameOf, RAM, running, sidOf } from './gap-bench.ts';
import type { MakeRig } from './rig.ts';

/** An IOVA that is mapped, and one that is not. */
const GOOD = 0x1000_0000n;
const NOWHERE = 0x2000_0000n;

/** Entries of queues below: 2^LOG2. */
const LOG2 = 4;
const DEPTH = 2 ** LOG2;

/** Bytes of a record in a vEVENTQ, and the most that one read takes: 64, and a header that says that some were lost. */
const RECORD = 40;
const HEADER = 8;
const MOST = 64 * RECORD + HEADER;

const CR0_SMMUEN = 1;
const GBPA_ABORT = 1 << 20;
const GBPA_UPDATE = 1 << 31;

const AUTO = { ats: 'auto', ril: 'auto', oas: 'auto', ssidsize: 'auto' } as const;

/** Commands as a driver writes them: four words. */
const cfgiSte = (sid: number): Uint32Array => Uint32Array.of(0x03, sid, 1, 0);
const cfgiCd = (sid: number): Uint32Array => Uint32Array.of(0x05, sid, 1, 0);
const tlbiAsid = (asid: number): Uint32Array => Uint32Array.of(0x11, asid << 16, 0, 0);
const tlbiVa = (iova: bigint): Uint32Array => Uint32Array.of(0x12, 1 << 16, Number(iova) | 1, 0);

const fault = (index: number, iova = NOWHERE): string =>
  `F_TRANSLATION sid ${sidOf(index)} iova 0x${iova.toString(16)}`;

/** Fills the guest's queue, whose driver does not read meanwhile, and then the host's, and has some lost beyond that. */
function overflowing(bench: GapBench, lost: number): void {
  bench.interruptsOff = true;
  bench.faults(DEPTH, NOWHERE);
  bench.settle();
  bench.faults(DEPTH + lost, NOWHERE);
  bench.settle();
}

function letDriverRead(bench: GapBench): void {
  bench.interruptsOff = false;
  bench.guest.handleInterrupt('eventq');
  bench.settle();
}

export function gapsContract(makeRig: MakeRig): void {
  describe('the vEVENTQ', () => {
    it('gap 1: a new kernel gets nothing of the faults of the old one, and a queue of its own depth', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      bench.interruptsOff = true;
      bench.faults(10, NOWHERE);
      bench.reset();
      bench.interruptsOff = false;
      bench.settle();
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 + 2 });
      bench.settle();
      expect(bench.takeEvents()).toEqual([]);
      expect(bench.machine.state.veventq?.depth).toBe(4 * DEPTH);
      bench.attach();
      expect(bench.dma(NOWHERE)).toBe(false);
      expect(bench.takeEvents()).toEqual([fault(0)]);
      bench.unplug();
    });
    it('gap 1: a queue that the guest moves and resizes is another one on the host', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      const before = bench.machine.state.veventq;
      bench.guest.rebaseEventQueue(LOG2 + 1);
      bench.settle();
      expect(before?.depth).toBe(DEPTH);
      expect(bench.machine.state.veventq?.depth).toBe(2 * DEPTH);
      bench.interruptsOff = true;
      bench.faults(2 * DEPTH, NOWHERE);
      letDriverRead(bench);
      expect(bench.takeEvents()).toHaveLength(2 * DEPTH);
      expect(bench.guest.overflows).toBe(0);
      bench.unplug();
    });
    it('gap 2: a kdump kernel, which turns events off before SMMUEN, sees no error of its event queue', () => {
      const bench = new GapBench(makeRig());
      bench.plug();
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2, kdump: true });
      bench.attach();
      expect(bench.dma(NOWHERE)).toBe(false);
      expect(bench.machine.state.veventq).toBeUndefined();
      expect(bench.takeEvents()).toEqual([]);
      expect(bench.guest.warnings).toEqual([]);
      expect(bench.globalError).toBe(0);
      expect(bench.interrupts.gerror).toBe(0);
      bench.unplug();
    });
    it('gap 3: that the host refuses is asked for again, and events come from then on', () => {
      const rig = makeRig();
      const bench = new GapBench(rig);
      bench.plug();
      // Somebody has the only one of its type: EEXIST.
      const arg = IOMMU_VEVENTQ_ALLOC.encode({
        viommu_id: bench.machine.state.viommu ?? 0,
        type: 1,
        veventq_depth: 1,
      });
      expect(rig.kernel.ioctl(bench.iommufd, IOMMU_VEVENTQ_ALLOC.request, arg)).toBe(0);
      const { out_veventq_id: id, out_veventq_fd: fd } = IOMMU_VEVENTQ_ALLOC.decode(arg);
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      bench.settle();
      expect(bench.machine.state.veventq).toBeUndefined();
      expect([...bench.machine.state.failures.values()].map(({ code }) => code)).toEqual(['EEXIST']);
      rig.kernel.close(fd);
      rig.kernel.ioctl(bench.iommufd, IOMMU_DESTROY.request, IOMMU_DESTROY.encode({ id }));
      bench.retry();
      expect(bench.machine.state.failures.size).toBe(0);
      expect(bench.machine.state.veventq?.depth).toBe(DEPTH);
      bench.attach();
      expect(bench.dma(NOWHERE)).toBe(false);
      expect(bench.takeEvents()).toEqual([fault(0)]);
      bench.unplug();
    });
    it('gap 4: is the same whether the device or the driver comes first', () => {
      const rig = makeRig();
      const orders = [
        (bench: GapBench) => {
          bench.plug();
          bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
        },
        (bench: GapBench) => {
          bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
          bench.plug();
        },
        (bench: GapBench) => {
          bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
          bench.guest.setEventQueueEnabled(false);
          bench.plug();
          bench.guest.setEventQueueEnabled(true);
        },
      ];
      for (const order of orders) {
        const bench = new GapBench(rig);
        order(bench);
        bench.settle();
        expect(bench.machine.state.veventq?.depth).toBe(DEPTH);
        bench.attach();
        expect(bench.dma(NOWHERE)).toBe(false);
        expect(bench.takeEvents()).toEqual([fault(0)]);
        bench.unplug();
      }
    });
  });

  describe('events', () => {
    it('gap 5: what no queue has room for is an overflow to the guest, and no abort of its queue', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      overflowing(bench, 7);
      letDriverRead(bench);
      expect(bench.guest.overflows).toBe(1);
      expect(bench.globalError).toBe(0);
      expect(bench.interrupts.gerror).toBe(0);
      bench.unplug();
    });
    it('gap 6: every loss is shown, and every event counted as delivered or as lost', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      for (const lost of [5, 1, 9]) {
        overflowing(bench, lost);
        letDriverRead(bench);
        bench.interruptsOff = false;
        // The flag reaches the driver with the next interrupt at the latest.
        expect(bench.dma(NOWHERE)).toBe(false);
      }
      expect(bench.guest.overflows).toBe(3);
      expect(bench.machine.state.events).toMatchObject({
        delivered: 3 * (2 * DEPTH + 1),
        lostInHost: 5 + 1 + 9,
        refused: 0,
        discarded: 0,
        malformed: 0,
      });
      expect(bench.takeEvents()).toHaveLength(3 * (2 * DEPTH + 1));
      bench.unplug();
    });
    it('gap 8: what the guest has no room for waits in the host, and all of it arrives', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      overflowing(bench, 0);
      expect(bench.machine.smmu.eventQueueSpace()).toBe(0);
      expect(bench.machine.state.veventq?.paused).toBe(true);
      letDriverRead(bench);
      const wanted = Array.from({ length: DEPTH }, (_, i) => fault(0, NOWHERE + BigInt(i) * 0x1000n));
      expect(bench.takeEvents()).toEqual([...wanted, ...wanted]);
      expect(bench.guest.overflows).toBe(0);
      expect(bench.machine.state.events).toMatchObject({ delivered: 2 * DEPTH, lostInHost: 0 });
      bench.unplug();
    });
    it('gap 9: a read that finds nothing is not an end', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      bench.takeReads();
      expect(bench.watched.size).toBe(1);
      for (const ready of bench.watched.values()) ready();
      expect(bench.takeReads()).toMatchObject([{ got: 0 }]);
      expect(bench.dma(NOWHERE)).toBe(false);
      expect(bench.takeEvents()).toEqual([fault(0)]);
      expect(bench.machine.state.events).toMatchObject({ readErrors: 0, malformed: 0 });
      bench.unplug();
    });
    it('gap 10: that wait together come in one read and with one interrupt', () => {
      const { bench } = running(makeRig(), GOOD, 7);
      bench.takeReads();
      const before = bench.interrupts.eventq;
      bench.interruptsOff = true;
      bench.faults(40, NOWHERE);
      bench.settle();
      expect(bench.takeReads().filter(({ got }) => got > 0)).toEqual([{ asked: MOST, got: 40 * RECORD }]);
      expect(bench.interrupts.eventq - before).toBe(1);
      letDriverRead(bench);
      expect(bench.takeEvents()).toHaveLength(40);
      bench.unplug();
    });
    it('gap 36: a storm of one device takes 64 records a turn, and holds up neither commands nor another device', () => {
      const { bench } = running(makeRig(), GOOD, 7);
      bench.plug(1);
      bench.attach(1).map(GOOD, BUFFERS, 0x1000);
      bench.settle();
      bench.takeReads();
      bench.faults(100, NOWHERE);
      bench.faults(1, NOWHERE, 1);
      // A hundred records wait. The command queue is not behind them, nor is what it changes.
      bench.guest.attach(sidOf(1)).map(GOOD + 0x1000n, BUFFERS + 0x1000, 0x1000);
      expect(bench.dmaOnly(GOOD + 0x1000n, 1)).toBe(true);
      bench.settle();
      const reads = bench.takeReads().filter(({ got }) => got > 0);
      expect(reads.map(({ got }) => got)).toEqual([64 * RECORD, 37 * RECORD]);
      const events = bench.takeEvents();
      expect(events).toHaveLength(101);
      expect(events.at(-1)).toBe(fault(1));
      expect(bench.guest.warnings).toEqual([]);
      bench.unplug();
      bench.unplug(1);
    });
  });

  describe('invalidation', () => {
    it('gap 11: an unmap of many pages is one call, and none of them can be used afterwards', () => {
      const { bench, domain } = running(makeRig(), GOOD, LOG2);
      const last = GOOD + 0x8_f000n;
      domain.map(GOOD + 0x8_0000n, BUFFERS, 0x1_0000);
      expect(bench.dma(last, 0, BUFFERS + 0xf000)).toBe(true);
      bench.takeCalls();
      domain.unmap(GOOD + 0x8_0000n, 0x1_0000);
      expect(bench.takeCalls()).toEqual(['IOMMU_HWPT_INVALIDATE']);
      expect(bench.dma(last, 0, BUFFERS + 0xf000)).toBe(false);
      // As a driver without range invalidation does it: a command for each page.
      bench.takeCalls();
      bench.guest.commands.issueAndSync(
        ...Array.from({ length: 16 }, (_, i) => tlbiVa(GOOD + BigInt(i) * 0x1000n)),
      );
      expect(bench.takeCalls()).toEqual(['IOMMU_HWPT_INVALIDATE']);
      expect(bench.dma(GOOD)).toBe(true);
      bench.unplug();
    });
    it('gap 13: as long as the host cannot invalidate, nothing is translated', () => {
      const { bench, domain } = running(makeRig(), GOOD, LOG2);
      expect(bench.dma(GOOD)).toBe(true);
      // Without a vDEVICE the host knows no such StreamID: EIO.
      bench.destroy(bench.machine.state.devices[0].vdevice);
      domain.unmap(GOOD, 0x1000);
      domain.map(GOOD, BUFFERS + 0x1000, 0x1000);
      bench.guest.commands.issueAndSync(cfgiCd(sidOf(0)));
      expect(bench.machine.state.invalidations).toMatchObject({ failed: 1, resynced: 1, abandoned: 1 });
      expect(bench.machine.state.devices).toMatchObject([{ attached: 'abort', wanted: 'translate' }]);
      expect(bench.dma(GOOD)).toBe(false);
      bench.retry();
      expect(bench.dma(GOOD)).toBe(false);
      // Linux would skip a command that is called illegal, and what it was to invalidate.
      expect(bench.globalError).toBe(0);
      expect(bench.guest.commands.skipped).toEqual([]);
      bench.unplug();
      bench.plug();
      expect(bench.dma(GOOD, 0, BUFFERS + 0x1000)).toBe(true);
      bench.unplug();
    });
    it('gap 14: bits of commands that mean nothing reach the host as nothing', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      const before = bench.machine.state.invalidations.sent;
      // SSV and a SubstreamID without substreams; a VMID where there is no stage 2; ignored bits of TLBI_NH_ASID.
      const cd = cfgiCd(sidOf(0));
      cd[0] |= (1 << 11) | (5 << 12);
      const asid = tlbiAsid(1);
      asid[1] |= 0x77;
      bench.guest.commands.issueAndSync(cd, asid);
      expect(bench.machine.state.invalidations).toMatchObject({ sent: before + 2, failed: 0 });
      expect(bench.guest.commands.skipped).toEqual([]);
      expect(bench.globalError).toBe(0);
      expect(bench.dma(GOOD)).toBe(true);
      bench.unplug();
    });
    it('gap 15: what the host counts as done before an entry that it refuses, but held back, cannot be used', () => {
      const bench = new GapBench(makeRig());
      bench.plug();
      bench.plug(1);
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      bench.attach();
      bench.attach(1);
      const domain = bench.guest.attach(sidOf(0), bench.guest.createDomain({ lazy: true }));
      domain.map(GOOD, BUFFERS, 0x1000);
      expect(bench.dma(GOOD)).toBe(true);
      const [, second] = bench.machine.state.devices;
      bench.destroy(second.vdevice);
      domain.unmap(GOOD, 0x1000);
      // One window: the invalidation of the page, and then an entry that the host cannot know. It answers EIO for the
      // second, and has not issued the first.
      bench.guest.commands.issueAndSync(tlbiAsid(domain.asid), cfgiCd(sidOf(1)));
      expect(bench.machine.state.invalidations.failed).toBe(1);
      expect(bench.dma(GOOD)).toBe(false);
      expect(bench.guest.commands.skipped).toEqual([]);
      bench.unplug(1);
      bench.settle();
      expect(bench.machine.state.devices).toMatchObject([{ attached: 'translate' }]);
      bench.takeEvents();
      expect(bench.dma(GOOD)).toBe(false);
      expect(bench.takeEvents()).toEqual([fault(0, GOOD)]);
      bench.unplug();
    });
  });

  describe('streams', () => {
    it('gap 16: bypass to translate that the host refuses leaves no bypass', () => {
      const bench = new GapBench(makeRig());
      bench.plug();
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      bench.guest.addDevice({ sid: sidOf(0), name: '0000:00:01.0' });
      bench.guest.attachIdentity(sidOf(0));
      expect(bench.dma(BigInt(BUFFERS))).toBe(true);
      // Without a vDEVICE the host attaches no stage 1: ENOENT.
      bench.destroy(bench.machine.state.devices[0].vdevice);
      bench.guest.attach(sidOf(0)).map(GOOD, BUFFERS, 0x1000);
      expect(bench.machine.state.devices).toMatchObject([{ attached: 'abort', wanted: 'translate' }]);
      expect(bench.machine.state.devices[0].failure?.code).toBe('ENOENT');
      expect(bench.dma(BigInt(BUFFERS))).toBe(false);
      expect(bench.dma(GOOD)).toBe(false);
      bench.unplug();
    });
    it('gap 18: between SMMUEN=1 and its own STE no device reaches anything, and after SMMUEN=0 GBPA counts again', () => {
      const bench = new GapBench(makeRig());
      bench.plug();
      expect(bench.dma(BigInt(BUFFERS))).toBe(true);
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      expect(bench.dma(BigInt(BUFFERS))).toBe(false);
      bench.attach().map(GOOD, BUFFERS, 0x1000);
      expect(bench.dma(GOOD)).toBe(true);
      expect(bench.dma(BigInt(BUFFERS))).toBe(false);
      bench.guest.shutdown();
      expect(bench.dma(BigInt(BUFFERS))).toBe(true);
      bench.unplug();
    });
    it('gap 19: GBPA does not touch a stream while SMMUEN=1', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      bench.takeCalls();
      bench.machine.smmu.write(OFFSET.GBPA, 4, 0, (GBPA_UPDATE | GBPA_ABORT) >>> 0);
      expect(bench.takeCalls()).toEqual([]);
      expect(bench.dma(GOOD)).toBe(true);
      bench.guest.shutdown();
      expect(bench.dma(BigInt(BUFFERS))).toBe(false);
      bench.unplug();
    });
    it('gap 20: a second device, hot-plugged, reaches nothing before its driver has attached it', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      bench.plug(1);
      expect(bench.dma(BigInt(BUFFERS), 1)).toBe(false);
      bench.attach(1).map(GOOD, BUFFERS + 0x1000, 0x1000);
      bench.takeEvents();
      expect(bench.dma(GOOD, 1, BUFFERS + 0x1000)).toBe(true);
      expect(bench.dma(NOWHERE, 1)).toBe(false);
      expect(bench.takeEvents()).toEqual([fault(1)]);
      bench.unplug();
      bench.unplug(1);
    });
    it('gap 20: a second device, cold-plugged, is where GBPA says', () => {
      const bench = new GapBench(makeRig());
      bench.machine.smmu.write(OFFSET.GBPA, 4, 0, (GBPA_UPDATE | GBPA_ABORT) >>> 0);
      bench.plug();
      bench.plug(1);
      expect([0, 1].map((index) => bench.dma(BigInt(BUFFERS), index))).toEqual([false, false]);
      bench.machine.smmu.write(OFFSET.GBPA, 4, 0, GBPA_UPDATE >>> 0);
      expect([0, 1].map((index) => bench.dma(BigInt(BUFFERS), index))).toEqual([true, true]);
      bench.unplug();
      bench.unplug(1);
    });
    it('gap 21: DMA under an unknown StreamID is aborted, and C_BAD_STREAMID to the guest', () => {
      const bench = new GapBench(makeRig());
      bench.plug();
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      expect(bench.dma(BigInt(BUFFERS))).toBe(false);
      expect(bench.takeEvents()).toEqual([`C_BAD_STREAMID sid ${sidOf(0)} iova 0x0`]);
      expect(bench.guest.warnings).toEqual([]);
      bench.unplug();
    });
    it('gap 24: DMA under an STE with V=0 is aborted, and C_BAD_STE to the guest', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      expect(bench.dma(GOOD)).toBe(true);
      // STRTAB_BASE, the level 1 descriptor of StreamIDs 0 to 255, the STE.
      bench.memory.load64(0, bench.machine.smmu.registers[OFFSET.STRTAB_BASE >>> 2] & ~0x3f);
      bench.memory.store64(bench.memory.hi, (bench.memory.lo & ~0x3f) + sidOf(0) * 64, 0, 0);
      bench.guest.commands.issueAndSync(cfgiSte(sidOf(0)));
      expect(bench.dma(GOOD)).toBe(false);
      expect(bench.takeEvents()).toEqual([`C_BAD_STE sid ${sidOf(0)} iova 0x0`]);
      bench.unplug();
    });
    it('gap 22: a device behind another SMMU is refused at once, and taken by a virtual SMMU of its own', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      const before = bench.machine.state;
      const other = bench.makeMachine({ space: bench.machine.space, name: 'smmu1' });
      expect(() => bench.plug(2)).toThrow(/behind another physical SMMU/);
      expect(bench.machine.state.devices).toEqual(before.devices);
      bench.plug(2, other);
      expect(other.state.devices).toMatchObject([{ attached: 'bypass' }]);
      expect(bench.dma(BigInt(BUFFERS), 2)).toBe(true);
      expect(bench.dma(GOOD)).toBe(true);
      other.unplug(nameOf(2));
      bench.unplug();
    });
    it('gap 23: after bus renumbering translations and events are under the new StreamID', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      bench.machine.accelerator.setSid(nameOf(0), sidOf(7));
      bench.guest.addDevice({ sid: sidOf(7), name: '0000:07:00.0' });
      bench.guest.attach(sidOf(7)).map(GOOD, BUFFERS + 0x1000, 0x1000);
      expect(bench.dma(GOOD, 0, BUFFERS + 0x1000)).toBe(true);
      expect(bench.dma(NOWHERE)).toBe(false);
      expect(bench.takeEvents()).toEqual([fault(7)]);
      bench.guest.commands.issueAndSync(cfgiCd(sidOf(7)));
      expect(bench.machine.state.invalidations.failed).toBe(0);
      bench.unplug();
    });
    it('gap 25: a CFGI_STE for an STE that says the same costs no call, and an attachment one new table', () => {
      const bench = new GapBench(makeRig());
      bench.plug();
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      bench.attach().map(GOOD, BUFFERS, 0x1000);
      bench.guest.detach(sidOf(0));
      bench.takeCalls();
      bench.attach();
      expect(bench.takeCalls()).toEqual(['IOMMU_HWPT_ALLOC', 'VFIO_DEVICE_ATTACH_IOMMUFD_PT']);
      for (let i = 0; i < 3; i++) bench.guest.commands.issueAndSync(cfgiSte(sidOf(0)));
      expect(bench.takeCalls()).toEqual([]);
      expect(bench.dma(GOOD)).toBe(true);
      bench.unplug();
    });
    it('gap 26: a guest that comes up after a reset and invalidates nothing finds nothing in the caches', () => {
      const bench = new GapBench(makeRig());
      bench.plug();
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      bench.attach();
      const domain = bench.guest.attach(sidOf(0), bench.guest.createDomain({ lazy: true }));
      domain.map(GOOD, BUFFERS, 0x1000);
      expect(bench.dma(GOOD)).toBe(true);
      // Not invalidated: it is in the caches still.
      domain.unmap(GOOD, 0x1000);
      expect(bench.dma(GOOD)).toBe(true);
      const { registers } = bench.machine.smmu;
      const [hi, lo] = [registers[(OFFSET.STRTAB_BASE >>> 2) + 1], registers[OFFSET.STRTAB_BASE >>> 2]];
      const config = registers[OFFSET.STRTAB_BASE_CFG >>> 2];
      bench.reset();
      bench.machine.smmu.write(OFFSET.STRTAB_BASE, 8, hi, lo);
      bench.machine.smmu.write(OFFSET.STRTAB_BASE_CFG, 4, 0, config);
      bench.machine.smmu.write(OFFSET.CR0, 4, 0, CR0_SMMUEN);
      expect(bench.machine.state.devices).toMatchObject([{ attached: 'translate' }]);
      expect(bench.dma(GOOD)).toBe(false);
      bench.unplug();
    });
    it('gap 26: after a reset nothing of the old translations can be used', () => {
      const { bench } = running(makeRig(), GOOD, LOG2);
      expect(bench.dma(GOOD)).toBe(true);
      bench.reset();
      // GBPA bypass: the address is the guest's own, and nothing is there.
      expect(bench.dma(GOOD)).toBe(false);
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      bench.attach();
      bench.takeEvents();
      expect(bench.dma(GOOD)).toBe(false);
      expect(bench.takeEvents()).toEqual([fault(0, GOOD)]);
      bench.unplug();
    });
  });

  describe('the machine', () => {
    it('gap 28: goes on with host objects of its own, translates and reports as before', () => {
      const { bench, domain } = running(makeRig(), GOOD, LOG2);
      bench.interruptsOff = true;
      bench.faults(DEPTH, NOWHERE);
      bench.settle();
      bench.faults(3, NOWHERE);
      bench.settle();
      const snapshot = JSON.stringify(takeSnapshot(bench.machine));
      bench.unplug();
      const next = bench.makeMachine();
      next.mapRam(RAM, bench.ram);
      bench.machine = next;
      restoreSnapshot(next, JSON.parse(snapshot));
      bench.adopt(0, next.accelerator.device(nameOf(0))!.fd);
      letDriverRead(bench);
      expect(bench.takeEvents()).toHaveLength(DEPTH + 3);
      expect(bench.guest.overflows).toBe(0);
      expect(bench.dma(GOOD)).toBe(true);
      expect(bench.dma(NOWHERE)).toBe(false);
      expect(bench.takeEvents()).toEqual([fault(0)]);
      domain.unmap(GOOD, 0x1000);
      expect(bench.dma(GOOD)).toBe(false);
      expect(bench.guest.warnings).toEqual([]);
      bench.unplug();
    });
    it('gap 29: takes a device after the guest has seen properties that nobody set', () => {
      const bench = new GapBench(makeRig(), { ids: GUEST_DEFAULT, properties: AUTO });
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      const { ids } = bench.machine.smmu;
      bench.plug();
      expect(bench.machine.smmu.ids).toBe(ids);
      bench.attach().map(GOOD, BUFFERS, 0x1000);
      expect(bench.dma(GOOD)).toBe(true);
      bench.unplug();
    });
    it('gap 30: is lowered to the host instead of refused', () => {
      const bench = new GapBench(makeRig(), { ids: identify(GUEST_DEFAULT, { OAS: 5 }) });
      bench.plug();
      expect(describeIds(bench.machine.smmu.ids)).toMatchObject({ OAS: 4 });
      bench.guest.probe({ cmdqLog2: 8, eventqLog2: LOG2 });
      bench.attach().map(GOOD, BUFFERS, 0x1000);
      expect(bench.dma(GOOD)).toBe(true);
      bench.unplug();
    });
  });
}
