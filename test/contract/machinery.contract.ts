/** Descriptors, the dispatcher, ids and options. */

import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import * as uapi from '../../src/iommufd/uapi/iommufd.ts';
import { words64 } from './client.ts';
import { BAD_POINTER, type MakeRig } from './rig.ts';
import { nestedVm, Vm } from './vm.ts';

export function machineryContract(makeRig: MakeRig): void {
  describe('descriptors', () => {
    it('that are not open give EBADF', () => {
      const { kernel } = makeRig();
      const bytes = new Uint8Array(8);
      expect(kernel.ioctl(99, uapi.IOMMU_DESTROY.request, bytes)).toBe(ERRNO.EBADF);
      expect(kernel.ioctl(-1, uapi.IOMMU_DESTROY.request, bytes)).toBe(ERRNO.EBADF);
      expect(kernel.read(99, bytes)).toBe(-ERRNO.EBADF);
      expect(kernel.pread(99, bytes, 0)).toBe(-ERRNO.EBADF);
      expect(kernel.pwrite(99, bytes, 0)).toBe(-ERRNO.EBADF);
      expect(kernel.close(99)).toBe(ERRNO.EBADF);
    });

    it('are closed once', () => {
      const { kernel } = makeRig();
      const fd = kernel.open('/dev/iommu');
      expect(kernel.close(fd)).toBe(0);
      expect(kernel.close(fd)).toBe(ERRNO.EBADF);
    });

    it('do not exist for paths that do not exist', () => {
      expect(makeRig().kernel.open('/dev/vfio/devices/vfio999')).toBe(-ERRNO.ENOENT);
    });

    it('take the lowest free number', () => {
      const { kernel } = makeRig();
      const first = kernel.open('/dev/iommu');
      const second = kernel.open('/dev/iommu');
      expect(second).toBe(first + 1);
      kernel.close(first);
      expect(kernel.eventfd()).toBe(first);
    });
  });

  describe('an eventfd', () => {
    it('counts what is written until it is read', () => {
      const rig = makeRig();
      const { kernel } = rig;
      const fd = kernel.eventfd();
      const add = (value: bigint): number => rig.kernel.write(fd, words64(value));
      const poll = (): number => rig.poll(fd);
      const bytes = new Uint8Array(8);
      expect([kernel.read(fd, bytes), poll()]).toEqual([-ERRNO.EAGAIN, 4]);
      expect([add(2n), add(3n), poll()]).toEqual([8, 8, 5]);
      expect(kernel.read(fd, bytes.subarray(0, 7))).toBe(-ERRNO.EINVAL);
      expect([kernel.read(fd, bytes), bytes[0]]).toEqual([8, 5]);
      expect(rig.kernel.write(fd, new Uint8Array(7))).toBe(-ERRNO.EINVAL);
      expect(add(0xffff_ffff_ffff_ffffn)).toBe(-ERRNO.EINVAL);
      expect([add(0xffff_ffff_ffff_fffen), add(1n)]).toEqual([8, -ERRNO.EAGAIN]);
    });
  });

  describe('an ioctl', () => {
    it('of an unknown number or with another encoding gives ENOTTY', () => {
      const vm = new Vm(makeRig());
      const { kernel } = vm.rig;
      const bytes = uapi.IOMMU_IOAS_ALLOC.encode();
      for (const request of [0x3b00, 0x3b7f, 0x3bff, 0x4004_3b81, 0x8181])
        expect(kernel.ioctl(vm.iommufd, request, bytes), request.toString(16)).toBe(ERRNO.ENOTTY);
    });

    it.each(uapi.IOMMUFD_IOCTLS.map((ioctl) => [ioctl.ioctl, ioctl] as const))(
      '%s smaller than its least size gives EINVAL',
      (_, ioctl) => {
        const vm = new Vm(makeRig());
        const bytes = new Uint8Array(64);
        new DataView(bytes.buffer).setUint32(0, ioctl.minSize - 1, true);
        expect(vm.rig.kernel.ioctl(vm.iommufd, ioctl.request, bytes)).toBe(ERRNO.EINVAL);
      },
    );

    it('with a tail that the kernel does not know gives E2BIG before anything else is looked at', () => {
      const vm = new Vm(makeRig());
      const bytes = uapi.IOMMU_VDEVICE_ALLOC.encode({ viommu_id: 0xdead }, 32);
      bytes[31] = 1;
      expect(vm.client.raw(vm.iommufd, uapi.IOMMU_VDEVICE_ALLOC, bytes).result).toBe('E2BIG');
      bytes[31] = 0;
      expect(vm.client.raw(vm.iommufd, uapi.IOMMU_VDEVICE_ALLOC, bytes).result).toBe('ENOENT');
    });

    it('that fails leaves the structure as it was', () => {
      const vm = new Vm(makeRig());
      const bytes = uapi.IOMMU_VEVENTQ_ALLOC.encode({
        viommu_id: 5,
        type: 1,
        veventq_depth: 3,
        out_veventq_fd: 77,
      });
      const before = bytes.slice();
      expect(vm.client.raw(vm.iommufd, uapi.IOMMU_VEVENTQ_ALLOC, bytes).result).toBe('ENOENT');
      expect(bytes).toEqual(before);
    });

    it('of the least size writes back only what the caller has', () => {
      const { vm, a, parent } = nestedVm(makeRig());
      const bytes = uapi.IOMMU_VIOMMU_ALLOC.encode({ type: 1, dev_id: a.id, hwpt_id: parent }, 24);
      const { result, out } = vm.client.raw(vm.iommufd, uapi.IOMMU_VIOMMU_ALLOC, bytes);
      expect(result).toBe('OK');
      expect(out.out_viommu_id).toBeGreaterThan(0);
      expect(bytes.length).toBe(24);
    });
  });

  describe('ids', () => {
    it('start at 1, and the lowest free one comes next', () => {
      const vm = new Vm(makeRig());
      const ids = [vm.ioas(), vm.ioas(), vm.ioas()];
      expect(ids).toEqual([1, 2, 3]);
      expect(vm.destroy(2)).toBe('OK');
      expect(vm.destroy(1)).toBe('OK');
      expect([vm.ioas(), vm.ioas(), vm.ioas()]).toEqual([1, 2, 4]);
    });

    it('that are unknown, 0 or gone give ENOENT', () => {
      const vm = new Vm(makeRig());
      const id = vm.ioas();
      expect(vm.destroy(id)).toBe('OK');
      for (const wrong of [id, 0, 0xffff_ffff]) expect(vm.destroy(wrong)).toBe('ENOENT');
    });

    it('belong to one descriptor', () => {
      const rig = makeRig();
      const [one, other] = [new Vm(rig), new Vm(rig)];
      const id = one.ioas();
      expect(other.destroy(id)).toBe('ENOENT');
      expect(one.destroy(id)).toBe('OK');
    });
  });

  describe('IOMMU_OPTION', () => {
    it.each([
      ['reserved', { __reserved: 1 }, 'EOPNOTSUPP'],
      ['an unknown option', { option_id: 2 }, 'EOPNOTSUPP'],
      ['RLIMIT_MODE of an object', { option_id: 0, op: 1, object_id: 1 }, 'EOPNOTSUPP'],
      ['an unknown operation', { option_id: 0, op: 2 }, 'EOPNOTSUPP'],
      ['RLIMIT_MODE while there are objects', { option_id: 0, op: 0, val64: 1n }, 'EBUSY'],
      ['HUGE_PAGES of nothing', { option_id: 1, op: 1, object_id: 9 }, 'ENOENT'],
      ['HUGE_PAGES of 2', { option_id: 1, op: 0, object_id: 1, val64: 2n }, 'EINVAL'],
    ])('refuses %s', (_, values, result) => {
      const vm = new Vm(makeRig());
      vm.ioas();
      expect(vm.result(uapi.IOMMU_OPTION, values)).toBe(result);
    });

    it('keeps what was set', () => {
      const vm = new Vm(makeRig());
      expect(vm.must(uapi.IOMMU_OPTION, { option_id: 0, op: 1 }).val64).toBe(0n);
      expect(vm.result(uapi.IOMMU_OPTION, { option_id: 0, op: 0, val64: 2n })).toBe('EINVAL');
      const ioas = vm.ioas();
      expect(vm.must(uapi.IOMMU_OPTION, { option_id: 1, op: 1, object_id: ioas }).val64).toBe(1n);
      vm.must(uapi.IOMMU_OPTION, { option_id: 1, op: 0, object_id: ioas, val64: 0n });
      expect(vm.must(uapi.IOMMU_OPTION, { option_id: 1, op: 1, object_id: ioas }).val64).toBe(0n);
    });
  });

  describe('IOMMU_GET_HW_INFO', () => {
    it.each([
      ['an unknown flag', { flags: 2 }, 'EOPNOTSUPP'],
      ['a reserved byte', { __reserved: [0, 1, 0] }, 'EOPNOTSUPP'],
      ['no device', { dev_id: 99 }, 'ENOENT'],
      ['another IOMMU’s type', { flags: 1, out_data_type: 1 }, 'EOPNOTSUPP'],
      ['a bad pointer', { data_len: 40, data_uptr: BAD_POINTER }, 'EFAULT'],
    ])('refuses %s', (_, values, result) => {
      const vm = new Vm(makeRig());
      expect(vm.result(uapi.IOMMU_GET_HW_INFO, { dev_id: vm.bind().id, ...values })).toBe(result);
    });

    it('says how much it knows, whatever the buffer takes, and clears what lies beyond', () => {
      const vm = new Vm(makeRig());
      const dev_id = vm.bind().id;
      expect(vm.must(uapi.IOMMU_GET_HW_INFO, { dev_id })).toMatchObject({ data_len: 40, out_data_type: 2 });
      for (const size of [8, 12, 64]) {
        const bytes = new Uint8Array(size).fill(0xee);
        const info = vm.client.withBytes(bytes, (data_uptr) =>
          vm.must(uapi.IOMMU_GET_HW_INFO, { dev_id, data_len: size, data_uptr }),
        );
        expect(info.data_len).toBe(40);
        if (size === 64) expect(bytes.subarray(40)).toEqual(new Uint8Array(24));
        expect(bytes.subarray(0, 8)).toEqual(new Uint8Array(8));
      }
    });
  });
}
