import type { Iommufd } from './iommufd.ts';
import {
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_HWPT_FAULT_ID_VALID,
  iommu_hwpt_arm_smmuv3,
} from './uapi/iommufd.ts';

/** A hardware page table: the stage 2 that all streams of a vSMMU share, or what a guest's STE makes of one of them. */
export class Hwpt {
  readonly id: number;
  readonly #iommufd: Iommufd;

  private constructor(iommufd: Iommufd, id: number) {
    this.#iommufd = iommufd;
    this.id = id;
  }

  /** A stage-2 table for an IOAS, fit to be the parent of a vIOMMU on the device's physical SMMU. @throws HostError */
  static allocNestParent(iommufd: Iommufd, deviceId: number, ioasId: number): Hwpt {
    const { out_hwpt_id } = iommufd.caller.ioctl(iommufd.fd, IOMMU_HWPT_ALLOC, {
      flags: IOMMU_HWPT_ALLOC_NEST_PARENT,
      dev_id: deviceId,
      pt_id: ioasId,
    });
    return new Hwpt(iommufd, out_hwpt_id);
  }

  /**
   * A table from words 0 and 1 of a guest's STE.
   * @param ste the two 64-bit words as four 32-bit words, low half first.
   * @param faultId the FAULT_QUEUE that gets the faults that wait for an answer; without one the host ends them.
   * @throws HostError EIO if the kernel does not accept them, EINVAL if the device is behind another SMMU.
   */
  static allocNested(
    iommufd: Iommufd,
    deviceId: number,
    viommuId: number,
    ste: readonly number[],
    faultId?: number,
  ): Hwpt {
    const data = iommufd.scratch.bytes;
    const words = new DataView(data.buffer, data.byteOffset);
    for (let i = 0; i < 4; i++) words.setUint32(4 * i, ste[i], true);
    const { out_hwpt_id } = iommufd.caller.ioctl(iommufd.fd, IOMMU_HWPT_ALLOC, {
      dev_id: deviceId,
      pt_id: viommuId,
      data_type: IOMMU_HWPT_DATA_ARM_SMMUV3,
      data_len: iommu_hwpt_arm_smmuv3.size,
      data_uptr: iommufd.scratch.address,
      ...(faultId !== undefined && { flags: IOMMU_HWPT_FAULT_ID_VALID, fault_id: faultId }),
    });
    return new Hwpt(iommufd, out_hwpt_id);
  }

  /** @throws HostError EBUSY while a device is attached to it, or a vIOMMU is on it. */
  destroy(): void {
    this.#iommufd.destroy(this.id);
  }
}
