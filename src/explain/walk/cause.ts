/** How causes are made. */

import type { Field, Span } from '../../bits/field.ts';
import { hex32, hex64 } from '../../bits/u64.ts';
import type { SeenWalk } from './seen-walk.ts';
import type { WalkCause } from './walk.ts';
import type { DescriptorStep, SeenFault, StructureStep } from './walk-record.ts';

const bitsOf = ({ hi, lo }: Field | Span): string => (hi === lo ? `[${hi}]` : `[${hi}:${lo}]`);
const dword = (hi: number, lo: number): string => hex64(hi, lo, 16);

export function register(field: string, bits: Field, value: number, text: string): WalkCause {
  const of = field.slice(0, field.indexOf('.'));
  return { field, of, bits: bitsOf(bits), value: hex32(value), text, also: [] };
}

/** A cause in a structure that was read. */
export function inStructure(
  { name, hi, lo, words }: StructureStep,
  field: string,
  layout: Field | Span,
  text: string,
): WalkCause {
  const value = 'mask' in layout ? hex32(layout.get(words)) : hex64(layout.getHi(words), layout.getLo(words));
  return {
    field: `${name}.${field}`,
    of: name,
    address: hex64(hi, lo),
    bits: bitsOf(layout),
    value,
    text,
    also: [],
  };
}

export const ofDescriptor = ({ level, stage }: DescriptorStep): string =>
  `the level ${level} descriptor of stage ${stage}`;

/** A cause in a descriptor. */
export function inDescriptor(
  step: DescriptorStep,
  field: string,
  bits: string,
  text: string,
  also: readonly string[] = [],
): WalkCause {
  return {
    field,
    of: ofDescriptor(step),
    address: hex64(step.atHi, step.atLo),
    bits,
    value: dword(step.hi, step.lo),
    text,
    also,
  };
}

export const plain = (field: string, of: string, text: string): WalkCause => ({ field, of, text, also: [] });

/** Half a sentence. */
export const noMemory = ({ fetchHi, fetchLo }: SeenFault): string =>
  `memory does not answer at ${hex64(fetchHi, fetchLo >>> 0)} (external abort)`;

/** 3.4: an untranslated address that is larger than any physical address. */
export const beyondOutput = (walk: SeenWalk): WalkCause =>
  plain(
    'IDR5.OAS',
    'IDR5',
    `the address is not translated by stage 1 and has more than ${walk.features.oasBits} bits`,
  );
