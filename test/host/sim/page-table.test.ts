/** Tables that the kernel builds, seen through the SMMU: what is mapped translates, and nothing else does. */

import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PageTable } from '../../../src/host/sim/arm-smmu-v3/page-table.ts';
import { HostMemory } from '../../../src/host/sim/host-memory.ts';
import { LAB_SMMU } from '../../../src/host/sim/profiles.ts';
import * as uapi from '../../../src/iommufd/uapi/iommufd.ts';
import { IDR5 } from '../../../src/spec/registers.ts';
import { nestedVm, Vm } from '../../contract/vm.ts';
import { machine, simRig } from './machine.ts';

const PAGE = 0x1000;

/** Walks a table by hand, bit by bit, without the builder's arithmetic. @returns the output address or undefined. */
function walk(host: HostMemory, table: PageTable, iova: bigint): bigint | undefined {
  let at = BigInt(table.root);
  for (let level = table.startLevel; level <= 3; level++) {
    const shift = BigInt(12 + 9 * (3 - level));
    const index = level === table.startLevel ? iova >> shift : (iova >> shift) & 511n;
    const entry = at + index * 8n;
    host.memory.load64(Number(entry >> 32n), Number(entry & 0xffff_ffffn));
    const descriptor = (BigInt(host.memory.hi) << 32n) | BigInt(host.memory.lo);
    if ((descriptor & 1n) === 0n) return undefined;
    const address = descriptor & 0x0000_ffff_ffff_f000n;
    const isLeaf = level === 3 || (descriptor & 2n) === 0n;
    if (isLeaf) return (address & ~((1n << shift) - 1n)) | (iova & ((1n << shift) - 1n));
    at = address;
  }
  return undefined;
}

describe('a page table', () => {
  it.each([
    // Up to 16 tables of the next level stand side by side at stage 2.
    [2, 40, 1],
    [2, 42, 1],
    [2, 43, 1],
    [2, 44, 0],
    [2, 48, 0],
    [2, 34, 2],
    [2, 36, 1],
    [1, 48, 0],
    [1, 40, 0],
    [1, 39, 1],
  ] as const)('of stage %i and %i bits starts at level %i', (stage, inputBits, level) => {
    const table = new PageTable(new HostMemory(), { stage, inputBits });
    expect(table.startLevel).toBe(level);
    expect(table.root % 64).toBe(0);
  });

  it('gives all its tables back', () => {
    const host = new HostMemory();
    const first = new PageTable(host, { stage: 2, inputBits: 44 });
    for (const iova of [0, 0x4000_0000, 0x80_0000_0000])
      first.map(iova, 0x1000, PAGE, { read: true, write: true }, true);
    first.free();
    const before = host.memory.regions().length;
    // Sizes must come back as they were taken: a table of 4 KiB is not handed out as a root, nor the other way round.
    const roots = Array.from({ length: 4 }, () => host.allocate(0x100));
    const tables = Array.from({ length: 12 }, () => host.allocate(0x1000));
    const taken = [...roots.map((at) => [at, 0x100] as const), ...tables.map((at) => [at, 0x1000] as const)];
    for (const [at, size] of taken)
      for (const [otherAt, otherSize] of taken)
        expect(at === otherAt || at + size <= otherAt || otherAt + otherSize <= at).toBe(true);
    for (const [at, size] of taken) host.free(at, size);
    const second = new PageTable(host, { stage: 2, inputBits: 44 });
    for (const iova of [0, 0x4000_0000, 0x80_0000_0000])
      second.map(iova, 0x1000, PAGE, { read: true, write: true }, true);
    expect(host.memory.regions().length).toBe(before);
  });

  it('maps and unmaps like a dictionary of pages', () => {
    const area = fc.record({
      iova: fc.nat({ max: 0x3ff }),
      pa: fc.nat({ max: 0x3ff }),
      pages: fc.integer({ min: 1, max: 0x500 }),
      blocks: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.array(area, { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 0, max: 7 }),
        (areas, drop) => {
          const host = new HostMemory();
          const table = new PageTable(host, { stage: 2, inputBits: 40 });
          const pages = new Map<number, number>();
          const mapped: { iova: number; size: number }[] = [];
          for (const { iova, pa, pages: count, blocks } of areas) {
            const size = count * PAGE;
            const start = iova * PAGE;
            if (mapped.some((other) => other.iova < start + size && start < other.iova + other.size))
              continue;
            mapped.push({ iova: start, size });
            table.map(start, pa * PAGE, size, { read: true, write: true }, blocks);
            for (let i = 0; i < count; i++) pages.set(iova + i, pa + i);
          }
          const gone = mapped[drop % mapped.length];
          table.unmap(gone.iova, gone.size);
          for (let i = 0; i < gone.size / PAGE; i++) pages.delete(gone.iova / PAGE + i);
          for (let page = 0; page < 0x900; page++) {
            const pa = pages.get(page);
            const expected = pa === undefined ? undefined : BigInt(pa * PAGE) + 0x123n;
            if (walk(host, table, BigInt(page * PAGE) + 0x123n) !== expected) return false;
          }
          return true;
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('a page table through the SMMU', () => {
  it.each([2, 3, 4, 5, 6])('translates with IDR5.OAS=%i', (oas) => {
    const ids = { ...LAB_SMMU, IDR5: (LAB_SMMU.IDR5 & ~7) | IDR5.OAS.put(oas) };
    const { vm, a, parent } = nestedVm(simRig(machine({ ids })), 'none');
    expect(vm.attach(a, parent)).toBe('OK');
    expect(vm.dmaLands(a, 0x4010_1004n)).toBe('D1');
  });

  it.each([true, false])('shows memory at its far end, huge pages %s', (huge) => {
    const vm = new Vm(simRig());
    const a = vm.bind();
    const ioas = vm.ioas();
    vm.must(uapi.IOMMU_OPTION, { option_id: 1, op: 0, object_id: ioas, val64: huge ? 1n : 0n });
    const parent = vm.hwpt(a.id, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
    vm.attach(a, parent);
    const iova = (1n << 44n) - 0x40_0000n;
    expect(vm.map(ioas, { iova })).toBe('OK');
    expect(vm.dmaLands(a, iova + 0x10_0000n)).toBe('D0');
    vm.guest.store(0x403f_fff8, 0n);
    vm.dma(a, iova + 0x3f_fffcn);
    expect(vm.guest.load32(0x403f_fffc)).toBe(0x1234_5678);
  });

  it('moves a long transfer across pages that are scattered', () => {
    const simulated = machine();
    const { vm, a, s1 } = nestedVm(simRig(simulated), 'none');
    vm.attach(a, s1);
    vm.guest.map(0x1002_0000, 0x4020_0000n);
    vm.guest.map(0x1002_1000, 0x4018_0000n);
    vm.guest.map(0x1002_2000, 0x4030_0000n);
    const data = Uint8Array.from({ length: 0x2800 }, (_, i) => i * 7);
    expect(simulated.a.dmaWrite(0x1002_0400n, data)).toBe(0);
    const back = new Uint8Array(data.length);
    expect(simulated.a.dmaRead(0x1002_0400n, back)).toBe(0);
    expect(back).toEqual(data);
    expect(vm.guest.ram.subarray(0x20_0400, 0x20_1000)).toEqual(data.subarray(0, 0xc00));
    expect(vm.guest.ram.subarray(0x18_0000, 0x18_1000)).toEqual(data.subarray(0xc00, 0x1c00));
    // What came before the first page that is missing has been written.
    expect(simulated.a.dmaWrite(0x1002_2800n, data.subarray(0, 0x1000))).not.toBe(0);
    expect(vm.guest.ram.subarray(0x30_0800, 0x30_1000)).toEqual(data.subarray(0, 0x800));
  });
});
