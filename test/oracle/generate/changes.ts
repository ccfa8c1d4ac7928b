import { LEAF } from '../../support/tables.ts';
import { CR0, type CaseBuilder, OPCODE } from './case-builder.ts';
import { randomCommand } from './commands.ts';
import type { Path } from './path.ts';
import { type Mapping, Stream } from './stream.ts';
import { goodStream, miss, someStreams, touch } from './walks.ts';

const FULL = 0xffff_ffff_ffff_ffffn;
const ADDRESS = 0xffff_ffff_f000n;

/** Streams that share what they may, and what they then must keep apart. */
interface World {
  readonly builder: CaseBuilder;
  readonly streams: readonly Stream[];
}

const sidBits = (sid: number): bigint => BigInt(sid) << 32n;
const vmidBits = ({ vmid }: Stream): bigint => BigInt(vmid) << 32n;
const asidBits = ({ asid }: Stream): bigint => BigInt(asid) << 48n;

/** A range of the granule of a leaf that covers just the leaf (4.4.1.1); single addresses as well. */
function rangeOf(
  builder: CaseBuilder,
  path: Path,
  granule: number,
  inside = builder.random.big(64) & ((1n << BigInt(path.log2Size)) - 1n),
): { more: bigint; w1: bigint } {
  const { random } = builder;
  const block = (path.input >> BigInt(path.log2Size)) << BigInt(path.log2Size);
  const tg = BigInt((granule - 10) / 2);
  const log2 = path.log2Size - granule;
  const named = random.chance(0.5) && path.level > 0 && !(tg === 2n && path.level === 1);
  const ttl = named ? BigInt(path.level) : 0n;
  const scale = Math.max(log2 - random.below(5), 0);
  const num = 2 ** (log2 - scale) - 1;
  if (random.chance(0.4) || (num === 0 && scale === 0 && ttl === 0n)) {
    return { more: 0n, w1: (block | inside) & -4096n & FULL };
  }
  return {
    more: (BigInt(num) << 12n) | (BigInt(scale) << 20n),
    w1: (block & -4096n & FULL) | (tg << 10n) | (ttl << 8n),
  };
}

/** Commands that are enough for a changed leaf of stage 1, of one of many kinds. */
function invalidateStage1(stream: Stream, path: Path, { iova }: Mapping): void {
  const { builder } = stream;
  const granule = stream.table1!.shape.log2Granule;
  // With two stages QEMU finds only what is in the same leaf of both.
  const near = stream.stage2 && builder.random.chance(0.95);
  const inside = near ? iova & ((1n << BigInt(path.log2Size)) - 1n) : undefined;
  const { more, w1 } = rangeOf(builder, { ...path, input: stream.va(path.input) }, granule, inside);
  const leaf = BigInt(builder.random.below(2));
  const vmid = vmidBits(stream);
  builder.random.pick([
    () => builder.command(OPCODE.TLBI_NH_VA, w1 | leaf, vmid | asidBits(stream) | more),
    () => builder.command(OPCODE.TLBI_NH_VA, w1 | leaf, vmid | asidBits(stream) | more),
    () => builder.command(OPCODE.TLBI_NH_VAA, w1 | leaf, vmid | more),
    () => builder.command(OPCODE.TLBI_NH_ASID, 0n, vmid | asidBits(stream)),
    () => builder.command(OPCODE.TLBI_NH_ALL, 0n, vmid),
    () => builder.command(OPCODE.TLBI_S12_VMALL, 0n, vmid),
    () => builder.command(OPCODE.TLBI_NSNH_ALL),
  ])();
}

/** The same for stage 2. What is cached of both stages together goes by stage 1's commands. */
function invalidateStage2(stream: Stream, path: Path): void {
  const { builder } = stream;
  const { more, w1 } = rangeOf(builder, path, stream.table2!.shape.log2Granule);
  const vmid = vmidBits(stream);
  builder.random.pick([
    () => {
      builder.command(OPCODE.TLBI_S2_IPA, w1 | BigInt(builder.random.below(2)), vmid | more);
      if (stream.stage1) builder.command(OPCODE.TLBI_NH_ALL, 0n, vmid);
    },
    () => builder.command(OPCODE.TLBI_S12_VMALL, 0n, vmid),
    () => builder.command(OPCODE.TLBI_NSNH_ALL),
  ])();
}

function invalidateSte(stream: Stream): void {
  const { builder } = stream;
  const leaf = BigInt(builder.random.below(2));
  if (builder.random.chance(0.3)) builder.command(OPCODE.CFGI_STE_RANGE, 31n);
  else
    for (const sid of stream.sids) {
      if (builder.random.chance(0.7)) builder.command(OPCODE.CFGI_STE, leaf, sidBits(sid));
      else builder.command(OPCODE.CFGI_STE_RANGE, BigInt(builder.random.below(8)), sidBits(sid));
    }
}

function invalidateCd(stream: Stream): void {
  const { builder } = stream;
  for (const sid of stream.sids) {
    const leaf = BigInt(builder.random.below(2));
    if (builder.random.chance(0.5)) builder.command(OPCODE.CFGI_CD, leaf, sidBits(sid));
    else builder.command(OPCODE.CFGI_CD_ALL, 0n, sidBits(sid));
  }
}

/** Everything of a stream's VMID. */
const invalidateAll = (stream: Stream): void =>
  stream.builder.random.chance(0.5)
    ? stream.builder.command(OPCODE.TLBI_S12_VMALL, 0n, vmidBits(stream))
    : stream.builder.command(OPCODE.TLBI_NSNH_ALL);

/** Changes one leaf: valid or not, attributes, where it leads. */
function changeLeaf(stream: Stream, mapping: Mapping): void {
  const { builder } = stream;
  const { random } = builder;
  const path = random.pick(mapping.paths);
  const at = path.descriptors.at(-1)!;
  const old = builder.read(at);
  const isFinal = path.stage === 2 || !stream.stage2;
  let value = old;
  const kind = random.below(4);
  if (kind === 0) value = old ^ 1n;
  else if (kind === 1) value = old ^ LEAF.AF;
  else if (kind === 2) value = old ^ (path.stage === 1 ? LEAF.AP2 : LEAF.S2W);
  else if (isFinal) {
    const size = 1n << BigInt(path.log2Size);
    const { block } = builder.dataPage(size, mapping.offset % size);
    value = (old & ~(ADDRESS & -size)) | block | 1n;
  } else value |= 1n | LEAF.AF;
  // Not everything that was changed needs to be valid again: make it so, mostly.
  if (random.chance(0.3)) value |= 1n | LEAF.AF;
  if (path.level === 3) value |= 2n;
  builder.write(at, value);
  if (path.stage === 1) invalidateStage1(stream, path, mapping);
  else invalidateStage2(stream, path);
}

/** Changes what stage 1 reads through stage 2. */
function changeTablePage(stream: Stream): void {
  const { builder } = stream;
  const { random } = builder;
  const i = random.below(stream.tablePaths.length);
  const path = stream.tablePaths[i];
  const at = path.descriptors.at(-1)!;
  builder.write(at, builder.read(at) ^ random.pick([1n, LEAF.AF, LEAF.AF, LEAF.S2R]));
  builder.command(OPCODE.TLBI_S12_VMALL, 0n, vmidBits(stream));
  // The page of the CD: it is read again only after CFGI_CD. QEMU needs that for every page.
  if (path === stream.cdPath || random.chance(0.85)) invalidateCd(stream);
}

function changeCd(stream: Stream): void {
  const { builder, cd } = stream;
  const { random } = builder;
  const kind = random.below(6);
  if (kind === 0) cd.V = cd.V === 0 ? 1 : 0;
  else if (kind === 1) cd.R = cd.R === 0 ? 1 : 0;
  else if (kind === 2) cd.AFFD = cd.AFFD === 1 ? 0 : 1;
  else if (kind === 3) cd.A = cd.A === 0 ? 1 : 0;
  else if (kind === 4) {
    // Another ASID, that nobody has used.
    stream.asid = (stream.asid + 0x101) & 0xffff;
    cd.ASID = stream.asid;
  } else Object.assign(cd, stream.upper ? { EPD1: cd.EPD1 === 1 ? 0 : 1 } : { EPD0: cd.EPD0 === 1 ? 0 : 1 });
  if (random.chance(0.3)) Object.assign(cd, { V: 1, A: 1 });
  stream.writeCd();
  invalidateCd(stream);
  // 5.4.1: V, A and R are not in a TLB, nor is a new ASID.
  if (kind === 2 || kind === 5) invalidateAll(stream);
}

function changeSte(stream: Stream): void {
  const { builder, ste } = stream;
  const { random } = builder;
  const kind = random.below(5);
  if (kind === 0) ste.V = ste.V === 0 ? 1 : 0;
  else if (kind === 1) ste.Config = ste.Config === stream.config ? random.pick([0, 4]) : stream.config;
  else if (kind === 2 && stream.stage2) ste.S2R = ste.S2R === 1 ? 0 : 1;
  else if (kind === 3 && stream.stage2) ste.S2AFFD = ste.S2AFFD === 1 ? 0 : 1;
  else if (kind === 4 && (stream.stage1 || stream.stage2)) {
    stream.vmid = (stream.vmid + 0x101) & 0xffff;
    ste.S2VMID = stream.vmid;
  }
  for (const sid of stream.sids) stream.writeSte(sid);
  invalidateSte(stream);
  // 5.2.1: of these only S2AFFD may be in a TLB.
  if (kind === 3) invalidateAll(stream);
}

/** One change and the commands that are enough for it; sometimes others that are not needed. */
function change({ builder, streams }: World): void {
  const { random } = builder;
  const stream = random.pick(streams);
  const mapping = random.pick(stream.mappings);
  const kind = random.below(10);
  if (random.chance(0.3)) builder.command(...randomCommand(builder));
  if (kind < 5 && mapping.paths.length > 0) changeLeaf(stream, mapping);
  else if (kind === 5 && stream.stage1) changeCd(stream);
  else if (kind === 6) changeSte(stream);
  else if (kind === 7 && stream.stage1 && stream.stage2) changeTablePage(stream);
  else {
    // A new page where there was none: faults are not cached, so nothing is invalidated (16.2).
    stream.map();
    if (random.chance(0.5)) return;
  }
  if (random.chance(0.3)) builder.command(...randomCommand(builder));
  builder.sync();
}

/** Streams: some of stage 1 only share a VMID, with ASIDs of their own. */
function makeStreams(builder: CaseBuilder, count: number): Stream[] {
  const { random } = builder;
  const shared = random.below(0x100);
  return someStreams(builder, count).map((sids, i) => {
    const config = random.pick([4, 5, 5, 5, 6, 6, 7, 7, 7]);
    const vmid = config === 5 && random.chance(0.5) ? shared : 0x1000 * (i + 1) + random.below(0x100);
    const asid = 0x1000 * (i + 1) + random.below(0x100);
    return goodStream(builder, { sids, config, vmid, asid }, 2 + random.below(2));
  });
}

function someAccesses({ builder, streams }: World): void {
  const { random } = builder;
  for (const stream of streams) {
    if (streams.length > 1 && random.chance(0.3)) continue;
    for (const mapping of stream.mappings)
      if (random.chance(0.6)) touch(builder, stream, mapping, 1 + random.below(2));
  }
}

/** Changes to tables and structures that are in use, each with the invalidation that it needs. */
export function changesCase(builder: CaseBuilder): string {
  const { random } = builder;
  const world = { builder, streams: makeStreams(builder, 1 + random.below(3)) };
  builder.setup({ eventqLog2: 7 });
  someAccesses(world);
  for (let i = 2 + random.below(4); i > 0; i--) {
    change(world);
    someAccesses(world);
  }
  return '';
}

/** All of it: changes, registers, drains, misses. */
export function mixCase(builder: CaseBuilder): string {
  const { random } = builder;
  const world = { builder, streams: makeStreams(builder, 2 + random.below(2)) };
  builder.setup({ eventqLog2: 6, recinvsid: true });
  let on = true;
  for (let i = 4 + random.below(5); i > 0; i--) {
    const kind = random.below(8);
    if (kind < 3) change(world);
    else if (kind === 3) builder.drain();
    else if (kind === 4) miss(builder, random.pick(world.streams));
    else if (kind === 5 && random.chance(0.5)) {
      on = !on;
      builder.w32(0x20, on ? CR0.ALL : CR0.ALL & ~CR0.SMMUEN);
      builder.r32(0x24);
    } else if (kind === 6) builder.r32(random.pick([0x9c, 0x60, 0x100a8, 0x100ac]));
    someAccesses(world);
  }
  return '';
}
