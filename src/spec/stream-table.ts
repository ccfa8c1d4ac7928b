import { address, bits } from '../bits/field.ts';

/** Bytes of a first-level descriptor, of StreamIDs or of SubstreamIDs. */
export const L1_DESCRIPTOR_SIZE = 8;

/** Level 1 Stream Table Descriptor (IHI 0070 5.1). */
export const L1STD = {
  /** 0: nothing below; 1..SPLIT+1: 2^(Span-1) STEs; others are reserved and invalid. */
  Span: bits(4, 0),
  L2Ptr: address(55, 6),
} as const;

/** Level 1 Context Descriptor (IHI 0070 5.3). */
export const L1CD = {
  V: bits(0),
  L2Ptr: address(55, 12),
} as const;

/** Largest Span that any SPLIT allows. */
export const SPAN_MAX = 11;
