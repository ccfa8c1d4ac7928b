import { describe, expect, it } from 'vitest';
import { blockSize, PAGE, PageAllocator } from '../../src/guest/page-allocator.ts';

const BASE = 0x4000_1000;

describe('the page allocator', () => {
  it.each([
    [1, PAGE],
    [PAGE, PAGE],
    [PAGE + 1, 2 * PAGE],
    [0x30_0000, 0x40_0000],
  ])('takes %i bytes for a block of %i', (size, block) => {
    expect(blockSize(size)).toBe(block);
  });

  it('aligns blocks to their size, and gives the gaps to smaller ones', () => {
    const pages = new PageAllocator(BASE, 0x10_0000);
    const large = pages.allocate(0x8000)!;
    expect(large % 0x8000).toBe(0);
    const small = Array.from({ length: 7 }, () => pages.allocate(PAGE)!);
    expect(small.every((at) => at >= BASE && at < large)).toBe(true);
    expect(new Set(small).size).toBe(7);
  });

  it('never hands the same byte out twice, whatever is taken and given back', () => {
    const size = 0x8_0000;
    const pages = new PageAllocator(BASE, size);
    const live = new Map<number, number>();
    let seed = 1;
    const random = (n: number): number => (seed = (seed * 48_271) % 2_147_483_647) % n;
    for (let i = 0; i < 20_000; i++) {
      if (random(3) > 0) {
        const bytes = PAGE * 2 ** random(5);
        const at = pages.allocate(bytes);
        if (at === undefined) continue;
        const apart = [...live].every(([other, length]) => at + bytes <= other || other + length <= at);
        if (!apart || at % bytes !== 0 || at < BASE || at + bytes > BASE + size)
          throw new Error(`${bytes} bytes at 0x${at.toString(16)} after ${i} steps`);
        live.set(at, bytes);
      } else {
        const [entry] = [...live].slice(random(live.size || 1));
        if (entry === undefined) continue;
        live.delete(entry[0]);
        pages.release(...entry);
      }
    }
  });

  it('has nothing when it is used up, and everything after a reset', () => {
    const pages = new PageAllocator(BASE, 4 * PAGE);
    for (let i = 0; i < 4; i++) expect(pages.allocate(PAGE)).toBeDefined();
    expect(pages.allocate(PAGE)).toBeUndefined();
    pages.reset();
    expect(pages.allocate(PAGE)).toBe(BASE);
  });
});
