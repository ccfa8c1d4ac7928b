/** Which function answers which ioctl. */

import type { Errno } from '../../../iommufd/kernel.ts';
import type { IOMMUFD_IOCTLS } from '../../../iommufd/uapi/iommufd.ts';
import type { Ioctl } from '../../../iommufd/uapi/struct.ts';
import type { Command } from './context.ts';
import { getHwInfo } from './hw-info-ioctl.ts';
import { allocHwpt, getDirtyBitmap, invalidateHwpt, setDirtyTracking } from './hwpt-ioctls.ts';
import {
  allocIoas,
  allowIovas,
  changeProcess,
  copyIoas,
  iovaRanges,
  mapFile,
  mapIoas,
  noiommuGetPa,
  unmapIoas,
  vfioIoas,
} from './ioas-ioctls.ts';
import { destroyObject, setOption } from './object-ioctls.ts';
import { allocFaultQueue, allocHwQueue, allocVdevice, allocVeventq, allocViommu } from './viommu-ioctls.ts';

type Handlers = {
  readonly [I in (typeof IOMMUFD_IOCTLS)[number] as I['ioctl']]: I extends Ioctl<infer M>
    ? (command: Command<M>) => Errno
    : never;
};

export const HANDLERS: Handlers = {
  IOMMU_DESTROY: destroyObject,
  IOMMU_IOAS_ALLOC: allocIoas,
  IOMMU_IOAS_ALLOW_IOVAS: allowIovas,
  IOMMU_IOAS_COPY: copyIoas,
  IOMMU_IOAS_IOVA_RANGES: iovaRanges,
  IOMMU_IOAS_MAP: mapIoas,
  IOMMU_IOAS_UNMAP: unmapIoas,
  IOMMU_OPTION: setOption,
  IOMMU_VFIO_IOAS: vfioIoas,
  IOMMU_HWPT_ALLOC: allocHwpt,
  IOMMU_GET_HW_INFO: getHwInfo,
  IOMMU_HWPT_SET_DIRTY_TRACKING: setDirtyTracking,
  IOMMU_HWPT_GET_DIRTY_BITMAP: getDirtyBitmap,
  IOMMU_HWPT_INVALIDATE: invalidateHwpt,
  IOMMU_FAULT_QUEUE_ALLOC: allocFaultQueue,
  IOMMU_IOAS_MAP_FILE: mapFile,
  IOMMU_VIOMMU_ALLOC: allocViommu,
  IOMMU_VDEVICE_ALLOC: allocVdevice,
  IOMMU_IOAS_CHANGE_PROCESS: changeProcess,
  IOMMU_VEVENTQ_ALLOC: allocVeventq,
  IOMMU_HW_QUEUE_ALLOC: allocHwQueue,
  IOMMU_IOAS_NOIOMMU_GET_PA: noiommuGetPa,
};
