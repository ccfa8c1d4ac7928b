/**
 * The ioctls of `/dev/vfio/devices/vfioN`. Each begins with `argsz`; unlike iommufd, VFIO looks only at the members it
 * needs and ignores what follows.
 */

import { Ioctl, s32, u32, u64 } from './struct.ts';

export const VFIO_DEVICE_GET_INFO = new Ioctl('VFIO_DEVICE_GET_INFO', 0x3b6b, 'vfio_device_info', 16, 24, {
  argsz: u32(0),
  flags: u32(4),
  num_regions: u32(8),
  num_irqs: u32(12),
  cap_offset: u32(16),
  pad: u32(20),
});
export const VFIO_DEVICE_FLAGS_RESET = 1;
export const VFIO_DEVICE_FLAGS_PCI = 2;
export const VFIO_DEVICE_FLAGS_CAPS = 1 << 7;

export const VFIO_DEVICE_GET_REGION_INFO = new Ioctl(
  'VFIO_DEVICE_GET_REGION_INFO',
  0x3b6c,
  'vfio_region_info',
  32,
  32,
  {
    argsz: u32(0),
    flags: u32(4),
    index: u32(8),
    cap_offset: u32(12),
    size: u64(16),
    /** Of the region in the device's descriptor: the position for pread, pwrite and mmap. */
    offset: u64(24),
  },
);
export const VFIO_REGION_INFO_FLAG_READ = 1;
export const VFIO_REGION_INFO_FLAG_WRITE = 2;
export const VFIO_REGION_INFO_FLAG_MMAP = 4;
export const VFIO_REGION_INFO_FLAG_CAPS = 8;
export const VFIO_PCI_BAR0_REGION_INDEX = 0;
export const VFIO_PCI_ROM_REGION_INDEX = 6;
export const VFIO_PCI_CONFIG_REGION_INDEX = 7;
export const VFIO_PCI_VGA_REGION_INDEX = 8;
export const VFIO_PCI_NUM_REGIONS = 9;

export const VFIO_DEVICE_GET_IRQ_INFO = new Ioctl(
  'VFIO_DEVICE_GET_IRQ_INFO',
  0x3b6d,
  'vfio_irq_info',
  16,
  16,
  { argsz: u32(0), flags: u32(4), index: u32(8), count: u32(12) },
);
export const VFIO_IRQ_INFO_EVENTFD = 1;
export const VFIO_IRQ_INFO_MASKABLE = 2;
export const VFIO_IRQ_INFO_AUTOMASKED = 4;
export const VFIO_IRQ_INFO_NORESIZE = 8;
export const VFIO_PCI_INTX_IRQ_INDEX = 0;
export const VFIO_PCI_MSI_IRQ_INDEX = 1;
export const VFIO_PCI_MSIX_IRQ_INDEX = 2;
export const VFIO_PCI_ERR_IRQ_INDEX = 3;
export const VFIO_PCI_REQ_IRQ_INDEX = 4;
export const VFIO_PCI_NUM_IRQS = 5;

/** Followed by `count` elements of the data type that `flags` names: bytes or s32 eventfds. */
export const VFIO_DEVICE_SET_IRQS = new Ioctl('VFIO_DEVICE_SET_IRQS', 0x3b6e, 'vfio_irq_set', 20, 20, {
  argsz: u32(0),
  flags: u32(4),
  index: u32(8),
  start: u32(12),
  count: u32(16),
});
export const VFIO_IRQ_SET_DATA_NONE = 1;
export const VFIO_IRQ_SET_DATA_BOOL = 2;
export const VFIO_IRQ_SET_DATA_EVENTFD = 4;
export const VFIO_IRQ_SET_ACTION_MASK = 8;
export const VFIO_IRQ_SET_ACTION_UNMASK = 16;
export const VFIO_IRQ_SET_ACTION_TRIGGER = 32;

/** Takes no argument. */
export const VFIO_DEVICE_RESET = new Ioctl('VFIO_DEVICE_RESET', 0x3b6f, '', 0, 0, {});

export const VFIO_DEVICE_FEATURE = new Ioctl('VFIO_DEVICE_FEATURE', 0x3b75, 'vfio_device_feature', 8, 8, {
  argsz: u32(0),
  flags: u32(4),
});

/** Which feature. */
export const VFIO_DEVICE_FEATURE_MASK = 0xffff;
export const VFIO_DEVICE_FEATURE_GET = 1 << 16;
export const VFIO_DEVICE_FEATURE_SET = 1 << 17;
export const VFIO_DEVICE_FEATURE_PROBE = 1 << 18;

export const VFIO_DEVICE_BIND_IOMMUFD = new Ioctl(
  'VFIO_DEVICE_BIND_IOMMUFD',
  0x3b76,
  'vfio_device_bind_iommufd',
  16,
  24,
  { argsz: u32(0), flags: u32(4), iommufd: s32(8), out_devid: u32(12), token_uuid_ptr: u64(16) },
);
export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1;

export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = new Ioctl(
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
  0x3b77,
  'vfio_device_attach_iommufd_pt',
  12,
  16,
  {
    argsz: u32(0),
    flags: u32(4),
    /** An IOAS or a HWPT; becomes the id of the HWPT that was attached. */
    pt_id: u32(8),
    pasid: u32(12),
  },
);
export const VFIO_DEVICE_ATTACH_PASID = 1;

export const VFIO_DEVICE_DETACH_IOMMUFD_PT = new Ioctl(
  'VFIO_DEVICE_DETACH_IOMMUFD_PT',
  0x3b78,
  'vfio_device_detach_iommufd_pt',
  8,
  12,
  { argsz: u32(0), flags: u32(4), pasid: u32(8) },
);
export const VFIO_DEVICE_DETACH_PASID = 1;

/** Every VFIO ioctl that is used here, in number order. */
export const VFIO_IOCTLS = [
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_SET_IRQS,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
] as const;
