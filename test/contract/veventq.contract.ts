/** vEVENTQs: allocation, reading, loss, lifetime, and which faults reach them. */

import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import * as uapi from '../../src/iommufd/uapi/iommufd.ts';
import { GUEST, IPA_HOLE, STE } from './guest.ts';
import { BAD_POINTER, type MakeRig } from './rig.ts';
import { TX_FAIL } from './test-device.ts';
import { nestedVm, parseEvents } from './vm.ts';

const UNMAPPED = 0x1000_1000n;
const POLLIN = 1;

export function veventqContract(makeRig: MakeRig): void {
  /** A queue of this depth, and how to make faults in order. */
  const withQueue = (depth: number) => {
    const setup = nestedVm(makeRig());
    const { vm, a, viommu } = setup;
    vm.rig.kernel.close(setup.queue.fd);
    vm.destroy(setup.queue.id);
    const queue = vm.veventq(viommu, depth);
    const fault = (count: number): void => {
      for (let i = 0; i < count; i++) vm.dma(a, UNMAPPED);
    };
    const read = (size: number): number => vm.rig.kernel.read(queue.fd, new Uint8Array(size));
    return { ...setup, queue, fault, read };
  };

  describe('VEVENTQ_ALLOC', () => {
    it.each([
      ['flags', { flags: 1 }, 'EOPNOTSUPP'],
      ['reserved', { __reserved: 1 }, 'EOPNOTSUPP'],
      ['no type, before the depth', { type: 0, veventq_depth: 0 }, 'EOPNOTSUPP'],
      ['no depth, before the id', { veventq_depth: 0, viommu_id: 99 }, 'EINVAL'],
      ['a depth above 2^19', { veventq_depth: 2 ** 19 + 1 }, 'EINVAL'],
      ['no such vIOMMU', { viommu_id: 99 }, 'ENOENT'],
      ['a second one of the type', {}, 'EEXIST'],
    ])('refuses %s', (_, values, result) => {
      const { vm, viommu } = nestedVm(makeRig());
      const good = { viommu_id: viommu, type: 1, veventq_depth: 8 };
      expect(vm.result(uapi.IOMMU_VEVENTQ_ALLOC, { ...good, ...values })).toBe(result);
    });

    it('takes any other type, and 2^19', () => {
      const { vm, viommu } = nestedVm(makeRig());
      for (const type of [2, 99, 0xffff_ffff])
        expect(vm.result(uapi.IOMMU_VEVENTQ_ALLOC, { viommu_id: viommu, type, veventq_depth: 2 ** 19 })).toBe(
          'OK',
        );
    });
  });

  describe('reading', () => {
    it('fewer than 8 bytes is EINVAL, empty or not', () => {
      const { fault, read } = withQueue(4);
      expect([read(0), read(7)]).toEqual([-ERRNO.EINVAL, -ERRNO.EINVAL]);
      fault(1);
      expect([read(0), read(7)]).toEqual([-ERRNO.EINVAL, -ERRNO.EINVAL]);
    });

    it('an empty queue gives 0 at once', () => {
      const { read } = withQueue(4);
      expect([read(8), read(4096)]).toEqual([0, 0]);
    });

    it('too little for the record at the head is EINVAL, and keeps it', () => {
      const { fault, read } = withQueue(4);
      fault(1);
      expect([read(8), read(39), read(40), read(40)]).toEqual([-ERRNO.EINVAL, -ERRNO.EINVAL, 40, 0]);
    });

    it('gives whole records only', () => {
      const { fault, read } = withQueue(4);
      fault(3);
      expect([read(100), read(100)]).toEqual([80, 40]);
    });

    it('gives a lost header 8 bytes, and nothing less', () => {
      const { fault, read } = withQueue(1);
      fault(2);
      expect([read(47), read(7), read(8), read(8)]).toEqual([40, -ERRNO.EINVAL, 8, 0]);
    });

    it('to a bad address keeps the record', () => {
      const { vm, fault, queue } = withQueue(4);
      fault(2);
      expect(vm.rig.readTo(queue.fd, BAD_POINTER, 4096)).toBe(-ERRNO.EFAULT);
      const got = vm.client.withBytes(new Uint8Array(50), (address) =>
        vm.rig.readTo(queue.fd, address, 4096),
      );
      expect(got).toBe(40);
      expect(vm.events(queue.fd)).toMatchObject([{ sequence: 1 }]);
    });

    it('has no position, and nothing can be written', () => {
      const { vm, queue } = withQueue(4);
      expect(vm.rig.kernel.pread(queue.fd, new Uint8Array(40), 0)).toBe(-ERRNO.ESPIPE);
      expect(vm.rig.lseek(queue.fd)).toBe(-ERRNO.ESPIPE);
      expect(vm.rig.kernel.write(queue.fd, new Uint8Array(8))).toBe(-ERRNO.EINVAL);
    });

    it('is announced while there is anything', () => {
      const { vm, queue, fault, read } = withQueue(1);
      expect(vm.rig.poll(queue.fd)).toBe(0);
      fault(2);
      expect(vm.rig.poll(queue.fd)).toBe(POLLIN);
      read(40);
      expect(vm.rig.poll(queue.fd)).toBe(POLLIN);
      read(8);
      expect(vm.rig.poll(queue.fd)).toBe(0);
    });

    it('is called back until the queue is drained', () => {
      const { vm, queue, fault } = withQueue(4);
      const sequences: number[] = [];
      const watch = vm.rig.kernel.onReadable(queue.fd, () => {
        const into = new Uint8Array(40);
        expect(vm.rig.kernel.read(queue.fd, into)).toBe(40);
        sequences.push(parseEvents(into)[0].sequence);
      });
      fault(1);
      fault(2);
      vm.rig.settle();
      expect(sequences).toEqual([0, 1, 2]);
      watch.stop();
      fault(1);
      vm.rig.settle();
      expect(sequences).toEqual([0, 1, 2]);
    });
  });

  describe('loss', () => {
    it('shows as one header at the tail, with the number of the latest lost event', () => {
      const { vm, queue, fault } = withQueue(2);
      fault(3);
      expect(vm.events(queue.fd)).toMatchObject([
        { sequence: 0, lost: false },
        { sequence: 1, lost: false },
        { sequence: 2, lost: true },
      ]);
      fault(1);
      expect(vm.events(queue.fd)).toMatchObject([{ sequence: 3, lost: false }]);
    });

    it('shows as a gap instead if there was room before the header was read', () => {
      const { vm, queue, fault, read } = withQueue(2);
      fault(4);
      expect(read(40)).toBe(40);
      fault(1);
      expect(vm.events(queue.fd)).toMatchObject([
        { sequence: 1, lost: false },
        { sequence: 4, lost: false },
      ]);
    });

    it('is not counted without a queue, and a new queue counts from 0', () => {
      const { vm, viommu, queue, fault } = withQueue(2);
      fault(2);
      vm.rig.kernel.close(queue.fd);
      expect(vm.destroy(queue.id)).toBe('OK');
      fault(3);
      const next = vm.veventq(viommu, 2);
      fault(1);
      expect(vm.events(next.fd)).toMatchObject([{ sequence: 0, lost: false }]);
    });
  });

  describe('lifetime', () => {
    it('the descriptor holds the queue, the queue holds the vIOMMU', () => {
      const { vm, viommu, vdevice, s1, a, queue } = withQueue(2);
      vm.detach(a);
      vm.destroy(s1);
      vm.destroy(vdevice);
      expect(vm.destroy(queue.id)).toBe('EBUSY');
      vm.rig.kernel.close(queue.fd);
      expect(vm.destroy(viommu)).toBe('EBUSY');
      expect(vm.result(uapi.IOMMU_VEVENTQ_ALLOC, { viommu_id: viommu, type: 1, veventq_depth: 1 })).toBe(
        'EEXIST',
      );
      expect(vm.destroy(queue.id)).toBe('OK');
      expect(vm.destroy(viommu)).toBe('OK');
    });

    it('unread events stay when the device is detached', () => {
      const { vm, a, queue, fault } = withQueue(2);
      fault(1);
      vm.detach(a);
      fault(1);
      expect(vm.events(queue.fd)).toMatchObject([{ sequence: 0 }]);
    });

    it('the descriptor can be read when everything else is closed', () => {
      const { vm, a, queue, fault } = withQueue(2);
      fault(1);
      vm.rig.kernel.close(a.device.fd);
      vm.rig.kernel.close(vm.iommufd);
      expect(vm.rig.poll(queue.fd)).toBe(POLLIN);
      expect(vm.events(queue.fd)).toMatchObject([{ sequence: 0 }]);
      expect(vm.rig.kernel.close(queue.fd)).toBe(0);
    });
  });

  describe('events', () => {
    it.each([
      ['an unmapped page', 0x1000_1008n, 0x10],
      ['a page without access flag', 0x1000_3000n, 0x12],
      ['a page for reading only', 0x1000_2004n, 0x13],
      ['an output beyond the address size', 0x1000_5000n, 0x11],
      ['an input beyond T0SZ', 0x80_0000_0000n, 0x10],
      ['the upper half, which EPD1 shuts', 0xffff_8000_0000_0000n, 0x10],
    ])('come from %s', (_, iova, type) => {
      const { vm, a, queue } = nestedVm(makeRig());
      expect(vm.dma(a, iova)).toBe(TX_FAIL);
      expect(vm.events(queue.fd)).toEqual([{ sequence: 0, lost: false, type, sid: 0x1234, address: iova }]);
    });

    it('come from a bad CD once it is no longer cached', () => {
      const { vm, a, viommu, queue } = nestedVm(makeRig());
      expect(vm.dmaLands(a, 0x1000_0000n)).toBe('D0');
      vm.guest.setCdValid(false);
      expect(vm.dmaLands(a, 0x1000_0000n)).toBe('D0');
      expect(vm.invalidate(viommu, [[(0x1234n << 32n) | 5n, 1n]]).result).toBe('OK');
      expect(vm.dma(a, 0x1000_0000n)).toBe(TX_FAIL);
      expect(vm.events(queue.fd)).toMatchObject([{ type: 0x0a, sid: 0x1234, address: 0n }]);
    });

    it('do not come from holes in stage 2: data, CD fetch', () => {
      const { vm, a, viommu, queue } = nestedVm(makeRig());
      expect(vm.dma(a, 0x1000_4000n)).toBe(TX_FAIL);
      const [, word1] = STE.S1;
      const lostCd = vm.nested(viommu, a.id, [1n | (5n << 1n) | IPA_HOLE, word1]);
      expect(vm.attach(a, lostCd)).toBe('OK');
      expect(vm.dma(a, 0x1000_0000n)).toBe(TX_FAIL);
      expect(vm.events(queue.fd)).toEqual([]);
    });

    it('do not come from holes in stage 2: table walk', () => {
      const { vm, a, queue } = nestedVm(makeRig());
      vm.guest.store(GUEST.Level1 + 8, IPA_HOLE | 3n);
      expect(vm.dma(a, 0x4000_0000n)).toBe(TX_FAIL);
      expect(vm.events(queue.fd)).toEqual([]);
    });

    it('of two devices come under their own StreamIDs, in order', () => {
      const { vm, a, viommu, s1, queue } = nestedVm(makeRig());
      const b = vm.bind(1);
      vm.vdevice(viommu, b.id, 0x20n);
      expect(vm.attach(b, s1)).toBe('OK');
      for (const endpoint of [a, b, a]) vm.dma(endpoint, UNMAPPED);
      expect(vm.events(queue.fd).map(({ sid }) => sid)).toEqual([0x1234, 0x20, 0x1234]);
    });
  });
}
