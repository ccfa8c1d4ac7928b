/**
 * A whole machine in one process: the reference guest, the SMMU it sees, the accelerator, and the simulated host with DMA
 * testers. Cheap enough to make ten thousand times: the host is shared, and checked to be as empty as it was.
 */

import { expect } from 'vitest';
import { ReferenceGuest, type ReferenceGuestOptions } from '../../src/guest/reference-guest.ts';
import { DmaTester } from '../../src/host/sim/functions/dma-tester.ts';
import { LAB_SMMU } from '../../src/host/sim/profiles.ts';
import { SimHost, type DeviceDescription } from '../../src/host/sim/sim-host.ts';
import { Machine, type MachineOptions } from '../../src/machine/machine.ts';
import { Scheduler } from '../../src/machine/scheduler.ts';
import { Memory } from '../../src/memory/memory.ts';
import type { TraceRing } from '../../src/trace/trace-ring.ts';
import { GUEST_DEFAULT, identify, type IdRegisters } from '../../src/smmu/identification.ts';
import { OUTCOME, type Outcome } from '../../src/smmu/transaction.ts';

export const RAM = 0x4000_0000;
export const RAM_SIZE = 0x40_0000;
/** The last MiB is for DMA, the rest the driver's. */
export const BUFFERS = RAM + 0x30_0000;
/** What the guest sees on the lab's host: its 44 bits of address, and 16-bit queues. */
export const GUEST_IDS: IdRegisters = identify(GUEST_DEFAULT, { OAS: 4, EVENTQS: 16, CMDQS: 16 });

/** TLBs of 256 entries, which hold all that a test maps, and are soon made and emptied. */
const LOG2_TLB_ENTRIES = 8;

/** A device with the guest's StreamID 8 + index. */
export const sidOf = (index: number): number => 8 + index;
const nameOf = (index: number): string => `nic${index}`;
const pathOf = (index: number): string => `/dev/vfio/devices/vfio${index}`;

/** What a host may be besides the lab's, whose devices can do nothing special. */
export interface BenchHostOptions {
  readonly ids?: IdRegisters | undefined;
  readonly device?: Partial<DeviceDescription>;
  /** Its kernel hands page requests over, as Linux 7.3 does not. */
  readonly pageRequests?: boolean;
}

/** A host with two DMA testers. */
export class BenchHost {
  readonly scheduler = new Scheduler();
  readonly testers: readonly DmaTester[];
  readonly sim: SimHost;
  /** Calls that reached the kernel since the last look, by number. */
  ioctls: number[] = [];
  readonly ram = new Uint8Array(RAM_SIZE);

  constructor({ ids = LAB_SMMU, device = {}, pageRequests = false }: BenchHostOptions = {}) {
    this.sim = new SimHost({
      schedule: this.scheduler.post,
      onIoctl: (_fd, request) => this.ioctls.push(request),
    });
    const smmu = this.sim.addSmmu({
      name: 'arm-smmu-v3.0.auto',
      ids,
      pageRequests,
      log2TlbEntries: LOG2_TLB_ENTRIES,
    });
    this.testers = [0, 1].map((index) => {
      const tester = new DmaTester(this.sim.physicalMemory);
      // The physical StreamIDs are not the guest's.
      const sid = 0x20 + 8 * index;
      this.sim.addDevice({
        path: pathOf(index),
        address: `0000:00:0${4 + index}.0`,
        smmu,
        sid,
        function: tester,
        ...device,
      });
      return tester;
    });
  }

  /** Number of live objects of each kind. */
  objects(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { type } of this.sim.snapshotOfObjects()) counts[type] = (counts[type] ?? 0) + 1;
    return counts;
  }
}

export class BenchMachine {
  readonly host: BenchHost;
  readonly machine: Machine;
  readonly guest: ReferenceGuest;
  /** Devices that are plugged. */
  readonly plugged = new Set<number>();
  /** Interrupts reach the guest only while this is unset. */
  interruptsOff = false;

  /** Devices that the host took away. */
  readonly removed: string[] = [];

  constructor(
    host: BenchHost,
    options: Partial<ReferenceGuestOptions> = {},
    listens = false,
    trace?: TraceRing,
    more: Partial<MachineOptions> = {},
  ) {
    this.host = host;
    const memory = new Memory();
    this.machine = new Machine({
      kernel: host.sim,
      memory,
      ids: GUEST_IDS,
      log2TlbEntries: LOG2_TLB_ENTRIES,
      interrupts: {
        raise: (line) => {
          if (!this.interruptsOff) host.scheduler.post(() => this.guest.handleInterrupt(line));
        },
        writeMsi: (hi, lo, data) => memory.store32(hi, lo, data) === 0,
      },
      scheduler: host.scheduler,
      ...(trace !== undefined && { trace }),
      ...more,
      ...(listens && {
        removed: (name: string) => {
          this.removed.push(name);
          for (const index of this.plugged) if (nameOf(index) === name) this.plugged.delete(index);
        },
      }),
    });
    this.machine.addRam(RAM, host.ram);
    this.guest = new ReferenceGuest({
      registers: this.machine.smmu,
      memory,
      ram: { base: RAM, size: BUFFERS - RAM },
      relax: () => void host.scheduler.run(),
      maxQueueBytes: 0x1000,
      ...options,
    });
  }

  /** Lets everything that is under way come to rest. */
  settle(): void {
    expect(this.host.scheduler.run()).toBe(true);
  }

  /** Plugs a device, unless it is plugged. */
  plug(index = 0): void {
    if (this.plugged.has(index)) return;
    this.machine.plug(nameOf(index), pathOf(index), sidOf(index));
    this.plugged.add(index);
  }

  unplug(index = 0): void {
    if (this.plugged.delete(index)) this.machine.unplug(nameOf(index));
  }

  /** System reset: the driver is gone without a word. */
  reset(): void {
    this.guest.forget();
    this.machine.reset();
  }

  /** Tells the guest's driver of a device, if need be, and gives it a domain. */
  attach(index = 0): ReturnType<ReferenceGuest['attach']> {
    const sid = sidOf(index);
    try {
      this.guest.device(sid);
    } catch {
      // A driver knows which devices may stall and have ATS; it counts only where the SMMU has that.
      this.guest.addDevice({
        sid,
        name: `0000:00:0${index + 1}.0`,
        canStall: true,
        // The host turns the device's own switch.
        ats: { enable() {}, disable() {} },
      });
    }
    return this.guest.attach(sid);
  }

  /** The device writes 4 bytes, and all that follows from it happens. */
  dma(iova: bigint, index = 0): Outcome {
    const outcome = this.host.testers[index].dmaWrite32(iova, 0xabcd_0123);
    this.settle();
    return outcome;
  }

  /** As {@link dma}, but what follows from it is left to come. */
  dmaOnly(iova: bigint, index = 0): boolean {
    return this.host.testers[index].dmaWrite32(iova, 0xabcd_0123) === OUTCOME.Ok;
  }

  /** Names and addresses of the events that the guest has read, which forgets them. */
  takeEvents(): string[] {
    return this.guest.events
      .splice(0)
      .map(({ name, sid, iova }) => `${name} sid ${sid} iova 0x${iova.toString(16)}`);
  }

  /** Gives everything back: the host must be as empty as before. */
  close(): void {
    for (const index of this.plugged) this.unplug(index);
    this.settle();
    expect(this.host.objects()).toEqual({});
    expect(this.host.sim.openFiles).toBe(0);
  }

  /**
   * What must hold after anything: the vEVENTQ is there exactly if both conditions are met, with the depth of the guest's
   * queue; the host has the objects that this needs and no others; nothing failed; and reconciling again makes no call.
   */
  expectSettled(): void {
    this.settle();
    const { smmu, accelerator } = this.machine;
    const { viommu, veventq, failures, devices, faults } = accelerator.state;
    const faultQueues = faults.filter(({ id }) => id !== undefined).length;
    const present = this.plugged.size > 0;
    expect([...failures.values()]).toEqual([]);
    expect(viommu !== undefined).toBe(present);
    expect(veventq !== undefined).toBe(present && smmu.eventqEnabled);
    if (veventq !== undefined) expect(veventq.depth).toBe(2 ** smmu.eventqLog2Size);
    for (const { attached, wanted } of devices) expect(attached).toBe(wanted);

    const objects = this.host.objects();
    if (!present) {
      expect(objects).toEqual({});
      expect(this.host.sim.openFiles).toBe(0);
    } else {
      // The abort table is always there, the bypass table and the tripwire once they were needed; one more for each
      // translation.
      const translations = new Set(
        devices.filter(({ attached }) => attached === 'translate').map(({ hwpt }) => hwpt),
      );
      const nested = objects.hwpt_nested - translations.size;
      expect([1, 2, 3]).toContain(nested);
      expect({ ...objects, hwpt_nested: nested }).toEqual({
        ioas: 1,
        hwpt_paging: 1,
        viommu: 1,
        hwpt_nested: nested,
        device: this.plugged.size,
        vdevice: this.plugged.size,
        ...(veventq !== undefined && { veventq: 1 }),
        ...(faultQueues > 0 && { fault: faultQueues }),
      });
      // iommufd, one VFIO file a device, the vEVENTQ, FAULT_QUEUEs.
      const queues = (veventq === undefined ? 0 : 1) + faultQueues;
      expect(this.host.sim.openFiles).toBe(1 + this.plugged.size + queues);
    }

    this.host.ioctls = [];
    accelerator.streamsChanged(0, 0xffff_ffff);
    accelerator.eventQueueChanged();
    accelerator.retry();
    expect(this.host.ioctls).toEqual([]);
  }
}
