import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  hex32,
  hex64,
  hiOf,
  hiOfNumber,
  join,
  joinNumber,
  loOf,
  loOfNumber,
  parseU64,
} from '../../src/bits/u64.ts';

it('a 64-bit value survives being split and joined', () => {
  fc.assert(fc.property(fc.bigInt(0n, 2n ** 64n - 1n), (value) => join(hiOf(value), loOf(value)) === value));
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => joinNumber(hiOfNumber(value), loOfNumber(value)) === value),
  );
});

it('hexadecimal text is unsigned and padded', () => {
  expect(hex32(-1)).toBe('0xffffffff');
  expect(hex32(0)).toBe('0x0');
  expect(hex64(0x8000_0000, 0)).toBe('0x8000000000000000');
  expect(hex64(0, 0x10, 16)).toBe('0x0000000000000010');
});

it.each([
  '',
  '0x',
  '-1',
  '1.5',
  '0x1g',
  '1 ',
  '0x1__0',
  '_1',
  '1e3',
  '0x10000000000000000',
  '18446744073709551616',
])('%j is not a 64-bit number', (text) => expect(parseU64(text)).toBeUndefined());

it.each([
  ['0', 0n],
  ['0x8000_0000', 0x8000_0000n],
  ['0XffffFFFFffffFFFF', 2n ** 64n - 1n],
  ['18446744073709551615', 2n ** 64n - 1n],
] as const)('%j is %d', (text, value) => expect(parseU64(text)).toBe(value));
