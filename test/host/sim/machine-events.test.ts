/** What people do to the machine: putting devices in, pulling them out, and what tests do to the kernel. */

import { describe, expect, it } from 'vitest';
import { DmaTester } from '../../../src/host/sim/functions/dma-tester.ts';
import { LAB_SMMU, SERVER_SMMU } from '../../../src/host/sim/profiles.ts';
import { ERRNO } from '../../../src/iommufd/uapi/errno.ts';
import * as uapi from '../../../src/iommufd/uapi/iommufd.ts';
import * as vfio from '../../../src/iommufd/uapi/vfio.ts';
import { GUEST, STE } from '../../contract/guest.ts';
import { TX_FAIL } from '../../contract/test-device.ts';
import { nestedVm, Vm } from '../../contract/vm.ts';
import { machine, PATH_A, SID_A, simRig } from './machine.ts';

describe('adding', () => {
  it('refuses a path or a StreamID that is taken or impossible', () => {
    const { host, smmu } = machine();
    const add = (path: string, sid: number | number[]): unknown =>
      host.addDevice({ path, address: '0000:00:06.0', smmu, sid, function: new DmaTester() });
    expect(() => add(PATH_A, 0x30)).toThrow(RangeError);
    expect(() => add('/dev/vfio/devices/vfio9', SID_A)).toThrow(RangeError);
    expect(() => add('/dev/vfio/devices/vfio9', 0x10000)).toThrow(RangeError);
    expect(() => add('/dev/vfio/devices/vfio9', [])).toThrow(RangeError);
    add('/dev/vfio/devices/vfio9', 0x30);
  });

  it('refuses an SMMU that cannot exist', () => {
    const { host } = machine();
    expect(() => host.addSmmu({ name: 'x', ids: { ...LAB_SMMU, IDR0: 0 } })).toThrow(RangeError);
  });
});

describe('nesting', () => {
  const viommuResult = (options: Parameters<typeof machine>[0]): string => {
    const vm = new Vm(simRig(machine(options)));
    const a = vm.bind();
    const parent = vm.ioctl(uapi.IOMMU_HWPT_ALLOC, { flags: 1, dev_id: a.id, pt_id: vm.ioas() });
    if (parent.result !== 'OK') return `parent ${parent.result}`;
    return vm.result(uapi.IOMMU_VIOMMU_ALLOC, { type: 1, dev_id: a.id, hwpt_id: parent.out.out_hwpt_id });
  };

  it('needs both stages', () => {
    expect(
      viommuResult({ ids: { ...LAB_SMMU, IDR0: LAB_SMMU.IDR0 & ~1, IDR3: LAB_SMMU.IDR3 & ~0x10 } }),
    ).toBe('parent EOPNOTSUPP');
  });

  it('needs coherency, or forced write-back', () => {
    expect(viommuResult({})).toBe('OK');
    expect(viommuResult({ device: { canwbs: false } })).toBe('EOPNOTSUPP');
    expect(
      viommuResult({ device: { canwbs: false }, ids: { ...LAB_SMMU, IDR3: LAB_SMMU.IDR3 | 0x100 } }),
    ).toBe('OK');
  });

  it('needs a device with one StreamID', () => {
    const simulated = machine();
    const { host, smmu } = simulated;
    const path = '/dev/vfio/devices/vfio7';
    host.addDevice({ path, address: '0000:00:07.0', smmu, sid: [0x38, 0x39], function: new DmaTester() });
    const rig = { ...simRig(simulated), devices: [{ path, address: '0000:00:07.0' }] };
    const vm = new Vm(rig);
    const a = vm.bind();
    const viommu = vm.viommu(a.id, vm.hwpt(a.id, vm.ioas(), 1));
    expect(vm.result(uapi.IOMMU_VDEVICE_ALLOC, { viommu_id: viommu, dev_id: a.id, virt_id: 1n })).toBe(
      'EOPNOTSUPP',
    );
  });
});

describe('what the host says of its hardware', () => {
  const info = (options: Parameters<typeof machine>[0]) => {
    const vm = new Vm(simRig(machine(options)));
    return vm.must(uapi.IOMMU_GET_HW_INFO, { dev_id: vm.bind().id });
  };

  it('is ATS, dirty tracking and PASIDs where SMMU and device have them', () => {
    const device = { ats: true, pasidBits: 16 };
    expect(info({ device })).toMatchObject({ out_capabilities: 8n, out_max_pasid_log2: 0 });
    expect(info({ ids: SERVER_SMMU })).toMatchObject({ out_capabilities: 9n, out_max_pasid_log2: 0 });
    expect(info({ ids: SERVER_SMMU, device })).toMatchObject({
      out_capabilities: 1n,
      out_max_pasid_log2: 16,
    });
    expect(info({ ids: SERVER_SMMU, device: { pasidBits: 32 } }).out_max_pasid_log2).toBe(20);
  });
});

describe('ATC_INV and SubstreamIDs', () => {
  it('pass where the host has them', () => {
    const commands: [bigint, bigint][] = [
      [(0x1234n << 32n) | 0x40n, 52n],
      [(0x1234n << 32n) | (5n << 12n) | (1n << 11n) | (1n << 9n) | 0x40n, 0x1000n],
      [(0x1234n << 32n) | (5n << 12n) | 0x05n, 1n],
    ];
    for (const [ids, result] of [
      [LAB_SMMU, 'EIO'],
      [SERVER_SMMU, 'OK'],
    ] as const) {
      const { vm, viommu } = nestedVm(simRig(machine({ ids, device: { ats: true } })));
      for (const command of commands) expect(vm.invalidate(viommu, [command]).result).toBe(result);
      expect(vm.invalidate(viommu, [[(0x1234n << 32n) | 0x40n, 53n]]).result).toBe('EIO');
      expect(vm.invalidate(viommu, [[(0x9999n << 32n) | 0x40n, 52n]]).result).toBe('EIO');
    }
  });
});

describe('devices of one group', () => {
  it('are attached to one page table together', () => {
    const simulated = machine();
    const { host, smmu } = simulated;
    const path = '/dev/vfio/devices/vfio7';
    const groupWith = host.device(PATH_A)!;
    host.addDevice({ path, address: '0000:00:04.1', smmu, sid: 0x21, function: new DmaTester(), groupWith });
    const rig = {
      ...simRig(simulated),
      devices: [
        { path: PATH_A, address: '' },
        { path, address: '' },
      ],
    };
    const { vm, a, parent, s1 } = nestedVm(rig, 'none');
    const sibling = vm.bind(1);
    vm.attach(a, parent);
    expect(vm.attach(sibling, s1)).toBe('EINVAL');
    expect(vm.attach(sibling, parent)).toBe('OK');
  });
});

describe('pulling a device out', () => {
  it('happens at once if nobody has it open', () => {
    const { host, smmu } = machine();
    expect(host.removeDevice(PATH_A)).toBe(true);
    expect(host.open(PATH_A)).toBe(-ERRNO.ENOENT);
    expect(smmu.canHold(SID_A)).toBe(true);
    expect(host.removeDevice(PATH_A)).toBe(true);
  });

  it('asks whoever has it open, and waits for the close', () => {
    const simulated = machine();
    const { host, run } = simulated;
    const { vm, a, vdevice } = nestedVm(simRig(simulated));
    const eventfd = host.eventfd();
    const bytes = new Uint8Array(24);
    bytes.set(vfio.VFIO_DEVICE_SET_IRQS.encode({ flags: 4 | 32, index: 4, start: 0, count: 1 }));
    new DataView(bytes.buffer).setUint32(0, 24, true);
    new DataView(bytes.buffer).setInt32(20, eventfd, true);
    expect(host.ioctl(a.device.fd, vfio.VFIO_DEVICE_SET_IRQS.request, bytes)).toBe(0);
    expect(host.removeDevice(PATH_A)).toBe(false);
    run();
    expect(host.read(eventfd, new Uint8Array(8))).toBe(8);
    expect(host.open(PATH_A)).toBe(-ERRNO.ENOENT);
    expect(vm.dmaLands(a, 0x1000_0000n)).toBe('D0');
    host.close(a.device.fd);
    expect(host.device(PATH_A)).toBeUndefined();
    expect(simulated.a.dmaWrite32(0x1000_0000n, 1)).not.toBe(0);
    expect(vm.destroy(vdevice)).toBe('ENOENT');
  });
});

describe('live objects', () => {
  it('are none when everything is closed, in whichever order', () => {
    const simulated = machine();
    const { host } = simulated;
    const { vm, a, queue } = nestedVm(simRig(simulated));
    expect(host.snapshotOfObjects().map(({ type }) => type)).toEqual([
      'device',
      'ioas',
      'hwpt_paging',
      'viommu',
      'vdevice',
      'hwpt_nested',
      'veventq',
    ]);
    host.close(vm.iommufd);
    expect(host.snapshotOfObjects()).toHaveLength(7);
    host.close(a.device.fd);
    // The vDEVICE and the device went with the descriptor.
    expect(host.snapshotOfObjects().map(({ type }) => type)).toEqual([
      'ioas',
      'hwpt_paging',
      'viommu',
      'hwpt_nested',
      'veventq',
    ]);
    host.close(queue.fd);
    expect(host.snapshotOfObjects()).toEqual([]);
    expect(host.openFiles).toBe(0);
    expect(host.physicalAddress(vm.guest.ram)).toBeUndefined();
  });
});

describe('a device that is closed', () => {
  it('is reset, so that the next owner finds it as after power-on', () => {
    const { vm, a } = nestedVm(simRig());
    a.device.write32(0x0c, 77);
    expect(a.device.read32(0x0c)).toBe(77);
    vm.rig.kernel.close(a.device.fd);
    expect(vm.bind(0).device.read32(0x0c)).toBe(0);
  });

  it('does not do DMA before its driver enables it', () => {
    const { vm, a } = nestedVm(simRig());
    expect(vm.rig.kernel.ioctl(a.device.fd, vfio.VFIO_DEVICE_RESET.request, new Uint8Array(0))).toBe(0);
    expect(vm.dma(a, 0x1000_0000n)).toBe(TX_FAIL);
    a.device.enable();
    expect(vm.dmaLands(a, 0x1000_0000n)).toBe('D0');
  });
});

describe('injected faults', () => {
  it('fail the n-th call with an errno, and leave nothing behind', () => {
    const simulated = machine();
    const { vm, a, viommu } = nestedVm(simRig(simulated), 'none');
    const before = simulated.host.snapshotOfObjects();
    simulated.host.faults.add({ ioctl: 'IOMMU_HWPT_ALLOC', errno: 'ENOMEM', nth: 2, times: 2 });
    expect(vm.tryNested(viommu, a.id, STE.Abort).result).toBe('OK');
    expect(vm.tryNested(viommu, a.id, STE.Abort).result).toBe('ENOMEM');
    expect(vm.tryNested(viommu, a.id, STE.Abort).result).toBe('ENOMEM');
    expect(simulated.host.snapshotOfObjects()).toHaveLength(before.length + 1);
    expect(vm.tryNested(viommu, a.id, STE.Abort).result).toBe('OK');
  });

  it('can be of VFIO, and can be called off', () => {
    const simulated = machine();
    const { vm, a, parent } = nestedVm(simRig(simulated), 'none');
    simulated.host.faults.add({ ioctl: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', errno: 'EIO' });
    expect(vm.attach(a, parent)).toBe('EIO');
    simulated.host.faults.add({ ioctl: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', errno: 'EIO' });
    simulated.host.faults.clear();
    expect(vm.attach(a, parent)).toBe('OK');
  });

  it('can take time, only where time can pass, and have to do something', () => {
    const { host } = machine();
    const ioctl = 'IOMMU_HWPT_ALLOC';
    expect(() => host.faults.add({ ioctl, delayMs: 5 })).toThrow(RangeError);
    expect(() => host.faults.add({ ioctl })).toThrow(RangeError);
    const other = machine({ host: { sleep: () => {} } }).host;
    expect(() => other.faults.add({ ioctl, delayMs: -1 })).toThrow(RangeError);
    expect(() => other.faults.add({ ioctl, delayMs: Number.NaN, errno: 'EIO' })).toThrow(RangeError);
  });

  it('take time before the call fails or has its effect, once each', () => {
    const slept: string[] = [];
    let now = 0;
    const simulated = machine({
      host: {
        now: () => now,
        sleep: (ms) => {
          now += ms;
          slept.push(`${ms} ms, ${simulated.host.snapshotOfObjects().length - before} new`);
        },
      },
    });
    const { vm, a, viommu } = nestedVm(simRig(simulated), 'none');
    const before = simulated.host.snapshotOfObjects().length;
    const { faults } = simulated.host;
    const ioctl = 'IOMMU_HWPT_ALLOC';
    faults.add({ ioctl, delayMs: 250 });
    faults.add({ ioctl, delayMs: 1000, errno: 'ETIMEDOUT', nth: 2 });
    expect(vm.tryNested(viommu, a.id, STE.Abort).result).toBe('OK');
    expect(vm.tryNested(viommu, a.id, STE.Abort).result).toBe('ETIMEDOUT');
    expect(vm.tryNested(viommu, a.id, STE.Abort).result).toBe('OK');
    expect(slept).toEqual(['250 ms, 0 new', '1000 ms, 1 new']);
    faults.add({ ioctl, delayMs: 1, errno: 'ENOMEM' });
    faults.add({ ioctl, delayMs: 2 });
    expect(vm.tryNested(viommu, a.id, STE.Abort).result).toBe('ENOMEM');
    expect(now).toBe(1253);
  });

  it('have to name an ioctl', () => {
    const { host } = machine();
    expect(() => host.faults.add({ ioctl: 'IOMMU_NOTHING' as 'IOMMU_DESTROY', errno: 'EIO' })).toThrow(
      RangeError,
    );
  });
});

describe('descriptors', () => {
  it('run out, and nothing is left of what did not get one', () => {
    const simulated = machine({ host: { fdLimit: 7 } });
    const { host } = simulated;
    const { vm, viommu } = nestedVm(simRig(simulated), 'none');
    expect(host.eventfd()).toBe(6);
    expect(host.eventfd()).toBe(-ERRNO.EMFILE);
    expect(host.open('/dev/iommu')).toBe(-ERRNO.EMFILE);
    expect(host.open(PATH_A)).toBe(-ERRNO.EMFILE);
    const before = host.snapshotOfObjects();
    expect(vm.result(uapi.IOMMU_VEVENTQ_ALLOC, { viommu_id: viommu, type: 9, veventq_depth: 1 })).toBe(
      'EMFILE',
    );
    expect(vm.result(uapi.IOMMU_FAULT_QUEUE_ALLOC)).toBe('EMFILE');
    expect(host.snapshotOfObjects()).toEqual(before);
  });
});

describe('callbacks', () => {
  it('are never called from inside another call', () => {
    const simulated = machine();
    const { host, run } = simulated;
    const { vm, a, queue } = nestedVm(simRig(simulated));
    let calls = 0;
    host.onReadable(queue.fd, () => {
      calls += 1;
      host.read(queue.fd, new Uint8Array(4096));
    });
    simulated.a.dmaWrite32(0x1000_1000n, 1);
    vm.client.ioctl(a.device.fd, vfio.VFIO_DEVICE_GET_INFO);
    expect(calls).toBe(0);
    run();
    expect(calls).toBe(1);
    run();
    expect(calls).toBe(1);
  });

  it('end with a stop, even if one is already posted, and with the close', () => {
    const simulated = machine();
    const { host, run } = simulated;
    const { queue } = nestedVm(simRig(simulated));
    let calls = 0;
    const watch = host.onReadable(queue.fd, () => void (calls += 1));
    simulated.a.dmaWrite32(0x1000_1000n, 1);
    watch.stop();
    watch.stop();
    run();
    host.onReadable(queue.fd, () => void (calls += 1));
    host.close(queue.fd);
    run();
    expect(calls).toBe(0);
    host.onReadable(99, () => void (calls += 1)).stop();
  });

  it('come at once for what is already there', () => {
    const simulated = machine();
    const { host, run } = simulated;
    const { queue } = nestedVm(simRig(simulated));
    simulated.a.dmaWrite32(0x1000_1000n, 1);
    let calls = 0;
    host.onReadable(queue.fd, () => {
      calls += 1;
      host.read(queue.fd, new Uint8Array(40));
    });
    run();
    expect(calls).toBe(1);
  });
});

describe('an ioctl’s structure', () => {
  it('that ends before its size says is a bad pointer', () => {
    const { host } = machine();
    const fd = host.open('/dev/iommu');
    const { request } = uapi.IOMMU_IOAS_ALLOC;
    const bytes = uapi.IOMMU_IOAS_ALLOC.encode();
    expect(host.ioctl(fd, request, bytes.subarray(0, 3))).toBe(ERRNO.EFAULT);
    new DataView(bytes.buffer).setUint32(0, 64, true);
    expect(host.ioctl(fd, request, bytes)).toBe(ERRNO.EFAULT);
    expect(host.snapshotOfObjects()).toEqual([]);
  });
});

describe('sequence numbers', () => {
  it('wrap from 2^31 - 1 to 0', () => {
    const simulated = machine();
    const { vm, a, queue } = nestedVm(simRig(simulated));
    simulated.host.setNextEventSequence(queue.fd, 0x7fff_fffe);
    for (let i = 0; i < 3; i++) vm.dma(a, 0x1000_1000n);
    expect(vm.events(queue.fd).map(({ sequence }) => sequence)).toEqual([0x7fff_fffe, 0x7fff_ffff, 0]);
  });
});

describe('guest memory', () => {
  it('is pinned only while there is a domain to show it in', () => {
    const simulated = machine();
    const vm = new Vm(simRig(simulated));
    const [a, ioas] = [vm.bind(), vm.ioas()];
    vm.map(ioas);
    expect(simulated.host.physicalAddress(vm.guest.ram)).toBeUndefined();
    const [one, other] = [vm.hwpt(a.id, ioas, 1), vm.hwpt(a.id, ioas)];
    expect(simulated.host.physicalAddress(vm.guest.ram)).toBeDefined();
    vm.destroy(one);
    expect(simulated.host.physicalAddress(vm.guest.ram)).toBeDefined();
    vm.destroy(other);
    expect(simulated.host.physicalAddress(vm.guest.ram)).toBeUndefined();
  });

  it('and the kernel’s own do not grow with page tables that come and go', () => {
    const simulated = machine();
    const { vm, a, ioas, viommu } = nestedVm(simRig(simulated), 'none');
    const cycle = (): void => {
      for (const flags of [0, 1]) {
        const hwpt = vm.hwpt(a.id, ioas, flags);
        vm.attach(a, hwpt);
        vm.detach(a);
        vm.destroy(hwpt);
      }
      vm.destroy(vm.nested(viommu, a.id, STE.S1));
    };
    cycle();
    const regions = simulated.host.physicalMemory.regions().length;
    for (let i = 0; i < 200; i++) cycle();
    expect(simulated.host.physicalMemory.regions().length).toBe(regions);
  });

  it('has a physical address that is neither its IPA nor its user address, while it is pinned', () => {
    const simulated = machine();
    const { host } = simulated;
    const { vm, ioas } = nestedVm(simRig(simulated), 'none');
    const physical = host.physicalAddress(vm.guest.ram)!;
    expect(physical).not.toBe(BigInt(GUEST.Cd));
    const word = new Uint8Array(8);
    host.physicalMemory.readBytes(Number(physical >> 32n), Number(physical & 0xffff_ffffn), word);
    expect(word).toEqual(vm.guest.ram.subarray(0, 8));
    vm.unmap(ioas, 0n, 0xffff_ffff_ffff_ffffn);
    expect(host.physicalAddress(vm.guest.ram)).toBeUndefined();
  });
});
