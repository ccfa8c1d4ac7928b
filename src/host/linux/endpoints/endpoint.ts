/** A device that can be made to do DMA, by its registers. */

import { HostError } from '../../../iommufd/errors.ts';
import { VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX } from '../../../iommufd/uapi/vfio.ts';
import type { RegionInfo, VfioDevice } from '../../../iommufd/vfio-device.ts';

/** Guest memory that the device can reach. */
export interface Workspace {
  readonly iova: bigint;
  readonly bytes: Uint8Array;
}

export interface Transfer {
  readonly write: boolean;
  readonly iova: bigint;
  /** What a write sends, or what a read brought; filled in by a device that sends what it likes. */
  readonly bytes: Uint8Array;
  readonly workspace: () => Workspace;
  /** All memory that the device could ever reach. */
  readonly ram: Uint8Array;
}

export interface Endpoint {
  /** As QEMU's `-device` names it. */
  readonly kind: EndpointKind;
  /** @returns whether it succeeded. @throws HostError if the registers cannot be reached or do not answer. */
  transfer(transfer: Transfer): Promise<boolean>;
}

export type EndpointKind = 'iommu-testdev' | 'edu';

/** Vendor and device of those that are known. */
const KINDS: Readonly<Record<string, EndpointKind>> = { '1b36:0005': 'iommu-testdev', '1234:11e8': 'edu' };

/** @param id `vendor:device`, four hexadecimal digits each. */
export const endpointKind = (id: string): EndpointKind | undefined => KINDS[id];

const PCI_COMMAND = 4;
const MEMORY_AND_MASTER = 0x6;

/** BAR0 of a bound device. */
export class Registers {
  readonly #device: VfioDevice;
  readonly #bar: RegionInfo;
  readonly #bytes = new Uint8Array(8);
  readonly #view = new DataView(this.#bytes.buffer);

  /** Lets the device answer and do DMA; a reset takes that away. @throws HostError */
  constructor(device: VfioDevice) {
    this.#device = device;
    this.#bar = device.regionInfo(VFIO_PCI_BAR0_REGION_INDEX);
    const config = device.regionInfo(VFIO_PCI_CONFIG_REGION_INDEX);
    this.#view.setUint16(0, MEMORY_AND_MASTER, true);
    this.#check(device.write(config, PCI_COMMAND, this.#bytes.subarray(0, 2)), 2, 'write');
  }

  read32(offset: number): number {
    this.#check(this.#device.read(this.#bar, offset, this.#bytes.subarray(0, 4)), 4, 'read');
    return this.#view.getUint32(0, true);
  }

  write32(offset: number, value: number): void {
    this.#view.setUint32(0, value, true);
    this.#check(this.#device.write(this.#bar, offset, this.#bytes.subarray(0, 4)), 4, 'write');
  }

  /** In one access, as registers of 64 bits may want it. */
  write64(offset: number, value: bigint): void {
    this.#view.setBigUint64(0, value, true);
    this.#check(this.#device.write(this.#bar, offset, this.#bytes), 8, 'write');
  }

  #check(result: number, size: number, operation: string): void {
    if (result < 0) throw HostError.of(-result, `${operation} of a register`);
    if (result !== size)
      throw new HostError('EIO', `${operation} of a register`, `${result} of ${size} bytes went through.`);
  }
}
