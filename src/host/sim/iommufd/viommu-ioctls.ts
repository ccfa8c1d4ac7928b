/** The ioctls that make vIOMMUs and what belongs to them. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import {
  type IOMMU_FAULT_QUEUE_ALLOC,
  type IOMMU_HW_QUEUE_ALLOC,
  type IOMMU_VDEVICE_ALLOC,
  type IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_TYPE_DEFAULT,
  type IOMMU_VIOMMU_ALLOC,
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  IOMMU_VIOMMU_TYPE_DEFAULT,
  VEVENTQ_MAX_DEPTH,
} from '../../../iommufd/uapi/iommufd.ts';
import { Stage2Domain } from '../arm-smmu-v3/domain.ts';
import { BoundDevice } from './bound-device.ts';
import type { Command } from './context.ts';
import { FaultQueue, FaultQueueFile } from './fault-queue.ts';
import { HwptPaging } from './hwpt.ts';
import { U64_MAX } from './ioas.ts';
import { Veventq, VeventqFile } from './veventq.ts';
import { Vdevice, Viommu } from './viommu.ts';

export function allocViommu(command: Command<typeof IOMMU_VIOMMU_ALLOC.members>): Errno {
  const { context, values } = command;
  if (values.flags !== 0 || values.type === IOMMU_VIOMMU_TYPE_DEFAULT) return ERRNO.EOPNOTSUPP;
  const device = context.find(values.dev_id, BoundDevice);
  if (device === undefined) return ERRNO.ENOENT;
  const { smmu, canwbs } = device.master;
  // Without forced write-back the guest's memory types must not be able to break coherency.
  const supported = smmu.canNest && (canwbs || smmu.hasFwb);
  if (!supported || values.type !== IOMMU_VIOMMU_TYPE_ARM_SMMUV3) return ERRNO.EOPNOTSUPP;
  const parent = context.find(values.hwpt_id, HwptPaging);
  if (parent === undefined) return ERRNO.ENOENT;
  if (!parent.nestParent || !(parent.domain instanceof Stage2Domain)) return ERRNO.EINVAL;
  if (parent.domain.smmu !== smmu) return ERRNO.EINVAL;
  const viommu = new Viommu(parent, parent.domain, context.ports.version);
  context.objects.add(viommu);
  return command.respond({ out_viommu_id: viommu.id });
}

export function allocVdevice(command: Command<typeof IOMMU_VDEVICE_ALLOC.members>): Errno {
  const { context, values } = command;
  const viommu = context.find(values.viommu_id, Viommu);
  if (viommu === undefined) return ERRNO.ENOENT;
  const device = context.find(values.dev_id, BoundDevice);
  if (device === undefined) return ERRNO.ENOENT;
  const vdevice = Vdevice.create(viommu, device, values.virt_id);
  if (typeof vdevice === 'number') return vdevice;
  context.objects.add(vdevice);
  return command.respond({ out_vdevice_id: vdevice.id });
}

export function allocVeventq(command: Command<typeof IOMMU_VEVENTQ_ALLOC.members>): Errno {
  const { context, values } = command;
  if (values.flags !== 0 || values.__reserved !== 0 || values.type === IOMMU_VEVENTQ_TYPE_DEFAULT)
    return ERRNO.EOPNOTSUPP;
  if (values.veventq_depth === 0 || values.veventq_depth > VEVENTQ_MAX_DEPTH) return ERRNO.EINVAL;
  const viommu = context.find(values.viommu_id, Viommu);
  if (viommu === undefined) return ERRNO.ENOENT;
  if (viommu.veventqs.has(values.type)) return ERRNO.EEXIST;
  const queue = new Veventq(viommu, values.type, values.veventq_depth);
  const file = new VeventqFile(queue, () => context.unpin());
  context.pin();
  const fd = context.ports.openFile(file);
  if (fd < 0) {
    file.release();
    queue.destroy();
    return -fd;
  }
  context.objects.add(queue);
  return command.respond({ out_veventq_id: queue.id, out_veventq_fd: fd });
}

export function allocFaultQueue(command: Command<typeof IOMMU_FAULT_QUEUE_ALLOC.members>): Errno {
  const { context, values } = command;
  if (values.flags !== 0) return ERRNO.EOPNOTSUPP;
  const queue = new FaultQueue();
  const file = new FaultQueueFile(queue, () => context.unpin());
  context.pin();
  const fd = context.ports.openFile(file);
  if (fd < 0) {
    file.release();
    return -fd;
  }
  context.objects.add(queue);
  return command.respond({ out_fault_id: queue.id, out_fault_fd: fd });
}

/** A plain SMMUv3 has no queues for guests. */
export function allocHwQueue({ context, values }: Command<typeof IOMMU_HW_QUEUE_ALLOC.members>): Errno {
  if (values.flags !== 0 || values.type === 0) return ERRNO.EOPNOTSUPP;
  if (values.length === 0n) return ERRNO.EINVAL;
  if (values.nesting_parent_iova + values.length - 1n > U64_MAX) return ERRNO.EOVERFLOW;
  if (context.find(values.viommu_id, Viommu) === undefined) return ERRNO.ENOENT;
  return ERRNO.EOPNOTSUPP;
}
