/** Records that a read of a vEVENTQ returns: a header, then the data of the queue's type, without padding. */

import { Struct, u32, u64 } from './struct.ts';

export const iommufd_vevent_header = new Struct('iommufd_vevent_header', 8, {
  flags: u32(0),
  /** 0..0x7fff_ffff; counts every event that reached the queue, delivered or lost. */
  sequence: u32(4),
});
/** The record is this header alone: events up to its number were lost. */
export const IOMMU_VEVENTQ_FLAG_LOST_EVENTS = 1;
/** The number after it is 0. */
export const VEVENT_SEQUENCE_MAX = 0x7fff_ffff;

/** A raw SMMUv3 event record, its StreamID replaced by the vDEVICE's. */
export const iommu_vevent_arm_smmuv3 = new Struct('iommu_vevent_arm_smmuv3', 32, {
  evt0: u64(0),
  evt1: u64(8),
  evt2: u64(16),
  evt3: u64(24),
});

export const iommu_vevent_tegra241_cmdqv = new Struct('iommu_vevent_tegra241_cmdqv', 16, {
  lvcmdq_err_map0: u64(0),
  lvcmdq_err_map1: u64(8),
});

/** Bytes of one SMMUv3 record: header and event. */
export const VEVENT_ARM_SMMUV3_SIZE = 40;
