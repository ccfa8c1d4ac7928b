import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MEM_ABORT, MEM_OK, Memory, TearFreeMemory } from '../../src/memory/memory.ts';

describe.each([
  ['plain', Memory],
  ['tear-free', TearFreeMemory],
] as const)('%s memory', (_name, Kind) => {
  const ram = (): { memory: Memory; bytes: Uint8Array } => {
    const memory = new Kind();
    const bytes = new Uint8Array(0x1000);
    memory.addRam(0, 0x4000_0000, bytes);
    return { memory, bytes };
  };

  it('aborts below, above and across the edges of RAM, and changes nothing', () => {
    const { memory, bytes } = ram();
    expect(memory.load64(0, 0x3fff_fff8)).toBe(MEM_ABORT);
    expect(memory.load64(0, 0x4000_1000)).toBe(MEM_ABORT);
    expect(memory.load32(0, 0x4000_1000)).toBe(MEM_ABORT);
    expect(memory.load64(1, 0x4000_0000)).toBe(MEM_ABORT);
    expect(memory.store64(0, 0x4000_1000, 1, 1)).toBe(MEM_ABORT);
    expect(memory.store32(0, 0x3fff_fffc, 1)).toBe(MEM_ABORT);
    expect(memory.loadWords(0, 0x4000_0fe0, new Uint32Array(16), 16)).toBe(MEM_ABORT);
    expect(memory.storeWords(0, 0x4000_0fe0, new Uint32Array(16).fill(1), 16)).toBe(MEM_ABORT);
    expect(memory.writeBytes(0, 0x4000_0ff0, new Uint8Array(32).fill(1))).toBe(MEM_ABORT);
    expect(memory.compareExchange64(0, 0x4000_1000, 0, 0, 1, 1)).toBe(MEM_ABORT);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
  });

  it('is little-endian and has both halves', () => {
    const { memory, bytes } = ram();
    expect(memory.store64(0, 0x4000_0008, 0x8899_aabb, 0xccdd_eeff)).toBe(MEM_OK);
    expect([...bytes.subarray(8, 16)]).toEqual([0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88]);
    expect(memory.load64(0, 0x4000_0008)).toBe(MEM_OK);
    expect([memory.hi, memory.lo]).toEqual([0x8899_aabb, 0xccdd_eeff]);
    expect(memory.load32(0, 0x4000_000c)).toBe(MEM_OK);
    expect([memory.hi, memory.lo]).toEqual([0, 0x8899_aabb]);
  });

  it('moves words and bytes alike', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(2 ** 32 - 1), { minLength: 8, maxLength: 8 }),
        fc.nat(100),
        (values, slot) => {
          const { memory } = ram();
          const lo = 0x4000_0000 + slot * 32;
          expect(memory.storeWords(0, lo, Uint32Array.from(values), 8)).toBe(MEM_OK);
          const words = new Uint32Array(9);
          expect(memory.loadWords(0, lo, words, 8, 1)).toBe(MEM_OK);
          expect([...words.subarray(1)]).toEqual(values);
          const bytes = new Uint8Array(32);
          expect(memory.readBytes(0, lo, bytes)).toBe(MEM_OK);
          expect([...new Uint32Array(bytes.buffer)]).toEqual(values);
        },
      ),
    );
  });

  it('compares and exchanges a 64-bit word', () => {
    const { memory } = ram();
    memory.store64(0, 0x4000_0000, 1, 2);
    expect(memory.compareExchange64(0, 0x4000_0000, 1, 3, 9, 9)).toBe(MEM_OK);
    expect([memory.hi, memory.lo]).toEqual([1, 2]);
    memory.load64(0, 0x4000_0000);
    expect([memory.hi, memory.lo]).toEqual([1, 2]);
    expect(memory.compareExchange64(0, 0x4000_0000, 1, 2, 0xffff_ffff, 9)).toBe(MEM_OK);
    memory.load64(0, 0x4000_0000);
    expect([memory.hi, memory.lo]).toEqual([0xffff_ffff, 9]);
  });

  it('crosses a 4 GiB boundary inside one piece of RAM', () => {
    const memory = new Kind();
    memory.addRam(0, 0xffff_f000, new Uint8Array(0x2000));
    expect(memory.writeBytes(0, 0xffff_fffc, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))).toBe(MEM_OK);
    memory.load32(1, 0);
    expect(memory.lo).toBe(0x0807_0605);
  });

  it('refuses RAM that overlaps or is misaligned', () => {
    const { memory } = ram();
    expect(() => memory.addRam(0, 0x4000_0ff8, new Uint8Array(8))).toThrow(RangeError);
    expect(() => memory.addRam(0, 0x4000_1004, new Uint8Array(8))).toThrow(RangeError);
    expect(() => memory.addMmio(0, 0x4000_0000, 4, { write32: () => true })).toThrow(RangeError);
    memory.addRam(0, 0x4000_1000, new Uint8Array(8));
  });

  it('gives 32-bit stores to a device, and aborts what the device refuses', () => {
    const { memory } = ram();
    const seen: number[][] = [];
    memory.addMmio(0, 0x0802_0000, 0x1000, {
      write32: (offset, value) => {
        seen.push([offset, value]);
        return offset === 0x40;
      },
    });
    expect(memory.store32(0, 0x0802_0040, 0xffff_ffff)).toBe(MEM_OK);
    expect(memory.store32(0, 0x0802_0044, 1)).toBe(MEM_ABORT);
    expect(memory.store32(0, 0x0802_1000, 1)).toBe(MEM_ABORT);
    expect(memory.load32(0, 0x0802_0040)).toBe(MEM_ABORT);
    expect(seen).toEqual([
      [0x40, 0xffff_ffff],
      [0x44, 1],
    ]);
  });

  it('forgets what is removed', () => {
    const { memory } = ram();
    memory.addRam(0, 0x5000_0000, new Uint8Array(8));
    memory.remove(0, 0x4000_0000, 0x1000);
    expect(memory.load32(0, 0x4000_0000)).toBe(MEM_ABORT);
    expect(memory.load32(0, 0x5000_0000)).toBe(MEM_OK);
  });
});
