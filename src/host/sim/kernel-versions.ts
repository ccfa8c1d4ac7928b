/**
 * In what the kernels that the embedded host can be differ, where that is known; all else is as in Linux 7.3. Not
 * covered: until 6.17 a vDEVICE outlived the binding of its device.
 */

import { IOMMU_HW_INFO_FLAG_INPUT_TYPE } from '../../iommufd/uapi/hw-info.ts';
import {
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_IOAS_NOIOMMU_GET_PA,
  IOMMU_VIOMMU_ALLOC,
} from '../../iommufd/uapi/iommufd.ts';

export interface KernelVersion {
  /** Numbers of ioctls that came later: ENOTTY. */
  readonly unknown: ReadonlySet<number>;
  /** By number: sizes of structures that grew later. What is behind must be zero (E2BIG). */
  readonly sizes: ReadonlyMap<number, number>;
  /** Flags of IOMMU_GET_HW_INFO. */
  readonly hwInfoFlags: number;
  /** A guest's invalidations may only have bits that mean something; if not, they pass as they are. */
  readonly checksCommands: boolean;
}

export type KernelName = '6.16' | '7.3';

export const KERNEL_VERSIONS: Readonly<Record<KernelName, KernelVersion>> = {
  '6.16': {
    // HW_QUEUE_ALLOC and the data of VIOMMU_ALLOC came with the merge of iommufd for 6.17 (31 July 2025), as did
    // INPUT_TYPE; NOIOMMU_GET_PA is the newest ioctl of 7.3.
    unknown: new Set([IOMMU_HW_QUEUE_ALLOC.request, IOMMU_IOAS_NOIOMMU_GET_PA.request]),
    sizes: new Map([[IOMMU_VIOMMU_ALLOC.request, 24]]),
    hwInfoFlags: 0,
    // arm-smmu-v3-iommufd.c looked at the opcode alone, and replaced VMID and StreamID. What is wrong with the rest, the
    // physical SMMU finds out.
    checksCommands: false,
  },
  '7.3': {
    unknown: new Set(),
    sizes: new Map(),
    hwInfoFlags: IOMMU_HW_INFO_FLAG_INPUT_TYPE,
    checksCommands: true,
  },
};
