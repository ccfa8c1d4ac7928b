import type { Iommufd } from './iommufd.ts';
import { IOMMU_VDEVICE_ALLOC } from './uapi/iommufd.ts';

/** A device on a vIOMMU under the guest's StreamID for it. */
export class Vdevice {
  readonly id: number;
  /** The guest's StreamID. */
  readonly vsid: number;
  readonly #iommufd: Iommufd;

  private constructor(iommufd: Iommufd, id: number, vsid: number) {
    this.#iommufd = iommufd;
    this.id = id;
    this.vsid = vsid;
  }

  /** @throws HostError EEXIST if the device has one or the StreamID is taken, EINVAL if it is behind another SMMU. */
  static alloc(iommufd: Iommufd, viommuId: number, deviceId: number, vsid: number): Vdevice {
    const { out_vdevice_id } = iommufd.caller.ioctl(iommufd.fd, IOMMU_VDEVICE_ALLOC, {
      viommu_id: viommuId,
      dev_id: deviceId,
      virt_id: BigInt(vsid),
    });
    return new Vdevice(iommufd, out_vdevice_id, vsid);
  }

  /**
   * Frees the StreamID. A device that translates goes on under the old one until it is attached anew.
   * @throws HostError ENOENT if it went away with its device.
   */
  destroy(): void {
    this.#iommufd.destroy(this.id);
  }
}
