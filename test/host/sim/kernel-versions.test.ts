/** Linux 6.16: what it does not know yet, and what it does not look at. */

import { describe, expect, it } from 'vitest';
import { IOMMU_HW_INFO_FLAG_INPUT_TYPE } from '../../../src/iommufd/uapi/hw-info.ts';
import * as uapi from '../../../src/iommufd/uapi/iommufd.ts';
import { ERRNO } from '../../../src/iommufd/uapi/errno.ts';
import { GUEST } from '../../contract/guest.ts';
import { nestedVm } from '../../contract/vm.ts';
import { machine, simRig } from './machine.ts';

function running(kernel: '6.16' | '7.3') {
  const simulated = machine({ host: { kernel } });
  return { ...simulated, ...nestedVm(simRig(simulated)) };
}

const IOVA = 0x1000_0000;

/** What VIOMMU_ALLOC answers with this byte in its argument. */
function withTail(kernel: '6.16' | '7.3', at: number, value: number): number {
  const { vm, a, parent, host } = running(kernel);
  const arg = uapi.IOMMU_VIOMMU_ALLOC.encode({ type: 1, dev_id: a.id, hwpt_id: parent });
  arg[at] = value;
  return host.ioctl(vm.iommufd, uapi.IOMMU_VIOMMU_ALLOC.request, arg);
}

describe('Linux 6.16', () => {
  it.each([uapi.IOMMU_HW_QUEUE_ALLOC, uapi.IOMMU_IOAS_NOIOMMU_GET_PA])('does not know $ioctl', (ioctl) => {
    const old = running('6.16');
    expect(old.host.ioctl(old.vm.iommufd, ioctl.request, ioctl.encode())).toBe(ERRNO.ENOTTY);
    expect(old.host.ioctl(old.vm.iommufd, ioctl.request, new Uint8Array(0))).toBe(ERRNO.ENOTTY);
    const newer = running('7.3');
    expect(newer.host.ioctl(newer.vm.iommufd, ioctl.request, ioctl.encode())).not.toBe(ERRNO.ENOTTY);
  });

  it('has no data for VIOMMU_ALLOC: it must be zero', () => {
    expect(withTail('6.16', 32, 1)).toBe(ERRNO.E2BIG);
    expect(withTail('6.16', 24, 1)).toBe(ERRNO.E2BIG);
    expect(withTail('6.16', 32, 0)).toBe(0);
    expect(withTail('7.3', 32, 1)).not.toBe(ERRNO.E2BIG);
  });

  it('cannot be asked for a type of hardware information', () => {
    const ask = (kernel: '6.16' | '7.3', flags: number): string => {
      const { vm, a } = running(kernel);
      return vm.result(uapi.IOMMU_GET_HW_INFO, { flags, dev_id: a.id });
    };
    expect(ask('6.16', IOMMU_HW_INFO_FLAG_INPUT_TYPE)).toBe('EOPNOTSUPP');
    expect(ask('7.3', IOMMU_HW_INFO_FLAG_INPUT_TYPE)).toBe('OK');
    expect(ask('6.16', 0)).toBe('OK');
  });

  it.each([
    ['CFGI_STE', [0x0003n, 1n]],
    ['CMD_SYNC', [0x46n, 0n]],
    ['CFGI_CD_ALL of a StreamID without a vDEVICE', [(0x4321n << 32n) | 0x06n, 0n]],
  ] as const)('refuses %s as 7.3 does', (_, [word0, word1]) => {
    for (const kernel of ['6.16', '7.3'] as const) {
      const { vm, viommu } = running(kernel);
      expect(vm.invalidate(viommu, [[word0, word1]])).toEqual({ result: 'EIO', done: 0 });
    }
  });

  it('carries out TLBI_NSNH_ALL with any other bits, which 7.3 refuses', () => {
    const command = [0xffff_ffff_ffff_ff30n, 0xffff_ffff_ffff_ffffn] as const;
    const newer = running('7.3');
    expect(newer.vm.invalidate(newer.viommu, [command])).toEqual({ result: 'EIO', done: 0 });
    const { vm, a, viommu, host } = running('6.16');
    expect(vm.dmaLands(a, BigInt(IOVA))).toBe('D0');
    vm.guest.map(IOVA, BigInt(GUEST.D1));
    expect(vm.dmaLands(a, BigInt(IOVA))).toBe('D0');
    expect(vm.invalidate(viommu, [command])).toEqual({ result: 'OK', done: 1 });
    expect(vm.dmaLands(a, BigInt(IOVA))).toBe('D1');
    expect(host.dmesg).toEqual([]);
  });

  it('lets the physical SMMU find out what is wrong with a command, and tells its log alone', () => {
    // CFGI_CD_ALL with SSec, which is ILLEGAL on the Non-secure queue.
    const command = [(0x1234n << 32n) | 0x406n, 0n] as const;
    const newer = running('7.3');
    expect(newer.vm.invalidate(newer.viommu, [command])).toEqual({ result: 'EIO', done: 0 });
    const { vm, viommu, host } = running('6.16');
    expect(vm.invalidate(viommu, [command])).toEqual({ result: 'OK', done: 1 });
    expect(host.dmesg).toContainEqual(expect.stringMatching(/CMDQ error \(cons 0x01.*Illegal command/));
    // The physical StreamID, not the guest's.
    expect(host.dmesg).toContainEqual(expect.stringContaining('0x0000002000000406'));
  });
});
