/** A PCI function of the simulated host in its place: behind an SMMU, with interrupts, bound to vfio-pci. */

import { hiOfNumber, loOfNumber } from '../../bits/u64.ts';
import { VFIO_PCI_REQ_IRQ_INDEX } from '../../iommufd/uapi/vfio.ts';
import type { Outcome } from '../../smmu/transaction.ts';
import { Master } from './arm-smmu-v3/master.ts';
import type { ArmSmmu } from './arm-smmu-v3/arm-smmu.ts';
import { DeviceDma } from './device-dma.ts';
import type { EventFd } from './eventfd.ts';
import type { IommuGroup } from './iommufd/bound-device.ts';
import type { MsiController } from './msi.ts';
import type { PciBus, PciFunction } from './pci-function.ts';

export interface PciSlotOptions {
  readonly path: string;
  /** PCI address: domain, bus, device, function. */
  readonly address: string;
  readonly smmu: ArmSmmu;
  readonly sids: readonly number[];
  readonly function: PciFunction;
  readonly group: IommuGroup;
  readonly ats: boolean;
  readonly pasidBits: number;
  readonly canwbs: boolean;
  readonly stalls: boolean;
  readonly dmaCanStall: boolean;
  readonly pageRequests: boolean;
  readonly msi: MsiController;
  /** Message-signalled interrupts are writes that the SMMU translates, or reach their vectors directly. */
  readonly translateMsi: boolean;
}

/** VFIO's interrupt indices that have vectors of their own. */
const INDEX = { intx: 0, msi: 1, msix: 2 } as const;

interface Vector {
  readonly eventfd: EventFd;
  /** Number to write to the doorbell; undefined for INTx and the like. */
  readonly message: number | undefined;
}

export class PciSlot implements PciBus {
  readonly path: string;
  readonly address: string;
  readonly smmu: ArmSmmu;
  readonly function: PciFunction;
  readonly group: IommuGroup;
  readonly master: Master;
  /** Where the device's messages go: the doorbell as the device sees it. */
  doorbell: number;
  /** Which of VFIO's interrupt indices INTx, MSI and MSI-X is on, if any: with or without eventfds. */
  irqKind: number | undefined;
  /** How many vectors of that kind the device was given when it was turned on. */
  irqCount = 0;
  /** Bound by VFIO; only one descriptor can have that. */
  bound = false;
  /** Number of open descriptors. */
  openCount = 0;
  /** Asked to go: nobody can open it any more. */
  leaving = false;
  /** Told how a transfer ended that had stalled, besides the function itself. */
  ended: ((outcome: Outcome) => void) | undefined;
  readonly #dma: DeviceDma;
  readonly #msi: MsiController;
  readonly #translateMsi: boolean;
  readonly #vectors = new Map<string, Vector>();

  constructor(options: PciSlotOptions, doorbell: number) {
    this.path = options.path;
    this.address = options.address;
    this.smmu = options.smmu;
    this.function = options.function;
    this.group = options.group;
    this.doorbell = doorbell;
    this.master = new Master({
      name: options.address,
      smmu: options.smmu,
      sids: options.sids,
      ats: options.ats,
      pasidBits: options.pasidBits,
      canwbs: options.canwbs,
      stallEnabled: options.dmaCanStall,
    });
    this.#dma = new DeviceDma({
      smmu: options.smmu,
      sid: options.sids[0],
      mayStall: options.stalls,
      mayRequest: () => options.pageRequests && this.master.atsEnabled,
      ended: (outcome) => {
        this.function.dmaResumed?.(outcome);
        this.ended?.(outcome);
      },
    });
    this.#msi = options.msi;
    this.#translateMsi = options.translateMsi;
    this.function.connect(this);
  }

  read(iovaHi: number, iovaLo: number, into: Uint8Array): Outcome {
    return this.#dma.transfer(iovaHi, iovaLo, into, false);
  }

  write(iovaHi: number, iovaLo: number, from: Uint8Array): Outcome {
    return this.#dma.transfer(iovaHi, iovaLo, from, true);
  }

  interrupt(index: keyof typeof INDEX, vector: number): void {
    const target = this.#vectors.get(`${INDEX[index]}:${vector}`);
    if (target === undefined) return;
    if (target.message === undefined || !this.#translateMsi) {
      target.eventfd.signal();
      return;
    }
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, target.message, true);
    this.write(hiOfNumber(this.doorbell), loOfNumber(this.doorbell), data);
  }

  /** Gives a vector an eventfd, or takes it away. */
  setVector(index: number, vector: number, eventfd: EventFd | undefined): void {
    const key = `${index}:${vector}`;
    const old = this.#vectors.get(key);
    if (old?.message !== undefined) this.#msi.free(old.message);
    if (eventfd === undefined) {
      this.#vectors.delete(key);
      return;
    }
    const isMessage = index === INDEX.msi || index === INDEX.msix;
    const message = isMessage ? this.#msi.allocate(() => eventfd.signal()) : undefined;
    this.#vectors.set(key, { eventfd, message });
  }

  /** Turns off the kind of interrupts that is on. */
  disableIrqs(): void {
    if (this.irqKind !== undefined) this.clearVectors(this.irqKind);
    this.irqKind = undefined;
  }

  /** Signals a vector's eventfd without the device. */
  loopback(index: number, vector: number): void {
    this.#vectors.get(`${index}:${vector}`)?.eventfd.signal();
  }

  /** Tells whoever has the device open that it should be closed. */
  requestRelease(): void {
    this.loopback(VFIO_PCI_REQ_IRQ_INDEX, 0);
  }

  /** Vectors of this index that have an eventfd. */
  vectorsOf(index: number): number[] {
    return [...this.#vectors.keys()]
      .filter((key) => key.startsWith(`${index}:`))
      .map((key) => Number(key.slice(key.indexOf(':') + 1)));
  }

  clearVectors(index: number): void {
    for (const vector of this.vectorsOf(index)) this.setVector(index, vector, undefined);
  }
}
