/** IOMMU_GET_HW_INFO. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import {
  iommu_hw_info_arm_smmuv3,
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
  IOMMU_HW_INFO_TYPE_NONE,
} from '../../../iommufd/uapi/hw-info.ts';
import type { IOMMU_GET_HW_INFO } from '../../../iommufd/uapi/iommufd.ts';
import { IDR0 } from '../../../spec/registers.ts';
import { BoundDevice } from './bound-device.ts';
import type { Command } from './context.ts';

/** IDR0.HTTU: access and dirty flags. */
const HTTU_DIRTY = 2;

export function getHwInfo(command: Command<typeof IOMMU_GET_HW_INFO.members>): Errno {
  const { context, values } = command;
  if ((values.flags & ~context.ports.version.hwInfoFlags) !== 0) return ERRNO.EOPNOTSUPP;
  if (values.__reserved.some((byte) => byte !== 0)) return ERRNO.EOPNOTSUPP;
  const device = context.find(values.dev_id, BoundDevice);
  if (device === undefined) return ERRNO.ENOENT;
  const wanted =
    (values.flags & IOMMU_HW_INFO_FLAG_INPUT_TYPE) !== 0 ? values.out_data_type : IOMMU_HW_INFO_TYPE_NONE;
  if (wanted !== IOMMU_HW_INFO_TYPE_NONE && wanted !== IOMMU_HW_INFO_TYPE_ARM_SMMUV3) return ERRNO.EOPNOTSUPP;
  const { ids } = device.master.smmu;
  const info = iommu_hw_info_arm_smmuv3.encode({
    idr: [ids.IDR0, ids.IDR1, ids.IDR2, ids.IDR3, ids.IDR4, ids.IDR5],
    iidr: ids.IIDR,
    aidr: ids.AIDR,
  });
  if (values.data_len > 0) {
    const to = context.ports.user.find(values.data_uptr, values.data_len);
    if (to === undefined) return ERRNO.EFAULT;
    const bytes = to.bytes.subarray(to.offset, to.offset + values.data_len);
    bytes.fill(0);
    bytes.set(info.subarray(0, bytes.length));
  }
  const dirty = IDR0.HTTU.of(ids.IDR0) >= HTTU_DIRTY && IDR0.COHACC.of(ids.IDR0) === 1;
  return command.respond({
    data_len: info.length,
    out_data_type: IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
    out_max_pasid_log2: device.master.pasidBits,
    out_capabilities:
      (dirty ? IOMMU_HW_CAP_DIRTY_TRACKING : 0n) |
      (device.master.ats ? 0n : IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
  });
}
