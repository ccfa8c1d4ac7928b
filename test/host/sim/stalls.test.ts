/** Stalled faults and the FAULT_QUEUE. */

import { describe, expect, it } from 'vitest';
import { SERVER_SMMU } from '../../../src/host/sim/profiles.ts';
import { ERRNO } from '../../../src/iommufd/uapi/errno.ts';
import * as uapi from '../../../src/iommufd/uapi/iommufd.ts';
import { iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../../src/iommufd/uapi/page-fault.ts';
import { OUTCOME } from '../../../src/smmu/transaction.ts';
import { GUEST, STE } from '../../contract/guest.ts';
import { nestedVm } from '../../contract/vm.ts';
import { machine, simRig } from './machine.ts';

const UNMAPPED = 0x1000_1000n;
const CD_STALLS = 1n << 44n;

function running(options: { stalls: boolean; dmaCanStall?: boolean } = { stalls: true }) {
  const simulated = machine({ ids: SERVER_SMMU, device: options });
  const setup = nestedVm(simRig(simulated), 'none');
  const { vm, a, viommu } = setup;
  const { out_fault_id: faultId, out_fault_fd: faultFd } = vm.must(uapi.IOMMU_FAULT_QUEUE_ALLOC);
  const view = new DataView(vm.guest.ram.buffer);
  view.setBigUint64(0, view.getBigUint64(0, true) | CD_STALLS, true);
  const withFault = vm.tryNested(viommu, a.id, STE.S1, { flags: 4, fault_id: faultId });
  expect(withFault.result).toBe('OK');
  vm.attach(a, withFault.id);
  return { ...setup, ...simulated, endpoint: a, faultId, faultFd, hwpt: withFault.id, device: simulated.a };
}

describe('a FAULT_QUEUE', () => {
  it('knows no flags', () => {
    const { vm } = running();
    expect(vm.result(uapi.IOMMU_FAULT_QUEUE_ALLOC, { flags: 1 })).toBe('EOPNOTSUPP');
  });

  it('is held by its descriptor and by page tables', () => {
    const { vm, host, endpoint, faultId, faultFd, hwpt } = running();
    expect(vm.destroy(faultId)).toBe('EBUSY');
    host.close(faultFd);
    expect(vm.destroy(faultId)).toBe('EBUSY');
    vm.detach(endpoint);
    vm.destroy(hwpt);
    expect(vm.destroy(faultId)).toBe('OK');
  });

  it('is always writable, and readable while a fault waits', () => {
    const { host, faultFd, device } = running();
    expect(host.poll(faultFd)).toBe(4);
    expect(host.read(faultFd, new Uint8Array(40))).toBe(0);
    expect(device.dmaWrite32(UNMAPPED, 7)).toBe(OUTCOME.Stalled);
    expect(host.poll(faultFd)).toBe(5);
  });

  it('gives whole records', () => {
    const { host, faultFd, device, endpoint } = running();
    device.dmaWrite32(UNMAPPED + 4n, 7);
    expect(host.read(faultFd, new Uint8Array(39))).toBe(-ERRNO.ESPIPE);
    expect(host.read(faultFd, new Uint8Array(0))).toBe(-ERRNO.EINVAL);
    const record = new Uint8Array(80);
    expect(host.read(faultFd, record)).toBe(40);
    expect(iommu_hwpt_pgfault.decode(record)).toMatchObject({
      flags: 2,
      dev_id: endpoint.id,
      perm: 2,
      addr: UNMAPPED + 4n,
    });
  });

  it('takes an answer: the transfer goes on where the guest has mapped the page', () => {
    const { host, vm, faultFd, device } = running();
    device.dmaWrite32(UNMAPPED, 0xfeed);
    const record = new Uint8Array(40);
    host.read(faultFd, record);
    const { cookie } = iommu_hwpt_pgfault.decode(record);
    vm.guest.map(Number(UNMAPPED), BigInt(GUEST.D1));
    expect(host.write(faultFd, iommu_hwpt_page_response.encode({ cookie, code: 0 }))).toBe(8);
    expect(device.resumed).toEqual([OUTCOME.Ok]);
    expect(vm.guest.load32(GUEST.D1)).toBe(0xfeed);
  });

  it('takes a refusal: the transfer is aborted', () => {
    const { host, faultFd, device } = running();
    device.dmaWrite32(UNMAPPED, 1);
    host.read(faultFd, new Uint8Array(40));
    expect(host.write(faultFd, iommu_hwpt_page_response.encode({ cookie: 1, code: 1 }))).toBe(8);
    expect(device.resumed).toEqual([OUTCOME.Abort]);
  });

  it('refuses wrong answers', () => {
    const { host, faultFd, device } = running();
    device.dmaWrite32(UNMAPPED, 1);
    const answer = (cookie: number, code: number): number =>
      host.write(faultFd, iommu_hwpt_page_response.encode({ cookie, code }));
    // Not read yet.
    expect(answer(1, 0)).toBe(-ERRNO.EINVAL);
    host.read(faultFd, new Uint8Array(40));
    expect(host.write(faultFd, new Uint8Array(7))).toBe(-ERRNO.ESPIPE);
    // The kernel's array of answers begins at 1 (XA_FLAGS_ALLOC1).
    expect(answer(0, 0)).toBe(-ERRNO.EINVAL);
    expect(answer(2, 0)).toBe(-ERRNO.EINVAL);
    expect(answer(1, 2)).toBe(-ERRNO.EINVAL);
    expect(answer(1, 0)).toBe(8);
    expect(answer(1, 0)).toBe(-ERRNO.EINVAL);
  });

  it('aborts what is unanswered when its page table is replaced', () => {
    const { vm, host, faultFd, device, endpoint, s1 } = running();
    device.dmaWrite32(UNMAPPED, 1);
    device.dmaWrite32(UNMAPPED + 8n, 1);
    host.read(faultFd, new Uint8Array(40));
    // Even though the page is there by now.
    vm.guest.map(Number(UNMAPPED), BigInt(GUEST.D1));
    vm.attach(endpoint, s1);
    expect(vm.guest.load32(GUEST.D1)).toBe(0);
    expect(device.resumed).toEqual([OUTCOME.Abort, OUTCOME.Abort]);
    expect(host.read(faultFd, new Uint8Array(40))).toBe(0);
  });

  it('aborts it also if the next page table has the same queue', () => {
    const { vm, viommu, host, faultFd, faultId, device, endpoint } = running();
    device.dmaWrite32(UNMAPPED, 1);
    host.read(faultFd, new Uint8Array(40));
    device.dmaWrite32(UNMAPPED + 8n, 1);
    // What was answered so belongs to the attachment that is over.
    const other = vm.tryNested(viommu, endpoint.id, STE.S1, { flags: 4, fault_id: faultId });
    vm.attach(endpoint, other.id);
    expect(device.resumed).toEqual([OUTCOME.Abort, OUTCOME.Abort]);
    expect(host.write(faultFd, iommu_hwpt_page_response.encode({ cookie: 1, code: 0 }))).toBe(-ERRNO.EINVAL);
  });

  it('is of no use for a device that may not stall and does: what it stalls is never resumed', () => {
    const { device, host } = running({ stalls: true, dmaCanStall: false });
    expect(device.dmaWrite32(UNMAPPED, 1)).toBe(OUTCOME.Stalled);
    expect(device.resumed).toEqual([]);
    expect(host.dmesg.some((line) => line.includes('arm_smmu_page_response'))).toBe(true);
  });

  it('is the only way to hear of stalls: without it the host ends them and keeps them to itself', () => {
    const { vm, host, device, endpoint, s1, queue } = running();
    vm.attach(endpoint, s1);
    expect(device.dmaWrite32(UNMAPPED, 1)).toBe(OUTCOME.Stalled);
    expect(device.resumed).toEqual([OUTCOME.Abort]);
    expect(vm.events(queue.fd)).toEqual([]);
    expect(host.dmesg.at(-1)).toMatch(/unpriv data write s1 "Input address caused fault" stall stag: 0x/);
  });
});
