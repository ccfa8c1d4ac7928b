import type { CaseBuilder } from './case-builder.ts';

/** A stream table of either form that holds a few STEs. Call {@link StreamTable.make} before anything else. */
export class StreamTable {
  base = 0n;
  /** STRTAB_BASE_CFG. */
  config = 0;
  /** log2 of the number of STEs behind one entry of the first level; 0 for a linear table. */
  split = 0;
  log2size = 0;
  /** First-level address (as aligned), for tests that break it. */
  #aligned = 0n;
  readonly #builder: CaseBuilder;
  readonly #leaves = new Map<number, { at: bigint; span: number }>();

  constructor(builder: CaseBuilder) {
    this.#builder = builder;
  }

  /**
   * @param log2size of the whole table; every StreamID that is used must be below 2^log2size
   * @param split 0 for a linear table, or 6, 8, 10
   */
  make(log2size = 10, split = this.#builder.random.pick([0, 0, 6, 8, 10])): void {
    const { random } = this.#builder;
    this.split = split;
    this.log2size = log2size;
    const bytes = split === 0 ? 64n << BigInt(log2size) : 8n << BigInt(Math.max(log2size - split, 3));
    this.#aligned = this.#builder.take(bytes);
    this.#leaves.clear();
    // 6.3.24: low bits of the base are ignored.
    this.base = this.#aligned | (random.chance(0.2) ? random.big(6) : 0n);
    if (random.chance(0.2)) this.base |= random.big(40) & (bytes - 1n) & -64n;
    this.base &= -64n;
    // 6.3.25: SPLIT is ignored by a linear table, FMT 2 and 3 are linear.
    const fmt = split === 0 ? (random.chance(0.9) ? 0 : random.pick([2, 3])) : 1;
    const shown = split === 0 && random.chance(0.3) ? random.below(32) : split;
    this.config = log2size | (shown << 6) | (fmt << 16);
  }

  /** Address of a first-level descriptor. */
  l1(sid: number): bigint {
    return this.#aligned + 8n * BigInt(sid >> this.split);
  }

  /** Address of an STE; with two levels, the array that holds it is made when it is first asked for. */
  ste(sid: number): bigint {
    if (this.split === 0) return this.#aligned + 64n * BigInt(sid);
    const builder = this.#builder;
    const key = sid >> this.split;
    let leaf = this.#leaves.get(key);
    if (leaf === undefined) {
      const span = this.split + 1;
      leaf = { at: builder.take(64n << BigInt(this.split)), span };
      this.#leaves.set(key, leaf);
      builder.write(this.l1(sid), leaf.at | BigInt(span));
    }
    return leaf.at + 64n * BigInt(sid & (2 ** this.split - 1));
  }
}
