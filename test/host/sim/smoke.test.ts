import { expect, it } from 'vitest';
import { machine, PATH_A } from './machine.ts';
import { Client, words64 } from '../../contract/client.ts';
import { Guest, RAM_BASE, RAM_SIZE, STE } from '../../contract/guest.ts';
import * as uapi from '../../../src/iommufd/uapi/iommufd.ts';
import * as vfio from '../../../src/iommufd/uapi/vfio.ts';
import { OUTCOME } from '../../../src/smmu/transaction.ts';
import { LAB_SMMU, SERVER_SMMU } from '../../../src/host/sim/profiles.ts';

it.each([
  ['lab', LAB_SMMU],
  ['server', SERVER_SMMU],
] as const)('smoke %s', (_, ids) => {
  const { host, a } = machine({ ids });
  const c = new Client(host);
  const guest = new Guest();
  const fd = host.open('/dev/iommu');
  const dev = host.open(PATH_A);
  const devid = c.ioctl(dev, vfio.VFIO_DEVICE_BIND_IOMMUFD, { iommufd: fd }).out.out_devid;
  const ioas = c.ioctl(fd, uapi.IOMMU_IOAS_ALLOC).out.out_ioas_id;
  const ram = host.userMemory(guest.ram);
  expect(
    c.ioctl(fd, uapi.IOMMU_IOAS_MAP, {
      flags: 7,
      ioas_id: ioas,
      user_va: ram.address,
      length: BigInt(RAM_SIZE),
      iova: BigInt(RAM_BASE),
    }).result,
  ).toBe('OK');
  const s2 = c.ioctl(fd, uapi.IOMMU_HWPT_ALLOC, { flags: 1, dev_id: devid, pt_id: ioas });
  expect(s2.result).toBe('OK');
  const viommu = c.ioctl(fd, uapi.IOMMU_VIOMMU_ALLOC, {
    type: 1,
    dev_id: devid,
    hwpt_id: s2.out.out_hwpt_id,
  });
  expect(viommu.result).toBe('OK');
  expect(c.ioctl(dev, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id: s2.out.out_hwpt_id }).result).toBe('OK');
  expect(a.dmaWrite32(0x4010_0000n, 0x1234)).toBe(OUTCOME.Ok);
  expect(guest.load32(0x4010_0000)).toBe(0x1234);
  expect(
    c.ioctl(fd, uapi.IOMMU_VDEVICE_ALLOC, {
      viommu_id: viommu.out.out_viommu_id,
      dev_id: devid,
      virt_id: 0x1234n,
    }).result,
  ).toBe('OK');
  const s1 = c.withBytes(words64(...STE.S1), (p) =>
    c.ioctl(fd, uapi.IOMMU_HWPT_ALLOC, {
      dev_id: devid,
      pt_id: viommu.out.out_viommu_id,
      data_type: 2,
      data_len: 16,
      data_uptr: p,
    }),
  );
  expect(s1.result).toBe('OK');
  const q = c.ioctl(fd, uapi.IOMMU_VEVENTQ_ALLOC, {
    viommu_id: viommu.out.out_viommu_id,
    type: 1,
    veventq_depth: 3,
  });
  expect(c.ioctl(dev, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id: s1.out.out_hwpt_id }).result).toBe('OK');
  expect(a.dmaWrite32(0x1000_6000n, 0x5678)).toBe(OUTCOME.Ok);
  expect(guest.load32(0x4010_1000)).toBe(0x5678);
  expect(a.dmaWrite32(0x1000_1008n, 0x5678)).toBe(OUTCOME.Abort);
  const into = new Uint8Array(4096);
  expect(host.read(q.out.out_veventq_fd, into)).toBe(40);
  expect(host.dmesg).toEqual([]);
  expect(a.dmaWrite32(0x1000_4000n, 0x5678)).toBe(OUTCOME.Abort);
  expect(host.read(q.out.out_veventq_fd, into)).toBe(0);
  console.log(host.dmesg);
});
