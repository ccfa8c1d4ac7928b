import { describe, expect, it } from 'vitest';
import { isProblem, parseRecord } from '../../src/explain/words.ts';

const EVENT = Uint32Array.of(0x10, 8, 0, 0x208, 0xbeef_f000, 0xdead, 0, 0);

describe('a record in hexadecimal', () => {
  it.each<[string, string, number, number, RegExp]>([
    ['nothing', '', 1, 1, /nothing where 4 of 64 bits, 8 of 32 bits or 32 bytes are needed/],
    ['three words', '0x10 0x0 0x0', 1, 1, /3 hexadecimal numbers where/],
    ['a word that is none', '0x10 0x0 zero 0x0', 1, 10, /'zero' is not a hexadecimal number/],
    ['a digit that is none', '0x10 0x0\n0x0 0x12g4', 2, 9, /'0x12g4' is not a hexadecimal number/],
    ['a word that is too long', '0x10 0x0 0x0 0x10000000000000000', 1, 14, /has more than 64 bits/],
    ['an empty number', '0x10 0x0 0x0 0x', 1, 14, /'0x' is not/],
  ])('with %s is refused with its place', (_, text, line, column, message) => {
    const found = parseRecord('event', text);
    expect(isProblem(found)).toBe(true);
    if (isProblem(found)) {
      expect(found).toMatchObject({ line, column });
      expect(found.message).toMatch(message);
    }
  });

  it.each([
    ['64-bit words', '0x0000000800000010 0x0000020800000000 0x0000deadbeeff000 0x0000000000000000'],
    ['short 64-bit words', '0x800000010, 0x20800000000, 0xdeadbeeff000, 0'],
    ['32-bit words', '00000010 00000008 00000000 00000208 beeff000 0000dead 00000000 00000000'],
    ['short 32-bit words', '0x10 0x8 0 0x208 0xbeeff000 0xdead 0 0'],
    [
      'bytes',
      '10 00 00 00 08 00 00 00 00 00 00 00 08 02 00 00 00 f0 ef be ad de 00 00 00 00 00 00 00 00 00 00',
    ],
    ['xxd', '1000 0000 0800 0000 0000 0000 0802 0000\n00f0 efbe adde 0000 0000 0000 0000 0000'],
    ['one string of bytes', '1000000008000000000000000802000000f0efbeadde00000000000000000000'],
    ['words on lines of their own', '0x0000000800000010\n0x0000020800000000\n\t0x0000deadbeeff000\n0x0\n'],
  ])('may be %s', (_, text) => {
    expect(parseRecord('event', text)).toEqual(EVENT);
  });

  it('is as long as its kind says', () => {
    expect(parseRecord('command', '0x46 0x0')).toEqual(Uint32Array.of(0x46, 0, 0, 0));
    expect(parseRecord('ste', Array.from({ length: 8 }, () => '0x1').join(' '))).toHaveLength(16);
    expect(parseRecord('cd', Array.from({ length: 16 }, () => '0x1').join(' '))).toHaveLength(16);
  });
});
