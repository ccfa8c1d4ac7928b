import { describe, expect, it } from 'vitest';
import { HostError } from '../../src/iommufd/errors.ts';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import { Bench } from '../support/accelerated.ts';
import { ABORT_STE, BYPASS_STE, s1Ste } from '../support/scripted-guest.ts';

/** A guest with two streams that translate, a device there, and EVENTQEN=1. */
function busy(): Bench {
  const bench = new Bench();
  bench.guest.stes.set(8, s1Ste(0x5000)).set(9, s1Ste(0x9000));
  bench.guest.setSmmuen(true);
  bench.guest.setEventqen(true);
  return bench;
}

/** Has each call of an action fail in turn, until the action makes no more calls. */
function failEach(
  prepare: () => Bench,
  act: (bench: Bench) => void,
  check: (bench: Bench, failed: string) => void,
): number {
  for (let nth = 1; ; nth++) {
    const bench = prepare();
    let made = 0;
    let failed: string | undefined;
    bench.host.failing = (name) => {
      if (++made !== nth) return 0;
      failed = name;
      return ERRNO.ENOMEM;
    };
    act(bench);
    if (failed === undefined) return nth - 1;
    bench.host.failing = () => 0;
    check(bench, failed);
  }
}

function plugs(bench: Bench, index: number): boolean {
  try {
    bench.plug(index);
    return true;
  } catch (error) {
    expect(error).toBeInstanceOf(HostError);
    expect(error).toMatchObject({ code: 'ENOMEM' });
    return false;
  }
}

describe('any call of a plug may fail', () => {
  it('of the first device: nothing is left behind, or it is plugged and put right by the next run', () => {
    const refused: string[] = [];
    const failures = failEach(
      busy,
      (bench) => {
        if (plugs(bench, 0)) return;
        expect(bench.host.objects).toEqual({});
        expect(bench.accelerator.state).toMatchObject({ viommu: undefined, devices: [] });
      },
      (bench, failed) => {
        if (bench.accelerator.state.devices.length === 0) {
          refused.push(failed);
          bench.plug(0);
        }
        bench.accelerator.retry();
        bench.expectSettled(1);
        expect(bench.host.attached(0)).toBe('translate 5000');
        bench.unplug(0);
        bench.expectSettled(0);
      },
    );
    expect(failures).toBe(14);
    expect(refused).toEqual([
      'open /dev/iommu',
      'open /dev/vfio/devices/vfio0',
      'VFIO_DEVICE_BIND_IOMMUFD',
      'IOMMU_GET_HW_INFO',
      'IOMMU_IOAS_ALLOC',
      'IOMMU_IOAS_MAP',
      'IOMMU_HWPT_ALLOC',
      'IOMMU_VIOMMU_ALLOC',
      'IOMMU_HWPT_ALLOC',
      'IOMMU_VDEVICE_ALLOC',
    ]);
  });
  it('of the second: the first goes on as it was', () => {
    const failures = failEach(
      () => {
        const bench = busy();
        bench.plug(0);
        bench.host.device(0).history.length = 0;
        return bench;
      },
      (bench) => {
        const before = bench.host.objects;
        if (!plugs(bench, 1)) expect(bench.host.objects).toEqual(before);
        expect(bench.host.device(0).history).toEqual([]);
      },
      (bench) => {
        if (bench.accelerator.state.devices.length === 1) bench.plug(1);
        bench.accelerator.retry();
        bench.expectSettled(2);
        expect(bench.host.attached(1)).toBe('translate 9000');
      },
    );
    expect(failures).toBe(7);
  });
});

describe('any call of a change may fail', () => {
  const changes: readonly (readonly [string, (bench: Bench) => void, string])[] = [
    ['translate to translate', (bench) => bench.guest.setSte(8, s1Ste(0xd000)), 'translate d000'],
    ['translate to bypass', (bench) => bench.guest.setSte(8, BYPASS_STE), 'bypass'],
    ['translate to abort', (bench) => bench.guest.setSte(8, ABORT_STE), 'abort'],
    ['SMMUEN to 0', (bench) => bench.guest.setSmmuen(false), 'bypass'],
    ['EVENTQEN to 0', (bench) => bench.guest.setEventqen(false), 'translate 5000'],
    [
      'another StreamID',
      (bench) => {
        bench.guest.stes.set(16, s1Ste(0x5000));
        bench.accelerator.setSid('d0', 16);
      },
      'translate 5000',
    ],
    [
      'reset',
      (bench) => {
        bench.guest.reset();
        bench.accelerator.reset();
      },
      'bypass',
    ],
  ];
  it.each(changes)(
    '%s: no more access than before or after, and right after the next run',
    (_what, act, after) => {
      const failures = failEach(
        () => {
          const bench = busy();
          bench.plug(0);
          bench.host.device(0).history.length = 0;
          return bench;
        },
        (bench) => {
          act(bench);
          // Never the S2 table itself, never somebody else's: only where it was, where it should be, or nowhere.
          for (const where of bench.host.device(0).history) expect(['none', 'abort', after]).toContain(where);
        },
        (bench, failed) => {
          const now = bench.host.attached(0);
          // Isolation first: what the guest has replaced is not in force any more, not even a translation.
          expect([after, 'abort', 'none'], failed).toContain(now);
          bench.accelerator.retry();
          bench.guest.cfgiAll();
          expect(bench.accelerator.state.failures.size).toBe(0);
          expect(bench.host.attached(0)).toBe(after);
          bench.host.complaints.length = 0;
          bench.expectSettled(1);
          bench.unplug(0);
          bench.expectSettled(0);
        },
      );
      expect(failures).toBeGreaterThan(0);
    },
  );

  it('gap 16: bypass to translate that fails leaves no bypass', () => {
    const bench = new Bench();
    bench.guest.stes.set(8, BYPASS_STE);
    bench.guest.setSmmuen(true);
    bench.plug();
    bench.host.failing = (name) => (name === 'IOMMU_HWPT_ALLOC' ? ERRNO.ENOMEM : 0);
    bench.guest.setSte(8, s1Ste(0x5000));
    expect(bench.host.attached(0)).toBe('abort');
    expect(bench.accelerator.state.devices).toMatchObject([{ attached: 'abort', wanted: 'translate' }]);
    expect(bench.accelerator.state.devices[0].failure).toMatchObject({ code: 'ENOMEM' });
    bench.host.failing = () => 0;
    bench.guest.setSte(8, s1Ste(0x5000));
    expect(bench.host.attached(0)).toBe('translate 5000');
    bench.expectSettled(1);
  });
  it.each(['IOMMU_HWPT_ALLOC', 'VFIO_DEVICE_ATTACH_IOMMUFD_PT'])(
    'gap 16: translate to translate that fails in %s does not keep the old one, whose tables may be reused',
    (call) => {
      const bench = busy();
      bench.plug();
      let failed = false;
      bench.host.failing = (name) => {
        if (failed || name !== call) return 0;
        failed = true;
        return ERRNO.ENOMEM;
      };
      bench.guest.setSte(8, s1Ste(0xd000));
      expect(failed).toBe(true);
      expect(bench.host.attached(0)).toBe('abort');
      expect(bench.accelerator.state.devices[0]).toMatchObject({
        wanted: 'translate',
        failure: { operation: call },
      });
      bench.accelerator.retry();
      expect(bench.host.attached(0)).toBe('translate d000');
      bench.expectSettled(1);
    },
  );
  it('a host that refuses even the abort table gets the device back detached', () => {
    const bench = busy();
    bench.plug();
    bench.host.failing = (name) => (name === 'VFIO_DEVICE_ATTACH_IOMMUFD_PT' ? ERRNO.EINVAL : 0);
    bench.guest.setSte(8, ABORT_STE);
    expect(bench.host.attached(0)).toBe('none');
    bench.host.failing = () => 0;
    bench.accelerator.retry();
    expect(bench.host.attached(0)).toBe('abort');
    bench.expectSettled(1);
  });
  it('a bypass needs no flush', () => {
    const bench = new Bench();
    bench.host.failing = (name) => (name === 'IOMMU_HWPT_INVALIDATE' ? ERRNO.ETIMEDOUT : 0);
    bench.plug();
    expect(bench.host.device(0).history).toEqual(['bypass']);
  });
  it('a stream does not translate over caches that could not be flushed', () => {
    const bench = busy();
    bench.host.failing = (name) => (name === 'IOMMU_HWPT_INVALIDATE' ? ERRNO.ETIMEDOUT : 0);
    bench.plug();
    expect(bench.host.attached(0)).toBe('abort');
    expect(bench.accelerator.state.failures.get('flush')).toMatchObject({ code: 'ETIMEDOUT' });
    bench.host.failing = () => 0;
    bench.accelerator.retry();
    expect(bench.host.attached(0)).toBe('translate 5000');
    bench.expectSettled(1);
  });
});

describe('what failed is tried again', () => {
  it('by the clock: one retry at a time, each with its number, until nothing fails', () => {
    const bench = busy();
    bench.plug();
    bench.host.failing = (name) => (name === 'IOMMU_HWPT_ALLOC' ? ERRNO.ENOMEM : 0);
    bench.guest.setSte(8, s1Ste(0xd000));
    bench.guest.setSte(8, s1Ste(0xe000));
    expect(bench.retries).toEqual([1]);
    bench.accelerator.retry();
    bench.accelerator.retry();
    expect(bench.retries).toEqual([1, 2, 3]);
    bench.host.failing = () => 0;
    bench.accelerator.retry();
    expect(bench.host.attached(0)).toBe('translate e000');
    expect(bench.retries).toEqual([1, 2, 3]);
    bench.host.failing = (name) => (name === 'IOMMU_HWPT_ALLOC' ? ERRNO.ENOMEM : 0);
    bench.guest.setSte(8, s1Ste(0xd000));
    expect(bench.retries).toEqual([1, 2, 3, 1]);
  });
  it('but a flush that timed out not on the account of the guest, which would wait a second each time', () => {
    const bench = busy();
    bench.plug();
    bench.host.takeCalls();
    bench.host.failing = (name) => (name === 'IOMMU_HWPT_INVALIDATE' ? ERRNO.ETIMEDOUT : 0);
    bench.guest.reset();
    bench.accelerator.reset();
    const flushes = (): number =>
      bench.host.takeCalls().filter((name) => name === 'IOMMU_HWPT_INVALIDATE').length;
    expect(flushes()).toBe(1);
    bench.guest.setSmmuen(true);
    for (const pointer of [0x5000, 0x9000, 0x5000]) bench.guest.setSte(8, s1Ste(pointer));
    expect(flushes()).toBe(0);
    expect(bench.host.attached(0)).toBe('abort');
    expect(bench.accelerator.state.failures.get('flush')).toMatchObject({ code: 'ETIMEDOUT' });
    bench.accelerator.retry();
    expect(flushes()).toBe(1);
    bench.host.failing = () => 0;
    bench.accelerator.retry();
    expect(bench.host.attached(0)).toBe('translate 5000');
    bench.expectSettled(1);
  });
  it('a flush that is not due any more does not stay failed', () => {
    const bench = busy();
    bench.plug(0);
    bench.host.failing = (name) => (name === 'IOMMU_HWPT_INVALIDATE' ? ERRNO.ETIMEDOUT : 0);
    bench.plug(1);
    expect(bench.host.attached(1)).toBe('abort');
    bench.host.failing = () => 0;
    bench.unplug(1);
    bench.expectSettled(1);
  });
});

describe('any call of an unplug may fail', () => {
  it('and nothing is left on the host', () => {
    const failures = failEach(
      () => {
        const bench = busy();
        bench.plug(0);
        return bench;
      },
      (bench) => bench.unplug(0),
      (bench) => {
        expect(bench.host.objects).toEqual({});
        bench.host.complaints.length = 0;
        bench.plug(0);
        bench.expectSettled(1);
      },
    );
    expect(failures).toBe(8);
  });
  it('all of them at once, too', () => {
    const bench = busy();
    bench.plug(0);
    bench.plug(1);
    bench.host.failing = () => ERRNO.EBUSY;
    bench.unplug(0);
    bench.unplug(1);
    expect(bench.host.objects).toEqual({});
  });
  it('beside a second vSMMU they are left for its next run, or for the end', () => {
    const bench = busy();
    const other = new Bench({ beside: bench });
    bench.plug(0);
    other.plug(2);
    bench.host.failing = () => ERRNO.EBUSY;
    bench.unplug(0);
    bench.host.failing = () => 0;
    expect(bench.accelerator.state.viommu).toBeDefined();
    expect(bench.accelerator.state.failures.has('teardown')).toBe(true);
    bench.accelerator.retry();
    expect(bench.host.objects).toMatchObject({ viommu: 1, parent: 1 });
    other.unplug(2);
    expect(bench.host.objects).toEqual({});
  });
});
