import { LEAF } from '../../support/tables.ts';
import { READER_SIDS, WRITER_SIDS } from '../endpoints.ts';
import { type CaseBuilder, shuffled } from './case-builder.ts';
import type { Path } from './path.ts';
import { type Mapping, Stream, type StreamOptions } from './stream.ts';

const ADDRESS = 0xffff_ffff_f000n;

/** Pairs of endpoints, one that reads and one that writes; each endpoint is in one of them. */
export function someSids(builder: CaseBuilder, count: number): [number, number][] {
  const readers = shuffled(builder.random, READER_SIDS);
  const writers = shuffled(builder.random, WRITER_SIDS);
  return readers.slice(0, count).map((reader, i) => [reader, writers[i]]);
}

/** Pairs of endpoints, and a stream table that has them. */
export function someStreams(builder: CaseBuilder, count: number): [number, number][] {
  const sids = someSids(builder, count);
  const least = 32 - Math.clz32(Math.max(...sids.flat()));
  builder.streamTable.make(least + builder.random.below(12 - least));
  return sids;
}

/** Whether QEMU's machine may have something other than RAM there: that would answer, where nothing is to answer. */
export const hasDevices = (address: bigint): boolean =>
  address < 0x4000_0000n || (address >= 0x40_0000_0000n && address < 0x100_0000_0000n);

export type Fault = (builder: CaseBuilder, stream: Stream, path: Path, index: number) => bigint | undefined;

const isLeaf = (path: Path, index: number): boolean => index === path.descriptors.length - 1;
const levelOf = (path: Path, index: number): number => path.level - (path.descriptors.length - 1 - index);
const granuleOf = (stream: Stream, { stage }: Path): number =>
  (stage === 1 ? stream.table1! : stream.table2!).shape.log2Granule;
const read = (builder: CaseBuilder, path: Path, index: number): bigint =>
  builder.read(path.descriptors[index]);

/** What can be wrong with a descriptor: its new value, or undefined if that does not apply to it. */
export const FAULTS: Readonly<Record<string, Fault>> = {
  invalid: (builder, _stream, path, index) => read(builder, path, index) & ~1n,
  zero: () => 0n,
  reserved: (builder, _stream, path, index) =>
    levelOf(path, index) === 3 ? (read(builder, path, index) & ~3n) | 1n : undefined,
  block: (builder, stream, path, index) =>
    levelOf(path, index) < (granuleOf(stream, path) === 12 ? 1 : 2)
      ? (read(builder, path, index) & ~3n) | 1n
      : undefined,
  access: (builder, _stream, path, index) =>
    isLeaf(path, index) ? read(builder, path, index) & ~LEAF.AF : undefined,
  readonly: (builder, _stream, path, index) => {
    if (!isLeaf(path, index)) return undefined;
    const value = read(builder, path, index);
    return path.stage === 1 ? value | LEAF.AP2 : value & ~LEAF.S2W;
  },
  unreadable: (builder, _stream, path, index) => {
    if (!isLeaf(path, index)) return undefined;
    const value = read(builder, path, index);
    return path.stage === 1 ? value & ~LEAF.AP1 : value & ~LEAF.S2R;
  },
  hierarchical: (builder, _stream, path, index) =>
    path.stage === 1 && !isLeaf(path, index)
      ? read(builder, path, index) | (1n << BigInt(builder.random.chance(0.8) ? 62 : 61))
      : undefined,
  size: (builder, stream, path, index) => {
    const least = path.stage === 1 ? stream.outputBits1 : stream.outputBits2;
    const value = read(builder, path, index) | (1n << BigInt(least + builder.random.below(48 - least)));
    return hasDevices(value & ADDRESS) ? undefined : value;
  },
  nowhere: (builder, stream, path, index) => {
    const bits = path.stage === 1 ? stream.outputBits1 : stream.outputBits2;
    const nested = path.stage === 1 && stream.stage2;
    const target = nested ? builder.random.big(Math.min(bits, 44)) : builder.nowhere(bits);
    if (target === undefined) return undefined;
    const align = isLeaf(path, index) ? BigInt(path.log2Size) : BigInt(granuleOf(stream, path));
    const address = (target >> align) << align;
    return hasDevices(address) ? undefined : (read(builder, path, index) & ~ADDRESS) | address;
  },
};

/** How often each fault is chosen; those that mostly show what is known of QEMU are rare. */
const WEIGHTS: readonly (readonly [string, number])[] = [
  ['invalid', 3],
  ['zero', 1],
  ['reserved', 2],
  ['block', 0.4],
  ['access', 3],
  ['readonly', 3],
  ['unreadable', 0.6],
  ['hierarchical', 0.8],
  ['size', 2],
  ['nowhere', 2],
];

function pickFault(builder: CaseBuilder): string {
  let left = builder.random.next() * WEIGHTS.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [name, weight] of WEIGHTS) {
    left -= weight;
    if (left < 0) return name;
  }
  return 'invalid';
}

/** Makes one descriptor of a path wrong. @returns what it did */
export function spoil(builder: CaseBuilder, stream: Stream, path: Path): string {
  for (;;) {
    const name = pickFault(builder);
    const last = path.descriptors.length - 1;
    const index = builder.random.chance(0.6) ? last : builder.random.below(last + 1);
    const value = FAULTS[name](builder, stream, path, index);
    if (value === undefined) continue;
    builder.write(path.descriptors[index], value);
    return `${name}${path.stage}`;
  }
}

/** Accesses to a page, by both endpoints of the stream or by one. */
export function touch(builder: CaseBuilder, stream: Stream, { iova }: Mapping, count = 2): void {
  const { random } = builder;
  const first = random.below(2);
  for (let i = 0; i < count; i++) {
    const which = (first + (random.chance(0.8) ? i : random.below(2))) & 1;
    let address = iova | (BigInt(random.below(1024)) * 4n);
    const tagged = stream.stage1 && (stream.upper ? stream.cd.TBI1 : stream.cd.TBI0) === 1;
    if (tagged && random.chance(0.3)) address = (address & 0xff_ffff_ffff_ffffn) | (random.big(8) << 56n);
    builder.dma(stream.sids[which], which === 0 ? 'r' : 'w', address);
  }
}

/** An access to somewhere that is most likely not mapped. */
export function miss(builder: CaseBuilder, stream: Stream): void {
  const { random } = builder;
  const known = random.pick(stream.mappings)?.iova ?? random.big(40);
  const iova = random.chance(0.6)
    ? known ^ (1n << BigInt(12 + random.below(52)))
    : random.big(random.pick([32, 44, 48, 64])) & -4n;
  const which = random.below(2);
  builder.dma(stream.sids[which], which === 0 ? 'r' : 'w', iova);
}

/** A stream with a few pages, written to memory. */
export function goodStream(builder: CaseBuilder, options: StreamOptions, pages: number): Stream {
  const stream = new Stream(builder, options);
  for (let i = 0; i < pages; i++) stream.map();
  if (stream.mappings.length === 0) stream.map();
  stream.writeStructures();
  return stream;
}

/** A stream that QEMU has no way of its own with, but for the IPA of a record: what is recorded decides what a queue does. */
export function plainStream(builder: CaseBuilder, sids: StreamOptions['sids'], config: 5 | 6): Stream {
  const stream = goodStream(builder, { sids, config }, 1);
  if (config === 5) Object.assign(stream.cd, { R: 1, TBI0: 0, TBI1: 0 });
  else Object.assign(stream.ste, { S2R: 1, S2PS: 5 });
  stream.writeStructures();
  return stream;
}

/** A page whose first leaf is invalid. */
export function unmapped(builder: CaseBuilder, stream: Stream): bigint {
  const mapping = stream.map();
  if (mapping === undefined) throw new RangeError('no room for a page');
  builder.write(mapping.paths[0].descriptors.at(-1)!, 0n);
  stream.mappings.pop();
  return mapping.iova;
}

/** Tables that do not change: pages that are reached, and pages that are not because something is wrong on the way. */
export function walkCase(builder: CaseBuilder, config: number): string {
  const { random } = builder;
  const options = {
    concatenated: random.chance(0.1),
    scattered: random.chance(0.04),
    bothHalves: random.chance(config === 7 ? 0.1 : 0.5),
  };
  const [sids] = someStreams(builder, 1);
  const stream = goodStream(builder, { config, sids, ...options }, 2 + random.below(4));
  const names: string[] = [];
  for (const mapping of stream.mappings) {
    if (mapping.paths.length === 0 || random.chance(0.45)) continue;
    names.push(spoil(builder, stream, random.pick(mapping.paths)));
    // Two things wrong: one of them counts.
    if (random.chance(0.2)) names.push(spoil(builder, stream, random.pick(mapping.paths)));
  }
  if (stream.tablePaths.length > 0 && random.chance(0.25)) {
    const path = random.chance(0.3) ? stream.cdPath! : random.pick(stream.tablePaths);
    names.push(`table.${spoil(builder, stream, path)}`);
  }
  builder.setup();
  for (const mapping of stream.mappings) touch(builder, stream, mapping, 1 + random.below(3));
  for (let i = random.below(3); i > 0; i--) miss(builder, stream);
  if (random.chance(0.3) && stream.mappings.length > 0)
    touch(builder, stream, random.pick(stream.mappings), 2);
  return names.join('+');
}
