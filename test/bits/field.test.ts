import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { address, bits } from '../../src/bits/field.ts';

describe('a field', () => {
  it('that leaves its 32-bit word is refused', () => {
    expect(() => bits(32, 31)).toThrow(RangeError);
    expect(() => bits(3, 4)).toThrow(RangeError);
    expect(() => address(64, 63)).toThrow(RangeError);
  });

  it('reads the bits of its own word, unsigned', () => {
    const words = Uint32Array.of(0, 0x8000_0001, 0);
    expect(bits(63).get(words)).toBe(1);
    expect(bits(63, 32).get(words)).toBe(0x8000_0001);
    expect(bits(32).get(words)).toBe(1);
    expect(bits(31, 0).get(words)).toBe(0);
    expect(bits(31).get(words, 1)).toBe(1);
  });

  it('is set without touching its neighbours, whatever the value', () => {
    fc.assert(
      fc.property(fc.nat(31), fc.nat(31), fc.nat(2 ** 32 - 1), fc.nat(2 ** 32 - 1), (a, b, value, before) => {
        const [lo, hi] = a < b ? [a, b] : [b, a];
        const field = bits(hi + 32, lo + 32);
        const words = Uint32Array.of(0xdead_beef, before, 0xdead_beef);
        field.set(words, value);
        let expected = BigInt(before);
        for (let bit = lo; bit <= hi; bit++) {
          expected &= ~(1n << BigInt(bit));
          expected |= ((BigInt(value) >> BigInt(bit - lo)) & 1n) << BigInt(bit);
        }
        expect([...words]).toEqual([0xdead_beef, Number(expected), 0xdead_beef]);
        expect(field.of(words[1])).toBe(field.get(words));
        expect(field.put(value)).toBe((words[1] & field.inPlace) >>> 0);
      }),
    );
  });
});

describe('a span', () => {
  it('keeps its bits in place in both halves', () => {
    const words = Uint32Array.of(0, 0, 0xffff_ffff, 0xffff_ffff);
    const pointer = address(64 + 55, 64 + 6);
    expect(pointer.getLo(words)).toBe(0xffff_ffc0);
    expect(pointer.getHi(words)).toBe(0x00ff_ffff);
    pointer.set(words, 0xffff_ffff, 0);
    expect([...words]).toEqual([0, 0, 0x3f, 0xffff_ffff]);
    pointer.set(words, 0, 0x1234_5678);
    expect([...words]).toEqual([0, 0, 0x1234_567f, 0xff00_0000]);
  });
});
