/** Invalidations by command: all that are enough for something, of which one is taken. */

import type { Translator } from '../../../src/smmu/translator.ts';
import { hiOf, loOf } from '../tables.ts';
import type { Random } from '../random.ts';
import type { SlowIds } from '../slow-machine.ts';
import type { Foundations } from './foundations.ts';
import type { Mapping, RandomStream } from './random-stream.ts';

export class Invalidations {
  readonly #translator: Translator;
  readonly #random: Random;
  readonly #ids: SlowIds;
  readonly #e2h: boolean;

  constructor({ random, ids, e2h }: Foundations, translator: Translator) {
    this.#translator = translator;
    this.#random = random;
    this.#ids = ids;
    this.#e2h = e2h;
  }

  /** Carries out a command, given as two 64-bit words. */
  command(w0: bigint, w1: bigint): void {
    this.#translator.invalidate(Uint32Array.of(loOf(w0), hiOf(w0), loOf(w1), hiOf(w1)), 0);
  }

  /** Carries out one of them. */
  any(...choices: (() => void)[]): void {
    this.#random.pick(choices)();
  }

  /** A range that covers the leaf, in pages of its granule: exactly, or from before it. */
  #range(input: bigint, { log2Size, level, shape }: Mapping): { w0: bigint; w1: bigint } {
    const random = this.#random;
    const log2 = log2Size - shape.log2Granule;
    const tg = BigInt((shape.log2Granule - 10) / 2);
    // 4.4.1.1: level 1 of 16 KB needs DS, and level 0 has no hint.
    const noHint = level < 1 || (tg === 2n && level === 1 && !this.#ids.ds);
    const ttl = !noHint && random.chance(0.5) ? BigInt(level) : 0n;
    const leaf = (input >> BigInt(log2Size)) << BigInt(log2Size);
    const before = random.chance(0.5) ? 0 : random.below(40);
    const start = leaf - (BigInt(before) << BigInt(log2Size));
    const wrapped = start < 0n || start >> 55n !== leaf >> 55n;
    const from = wrapped ? leaf : start;
    // NUM+1 a power of two or not.
    const pages = (wrapped ? 1 : before + 1) * 2 ** log2;
    let scale = Math.max(log2 - random.below(5), 0);
    while (Math.ceil(pages / 2 ** scale) > 32) scale += 1;
    const num = Math.ceil(pages / 2 ** scale) - 1;
    // 4.4.1.1: one page without a level is not a range.
    if (num === 0 && scale === 0 && ttl === 0n) return { w0: 0n, w1: input };
    return { w0: (BigInt(num) << 12n) | (BigInt(scale) << 20n), w1: from | (tg << 10n) | (ttl << 8n) };
  }

  /** Enough for a leaf of stage 1. */
  stageOne(stream: RandomStream, mapping: Mapping): void {
    const vmid = BigInt(stream.vmid) << 32n;
    const asid = BigInt(stream.asid) << 48n;
    const inside = (1n << BigInt(mapping.log2Size)) - 1n;
    const page = -4096n & 0xffff_ffff_ffff_ffffn;
    const address = ((mapping.input & ~inside) | (this.#random.big(64) & inside)) & page;
    const range = this.#range(mapping.input & page, mapping);
    if (stream.el2) {
      const el2 = [
        () => this.command(0x22n | asid, address | 1n),
        () => this.command(0x22n | asid | range.w0, range.w1),
        () => this.command(0x23n, address),
        () => this.command(0x20n, 0n),
      ];
      if (!stream.global && this.#e2h) el2.push(() => this.command(0x21n | asid, 0n));
      return this.any(...el2);
    }
    const choices = [
      () => this.command(0x12n | vmid | asid, address | 1n),
      () => this.command(0x12n | vmid | asid | range.w0, range.w1 | BigInt(this.#random.below(2))),
      () => this.command(0x13n | vmid, address),
      () => this.command(0x13n | vmid | range.w0, range.w1),
      () => this.command(0x10n | vmid, 0n),
      () => this.command(0x28n | vmid, 0n),
      () => this.command(0x30n, 0n),
    ];
    if (!stream.global) choices.push(() => this.command(0x11n | vmid | asid, 0n));
    this.any(...choices);
  }

  /** Enough for a leaf of stage 2. */
  stageTwo(stream: RandomStream, mapping: Mapping): void {
    const vmid = BigInt(stream.vmid) << 32n;
    const inside = (1n << BigInt(mapping.log2Size)) - 1n;
    const address = ((mapping.input & ~inside) | (this.#random.big(64) & inside)) & 0xff_ffff_ffff_f000n;
    const range = this.#range(mapping.input & 0xff_ffff_ffff_f000n, mapping);
    this.any(
      () => {
        this.command(0x2an | vmid, address | 1n);
        if (stream.stage1) this.command(0x10n | vmid, 0n);
      },
      () => {
        this.command(0x2an | vmid | range.w0, range.w1);
        if (stream.stage1) this.command(0x10n | vmid, 0n);
      },
      () => this.command(0x28n | vmid, 0n),
      () => this.command(0x30n, 0n),
    );
    // What stage 2 maps may be the CD, and that is in the configuration cache.
    if (stream.stage1) this.command(0x06n | (stream.sid << 32n), 0n);
  }

  /** An invalidation of something that did not change. */
  over(stream: RandomStream): void {
    const vmid = BigInt(this.#random.chance(0.5) ? stream.vmid : 99) << 32n;
    const opcode = this.#random.pick([
      0x10n,
      0x11n,
      0x12n,
      0x13n,
      0x20n,
      0x21n,
      0x22n,
      0x23n,
      0x28n,
      0x2an,
      0x30n,
    ]);
    this.command(opcode | vmid | (this.#random.big(6) << 48n), this.#random.big(48) & ~0xfffn);
  }
}
