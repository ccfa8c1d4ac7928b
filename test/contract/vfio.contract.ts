/** The VFIO cdev, and what closing it leaves behind. */

import { describe, expect, it } from 'vitest';
import { ERRNO, errnoName } from '../../src/iommufd/uapi/errno.ts';
import * as uapi from '../../src/iommufd/uapi/iommufd.ts';
import type { Ioctl, Members, Values } from '../../src/iommufd/uapi/struct.ts';
import * as vfio from '../../src/iommufd/uapi/vfio.ts';
import type { MakeRig, Rig } from './rig.ts';
import { TX_FAIL } from './test-device.ts';
import { nestedVm, Vm } from './vm.ts';

const REGION = 2 ** 40;

export function vfioContract(makeRig: MakeRig): void {
  const withDevice = (which: (rig: Rig) => number = () => 0) => {
    const vm = new Vm(makeRig());
    const a = vm.bind(which(vm.rig));
    const ask = <M extends Members>(ioctl: Ioctl<M>, values: Partial<Values<M>> = {}, size?: number) =>
      vm.client.vfio(a.device.fd, ioctl, values, size);
    return { vm, a, fd: a.device.fd, kernel: vm.rig.kernel, ask };
  };

  describe('before it is bound', () => {
    it.each(
      vfio.VFIO_IOCTLS.filter((ioctl) => ioctl !== vfio.VFIO_DEVICE_BIND_IOMMUFD).map((i) => [i.ioctl, i]),
    )('%s gives EINVAL', (_, ioctl) => {
      const { kernel, devices } = makeRig();
      const fd = kernel.open(devices[0].path);
      expect(kernel.ioctl(fd, (ioctl as Ioctl<Members>).request, new Uint8Array(64))).toBe(ERRNO.EINVAL);
    });

    it('its regions cannot be read', () => {
      const { kernel, devices } = makeRig();
      const fd = kernel.open(devices[0].path);
      expect(kernel.pread(fd, new Uint8Array(4), 7 * REGION)).toBe(-ERRNO.EINVAL);
      expect(kernel.pwrite(fd, new Uint8Array(4), 0)).toBe(-ERRNO.EINVAL);
    });
  });

  describe('BIND_IOMMUFD', () => {
    const bindings = () => {
      const rig = makeRig();
      const vm = new Vm(rig);
      const fd = rig.kernel.open(rig.devices[0].path);
      const bind = (values: object, size?: number, on = fd): string =>
        vm.client.vfio(on, vfio.VFIO_DEVICE_BIND_IOMMUFD, { iommufd: vm.iommufd, ...values }, size).result;
      return { rig, fd, bind };
    };

    it('refuses what is wrong', () => {
      const { rig, fd, bind } = bindings();
      expect(bind({}, 12)).toBe('EINVAL');
      expect(bind({ iommufd: -1 })).toBe('EINVAL');
      expect(bind({ flags: 2 })).toBe('EINVAL');
      expect(bind({ iommufd: 999 })).toBe('EBADF');
      expect(bind({ iommufd: fd })).toBe('EBADFD');
      expect(bind({ iommufd: rig.kernel.eventfd() })).toBe('EBADFD');
    });

    it('happens once, on whichever descriptor', () => {
      const { rig, bind, fd } = bindings();
      expect(bind({}, 16)).toBe('OK');
      expect(bind({})).toBe('EINVAL');
      const second = rig.kernel.open(rig.devices[0].path);
      expect(bind({}, 16, second)).toBe('EINVAL');
      rig.kernel.close(fd);
      expect(bind({}, 16, second)).toBe('OK');
    });
  });

  describe('ATTACH and DETACH', () => {
    it('refuse short structures and unknown flags', () => {
      const { ask, vm } = withDevice();
      const pt_id = vm.ioas();
      expect(ask(vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id }, 8).result).toBe('EINVAL');
      expect(ask(vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id, flags: 2 }).result).toBe('EINVAL');
      expect(ask(vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT, {}, 4).result).toBe('EINVAL');
      expect(ask(vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT, { flags: 2 }).result).toBe('EINVAL');
      expect(ask(vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id }, 12).result).toBe('OK');
      expect(ask(vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT, {}, 8).result).toBe('OK');
    });

    it('tell which page table an IOAS became', () => {
      const { ask, vm } = withDevice();
      const ioas = vm.ioas();
      const { out } = ask(vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id: ioas });
      expect(out.pt_id).toBe(ioas + 1);
      expect(vm.destroy(out.pt_id)).toBe('EBUSY');
    });
  });

  describe('information', () => {
    it('says that it is a PCI device with nine regions and five interrupts', () => {
      const { ask } = withDevice();
      expect(ask(vfio.VFIO_DEVICE_GET_INFO).out).toMatchObject({ num_regions: 9, num_irqs: 5 });
      const { flags } = ask(vfio.VFIO_DEVICE_GET_INFO).out;
      expect(flags & vfio.VFIO_DEVICE_FLAGS_PCI).toBe(vfio.VFIO_DEVICE_FLAGS_PCI);
      expect(ask(vfio.VFIO_DEVICE_GET_INFO, {}, 12).result).toBe('EINVAL');
      expect(ask(vfio.VFIO_DEVICE_GET_INFO, {}, 16)).toMatchObject({ result: 'OK', out: { num_irqs: 5 } });
    });

    it('says where regions are', () => {
      const { ask } = withDevice();
      const region = (index: number, size?: number) => ask(vfio.VFIO_DEVICE_GET_REGION_INFO, { index }, size);
      expect(region(0).out.size).toBeGreaterThan(0n);
      expect(region(7).out).toMatchObject({ offset: 7n << 40n });
      expect(region(7).out.size).toBeGreaterThanOrEqual(256n);
      expect(region(5)).toMatchObject({ result: 'OK', out: { size: 0n } });
      expect(region(8).result).toBe('EINVAL');
      expect(region(9).result).toBe('EINVAL');
      expect(region(0, 24).result).toBe('EINVAL');
    });

    it('says how many vectors there are', () => {
      const { ask } = withDevice();
      expect(ask(vfio.VFIO_DEVICE_GET_IRQ_INFO, { index: 4 }).out.count).toBe(1);
      expect(ask(vfio.VFIO_DEVICE_GET_IRQ_INFO, { index: 5 }).result).toBe('EINVAL');
      expect(ask(vfio.VFIO_DEVICE_GET_IRQ_INFO, { index: 0 }, 12).result).toBe('EINVAL');
    });

    it('ENOTTY is the answer to what does not exist', () => {
      const { kernel, fd } = withDevice();
      for (const request of [0x3b64, 0x3bff])
        expect(kernel.ioctl(fd, request, new Uint8Array(64))).toBe(ERRNO.ENOTTY);
    });

    it.each([
      ['short', 7, 0, 'EINVAL'],
      ['with an unknown flag', 8, 1 << 19, 'EINVAL'],
      ['to read and write at once', 8, (1 << 16) | (1 << 17), 'EINVAL'],
      ['to probe reading and writing of what is not there', 8, (7 << 16) | 0xffff, 'ENOTTY'],
      ['to read what is not there', 8, (1 << 16) | 0xffff, 'ENOTTY'],
      ['to read the state of a migration', 8, (1 << 16) | 1, 'ENOTTY'],
    ])('a feature is refused %s', (_, argsz, flags, result) => {
      const { ask } = withDevice();
      expect(ask(vfio.VFIO_DEVICE_FEATURE, { flags }, argsz).result).toBe(result);
    });
  });

  describe('regions', () => {
    it('are read up to their end and not beyond', () => {
      const { kernel, fd, ask } = withDevice();
      const size = Number(ask(vfio.VFIO_DEVICE_GET_REGION_INFO, { index: 0 }).out.size);
      expect(kernel.pread(fd, new Uint8Array(8), size - 4)).toBe(4);
      expect(kernel.pread(fd, new Uint8Array(4), size)).toBe(-ERRNO.EINVAL);
      for (const offset of [9 * REGION, 2 ** 52, -1, 0.5, Number.NaN, Infinity])
        expect(kernel.pread(fd, new Uint8Array(4), offset)).toBeLessThan(0);
      expect(kernel.pwrite(fd, new Uint8Array(4), 6 * REGION)).toBe(-ERRNO.EINVAL);
    });

    it('of configuration space begin with the vendor', () => {
      const { kernel, fd } = withDevice();
      const bytes = new Uint8Array(2);
      expect(kernel.pread(fd, bytes, 7 * REGION)).toBe(2);
      expect(bytes).not.toEqual(new Uint8Array(2));
    });
  });

  describe('SET_IRQS', () => {
    /** Attached: where all DMA is blocked, messages would be, too. */
    const withInterrupts = () => {
      const device = withDevice(({ interrupting }) => interrupting);
      expect(device.vm.attach(device.a, device.vm.ioas())).toBe('OK');
      return device;
    };
    const IRQ = { index: 1, start: 0, count: 1, flags: 4 | 32 };
    const setIrqs = (values: object, payload: readonly number[], argsz?: number) => {
      const { kernel, fd } = withInterrupts();
      return setOn(kernel, fd, values, payload, argsz);
    };
    const setOn = (
      kernel: ReturnType<typeof makeRig>['kernel'],
      fd: number,
      values: object,
      payload: readonly number[],
      argsz?: number,
    ): string => {
      const bytes = new Uint8Array(20 + 4 * payload.length);
      bytes.set(vfio.VFIO_DEVICE_SET_IRQS.encode({ ...IRQ, ...values }));
      const view = new DataView(bytes.buffer);
      view.setUint32(0, argsz ?? bytes.length, true);
      for (const [i, value] of payload.entries()) view.setInt32(20 + 4 * i, value, true);
      return errnoName(kernel.ioctl(fd, vfio.VFIO_DEVICE_SET_IRQS.request, bytes));
    };

    it.each([
      ['a short structure', {}, [], 19, 'EINVAL'],
      ['no such index', { index: 5 }, [-1], undefined, 'EINVAL'],
      ['an unknown flag', { flags: 4 | 32 | 64 }, [-1], undefined, 'EINVAL'],
      ['two types of data', { flags: 1 | 4 | 32 }, [-1], undefined, 'EINVAL'],
      ['no type of data', { flags: 32 }, [-1], undefined, 'EINVAL'],
      ['a start beyond the vectors', { start: 16 }, [-1], undefined, 'EINVAL'],
      [
        'more vectors than there are',
        { count: 17 },
        Array.from({ length: 17 }, () => -1),
        undefined,
        'EINVAL',
      ],
      ['start and count that wrap', { start: 1, count: 0xffff_ffff }, [-1], undefined, 'EINVAL'],
      ['a payload that is missing', { count: 2 }, [-1], undefined, 'EINVAL'],
      ['a descriptor that is not open', {}, [999], undefined, 'EBADF'],
      ['an action that MSI does not have', { flags: 4 | 8 }, [-1], undefined, 'ENOTTY'],
    ] as const)('refuses %s', (_, values, payload, argsz, result) => {
      expect(setIrqs(values, payload, argsz)).toBe(result);
    });

    it('gives no messages to a device that is attached to nothing, but INTx', () => {
      const { kernel, fd } = withDevice(({ interrupting }) => interrupting);
      expect(setOn(kernel, fd, {}, [kernel.eventfd()])).toBe('ENOSPC');
      expect(setOn(kernel, fd, { index: 0 }, [kernel.eventfd()])).toBe('OK');
    });

    it.each([
      ['messages', 1],
      ['INTx', 0],
    ] as const)('%s cannot be triggered or turned off before they are set up', (_, index) => {
      const { kernel, fd } = withInterrupts();
      for (const count of [0, 1])
        expect(setOn(kernel, fd, { flags: 1 | 32, index, count }, [])).toBe('EINVAL');
      expect(setOn(kernel, fd, { index }, [kernel.eventfd()])).toBe('OK');
      for (const [count, result] of [
        [1, 'OK'],
        [0, 'OK'],
        [0, 'EINVAL'],
      ] as const)
        expect(setOn(kernel, fd, { flags: 1 | 32, index, count }, [])).toBe(result);
    });

    it('can mask INTx once it is set up', () => {
      const { kernel, fd } = withInterrupts();
      const mask = { flags: 1 | 8, index: 0 };
      expect(setOn(kernel, fd, mask, [])).toBe('EINVAL');
      expect(setOn(kernel, fd, { index: 0 }, [kernel.eventfd()])).toBe('OK');
      expect(setOn(kernel, fd, mask, [])).toBe('OK');
      expect(setOn(kernel, fd, { ...mask, flags: 1 | 16 }, [])).toBe('OK');
      expect(setOn(kernel, fd, { ...mask, flags: 4 | 8 }, [kernel.eventfd()])).toBe('ENOTTY');
      expect(setOn(kernel, fd, { ...mask, count: 0 }, [])).toBe('EINVAL');
    });

    it('of a request to let go is one eventfd', () => {
      const { kernel, fd } = withInterrupts();
      const request = { index: 4 };
      expect(setOn(kernel, fd, { ...request, flags: 1 | 32 }, [])).toBe('EINVAL');
      const eventfd = kernel.eventfd();
      expect(setOn(kernel, fd, request, [eventfd])).toBe('OK');
      expect(setOn(kernel, fd, { ...request, flags: 1 | 32 }, [])).toBe('OK');
      expect(kernel.read(eventfd, new Uint8Array(8))).toBe(8);
      expect(setOn(kernel, fd, { ...request, flags: 1 | 8 }, [])).toBe('ENOTTY');
      expect(setOn(kernel, fd, { ...request, flags: 1 | 32, count: 0 }, [])).toBe('OK');
      expect(setOn(kernel, fd, { ...request, flags: 1 | 32, count: 0 }, [])).toBe('EINVAL');
    });

    it('leaves none of the vectors with an eventfd if one of them is refused', () => {
      const { kernel, fd, vm } = withInterrupts();
      const eventfd = kernel.eventfd();
      const none = -ERRNO.EAGAIN;
      expect(setOn(kernel, fd, { count: 2 }, [eventfd, vm.iommufd])).toBe('EINVAL');
      expect(setOn(kernel, fd, { flags: 1 | 32 }, [])).toBe('EINVAL');
      expect(setOn(kernel, fd, { count: 2 }, [eventfd, -1])).toBe('OK');
      expect(setOn(kernel, fd, { count: 2 }, [eventfd, 999])).toBe('EBADF');
      expect(setOn(kernel, fd, { flags: 1 | 32 }, [])).toBe('OK');
      expect(kernel.read(eventfd, new Uint8Array(8))).toBe(none);
    });

    it('gives no more MSIs than at first until all are turned off', () => {
      const { kernel, fd } = withInterrupts();
      const eventfd = kernel.eventfd();
      expect(setOn(kernel, fd, {}, [eventfd])).toBe('OK');
      expect(setOn(kernel, fd, { start: 1 }, [eventfd])).toBe('EINVAL');
      expect(setOn(kernel, fd, { start: 1 }, [-1])).toBe('OK');
      expect(setOn(kernel, fd, { flags: 1 | 32, count: 0 }, [])).toBe('OK');
      expect(setOn(kernel, fd, { start: 1 }, [eventfd])).toBe('OK');
    });

    it('takes an eventfd and nothing else', () => {
      const { kernel, fd, vm } = withInterrupts();
      expect(setOn(kernel, fd, {}, [vm.iommufd])).toBe('EINVAL');
      expect(setOn(kernel, fd, {}, [kernel.eventfd()])).toBe('OK');
    });

    it('can trigger a vector by hand', () => {
      const { kernel, fd, vm } = withInterrupts();
      const eventfd = kernel.eventfd();
      const bytes = new Uint8Array(8);
      expect(kernel.read(eventfd, bytes)).toBe(-ERRNO.EAGAIN);
      setOn(kernel, fd, {}, [eventfd]);
      expect(setOn(kernel, fd, { flags: 1 | 32 }, [])).toBe('OK');
      vm.rig.settle();
      expect(kernel.read(eventfd, bytes)).toBe(8);
      expect(bytes[0]).toBe(1);
      expect(setOn(kernel, fd, { flags: 1 | 32, count: 0 }, [])).toBe('OK');
    });

    it('gives each vector its own eventfd', () => {
      const { kernel, fd } = withInterrupts();
      const eventfds = [kernel.eventfd(), kernel.eventfd()];
      expect(setOn(kernel, fd, { start: 1, count: 2 }, eventfds)).toBe('OK');
      const counts = (): number[] => eventfds.map((eventfd) => kernel.read(eventfd, new Uint8Array(8)));
      const none = -ERRNO.EAGAIN;
      for (const [start, expected] of [
        [0, [none, none]],
        [1, [8, none]],
        [2, [none, 8]],
        [3, [none, none]],
      ] as const) {
        expect(setOn(kernel, fd, { flags: 1 | 32, start }, [])).toBe('OK');
        expect(counts()).toEqual(expected);
      }
      // -1 takes one away.
      expect(setOn(kernel, fd, { start: 1, count: 1 }, [-1])).toBe('OK');
      setOn(kernel, fd, { flags: 1 | 32, start: 1 }, []);
      expect(counts()).toEqual([none, none]);
    });

    it('has one kind of interrupt at a time', () => {
      const { kernel, fd } = withInterrupts();
      expect(setOn(kernel, fd, {}, [kernel.eventfd()])).toBe('OK');
      expect(setOn(kernel, fd, { index: 0 }, [kernel.eventfd()])).toBe('EINVAL');
      expect(setOn(kernel, fd, { flags: 1 | 32, count: 0 }, [])).toBe('OK');
      expect(setOn(kernel, fd, { index: 0 }, [kernel.eventfd()])).toBe('OK');
    });
  });

  describe('closing', () => {
    it('the device ends its DMA, its attachment and its vDEVICE, whose id stays dead', () => {
      const { vm, a, viommu, vdevice, s1, queue } = nestedVm(makeRig());
      expect(vm.rig.kernel.close(a.device.fd)).toBe(0);
      expect(vm.destroy(vdevice)).toBe('ENOENT');
      expect(vm.destroy(s1)).toBe('OK');
      vm.rig.kernel.close(queue.fd);
      expect(vm.destroy(queue.id)).toBe('OK');
      expect(vm.destroy(viommu)).toBe('OK');
      // Ids come back lowest first, but never that of the vDEVICE.
      const ids = Array.from({ length: 12 }, () => vm.ioas());
      expect(ids).not.toContain(vdevice);
      expect(ids).toContain(vdevice - 1);
      expect(ids).toContain(vdevice + 1);
    });

    it('the device frees its virtual id', () => {
      const { vm, a, viommu } = nestedVm(makeRig());
      vm.rig.kernel.close(a.device.fd);
      const again = vm.bind(0);
      expect(
        vm.result(uapi.IOMMU_VDEVICE_ALLOC, { viommu_id: viommu, dev_id: again.id, virt_id: 0x1234n }),
      ).toBe('OK');
      expect(vm.dma(again, 0x1000_0000n)).toBe(TX_FAIL);
    });

    it('everything in any order leaves nothing that hinders a new start', () => {
      const rig = makeRig();
      const orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
      ];
      for (const order of orders) {
        const { vm, a, queue } = nestedVm(rig);
        expect(vm.dmaLands(a, 0x1000_0000n)).toBe('D0');
        const fds = [vm.iommufd, a.device.fd, queue.fd];
        for (const i of order) expect(rig.kernel.close(fds[i])).toBe(0);
      }
    });
  });
}
