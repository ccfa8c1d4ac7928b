/** Calls to the host as a person would say them. */

import type { Call } from '../iommufd/call.ts';
import { IOMMU_HWPT_ALLOC_NEST_PARENT } from '../iommufd/uapi/iommufd.ts';
import { errnoName } from '../iommufd/uapi/errno.ts';

const hex = (value: unknown): string => `0x${Number(value).toString(16)}`;
const kib = (value: unknown): string => `${(Number(value) / 1024).toLocaleString('en')} KiB`;

type Sentence = (given: Call['given'], returned: Call['returned']) => string;

const SENTENCES: Readonly<Record<string, Sentence>> = {
  open: ({ path }) => `opens ${String(path)}`,
  close: ({ fd }) => `closes descriptor ${String(fd)}`,
  VFIO_DEVICE_BIND_IOMMUFD: (_, { out_devid }) =>
    `takes the device from the host${known(out_devid, 'as device')}, with all its DMA blocked`,
  IOMMU_GET_HW_INFO: ({ dev_id }) => `asks what the physical SMMU of device ${String(dev_id)} can do`,
  IOMMU_IOAS_ALLOC: (_, { out_ioas_id }) => `makes an address space for guest RAM${known(out_ioas_id)}`,
  IOMMU_IOAS_MAP: ({ iova, length }) => `maps ${kib(length)} at guest-physical ${hex(iova ?? 0)}`,
  IOMMU_IOAS_UNMAP: ({ iova, length }) => `unmaps ${kib(length)} at guest-physical ${hex(iova ?? 0)}`,
  IOMMU_HWPT_ALLOC: ({ flags, pt_id, fault_id }, { out_hwpt_id }) =>
    flags === IOMMU_HWPT_ALLOC_NEST_PARENT
      ? `makes the stage 2 table of address space ${String(pt_id)}${known(out_hwpt_id)}`
      : `makes a nested table on vIOMMU ${String(pt_id)} from what the guest says of the stream${withFaults(fault_id)}${known(out_hwpt_id)}`,
  IOMMU_FAULT_QUEUE_ALLOC: (_, { out_fault_id }) =>
    `makes a FAULT_QUEUE, in which faults of devices wait for the guest's answer${known(out_fault_id)}`,
  IOMMU_VIOMMU_ALLOC: ({ hwpt_id }, { out_viommu_id }) =>
    `makes the vIOMMU, the guest's share of the physical SMMU, on stage 2 table ${String(hwpt_id)}${known(out_viommu_id)}`,
  IOMMU_VDEVICE_ALLOC: ({ dev_id, virt_id }, { out_vdevice_id }) =>
    `tells the host that device ${String(dev_id)} has StreamID ${hex(virt_id ?? 0)} in the guest${known(out_vdevice_id)}`,
  IOMMU_VEVENTQ_ALLOC: ({ veventq_depth }, { out_veventq_id }) =>
    `makes the vEVENTQ, in which the host keeps up to ${String(veventq_depth)} events for the guest${known(out_veventq_id)}`,
  IOMMU_HWPT_INVALIDATE: ({ entry_num }) => `has ${String(entry_num)} invalidations carried out`,
  IOMMU_DESTROY: ({ id }) => `destroys object ${String(id)}`,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: ({ pt_id }) => `attaches the device to table ${String(pt_id)}`,
  VFIO_DEVICE_DETACH_IOMMUFD_PT: () => 'detaches the device, which blocks all its DMA',
  VFIO_DEVICE_RESET: () => 'resets the device',
};

const known = (id: unknown, as = 'as object'): string => (id === undefined ? '' : `, ${as} ${Number(id)}`);

const withFaults = (id: unknown): string =>
  id === undefined ? '' : `, its faults to wait in FAULT_QUEUE ${Number(id)}`;

/** @returns a sentence: `Makes the vIOMMU, ...`, or `The host refuses (ENOMEM): ...` */
export function describeCall({ operation, given, returned, errno }: Call): string {
  const sentence = SENTENCES[operation]?.(given, returned) ?? `calls ${operation}`;
  if (errno !== 0) return `The host refuses (${errnoName(errno)}) what ${sentence}.`;
  return `${sentence[0].toUpperCase()}${sentence.slice(1)}.`;
}
