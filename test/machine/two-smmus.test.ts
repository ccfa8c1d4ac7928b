/** One guest with two virtual SMMUs, each for a physical one of its own: what they share, and what they do not. */

import { describe, expect, it } from 'vitest';
import { ReferenceGuest } from '../../src/guest/reference-guest.ts';
import { DmaTester } from '../../src/host/sim/functions/dma-tester.ts';
import { LAB_SMMU } from '../../src/host/sim/profiles.ts';
import { SimHost } from '../../src/host/sim/sim-host.ts';
import { Machine } from '../../src/machine/machine.ts';
import { Scheduler } from '../../src/machine/scheduler.ts';
import { Memory } from '../../src/memory/memory.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { BUFFERS, GUEST_IDS, RAM } from '../support/bench-machine.ts';

const GOOD = 0x1000_0000n;
const NOWHERE = 0x2000_0000n;
const MORE_RAM = 0x1_0000_0000;
/** Both devices have it: StreamIDs belong to their SMMU. */
const SID = 8;

class Two {
  readonly scheduler = new Scheduler();
  readonly host = new SimHost({ schedule: this.scheduler.post });
  readonly memory = new Memory();
  readonly testers: DmaTester[] = [];
  readonly machines: Machine[] = [];
  readonly guests: ReferenceGuest[] = [];

  constructor() {
    for (const index of [0, 1]) {
      const smmu = this.host.addSmmu({ name: `${index}.smmu`, ids: LAB_SMMU });
      const tester = new DmaTester(this.host.physicalMemory);
      this.testers.push(tester);
      this.host.addDevice({
        path: `/dev/vfio/devices/vfio${index}`,
        address: `000${index}:00:01.0`,
        smmu,
        sid: 0x20,
        function: tester,
      });
      const machine: Machine = new Machine({
        kernel: this.host,
        memory: this.memory,
        ids: GUEST_IDS,
        scheduler: this.scheduler,
        name: `smmu${index}`,
        interrupts: {
          raise: (line) => this.scheduler.post(() => this.guests[index].handleInterrupt(line)),
          writeMsi: () => true,
        },
        ...(index === 1 && { space: this.machines[0].space }),
      });
      this.machines.push(machine);
      if (index === 0) machine.addRam(RAM, new Uint8Array(0x40_0000));
      this.guests.push(
        new ReferenceGuest({
          registers: machine.smmu,
          memory: this.memory,
          ram: { base: RAM + index * 0x10_0000, size: 0x10_0000 },
          relax: () => void this.scheduler.run(),
          maxQueueBytes: 0x1000,
        }),
      );
    }
  }
  plug(index: number): void {
    this.machines[index].plug('nic', `/dev/vfio/devices/vfio${index}`, SID);
  }
  /** The driver of one SMMU, with its device translating one page. */
  start(index: number): void {
    this.guests[index].probe({ eventqLog2: 4 });
    this.plug(index);
    this.guests[index].addDevice({ sid: SID, name: `000${index}:00:01.0` });
    this.guests[index].attach(SID).map(GOOD, BUFFERS + index * 0x1000, 0x1000);
    this.settle();
  }
  settle(): void {
    expect(this.scheduler.run()).toBe(true);
  }
  reaches(index: number, iova: bigint): boolean {
    const outcome = this.testers[index].dmaWrite32(iova, 1);
    this.settle();
    return outcome === OUTCOME.Ok;
  }
  events(index: number): string[] {
    return this.guests[index].events.splice(0).map(({ name, sid, iova }) => `${name} ${sid} ${iova}`);
  }
  objects(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { type } of this.host.snapshotOfObjects()) counts[type] = (counts[type] ?? 0) + 1;
    return counts;
  }
}
/** One address space; of each an abort, a translation, and a tripwire from before there was an STE. */
const BOTH = { ioas: 1, hwpt_paging: 2, viommu: 2, hwpt_nested: 6, device: 2, vdevice: 2, veventq: 2 };
const ONE = { ioas: 1, hwpt_paging: 1, viommu: 1, hwpt_nested: 3, device: 1, vdevice: 1, veventq: 1 };

function started(): Two {
  const two = new Two();
  two.start(0);
  two.start(1);
  return two;
}

describe('two virtual SMMUs', () => {
  it('have one address space, and all else twice; one may go without the other noticing', () => {
    const two = started();
    expect(two.objects()).toEqual(BOTH);
    expect(two.host.openFiles).toBe(1 + 2 + 2);
    two.machines[0].unplug('nic');
    two.settle();
    expect(two.objects()).toEqual(ONE);
    expect([two.reaches(1, GOOD), two.reaches(1, NOWHERE)]).toEqual([true, false]);
    expect([two.events(0), two.events(1)]).toEqual([[], [`F_TRANSLATION ${SID} ${NOWHERE}`]]);
    two.plug(0);
    expect(two.reaches(0, GOOD)).toBe(true);
    two.machines[0].unplug('nic');
    two.machines[1].unplug('nic');
    two.settle();
    expect(two.objects()).toEqual({});
    expect(two.host.openFiles).toBe(0);
  });
  it('keep invalidations, aborts and faults of one from the other, also with the same StreamID and ASID', () => {
    const two = started();
    two.guests[0].attach(SID).unmap(GOOD, 0x1000);
    expect([two.reaches(0, GOOD), two.reaches(1, GOOD)]).toEqual([false, true]);
    // A host that cannot invalidate for the first takes only its streams away.
    two.host.faults.add({ ioctl: 'IOMMU_HWPT_INVALIDATE', errno: 'EIO', times: 1000 });
    two.guests[0].attach(SID).map(GOOD, BUFFERS, 0x1000);
    two.guests[0].attach(SID).unmap(GOOD, 0x1000);
    expect(two.machines.map(({ state }) => state.devices[0].attached)).toEqual(['abort', 'translate']);
    expect(two.reaches(1, GOOD)).toBe(true);
    two.host.faults.clear();
    expect(two.events(1)).toEqual([]);
  });
  it('have RAM that comes later both, at once, and lose it both', () => {
    const two = started();
    const ram = new Uint8Array(0x1_0000);
    two.machines[1].addRam(MORE_RAM, ram);
    two.guests.forEach((guest) => guest.attach(SID).map(0x5000n, MORE_RAM, 0x1000));
    expect([two.reaches(0, 0x5000n), two.reaches(1, 0x5000n)]).toEqual([true, true]);
    two.machines[0].unmapRam(MORE_RAM);
    expect([two.reaches(0, 0x5000n), two.reaches(1, 0x5000n)]).toEqual([false, false]);
    expect([two.reaches(0, GOOD), two.reaches(1, GOOD)]).toEqual([true, true]);
  });
  it('are reset together: nothing of either old guest is left, and no event comes to either new one', () => {
    const two = started();
    for (const tester of two.testers) tester.dmaWrite32(NOWHERE, 1);
    for (const index of [0, 1]) {
      two.guests[index].forget();
      two.machines[index].reset();
    }
    two.settle();
    // SMMUEN=0: a bypass each in place of the translation, and no event queue.
    expect(two.objects()).toEqual({ ...BOTH, veventq: undefined });
    for (const index of [0, 1]) {
      expect(two.reaches(index, GOOD)).toBe(false);
      two.guests[index].probe({ eventqLog2: 5 });
      two.settle();
      expect(two.events(index)).toEqual([]);
      expect(two.machines[index].state.veventq?.depth).toBe(32);
    }
  });
});
