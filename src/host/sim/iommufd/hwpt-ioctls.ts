/** The ioctls of hardware page tables. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import {
  type IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  iommu_hwpt_arm_smmuv3,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_FAULT_ID_VALID,
  type IOMMU_HWPT_GET_DIRTY_BITMAP,
  type IOMMU_HWPT_INVALIDATE,
  IOMMU_HWPT_INVALIDATE_MAX_ENTRIES,
  type IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
} from '../../../iommufd/uapi/iommufd.ts';
import type { Values } from '../../../iommufd/uapi/struct.ts';
import { COMMAND_SIZE, COMMAND_WORDS } from '../../../spec/commands.ts';
import { checkGuestSte } from '../arm-smmu-v3/guest-ste.ts';
import { HOST_PAGE_SIZE } from '../host-memory.ts';
import { BoundDevice } from './bound-device.ts';
import type { Command, IommufdContext } from './context.ts';
import { FaultQueue } from './fault-queue.ts';
import { HwptNested, HwptPaging, type Hwpt } from './hwpt.ts';
import { Ioas, U64_MAX } from './ioas.ts';
import { Viommu } from './viommu.ts';

/** The largest piece of memory that a kernel with 4 KiB pages gives itself. */
const KMALLOC_MAX_SIZE = 4 << 20;

type AllocValues = Values<typeof IOMMU_HWPT_ALLOC.members>;

export function allocHwpt(command: Command<typeof IOMMU_HWPT_ALLOC.members>): Errno {
  const { context, values } = command;
  if (values.__reserved !== 0) return ERRNO.EOPNOTSUPP;
  if ((values.data_type === IOMMU_HWPT_DATA_NONE) !== (values.data_len === 0)) return ERRNO.EINVAL;
  const device = context.find(values.dev_id, BoundDevice);
  if (device === undefined) return ERRNO.ENOENT;
  const target = context.objects.get(values.pt_id);
  let hwpt: Hwpt | Errno = ERRNO.EINVAL;
  if (target instanceof Ioas) hwpt = allocPaging(context, values, device, target);
  else if (target instanceof Viommu) hwpt = allocNested(context, values, device, target);
  // arm-smmu-v3 makes nested tables from a vIOMMU only.
  else if (target instanceof HwptPaging) hwpt = ERRNO.EOPNOTSUPP;
  if (typeof hwpt === 'number') return hwpt;
  context.objects.add(hwpt);
  return command.respond({ out_hwpt_id: hwpt.id });
}

function allocPaging(
  context: IommufdContext,
  values: AllocValues,
  device: BoundDevice,
  ioas: Ioas,
): HwptPaging | Errno {
  const { flags } = values;
  const nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
  const known =
    IOMMU_HWPT_ALLOC_NEST_PARENT |
    IOMMU_HWPT_ALLOC_DIRTY_TRACKING |
    IOMMU_HWPT_FAULT_ID_VALID |
    IOMMU_HWPT_ALLOC_PASID;
  const withFault = (flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0;
  if ((flags & ~known) !== 0 || (nestParent && withFault)) return ERRNO.EOPNOTSUPP;
  if (values.data_len !== 0) return ERRNO.EOPNOTSUPP;
  const { smmu } = device.master;
  if ((flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0) return ERRNO.EOPNOTSUPP;
  if (nestParent && (!smmu.canNest || flags !== IOMMU_HWPT_ALLOC_NEST_PARENT)) return ERRNO.EOPNOTSUPP;
  const fault = withFault ? context.find(values.fault_id, FaultQueue) : undefined;
  if (withFault && fault === undefined) return ERRNO.ENOENT;
  return HwptPaging.create(ioas, smmu, { nestParent, fault });
}

function allocNested(
  context: IommufdContext,
  values: AllocValues,
  device: BoundDevice,
  viommu: Viommu,
): HwptNested | Errno {
  const { flags } = values;
  if (device.master.smmu !== viommu.smmu) return ERRNO.EINVAL;
  if ((flags & ~(IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID)) !== 0) return ERRNO.EOPNOTSUPP;
  if (values.data_len === 0) return ERRNO.EOPNOTSUPP;
  if ((flags & ~IOMMU_HWPT_FAULT_ID_VALID) !== 0) return ERRNO.EOPNOTSUPP;
  if (values.data_type !== IOMMU_HWPT_DATA_ARM_SMMUV3) return ERRNO.EINVAL;
  if (values.data_len !== iommu_hwpt_arm_smmuv3.size) return ERRNO.EINVAL;
  const data = new Uint8Array(iommu_hwpt_arm_smmuv3.size);
  if (!context.ports.user.copyIn(values.data_uptr, data)) return ERRNO.EFAULT;
  const { ste0, ste1 } = iommu_hwpt_arm_smmuv3.decode(data);
  const words = checkGuestSte(ste0, ste1);
  if (typeof words === 'number') return words;
  const withFault = (flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0;
  const fault = withFault ? context.find(values.fault_id, FaultQueue) : undefined;
  if (withFault && fault === undefined) return ERRNO.ENOENT;
  return new HwptNested(viommu, words, fault);
}

export function invalidateHwpt(command: Command<typeof IOMMU_HWPT_INVALIDATE.members>): Errno {
  const { done, errno } = invalidate(command.context, command.values);
  command.respond({ entry_num: done });
  return errno;
}

function invalidate(
  context: IommufdContext,
  values: Values<typeof IOMMU_HWPT_INVALIDATE.members>,
): { readonly done: number; readonly errno: Errno } {
  const fail = (errno: Errno): { done: number; errno: Errno } => ({ done: 0, errno });
  const { entry_num: count, entry_len: length } = values;
  if (values.__reserved !== 0) return fail(ERRNO.EOPNOTSUPP);
  if (
    count !== 0 &&
    (values.data_uptr === 0n ||
      length === 0 ||
      length > HOST_PAGE_SIZE ||
      count > IOMMU_HWPT_INVALIDATE_MAX_ENTRIES)
  )
    return fail(ERRNO.EINVAL);
  const target = context.objects.get(values.hwpt_id);
  if (target === undefined) return fail(ERRNO.ENOENT);
  if (target instanceof HwptNested) return fail(ERRNO.EOPNOTSUPP);
  if (!(target instanceof Viommu)) return fail(ERRNO.EINVAL);
  // The driver has all commands in one piece of memory first, and says nothing of how many it did if there is none.
  if (count * COMMAND_SIZE > KMALLOC_MAX_SIZE) return { done: count, errno: ERRNO.ENOMEM };
  if (values.data_type !== IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 || count === 0) return fail(ERRNO.EINVAL);
  const words = new Uint32Array(count * COMMAND_WORDS);
  const copied = copyCommands(context, values, words);
  if (copied !== 0) return fail(copied);
  return target.invalidate(words, count);
}

/** Copies the entries of the array; short ones are zero-extended, the rest of long ones must be zero. */
function copyCommands(
  context: IommufdContext,
  values: Values<typeof IOMMU_HWPT_INVALIDATE.members>,
  words: Uint32Array,
): Errno {
  const { entry_num: count, entry_len: length } = values;
  const range = context.ports.user.find(values.data_uptr, count * length);
  if (range === undefined) return ERRNO.EFAULT;
  const to = new Uint8Array(words.buffer);
  for (let i = 0; i < count; i++) {
    const from = range.offset + i * length;
    const entry = range.bytes.subarray(from, from + length);
    if (entry.subarray(COMMAND_SIZE).some((byte) => byte !== 0)) return ERRNO.E2BIG;
    to.set(entry.subarray(0, COMMAND_SIZE), i * COMMAND_SIZE);
  }
  return 0;
}

export function setDirtyTracking({
  context,
  values,
}: Command<typeof IOMMU_HWPT_SET_DIRTY_TRACKING.members>): Errno {
  if ((values.flags & ~1) !== 0) return ERRNO.EOPNOTSUPP;
  return context.find(values.hwpt_id, HwptPaging) === undefined ? ERRNO.ENOENT : ERRNO.EOPNOTSUPP;
}

export function getDirtyBitmap({
  context,
  values,
}: Command<typeof IOMMU_HWPT_GET_DIRTY_BITMAP.members>): Errno {
  if ((values.flags & ~1) !== 0 || values.__reserved !== 0) return ERRNO.EOPNOTSUPP;
  const hwpt = context.find(values.hwpt_id, HwptPaging);
  if (hwpt === undefined) return ERRNO.ENOENT;
  // The range is looked at before it is found that no SMMU here tells dirty pages.
  const { iova, length, page_size: page } = values;
  if (length === 0n) return ERRNO.EINVAL;
  if (iova + length - 1n > U64_MAX) return ERRNO.EOVERFLOW;
  const mask = hwpt.ioas.alignment - 1n;
  if (((iova | (iova + length)) & mask) !== 0n || page === 0n) return ERRNO.EINVAL;
  return ((iova | (iova + length)) & (page - 1n)) === 0n ? ERRNO.EOPNOTSUPP : ERRNO.EINVAL;
}
