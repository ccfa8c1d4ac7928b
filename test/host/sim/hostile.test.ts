/** Whatever comes through the port: an errno, never an exception, and the host goes on. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IOMMUFD_IOCTLS } from '../../../src/iommufd/uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../../../src/iommufd/uapi/vfio.ts';
import { nestedVm } from '../../contract/vm.ts';
import { machine, simRig } from './machine.ts';

const RUNS = 300;
const CALLS = 40;

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
  it('stay inside the guest’s memory', () => {
    fc.assert(
      fc.property(
        fc.array(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), { minLength: 512, maxLength: 512 }),
        (words) => {
          const simulated = machine();
          const { vm } = nestedVm(simRig(simulated));
          // Beyond what the guest has, in the same bank of physical memory.
          const neighbour = simulated.host.userMemory(new Uint8Array(0x20_0000).fill(0x55));
          const other = vm.ioas();
          vm.must(IOMMUFD_IOCTLS[5], {
            flags: 7,
            ioas_id: other,
            user_va: neighbour.address,
            length: 0x20_0000n,
            iova: 0x4000_0000n,
          });
          for (const [i, value] of words.entries())
            vm.guest.store(0x4000_0000 + (i % 64) * 8 + (i >> 6) * 0x1000, value);
          expect(
            vm.invalidate(viommu, [
              [0x30n, 0n],
              [(0x1234n << 32n) | 6n, 0n],
            ]).result,
          ).toBe('OK');
          for (let i = 0; i < 32; i++) simulated.a.dmaWrite32(words[i], 0xaaaa_aaaa);
          expect(neighbour.bytes.every((byte) => byte === 0x55)).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });
});
