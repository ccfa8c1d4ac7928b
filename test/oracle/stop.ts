/** What ends an access before it is translated, and the record of it. */

import type { Access } from './access.ts';
import type { Quirk } from './departures.ts';

export const TYPE = {
  C_BAD_STREAMID: 0x02,
  F_STE_FETCH: 0x03,
  C_BAD_STE: 0x04,
  F_CD_FETCH: 0x09,
  C_BAD_CD: 0x0a,
  F_WALK_EABT: 0x0b,
  F_TRANSLATION: 0x10,
  F_ADDR_SIZE: 0x11,
  F_ACCESS: 0x12,
  F_PERMISSION: 0x13,
} as const;

export const CLASS = { CD: 0n, TT: 1n, IN: 2n } as const;
export type Class = (typeof CLASS)[keyof typeof CLASS];

/** What ends an access; `type` undefined: without a record. No Error: stacks would cost more than the walks. */
export class Stop {
  readonly type: number | undefined;
  s2 = false;
  cls: Class = CLASS.IN;
  /** IPA, or what was fetched. */
  address = 0n;
  /** Recorded whatever R says. */
  always = false;
  ttRead = false;

  constructor(type: number | undefined, more: Partial<Stop> = {}) {
    this.type = type;
    Object.assign(this, more);
  }
}

/** The record of a stop, as four 64-bit words. */
export function recordOf(
  { type = 0, s2, cls, address, ttRead }: Stop,
  { sid, write, iova }: Access,
  quirks: ReadonlySet<Quirk>,
): bigint[] {
  const words = [BigInt(type) | (BigInt(sid) << 32n), 0n, 0n, 0n];
  if (type >= TYPE.F_WALK_EABT) {
    const reads = !write || (quirks.has('rnw-of-fetch') && s2 && cls !== CLASS.IN);
    words[1] = (reads ? 1n << 35n : 0n) | (s2 ? 1n << 39n : 0n) | (cls << 40n);
    words[2] = iova;
  }
  if (type === TYPE.F_STE_FETCH || type === TYPE.F_CD_FETCH || type === TYPE.F_WALK_EABT)
    words[3] = address & 0xff_ffff_ffff_fff8n;
  else if (type >= TYPE.F_TRANSLATION && s2)
    words[3] = quirks.has('ipa-low') ? address : address & 0xff_ffff_ffff_f000n;
  if (type === TYPE.F_CD_FETCH && quirks.has('cd-fetch-place')) [words[2], words[3]] = [words[3], 0n];
  if (ttRead && !quirks.has('ttrnw')) words[1] |= 1n << 44n;
  return words;
}
