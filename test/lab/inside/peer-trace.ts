/**
 * What a QEMU did: its own trace has its calls to iommufd and VFIO and what its guest asked of the SMMU, in order. Two kinds
 * of call are not in there, nor are reads of a vEVENTQ; all of these happen in its main thread, which strace follows.
 */

/** Something that QEMU did, or that its guest asked of it. */
export interface Entry {
  /** `call` by its short name, a `read` of a record, a `command` of the guest, a write to `cr0`. */
  readonly kind: 'call' | 'read' | 'command' | 'cr0';
  /** Name of the call or command, or the value of CR0. */
  readonly what: string;
  /** The host refused it. */
  readonly failed?: true;
}

/** Trace events that stand for one call each. */
const CALLS: Readonly<Record<string, string>> = {
  iommufd_cdev_connect_and_bind: 'bind',
  iommufd_backend_alloc_ioas: 'ioas',
  iommufd_backend_map_dma: 'map',
  iommufd_backend_map_file_dma: 'map',
  iommufd_backend_unmap_dma: 'unmap',
  iommufd_backend_unmap_dma_non_exist: 'unmap',
  iommufd_backend_alloc_hwpt: 'hwpt',
  iommufd_backend_alloc_viommu: 'viommu',
  iommufd_backend_alloc_vdev: 'vdevice',
  iommufd_viommu_alloc_eventq: 'veventq',
  iommufd_backend_invalidate_cache: 'invalidate',
  iommufd_backend_free_id: 'destroy',
  iommufd_cdev_pasid_attach_ioas_hwpt: 'attach',
  iommufd_cdev_pasid_detach_ioas_hwpt: 'detach',
};

/** For QEMU's `-trace`. */
export const TRACE_EVENTS: readonly string[] = [
  ...Object.keys(CALLS),
  'smmuv3_cmdq_opcode',
  'smmuv3_write_mmio',
];

const CR0 = '0x20';

/** @param text whole lines of QEMU's log. */
export function readTrace(text: string): Entry[] {
  const entries: Entry[] = [];
  for (const line of text.split('\n')) {
    const [event] = line.split(' ', 1);
    const call = CALLS[event];
    if (call !== undefined)
      entries.push({ kind: 'call', what: call, ...(/\(-\d+\)$/.test(line) && { failed: true as const }) });
    const command = /^smmuv3_cmdq_opcode <--- (?:SMMU_)?(\w+)/.exec(line);
    if (command !== null) entries.push({ kind: 'command', what: command[1] });
    const mmio = /^smmuv3_write_mmio addr: (\w+) val:(\w+)/.exec(line);
    if (mmio !== null && mmio[1] === CR0) entries.push({ kind: 'cr0', what: mmio[2] });
  }
  return entries;
}

/** ioctls that QEMU does not trace. */
const UNTRACED: Readonly<Record<string, string>> = {
  /* IOMMU_GET_HW_INFO */ '0x3b8a': 'hw_info',
  /* VFIO_DEVICE_RESET */ '0x3b6f': 'reset',
};
const RECORD = '40';

/** @param text whole lines of `strace --raw=ioctl` of one thread. */
export function readStrace(text: string): Entry[] {
  const entries: Entry[] = [];
  for (const line of text.split('\n')) {
    const ioctl = /^ioctl\(\w+, (0x[0-9a-f]+).* = (-?\w+)/.exec(line);
    const call = UNTRACED[ioctl?.[1] ?? ''];
    if (call !== undefined)
      entries.push({
        kind: 'call',
        what: call,
        ...(/^-|^0xffff/.test(ioctl?.[2] ?? '') && { failed: true as const }),
      });
    const read = /^read\(\d+, .*, (\d+)\) += (\d+)/.exec(line);
    if (read !== null && read[1] === RECORD && read[2] === RECORD)
      entries.push({ kind: 'read', what: RECORD });
  }
  return entries;
}
