/** QEMU's iommu-testdev: writes a pattern, and says how that ended. It does not read through the SMMU. */

import type { VfioDevice } from '../../../iommufd/vfio-device.ts';
import { type Endpoint, Registers, type Transfer } from './endpoint.ts';

/** docs/specs/iommu-testdev.rst of QEMU. */
const REGISTER = {
  Triggering: 0x00,
  GvaLo: 0x04,
  GvaHi: 0x08,
  Length: 0x0c,
  Result: 0x10,
  Doorbell: 0x14,
  Attributes: 0x18,
  GpaLo: 0x1c,
  GpaHi: 0x20,
} as const;
const ARM = 1;
/** Space valid, Non-secure. */
const ATTRIBUTES = 0xa;
const TX_FAIL = 0xdead_0002;
/** It wrote, but did not find that by the physical address, which it was not given. */
const WRITTEN: readonly number[] = [0, 0xdead_0003, 0xdead_0004];

const PATTERN = 0x1234_5678;

export class IommuTestdev implements Endpoint {
  readonly kind = 'iommu-testdev';
  readonly #device: VfioDevice;

  constructor(device: VfioDevice) {
    this.#device = device;
  }

  async transfer({ write, iova, bytes }: Transfer): Promise<boolean> {
    if (!write) throw new RangeError('iommu-testdev can only write; edu can read');
    for (let i = 0; i < bytes.length; i++) bytes[i] = PATTERN >>> ((i % 4) * 8);
    const registers = new Registers(this.#device);
    registers.write32(REGISTER.GvaLo, Number(iova & 0xffff_ffffn));
    registers.write32(REGISTER.GvaHi, Number(iova >> 32n));
    registers.write32(REGISTER.GpaLo, 0);
    registers.write32(REGISTER.GpaHi, 0);
    registers.write32(REGISTER.Length, bytes.length);
    registers.write32(REGISTER.Attributes, ATTRIBUTES);
    registers.write32(REGISTER.Doorbell, ARM);
    registers.read32(REGISTER.Triggering);
    const result = registers.read32(REGISTER.Result);
    if (WRITTEN.includes(result)) return true;
    if (result === TX_FAIL) return false;
    throw new RangeError(`iommu-testdev refuses this (result 0x${result.toString(16)})`);
  }
}
