/** Changes to what is in a random world's memory. */

import { LEAF } from '../tables.ts';
import type { Foundations } from './foundations.ts';
import type { Invalidations } from './invalidations.ts';
import { swap } from './random-memory.ts';
import type { Focus, RandomStream } from './random-stream.ts';
import { type RandomStreams, randomBit } from './random-streams.ts';

export class Changes {
  /** What was changed last: likely to be used again. */
  changed: Focus | undefined;
  readonly #world: Foundations;
  readonly #streams: RandomStreams;
  readonly #invalidations: Invalidations;

  constructor(world: Foundations, streams: RandomStreams, invalidations: Invalidations) {
    this.#world = world;
    this.#streams = streams;
    this.#invalidations = invalidations;
  }

  /**
   * Changes something in memory and carries out invalidations that are enough for it, and sometimes more.
   * @param used what was used last: likely to be changed
   */
  change(used: Focus | undefined): void {
    const { random, memory } = this.#world;
    const invalidations = this.#invalidations;
    const focus = random.chance(0.6) ? used : undefined;
    const stream = focus?.stream ?? random.pick(this.#streams.all);
    if (random.chance(0.15)) invalidations.over(stream);
    if (random.chance(0.15)) return this.#changeConfiguration(stream);
    if (stream.mappings.length === 0) return;
    const mapping = focus?.mapping ?? random.pick(stream.mappings);
    this.changed = { stream, mapping };
    const big = mapping.stage === 1 ? stream.bigEndian : stream.bigEndian2;
    const raw = memory.dword(mapping.at)!;
    let value = big ? swap(raw) : raw;
    const kind = random.below(4);
    if (kind === 0) value ^= 1n;
    else if (kind === 1) value ^= 1n << BigInt(random.pick([6, 7, 10, 51, 52, 53, 54]));
    else if (kind === 2) value = (value & ~(0xffffn << 24n)) | (random.big(16) << 24n);
    else value |= LEAF.AF | 1n;
    memory.setDword(mapping.at, big ? swap(value) : value);
    // A later mapping may have put a table where this leaf was: all that lies below it changes.
    if (mapping.level < 3 && (value & 2n) !== 0n) {
      invalidations.any(
        () => invalidations.command(0x28n | (BigInt(stream.vmid) << 32n), 0n),
        () => invalidations.command(0x30n, 0n),
      );
      if (stream.el2) invalidations.command(0x20n, 0n);
      if (stream.stage1 && mapping.stage === 2) invalidations.command(0x06n | (stream.sid << 32n), 0n);
    } else if (mapping.stage === 1) invalidations.stageOne(stream, mapping);
    else invalidations.stageTwo(stream, mapping);
  }

  #changeConfiguration(stream: RandomStream): void {
    const { random, memory } = this.#world;
    const invalidations = this.#invalidations;
    const sid = stream.sid << 32n;
    const cd = stream.stage1 && random.chance(0.5);
    // R of either stage is not kept in a TLB: CFGI alone must do.
    const quiet = random.chance(0.5);
    const at = cd ? stream.cdAt : stream.steAt + (quiet ? 16n : 8n * BigInt(random.below(4)));
    const value = memory.dword(at)!;
    let bit = quiet ? (cd ? 45 : 58) : randomBit(random, at === stream.steAt + 8n);
    // VMIDs and ASIDs stay apart: streams that share them must agree about everything else (5.2.1).
    if (cd && bit >= 47) bit -= 16;
    if (at === stream.steAt + 16n && bit < 16) bit += 16;
    memory.setDword(at, value ^ (1n << BigInt(bit)));
    if (cd)
      invalidations.any(
        () => invalidations.command(0x05n | ((stream.ssid ?? 0n) << 12n) | sid, 1n),
        () => invalidations.command(0x05n | ((stream.ssid ?? 0n) << 12n) | sid, 0n),
        () => invalidations.command(0x06n | sid, 0n),
      );
    else
      invalidations.any(
        () => invalidations.command(0x03n | sid, 1n),
        () => invalidations.command(0x04n | sid, BigInt(random.below(4))),
        () => invalidations.command(0x04n | sid, 31n),
      );
    // A copy for other SubstreamIDs has the same ASID, so it stays the same (5.4.1).
    if (cd && stream.cdCopy !== 0n && stream.cdCopy !== stream.cdAt) {
      memory.setDword(stream.cdCopy, memory.dword(stream.cdAt)!);
      invalidations.command(0x06n | sid, 0n);
    }
    if (!cd && !quiet) this.#streams.mixed = true;
    if (cd && this.#streams.mixed) invalidations.command(0x04n, 31n);
    // A bad bit may do anything: all translations go.
    if (!quiet) {
      invalidations.command(0x30n, 0n);
      invalidations.command(0x20n, 0n);
    }
  }
}
