/** Stage 2 of a random stream. */

import { PageTable, type SteFields } from '../tables.ts';
import type { Foundations } from './foundations.ts';
import type { RandomStream } from './random-stream.ts';
import { TG0, stage2Sl } from './random-tables.ts';

/** A table for stage 2 of the stream, and the fields of its STE. */
export function makeStageTwo(world: Foundations, stream: RandomStream, ste: SteFields): PageTable {
  const { random, ids, memory, tables } = world;
  for (;;) {
    const shape = tables.shape(true);
    const stride = shape.log2Granule - 3;
    const level =
      random.below(shape.highBits === 'ds' && shape.log2Granule === 12 ? 5 : 4) -
      1 +
      (shape.highBits === 'ds' && shape.log2Granule === 12 ? 0 : 1);
    const bits = shape.inputBits - (shape.log2Granule + (3 - level) * stride);
    const sl = stage2Sl(shape, level, ids);
    if (sl === undefined || bits < 1 || bits > stride + 4 || shape.inputBits < 34) continue;
    stream.bigEndian2 = tables.endian();
    const table = new PageTable(memory.space(stream.bigEndian2), { ...shape, startLevel: level });
    const ha = ids.httu > 0 && random.chance(0.6);
    Object.assign(ste, {
      S2T0SZ: 64 - shape.inputBits,
      S2SL0: sl & 3,
      S2SL0_2: sl >> 2,
      S2TG: TG0[shape.log2Granule],
      S2PS: random.pick([4, 5, 6, 7, 7]),
      S2AA64: 1,
      S2ENDI: stream.bigEndian2 ? 1 : 0,
      S2AFFD: random.chance(0.2) ? 1 : 0,
      S2PTW: random.chance(0.3) ? 1 : 0,
      S2R: random.chance(0.9) ? 1 : 0,
      S2FWB: random.chance(0.5) ? 1 : 0,
      S2DS: shape.highBits === 'ds' ? 1 : 0,
      S2HA: ha ? 1 : 0,
      S2HD: ids.httu > 1 && ha && random.chance(0.6) ? 1 : 0,
      S2HAFT: ids.httu === 3 && ha && random.chance(0.5) ? 1 : 0,
      S2TTB: table.base,
    } satisfies SteFields);
    return table;
  }
}

/** Maps a leaf and notes it. */
export function mapStageTwo(
  stream: RandomStream,
  table: PageTable,
  ipa: bigint,
  pa: bigint,
  level: number,
  attributes: bigint,
): void {
  const at = table.map(ipa, pa, attributes, level);
  stream.mappings.push({
    at,
    stage: 2,
    log2Size: table.log2Size(level),
    input: ipa,
    level,
    shape: table.shape,
  });
}

/** A leaf anywhere, unless another is in its way. @returns an IPA in it */
export function mapAnywhere(world: Foundations, stream: RandomStream, table: PageTable): bigint {
  const { random, ids, tables } = world;
  const ipa = random.big(table.shape.inputBits);
  const level = tables.leafLevel(table);
  try {
    mapStageTwo(stream, table, ipa, random.big(random.pick([44, ids.oas])), level, tables.stage2Attributes());
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return ipa;
}
