/** Stage 1 of a random stream. */

import {
  type CdFields,
  PageTable,
  type SteFields,
  type TableSpace,
  buildCd,
  writeDwords,
} from '../tables.ts';
import type { Foundations } from './foundations.ts';
import type { RandomMemory } from './random-memory.ts';
import type { RandomStream } from './random-stream.ts';
import { TG0, TG1 } from './random-tables.ts';

/**
 * Stage 1 of the stream: its tables, which map the data, its CD, and the fields of its STE.
 * @param ipaOf the IPA of a page of RAM that stage 1 itself reads
 */
export function makeStageOne(
  world: Foundations,
  stream: RandomStream,
  ste: SteFields,
  ipaOf: (pa: bigint) => bigint,
  dataIpas: readonly bigint[],
): void {
  const { random, ids, memory, tables, e2h } = world;
  stream.bigEndian = tables.endian();
  /** PA of a page of 4 KiB that stage 1 reads, by the number of its IPA's. */
  const pages = new Map<bigint, bigint>();
  const inner = memory.space(stream.bigEndian);
  /** Tables live at IPAs: each is contiguous there only as far as a page of stage 2 goes. */
  const physical = (ipa: bigint): bigint => {
    const page = pages.get(ipa >> 12n);
    return page === undefined ? ipa : page | (ipa & 0xfffn);
  };
  const space: TableSpace = {
    take: (size) => {
      const pa = inner.take(size);
      if (!stream.stage2) return pa;
      const base = ipaOf(pa);
      for (let offset = 0n; offset < size; offset += 4096n) {
        if (ipaOf(pa + offset) !== base + offset) throw new RangeError('not contiguous');
        pages.set((base + offset) >> 12n, (pa + offset) & ~0xfffn);
      }
      return base;
    },
    write: (at, value) => inner.write(physical(at), value),
    read: (at) => inner.read(physical(at)),
  };
  const ha = ids.httu > 0 && random.chance(0.6);
  const DS = random.chance(0.6);
  const half = (upper: boolean): PageTable => {
    const table = new PageTable(space, tables.shape(false, DS));
    for (const data of dataIpas) {
      const level = tables.leafLevel(table);
      const va = random.big(table.shape.inputBits);
      const tableBits = random.chance(0.3) ? random.big(5) << 59n : 0n;
      const at = table.map(va, data, tables.stage1Attributes(stream.global), level, tableBits);
      const high = (0xffff_ffff_ffff_ffffn << BigInt(table.shape.inputBits)) & 0xffff_ffff_ffff_ffffn;
      stream.mappings.push({
        at: physical(at),
        stage: 1,
        log2Size: table.log2Size(level),
        input: upper ? va | high : va,
        level,
        shape: table.shape,
      });
    }
    return table;
  };
  const plainEl2 = stream.el2 && !e2h;
  const which = plainEl2 ? 0 : random.below(4);
  const lower = which < 3 ? half(false) : undefined;
  const upper = which > 1 ? half(true) : undefined;
  const cd: CdFields = {
    ENDI: stream.bigEndian ? 1 : 0,
    IPS: random.pick([4, 5, 6, 7, 7]),
    AFFD: random.chance(0.2) ? 1 : 0,
    WXN: random.chance(0.2) ? 1 : 0,
    PAN: random.chance(0.2) ? 1 : 0,
    EPAN: random.chance(0.3) ? 1 : 0,
    TBI0: random.chance(0.3) ? 1 : 0,
    TBI1: random.chance(0.3) ? 1 : 0,
    HAD0: random.chance(0.3) ? 1 : 0,
    HAD1: random.chance(0.3) ? 1 : 0,
    E0PD0: random.chance(0.1) ? 1 : 0,
    E0PD1: random.chance(0.1) ? 1 : 0,
    HA: ha ? 1 : 0,
    HD: ids.httu > 1 && ha && random.chance(0.6) ? 1 : 0,
    HAFT: ids.httu === 3 && ha && random.chance(0.5) ? 1 : 0,
    A: ids.termModel || random.chance(0.6) ? 1 : 0,
    S: ids.stallModel === 2 || (ids.stallModel === 0 && random.chance(0.3)) ? 1 : 0,
    ASET: stream.ASET,
    R: random.chance(0.9) ? 1 : 0,
    ASID: stream.asid,
    DS: DS ? 1 : 0,
    EPD0: lower === undefined ? 1 : 0,
    EPD1: upper === undefined ? 1 : 0,
  };
  if (lower !== undefined)
    Object.assign(cd, {
      T0SZ: 64 - lower.shape.inputBits,
      TG0: TG0[lower.shape.log2Granule],
      TTB0: lower.base,
    });
  if (upper !== undefined)
    Object.assign(cd, {
      T1SZ: 64 - upper.shape.inputBits,
      TG1: TG1[upper.shape.log2Granule],
      TTB1: upper.base,
    });
  placeCd(world, stream, ste, cd, ipaOf);
}

/** Writes the CD where the STE leads, alone or in a table of one level or two. */
function placeCd(
  world: Foundations,
  stream: RandomStream,
  ste: SteFields,
  cd: CdFields,
  ipaOf: (pa: bigint) => bigint,
): void {
  const { random, ids, memory } = world;
  let count = 1n;
  if (ids.ssidsize > 0 && random.chance(0.6)) {
    const log2 = 1 + random.below(ids.ssidsize);
    const fmt = ids.cd2l ? random.below(4) : random.pick([0, 3]);
    Object.assign(ste, { S1CDMax: log2, S1DSS: random.below(4), S1Fmt: fmt });
    stream.ssid = random.big(log2);
    count = 1n << BigInt(log2);
    if (fmt === 1 || fmt === 2) {
      const split = fmt === 1 ? 6n : 10n;
      const leaf = takeTable(memory, stream, ipaOf, 64n << split);
      const entries = count >> split === 0n ? 1n : count >> split;
      const l1 = takeTable(memory, stream, ipaOf, 8n * entries < 64n ? 64n : 8n * entries);
      memory.setDword(l1.pa + 8n * (stream.ssid >> split), leaf.ipa | 1n);
      if (random.chance(0.3)) memory.setDword(l1.pa, leaf.ipa | 1n);
      stream.cdAt = leaf.pa + 64n * (stream.ssid & ((1n << split) - 1n));
      Object.assign(ste, { S1ContextPtr: l1.ipa });
      writeDwords(memory, stream.cdAt, buildCd(cd));
      return;
    }
  }
  const cds = takeTable(memory, stream, ipaOf, 64n * count);
  Object.assign(ste, { S1ContextPtr: cds.ipa });
  stream.cdAt = cds.pa + 64n * (stream.ssid ?? 0n);
  if (random.chance(0.3)) {
    stream.cdCopy = cds.pa;
    writeDwords(memory, cds.pa, buildCd(cd));
  }
  writeDwords(memory, stream.cdAt, buildCd(cd));
}

/** RAM for a table of CDs, in pages that stage 2 maps. */
function takeTable(
  memory: RandomMemory,
  stream: RandomStream,
  ipaOf: (pa: bigint) => bigint,
  size: bigint,
): { pa: bigint; ipa: bigint } {
  const pa = memory.take(size);
  if (!stream.stage2) return { pa, ipa: pa };
  for (let offset = 4096n; offset < size; offset += 4096n) ipaOf(pa + offset);
  return { pa, ipa: ipaOf(pa) };
}
