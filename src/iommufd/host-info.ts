/** What IOMMU_GET_HW_INFO says, decoded. */

import { HostError } from './errors.ts';
import type { Iommufd } from './iommufd.ts';
import {
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
  iommu_hw_info_arm_smmuv3,
} from './uapi/hw-info.ts';
import { IOMMU_GET_HW_INFO } from './uapi/iommufd.ts';

/**
 * A kind of fault that waits for an answer of user space: a transaction that the SMMU stalled, or a page request of a
 * PCIe device.
 */
export type FaultKind = 'stall' | 'page-request';

/** A physical SMMU, and one device behind it. */
export interface HostInfo {
  /** Raw IDR0..IDR5. */
  readonly idr: readonly number[];
  readonly IIDR: number;
  readonly AIDR: number;
  /** The device may use ATS: IDR0.ATS, the root complex and the device's own capability allow it. */
  readonly ats: boolean;
  /** log2 of the PASIDs that the host enabled on the device; 0 is none. */
  readonly maxPasidLog2: number;
  /** Erratum: every CFGI and TLBI has to be issued and completed twice. */
  readonly repeatTlbiCfgi: boolean;
  /**
   * Which faults of the device the host hands to a FAULT_QUEUE and resumes afterwards; none if absent. HW_INFO does not
   * say it: whoever knows the host does.
   */
  readonly faults?: FaultKind | undefined;
}

/** Asks for the SMMU behind a device. @throws HostError EOPNOTSUPP if it is not an Arm SMMUv3. */
export function getHostInfo(iommufd: Iommufd, deviceId: number): HostInfo {
  const { address, bytes } = iommufd.scratch;
  const size = iommu_hw_info_arm_smmuv3.size;
  bytes.fill(0, 0, size);
  const answer = iommufd.caller.ioctl(iommufd.fd, IOMMU_GET_HW_INFO, {
    dev_id: deviceId,
    data_len: size,
    data_uptr: address,
  });
  if (answer.out_data_type !== IOMMU_HW_INFO_TYPE_ARM_SMMUV3)
    throw new HostError(
      'EOPNOTSUPP',
      'IOMMU_GET_HW_INFO',
      `the device is behind an IOMMU of type ${answer.out_data_type}, not an Arm SMMUv3.`,
      'An accelerated virtual SMMUv3 needs a physical SMMUv3; the embedded host (--host sim) has one.',
    );
  const info = iommu_hw_info_arm_smmuv3.decode(bytes);
  return {
    idr: info.idr,
    IIDR: info.iidr,
    AIDR: info.aidr,
    ats: (answer.out_capabilities & IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED) === 0n,
    maxPasidLog2: answer.out_max_pasid_log2,
    repeatTlbiCfgi: (info.flags & IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI) !== 0,
  };
}
