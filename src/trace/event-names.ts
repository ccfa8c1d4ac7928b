/** What the values of trace events are, and which track they belong on. The names are QEMU's where it has the event. */

/** A part of the machine; each is a track of its own in a picture. */
export type Track = 'registers' | 'commands' | 'translation' | 'events' | 'interrupts' | 'host';

export interface TraceEventSpec {
  readonly track: Track;
  /** Names of the values, in order; those that end in `#` are shown in decimal, others in hexadecimal. */
  readonly values: readonly string[];
}

const spec = (track: Track, ...values: string[]): TraceEventSpec => ({ track, values });

/** Every event that the device and the accelerator record. */
export const TRACE_EVENTS: Readonly<Record<string, TraceEventSpec>> = {
  smmuv3_read_mmio: spec('registers', 'addr', 'value', 'value_hi', 'size#'),
  smmuv3_write_mmio: spec('registers', 'addr', 'value', 'value_hi', 'size#'),
  smmuv3_write_gerror: spec('interrupts', 'error', 'gerror'),
  smmuv3_write_gerrorn: spec('interrupts', 'gerrorn', 'active'),
  smmuv3_trigger_irq: spec('interrupts', 'irq#'),
  smmuv3_cmdq_opcode: spec('commands', 'opcode'),
  smmuv3_cmdq_cfgi_ste: spec('commands', 'sid'),
  smmuv3_cmdq_cfgi_ste_range: spec('commands', 'start', 'end'),
  smmuv3_cmdq_consume_error: spec('commands', 'cerror#', 'cons'),
  smmuv3_config_cache_miss: spec('translation', 'sid', 'ssid'),
  smmuv3_record_event: spec('events', 'type', 'sid'),
  smmuv3_page_request: spec('events', 'sid', 'prg_index#'),
  vsmmu_fault: spec('events', 'dev_id#', 'grpid', 'addr_hi', 'addr', 'cookie#'),
  vsmmu_fault_answer: spec('events', 'cookie#', 'code#'),
  vsmmu_case: spec('host', 'title'),
  vsmmu_reconcile: spec('host', 'cause', 'calls#'),
  vsmmu_dropped: spec('host', 'entries#'),
  vsmmu_failure: spec('host', 'concern', 'message'),
};

/** The trace event of QEMU for a call to the host; calls that QEMU does not make, or not trace, have names of ours. */
export const CALL_EVENTS: Readonly<Record<string, string>> = {
  IOMMU_IOAS_ALLOC: 'iommufd_backend_alloc_ioas',
  IOMMU_IOAS_MAP: 'iommufd_backend_map_dma',
  IOMMU_IOAS_UNMAP: 'iommufd_backend_unmap_dma',
  IOMMU_HWPT_ALLOC: 'iommufd_backend_alloc_hwpt',
  IOMMU_HWPT_INVALIDATE: 'iommufd_backend_invalidate_cache',
  IOMMU_VIOMMU_ALLOC: 'iommufd_backend_alloc_viommu',
  IOMMU_VDEVICE_ALLOC: 'iommufd_backend_alloc_vdev',
  IOMMU_VEVENTQ_ALLOC: 'iommufd_viommu_alloc_eventq',
  IOMMU_DESTROY: 'iommufd_backend_free_id',
  VFIO_DEVICE_BIND_IOMMUFD: 'iommufd_cdev_connect_and_bind',
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: 'iommufd_cdev_pasid_attach_ioas_hwpt',
  VFIO_DEVICE_DETACH_IOMMUFD_PT: 'iommufd_cdev_pasid_detach_ioas_hwpt',
};

export const callEvent = (operation: string): string =>
  CALL_EVENTS[operation] ?? `vsmmu_${operation.toLowerCase()}`;

/** Name of a value, and whether it is shown in decimal. */
export interface ValueName {
  readonly name: string;
  readonly decimal: boolean;
}

/** Names for the values of an entry; unknown events get numbers. */
export function valueName(event: string, names: readonly string[] | undefined, index: number): ValueName {
  const name = (names ?? TRACE_EVENTS[event]?.values)?.[index] ?? `value${index}`;
  return name.endsWith('#') ? { name: name.slice(0, -1), decimal: true } : { name, decimal: false };
}

export const trackOf = (event: string): Track => TRACE_EVENTS[event]?.track ?? 'host';
