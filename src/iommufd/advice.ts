/** What an errno means where an operation gave it, and what to do about it. */

export interface Advice {
  /** Begins small and ends with a full stop: it follows a colon. */
  readonly reason: string;
  readonly hint?: string;
}

const OTHER_SMMU: Advice = {
  reason: 'the device is behind another physical SMMU than this virtual SMMU.',
  hint: 'One virtual SMMU stands for one physical SMMU: plug the device into a virtual SMMU of its own.',
};

const ADVICE: Readonly<Record<string, Advice>> = {
  'open ENOENT': {
    reason: 'there is no such file on this host.',
    hint: 'iommufd needs Linux 6.2 or later with CONFIG_IOMMUFD; a VFIO device appears in /dev/vfio/devices once it is bound to vfio-pci.',
  },
  'open EACCES': {
    reason: 'this user may not open it.',
    hint: 'Give the user read and write access to /dev/iommu and to the files in /dev/vfio/devices.',
  },
  'open EBUSY': { reason: 'another process uses the device.' },
  'VFIO_DEVICE_BIND_IOMMUFD EPERM': {
    reason: "the host cannot isolate the device's interrupts.",
    hint: 'iommufd.allow_unsafe_interrupts=1 lets it be used, if the guest is trusted.',
  },
  'VFIO_DEVICE_BIND_IOMMUFD EBUSY': { reason: 'another driver or process owns the DMA of the device.' },
  'VFIO_DEVICE_BIND_IOMMUFD EINVAL': {
    reason: 'the descriptor is bound already, or the host cannot make its DMA coherent.',
  },
  'IOMMU_HWPT_ALLOC EOPNOTSUPP': {
    reason: 'the host SMMU does not offer such a page table.',
    hint: 'Nesting needs an SMMU with both stages (IDR0.S1P and S2P), and a kernel with CONFIG_ARM_SMMU_V3_IOMMUFD.',
  },
  'IOMMU_HWPT_ALLOC EIO': { reason: 'the host does not accept these STE words.' },
  'IOMMU_HWPT_ALLOC EINVAL': OTHER_SMMU,
  'IOMMU_VIOMMU_ALLOC EOPNOTSUPP': {
    reason: 'the host SMMU does not offer nesting to this device.',
    hint: 'It needs both stages without a nesting erratum, and either IDR3.FWB or a device whose accesses are always coherent.',
  },
  'IOMMU_VIOMMU_ALLOC EINVAL': OTHER_SMMU,
  'IOMMU_VDEVICE_ALLOC EINVAL': OTHER_SMMU,
  'IOMMU_VDEVICE_ALLOC EEXIST': {
    reason: 'the device has a virtual StreamID already, or another device of this virtual SMMU has this one.',
  },
  'IOMMU_VDEVICE_ALLOC EOPNOTSUPP': { reason: 'the device does not have exactly one StreamID on the host.' },
  'IOMMU_VEVENTQ_ALLOC EEXIST': { reason: 'the vIOMMU has an event queue already.' },
  'IOMMU_VEVENTQ_ALLOC EMFILE': {
    reason: 'this process has no file descriptor left.',
    hint: 'Raise the limit of open files (ulimit -n).',
  },
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT EINVAL': OTHER_SMMU,
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT ENOENT': {
    reason: 'the page table is gone, or it translates and the device has no vDEVICE.',
  },
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT EBUSY': { reason: 'the host uses PASIDs of this device.' },
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT EOPNOTSUPP': {
    reason: 'the host cannot have the faults of this device wait.',
    hint: 'Stalls need a kernel with CONFIG_ARM_SMMU_V3_SVA and a device with exactly one StreamID; stall=off does without.',
  },
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT EADDRINUSE': {
    reason: 'guest RAM is mapped where the host must map its interrupt doorbells.',
    hint: 'Keep guest-physical 0x0800_0000 to 0x080f_ffff free of RAM.',
  },
  'IOMMU_IOAS_MAP EINVAL': {
    reason: 'the range is misaligned, or lies where the host must map its interrupt doorbells.',
    hint: 'Keep guest-physical 0x0800_0000 to 0x080f_ffff free of RAM.',
  },
  'IOMMU_IOAS_MAP ENOMEM': {
    reason: 'the host could not pin guest RAM.',
    hint: 'The limit of locked memory (ulimit -l) must be at least the size of guest RAM.',
  },
  'IOMMU_IOAS_MAP EEXIST': { reason: 'the range overlaps RAM that is mapped already.' },
  'IOMMU_DESTROY EBUSY': { reason: 'something still uses the object.' },
  'IOMMU_HWPT_INVALIDATE ETIMEDOUT': { reason: 'the physical SMMU or a device did not complete it in time.' },
  'IOMMU_HWPT_INVALIDATE EIO': { reason: 'the host does not accept one of the commands.' },
};

const ANY: Readonly<Record<string, Advice>> = {
  ENOMEM: { reason: 'the host has no memory left.' },
  EMFILE: {
    reason: 'this process has no file descriptor left.',
    hint: 'Raise the limit of open files (ulimit -n).',
  },
  ENODEV: { reason: 'the device is gone.' },
};

/** What is known about an operation that gave this errno name. */
export const adviceFor = (operation: string, code: string): Advice | undefined =>
  ADVICE[`${operation} ${code}`] ?? ANY[code];
