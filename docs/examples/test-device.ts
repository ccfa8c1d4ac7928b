import type { Fd, Kernel } from '../../src/index.ts';

/** One write by QEMU's iommu-testdev, or by the embedded host's DmaTester, which has the same registers. */
export function writeOnce(kernel: Kernel, device: Fd, iova: bigint): void {
  const write32 = (offset: number, value: number): void => {
    kernel.pwrite(device, new Uint8Array(Uint32Array.of(value).buffer), offset);
  };
  // Where vfio-pci has the configuration space: let the device answer, and do DMA.
  kernel.pwrite(device, Uint8Array.of(0x06, 0), 7 * 2 ** 40 + 4);
  write32(0x04, Number(iova & 0xffff_ffffn));
  write32(0x08, Number(iova >> 32n));
  write32(0x0c, 4);
  write32(0x18, 0xa);
  write32(0x14, 1);
  kernel.pread(device, new Uint8Array(4), 0x00);
}
