/** IPAs of a stream with two stages, and what of stage 1 lives at them: tables and the CD, in pages of stage 2. */

import type { TableSpace } from '../../support/tables.ts';
import { leafBits2 } from './leaf-bits.ts';
import type { Stream } from './stream.ts';

export class IpaSpace implements TableSpace {
  readonly #stream: Stream;
  /** IPA of a granule of stage 2 -> PA. */
  readonly #physical = new Map<bigint, bigint>();
  readonly #used: { from: bigint; to: bigint }[] = [];

  constructor(stream: Stream) {
    this.#stream = stream;
  }

  /** A range of IPAs that nothing uses yet. */
  free(size: bigint): bigint {
    const { random } = this.#stream.builder;
    for (let i = 0; i < 200; i++) {
      const from = random.big(this.#stream.ipaBits) & -size;
      const to = from + size;
      if (this.#used.some((other) => from < other.to && other.from < to)) continue;
      this.#used.push({ from, to });
      return from;
    }
    throw new RangeError('IPAs are used up');
  }

  /** RAM for a table or a CD, and stage 2 mappings for it. */
  take(size: bigint): bigint {
    const { builder, table2, scattered, tablePaths } = this.#stream;
    const granule = 1n << BigInt(table2!.shape.log2Granule);
    const whole = size > granule ? size : granule;
    const ipa = this.free(whole);
    const inside = whole > size ? builder.random.big(16) & (granule - 1n) & -(size < 64n ? 64n : size) : 0n;
    const pa = scattered ? 0n : builder.take(whole);
    for (let offset = 0n; offset < whole; offset += granule) {
      const at = scattered ? builder.take(granule) : pa + offset;
      this.#physical.set((ipa + offset) / granule, at);
      tablePaths.push(this.#stream.mapStage2(ipa + offset, at, leafBits2(builder.random, true), 3));
    }
    return ipa + inside;
  }

  /** PA of something that was taken. */
  physical(ipa: bigint): bigint {
    const log2 = BigInt(this.#stream.table2!.shape.log2Granule);
    return this.#physical.get(ipa >> log2)! + (ipa & ((1n << log2) - 1n));
  }

  write(at: bigint, value: bigint): void {
    this.#stream.builder.write(this.physical(at), value);
  }

  read(at: bigint): bigint {
    return this.#stream.builder.read(this.physical(at));
  }
}
