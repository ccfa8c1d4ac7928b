import { describe, expect, it } from 'vitest';
import * as vfio from '../../../src/iommufd/uapi/vfio.ts';
import { GUEST, STE } from '../../contract/guest.ts';
import { nestedVm } from '../../contract/vm.ts';
import { machine, simRig } from './machine.ts';

/** Where the host puts the doorbell: offset 0x40 of the first page of the SW_MSI window. */
const DOORBELL_IOVA = 0x0800_0040n;

function running(msi: 'translated' | 'direct') {
  const simulated = machine({ host: { msi } });
  const setup = nestedVm(simRig(simulated), 'none');
  const { vm, a } = setup;
  const { host } = simulated;
  const eventfd = host.eventfd();
  const enable = (): void => {
    const bytes = new Uint8Array(24);
    bytes.set(vfio.VFIO_DEVICE_SET_IRQS.encode({ flags: 4 | 32, index: 1, start: 0, count: 1 }));
    const view = new DataView(bytes.buffer);
    view.setUint32(0, 24, true);
    view.setInt32(20, eventfd, true);
    expect(host.ioctl(a.device.fd, vfio.VFIO_DEVICE_SET_IRQS.request, bytes)).toBe(0);
  };
  /** Interrupts since the last time. */
  const count = (): number => {
    const bytes = new Uint8Array(8);
    simulated.a.interrupt(0);
    simulated.run();
    return host.read(eventfd, bytes) === 8 ? bytes[0] : 0;
  };
  /** The guest maps the window to itself, as an RMR asks it to. */
  const mapWindow = (): void =>
    vm.guest.store(GUEST.Level2 + 64 * 8, 0x0800_0000n | 1n | (1n << 10n) | (1n << 6n));
  return { ...setup, ...simulated, enable, count, mapWindow, endpoint: a };
}

describe('message interrupts that the SMMU translates', () => {
  it('are writes to the SW_MSI window, which stage 2 shows', () => {
    const { vm, endpoint, parent, enable, count } = running('translated');
    vm.attach(endpoint, parent);
    enable();
    expect(count()).toBe(1);
  });

  it('die in a guest’s stage 1 that does not map the window, and the guest hears of it', () => {
    const { vm, endpoint, parent, s1, queue, enable, count } = running('translated');
    vm.attach(endpoint, parent);
    enable();
    vm.attach(endpoint, s1);
    expect(count()).toBe(0);
    expect(vm.events(queue.fd)).toMatchObject([{ type: 0x10, address: DOORBELL_IOVA }]);
  });

  it('arrive when the guest maps the window to itself', () => {
    const { vm, endpoint, s1, enable, count, mapWindow } = running('translated');
    mapWindow();
    vm.attach(endpoint, s1);
    enable();
    expect(count()).toBe(1);
  });

  it('die with a blocked or aborting device', () => {
    const { vm, endpoint, parent, viommu, enable, count } = running('translated');
    vm.attach(endpoint, parent);
    enable();
    vm.attach(endpoint, vm.nested(viommu, endpoint.id, STE.Abort));
    expect(count()).toBe(0);
    vm.attach(endpoint, parent);
    expect(count()).toBe(1);
    vm.detach(endpoint);
    expect(count()).toBe(0);
  });

  it('follow the device to another page table', () => {
    const { vm, endpoint, parent, ioas, enable, count } = running('translated');
    vm.attach(endpoint, parent);
    enable();
    vm.attach(endpoint, ioas);
    expect(count()).toBe(1);
  });
});

describe('direct message interrupts', () => {
  it('reach their eventfd whatever the guest maps', () => {
    const { vm, endpoint, s1, queue, enable, count } = running('direct');
    vm.attach(endpoint, s1);
    enable();
    expect(count()).toBe(1);
    expect(vm.events(queue.fd)).toEqual([]);
  });

  it('need an eventfd', () => {
    const { vm, endpoint, s1, count } = running('direct');
    vm.attach(endpoint, s1);
    expect(count()).toBe(0);
  });
});
