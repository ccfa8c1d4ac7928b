/** Follows a walk step by step, for people. A translator without one spends nothing on it. */
export interface WalkObserver {
  /** A configuration structure was read. */
  structure(name: 'L1STD' | 'STE' | 'L1CD' | 'CD', addrHi: number, addrLo: number, words: Uint32Array): void;
  /** A stage begins: its input address, and EVENT_CLASS for what. */
  stage(stage: 1 | 2, addrHi: number, addrLo: number, cls: number): void;
  /** A descriptor was read, in the byte order of this machine; the address is physical. */
  descriptor(stage: 1 | 2, level: number, addrHi: number, addrLo: number, hi: number, lo: number): void;
  /** A stage ended with a leaf: output address, PERM bits and log2 of its size. */
  leaf(stage: 1 | 2, addrHi: number, addrLo: number, permissions: number, log2Size: number): void;
}
