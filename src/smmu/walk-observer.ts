import type { Fault } from './fault.ts';

/** Follows a walk step by step, for people. A translator without one spends nothing on it. */
export interface WalkObserver {
  /** A configuration structure was read. With stage 2, the address of a CD or L1CD is an IPA. The words are reused. */
  structure(name: 'L1STD' | 'STE' | 'L1CD' | 'CD', addrHi: number, addrLo: number, words: Uint32Array): void;
  /** A stage begins: its input address, and EVENT_CLASS for what. */
  stage(stage: 1 | 2, addrHi: number, addrLo: number, cls: number): void;
  /**
   * A descriptor was read, in the byte order of this machine; the address is physical.
   * @param hierarchy HIERARCHY bits: what the table descriptors above it took away
   */
  descriptor(
    stage: 1 | 2,
    level: number,
    addrHi: number,
    addrLo: number,
    hi: number,
    lo: number,
    hierarchy: number,
  ): void;
  /** A leaf was found with these PERM bits; the access wants one of `need`. */
  permissions(stage: 1 | 2, permissions: number, need: number): void;
  /** A stage ended with a leaf: output address, PERM bits and log2 of its size. */
  leaf(stage: 1 | 2, addrHi: number, addrLo: number, permissions: number, log2Size: number): void;
  /** It ended with a fault or an error: an EventType, and what is known of it. The object is reused. */
  stopped(type: number, fault: Readonly<Fault>): void;
}
