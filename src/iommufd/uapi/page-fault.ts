/** Records of a FAULT_QUEUE: what is read from and written to its descriptor. */

import { Struct, u32, u64 } from './struct.ts';

export const iommu_hwpt_pgfault = new Struct('iommu_hwpt_pgfault', 40, {
  flags: u32(0),
  dev_id: u32(4),
  pasid: u32(8),
  grpid: u32(12),
  perm: u32(16),
  __reserved: u32(20),
  addr: u64(24),
  length: u32(32),
  cookie: u32(36),
});
export const IOMMU_PGFAULT_FLAGS_PASID_VALID = 1;
export const IOMMU_PGFAULT_FLAGS_LAST_PAGE = 2;
export const IOMMU_PGFAULT_PERM_READ = 1;
export const IOMMU_PGFAULT_PERM_WRITE = 2;
export const IOMMU_PGFAULT_PERM_EXEC = 4;
export const IOMMU_PGFAULT_PERM_PRIV = 8;

export const iommu_hwpt_page_response = new Struct('iommu_hwpt_page_response', 8, {
  cookie: u32(0),
  code: u32(4),
});
export const IOMMUFD_PAGE_RESP_SUCCESS = 0;
export const IOMMUFD_PAGE_RESP_INVALID = 1;
