/** Page tables, vIOMMUs and vDEVICEs: what can be made of what, and what can be attached to what. */

import { describe, expect, it } from 'vitest';
import * as uapi from '../../src/iommufd/uapi/iommufd.ts';
import { GUEST, IPA_HOLE, STE } from './guest.ts';
import type { MakeRig } from './rig.ts';
import { TX_FAIL } from './test-device.ts';
import { nestedVm, Vm } from './vm.ts';

const S1_IOVA = 0x1000_0000n;
const S1_UNMAPPED = 0x1000_1000n;

export function hwptContract(makeRig: MakeRig): void {
  describe('HWPT_ALLOC', () => {
    it.each([
      ['reserved', { __reserved: 1, dev_id: 99 }, 'EOPNOTSUPP'],
      ['data without a type', { data_len: 16, dev_id: 99 }, 'EINVAL'],
      ['a type without data', { data_type: 2, dev_id: 99 }, 'EINVAL'],
      ['no such device', { dev_id: 99 }, 'ENOENT'],
      ['no such page table', { pt_id: 99 }, 'EINVAL'],
      ['a device as page table', { pt_id: 1 }, 'EINVAL'],
      ['dirty tracking', { flags: 2 }, 'EOPNOTSUPP'],
      ['a nest parent with a fault queue', { flags: 5 }, 'EOPNOTSUPP'],
      ['a nest parent for PASIDs', { flags: 9 }, 'EOPNOTSUPP'],
      ['a fault queue that does not exist', { flags: 4, fault_id: 99 }, 'ENOENT'],
      ['user data for an IOAS', { data_type: 2, data_len: 16, data_uptr: 1n }, 'EOPNOTSUPP'],
    ])('refuses %s', (_, values, result) => {
      const vm = new Vm(makeRig());
      const { id } = vm.bind();
      const good = { dev_id: id, pt_id: vm.ioas() };
      expect(vm.result(uapi.IOMMU_HWPT_ALLOC, { ...good, ...values })).toBe(result);
    });

    it('does not look at the second reserved member', () => {
      const vm = new Vm(makeRig());
      const { id } = vm.bind();
      expect(vm.result(uapi.IOMMU_HWPT_ALLOC, { dev_id: id, pt_id: vm.ioas(), __reserved2: 1 })).toBe('OK');
    });
  });

  describe('a guest’s STE', () => {
    const V = 1n;
    const config = (value: bigint): bigint => V | (value << 1n);
    const [s10, s11] = STE.S1;
    it.each([
      ['Config 1', [config(1n), 0n]],
      ['Config 2', [config(2n), 0n]],
      ['Config 3', [config(3n), 0n]],
      ['Config 6', [config(6n), 0n]],
      ['Config 7', [config(7n), 0n]],
      ['EATS 2', [s10, s11 | (2n << 28n)]],
      ['EATS 3', [s10, s11 | (3n << 28n)]],
      ['EATS 2 even when it aborts', [config(0n), 2n << 28n]],
      ['EATS 2 even when it bypasses', [config(4n), 2n << 28n]],
      ...[52n, 53n, 54n, 55n, 58n].map((bit) => [`word 0 bit ${bit}`, [s10 | (1n << bit), s11]] as const),
      ...[8n, 13n, 16n, 17n, 18n, 19n, 24n, 25n, 26n, 30n, 31n, 32n, 44n, 45n, 48n, 63n].map(
        (bit) => [`word 1 bit ${bit}`, [s10, s11 | (1n << bit)]] as const,
      ),
    ] as [string, bigint[]][])('is refused with %s', (_, words) => {
      const { vm, a, viommu } = nestedVm(makeRig(), 'none');
      expect(vm.tryNested(viommu, a.id, words).result).toBe('EIO');
    });

    it.each([
      ['nothing but V', [V, 0n]],
      ['bypass', [config(4n), 0n]],
      ['V=0 and garbage', [~1n, ~0n]],
      ['V=0, Config 7, EATS 3', [0xen, 3n << 28n]],
      ['S1Fmt, S1CDMax, the greatest pointer', [config(5n) | (3n << 4n) | 0xf80f_ffff_ffff_ffc0n, s11]],
      ['S1DSS, S1STALLD, EATS 1', [s10, s11 | 3n | (1n << 27n) | (1n << 28n)]],
    ] as [string, bigint[]][])('is taken with %s', (_, words) => {
      const { vm, a, viommu } = nestedVm(makeRig(), 'none');
      expect(vm.tryNested(viommu, a.id, words).result).toBe('OK');
    });

    it('has to come with exactly 16 bytes of the right type, and no flags', () => {
      const { vm, a, viommu } = nestedVm(makeRig(), 'none');
      expect(vm.tryNested(viommu, a.id, STE.S1, { data_len: 15 }).result).toBe('EINVAL');
      expect(vm.tryNested(viommu, a.id, STE.S1, { data_type: 1 }).result).toBe('EINVAL');
      expect(vm.tryNested(viommu, a.id, STE.S1, { data_type: 3 }).result).toBe('EINVAL');
      expect(vm.tryNested(viommu, a.id, STE.S1, { flags: 2 }).result).toBe('EOPNOTSUPP');
      expect(vm.tryNested(viommu, a.id, STE.S1, { flags: 4, fault_id: 99 }).result).toBe('ENOENT');
      expect(vm.tryNested(viommu, 99, STE.S1).result).toBe('ENOENT');
    });
  });

  describe('attaching', () => {
    it('a nest parent gives stage 2 alone: DMA by IPA, no events', () => {
      const { vm, a, parent, queue } = nestedVm(makeRig(), 'none');
      expect(vm.attach(a, parent)).toBe('OK');
      expect(vm.dmaLands(a, BigInt(GUEST.D0))).toBe('D0');
      expect(vm.dma(a, IPA_HOLE)).toBe(TX_FAIL);
      expect(vm.events(queue.fd)).toEqual([]);
    });

    it('an IOAS makes a page table that goes with its last device', () => {
      const vm = new Vm(makeRig());
      const [a, b] = [vm.bind(0), vm.bind(1)];
      const ioas = vm.ioas();
      vm.map(ioas);
      expect(vm.attach(a, ioas)).toBe('OK');
      expect(vm.attach(b, ioas)).toBe('OK');
      expect(vm.dmaLands(a, BigInt(GUEST.D0))).toBe('D0');
      expect(vm.dmaLands(b, BigInt(GUEST.D1))).toBe('D1');
      expect(vm.dma(a, S1_IOVA)).toBe(TX_FAIL);
      expect(vm.destroy(ioas)).toBe('EBUSY');
      vm.detach(a);
      expect(vm.destroy(ioas)).toBe('EBUSY');
      expect(vm.dmaLands(b, BigInt(GUEST.D1))).toBe('D1');
      vm.detach(b);
      expect(vm.destroy(ioas)).toBe('OK');
    });

    it('pages of the kernel’s own tables: unmapping is effective, and no two tables mix', () => {
      const vm = new Vm(makeRig());
      const a = vm.bind(0);
      const [one, other] = [vm.ioas(), vm.ioas()];
      const iova = 0x7000_0000n;
      const page = (ioas: number, offset: bigint): string => vm.map(ioas, { iova, length: 0x1000n, offset });
      page(one, 0x10_0000n);
      page(other, 0x10_1000n);
      const [hwptOne, hwptOther] = [vm.hwpt(a.id, one), vm.hwpt(a.id, other)];
      for (let round = 0; round < 2; round++) {
        expect(vm.attach(a, hwptOne)).toBe('OK');
        expect(vm.dmaLands(a, iova)).toBe('D0');
        expect(vm.attach(a, hwptOther)).toBe('OK');
        expect(vm.dmaLands(a, iova)).toBe('D1');
      }
      vm.unmap(other, iova, 0x1000n);
      expect(vm.dmaLands(a, iova)).toBe('nowhere');
      page(other, 0x10_0000n);
      expect(vm.dmaLands(a, iova)).toBe('D0');
      // A table that comes after another's end does not inherit its translations.
      vm.detach(a);
      vm.destroy(hwptOther);
      vm.destroy(hwptOne);
      vm.unmap(one, iova, 0x1000n);
      expect(vm.attach(a, vm.hwpt(a.id, one))).toBe('OK');
      expect(vm.dmaLands(a, iova)).toBe('nowhere');
    });

    it('a nest parent that comes after another’s end does not inherit its translations', () => {
      const { vm, a, ioas, parent, viommu, vdevice, s1, queue } = nestedVm(makeRig());
      expect(vm.dmaLands(a, S1_IOVA)).toBe('D0');
      vm.detach(a);
      vm.rig.kernel.close(queue.fd);
      for (const id of [s1, vdevice, queue.id, viommu, parent]) expect(vm.destroy(id)).toBe('OK');
      vm.guest.map(Number(S1_IOVA), BigInt(GUEST.D1));
      const again = vm.viommu(a.id, vm.hwpt(a.id, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT));
      vm.vdevice(again, a.id, 1n);
      vm.attach(a, vm.nested(again, a.id, STE.S1));
      expect(vm.dmaLands(a, S1_IOVA)).toBe('D1');
    });

    it('an unknown id, or something that is no page table, is refused', () => {
      const { vm, a, viommu, vdevice, queue } = nestedVm(makeRig(), 'none');
      expect(vm.attach(a, 99)).toBe('ENOENT');
      for (const id of [viommu, vdevice, queue.id, a.id]) expect(vm.attach(a, id)).toBe('EINVAL');
    });

    it('nothing blocks DMA', () => {
      const { vm, a } = nestedVm(makeRig());
      expect(vm.dmaLands(a, S1_IOVA)).toBe('D0');
      expect(vm.detach(a)).toBe('OK');
      expect(vm.dmaLands(a, S1_IOVA)).toBe('nowhere');
      expect(vm.detach(a)).toBe('OK');
    });

    it('an aborting STE kills DMA, and nobody hears of it', () => {
      const { vm, a, viommu, queue } = nestedVm(makeRig());
      for (const words of [STE.Abort, [0n, 0n]]) {
        expect(vm.attach(a, vm.nested(viommu, a.id, words))).toBe('OK');
        expect(vm.dma(a, S1_IOVA)).toBe(TX_FAIL);
        expect(vm.dma(a, BigInt(GUEST.D0))).toBe(TX_FAIL);
      }
      expect(vm.events(queue.fd)).toEqual([]);
    });

    it('a bypassing STE is stage 2 alone', () => {
      const { vm, a, viommu, queue } = nestedVm(makeRig());
      expect(vm.attach(a, vm.nested(viommu, a.id, STE.Bypass))).toBe('OK');
      expect(vm.dmaLands(a, BigInt(GUEST.D1))).toBe('D1');
      expect(vm.dma(a, IPA_HOLE)).toBe(TX_FAIL);
      expect(vm.events(queue.fd)).toEqual([]);
    });

    it('a translating STE needs a vDEVICE on the same vIOMMU', () => {
      const { vm, a, parent, viommu, vdevice } = nestedVm(makeRig(), 'none');
      const other = vm.viommu(a.id, parent);
      const elsewhere = vm.nested(other, a.id, STE.S1);
      expect(vm.attach(a, elsewhere)).toBe('ENOENT');
      const s1 = vm.nested(viommu, a.id, STE.S1);
      expect(vm.attach(a, s1)).toBe('OK');
      vm.detach(a);
      vm.destroy(vdevice);
      expect(vm.attach(a, s1)).toBe('ENOENT');
    });

    it('that fails leaves the old attachment', () => {
      const { vm, a, vdevice, viommu } = nestedVm(makeRig());
      vm.destroy(vdevice);
      const another = vm.nested(viommu, a.id, STE.S1);
      expect(vm.attach(a, another)).toBe('ENOENT');
      expect(vm.dmaLands(a, S1_IOVA)).toBe('D0');
      expect(vm.destroy(another)).toBe('OK');
    });
  });

  describe('a device behind another SMMU', () => {
    it('is refused at every step', () => {
      const { vm, a, parent, viommu, s1, ioas } = nestedVm(makeRig(), 'none');
      const c = vm.bind(2);
      expect(vm.tryNested(viommu, c.id, STE.S1).result).toBe('EINVAL');
      expect(vm.result(uapi.IOMMU_VDEVICE_ALLOC, { viommu_id: viommu, dev_id: c.id, virt_id: 9n })).toBe(
        'EINVAL',
      );
      expect(vm.result(uapi.IOMMU_VIOMMU_ALLOC, { type: 1, dev_id: c.id, hwpt_id: parent })).toBe('EINVAL');
      expect(vm.attach(c, parent)).toBe('EINVAL');
      expect(vm.attach(c, s1)).toBe('EINVAL');
      expect(vm.attach(c, vm.nested(viommu, a.id, STE.Bypass))).toBe('EINVAL');
      // The failed attachments hold nothing.
      expect(vm.destroy(s1)).toBe('OK');
      expect(vm.attach(c, vm.hwpt(c.id, ioas, 1))).toBe('OK');
      expect(vm.dmaLands(c, BigInt(GUEST.D0))).toBe('D0');
      expect(vm.attach(a, parent)).toBe('OK');
      expect(vm.dmaLands(a, BigInt(GUEST.D1))).toBe('D1');
    });

    it('gets a page table of its own from the same IOAS', () => {
      const vm = new Vm(makeRig());
      const [a, c] = [vm.bind(0), vm.bind(2)];
      const ioas = vm.ioas();
      expect([vm.attach(a, ioas), vm.attach(c, ioas)]).toEqual(['OK', 'OK']);
      vm.map(ioas);
      expect([vm.dmaLands(a, BigInt(GUEST.D0)), vm.dmaLands(c, BigInt(GUEST.D1))]).toEqual(['D0', 'D1']);
      vm.unmap(ioas, 0n, 0xffff_ffff_ffff_ffffn);
      expect([vm.dma(a, BigInt(GUEST.D0)), vm.dma(c, BigInt(GUEST.D1))]).toEqual([TX_FAIL, TX_FAIL]);
    });
  });

  describe('vDEVICEs', () => {
    it('are one per device and one per virtual id', () => {
      const { vm, a, viommu, vdevice, parent } = nestedVm(makeRig(), 'none');
      const b = vm.bind(1);
      const alloc = (viommu_id: number, dev_id: number, virt_id: bigint): string =>
        vm.result(uapi.IOMMU_VDEVICE_ALLOC, { viommu_id, dev_id, virt_id });
      expect(alloc(99, a.id, 1n)).toBe('ENOENT');
      expect(alloc(viommu, 99, 1n)).toBe('ENOENT');
      expect(alloc(viommu, a.id, 1n)).toBe('EEXIST');
      expect(alloc(viommu, b.id, 0x1234n)).toBe('EEXIST');
      expect(alloc(vm.viommu(a.id, parent), a.id, 1n)).toBe('EEXIST');
      expect(vm.destroy(vdevice)).toBe('OK');
      expect(alloc(viommu, b.id, 0x1234n)).toBe('OK');
    });

    it('may have 64-bit ids; events carry the low half, and invalidations cannot name them', () => {
      const { vm, a, viommu, vdevice, s1, queue } = nestedVm(makeRig(), 'none');
      vm.destroy(vdevice);
      vm.vdevice(viommu, a.id, 0x1_0000_0077n);
      vm.attach(a, s1);
      vm.dma(a, S1_UNMAPPED);
      expect(vm.events(queue.fd)).toMatchObject([{ sid: 0x77 }]);
      expect(vm.invalidate(viommu, [[(0x77n << 32n) | 5n, 1n]]).result).toBe('EIO');
    });

    it('that go while their device translates leave its events their old StreamID', () => {
      const { vm, a, viommu, vdevice, s1, queue } = nestedVm(makeRig());
      expect(vm.destroy(vdevice)).toBe('OK');
      vm.dma(a, S1_UNMAPPED);
      expect(vm.events(queue.fd)).toMatchObject([{ sid: 0x1234 }]);
      expect(vm.invalidate(viommu, [[(0x1234n << 32n) | 6n, 0n]]).result).toBe('EIO');
      // The same page table again changes nothing at all.
      expect(vm.attach(a, s1)).toBe('OK');
      vm.dma(a, S1_UNMAPPED);
      expect(vm.events(queue.fd)).toMatchObject([{ sid: 0x1234 }]);
      const another = vm.nested(viommu, a.id, STE.S1);
      expect(vm.attach(a, another)).toBe('ENOENT');
      vm.vdevice(viommu, a.id, 0x88n);
      vm.attach(a, s1);
      vm.dma(a, S1_UNMAPPED);
      expect(vm.events(queue.fd)).toMatchObject([{ sid: 0x1234 }]);
      vm.attach(a, another);
      vm.dma(a, S1_UNMAPPED);
      expect(vm.events(queue.fd)).toMatchObject([{ sid: 0x88 }]);
    });

    it('made after a bypass was attached do not make its events flow', () => {
      const { vm, a, viommu, vdevice, s1, queue } = nestedVm(makeRig(), 'none');
      vm.destroy(vdevice);
      const bypass = vm.nested(viommu, a.id, STE.Bypass);
      vm.attach(a, bypass);
      vm.vdevice(viommu, a.id, 5n);
      vm.attach(a, bypass);
      vm.dma(a, IPA_HOLE);
      vm.attach(a, s1);
      vm.dma(a, S1_UNMAPPED);
      expect(vm.events(queue.fd)).toMatchObject([{ sid: 5, sequence: 0 }]);
    });
  });

  describe('HW_QUEUE_ALLOC', () => {
    it.each([
      ['flags', { flags: 1 }, 'EOPNOTSUPP'],
      ['no type', { type: 0 }, 'EOPNOTSUPP'],
      ['no length', { length: 0n }, 'EINVAL'],
      [
        'an end beyond 64 bits',
        { nesting_parent_iova: 0xffff_ffff_ffff_f000n, length: 0x1001n },
        'EOVERFLOW',
      ],
      ['no such vIOMMU', { viommu_id: 99 }, 'ENOENT'],
      ['a plain SMMUv3', {}, 'EOPNOTSUPP'],
    ])('refuses %s', (_, values, result) => {
      const { vm, viommu } = nestedVm(makeRig());
      const good = { viommu_id: viommu, type: 1, nesting_parent_iova: 0x4000_0000n, length: 0x1000n };
      expect(vm.result(uapi.IOMMU_HW_QUEUE_ALLOC, { ...good, ...values })).toBe(result);
    });
  });

  describe('two vIOMMUs on one parent', () => {
    it('share its VMID: an invalidation through one is one for both', () => {
      const { vm, a, parent, viommu } = nestedVm(makeRig());
      const other = vm.viommu(a.id, parent);
      expect(other).not.toBe(viommu);
      expect(vm.dmaLands(a, S1_IOVA)).toBe('D0');
      vm.guest.map(Number(S1_IOVA), BigInt(GUEST.D1));
      expect(vm.dmaLands(a, S1_IOVA)).toBe('D0');
      expect(vm.invalidate(other, [[0x30n, 0n]]).result).toBe('OK');
      expect(vm.dmaLands(a, S1_IOVA)).toBe('D1');
    });
  });
}
