import type { Iommufd } from './iommufd.ts';
import type { Errno, UserMemory } from './kernel.ts';
import {
  IOMMU_HWPT_INVALIDATE,
  IOMMU_VIOMMU_ALLOC,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  iommu_viommu_arm_smmuv3_invalidate,
} from './uapi/iommufd.ts';

/** Commands that one {@link Viommu.invalidate} takes. */
export const INVALIDATE_CAPACITY = 1024;

/** A slice of a physical SMMU that serves one guest: it has a VMID and knows its devices by the guest's StreamIDs. */
export class Viommu {
  readonly id: number;
  /** Commands for {@link invalidate}: four words each, `INVALIDATE_CAPACITY` of them. */
  readonly commands: Uint32Array;
  /** What the kernel said of the last failed {@link invalidate}: index of the entry that it met the error at. */
  failedAt = 0;
  /** Number of HWPT_INVALIDATE calls made. */
  calls = 0;
  readonly #iommufd: Iommufd;
  readonly #memory: UserMemory;
  /** The argument of HWPT_INVALIDATE, made once: only entry_num changes. */
  readonly #arg: Uint8Array;
  readonly #entryNum: Uint32Array;

  private constructor(iommufd: Iommufd, id: number) {
    this.#iommufd = iommufd;
    this.id = id;
    this.commands = new Uint32Array(INVALIDATE_CAPACITY * 4);
    this.#memory = iommufd.caller.kernel.userMemory(new Uint8Array(this.commands.buffer));
    this.#arg = IOMMU_HWPT_INVALIDATE.encode({
      hwpt_id: id,
      data_uptr: this.#memory.address,
      data_type: IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
      entry_len: iommu_viommu_arm_smmuv3_invalidate.size,
    });
    this.#entryNum = new Uint32Array(this.#arg.buffer, IOMMU_HWPT_INVALIDATE.members.entry_num.offset, 1);
  }

  /**
   * @param hwptId the stage-2 table, a nesting parent on the device's SMMU.
   * @throws HostError EOPNOTSUPP if the SMMU does not offer nesting to this device, EINVAL if it is another SMMU.
   */
  static alloc(iommufd: Iommufd, deviceId: number, hwptId: number): Viommu {
    const { out_viommu_id } = iommufd.caller.ioctl(iommufd.fd, IOMMU_VIOMMU_ALLOC, {
      type: IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
      dev_id: deviceId,
      hwpt_id: hwptId,
    });
    return new Viommu(iommufd, out_viommu_id);
  }

  /**
   * Has the first `count` of {@link commands} carried out, in order; 0 says that all are complete. After any other
   * errno nothing may be concluded: entries before `failedAt` may or may not have been issued.
   * @param count 1..INVALIDATE_CAPACITY.
   */
  invalidate(count: number): Errno {
    this.#entryNum[0] = count;
    this.calls++;
    const { caller, fd } = this.#iommufd;
    const errno = caller.kernel.ioctl(fd, IOMMU_HWPT_INVALIDATE.request, this.#arg);
    this.failedAt = errno === 0 ? 0 : this.#entryNum[0];
    caller.observer?.({
      operation: IOMMU_HWPT_INVALIDATE.ioctl,
      given: { hwpt_id: this.id, entry_num: count },
      returned: errno === 0 ? {} : { entry_num: this.failedAt },
      errno,
    });
    return errno;
  }

  /** @throws HostError EBUSY while a nested table, a vDEVICE or a vEVENTQ is on it. */
  destroy(): void {
    this.#iommufd.destroy(this.id);
    this.release();
  }

  /** Gives up what this side holds, once the vIOMMU is gone. {@link destroy} does it by itself. */
  release(): void {
    this.#memory.release();
  }
}
