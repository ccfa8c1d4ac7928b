/** What is stored: one namespace without metadata. */

/** Counters of the SMART / Health log, in commands and bytes. */
export interface Usage {
  reads: number;
  writes: number;
  bytesRead: number;
  bytesWritten: number;
}

export class Namespace {
  readonly bytes: Uint8Array;
  /** log2 of the bytes of a logical block. */
  readonly blockShift: number;
  /** Logical blocks; below 2^32. */
  readonly blocks: number;
  readonly usage: Usage = { reads: 0, writes: 0, bytesRead: 0, bytesWritten: 0 };

  /** @param bytes the storage; whole blocks of it are used */
  constructor(bytes: Uint8Array, blockShift: number) {
    this.bytes = bytes;
    this.blockShift = blockShift;
    this.blocks = Math.floor(bytes.length / 2 ** blockShift);
  }

  /** `count` blocks from the LBA exist. */
  holds(lbaHi: number, lbaLo: number, count: number): boolean {
    return lbaHi === 0 && lbaLo + count <= this.blocks;
  }

  zero(lba: number, count: number): void {
    const from = lba * 2 ** this.blockShift;
    this.bytes.fill(0, from, from + count * 2 ** this.blockShift);
  }
}
