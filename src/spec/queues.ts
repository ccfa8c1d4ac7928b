/** The PRI queue's entries as data (IHI 0070 G.b, chapter 8), and what all queues have in common (3.5.1). */

import { address, bits } from '../bits/field.ts';

/** No queue has more than 2^19 entries (6.3.2). */
export const MAX_LOG2_QUEUE_SIZE = 19;

/** Bytes and 32-bit words of one PRI queue entry. */
export const PRI_ENTRY_SIZE = 16;
export const PRI_ENTRY_WORDS = 4;

/** 8.2 */
export const PRI_ENTRY = {
  StreamID: bits(31, 0),
  SubstreamID: bits(51, 32),
  Priv: bits(58),
  X: bits(59),
  R: bits(60),
  W: bits(61),
  Last: bits(62),
  SSV: bits(63),
  PRGIndex: bits(72, 64),
  Addr: address(127, 76),
} as const;
