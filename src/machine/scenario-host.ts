/** A host as scenarios need it: a kernel, devices by name, and a way to have them do DMA. Embedded or this machine's. */

import type { FaultKind } from '../iommufd/host-info.ts';
import type { Kernel } from '../iommufd/kernel.ts';
import type { VfioDevice } from '../iommufd/vfio-device.ts';
import type { IdRegisters } from '../smmu/identification.ts';
import type { Scheduler } from './scheduler.ts';

export interface DmaRequest {
  readonly device: string;
  /** The device's file, if it is plugged. */
  readonly vfio: VfioDevice | undefined;
  readonly write: boolean;
  readonly iova: bigint;
  /**
   * What a write sends, or what a read brought. A device that sends what it likes says here what it sent, whatever
   * became of it.
   */
  readonly bytes: Uint8Array;
  /** Guest memory that this device can reach, for devices that have to be loaded and emptied by DMA. */
  readonly workspace: () => Workspace;
  /** All of the guest's memory. */
  readonly ram: Uint8Array;
}

export interface Workspace {
  /** Where the device finds it. */
  readonly iova: bigint;
  /** At least 64 bytes, which may be changed. */
  readonly bytes: Uint8Array;
}

/** How a DMA ended; `wait`: not yet, for the guest has to answer a fault of it first. */
export type DmaOutcome = 'ok' | 'abort' | 'wait';

export interface ScenarioHost {
  readonly kernel: Kernel;
  /** For people: `embedded Linux 7.3 ...`. */
  readonly description: string;
  /** The most bytes that one DMA moves; more are not asked for. */
  readonly largestDma: number;
  /** How long consequences may take to show; 0 if all have happened when the scheduler is idle. */
  readonly patienceMs: number;
  /** What a guest may be told of its SMMU, so that all devices can be plugged. */
  fit(ids: IdRegisters): IdRegisters;
  /** Memory for a guest. @throws HostError */
  ram(size: number): Uint8Array;
  /** The VFIO device file. @throws RangeError if the host has no such device. */
  pathOf(device: string): string;
  /** Which faults of the device of this file the host hands over to user space. */
  faultsOf(path: string): FaultKind | undefined;
  /** @throws RangeError if the device cannot do it. @throws HostError */
  dma(request: DmaRequest): DmaOutcome | Promise<DmaOutcome>;
  /** Lets what is under way come to rest. @param stirred hardware was set off. @returns false if it does not. */
  settle(scheduler: Scheduler, stirred: boolean): Promise<boolean>;
  /** Live iommufd objects by kind; kinds without any are absent. */
  objects(): Record<string, number>;
  /** Gives everything back, whatever is still in use; another case may then begin. */
  close(): void;
}
