/**
 * The ioctls of `/dev/iommu` as Linux 7.3 has them, in number order. Each begins with its own `size`: less than the
 * least size is EINVAL, a missing tail reads as zero, a tail that the kernel does not know must be zero (E2BIG).
 */

import { Ioctl, s32, Struct, u16, u32, u64, u8, u8Array } from './struct.ts';

export const IOMMU_DESTROY = new Ioctl('IOMMU_DESTROY', 0x3b80, 'iommu_destroy', 8, 8, {
  size: u32(0),
  id: u32(4),
});

export const IOMMU_IOAS_ALLOC = new Ioctl('IOMMU_IOAS_ALLOC', 0x3b81, 'iommu_ioas_alloc', 12, 12, {
  size: u32(0),
  flags: u32(4),
  out_ioas_id: u32(8),
});

export const IOMMU_IOAS_ALLOW_IOVAS = new Ioctl(
  'IOMMU_IOAS_ALLOW_IOVAS',
  0x3b82,
  'iommu_ioas_allow_iovas',
  24,
  24,
  { size: u32(0), ioas_id: u32(4), num_iovas: u32(8), __reserved: u32(12), allowed_iovas: u64(16) },
);

export const IOMMU_IOAS_COPY = new Ioctl('IOMMU_IOAS_COPY', 0x3b83, 'iommu_ioas_copy', 40, 40, {
  size: u32(0),
  flags: u32(4),
  dst_ioas_id: u32(8),
  src_ioas_id: u32(12),
  length: u64(16),
  dst_iova: u64(24),
  src_iova: u64(32),
});

export const IOMMU_IOAS_IOVA_RANGES = new Ioctl(
  'IOMMU_IOAS_IOVA_RANGES',
  0x3b84,
  'iommu_ioas_iova_ranges',
  32,
  32,
  {
    size: u32(0),
    ioas_id: u32(4),
    num_iovas: u32(8),
    __reserved: u32(12),
    allowed_iovas: u64(16),
    out_iova_alignment: u64(24),
  },
);

/** An element of the arrays of IOAS_IOVA_RANGES and IOAS_ALLOW_IOVAS; `last` is inclusive. */
export const iommu_iova_range = new Struct('iommu_iova_range', 16, { start: u64(0), last: u64(8) });

export const IOMMU_IOAS_MAP = new Ioctl('IOMMU_IOAS_MAP', 0x3b85, 'iommu_ioas_map', 40, 40, {
  size: u32(0),
  flags: u32(4),
  ioas_id: u32(8),
  __reserved: u32(12),
  user_va: u64(16),
  length: u64(24),
  iova: u64(32),
});
export const IOMMU_IOAS_MAP_FIXED_IOVA = 1;
export const IOMMU_IOAS_MAP_WRITEABLE = 2;
export const IOMMU_IOAS_MAP_READABLE = 4;

export const IOMMU_IOAS_UNMAP = new Ioctl('IOMMU_IOAS_UNMAP', 0x3b86, 'iommu_ioas_unmap', 24, 24, {
  size: u32(0),
  ioas_id: u32(4),
  iova: u64(8),
  length: u64(16),
});

export const IOMMU_OPTION = new Ioctl('IOMMU_OPTION', 0x3b87, 'iommu_option', 24, 24, {
  size: u32(0),
  option_id: u32(4),
  op: u16(8),
  __reserved: u16(10),
  object_id: u32(12),
  val64: u64(16),
});
export const IOMMU_OPTION_RLIMIT_MODE = 0;
export const IOMMU_OPTION_HUGE_PAGES = 1;
export const IOMMU_OPTION_OP_SET = 0;
export const IOMMU_OPTION_OP_GET = 1;

export const IOMMU_VFIO_IOAS = new Ioctl('IOMMU_VFIO_IOAS', 0x3b88, 'iommu_vfio_ioas', 12, 12, {
  size: u32(0),
  ioas_id: u32(4),
  op: u16(8),
  __reserved: u16(10),
});
export const IOMMU_VFIO_IOAS_GET = 0;
export const IOMMU_VFIO_IOAS_SET = 1;
export const IOMMU_VFIO_IOAS_CLEAR = 2;

export const IOMMU_HWPT_ALLOC = new Ioctl('IOMMU_HWPT_ALLOC', 0x3b89, 'iommu_hwpt_alloc', 24, 48, {
  size: u32(0),
  flags: u32(4),
  dev_id: u32(8),
  pt_id: u32(12),
  out_hwpt_id: u32(16),
  __reserved: u32(20),
  data_type: u32(24),
  data_len: u32(28),
  data_uptr: u64(32),
  fault_id: u32(40),
  __reserved2: u32(44),
});
export const IOMMU_HWPT_ALLOC_NEST_PARENT = 1;
export const IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 2;
export const IOMMU_HWPT_FAULT_ID_VALID = 4;
export const IOMMU_HWPT_ALLOC_PASID = 8;
export const IOMMU_HWPT_DATA_NONE = 0;
export const IOMMU_HWPT_DATA_VTD_S1 = 1;
export const IOMMU_HWPT_DATA_ARM_SMMUV3 = 2;

/** User data of a nested HWPT: words 0 and 1 of the guest's STE. */
export const iommu_hwpt_arm_smmuv3 = new Struct('iommu_hwpt_arm_smmuv3', 16, { ste0: u64(0), ste1: u64(8) });

export const IOMMU_GET_HW_INFO = new Ioctl('IOMMU_GET_HW_INFO', 0x3b8a, 'iommu_hw_info', 32, 40, {
  size: u32(0),
  flags: u32(4),
  dev_id: u32(8),
  data_len: u32(12),
  data_uptr: u64(16),
  /** An input too, if IOMMU_HW_INFO_FLAG_INPUT_TYPE is set. */
  out_data_type: u32(24),
  out_max_pasid_log2: u8(28),
  __reserved: u8Array(29, 3),
  out_capabilities: u64(32),
});

export const IOMMU_HWPT_SET_DIRTY_TRACKING = new Ioctl(
  'IOMMU_HWPT_SET_DIRTY_TRACKING',
  0x3b8b,
  'iommu_hwpt_set_dirty_tracking',
  16,
  16,
  { size: u32(0), flags: u32(4), hwpt_id: u32(8), __reserved: u32(12) },
);

export const IOMMU_HWPT_GET_DIRTY_BITMAP = new Ioctl(
  'IOMMU_HWPT_GET_DIRTY_BITMAP',
  0x3b8c,
  'iommu_hwpt_get_dirty_bitmap',
  48,
  48,
  {
    size: u32(0),
    hwpt_id: u32(4),
    flags: u32(8),
    __reserved: u32(12),
    iova: u64(16),
    length: u64(24),
    page_size: u64(32),
    data: u64(40),
  },
);

export const IOMMU_HWPT_INVALIDATE = new Ioctl(
  'IOMMU_HWPT_INVALIDATE',
  0x3b8d,
  'iommu_hwpt_invalidate',
  32,
  32,
  {
    size: u32(0),
    hwpt_id: u32(4),
    data_uptr: u64(8),
    data_type: u32(16),
    entry_len: u32(20),
    entry_num: u32(24),
    __reserved: u32(28),
  },
);
export const IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 = 0;
export const IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 = 1;
/** Most entries that one IOMMU_HWPT_INVALIDATE takes. */
export const IOMMU_HWPT_INVALIDATE_MAX_ENTRIES = 1 << 19;

/** One entry of IOMMU_HWPT_INVALIDATE on a vIOMMU: a raw SMMUv3 command. */
export const iommu_viommu_arm_smmuv3_invalidate = new Struct('iommu_viommu_arm_smmuv3_invalidate', 16, {
  cmd0: u64(0),
  cmd1: u64(8),
});

export const IOMMU_FAULT_QUEUE_ALLOC = new Ioctl(
  'IOMMU_FAULT_QUEUE_ALLOC',
  0x3b8e,
  'iommu_fault_alloc',
  16,
  16,
  { size: u32(0), flags: u32(4), out_fault_id: u32(8), out_fault_fd: s32(12) },
);

export const IOMMU_IOAS_MAP_FILE = new Ioctl('IOMMU_IOAS_MAP_FILE', 0x3b8f, 'iommu_ioas_map_file', 40, 40, {
  size: u32(0),
  flags: u32(4),
  ioas_id: u32(8),
  fd: s32(12),
  start: u64(16),
  length: u64(24),
  iova: u64(32),
});

export const IOMMU_VIOMMU_ALLOC = new Ioctl('IOMMU_VIOMMU_ALLOC', 0x3b90, 'iommu_viommu_alloc', 24, 40, {
  size: u32(0),
  flags: u32(4),
  type: u32(8),
  dev_id: u32(12),
  hwpt_id: u32(16),
  out_viommu_id: u32(20),
  data_len: u32(24),
  __reserved: u32(28),
  data_uptr: u64(32),
});
export const IOMMU_VIOMMU_TYPE_DEFAULT = 0;
export const IOMMU_VIOMMU_TYPE_ARM_SMMUV3 = 1;
export const IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV = 2;

export const IOMMU_VDEVICE_ALLOC = new Ioctl('IOMMU_VDEVICE_ALLOC', 0x3b91, 'iommu_vdevice_alloc', 24, 24, {
  size: u32(0),
  viommu_id: u32(4),
  dev_id: u32(8),
  out_vdevice_id: u32(12),
  virt_id: u64(16),
});

export const IOMMU_IOAS_CHANGE_PROCESS = new Ioctl(
  'IOMMU_IOAS_CHANGE_PROCESS',
  0x3b92,
  'iommu_ioas_change_process',
  8,
  8,
  { size: u32(0), __reserved: u32(4) },
);

export const IOMMU_VEVENTQ_ALLOC = new Ioctl('IOMMU_VEVENTQ_ALLOC', 0x3b93, 'iommu_veventq_alloc', 28, 32, {
  size: u32(0),
  flags: u32(4),
  viommu_id: u32(8),
  type: u32(12),
  veventq_depth: u32(16),
  out_veventq_id: u32(20),
  out_veventq_fd: s32(24),
  __reserved: u32(28),
});
export const IOMMU_VEVENTQ_TYPE_DEFAULT = 0;
export const IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 = 1;
export const IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV = 2;
/** Greatest depth that IOMMU_VEVENTQ_ALLOC takes. */
export const VEVENTQ_MAX_DEPTH = 1 << 19;

export const IOMMU_HW_QUEUE_ALLOC = new Ioctl(
  'IOMMU_HW_QUEUE_ALLOC',
  0x3b94,
  'iommu_hw_queue_alloc',
  40,
  40,
  {
    size: u32(0),
    flags: u32(4),
    viommu_id: u32(8),
    type: u32(12),
    index: u32(16),
    out_hw_queue_id: u32(20),
    nesting_parent_iova: u64(24),
    length: u64(32),
  },
);

/** Only for no-iommu devices, which never have a vSMMU: its members are of no interest here. */
export const IOMMU_IOAS_NOIOMMU_GET_PA = new Ioctl(
  'IOMMU_IOAS_NOIOMMU_GET_PA',
  0x3b95,
  'iommu_ioas_noiommu_get_pa',
  40,
  40,
  { size: u32(0) },
);

/** Every ioctl of `/dev/iommu`, in number order. */
export const IOMMUFD_IOCTLS = [
  IOMMU_DESTROY,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_VFIO_IOAS,
  IOMMU_HWPT_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_VIOMMU_ALLOC,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_IOAS_NOIOMMU_GET_PA,
] as const;
