import { describe, expect, it } from 'vitest';
import { HostError } from '../../src/iommufd/errors.ts';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import { Bench, GUEST_IDS } from '../support/accelerated.ts';
import { ABORT_STE, BYPASS_STE, s1Ste } from '../support/scripted-guest.ts';

const ATTACH = 'VFIO_DEVICE_ATTACH_IOMMUFD_PT';

describe('the vEVENTQ', () => {
  it('device first, then EVENTQEN', () => {
    const bench = new Bench();
    bench.plug();
    expect(bench.accelerator.state.veventq).toBeUndefined();
    expect(bench.accelerator.state.queue).toEqual({
      change: 'absent',
      why: 'Not allocated: a vIOMMU exists, but EVENTQEN=0.',
    });
    bench.takeIoctls();
    bench.guest.setEventqen(true);
    expect(bench.takeIoctls()).toEqual(['IOMMU_VEVENTQ_ALLOC']);
    expect(bench.reports.at(-1)).toMatchObject({ cause: 'EVENTQEN 0 -> 1', queue: { change: 'allocated' } });
    bench.expectSettled(1);
  });
  it('EVENTQEN first, then the device', () => {
    const bench = new Bench();
    bench.guest.setEventqen(true);
    expect(bench.accelerator.state.queue.why).toBe(
      'Not allocated: EVENTQEN=1, but no device is plugged, so there is no vIOMMU.',
    );
    bench.plug();
    expect(bench.accelerator.state.veventq).toMatchObject({ depth: 128 });
    expect(bench.accelerator.state.queue.why).toBe(
      "Allocated: EVENTQEN=1 and a vIOMMU exists; depth 128 for the guest's queue of 2^7 records.",
    );
    bench.expectSettled(1);
  });
  it('gap 2: goes with EVENTQEN, so nothing is read for a guest that does not listen', () => {
    const bench = new Bench();
    bench.plug();
    bench.guest.setEventqen(true);
    bench.takeIoctls();
    bench.guest.setEventqen(false);
    expect(bench.takeIoctls()).toEqual(['IOMMU_DESTROY']);
    expect(bench.accelerator.state.queue).toEqual({
      change: 'closed',
      why: 'Closed: a vIOMMU exists, but EVENTQEN=0.',
    });
    bench.expectSettled(1);
  });
  it('goes with the last device', () => {
    const bench = new Bench();
    bench.guest.setEventqen(true);
    bench.plug(0);
    bench.plug(1);
    const { veventq } = bench.accelerator.state;
    bench.unplug(0);
    expect(bench.accelerator.state.veventq).toEqual(veventq);
    bench.unplug(1);
    expect(bench.accelerator.state.queue.change).toBe('closed');
    bench.expectSettled(0);
  });
  it('gap 1: is another one, of another depth, for a queue that was resized', () => {
    const bench = new Bench();
    bench.plug();
    bench.guest.setEventqBase(0x4000_0000, 2);
    bench.guest.setEventqen(true);
    expect(bench.accelerator.state.veventq?.depth).toBe(4);
    bench.guest.setEventqen(false);
    bench.guest.setEventqBase(0x4000_0000, 17);
    bench.guest.setEventqen(true);
    expect(bench.accelerator.state.veventq?.depth).toBe(131_072);
    bench.expectSettled(1);
  });
  it('gap 1: is another one even if the steps in between went by unseen', () => {
    const bench = new Bench();
    bench.plug();
    bench.guest.setEventqen(true);
    bench.takeIoctls();
    bench.guest.registers[0xa0 >>> 2] = 0x4000_1000;
    bench.guest.consMoved();
    expect(bench.takeIoctls()).toEqual(['IOMMU_DESTROY', 'IOMMU_VEVENTQ_ALLOC']);
    bench.guest.registers[0xa4 >>> 2] = 1;
    bench.guest.consMoved();
    expect(bench.takeIoctls()).toEqual(['IOMMU_DESTROY', 'IOMMU_VEVENTQ_ALLOC']);
    bench.guest.eventqLog2Size = 3;
    bench.guest.consMoved();
    expect(bench.takeIoctls()).toEqual(['IOMMU_DESTROY', 'IOMMU_VEVENTQ_ALLOC']);
    expect(bench.accelerator.state.queue.change).toBe('reallocated');
    bench.expectSettled(1);
  });
  it('gap 3: that could not be allocated is tried again at the next occasion', () => {
    const bench = new Bench();
    bench.plug();
    bench.host.failing = (name) => (name === 'IOMMU_VEVENTQ_ALLOC' ? ERRNO.ENOMEM : 0);
    bench.guest.setEventqen(true);
    expect(bench.accelerator.state.queue).toEqual({
      change: 'refused',
      why: 'Not allocated, although EVENTQEN=1 and a vIOMMU exists: IOMMU_VEVENTQ_ALLOC failed (ENOMEM): the host has no memory left.',
    });
    bench.host.failing = () => 0;
    bench.guest.consMoved();
    expect(bench.accelerator.state.veventq).toBeDefined();
    bench.expectSettled(1);
  });
  it('that is gone already is as good as destroyed', () => {
    const bench = new Bench();
    bench.plug();
    bench.guest.setEventqen(true);
    bench.host.failing = (name) => (name === 'IOMMU_DESTROY' ? ERRNO.ENOENT : 0);
    bench.guest.setEventqen(false);
    expect(bench.accelerator.state.failures.size).toBe(0);
  });
  it('that could not be destroyed does not count as one, and is destroyed later', () => {
    const bench = new Bench();
    bench.plug();
    bench.guest.setEventqen(true);
    bench.host.failing = (name) => (name === 'IOMMU_DESTROY' ? ERRNO.EBUSY : 0);
    bench.guest.setEventqen(false);
    expect(bench.accelerator.state.veventq).toBeUndefined();
    bench.guest.setEventqen(true);
    expect(bench.accelerator.state.queue.change).toBe('refused');
    bench.host.failing = () => 0;
    bench.accelerator.retry();
    expect(bench.accelerator.state.veventq).toBeDefined();
    bench.expectSettled(1);
    expect(bench.host.objects).toMatchObject({ veventq: 1 });
  });
});

describe('plugging', () => {
  it('the first device makes what is needed, in a legal order, and nothing twice', () => {
    const bench = new Bench();
    bench.guest.setEventqen(true);
    bench.plug();
    expect(bench.takeIoctls()).toEqual([
      'VFIO_DEVICE_BIND_IOMMUFD',
      'IOMMU_GET_HW_INFO',
      'IOMMU_IOAS_ALLOC',
      'IOMMU_IOAS_MAP',
      'IOMMU_HWPT_ALLOC',
      'IOMMU_VIOMMU_ALLOC',
      'IOMMU_HWPT_ALLOC',
      'IOMMU_VDEVICE_ALLOC',
      'IOMMU_VEVENTQ_ALLOC',
      'IOMMU_HWPT_ALLOC',
      ATTACH,
      'IOMMU_HWPT_INVALIDATE',
    ]);
    // Nothing of a VMID's or StreamID's last user is left: all of the vIOMMU, and the CDs of the stream.
    expect(bench.host.invalidated).toEqual(['30', '6:8']);
    expect(bench.host.device(0).noted).toBe(8);
    bench.expectSettled(1);
  });
  it('gap 20: a second device goes where the guest says, from its first access', () => {
    const bench = new Bench();
    bench.plug(0);
    bench.guest.setGbpa(true);
    bench.takeIoctls();
    bench.plug(1);
    expect(bench.takeIoctls()).toEqual([
      'VFIO_DEVICE_BIND_IOMMUFD',
      'IOMMU_GET_HW_INFO',
      'IOMMU_VDEVICE_ALLOC',
      ATTACH,
      'IOMMU_HWPT_INVALIDATE',
    ]);
    expect(bench.host.device(1).history).toEqual(['abort']);
    expect(bench.host.device(1).noted).toBe(9);
    bench.expectSettled(2);
  });
  it.each([
    ['translate', s1Ste(0x5000), 'translate 5000'],
    ['bypass (RMR)', BYPASS_STE, 'bypass'],
    ['abort', ABORT_STE, 'abort'],
    ['nothing', 2, 'abort'],
  ])('gap 20: with SMMUEN=1 the STE that is there already counts: %s', (_what, ste, attached) => {
    const bench = new Bench();
    bench.guest.stes.set(8, ste);
    bench.guest.setSmmuen(true);
    bench.plug();
    expect(bench.host.device(0).history).toEqual([attached]);
    bench.expectSettled(1);
  });
  it('gap 22: behind another physical SMMU is refused at once, and leaves nothing', () => {
    const bench = new Bench();
    bench.plug(0);
    const before = bench.host.objects;
    let error: unknown;
    try {
      bench.plug(2);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(HostError);
    expect(error).toMatchObject({
      code: 'EINVAL',
      message: expect.stringContaining('behind another physical SMMU') as unknown,
      hint: expect.stringContaining('a virtual SMMU of its own') as unknown,
    });
    expect(bench.host.objects).toEqual(before);
    expect(bench.accelerator.state.devices.map(({ name }) => name)).toEqual(['d0']);
    bench.expectSettled(1);
  });
  it('gap 22: also while the device has no StreamID', () => {
    const bench = new Bench();
    bench.plug(0);
    expect(() => bench.accelerator.plug({ name: 'd2', path: '/dev/vfio/devices/vfio2' })).toThrow(
      'another physical SMMU',
    );
    bench.expectSettled(1);
  });
  it('gap 30: a device whose SMMU can do less than the guest was told is refused with every difference', () => {
    const bench = new Bench({ ids: { ...GUEST_IDS, IDR3: 0x1404 } });
    bench.host.info[3] = 0x1004;
    bench.host.info[5] = 0x72;
    expect(() => bench.plug()).toThrow(/IDR3.RIL=1 must be 0.*IDR5.OAS=4 \(44 bits\) must be 2 \(40 bits\)/);
    expect(bench.host.objects).toEqual({});
  });
  it('the same name twice is our own mistake', () => {
    const bench = new Bench();
    bench.plug();
    expect(() => bench.plug()).toThrow('plugged already');
  });
  it('a device of another vSMMU of the same machine shares RAM, and nothing else', () => {
    const bench = new Bench();
    const other = new Bench({ beside: bench });
    bench.plug(0);
    other.plug(2);
    expect(bench.host.objects).toMatchObject({ ioas: 1, parent: 2, viommu: 2 });
    bench.unplug(0);
    expect(bench.host.objects).toMatchObject({ ioas: 1, parent: 1, viommu: 1 });
    other.expectSettled(1);
    other.unplug(2);
    expect(bench.host.objects).toEqual({});
  });
});

describe('unplugging', () => {
  it('takes everything down from the leaves inwards', () => {
    const bench = new Bench();
    bench.guest.setEventqen(true);
    bench.guest.stes.set(8, s1Ste(0x5000));
    bench.guest.setSmmuen(true);
    bench.plug();
    bench.host.takeCalls();
    bench.unplug();
    expect(bench.host.takeCalls()).toEqual([
      'close',
      'IOMMU_DESTROY',
      'VFIO_DEVICE_DETACH_IOMMUFD_PT',
      'IOMMU_DESTROY',
      'close',
      ...new Array<string>(5).fill('IOMMU_DESTROY'),
      'close',
    ]);
    bench.expectSettled(0);
  });
  it('of what is not there does nothing', () => {
    const bench = new Bench();
    bench.unplug(3);
    expect(bench.host.takeCalls()).toEqual([]);
  });
  it('and plugging again works any number of times', () => {
    const bench = new Bench();
    bench.guest.setEventqen(true);
    for (let i = 0; i < 5; i++) {
      bench.plug();
      bench.expectSettled(1);
      bench.unplug();
      bench.expectSettled(0);
    }
  });
});

describe('streams', () => {
  /** Two devices, SMMUEN=1. */
  function translating(ste: readonly number[] | number = s1Ste(0x5000)): Bench {
    const bench = new Bench();
    bench.guest.stes.set(8, ste);
    bench.guest.setSmmuen(true);
    bench.plug();
    bench.host.takeCalls();
    bench.host.device(0).history.length = 0;
    return bench;
  }

  it('gap 18: SMMUEN takes every stream from GBPA to its STE and back, without any CFGI_STE', () => {
    const bench = new Bench();
    bench.plug(0);
    bench.plug(1);
    bench.guest.stes.set(8, ABORT_STE).set(9, s1Ste(0x5000));
    bench.guest.setSmmuen(true);
    expect([bench.host.attached(0), bench.host.attached(1)]).toEqual(['abort', 'translate 5000']);
    bench.guest.setSmmuen(false);
    expect([bench.host.attached(0), bench.host.attached(1)]).toEqual(['bypass', 'bypass']);
    bench.expectSettled(2);
  });
  it('gap 19: GBPA does not touch a stream while SMMUEN=1', () => {
    const bench = translating();
    bench.guest.setGbpa(true);
    bench.guest.cfgiAll();
    expect(bench.host.takeCalls()).toEqual([]);
    bench.guest.setSmmuen(false);
    expect(bench.host.attached(0)).toBe('abort');
    bench.guest.setGbpa(false);
    expect(bench.host.attached(0)).toBe('bypass');
  });
  it('gap 25: an STE that did not change costs nothing', () => {
    const bench = translating();
    bench.guest.setSte(8, s1Ste(0x5000));
    // SHCFG, which Linux sets for S1DSS=bypass, is not for the kernel.
    bench.guest.setSte(8, [...s1Ste(0x5000).slice(0, 3), 1 << 12]);
    expect(bench.host.takeCalls()).toEqual([]);
  });
  it('one translation for another is one replace, with no abort in between', () => {
    const bench = translating();
    bench.guest.setSte(8, s1Ste(0x9000));
    expect(bench.host.takeCalls()).toEqual(['IOMMU_HWPT_ALLOC', ATTACH, 'IOMMU_DESTROY']);
    expect(bench.host.device(0).history).toEqual(['translate 9000']);
    bench.expectSettled(1);
  });
  it('abort, bypass and translate in every order', () => {
    const bench = translating();
    const stes = [ABORT_STE, BYPASS_STE, s1Ste(0x5000), s1Ste(0x9000), 4];
    const names = ['abort', 'bypass', 'translate 5000', 'translate 9000', 'abort'];
    for (const from of stes.keys())
      for (const to of stes.keys()) {
        bench.guest.setSte(8, stes[from]);
        bench.guest.setSte(8, stes[to]);
        expect(bench.host.attached(0)).toBe(names[to]);
        bench.expectSettled(1);
      }
  });
  it('two devices with the same STE share a table, and each keeps its StreamID', () => {
    const bench = translating();
    bench.guest.stes.set(9, s1Ste(0x5000));
    bench.plug(1);
    expect(bench.host.objects).toMatchObject({ nested: 2 });
    expect([bench.host.device(0).noted, bench.host.device(1).noted]).toEqual([8, 9]);
    bench.guest.setSte(8, ABORT_STE);
    expect(bench.host.attached(1)).toBe('translate 5000');
    bench.expectSettled(2);
  });
  it('gap 21: an STE that cannot be read aborts, and the state says which event the guest would see', () => {
    const bench = translating();
    bench.guest.setSte(8, 3);
    expect(bench.host.attached(0)).toBe('abort');
    expect(bench.accelerator.state.devices).toMatchObject([
      { attached: 'abort', event: 3, reported: false, why: 'no valid STE' },
    ]);
  });
  it('an STE is taken as it was at the last CFGI, whatever else makes us look', () => {
    const bench = translating();
    bench.guest.stes.set(8, s1Ste(0x9000));
    bench.guest.setEventqen(true);
    expect(bench.host.attached(0)).toBe('translate 5000');
    bench.guest.cfgiAll();
    expect(bench.host.attached(0)).toBe('translate 9000');
  });
  it('an STE that could not be read is read again, whatever makes us look', () => {
    const bench = translating(2);
    bench.guest.stes.set(8, s1Ste(0x9000));
    bench.guest.setEventqen(true);
    expect(bench.host.attached(0)).toBe('translate 9000');
  });
  it('a CFGI_STE for a StreamID without a device costs nothing', () => {
    const bench = translating();
    const reports = bench.reports.length;
    bench.guest.setSte(99, BYPASS_STE);
    expect(bench.host.takeCalls()).toEqual([]);
    expect(bench.reports).toHaveLength(reports);
  });

  describe('gap 23: another StreamID', () => {
    it('leaves the translation, makes a new vDEVICE, flushes, and attaches anew', () => {
      const bench = translating();
      bench.guest.stes.set(16, s1Ste(0x5000));
      bench.accelerator.setSid('d0', 16);
      expect(bench.host.takeCalls()).toEqual([
        ATTACH,
        'IOMMU_DESTROY',
        'IOMMU_VDEVICE_ALLOC',
        'IOMMU_HWPT_INVALIDATE',
        ATTACH,
      ]);
      expect(bench.host.device(0).history).toEqual(['abort', 'translate 5000']);
      expect(bench.host.device(0).noted).toBe(16);
      bench.expectSettled(1);
    });
    it('is noted by the kernel also for a bypass, although that is the same table', () => {
      const bench = new Bench();
      bench.plug();
      bench.accelerator.setSid('d0', 16);
      expect(bench.host.attached(0)).toBe('bypass');
      expect(bench.host.device(0).noted).toBe(16);
      bench.expectSettled(1);
    });
    it('of two devices may be swapped', () => {
      const bench = translating();
      bench.guest.stes.set(9, s1Ste(0x9000));
      bench.plug(1);
      bench.accelerator.setSid('d1', undefined);
      bench.accelerator.setSid('d0', 9);
      bench.accelerator.setSid('d1', 8);
      expect([bench.host.device(0).noted, bench.host.device(1).noted]).toEqual([9, 8]);
      expect([bench.host.attached(0), bench.host.attached(1)]).toEqual(['translate 9000', 'translate 5000']);
      bench.expectSettled(2);
    });
    it('that another device has is not taken from it', () => {
      const bench = translating();
      bench.guest.stes.set(9, s1Ste(0x9000));
      bench.plug(1);
      bench.accelerator.setSid('d1', 8);
      expect([bench.host.attached(0), bench.host.attached(1)]).toEqual(['translate 5000', 'abort']);
      bench.unplug(0);
      expect(bench.host.attached(1)).toBe('translate 5000');
      bench.expectSettled(1);
    });
  });

  it('gap 26: a reset leaves no translation, no table and nothing in the caches', () => {
    const bench = translating();
    bench.guest.setEventqen(true);
    bench.host.invalidated.length = 0;
    bench.guest.reset();
    bench.accelerator.reset();
    expect(bench.host.attached(0)).toBe('bypass');
    expect(bench.host.objects).toMatchObject({ nested: 2, vdevice: 1 });
    expect(bench.host.objects).not.toHaveProperty('veventq');
    expect(bench.host.invalidated).toEqual(['30', '6:8']);
    bench.expectSettled(1);
  });
  it('gap 17: hardware that may forget an invalidation gets each flush twice', () => {
    const bench = new Bench();
    bench.host.infoFlags = 1;
    bench.plug();
    expect(bench.host.invalidated).toEqual(['30', '6:8', '30', '6:8']);
  });
});

describe('guest RAM', () => {
  it('in the MSI window is refused', () => {
    const { space } = new Bench();
    for (const [gpa, size] of [
      [0x0800_0000, 0x1000],
      [0x080f_f000, 0x1000],
      [0x07ff_f000, 0x2000],
      [0x0700_0000, 0x200_0000],
    ] as const)
      expect(() => space.addRam(gpa, new Uint8Array(size))).toThrow('interrupt doorbells');
    space.addRam(0x0810_0000, new Uint8Array(0x1000));
    expect(() => space.addRam(0x0810_0000, new Uint8Array(0x1000))).toThrow('overlaps');
  });
  it('that comes later is mapped at once, and unmapped when it goes', () => {
    const bench = new Bench();
    bench.plug();
    bench.takeIoctls();
    bench.accelerator.addRam(0x1_0000_0000, new Uint8Array(0x1000));
    expect(bench.takeIoctls()).toEqual(['IOMMU_IOAS_MAP']);
    bench.space.removeRam(0x1_0000_0000);
    expect(bench.takeIoctls()).toEqual(['IOMMU_IOAS_UNMAP']);
    bench.expectSettled(1);
  });
  it('that cannot be mapped is not added, and may be added later', () => {
    const bench = new Bench();
    const ram = new Uint8Array(0x1000);
    bench.plug();
    bench.host.failing = (name) => (name === 'IOMMU_IOAS_MAP' ? ERRNO.ENOMEM : 0);
    expect(() => bench.accelerator.addRam(0x1_0000_0000, ram)).toThrow('pin guest RAM');
    bench.host.failing = () => 0;
    bench.takeIoctls();
    bench.accelerator.addRam(0x1_0000_0000, ram);
    expect(bench.takeIoctls()).toEqual(['IOMMU_IOAS_MAP']);
    bench.expectSettled(1);
  });
});
