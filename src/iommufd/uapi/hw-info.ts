/** What IOMMU_GET_HW_INFO tells of the hardware behind a device. */

import { Struct, u32, u32Array, u64, u8 } from './struct.ts';

/** `out_data_type` is an input: the caller wants this type or none. */
export const IOMMU_HW_INFO_FLAG_INPUT_TYPE = 1;

export const IOMMU_HW_INFO_TYPE_NONE = 0;
export const IOMMU_HW_INFO_TYPE_INTEL_VTD = 1;
export const IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2;
export const IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3;
export const IOMMU_HW_INFO_TYPE_AMD = 4;

/** Bits of `out_capabilities`. */
export const IOMMU_HW_CAP_DIRTY_TRACKING = 1n;
export const IOMMU_HW_CAP_PCI_PASID_EXEC = 2n;
export const IOMMU_HW_CAP_PCI_PASID_PRIV = 4n;
/** The device cannot use ATS; if clear it may. IDR0.ATS alone does not say so. */
export const IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 8n;

/** Raw values of the physical SMMU's ID registers. */
export const iommu_hw_info_arm_smmuv3 = new Struct('iommu_hw_info_arm_smmuv3', 40, {
  flags: u32(0),
  __reserved: u32(4),
  idr: u32Array(8, 6),
  iidr: u32(32),
  aidr: u32(36),
});
/** Erratum: each CFGI and TLBI has to be issued and synchronised twice. */
export const IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI = 1;

export const iommu_hw_info_tegra241_cmdqv = new Struct('iommu_hw_info_tegra241_cmdqv', 8, {
  flags: u32(0),
  version: u8(4),
  log2vcmdqs: u8(5),
  log2vsids: u8(6),
  __reserved: u8(7),
});

/** User data of a Tegra241 CMDQV vIOMMU. */
export const iommu_viommu_tegra241_cmdqv = new Struct('iommu_viommu_tegra241_cmdqv', 16, {
  out_vintf_mmap_offset: u64(0),
  out_vintf_mmap_length: u64(8),
});
