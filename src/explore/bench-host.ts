/** The host of an exploration: a small Linux with one SMMU and a few DMA testers, and tasks that run one by one. */

import type { Outcome } from '../smmu/transaction.ts';
import { DmaTester } from '../host/sim/functions/dma-tester.ts';
import { LAB_SMMU } from '../host/sim/profiles.ts';
import { SimHost } from '../host/sim/sim-host.ts';

const FIRST_SID = 0x20;
/** A few pages are all that is ever translated. */
export const LOG2_TLB_ENTRIES = 6;

export class BenchHost {
  readonly sim: SimHost;
  /** What waits for the host's event loop, oldest first. */
  readonly tasks: (() => void)[] = [];
  readonly #testers: DmaTester[] = [];

  /** @param devices how many, at most 8. */
  constructor(devices: number) {
    this.sim = new SimHost({ schedule: (task) => this.tasks.push(task) });
    const smmu = this.sim.addSmmu({
      name: '2b400000.iommu',
      ids: LAB_SMMU,
      log2TlbEntries: LOG2_TLB_ENTRIES,
    });
    for (let i = 0; i < devices; i++) {
      const tester = new DmaTester();
      this.sim.addDevice({
        path: pathOf(i),
        address: `0000:4${i}:00.0`,
        smmu,
        sid: FIRST_SID + 8 * i,
        function: tester,
      });
      this.#testers.push(tester);
    }
  }

  read(device: number, iova: bigint, into: Uint8Array): Outcome {
    return this.#testers[device].dmaRead(iova, into);
  }

  write(device: number, iova: bigint, from: Uint8Array): Outcome {
    return this.#testers[device].dmaWrite(iova, from);
  }
}

export const pathOf = (device: number): string => `/dev/vfio/devices/vfio${device}`;
