/** Whatever comes through the port: an errno, never an exception, and the host goes on. */

import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IOMMU_IOAS_MAP, IOMMUFD_IOCTLS } from '../../../src/iommufd/uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../../../src/iommufd/uapi/vfio.ts';
import { OUTCOME } from '../../../src/smmu/transaction.ts';
import { GUEST } from '../../contract/guest.ts';
import { nestedVm } from '../../contract/vm.ts';
import { machine, simRig } from './machine.ts';

const RUNS = 100;
const CALLS = 100;

/** Numbers that hide at edges. */
const word = fc.oneof(
  { weight: 4, arbitrary: fc.nat({ max: 12 }) },
  fc.constantFrom(0xffff_ffff, 0x7fff_ffff, 0x8000_0000, 4096, 40, 0x1234),
  fc.integer({ min: 0, max: 0xffff_ffff }),
);
const call = fc.record({
  request: fc.constantFrom(...[...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].map((ioctl) => ioctl.request)),
  fd: fc.oneof({ weight: 6, arbitrary: fc.integer({ min: 3, max: 6 }) }, fc.constantFrom(-1, 0, 99, 2 ** 31)),
  length: fc.oneof({ weight: 6, arbitrary: fc.constant(48) }, fc.nat({ max: 64 })),
  size: fc.oneof({ weight: 8, arbitrary: fc.constant(-1) }, word),
  words: fc.array(word, { minLength: 15, maxLength: 15 }),
  /** Which word pair becomes a good pointer. */
  pointer: fc.nat({ max: 7 }),
});

describe('ten thousand calls of any kind', () => {
  it('are answered with an errno each', () => {
    fc.assert(
      fc.property(fc.array(call, { minLength: CALLS, maxLength: CALLS }), (calls) => {
        const simulated = machine();
        const { host } = simulated;
        const { vm } = nestedVm(simRig(simulated));
        const user = host.userMemory(Uint8Array.from({ length: 4096 }, (_, i) => i));
        for (const { request, fd, length, size, words, pointer } of calls) {
          const bytes = new Uint8Array(length);
          const view = new DataView(bytes.buffer);
          const exact = [...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].find((ioctl) => ioctl.request === request)!.size;
          const all = [size < 0 ? exact : size, ...words];
          for (let i = 0; i * 4 + 4 <= length; i++) view.setUint32(i * 4, all[i], true);
          if (pointer > 0 && pointer * 8 + 8 <= length) view.setBigUint64(pointer * 8, user.address, true);
          const errno = host.ioctl(fd, request, bytes);
          expect(Number.isInteger(errno) && errno >= 0 && errno < 4096).toBe(true);
          host.read(fd, new Uint8Array(words[0] % 4096));
          host.pread(fd, new Uint8Array(words[1] % 64), words[2] * words[3]);
          simulated.a.dmaWrite32(BigInt(words[4]) << 12n, 1);
          simulated.run();
        }
        for (let fd = 3; fd < 64; fd++) host.close(fd);
        expect(host.snapshotOfObjects()).toEqual([]);
        expect(host.physicalAddress(vm.guest.ram)).toBeUndefined();
        // And the machine still works.
        const again = nestedVm(simRig(simulated));
        expect(again.vm.dmaLands(again.a, 0x1000_0000n)).toBe('D0');
      }),
      { numRuns: RUNS },
    );
  });
});

describe('a guest’s tables full of anything', () => {
  const anything = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
  /** A descriptor that points somewhere near the guest's memory: inside, behind its end, at the neighbour's. */
  const near = fc
    .record({ page: fc.nat({ max: 0x800 }), low: fc.nat({ max: 0xfff }) })
    .map(({ page, low }) => 0x4000_0000n + (BigInt(page) << 12n) + BigInt(low));
  /** One that leads on: to the tables themselves, valid, accessed and open to unprivileged writes. */
  const own = fc.constantFrom(GUEST.Level2, GUEST.Level3).map((table) => BigInt(table) + 0x443n);
  const descriptors = fc.array(fc.oneof(anything, near, own), { minLength: 64, maxLength: 64 });

  it('stay inside the guest’s memory', () => {
    let landed = 0;
    fc.assert(
      fc.property(descriptors, fc.boolean(), (words, alsoCd) => {
        const simulated = machine();
        const { vm, viommu } = nestedVm(simRig(simulated));
        // Pinned right behind the guest's memory, and mapped for nobody's devices.
        const neighbour = simulated.host.userMemory(new Uint8Array(0x20_0000).fill(0x55));
        const other = vm.ioas();
        vm.hwpt(1, other);
        vm.must(IOMMU_IOAS_MAP, {
          flags: 7,
          ioas_id: other,
          user_va: neighbour.address,
          length: 0x20_0000n,
          iova: 0x4040_0000n,
        });
        for (const table of [GUEST.Level1, GUEST.Level2, GUEST.Level3])
          for (const [i, value] of words.entries()) vm.guest.store(table + i * 8, value);
        if (alsoCd) for (let i = 0; i < 4; i++) vm.guest.store(GUEST.Cd + i * 8, words[i]);
        expect(
          vm.invalidate(viommu, [
            [0x30n, 0n],
            [(0x1234n << 32n) | 6n, 0n],
          ]).result,
        ).toBe('OK');
        for (let i = 0; i < 64; i++)
          if (simulated.a.dmaWrite32(BigInt(i * 0x20_1000), 0xaaaa_aaaa) === OUTCOME.Ok) landed += 1;
        expect(neighbour.bytes.every((byte) => byte === 0x55)).toBe(true);
      }),
      { numRuns: 50 },
    );
    expect(landed).toBeGreaterThan(0);
  });
});
