/** HWPT_INVALIDATE: which commands pass, in which batches, and what is told when one does not. */

import { describe, expect, it } from 'vitest';
import { GUEST } from './guest.ts';
import { BAD_POINTER, type MakeRig } from './rig.ts';
import { nestedVm, type Vm, type Endpoint } from './vm.ts';

const ASID = 5n << 48n;
/** Invalidates one page of the guest's. */
const tlbi = (iova: number): readonly [bigint, bigint] => [ASID | 0x12n, BigInt(iova) | 1n];
/** CFGI_STE is never allowed. */
const ILLEGAL = [0x1234_0000_0003n, 1n] as const;
/** First of the pages that the cases map. */
const FIRST = 0x1001_0000;
const page = (n: number): number => FIRST + n * 0x1000;

/** Maps `count` pages to D0, has the SMMU cache them all, and then points them at D1 behind its back. */
function staleTranslations(vm: Vm, a: Endpoint, count: number): void {
  for (let n = 0; n < count; n++) vm.guest.map(page(n), BigInt(GUEST.D0));
  for (let n = 0; n < count; n++) expect(vm.dmaLands(a, BigInt(page(n)))).toBe('D0');
  for (let n = 0; n < count; n++) vm.guest.map(page(n), BigInt(GUEST.D1));
}

const landings = (vm: Vm, a: Endpoint, pages: readonly number[]): string[] =>
  pages.map((n) => vm.dmaLands(a, BigInt(page(n))));

export function invalidateContract(makeRig: MakeRig): void {
  describe('HWPT_INVALIDATE', () => {
    it.each([
      ['no entries', { entry_num: 0 }, 'EINVAL'],
      ['no entries of an unknown type', { entry_num: 0, data_type: 9 }, 'EINVAL'],
      ['type VT-d', { data_type: 0 }, 'EINVAL'],
      ['no data', { data_uptr: 0n }, 'EINVAL'],
      ['a bad pointer', { data_uptr: BAD_POINTER }, 'EFAULT'],
      ['entries of no bytes', { entry_len: 0 }, 'EINVAL'],
      ['entries of more than a page', { entry_len: 4097 }, 'EINVAL'],
      ['too many entries', { entry_num: 2 ** 19 + 1 }, 'EINVAL'],
      ['more entries than the caller has', { entry_num: 2 ** 18 }, 'EFAULT'],
      ['reserved', { __reserved: 1 }, 'EOPNOTSUPP'],
      ['no such object', { hwpt_id: 99 }, 'ENOENT'],
    ])('refuses %s, and counts nothing as done', (_, values, result) => {
      const { vm, viommu } = nestedVm(makeRig());
      expect(vm.invalidate(viommu, [[0x30n, 0n]], values)).toEqual({ result, done: 0 });
    });

    it('refuses more entries than the kernel has memory for in one piece, and counts them all as done', () => {
      const { vm, viommu } = nestedVm(makeRig());
      for (const entry_num of [2 ** 18 + 1, 2 ** 19])
        expect(vm.invalidate(viommu, [[0x30n, 0n]], { entry_num })).toEqual({
          result: 'ENOMEM',
          done: entry_num,
        });
    });

    it('works on vIOMMUs only', () => {
      const { vm, a, s1, parent, ioas } = nestedVm(makeRig());
      expect(vm.invalidate(s1, [[0x30n, 0n]]).result).toBe('EOPNOTSUPP');
      for (const id of [parent, ioas, a.id]) expect(vm.invalidate(id, [[0x30n, 0n]]).result).toBe('EINVAL');
    });

    it.each([
      ['CFGI_CD of an unknown vSID', [(0x9999n << 32n) | 5n, 1n]],
      ['CFGI_CD_ALL of an unknown vSID', [(0x9999n << 32n) | 6n, 0n]],
      ['CFGI_CD with SSV', [(0x1234n << 32n) | (1n << 11n) | 5n, 1n]],
      ['CFGI_CD_ALL with Leaf', [(0x1234n << 32n) | 6n, 1n]],
      ['TLBI_NH_ALL with an ASID', [(1n << 48n) | 0x10n, 0n]],
      ['TLBI_NH_ASID with an address', [ASID | 0x11n, 0x1000n]],
      ['TLBI_NH_VA with address bit 11 of no field', [ASID | 0x12n, 0x20n]],
      ['TLBI_NH_VAA with an ASID', [ASID | 0x13n, 0x1000n]],
      ['TLBI_NH_VA with NUM and no TG', [ASID | (1n << 12n) | 0x12n, 0x1000n]],
      ['TLBI_NH_VA with TTL and no TG', [ASID | 0x12n, 0x1000n | (3n << 8n)]],
      ['TLBI_NH_VA with TG and nothing else', [ASID | 0x12n, 0x1000n | (1n << 10n)]],
      ['TLBI_NH_VA with TG=16K and TTL=1', [ASID | 0x12n, 0x1000n | (2n << 10n) | (1n << 8n)]],
      ['TLBI_NH_VA with SCALE[5]', [ASID | (1n << 25n) | 0x12n, 0x1000n | (1n << 10n)]],
      ['TLBI_NSNH_ALL with a VMID', [(1n << 32n) | 0x30n, 0n]],
      ['CMD_SYNC', [0x46n, 0n]],
      ['CFGI_STE', ILLEGAL],
      ['CFGI_ALL', [4n, 31n]],
      ['PREFETCH_CONFIG', [1n, 0n]],
      ['TLBI_EL2_ALL', [0x20n, 0n]],
      ['TLBI_S12_VMALL', [0x28n, 0n]],
      ['TLBI_S2_IPA', [0x2an, 0n]],
      ['RESUME', [0x44n, 0n]],
      ['PRI_RESP', [0x41n, 0n]],
      ['no command at all', [0n, 0n]],
    ] as [string, [bigint, bigint]][])('refuses %s', (_, command) => {
      const { vm, viommu } = nestedVm(makeRig());
      expect(vm.invalidate(viommu, [command])).toEqual({ result: 'EIO', done: 0 });
    });

    it('makes an unmap of the guest’s effective, and not before', () => {
      const { vm, a, viommu } = nestedVm(makeRig());
      staleTranslations(vm, a, 2);
      expect(landings(vm, a, [0, 1])).toEqual(['D0', 'D0']);
      expect(vm.invalidate(viommu, [tlbi(page(1))])).toEqual({ result: 'OK', done: 1 });
      expect(landings(vm, a, [0, 1])).toEqual(['D0', 'D1']);
    });

    it('ignores the VMID that the guest gives', () => {
      const { vm, a, viommu } = nestedVm(makeRig());
      staleTranslations(vm, a, 1);
      expect(vm.invalidate(viommu, [[(0xbeefn << 32n) | 0x10n, 0n]]).result).toBe('OK');
      expect(landings(vm, a, [0])).toEqual(['D1']);
    });

    it.each([
      ['NH_ALL', [0x10n, 0n]],
      ['NSNH_ALL', [0x30n, 0n]],
      ['NH_ASID', [ASID | 0x11n, 0n]],
      ['NH_VAA', [0x13n, BigInt(FIRST)]],
      ['NH_VA of a range', [ASID | (1n << 12n) | 0x12n, BigInt(FIRST) | (1n << 10n)]],
    ] as [string, [bigint, bigint]][])('carries out TLBI_%s', (_, command) => {
      const { vm, a, viommu } = nestedVm(makeRig());
      staleTranslations(vm, a, 1);
      expect(vm.invalidate(viommu, [command]).result).toBe('OK');
      expect(landings(vm, a, [0])).toEqual(['D1']);
    });

    it('does nothing of five commands if the fourth is bad, though it counts three', () => {
      const { vm, a, viommu } = nestedVm(makeRig());
      staleTranslations(vm, a, 5);
      const commands = [tlbi(page(0)), tlbi(page(1)), tlbi(page(2)), ILLEGAL, tlbi(page(4))];
      expect(vm.invalidate(viommu, commands)).toEqual({ result: 'EIO', done: 3 });
      expect(landings(vm, a, [0, 1, 2, 3, 4])).toEqual(['D0', 'D0', 'D0', 'D0', 'D0']);
    });

    it('does 63 of 70 commands if entry 65 is bad, though it counts 65', () => {
      const { vm, a, viommu } = nestedVm(makeRig());
      staleTranslations(vm, a, 70);
      const commands = Array.from({ length: 70 }, (_, n) => (n === 65 ? ILLEGAL : tlbi(page(n))));
      expect(vm.invalidate(viommu, commands)).toEqual({ result: 'EIO', done: 65 });
      expect(landings(vm, a, [0, 31, 62])).toEqual(['D1', 'D1', 'D1']);
      expect(landings(vm, a, [63, 64, 65, 69])).toEqual(['D0', 'D0', 'D0', 'D0']);
    });

    it('takes entries of up to a page, if they are zero after the command', () => {
      const { vm, a, viommu } = nestedVm(makeRig());
      staleTranslations(vm, a, 1);
      const zeros: (readonly [bigint, bigint])[] = Array.from({ length: 255 }, () => [0n, 0n]);
      const values = { entry_len: 4096, entry_num: 1 };
      expect(vm.invalidate(viommu, [[0x30n, 0n], ...zeros.with(254, [0n, 1n << 63n])], values)).toEqual({
        result: 'E2BIG',
        done: 0,
      });
      expect(vm.invalidate(viommu, [[0x30n, 0n], ...zeros], values)).toEqual({ result: 'OK', done: 1 });
      expect(landings(vm, a, [0])).toEqual(['D1']);
    });

    it('extends short entries with zeros', () => {
      const { vm, a, viommu } = nestedVm(makeRig());
      staleTranslations(vm, a, 1);
      expect(vm.invalidate(viommu, [[0x30n, 0n]], { entry_len: 1 })).toEqual({ result: 'OK', done: 1 });
      expect(landings(vm, a, [0])).toEqual(['D1']);
    });
  });
}
