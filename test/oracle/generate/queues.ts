import { CR0, type CaseBuilder } from './case-builder.ts';
import { type Command, illegalToUs, randomCommand, reservedCommand } from './commands.ts';
import { goodStream, plainStream, someStreams, touch, unmapped } from './walks.ts';

const GERROR = 0x60;
const GERRORN = 0x64;
const CMDQ = { PROD: 0x98, CONS: 0x9c } as const;
const EVENTQ = { PROD: 0x100a8, CONS: 0x100ac } as const;

/** Commands of all kinds, queues of all sizes, errors and how one goes on after them. */
export function cmdqCase(builder: CaseBuilder): string {
  const { random } = builder;
  const [sids] = someStreams(builder, 1);
  const stream = goodStream(builder, { sids }, 1);
  const log2 = random.pick([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  const variant: string[] = [];
  if (random.chance(0.05)) {
    builder.setup({ cmdqLog2: log2, cmdqBase: builder.nowhere(44)!, cr0: CR0.SMMUEN | CR0.EVENTQEN });
    return abortedFetch(builder);
  }
  const size = 16n << BigInt(log2);
  if (random.chance(0.06)) {
    variant.push('base');
    const low = log2 < 2 ? 32n : random.big(12) & (size - 1n) & -32n;
    // QEMU reads other commands, so only one batch can be compared.
    builder.setup({
      cmdqLog2: log2,
      cmdqBase: builder.take(2n * size) | low,
      cr0: CR0.SMMUEN | CR0.EVENTQEN,
    });
    for (let i = 1 + random.below(Math.min(2 ** log2, 12)); i > 0; i--)
      builder.command(...randomCommand(builder));
    builder.submit();
    builder.w32(0x20, CR0.ALL);
    builder.r32(CMDQ.CONS, GERROR);
    return variant.join('+');
  }
  builder.setup({ cmdqLog2: log2 });
  let acknowledged = 0;
  for (let i = 2 + random.below(4); i > 0; i--) {
    const kind = random.below(10);
    const batch = 1 + random.below(Math.min(2 ** log2, 12));
    const commands: Command[] = Array.from({ length: batch }, () => randomCommand(builder));
    const bad =
      kind < 3
        ? reservedCommand(builder)
        : kind === 3 && random.chance(0.5)
          ? illegalToUs(builder)
          : undefined;
    if (bad !== undefined) {
      const at = random.below(batch);
      commands[at] = bad;
      variant.push(bad[0].toString(16));
    }
    for (const command of commands) builder.command(...command);
    if (random.chance(0.2)) {
      // Written while the queue is off; it goes on when it is turned on.
      builder.w32(0x20, random.pick([0, CR0.SMMUEN, CR0.EVENTQEN, CR0.SMMUEN | CR0.EVENTQEN]));
      builder.submit();
      builder.r32(CMDQ.CONS);
      builder.w32(0x20, CR0.ALL);
    } else builder.submit();
    builder.r32(CMDQ.PROD, CMDQ.CONS, GERROR);
    // QEMU does not stop there, so nothing can be compared any more.
    if (kind === 3 && bad !== undefined) break;
    if (bad !== undefined) {
      builder.mend();
      acknowledged ^= 1;
      builder.w32(GERRORN, acknowledged);
      builder.r32(CMDQ.CONS, GERROR);
    }
    if (random.chance(0.3)) touch(builder, stream, stream.mappings[0], 1);
  }
  return variant.join('+');
}

/** CERROR_ABT, and a queue that is somewhere else afterwards. */
function abortedFetch(builder: CaseBuilder): string {
  const { random } = builder;
  builder.w32(CMDQ.PROD, (builder.prod + 1) % (2 << builder.cmdq.log2));
  builder.w32(0x20, CR0.ALL);
  builder.r32(CMDQ.CONS, GERROR);
  builder.w32(GERRORN, 1);
  builder.r32(CMDQ.CONS, GERROR, GERRORN);
  builder.w32(0x20, CR0.SMMUEN | CR0.EVENTQEN);
  builder.w32(GERRORN, 0);
  builder.moveCommandQueue(2 + random.below(3));
  builder.w32(0x20, CR0.ALL);
  for (let i = random.below(4); i >= 0; i--) builder.command(...randomCommand(builder));
  builder.submit();
  builder.r32(CMDQ.CONS, GERROR);
  return 'abort';
}

/** An Event queue that fills, wraps, is drained or in part, is turned off, overflows. */
export function evtqCase(builder: CaseBuilder): string {
  const { random } = builder;
  const [sids] = someStreams(builder, 1);
  const unaligned = random.chance(0.06);
  // Where records are elsewhere in QEMU, they have to be the same.
  const stream = plainStream(builder, sids, unaligned ? 5 : random.pick([5, 5, 6]));
  const faulty = unmapped(builder, stream);
  const log2 = random.pick([0, 1, 1, 2, 2, 3, 4, 5, 6, 7]);
  const size = 2 ** log2;
  const variant: string[] = [];
  const bytes = 32n << BigInt(log2);
  if (unaligned) {
    variant.push('base');
    const low = log2 === 0 ? 32n : random.big(10) & (bytes - 1n) & -32n;
    builder.setup({ eventqLog2: log2, eventqBase: (builder.take(4n * bytes) + 2n * bytes) | low });
  } else builder.setup({ eventqLog2: log2 });
  const overflows = !unaligned && random.chance(0.12);
  let used = 0;
  let enabled = true;
  for (let i = Math.min(6 + random.below(14) + random.below(size + 1), 80); i > 0; i--) {
    const kind = random.below(10);
    if (kind < 5) {
      if (enabled && used === size && !overflows) continue;
      if (enabled && used === size && !variant.includes('overflow')) variant.push('overflow');
      builder.dma(sids[i & 1], (i & 1) === 0 ? 'r' : 'w', faulty | (BigInt(random.below(1024)) * 4n));
      if (enabled) used = Math.min(used + 1, size);
    } else if (kind === 5) {
      builder.drain();
      used = 0;
    } else if (kind === 6) {
      // Nothing is recorded while it is off, and that is no overflow (7.4).
      enabled = !enabled;
      builder.w32(0x20, enabled ? CR0.ALL : CR0.ALL & ~CR0.EVENTQEN);
    } else if (kind === 7) touch(builder, stream, stream.mappings[0], 1);
    else if (kind === 8) builder.r32(EVENTQ.PROD, GERROR);
    else builder.r32(EVENTQ.CONS);
  }
  return variant.join('+');
}
