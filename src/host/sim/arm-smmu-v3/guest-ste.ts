/** What the kernel lets a guest say in its STE: words 0 and 1 of a nested HWPT. */

import { hiOf, loOf } from '../../../bits/u64.ts';
import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import { STE, STE_CONFIG, STE_EATS } from '../../../spec/ste.ts';
import type { GuestSte } from './ste.ts';

/** V, Config, S1Fmt, S1ContextPtr[51:6], S1CDMax. */
const WORD0_ALLOWED = 0xf80f_ffff_ffff_ffffn;
/** S1DSS, S1CIR, S1COR, S1CSH, S1STALLD, EATS. */
const WORD1_ALLOWED = 0x0000_0000_3800_00ffn;

/** Words that stand for every invalid STE. */
const INVALID: GuestSte = [0, 0, 0, 0];

/**
 * Checks the words in the kernel's order.
 * @returns them, all zero if V=0 whatever else they say; or EIO.
 */
export function checkGuestSte(word0: bigint, word1: bigint): GuestSte | Errno {
  const words: GuestSte = [loOf(word0), hiOf(word0), loOf(word1), hiOf(word1)];
  if (STE.V.of(words[0]) === 0) return INVALID;
  if ((word0 & ~WORD0_ALLOWED) !== 0n || (word1 & ~WORD1_ALLOWED) !== 0n) return ERRNO.EIO;
  const config = STE.Config.of(words[0]);
  if (config !== STE_CONFIG.Abort && config !== STE_CONFIG.Bypass && config !== STE_CONFIG.S1)
    return ERRNO.EIO;
  const eats = STE.EATS.of(words[STE.EATS.word]);
  if (eats !== STE_EATS.Disabled && eats !== STE_EATS.Full) return ERRNO.EIO;
  return words;
}
