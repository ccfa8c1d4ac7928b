import { Caller, uapi, type Fd, type Kernel } from '../../src/index.ts';

/** Attaches a device to a stage 1 that is not valid, has it do one DMA, and waits for what the SMMU says of it. */
export async function firstFault(kernel: Kernel, path: string, ram: Uint8Array, dma: (device: Fd) => void) {
  const host = new Caller(kernel);
  const iommufd = host.open('/dev/iommu');
  const device = host.open(path);
  const dev_id = host.ioctl(device, uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd }).out_devid;
  const ioas_id = host.ioctl(iommufd, uapi.IOMMU_IOAS_ALLOC, {}).out_ioas_id;
  const guest = { user_va: kernel.userMemory(ram).address, length: BigInt(ram.length), iova: 0x4000_0000n };
  host.ioctl(iommufd, uapi.IOMMU_IOAS_MAP, { flags: 7, ioas_id, ...guest });
  const parent = { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT, dev_id, pt_id: ioas_id };
  const hwpt_id = host.ioctl(iommufd, uapi.IOMMU_HWPT_ALLOC, parent).out_hwpt_id;
  const viommu_id = host.ioctl(iommufd, uapi.IOMMU_VIOMMU_ALLOC, { type: 1, dev_id, hwpt_id }).out_viommu_id;
  host.ioctl(iommufd, uapi.IOMMU_VDEVICE_ALLOC, { viommu_id, dev_id, virt_id: 8n });
  const depth = { viommu_id, type: 1, veventq_depth: 16 };
  const events = host.ioctl(iommufd, uapi.IOMMU_VEVENTQ_ALLOC, depth).out_veventq_fd;

  // Words 0 and 1 of a guest's STE: valid, stage 1, its CD at 0x40000000, where there are only zeros.
  const ste = kernel.userMemory(new Uint8Array(BigUint64Array.of(0x4000_000bn, 0n).buffer));
  const nested = { dev_id, pt_id: viommu_id, data_type: 2, data_len: 16, data_uptr: ste.address };
  const pt_id = host.ioctl(iommufd, uapi.IOMMU_HWPT_ALLOC, nested).out_hwpt_id;
  host.ioctl(device, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id });

  dma(device);
  await new Promise<void>((readable) => {
    kernel.onReadable(events, readable);
  });
  const record = new Uint32Array(10);
  kernel.read(events, new Uint8Array(record.buffer));
  // Two words of header, then the event as IHI 0070 7.3 has it: its type (C_BAD_CD is 0x0a), its StreamID.
  return { type: record[2] & 0xff, sid: record[3] };
}
