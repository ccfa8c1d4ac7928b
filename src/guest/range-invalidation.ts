/** Which TLBI commands an unmapped range takes. */

import { OPCODE, TLBI_TG } from '../spec/commands.ts';
import { type Command, tlbiAsid, tlbiVa } from './commands.ts';
import type { Features } from './identification.ts';

/** Largest NUM that one range command encodes, as a count. */
const RANGE_MAX = 32;
/** A non-range SMMU is given one command for the whole ASID instead of this many, or more, for single addresses. */
const maxSingles = (granule: number): number => 2 ** (granule - 3);

/** The invalidation of everything that carries an ASID. */
export const asidInvalidation = (asid: number, features: Features): Command =>
  tlbiAsid(features.e2h ? OPCODE.CMD_TLBI_EL2_ASID : OPCODE.CMD_TLBI_NH_ASID, asid);

const TG = {
  12: TLBI_TG.Granule4K,
  14: TLBI_TG.Granule16K,
  16: TLBI_TG.Granule64K,
} as const;

/**
 * @param granule log2 of the smallest page of the address space.
 * @param step bytes of each leaf in the range; for tables, of the pages below them.
 * @param leaf only leaves went; otherwise tables above them did too.
 */
export function rangeInvalidation(
  asid: number,
  iova: bigint,
  size: number,
  step: number,
  leaf: boolean,
  granule: 12 | 14 | 16,
  features: Features,
): Command[] {
  const opcode = features.e2h ? OPCODE.CMD_TLBI_EL2_VA : OPCODE.CMD_TLBI_NH_VA;
  const commands: Command[] = [];
  if (!features.rangeInvalidation) {
    if (size / 2 ** granule >= maxSingles(granule)) return [asidInvalidation(asid, features)];
    for (let at = 0; at < size; at += step) commands.push(tlbiVa(opcode, asid, iova + BigInt(at), leaf));
    return commands;
  }

  let pages = size / 2 ** granule;
  // TTL is a hint about leaves: level 3 for the granule, one less for each level that the leaf is higher.
  const ttl = leaf ? 4 - (Math.log2(step) - 3) / (granule - 3) : 0;
  // 4.4.1.1: NUM, SCALE and TTL all 0 is reserved with a granule, so a single page grows to two.
  if (!leaf && pages % RANGE_MAX === 1) pages += 1;
  let at = iova;
  while (pages > 0) {
    // The lowest five bits of what is left go as NUM at the scale of the lowest set bit.
    let scale = 0;
    while (Math.floor(pages / 2 ** scale) % 2 === 0) scale += 1;
    const num = Math.floor(pages / 2 ** scale) % RANGE_MAX;
    commands.push(tlbiVa(opcode, asid, at, leaf, { num: num - 1, scale, ttl, tg: TG[granule] }));
    const covered = num * 2 ** scale;
    at += BigInt(covered * 2 ** granule);
    pages -= covered;
  }
  return commands;
}
