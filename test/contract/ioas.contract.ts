/** I/O address spaces: mapping, unmapping, reserved ranges. */

import { describe, expect, it } from 'vitest';
import * as uapi from '../../src/iommufd/uapi/iommufd.ts';
import { RAM_BASE, RAM_SIZE } from './guest.ts';
import { BAD_POINTER, type MakeRig } from './rig.ts';
import { Vm } from './vm.ts';

const U64_MAX = 0xffff_ffff_ffff_ffffn;
const PAGE = 0x1000n;
const SW_MSI = 0x0800_0000n;

export function ioasContract(makeRig: MakeRig): void {
  const withIoas = () => {
    const vm = new Vm(makeRig());
    return { vm, ioas: vm.ioas() };
  };
  /** With a domain, so that pages matter and memory is pinned. */
  const withDomain = () => {
    const vm = new Vm(makeRig());
    const a = vm.bind();
    const ioas = vm.ioas();
    const hwpt = vm.hwpt(a.id, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
    return { vm, a, ioas, hwpt };
  };
  const ranges = (vm: Vm, ioas_id: number, num_iovas = 16) => {
    const bytes = new Uint8Array(16 * num_iovas);
    const { result, out } = vm.client.withBytes(bytes, (allowed_iovas) =>
      vm.ioctl(uapi.IOMMU_IOAS_IOVA_RANGES, { ioas_id, num_iovas, allowed_iovas }),
    );
    const list = Array.from({ length: Math.min(num_iovas, out.num_iovas) }, (_, i) => {
      const { start, last } = uapi.iommu_iova_range.decode(bytes, 16 * i);
      return [start, last];
    });
    return { result, count: out.num_iovas, alignment: out.out_iova_alignment, list };
  };

  it('IOAS_ALLOC knows no flags', () => {
    expect(new Vm(makeRig()).result(uapi.IOMMU_IOAS_ALLOC, { flags: 1 })).toBe('EOPNOTSUPP');
  });

  describe('IOAS_MAP', () => {
    it.each([
      ['an unknown flag', { flags: 8 | 7 }, 'EOPNOTSUPP'],
      ['reserved, before anything else', { __reserved: 1, iova: U64_MAX }, 'EOPNOTSUPP'],
      ['the greatest iova', { iova: U64_MAX, flags: 1 }, 'EOVERFLOW'],
      ['the greatest length', { length: U64_MAX }, 'EOVERFLOW'],
      ['neither readable nor writeable, before the id', { flags: 1, ioas_id: 99 }, 'EINVAL'],
      ['no such IOAS', { ioas_id: 99 }, 'ENOENT'],
      ['no length', { length: 0n }, 'EINVAL'],
      ['an iova off its page', { iova: 0x4000_0800n }, 'EINVAL'],
      ['a length of half a page', { length: 0x800n }, 'EINVAL'],
      ['an end beyond 64 bits', { iova: U64_MAX - PAGE + 1n, length: 2n * PAGE }, 'EOVERFLOW'],
      ['an iova beyond the domain', { iova: 1n << 52n }, 'EINVAL'],
      ['a bad pointer', { user_va: BAD_POINTER << 12n }, 'EFAULT'],
    ])('refuses %s', (_, values, result) => {
      const { vm, ioas } = withDomain();
      const user = vm.rig.kernel.userMemory(new Uint8Array(0x4000));
      const good = { flags: 7, ioas_id: ioas, user_va: user.address, length: PAGE, iova: 0x4000_0000n };
      expect(vm.result(uapi.IOMMU_IOAS_MAP, { ...good, ...values })).toBe(result);
      expect(vm.result(uapi.IOMMU_IOAS_MAP, good)).toBe('OK');
    });

    it('refuses memory that ends too early', () => {
      const { vm, ioas } = withDomain();
      const user = vm.rig.kernel.userMemory(new Uint8Array(0x2000));
      const good = { flags: 7, ioas_id: ioas, user_va: user.address, iova: 0x4000_0000n };
      expect(vm.result(uapi.IOMMU_IOAS_MAP, { ...good, length: 0x20_0000n })).toBe('EFAULT');
      expect(vm.result(uapi.IOMMU_IOAS_MAP, { ...good, length: 0x2000n })).toBe('OK');
    });

    it('looks for the memory only when there is a domain to show it in', () => {
      const { vm, ioas } = withIoas();
      const values = {
        flags: 7,
        ioas_id: ioas,
        user_va: BAD_POINTER << 12n,
        length: PAGE,
        iova: 0x4000_0000n,
      };
      expect(vm.result(uapi.IOMMU_IOAS_MAP, values)).toBe('OK');
      const { id } = vm.bind();
      expect(vm.result(uapi.IOMMU_HWPT_ALLOC, { flags: 1, dev_id: id, pt_id: ioas })).toBe('EFAULT');
    });

    it('does not overlap', () => {
      const { vm, ioas } = withIoas();
      expect(vm.map(ioas)).toBe('OK');
      expect(vm.map(ioas)).toBe('EEXIST');
      expect(vm.map(ioas, { iova: BigInt(RAM_BASE) - PAGE, length: 2n * PAGE })).toBe('EEXIST');
      expect(vm.map(ioas, { iova: BigInt(RAM_BASE) - PAGE, length: PAGE })).toBe('OK');
    });

    it('chooses an address if none is fixed, and never page 0', () => {
      const { vm, ioas } = withIoas();
      const user_va = vm.rig.kernel.userMemory(new Uint8Array(0x2000)).address;
      const values = { flags: 6, ioas_id: ioas, user_va, length: PAGE };
      const first = vm.must(uapi.IOMMU_IOAS_MAP, values).iova;
      const second = vm.must(uapi.IOMMU_IOAS_MAP, values).iova;
      expect(first).toBe(PAGE);
      expect(second).toBe(2n * PAGE);
    });

    it('chooses only where it is allowed to', () => {
      const { vm, ioas } = withIoas();
      const allow = (...list: [bigint, bigint][]): string => {
        const bytes = new Uint8Array(16 * list.length);
        for (const [i, [start, last]] of list.entries())
          bytes.set(uapi.iommu_iova_range.encode({ start, last }), 16 * i);
        return vm.client.withBytes(bytes, (allowed_iovas) =>
          vm.result(uapi.IOMMU_IOAS_ALLOW_IOVAS, { ioas_id: ioas, num_iovas: list.length, allowed_iovas }),
        );
      };
      expect(vm.result(uapi.IOMMU_IOAS_ALLOW_IOVAS, { ioas_id: 99 })).toBe('ENOENT');
      expect(vm.result(uapi.IOMMU_IOAS_ALLOW_IOVAS, { ioas_id: ioas, __reserved: 1 })).toBe('EOPNOTSUPP');
      const bad = { ioas_id: ioas, num_iovas: 1, allowed_iovas: BAD_POINTER };
      expect(vm.result(uapi.IOMMU_IOAS_ALLOW_IOVAS, bad)).toBe('EFAULT');
      expect(allow([2n * PAGE, PAGE])).toBe('EINVAL');
      expect(allow([0n, 2n * PAGE - 1n], [PAGE, 3n * PAGE - 1n])).toBe('EINVAL');
      expect(allow([0x10_0000n, 0x10_0fffn])).toBe('OK');
      const user_va = vm.rig.kernel.userMemory(new Uint8Array(0x2000)).address;
      const values = { flags: 6, ioas_id: ioas, user_va, length: PAGE };
      expect(vm.must(uapi.IOMMU_IOAS_MAP, values).iova).toBe(0x10_0000n);
      expect(vm.result(uapi.IOMMU_IOAS_MAP, values)).toBe('ENOSPC');
    });
  });

  it('IOAS_MAP_FILE finds that a file holds no memory when there is a domain to show it in', () => {
    const { vm, ioas } = withIoas();
    const values = { flags: 6, ioas_id: ioas, length: PAGE, fd: vm.iommufd };
    expect(vm.must(uapi.IOMMU_IOAS_MAP_FILE, values).iova).toBe(PAGE);
    expect(vm.result(uapi.IOMMU_IOAS_MAP_FILE, { ...values, flags: 7, iova: PAGE })).toBe('EEXIST');
    const { id } = vm.bind();
    expect(vm.result(uapi.IOMMU_HWPT_ALLOC, { flags: 1, dev_id: id, pt_id: ioas })).toBe('EINVAL');
    expect(vm.unmap(ioas, PAGE, PAGE).result).toBe('OK');
  });

  it('IOAS_MAP_FILE takes no descriptor that is not a file of memory', () => {
    const { vm, ioas } = withDomain();
    const values = { flags: 6, ioas_id: ioas, length: PAGE };
    expect(vm.result(uapi.IOMMU_IOAS_MAP_FILE, { ...values, length: 0n, fd: -1 })).toBe('EINVAL');
    expect(vm.result(uapi.IOMMU_IOAS_MAP_FILE, { ...values, fd: 999 })).toBe('EBADF');
    expect(vm.result(uapi.IOMMU_IOAS_MAP_FILE, { ...values, fd: -1 })).toBe('EBADF');
    expect(vm.result(uapi.IOMMU_IOAS_MAP_FILE, { ...values, fd: vm.iommufd })).toBe('EINVAL');
    expect(vm.result(uapi.IOMMU_IOAS_MAP_FILE, { ...values, flags: 0x10 })).toBe('EOPNOTSUPP');
    expect(vm.result(uapi.IOMMU_IOAS_MAP_FILE, { ...values, flags: 1 })).toBe('EINVAL');
    expect(vm.result(uapi.IOMMU_IOAS_MAP_FILE, { ...values, iova: U64_MAX })).toBe('EOVERFLOW');
    expect(vm.result(uapi.IOMMU_IOAS_MAP_FILE, { ...values, ioas_id: 9 })).toBe('ENOENT');
  });

  describe('IOAS_UNMAP', () => {
    it.each([
      ['no such IOAS', { ioas_id: 99 }, 'ENOENT'],
      ['the greatest iova', { iova: U64_MAX }, 'EOVERFLOW'],
      ['the greatest length from elsewhere than 0', { length: U64_MAX }, 'EOVERFLOW'],
      ['no length', { length: 0n }, 'EINVAL'],
      ['an end beyond 64 bits', { iova: U64_MAX - 1n, length: 4n }, 'EOVERFLOW'],
      ['a range with nothing in it', { iova: 0x1000n }, 'ENOENT'],
      ['the middle of a mapping', { iova: 0x4000_1000n }, 'ENOENT'],
      ['a mapping’s head', { length: PAGE }, 'ENOENT'],
    ])('refuses %s', (_, values, result) => {
      const { vm, ioas } = withIoas();
      vm.map(ioas);
      const good = { ioas_id: ioas, iova: BigInt(RAM_BASE), length: BigInt(RAM_SIZE) };
      expect(vm.result(uapi.IOMMU_IOAS_UNMAP, { ...good, ...values })).toBe(result);
      expect(vm.unmap(ioas, good.iova, good.length).out.length).toBe(BigInt(RAM_SIZE));
    });

    it('of everything succeeds even if there is nothing', () => {
      const { vm, ioas } = withIoas();
      expect(vm.unmap(ioas, 0n, U64_MAX)).toMatchObject({ result: 'OK', out: { length: 0n } });
      vm.map(ioas, { length: PAGE });
      vm.map(ioas, { iova: 0x5000_0000n, length: 2n * PAGE });
      expect(vm.unmap(ioas, 0n, U64_MAX)).toMatchObject({ result: 'OK', out: { length: 3n * PAGE } });
    });

    it('takes whole mappings of a greater range', () => {
      const { vm, ioas } = withIoas();
      vm.map(ioas, { length: PAGE });
      vm.map(ioas, { iova: BigInt(RAM_BASE) + 4n * PAGE, length: PAGE });
      expect(vm.unmap(ioas, 0x1000n, 0x8000_0000n).out.length).toBe(2n * PAGE);
    });

    it('may have removed mappings before the one that it would have cut', () => {
      const { vm, ioas } = withIoas();
      vm.map(ioas, { iova: 0x1_0000n, length: PAGE });
      vm.map(ioas, { iova: 0x2_0000n, length: 2n * PAGE });
      expect(vm.unmap(ioas, 0x1_0000n, 0x1_1000n).result).toBe('ENOENT');
      expect(vm.map(ioas, { iova: 0x1_0000n, length: PAGE })).toBe('OK');
      expect(vm.map(ioas, { iova: 0x2_0000n, length: PAGE })).toBe('EEXIST');
    });

    it('ends DMA at once, and mapping starts it at once', () => {
      const { vm, a, ioas, hwpt } = withDomain();
      vm.map(ioas, { iova: 0x4000_0000n, length: 0x20_0000n });
      expect(vm.attach(a, hwpt)).toBe('OK');
      expect(vm.dmaLands(a, 0x4010_0000n)).toBe('D0');
      expect(vm.unmap(ioas, 0x4000_0000n, 0x20_0000n).result).toBe('OK');
      expect(vm.dmaLands(a, 0x4010_0000n)).toBe('nowhere');
      vm.map(ioas, { iova: 0x4000_0000n, length: 0x20_0000n });
      expect(vm.dmaLands(a, 0x4010_0000n)).toBe('D0');
      // The same IOVA, other memory behind it.
      vm.unmap(ioas, 0x4000_0000n, 0x20_0000n);
      vm.map(ioas, { iova: 0x4010_0000n, length: PAGE, offset: 0x10_1000n });
      expect(vm.dmaLands(a, 0x4010_0000n)).toBe('D1');
    });

    it('takes write access away with a mapping for reading', () => {
      const { vm, a, ioas, hwpt } = withDomain();
      vm.map(ioas, { flags: 5 });
      vm.attach(a, hwpt);
      expect(vm.dmaLands(a, 0x4010_0000n)).toBe('nowhere');
    });
  });

  describe('IOAS_COPY', () => {
    it('maps the same memory again', () => {
      const { vm, a, ioas, hwpt } = withDomain();
      const source = vm.ioas();
      vm.map(source);
      const good = {
        flags: 7,
        dst_ioas_id: ioas,
        src_ioas_id: source,
        length: 0x1000n,
        dst_iova: 0x7000_0000n,
        src_iova: 0x4010_1000n,
      };
      for (const [values, result] of [
        [{ flags: 8 }, 'EOPNOTSUPP'],
        [{ flags: 1 }, 'EINVAL'],
        [{ length: U64_MAX }, 'EOVERFLOW'],
        [{ src_ioas_id: 99 }, 'ENOENT'],
        [{ dst_ioas_id: 99 }, 'ENOENT'],
        [{ length: 0n }, 'EINVAL'],
        [{ src_iova: 0x3fff_f000n }, 'ENOENT'],
        [{ length: BigInt(RAM_SIZE) }, 'ENOENT'],
      ] as const)
        expect(vm.result(uapi.IOMMU_IOAS_COPY, { ...good, ...values }), result).toBe(result);
      expect(vm.result(uapi.IOMMU_IOAS_COPY, good)).toBe('OK');
      vm.attach(a, hwpt);
      expect(vm.dmaLands(a, 0x7000_0000n)).toBe('D1');
      vm.unmap(source, 0n, U64_MAX);
      expect(vm.dmaLands(a, 0x7000_0000n)).toBe('D1');
    });
  });

  describe('usable ranges', () => {
    it('are everything in a fresh IOAS', () => {
      const { vm, ioas } = withIoas();
      expect(ranges(vm, ioas)).toEqual({ result: 'OK', count: 1, alignment: 1n, list: [[0n, U64_MAX]] });
    });

    it('end where the domain ends, and have a hole for MSIs once a device is attached', () => {
      const { vm, a, ioas, hwpt } = withDomain();
      const [[start, last]] = ranges(vm, ioas).list;
      expect([start, (last & (last + 1n)) === 0n]).toEqual([0n, true]);
      vm.attach(a, hwpt);
      expect(ranges(vm, ioas)).toMatchObject({
        count: 2,
        alignment: PAGE,
        list: [
          [0n, SW_MSI - 1n],
          [SW_MSI + 0x10_0000n, last],
        ],
      });
      vm.detach(a);
      expect(ranges(vm, ioas).count).toBe(1);
      vm.destroy(hwpt);
      expect(ranges(vm, ioas)).toMatchObject({ alignment: 1n, list: [[0n, U64_MAX]] });
    });

    it('are counted, and as many given as fit, if the array is too short', () => {
      const { vm, a, ioas, hwpt } = withDomain();
      vm.attach(a, hwpt);
      expect(ranges(vm, ioas, 1)).toMatchObject({
        result: 'EMSGSIZE',
        count: 2,
        list: [[0n, SW_MSI - 1n]],
      });
      expect(ranges(vm, ioas, 2)).toMatchObject({ result: 'OK', count: 2 });
      expect(ranges(vm, ioas, 0)).toMatchObject({ result: 'EMSGSIZE', count: 2 });
    });

    it('are refused for bad arguments', () => {
      const { vm, ioas } = withIoas();
      const ask = (values: object): string =>
        vm.result(uapi.IOMMU_IOAS_IOVA_RANGES, { ioas_id: ioas, num_iovas: 1, ...values });
      expect(ask({ __reserved: 1 })).toBe('EOPNOTSUPP');
      expect(ask({ ioas_id: 9 })).toBe('ENOENT');
      expect(ask({ allowed_iovas: BAD_POINTER })).toBe('EFAULT');
    });

    it('keep mappings out of the MSI window, and attachments away from mappings in it', () => {
      const { vm, a, ioas, hwpt } = withDomain();
      vm.map(ioas, { iova: 0x080f_f000n, length: PAGE });
      expect(vm.attach(a, hwpt)).toBe('EADDRINUSE');
      vm.unmap(ioas, 0x080f_f000n, PAGE);
      expect(vm.attach(a, hwpt)).toBe('OK');
      for (const iova of [SW_MSI, 0x080f_f000n]) expect(vm.map(ioas, { iova, length: PAGE })).toBe('EINVAL');
      for (const iova of [SW_MSI - PAGE, 0x0810_0000n])
        expect(vm.map(ioas, { iova, length: PAGE })).toBe('OK');
    });

    it('keep a domain away from mappings that it cannot show', () => {
      const vm = new Vm(makeRig());
      const { id } = vm.bind();
      const ioas = vm.ioas();
      vm.map(ioas, { iova: 1n << 50n, length: PAGE });
      expect(vm.result(uapi.IOMMU_HWPT_ALLOC, { flags: 1, dev_id: id, pt_id: ioas })).toBe('EADDRINUSE');
      const unaligned = vm.ioas();
      expect(vm.map(unaligned, { iova: 0x1_0800n, length: 0x800n, offset: 0x800n })).toBe('OK');
      expect(vm.result(uapi.IOMMU_HWPT_ALLOC, { flags: 1, dev_id: id, pt_id: unaligned })).toBe('EADDRINUSE');
    });
  });

  it('IOAS_CHANGE_PROCESS is refused while user memory is mapped', () => {
    const { vm, ioas } = withIoas();
    expect(vm.result(uapi.IOMMU_IOAS_CHANGE_PROCESS, { __reserved: 1 })).toBe('EOPNOTSUPP');
    expect(vm.result(uapi.IOMMU_IOAS_CHANGE_PROCESS)).toBe('OK');
    vm.must(uapi.IOMMU_IOAS_MAP_FILE, { flags: 6, ioas_id: ioas, length: PAGE, fd: vm.iommufd });
    expect(vm.result(uapi.IOMMU_IOAS_CHANGE_PROCESS)).toBe('OK');
    vm.map(ioas);
    expect(vm.result(uapi.IOMMU_IOAS_CHANGE_PROCESS)).toBe('EINVAL');
  });

  it('dirty tracking is not there', () => {
    const { vm, hwpt, ioas } = withDomain();
    expect(vm.result(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: ioas, flags: 1 })).toBe('ENOENT');
    expect(vm.result(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: hwpt, flags: 2 })).toBe('EOPNOTSUPP');
    expect(vm.result(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: hwpt, flags: 1 })).toBe('EOPNOTSUPP');
    expect(vm.result(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, { hwpt_id: ioas })).toBe('ENOENT');
    expect(vm.result(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, { hwpt_id: hwpt, __reserved: 1 })).toBe('EOPNOTSUPP');
    const bitmap = { hwpt_id: hwpt, length: PAGE, page_size: PAGE };
    for (const [values, result] of [
      [{}, 'EOPNOTSUPP'],
      [{ length: 0n }, 'EINVAL'],
      [{ length: 0x800n }, 'EINVAL'],
      [{ iova: 0x800n }, 'EINVAL'],
      [{ page_size: 0n }, 'EINVAL'],
      [{ page_size: 2n * PAGE }, 'EINVAL'],
      [{ iova: U64_MAX, length: 2n }, 'EOVERFLOW'],
    ] as const)
      expect(vm.result(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, { ...bitmap, ...values })).toBe(result);
    expect(vm.result(uapi.IOMMU_IOAS_NOIOMMU_GET_PA)).toBe('EOPNOTSUPP');
  });

  it('IOMMU_VFIO_IOAS keeps one IOAS for the old interface', () => {
    const { vm, ioas } = withIoas();
    const call = (values: object) => vm.ioctl(uapi.IOMMU_VFIO_IOAS, values);
    expect(call({ op: 0 }).result).toBe('ENODEV');
    expect(call({ op: 1, ioas_id: 9 }).result).toBe('ENOENT');
    expect(call({ op: 3 }).result).toBe('EOPNOTSUPP');
    expect(call({ __reserved: 1 }).result).toBe('EOPNOTSUPP');
    expect(call({ op: 1, ioas_id: ioas }).result).toBe('OK');
    expect(call({ op: 0 }).out.ioas_id).toBe(ioas);
    expect(call({ op: 2 }).result).toBe('OK');
    expect(call({ op: 0 }).result).toBe('ENODEV');
  });
}
