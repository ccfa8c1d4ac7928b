import type { Random } from '../../support/random.ts';

/** Fields that decide nothing but attributes, and how many bits they have. */
export const STE_ATTRIBUTES = {
  S1CIR: 2,
  S1COR: 2,
  S1CSH: 2,
  MemAttr: 4,
  MTCFG: 1,
  ALLOCCFG: 4,
  SHCFG: 2,
  NSCFG: 2,
  S2IR0: 2,
  S2OR0: 2,
  S2SH0: 2,
} as const;
export const CD_ATTRIBUTES = {
  IR0: 2,
  OR0: 2,
  SH0: 2,
  IR1: 2,
  OR1: 2,
  SH1: 2,
  NSCFG0: 1,
  NSCFG1: 1,
} as const;

/** Any value for each. */
export const attributesOf = (
  random: Random,
  widths: Readonly<Record<string, number>>,
): Record<string, number> =>
  Object.fromEntries(Object.entries(widths).map(([name, width]) => [name, random.below(2 ** width)]));
