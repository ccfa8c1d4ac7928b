/** A stream of a random world, and what is mapped for it. */

import type { Shape } from '../tables.ts';

/** A leaf that was mapped: what a TLBI for it names. */
export interface Mapping {
  /** Physical address of the descriptor. */
  readonly at: bigint;
  readonly stage: 1 | 2;
  readonly log2Size: number;
  readonly input: bigint;
  readonly level: number;
  readonly shape: Shape;
}

/** One mapping of a stream, to come back to. */
export interface Focus {
  readonly stream: RandomStream;
  readonly mapping: Mapping;
}

export class RandomStream {
  sid = 0n;
  steAt = 0n;
  cdAt = 0n;
  /** CD 0, if it is the same as the one of the stream's SubstreamID. */
  cdCopy = 0n;
  vmid = 0;
  asid = 0;
  ssid: bigint | undefined;
  stage1 = false;
  stage2 = false;
  global = false;
  ASET = 0;
  /** The regime is EL2, with or without E2H. */
  el2 = false;
  bigEndian = false;
  bigEndian2 = false;
  mappings: Mapping[] = [];
}
