/**
 * What an SMMU says it can do: the ID registers, by the architecture's own field names. Every feature of the model is
 * gated by these values and by nothing else.
 */

import type { Field } from '../bits/field.ts';
import { AIDR, IDR0, IDR1, IDR3, IDR5, OAS_BITS, type Feature } from '../spec/registers.ts';
import type { IdRegisters } from './id-registers.ts';
import { identificationProblems } from './identification-rules.ts';

export type { IdRegisters };

/** Fields that may be chosen, by the architecture's names; they are unique across the registers. */
export type IdField =
  keyof typeof IDR0 | keyof typeof IDR1 | keyof typeof IDR3 | keyof typeof IDR5 | keyof typeof AIDR;

/** Encoded values of ID fields, such as `{ OAS: 4, RIL: 1 }`. */
export type IdFields = Partial<Record<IdField, number>>;

/** The choices that QEMU's `-device arm-smmuv3` offers, under its names. */
export interface QemuProperties {
  /** Needed by QEMU for VFIO devices; it changes no ID register, and is accepted so that command lines can be copied. */
  readonly accel?: boolean;
  /** Range invalidation: IDR3.RIL. */
  readonly ril?: boolean;
  /** IDR0.ATS. */
  readonly ats?: boolean;
  /** Output address size in bits: 32, 36, 40, 42, 44, 48, 52 or 56. */
  readonly oas?: number;
  /** Bits of SubstreamID, 0..20. */
  readonly ssidsize?: number;
  /** Stages of translation offered: IDR0.S1P and S2P, and no IDR3.HAD without stage 1 (6.3.4). */
  readonly stage?: '1' | '2' | 'nested';
}

/**
 * A guest-facing stage 1 SMMU that Linux drives without complaint: 44-bit addresses, 4 KiB and 64 KiB granules, range
 * invalidation, 65,536 StreamIDs, queues of up to 256 entries.
 */
export const GUEST_DEFAULT: IdRegisters = {
  IDR0: 0x0d44_101a,
  IDR1: 0x0108_0010,
  IDR2: 0,
  IDR3: 0x404,
  IDR4: 0,
  IDR5: 0x54,
  IIDR: 0,
  AIDR: 1,
};

/** What QEMU 11.1's own model with nested stages says; the values of the conformance vectors. */
export const QEMU_LIKE: IdRegisters = {
  IDR0: 0x0d44_101b,
  IDR1: 0x0273_0010,
  IDR2: 0,
  IDR3: 0x1414,
  IDR4: 0,
  IDR5: 0x74,
  IIDR: 0,
  AIDR: 1,
};

const PLACES = [
  ['IDR0', IDR0],
  ['IDR1', IDR1],
  ['IDR3', IDR3],
  ['IDR5', IDR5],
  ['AIDR', AIDR],
] as const;

/** The ID fields do not describe an SMMU that can exist, or that this model can be. */
export class IdentificationError extends RangeError {
  readonly code = 'BAD_IDENTIFICATION';
  /** One sentence for each reason. */
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`These SMMU features do not fit together. ${problems.join(' ')}`);
    this.problems = problems;
  }
}

/**
 * Builds ID registers from a base and changes to it. What a change implies is not guessed: taking ATS away from a base
 * that has PRI is refused, not silently extended.
 * @throws IdentificationError naming every reason.
 */
export function identify(
  base: IdRegisters,
  fields: IdFields = {},
  properties: QemuProperties = {},
): IdRegisters {
  const words: Record<string, number> = { ...base };
  const problems: string[] = [];
  for (const [name, value] of [
    ...Object.entries(propertyFields(properties, problems)),
    ...Object.entries(fields),
  ]) {
    const place = PLACES.find(([, layout]) => name in layout);
    if (place === undefined) {
      problems.push(`There is no ID field "${name}".`);
      continue;
    }
    const field = (place[1] as Record<string, Field>)[name];
    if (!Number.isInteger(value) || value < 0 || value > field.mask)
      problems.push(`${place[0]}.${name} holds 0..${field.mask}, not ${value}.`);
    else words[place[0]] = ((words[place[0]] & ~field.inPlace) | field.put(value)) >>> 0;
  }
  const ids = words as unknown as IdRegisters;
  problems.push(...identificationProblems(ids));
  if (problems.length > 0) throw new IdentificationError(problems);
  return ids;
}

function propertyFields(properties: QemuProperties, problems: string[]): IdFields {
  const { ril, ats, oas, ssidsize, stage } = properties;
  const encodedOas = oas === undefined ? undefined : (OAS_BITS as readonly number[]).indexOf(oas);
  if (encodedOas === -1) problems.push(`oas is one of ${OAS_BITS.join(', ')}, not ${oas}.`);
  return {
    ...(ril !== undefined && { RIL: Number(ril) }),
    ...(ats !== undefined && { ATS: Number(ats) }),
    ...(encodedOas !== undefined && encodedOas >= 0 && { OAS: encodedOas }),
    ...(ssidsize !== undefined && { SSIDSIZE: ssidsize }),
    ...(stage !== undefined && { S1P: Number(stage !== '2'), S2P: Number(stage !== '1') }),
    ...(stage === '2' && { HAD: 0 }),
  };
}

/** Values of all chosen fields, for people: `{ S1P: 1, TTF: 2, ... }`. */
export function describeIds(ids: IdRegisters): Record<IdField, number> {
  const all: Record<string, number> = {};
  for (const [register, layout] of PLACES)
    for (const [name, field] of Object.entries(layout)) all[name] = field.of(ids[register]);
  return all;
}

/** Output address size in bits. */
export const outputAddressBits = (ids: IdRegisters): number => OAS_BITS[IDR5.OAS.of(ids.IDR5)];

/** The highest StreamID. */
export const maxStreamId = (ids: IdRegisters): number => 2 ** IDR1.SIDSIZE.of(ids.IDR1) - 1;

/** Whether registers and commands that need the feature exist. */
export function hasFeature(ids: IdRegisters, feature: Feature): boolean {
  if (feature in IDR0) return IDR0[feature as keyof typeof IDR0].of(ids.IDR0) !== 0;
  if (feature in IDR1) return IDR1[feature as keyof typeof IDR1].of(ids.IDR1) !== 0;
  return IDR3[feature as keyof typeof IDR3].of(ids.IDR3) !== 0;
}
