/**
 * Asks a device and its SMMU by doing what a plug does: binding, and allocating each kind of object once. A device that
 * someone uses cannot be bound, and is not disturbed; vfio-pci resets one that is bound, as it does at its release.
 */

import { Caller } from '../../iommufd/call.ts';
import { HostError } from '../../iommufd/errors.ts';
import { getHostInfo, type HostInfo } from '../../iommufd/host-info.ts';
import { Hwpt } from '../../iommufd/hwpt.ts';
import { Ioas } from '../../iommufd/ioas.ts';
import { Iommufd } from '../../iommufd/iommufd.ts';
import type { Kernel } from '../../iommufd/kernel.ts';
import { Vdevice } from '../../iommufd/vdevice.ts';
import { Veventq } from '../../iommufd/veventq.ts';
import { VfioDevice } from '../../iommufd/vfio-device.ts';
import { Viommu } from '../../iommufd/viommu.ts';

export interface Inquiry {
  /** What the SMMU said of itself, if it came to that. */
  readonly info: HostInfo | undefined;
  /** What was refused first; undefined if nothing was. */
  readonly refused: HostError | undefined;
}

/** Any guest's would do: nothing is attached. */
const VSID = 0;

/** Nothing is left of it, in the kernel or here. @param path such as /dev/vfio/devices/vfio0. */
export function inquire(kernel: Kernel, path: string): Inquiry {
  let info: HostInfo | undefined;
  const undo: (() => void)[] = [];
  try {
    const iommufd = Iommufd.open(kernel);
    undo.push(() => iommufd.close());
    const device = VfioDevice.open(new Caller(kernel), path);
    undo.push(() => device.close());
    device.bind(iommufd);
    info = getHostInfo(iommufd, device.devid);
    const ioas = Ioas.alloc(iommufd);
    undo.push(() => ioas.destroy());
    const parent = Hwpt.allocNestParent(iommufd, device.devid, ioas.id);
    undo.push(() => parent.destroy());
    const viommu = Viommu.alloc(iommufd, device.devid, parent.id);
    undo.push(() => viommu.destroy());
    const vdevice = Vdevice.alloc(iommufd, viommu.id, device.devid, VSID);
    undo.push(() => vdevice.destroy());
    const veventq = Veventq.alloc(iommufd, viommu.id, 1);
    undo.push(() => veventq.destroy());
    return { info, refused: undefined };
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    return { info, refused: error };
  } finally {
    for (const step of undo.toReversed()) quietly(step);
  }
}

/** The descriptors are closed in any case, and with them goes whatever could not be destroyed. */
function quietly(step: () => void): void {
  try {
    step();
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
  }
}
