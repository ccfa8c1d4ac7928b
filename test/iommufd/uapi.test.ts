import { describe, expect, it } from 'vitest';
import { ERRNO, errnoName, errnoNumber } from '../../src/iommufd/uapi/errno.ts';
import { iommu_hw_info_arm_smmuv3, iommu_hw_info_tegra241_cmdqv } from '../../src/iommufd/uapi/hw-info.ts';
import * as uapi from '../../src/iommufd/uapi/iommufd.ts';
import { iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../src/iommufd/uapi/page-fault.ts';
import { type Members, type Struct } from '../../src/iommufd/uapi/struct.ts';
import {
  iommu_vevent_arm_smmuv3,
  iommu_vevent_tegra241_cmdqv,
  iommufd_vevent_header,
} from '../../src/iommufd/uapi/vevent.ts';
import * as vfio from '../../src/iommufd/uapi/vfio.ts';

/** As a compiled C program prints them from the headers of Linux 7.3: number, least size, size. */
const NUMBERS = [
  ['IOMMU_DESTROY', 15232, 8, 8],
  ['IOMMU_IOAS_ALLOC', 15233, 12, 12],
  ['IOMMU_IOAS_ALLOW_IOVAS', 15234, 24, 24],
  ['IOMMU_IOAS_COPY', 15235, 40, 40],
  ['IOMMU_IOAS_IOVA_RANGES', 15236, 32, 32],
  ['IOMMU_IOAS_MAP', 15237, 40, 40],
  ['IOMMU_IOAS_UNMAP', 15238, 24, 24],
  ['IOMMU_OPTION', 15239, 24, 24],
  ['IOMMU_VFIO_IOAS', 15240, 12, 12],
  ['IOMMU_HWPT_ALLOC', 15241, 24, 48],
  ['IOMMU_GET_HW_INFO', 15242, 32, 40],
  ['IOMMU_HWPT_SET_DIRTY_TRACKING', 15243, 16, 16],
  ['IOMMU_HWPT_GET_DIRTY_BITMAP', 15244, 48, 48],
  ['IOMMU_HWPT_INVALIDATE', 15245, 32, 32],
  ['IOMMU_FAULT_QUEUE_ALLOC', 15246, 16, 16],
  ['IOMMU_IOAS_MAP_FILE', 15247, 40, 40],
  ['IOMMU_VIOMMU_ALLOC', 15248, 24, 40],
  ['IOMMU_VDEVICE_ALLOC', 15249, 24, 24],
  ['IOMMU_IOAS_CHANGE_PROCESS', 15250, 8, 8],
  ['IOMMU_VEVENTQ_ALLOC', 15251, 28, 32],
  ['IOMMU_HW_QUEUE_ALLOC', 15252, 40, 40],
  ['IOMMU_IOAS_NOIOMMU_GET_PA', 15253, 40, 40],
  ['VFIO_DEVICE_GET_INFO', 15211, 16, 24],
  ['VFIO_DEVICE_GET_REGION_INFO', 15212, 32, 32],
  ['VFIO_DEVICE_GET_IRQ_INFO', 15213, 16, 16],
  ['VFIO_DEVICE_SET_IRQS', 15214, 20, 20],
  ['VFIO_DEVICE_RESET', 15215, 0, 0],
  ['VFIO_DEVICE_FEATURE', 15221, 8, 8],
  ['VFIO_DEVICE_BIND_IOMMUFD', 15222, 16, 24],
  ['VFIO_DEVICE_ATTACH_IOMMUFD_PT', 15223, 12, 16],
  ['VFIO_DEVICE_DETACH_IOMMUFD_PT', 15224, 8, 12],
] as const;

/** Likewise: size of the structure, then each member as name@offset:bytes. */
const LAYOUTS: readonly (readonly [Struct<Members>, number, string])[] = [
  [uapi.IOMMU_DESTROY, 8, 'size@0:4 id@4:4'],
  [uapi.IOMMU_IOAS_ALLOC, 12, 'size@0:4 flags@4:4 out_ioas_id@8:4'],
  [uapi.IOMMU_IOAS_ALLOW_IOVAS, 24, 'size@0:4 ioas_id@4:4 num_iovas@8:4 __reserved@12:4 allowed_iovas@16:8'],
  [
    uapi.IOMMU_IOAS_COPY,
    40,
    'size@0:4 flags@4:4 dst_ioas_id@8:4 src_ioas_id@12:4 length@16:8 dst_iova@24:8 src_iova@32:8',
  ],
  [
    uapi.IOMMU_IOAS_IOVA_RANGES,
    32,
    'size@0:4 ioas_id@4:4 num_iovas@8:4 __reserved@12:4 allowed_iovas@16:8 out_iova_alignment@24:8',
  ],
  [uapi.iommu_iova_range, 16, 'start@0:8 last@8:8'],
  [
    uapi.IOMMU_IOAS_MAP,
    40,
    'size@0:4 flags@4:4 ioas_id@8:4 __reserved@12:4 user_va@16:8 length@24:8 iova@32:8',
  ],
  [uapi.IOMMU_IOAS_MAP_FILE, 40, 'size@0:4 flags@4:4 ioas_id@8:4 fd@12:4 start@16:8 length@24:8 iova@32:8'],
  [uapi.IOMMU_IOAS_UNMAP, 24, 'size@0:4 ioas_id@4:4 iova@8:8 length@16:8'],
  [uapi.IOMMU_OPTION, 24, 'size@0:4 option_id@4:4 op@8:2 __reserved@10:2 object_id@12:4 val64@16:8'],
  [uapi.IOMMU_VFIO_IOAS, 12, 'size@0:4 ioas_id@4:4 op@8:2 __reserved@10:2'],
  [
    uapi.IOMMU_HWPT_ALLOC,
    48,
    'size@0:4 flags@4:4 dev_id@8:4 pt_id@12:4 out_hwpt_id@16:4 __reserved@20:4 data_type@24:4 data_len@28:4 data_uptr@32:8 fault_id@40:4 __reserved2@44:4',
  ],
  [uapi.iommu_hwpt_arm_smmuv3, 16, 'ste0@0:8 ste1@8:8'],
  [
    uapi.IOMMU_GET_HW_INFO,
    40,
    'size@0:4 flags@4:4 dev_id@8:4 data_len@12:4 data_uptr@16:8 out_data_type@24:4 out_max_pasid_log2@28:1 __reserved@29:3 out_capabilities@32:8',
  ],
  [iommu_hw_info_arm_smmuv3, 40, 'flags@0:4 __reserved@4:4 idr@8:24 iidr@32:4 aidr@36:4'],
  [iommu_hw_info_tegra241_cmdqv, 8, 'flags@0:4 version@4:1 log2vcmdqs@5:1 log2vsids@6:1 __reserved@7:1'],
  [uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, 16, 'size@0:4 flags@4:4 hwpt_id@8:4 __reserved@12:4'],
  [
    uapi.IOMMU_HWPT_GET_DIRTY_BITMAP,
    48,
    'size@0:4 hwpt_id@4:4 flags@8:4 __reserved@12:4 iova@16:8 length@24:8 page_size@32:8 data@40:8',
  ],
  [
    uapi.IOMMU_HWPT_INVALIDATE,
    32,
    'size@0:4 hwpt_id@4:4 data_uptr@8:8 data_type@16:4 entry_len@20:4 entry_num@24:4 __reserved@28:4',
  ],
  [uapi.iommu_viommu_arm_smmuv3_invalidate, 16, 'cmd0@0:8 cmd1@8:8'],
  [uapi.IOMMU_FAULT_QUEUE_ALLOC, 16, 'size@0:4 flags@4:4 out_fault_id@8:4 out_fault_fd@12:4'],
  [
    iommu_hwpt_pgfault,
    40,
    'flags@0:4 dev_id@4:4 pasid@8:4 grpid@12:4 perm@16:4 __reserved@20:4 addr@24:8 length@32:4 cookie@36:4',
  ],
  [iommu_hwpt_page_response, 8, 'cookie@0:4 code@4:4'],
  [
    uapi.IOMMU_VIOMMU_ALLOC,
    40,
    'size@0:4 flags@4:4 type@8:4 dev_id@12:4 hwpt_id@16:4 out_viommu_id@20:4 data_len@24:4 __reserved@28:4 data_uptr@32:8',
  ],
  [uapi.IOMMU_VDEVICE_ALLOC, 24, 'size@0:4 viommu_id@4:4 dev_id@8:4 out_vdevice_id@12:4 virt_id@16:8'],
  [
    uapi.IOMMU_VEVENTQ_ALLOC,
    32,
    'size@0:4 flags@4:4 viommu_id@8:4 type@12:4 veventq_depth@16:4 out_veventq_id@20:4 out_veventq_fd@24:4 __reserved@28:4',
  ],
  [iommufd_vevent_header, 8, 'flags@0:4 sequence@4:4'],
  [iommu_vevent_arm_smmuv3, 32, 'evt0@0:8 evt1@8:8 evt2@16:8 evt3@24:8'],
  [iommu_vevent_tegra241_cmdqv, 16, 'lvcmdq_err_map0@0:8 lvcmdq_err_map1@8:8'],
  [
    uapi.IOMMU_HW_QUEUE_ALLOC,
    40,
    'size@0:4 flags@4:4 viommu_id@8:4 type@12:4 index@16:4 out_hw_queue_id@20:4 nesting_parent_iova@24:8 length@32:8',
  ],
  [vfio.VFIO_DEVICE_BIND_IOMMUFD, 24, 'argsz@0:4 flags@4:4 iommufd@8:4 out_devid@12:4 token_uuid_ptr@16:8'],
  [vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, 16, 'argsz@0:4 flags@4:4 pt_id@8:4 pasid@12:4'],
  [vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT, 12, 'argsz@0:4 flags@4:4 pasid@8:4'],
  [
    vfio.VFIO_DEVICE_GET_INFO,
    24,
    'argsz@0:4 flags@4:4 num_regions@8:4 num_irqs@12:4 cap_offset@16:4 pad@20:4',
  ],
  [
    vfio.VFIO_DEVICE_GET_REGION_INFO,
    32,
    'argsz@0:4 flags@4:4 index@8:4 cap_offset@12:4 size@16:8 offset@24:8',
  ],
  [vfio.VFIO_DEVICE_GET_IRQ_INFO, 16, 'argsz@0:4 flags@4:4 index@8:4 count@12:4'],
  [vfio.VFIO_DEVICE_SET_IRQS, 20, 'argsz@0:4 flags@4:4 index@8:4 start@12:4 count@16:4'],
];

describe('the uAPI tables', () => {
  const all = [...uapi.IOMMUFD_IOCTLS, ...vfio.VFIO_IOCTLS];

  it('name every ioctl once', () => {
    expect(all.map((ioctl) => ioctl.ioctl)).toEqual(NUMBERS.map(([name]) => name));
    expect(new Set(all.map((ioctl) => ioctl.request)).size).toBe(all.length);
  });

  it.each(NUMBERS)('%s is number %i, least size %i, size %i', (name, request, minSize, size) => {
    const ioctl = all.find((one) => one.ioctl === name)!;
    expect([ioctl.request, ioctl.minSize, ioctl.size]).toEqual([request, minSize, size]);
  });

  it.each(LAYOUTS.map(([struct, size, members]) => [struct.name, struct, size, members] as const))(
    'struct %s has the header’s layout',
    (_, struct, size, members) => {
      expect(struct.size).toBe(size);
      const ours = Object.entries(struct.members).map(
        ([name, member]) => `${name}@${member.offset}:${member.width * (member.count ?? 1)}`,
      );
      expect(ours.join(' ')).toBe(members);
    },
  );

  it('leave no gap between members that is not padding to 8 bytes', () => {
    for (const [struct] of LAYOUTS) {
      let end = 0;
      for (const member of Object.values(struct.members)) {
        expect(member.offset % member.width, struct.name).toBe(0);
        expect(member.offset - end, struct.name).toBe(0);
        end = member.offset + member.width * (member.count ?? 1);
      }
      expect([0, 4]).toContain(struct.size - end);
    }
  });

  it('give flags and types the header’s values', () => {
    expect([
      uapi.IOMMU_IOAS_MAP_FIXED_IOVA,
      uapi.IOMMU_IOAS_MAP_WRITEABLE,
      uapi.IOMMU_IOAS_MAP_READABLE,
    ]).toEqual([1, 2, 4]);
    expect([uapi.IOMMU_HWPT_ALLOC_NEST_PARENT, uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING]).toEqual([1, 2]);
    expect([uapi.IOMMU_HWPT_FAULT_ID_VALID, uapi.IOMMU_HWPT_ALLOC_PASID]).toEqual([4, 8]);
    expect([uapi.IOMMU_HWPT_DATA_VTD_S1, uapi.IOMMU_HWPT_DATA_ARM_SMMUV3]).toEqual([1, 2]);
    expect([uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3, uapi.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3]).toEqual([1, 1]);
    expect(uapi.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3).toBe(1);
    expect(uapi.VEVENTQ_MAX_DEPTH).toBe(524288);
  });
});

describe('a structure', () => {
  it('reads as zero where the bytes end, and never beyond them', () => {
    const short = uapi.IOMMU_HWPT_ALLOC.encode({ data_uptr: 0x1234n, pt_id: 7 }, 24);
    expect(short.length).toBe(24);
    expect(uapi.IOMMU_HWPT_ALLOC.decode(short)).toMatchObject({
      size: 24,
      pt_id: 7,
      data_uptr: 0n,
      fault_id: 0,
    });
    expect(uapi.IOMMU_HWPT_ALLOC.decode(new Uint8Array(0)).size).toBe(0);
  });

  it('drops a write beyond the end of the bytes', () => {
    const bytes = new Uint8Array(8);
    uapi.IOMMU_HWPT_ALLOC.set(bytes, 'data_uptr', ~0n & 0xffff_ffff_ffff_ffffn);
    expect(bytes).toEqual(new Uint8Array(8));
  });

  it('is little-endian and writes its own size', () => {
    const bytes = uapi.IOMMU_VDEVICE_ALLOC.encode({ viommu_id: 0x01020304, virt_id: 0x1122334455667788n });
    expect([...bytes]).toEqual([
      24, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
    ]);
  });

  it('grows with zeros when a greater size is asked for', () => {
    const bytes = uapi.IOMMU_DESTROY.encode({ id: 3 }, 16);
    expect([...bytes]).toEqual([16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('reads and writes signed numbers and arrays', () => {
    const bind = vfio.VFIO_DEVICE_BIND_IOMMUFD.encode({ iommufd: -1 });
    expect(vfio.VFIO_DEVICE_BIND_IOMMUFD.get(bind, 'iommufd')).toBe(-1);
    const info = iommu_hw_info_arm_smmuv3.encode({ idr: [1, 2, 3, 4, 5, 0xffff_ffff], aidr: 9 });
    expect(iommu_hw_info_arm_smmuv3.decode(info)).toMatchObject({
      flags: 0,
      idr: [1, 2, 3, 4, 5, 0xffff_ffff],
      aidr: 9,
    });
  });

  it('decodes at an offset of a larger buffer, aligned or not', () => {
    const bytes = new Uint8Array(64);
    iommufd_vevent_header.set(bytes, 'sequence', 0x7fff_ffff, 41);
    expect(iommufd_vevent_header.decode(bytes, 41)).toEqual({ flags: 0, sequence: 0x7fff_ffff });
  });
});

describe('errnos', () => {
  it('have the asm-generic numbers', () => {
    expect(ERRNO).toMatchObject({
      EPERM: 1,
      ENOENT: 2,
      EINTR: 4,
      EIO: 5,
      ENXIO: 6,
      E2BIG: 7,
      EBADF: 9,
      EAGAIN: 11,
      ENOMEM: 12,
      EACCES: 13,
      EFAULT: 14,
      EBUSY: 16,
      EEXIST: 17,
      ENODEV: 19,
      EINVAL: 22,
      EMFILE: 24,
      ENOTTY: 25,
      ENOSPC: 28,
      ESPIPE: 29,
      EOVERFLOW: 75,
      EBADFD: 77,
      EMSGSIZE: 90,
      EOPNOTSUPP: 95,
      EADDRINUSE: 98,
      ETIMEDOUT: 110,
    });
  });

  it('go by name both ways', () => {
    expect(errnoName(-22)).toBe('EINVAL');
    expect(errnoName(0)).toBe('OK');
    expect(errnoName(4095)).toBe('errno 4095');
    expect(errnoNumber('EBADFD')).toBe(77);
    expect(errnoNumber('OK')).toBe(0);
    expect(errnoNumber('toString')).toBeUndefined();
    expect(errnoNumber('ENOSUCH')).toBeUndefined();
  });
});
