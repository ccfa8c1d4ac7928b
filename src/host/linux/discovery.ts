/** What a machine has for an accelerated vSMMU, as Linux says it in sysfs. Nothing is opened, nothing is changed. */

import { IOMMUFD_PATH } from '../../iommufd/iommufd.ts';
import { readDevice, type HostDevice } from './discovery-device.ts';
import { readKernel, type KernelFacts } from './discovery-kernel.ts';
import type { Access, HostFiles } from './host-files.ts';

export type IommuKind = 'arm-smmu-v3' | 'arm-smmu' | 'intel-vt-d' | 'amd-vi' | 'virtio-iommu' | 'other';

export interface HostIommu {
  /** Its name in /sys/class/iommu: `smmu3.0x0000000009050000`. */
  readonly name: string;
  readonly kind: IommuKind;
  /** In PCI address order, then the others. */
  readonly devices: readonly HostDevice[];
}

export interface Discovery {
  readonly kernel: KernelFacts;
  readonly iommufd: {
    readonly access: Access;
    /** The kernel has it, whether or not there is a file for it: its number, as `10:124`. */
    readonly number: string | undefined;
  };
  /** The driver vfio-pci is there. */
  readonly vfioPci: boolean;
  readonly iommus: readonly HostIommu[];
}

const KINDS: readonly (readonly [prefix: string, kind: IommuKind])[] = [
  ['smmu3.', 'arm-smmu-v3'],
  ['smmu.', 'arm-smmu'],
  ['dmar', 'intel-vt-d'],
  ['ivhd', 'amd-vi'],
  ['virtio', 'virtio-iommu'],
];

export function discover(files: HostFiles): Discovery {
  return {
    kernel: readKernel(files),
    iommufd: {
      access: files.access(IOMMUFD_PATH),
      number: files.text('/sys/class/misc/iommu/dev'),
    },
    vfioPci: files.names('/sys/bus/pci/drivers/vfio-pci').length > 0,
    iommus: files.names('/sys/class/iommu').map((name) => ({
      name,
      kind: KINDS.find(([prefix]) => name.startsWith(prefix))?.[1] ?? 'other',
      devices: files
        .names(`/sys/class/iommu/${name}/devices`)
        .map((device) => readDevice(files, device, `/sys/class/iommu/${name}/devices/${device}`)),
    })),
  };
}
