/** Bits of leaves besides type and address. */

import type { Random } from '../../support/random.ts';
import { LEAF } from '../../support/tables.ts';

/** Attributes of stage 2 that let through. */
export function leafBits2(random: Random, forTable = false): bigint {
  let bits = LEAF.AF | LEAF.S2R | LEAF.S2W | LEAF.S2Normal;
  if (forTable && random.chance(0.2)) bits &= ~LEAF.S2W;
  // Device memory; with S2PTW it is wrong for a table.
  if (random.chance(forTable ? 0.03 : 0.2)) bits &= ~LEAF.S2Normal;
  bits |= random.big(2) << 8n;
  if (random.chance(0.2)) bits |= random.big(2) << 53n;
  // Bits [58:55] are for software.
  if (random.chance(0.3)) bits |= random.big(4) << 55n;
  return bits;
}

/** Attributes of stage 1 that let through. */
export function leafBits1(random: Random): bigint {
  let bits = LEAF.AF | LEAF.AP1 | LEAF.nG;
  if (random.chance(0.3)) bits |= random.big(2) << 53n;
  bits |= random.big(2) << 8n;
  bits |= random.big(3) << 2n;
  if (random.chance(0.3)) bits |= random.big(4) << 55n;
  return bits;
}
