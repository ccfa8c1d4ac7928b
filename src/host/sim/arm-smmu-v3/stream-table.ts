/** The kernel's stream table: 2-level where the SMMU can, all abort until a device is attached. */

import { hiOfNumber, loOfNumber } from '../../../bits/u64.ts';
import { STRTAB_FMT } from '../../../spec/registers.ts';
import { STE, STE_CONFIG, STE_SIZE, STE_WORDS } from '../../../spec/ste.ts';
import { L1_DESCRIPTOR_SIZE } from '../../../spec/stream-table.ts';
import type { HostMemory } from '../host-memory.ts';

/** Linux's choice: 256 STEs a leaf, at most 2^17 leaves. */
const SPLIT = 8;
const MAX_LOG2_LEAVES = 17;
const SPAN = SPLIT + 1;
/** Without leaves the table is allocated whole. */
const MAX_LOG2_LINEAR = 16;

export class StreamTable {
  /** Values of STRTAB_BASE_CFG.LOG2SIZE, SPLIT and FMT. */
  readonly log2Size: number;
  readonly split = SPLIT;
  readonly format: number;
  /** Physical address. */
  readonly base: number;
  readonly #memory: HostMemory;
  readonly #leaves = new Map<number, number>();

  /** @param sidBits IDR1.SIDSIZE. */
  constructor(memory: HostMemory, sidBits: number, twoLevel: boolean) {
    this.#memory = memory;
    this.format = twoLevel && sidBits > SPLIT ? STRTAB_FMT.TwoLevel : STRTAB_FMT.Linear;
    if (this.format === STRTAB_FMT.TwoLevel) {
      this.log2Size = Math.min(sidBits, MAX_LOG2_LEAVES + SPLIT);
      this.base = memory.allocate(Math.max(64, 2 ** (this.log2Size - SPLIT) * L1_DESCRIPTOR_SIZE));
    } else {
      this.log2Size = Math.min(sidBits, MAX_LOG2_LINEAR);
      const count = 2 ** this.log2Size;
      this.base = memory.allocate(count * STE_SIZE);
      this.#fillWithAbort(this.base, count);
    }
  }

  /** Whether the table can hold this StreamID. */
  holds(sid: number): boolean {
    return sid < 2 ** this.log2Size;
  }

  /** Physical address of a StreamID's entry; its leaf is made if there is none. */
  entry(sid: number): number {
    if (this.format === STRTAB_FMT.Linear) return this.base + sid * STE_SIZE;
    const index = sid >>> SPLIT;
    let leaf = this.#leaves.get(index);
    if (leaf === undefined) {
      leaf = this.#memory.allocate(2 ** SPLIT * STE_SIZE);
      this.#fillWithAbort(leaf, 2 ** SPLIT);
      this.#memory.store64(this.base + index * L1_DESCRIPTOR_SIZE, hiOfNumber(leaf), loOfNumber(leaf) | SPAN);
      this.#leaves.set(index, leaf);
    }
    return leaf + (sid % 2 ** SPLIT) * STE_SIZE;
  }

  /** Replaces an entry; word 0, which makes it valid, last. */
  write(sid: number, ste: Uint32Array): void {
    const entry = this.entry(sid);
    for (let i = STE_WORDS - 2; i >= 0; i -= 2) this.#memory.store64(entry + i * 4, ste[i + 1], ste[i]);
  }

  #fillWithAbort(at: number, count: number): void {
    const low = STE.V.put(1) | STE.Config.put(STE_CONFIG.Abort);
    for (let i = 0; i < count; i++) this.#memory.store64(at + i * STE_SIZE, 0, low);
  }
}
