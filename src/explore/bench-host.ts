/** The host of an exploration: a small Linux with one SMMU and a few DMA testers, and tasks that run one by one. */

import { hiOf, loOf } from '../bits/u64.ts';
import type { PciBus, PciFunction } from '../host/sim/pci-function.ts';
import { OUTCOME, type Outcome } from '../smmu/transaction.ts';
import type { ArmSmmu } from '../host/sim/arm-smmu-v3/arm-smmu.ts';
import { LAB_SMMU } from '../host/sim/profiles.ts';
import { SimHost } from '../host/sim/sim-host.ts';

/** Far enough from each other that the caches of the SMMU keep them apart. */
const FIRST_SID = 0x20;
const SID_STEP = 0x13;
/** A few pages are all that is ever translated. */
export const LOG2_TLB_ENTRIES = 6;

/** Does DMA, and has nothing else: no registers that matter, no interrupts. */
class DmaOnly implements PciFunction {
  readonly kind = 'dma-only';
  readonly regionSizes = [0, 0, 0, 0, 0, 0, 0, 0, 0];
  readonly irqCounts = [0, 0, 0, 0, 1];
  bus: PciBus | undefined;

  connect(bus: PciBus): void {
    this.bus = bus;
  }

  regionRead(_region: number, _offset: number, into: Uint8Array): void {
    into.fill(0);
  }

  regionWrite(): void {}

  reset(): void {}
}

export class BenchHost {
  readonly sim: SimHost;
  /** What waits for the host's event loop, oldest first. */
  readonly tasks: { readonly run: () => void; readonly label: string }[] = [];
  /** What tasks that come up now are called, to tell them apart. */
  label = '';
  readonly #smmu: ArmSmmu;
  readonly #functions: DmaOnly[] = [];

  /** @param devices how many, at most 8. */
  constructor(devices: number) {
    this.sim = new SimHost({ schedule: (run) => this.tasks.push({ run, label: this.label }) });
    this.#smmu = this.sim.addSmmu({
      name: '2b400000.iommu',
      ids: LAB_SMMU,
      log2TlbEntries: LOG2_TLB_ENTRIES,
    });
    for (let i = 0; i < devices; i++) this.provide(i);
  }

  /** Puts a device into the host, unless it is there. */
  provide(device: number): void {
    if (this.sim.device(pathOf(device)) !== undefined) return;
    const dma = new DmaOnly();
    this.sim.addDevice({
      path: pathOf(device),
      address: `0000:4${device}:00.0`,
      smmu: this.#smmu,
      sid: FIRST_SID + SID_STEP * device,
      function: dma,
    });
    this.#functions[device] = dma;
  }

  read(device: number, iova: bigint, into: Uint8Array): Outcome {
    return this.#functions[device].bus?.read(hiOf(iova), loOf(iova), into) ?? OUTCOME.Abort;
  }

  write(device: number, iova: bigint, from: Uint8Array): Outcome {
    return this.#functions[device].bus?.write(hiOf(iova), loOf(iova), from) ?? OUTCOME.Abort;
  }
}

export const pathOf = (device: number): string => `/dev/vfio/devices/vfio${device}`;
