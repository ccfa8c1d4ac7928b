import { CR0, type CaseBuilder } from './case-builder.ts';
import { randomCommand, reservedCommand } from './commands.ts';
import { goodStream, miss, plainStream, someStreams, touch, unmapped } from './walks.ts';

const GBPA = 0x44;
const IRQ_CTRL = 0x50;
const GERROR = 0x60;
const GERRORN = 0x64;
const CMDQ_CONS = 0x9c;
const EVENTQ_PROD = 0x100a8;

/** SMMUEN=0, and GBPA in between. */
export function gbpaCase(builder: CaseBuilder): string {
  const { random } = builder;
  const [sids] = someStreams(builder, 1);
  const stream = goodStream(builder, { sids }, 2);
  const pages = Array.from({ length: 3 }, () => builder.dataPage().page);
  let cr0 = random.pick([0, CR0.EVENTQEN, CR0.CMDQEN, CR0.CMDQEN | CR0.EVENTQEN, CR0.ALL]);
  builder.setup({ cr0 });
  for (let i = 3 + random.below(4); i > 0; i--) {
    // Only with UPDATE is it a write; SHCFG does nothing here.
    const value = random.pick([0, 0x10_0000]) | (random.below(4) << 12);
    builder.w32(GBPA, random.chance(0.7) ? value | 0x8000_0000 : value);
    builder.r32(GBPA);
    if (random.chance(0.4)) {
      // Once it has been on, the caches are as the setup left them: empty or filled from these tables.
      cr0 = random.chance(0.5) && (cr0 & CR0.CMDQEN) !== 0 ? cr0 ^ CR0.SMMUEN : cr0;
      builder.w32(0x20, cr0);
      builder.r32(0x24);
    }
    const page = random.pick(pages) | (BigInt(random.below(1024)) * 4n);
    for (const which of [0, 1] as const) {
      const beyond = random.chance(0.1) ? 1n << BigInt(44 + random.below(20)) : 0n;
      if (random.chance(0.8)) builder.dma(sids[which], which === 0 ? 'r' : 'w', page | beyond);
    }
    if (random.chance(0.3)) for (const mapping of stream.mappings) touch(builder, stream, mapping, 1);
  }
  return '';
}

const READ_ONLY = [0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x1c, 0x24, 0x54, 0x60];
const READABLE = [0x80, 0x84, 0x88, 0x90, 0x94, 0xa0, 0xa4, 0x28, 0x2c, 0x98, 0x9c, 0x44, 0x50, 0x64];
/** Without ATS, PRI, MSI and the rest, nothing is there (6.1). */
const NOTHING = [0x30, 0x40, 0x68, 0x6c, 0x70, 0xb0, 0xb4, 0xb8, 0xbc, 0xc0, 0xc8, 0xd0, 0xdc, 0x200];

/** Enables and their acknowledgements, identification, what is read-only, and what can be read back. */
export function cr0Case(builder: CaseBuilder): string {
  const { random } = builder;
  const [sids] = someStreams(builder, 1);
  const stream = goodStream(builder, { sids }, 2);
  builder.setup({ cr0: random.pick([CR0.CMDQEN, CR0.CMDQEN | CR0.EVENTQEN, CR0.ALL]) });
  let cr0: number = CR0.ALL;
  for (let i = 4 + random.below(5); i > 0; i--) {
    const kind = random.below(5);
    if (kind === 0) {
      const offset = random.pick(READ_ONLY);
      builder.w32(offset, random.chance(0.2) ? random.pick([0, 0xffff_ffff]) : random.below(2 ** 32));
      builder.r32(offset);
    } else if (kind === 1) {
      builder.w32(0x50, random.pick([0, 1, 4, 5]));
      builder.r32(0x50, 0x54);
    } else if (kind === 2) {
      for (let n = random.below(6); n >= 0; n--)
        builder.r32(random.pick(random.pick([READABLE, READABLE, READ_ONLY, NOTHING])));
    } else if (kind === 3) {
      cr0 = random.pick([0, CR0.CMDQEN, CR0.EVENTQEN, CR0.SMMUEN, CR0.ALL, CR0.SMMUEN | CR0.EVENTQEN]);
      builder.w32(0x20, cr0);
      builder.r32(0x20, 0x24);
      // With all of it off, the settings may be changed.
      if (cr0 === 0 && random.chance(0.5)) {
        builder.w32(0x28, random.below(0x1000));
        builder.w32(0x2c, random.pick([0, 2]));
        builder.r32(0x28, 0x2c);
      }
    }
    for (const mapping of stream.mappings) touch(builder, stream, mapping, 1);
    if (random.chance(0.5)) miss(builder, stream);
    builder.r32(EVENTQ_PROD);
  }
  return '';
}

/** Errors of both queues, acknowledged in any order. Only active errors are acknowledged (6.3.20). */
export function gerrorCase(builder: CaseBuilder): string {
  const { random } = builder;
  const [sids] = someStreams(builder, 1);
  const stream = plainStream(builder, sids, random.pick([5, 5, 6]));
  const faulty = unmapped(builder, stream);
  const { page } = builder.dataPage();
  const abort = random.chance(0.6);
  builder.setup({ cmdqLog2: 3 + random.below(6), ...(abort && { eventqBase: builder.nowhere(44)! }) });
  let acknowledged = 0;
  let commandError = false;
  let eventError = false;
  for (let i = 5 + random.below(6); i > 0; i--) {
    const kind = random.below(7);
    if (kind === 5) {
      builder.w32(IRQ_CTRL, random.pick([0, 1, 4, 5]));
      builder.r32(IRQ_CTRL + 4);
    } else if (kind === 6) {
      // Errors change nothing about what passes while the SMMU is off.
      builder.w32(0x20, CR0.ALL & ~CR0.SMMUEN);
      builder.w32(GBPA, random.pick([0x8000_1000, 0x8010_0000]));
      builder.dma(sids[0], 'r', page);
      builder.r32(GERROR, CMDQ_CONS);
      builder.w32(0x20, CR0.ALL);
    } else if (kind === 0) {
      builder.dma(sids[0], 'r', faulty);
      eventError ||= abort;
    } else if (kind === 1) touch(builder, stream, stream.mappings[0], 1);
    else if (kind === 2 && !commandError) {
      for (let n = random.below(3); n > 0; n--) builder.command(...randomCommand(builder));
      builder.command(...reservedCommand(builder));
      for (let n = random.below(3); n > 0; n--) builder.command(...randomCommand(builder));
      builder.submit();
      commandError = true;
    } else if (kind === 3 && commandError) {
      // 7.1: the slot is read again, so it may be changed; CONS is still at it.
      builder.mend();
      acknowledged ^= 1;
      builder.w32(GERRORN, acknowledged);
      commandError = false;
    } else if (kind === 4 && eventError) {
      acknowledged ^= 4;
      builder.w32(GERRORN, acknowledged);
      eventError = false;
    }
    if (random.chance(0.5)) builder.r32(GERROR, GERRORN);
    if (random.chance(0.5)) builder.r32(CMDQ_CONS);
    if (!abort && random.chance(0.2)) builder.r32(EVENTQ_PROD);
  }
  return abort ? 'abort' : '';
}
