/** From the words of a structure to named fields, by the tables of spec/. */

import { type Field, Span, type Layout } from '../bits/field.ts';
import { hex32, hex64 } from '../bits/u64.ts';

/** One field of a structure. */
export interface DecodedField {
  readonly name: string;
  /** Bit numbers through the whole structure: '[63:32]', or '[95]' for one bit. */
  readonly bits: string;
  /** Hexadecimal; an address keeps its bits in place. */
  readonly value: string;
  /** The value is not zero. */
  readonly set: boolean;
}

function decodeField(name: string, field: Field | Span, words: Uint32Array): DecodedField {
  const bits = field.hi === field.lo ? `[${field.hi}]` : `[${field.hi}:${field.lo}]`;
  if (field instanceof Span) {
    const hi = field.getHi(words);
    const lo = field.getLo(words);
    return { name, bits, value: hex64(hi, lo), set: hi !== 0 || lo !== 0 };
  }
  const value = field.get(words);
  return { name, bits, value: hex32(value), set: value !== 0 };
}

/** Every field of a layout, in its order. @param words the structure from its start; as many as the layout needs */
export const decode = (layout: Layout, words: Uint32Array): readonly DecodedField[] =>
  Object.entries(layout).map(([name, field]) => decodeField(name, field, words));
