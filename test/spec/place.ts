import { expect } from 'vitest';
import type { Field, Layout, Span } from '../../src/bits/field.ts';

/** Where a second source puts a field: the number of its 64-bit word, and the bits inside that. */
export type Place = readonly [name: string, dword: number, hi: number, lo: number];

/** Expects the field to occupy exactly that place. */
export function expectPlace(layout: Layout, words: number, [name, dword, hi, lo]: Place): void {
  const field: Field | Span | undefined = layout[name];
  if (field === undefined) throw new Error(`no field ${name}`);
  const structure = new Uint32Array(words);
  if ('mask' in field) field.set(structure, 0xffff_ffff);
  else field.set(structure, 0xffff_ffff, 0xffff_ffff);
  const expected = new BigUint64Array(words / 2);
  expected[dword] = ((1n << BigInt(hi - lo + 1)) - 1n) << BigInt(lo);
  expect([...new BigUint64Array(structure.buffer)]).toEqual([...expected]);
}

/** Expects no bit of the structure to belong to two fields. */
export function expectNoOverlap(layout: Layout): void {
  const owner = new Map<number, string>();
  for (const [name, field] of Object.entries(layout))
    for (let bit = field.lo; bit <= field.hi; bit++) {
      expect(owner.get(bit), `bit ${bit} of ${name}`).toBeUndefined();
      owner.set(bit, name);
    }
}
