/** The embedded host as a scenario describes it: one physical SMMU, and a VFIO device for each named device. */

import { hiOf, loOf } from '../bits/u64.ts';
import { DmaTester } from '../host/sim/functions/dma-tester.ts';
import { NvmeFunction } from '../host/sim/functions/nvme.ts';
import type { PciFunction } from '../host/sim/pci-function.ts';
import type { PciSlot } from '../host/sim/pci-slot.ts';
import { LAB_SMMU, PRI_SMMU, SERVER_SMMU } from '../host/sim/profiles.ts';
import { SimHost } from '../host/sim/sim-host.ts';
import type { FaultKind } from '../iommufd/host-info.ts';
import type { Kernel } from '../iommufd/kernel.ts';
import type { IdRegisters } from '../smmu/identification.ts';
import { OUTCOME } from '../smmu/transaction.ts';
import type { DmaOutcome, DmaRequest, ScenarioHost } from './scenario-host.ts';
import type { Scheduler } from './scheduler.ts';

export interface HostDevice {
  readonly name: string;
  readonly function: 'dma-tester' | 'nvme';
  /** Which of its faults the host hands over to user space. */
  readonly faults?: FaultKind | undefined;
}

/**
 * Which physical SMMU: like QEMU's own, or a server part with ATS, SubstreamIDs, stalls and forced write-back.
 * `server-with-pri` has a PRI queue too, and a kernel that hands page requests over: **no Linux 7.3 does**.
 */
export type EmbeddedSmmu = 'qemu' | 'server' | 'server-with-pri';

const SMMUS: Readonly<Record<EmbeddedSmmu, IdRegisters>> = {
  qemu: LAB_SMMU,
  server: SERVER_SMMU,
  'server-with-pri': PRI_SMMU,
};

export interface EmbeddedHostOptions {
  readonly devices: readonly HostDevice[];
  readonly smmu: EmbeddedSmmu;
  readonly scheduler: Scheduler;
  /** Told every line of the host's log. */
  readonly log?: (line: string) => void;
  /** Milliseconds, for the limit on log lines; without it time stands still. */
  readonly now?: () => number;
}

/** Where the host's own buses put the devices; nothing that a guest sees. */
const FIRST_BUS = 0x41;

export class EmbeddedHost implements ScenarioHost {
  readonly description: string;
  readonly largestDma = Number.MAX_SAFE_INTEGER;
  readonly patienceMs = 0;
  readonly #host: SimHost;
  readonly #slots = new Map<string, PciSlot>();
  readonly #faults = new Map<string, FaultKind>();
  readonly #scheduler: Scheduler;

  constructor({ devices, smmu: profile, scheduler, log, now }: EmbeddedHostOptions) {
    const pageRequests = profile === 'server-with-pri';
    this.description = pageRequests
      ? 'embedded iommufd that hands page requests over, as no Linux 7.3 does, over a simulated SMMUv3'
      : 'embedded Linux 7.3 iommufd over a simulated SMMUv3';
    this.#scheduler = scheduler;
    this.#host = new SimHost({
      schedule: scheduler.post,
      ...(log !== undefined && { log }),
      ...(now !== undefined && { now }),
    });
    const smmu = this.#host.addSmmu({
      name: '2b400000.iommu',
      ids: SMMUS[profile],
      pageRequests,
    });
    for (const [i, { name, function: kind, faults }] of devices.entries()) {
      const bus = FIRST_BUS + i;
      const slot = this.#host.addDevice({
        path: `/dev/vfio/devices/vfio${i}`,
        address: `0000:${bus.toString(16)}:00.0`,
        smmu,
        sid: bus << 8,
        // The server's root complex and devices have it.
        ats: profile !== 'qemu',
        stalls: faults === 'stall',
        pageRequests: faults === 'page-request',
        function: makeFunction(kind, name, scheduler),
      });
      this.#slots.set(name, slot);
      // A kernel that denies page requests hands none over, whatever the device does.
      if (faults === 'stall' || (faults === 'page-request' && pageRequests))
        this.#faults.set(slot.path, faults);
    }
  }

  get kernel(): Kernel {
    return this.#host;
  }

  /** The VFIO device file. */
  pathOf(name: string): string {
    return this.#slot(name).path;
  }

  faultsOf(path: string): FaultKind | undefined {
    return this.#faults.get(path);
  }

  /** Its SMMU has what the default guest is told of. */
  fit(ids: IdRegisters): IdRegisters {
    return ids;
  }

  ram(size: number): Uint8Array {
    return new Uint8Array(size);
  }

  /** Has a device do one DMA on its own account, plugged or not. One that stalls is given the time to go on. */
  dma({ device, write, iova, bytes }: Pick<DmaRequest, 'device' | 'write' | 'iova' | 'bytes'>): DmaOutcome {
    const slot = this.#slot(device);
    const [hi, lo] = [hiOf(iova), loOf(iova)];
    let outcome = write ? slot.write(hi, lo, bytes) : slot.read(hi, lo, bytes);
    if (outcome === OUTCOME.Stalled) {
      slot.ended = (later) => void (outcome = later);
      this.#scheduler.run();
      slot.ended = undefined;
    }
    if (outcome === OUTCOME.Stalled) return 'wait';
    return outcome === OUTCOME.Ok ? 'ok' : 'abort';
  }

  settle(scheduler: Scheduler): Promise<boolean> {
    return Promise.resolve(scheduler.run());
  }

  /** There is nothing that outlives it. */
  close(): void {}

  /** Live iommufd objects by kind. */
  objects(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { type } of this.#host.snapshotOfObjects()) counts[type] = (counts[type] ?? 0) + 1;
    return counts;
  }

  #slot(name: string): PciSlot {
    const slot = this.#slots.get(name);
    if (slot === undefined) throw new RangeError(`The host has no device "${name}"`);
    return slot;
  }
}

function makeFunction(kind: HostDevice['function'], name: string, scheduler: Scheduler): PciFunction {
  if (kind === 'dma-tester') return new DmaTester();
  const nvme: NvmeFunction = new NvmeFunction({
    serial: `vsmmu-${name}`.slice(0, 20),
    defer: () => scheduler.post(() => void nvme.run()),
  });
  return nvme;
}
