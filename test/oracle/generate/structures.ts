import type { CdFields, SteFields } from '../../support/tables.ts';
import { CR0, type CaseBuilder, OPCODE } from './case-builder.ts';
import type { Stream } from './stream.ts';
import { goodStream, hasDevices, miss, someSids, someStreams, spoil, touch } from './walks.ts';

/** Widths of fields that may be given any value, right or wrong. */
type Values = Readonly<Record<string, number>>;

/**
 * Fields of an STE and how many bits they have. Not S2AA64: with S2AA64=0 QEMU ends. Not CONT, whose neighbours would have
 * to agree, and not S1ContextPtr, which is an address.
 */
const STE_WIDTHS: Values = {
  V: 1,
  Config: 3,
  S1Fmt: 2,
  S1CDMax: 5,
  S1DSS: 2,
  S2FWB: 1,
  S1STALLD: 1,
  EATS: 2,
  STRW: 2,
  PRIVCFG: 2,
  INSTCFG: 2,
  S2VMID: 16,
  S2T0SZ: 6,
  S2SL0: 2,
  S2TG: 2,
  S2PS: 3,
  S2ENDI: 1,
  S2AFFD: 1,
  S2PTW: 1,
  S2HD: 1,
  S2HA: 1,
  S2S: 1,
  S2R: 1,
};

const STAGE_1 = ['S1Fmt', 'S1CDMax', 'S1DSS', 'S1STALLD'] as const;
const STAGE_2 = [
  'S2T0SZ',
  'S2SL0',
  'S2TG',
  'S2PS',
  'S2ENDI',
  'S2AFFD',
  'S2PTW',
  'S2HD',
  'S2HA',
  'S2S',
  'S2R',
] as const;

/** Not IPS, which is thrown by itself. */
const CD_WIDTHS: Values = {
  T0SZ: 6,
  TG0: 2,
  EPD0: 1,
  ENDI: 1,
  T1SZ: 6,
  TG1: 2,
  EPD1: 1,
  V: 1,
  AFFD: 1,
  WXN: 1,
  TBI0: 1,
  TBI1: 1,
  PAN: 1,
  AA64: 1,
  HD: 1,
  HA: 1,
  S: 1,
  R: 1,
  A: 1,
  ASET: 1,
  ASID: 16,
  HAD0: 1,
  E0PD0: 1,
  EPAN: 1,
  HAD1: 1,
  E0PD1: 1,
};

function scramble(
  builder: CaseBuilder,
  fields: SteFields | CdFields,
  widths: Values,
  count: number,
): string[] {
  const { random } = builder;
  const names: string[] = [];
  for (let i = 0; i < count; i++) {
    const name = random.pick(Object.keys(widths));
    const width = widths[name];
    (fields as Record<string, number>)[name] = random.below(2 ** width);
    names.push(name);
  }
  return names;
}

function accesses(builder: CaseBuilder, stream: Stream): void {
  const { random } = builder;
  for (const mapping of stream.mappings) touch(builder, stream, mapping, 1 + random.below(2));
  if (random.chance(0.4)) miss(builder, stream);
}

/** An STE with fields that were thrown. */
export function steCase(builder: CaseBuilder): string {
  const { random } = builder;
  const [sids] = someStreams(builder, 1);
  const stream = goodStream(builder, { sids, concatenated: random.chance(0.05) }, 1 + random.below(3));
  const names = scramble(builder, stream.ste, STE_WIDTHS, 1 + random.below(3));
  if (random.chance(0.2)) {
    // 5.2: fields of a stage that Config does not ask for are IGNORED.
    const off = [...(stream.stage1 ? [] : STAGE_1), ...(stream.stage2 ? [] : STAGE_2)];
    const all = Object.fromEntries(off.map((name) => [name, random.below(2 ** STE_WIDTHS[name])]));
    Object.assign(stream.ste, all);
    if (!stream.stage2) stream.ste.S2TTB = random.big(56);
    names.push('ignored');
  }
  if (random.chance(0.1) && stream.ste.S2TTB !== undefined) {
    stream.ste.S2TTB = highBit(builder, stream.ste.S2TTB);
    names.push('S2TTB');
  }
  if (random.chance(0.1) && stream.ste.S1ContextPtr !== undefined && !stream.stage2) {
    const pointer = random.chance(0.5)
      ? (1n << BigInt(44 + random.below(12))) | stream.cdIpa
      : builder.nowhere(44)!;
    stream.ste.S1ContextPtr = pointer;
    names.push('S1ContextPtr');
  }
  // The stage that Config asks for may never have been made; address 0 is not nowhere.
  stream.ste.S1ContextPtr ??= builder.take(64n);
  // What was an IPA may be a PA now, of one of the devices of QEMU's machine.
  if (hasDevices(BigInt(stream.ste.S1ContextPtr))) throw new RangeError('S1ContextPtr leads to a device');
  stream.writeStructures();
  if (random.chance(0.3)) {
    // 5.2: of other Security states, or not there without MPAM.
    for (const sid of sids) builder.write(builder.streamTable.ste(sid) + 32n, ...junk(builder));
  }
  if (random.chance(0.3) && stream.mappings.length > 0) {
    const { paths } = random.pick(stream.mappings);
    if (paths.length > 0) names.push(spoil(builder, stream, random.pick(paths)));
  }
  builder.setup();
  accesses(builder, stream);
  return names.join('+');
}

const junk = ({ random }: CaseBuilder): bigint[] => [
  random.big(64),
  random.big(64),
  random.big(64),
  random.big(64),
];

/** A base with one more bit, but not so that it leads to devices (from 2^38 to 2^40). */
const highBit = (builder: CaseBuilder, base: number | bigint): bigint =>
  BigInt(base) |
  (1n << BigInt(builder.random.chance(0.5) ? 34 + builder.random.below(4) : 40 + builder.random.below(12)));

/** A CD with fields that were thrown. */
export function cdCase(builder: CaseBuilder): string {
  const { random } = builder;
  const [sids] = someStreams(builder, 1);
  const config = random.pick([5, 5, 5, 7]);
  const options = { config, sids, bothHalves: random.chance(config === 5 ? 0.5 : 0.1) };
  const stream = goodStream(builder, options, 1 + random.below(3));
  const names = scramble(builder, stream.cd, CD_WIDTHS, random.below(3));
  if (random.chance(0.2)) {
    // QEMU ends at 52 bits and more, and it takes time to start another.
    stream.cd.IPS = random.chance(0.95) ? random.below(6) : 6;
    names.push('IPS');
  }
  if (random.chance(0.15)) {
    const which = random.pick(['TTB0', 'TTB1'] as const);
    stream.cd[which] = highBit(builder, stream.cd[which] ?? 0);
    names.push(which);
  }
  stream.writeStructures();
  if (random.chance(0.3) && stream.mappings.length > 0) {
    const { paths } = random.pick(stream.mappings);
    if (paths.length > 0) names.push(spoil(builder, stream, random.pick(paths)));
  }
  if (random.chance(0.1) && !stream.stage2) {
    stream.ste.S1ContextPtr = builder.nowhere(44)!;
    stream.writeSte(sids[random.below(2)]);
    names.push('fetch');
  }
  builder.setup();
  accesses(builder, stream);
  return names.join('+');
}

/** Invalid and unreachable stream tables of both forms. */
export function strtabCase(builder: CaseBuilder): string {
  const { random } = builder;
  const table = builder.streamTable;
  table.make(random.pick([10, 10, 11, 14, 16, 20, 24]));
  const streams = someSids(builder, 2).map((sids) =>
    goodStream(builder, { sids, config: random.pick([4, 4, 5, 6, 7]) }, 1),
  );
  const names: string[] = [];
  if (table.split !== 0 && random.chance(0.8)) names.push(spoilL1(builder, streams));
  // Smaller than the StreamIDs, or larger than SIDSIZE: both are limits of the range only (6.3.25).
  if (random.chance(0.4)) {
    const log2 = random.below(10);
    const aligned = table.split === 0 ? 64n << BigInt(log2) : 8n << BigInt(Math.max(log2 - table.split, 3));
    table.config = (table.config & ~63) | log2;
    table.base |= random.big(20) & (aligned - 1n) & -64n;
    names.push('small');
  } else if (random.chance(0.1)) {
    table.base = builder.nowhere(44)! & -0x1000_0000n;
    names.push('nowhere');
  }
  builder.setup({ recinvsid: random.chance(0.85) });
  for (const stream of streams) accesses(builder, stream);
  if (random.chance(0.3)) {
    names.push('moved');
    moveTable(builder, streams);
  }
  return names.join('+');
}

/** Changes a first-level descriptor. */
function spoilL1(builder: CaseBuilder, streams: readonly Stream[]): string {
  const { random, streamTable: table } = builder;
  const sid = random.pick(random.pick(streams).sids);
  const at = table.l1(sid);
  const pointer = builder.read(at) & ~31n;
  const kind = random.pick(['zero', 'reserved', 'short', 'short', 'long', 'nowhere', 'low']);
  const short = 1 + random.below(table.split);
  const span = {
    zero: 0,
    reserved: 12 + random.below(20),
    short,
    // 5.1.1: more than SPLIT + 1 is as bad as 0.
    long: Math.min(table.split + 1 + random.below(12 - table.split), 11),
    nowhere: table.split + 1,
    low: table.split + 1,
  }[kind]!;
  let address = pointer;
  if (kind === 'nowhere') address = builder.nowhere(44)! & -0x1_0000n;
  // The array is aligned to its size.
  if (kind === 'low') address |= random.big(6 + table.split) & -64n;
  builder.write(at, address | BigInt(span));
  return kind;
}

/** The same STEs in a table somewhere else, of another form. */
function moveTable(builder: CaseBuilder, streams: readonly Stream[]): void {
  const { random, streamTable: table } = builder;
  builder.w32(0x20, CR0.CMDQEN | CR0.EVENTQEN);
  table.make(random.pick([10, 11, 12, 17]), random.chance(0.85) ? random.pick([6, 8, 10]) : 0);
  for (const stream of streams) stream.writeStructures();
  builder.base(0x80, table.base);
  builder.w32(0x88, table.config);
  builder.command(OPCODE.CFGI_STE_RANGE, 31n);
  builder.command(OPCODE.TLBI_NSNH_ALL);
  builder.sync();
  builder.w32(0x20, CR0.ALL);
  for (const stream of streams) accesses(builder, stream);
}
