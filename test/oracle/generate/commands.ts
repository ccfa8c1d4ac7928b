import { type CaseBuilder, OPCODE } from './case-builder.ts';

/** A command as {@link CaseBuilder.command} takes it. */
export type Command = [opcode: number, w1: bigint, more: bigint];

const sidOf = (builder: CaseBuilder): bigint => builder.random.big(16) << 32n;

/** Fields of a range invalidation, such that the range is legal (4.4.1.1). */
function range(builder: CaseBuilder): { more: bigint; w1: bigint } {
  const { random } = builder;
  if (random.chance(0.4)) return { more: 0n, w1: random.big(52) << 12n };
  const tg = 1 + random.below(3);
  const ttl = tg === 2 ? random.pick([0, 2, 3]) : random.below(4);
  const scale = random.below(20);
  const num = scale === 0 && ttl === 0 ? 1 + random.below(31) : random.below(32);
  // Aligned to the largest block of any level, so to that of TTL.
  const address = random.big(22) << 42n;
  return {
    more: (BigInt(num) << 12n) | (BigInt(scale) << 20n),
    w1: address | (BigInt(tg) << 10n) | (BigInt(ttl) << 8n),
  };
}

/** A legal command that changes nothing but what is cached. */
export function randomCommand(builder: CaseBuilder): Command {
  const { random } = builder;
  const vmid = random.big(16) << 32n;
  const asid = random.big(16) << 48n;
  const leaf = BigInt(random.below(2));
  const { more, w1 } = range(builder);
  return random.pick<() => Command>([
    // CMD_PREFETCH_CONFIG, CMD_PREFETCH_ADDR.
    () => [0x01, 0n, sidOf(builder)],
    () => [0x02, random.big(52) << 12n, sidOf(builder)],
    () => [OPCODE.CFGI_STE, leaf, sidOf(builder)],
    () => [OPCODE.CFGI_STE_RANGE, BigInt(random.below(32)), sidOf(builder)],
    () => [OPCODE.CFGI_CD, leaf, sidOf(builder)],
    () => [OPCODE.CFGI_CD_ALL, 0n, sidOf(builder)],
    () => [OPCODE.TLBI_NH_ALL, 0n, vmid],
    () => [OPCODE.TLBI_NH_ASID, 0n, vmid | asid],
    () => [OPCODE.TLBI_NH_VA, w1 | leaf, vmid | asid | more],
    () => [OPCODE.TLBI_NH_VAA, w1 | leaf, vmid | more],
    () => [OPCODE.TLBI_S12_VMALL, 0n, vmid],
    () => [OPCODE.TLBI_S2_IPA, (w1 & 0xff_ffff_ffff_ffffn) | leaf, vmid | more],
    () => [OPCODE.TLBI_NSNH_ALL, 0n, 0n],
    // CMD_SYNC; IDR0.MSI and SEV are 0, so it may say what it likes about these.
    () => [OPCODE.SYNC, random.chance(0.3) ? random.big(52) & ~3n : 0n, BigInt(random.below(3)) << 12n],
  ])();
}

/** Commands of EL2, EL3, ATS, PRI and stalls, which are not there. */
const ABSENT = [0x18, 0x1a, 0x20, 0x21, 0x22, 0x23, 0x40, 0x41, 0x44, 0x45];
const EXISTING = [0x01, 0x02, ...Object.values<number>(OPCODE), ...ABSENT];
/** Opcodes that chapter 4 does not have for this SMMU at all: reserved, for Secure, Realm or root, MPAM, DPT. */
const RESERVED = Array.from({ length: 256 }, (_, opcode) => opcode).filter(
  (opcode) => !EXISTING.includes(opcode),
);

/** A command that is CERROR_ILL, and known as that to everyone. */
export function reservedCommand(builder: CaseBuilder): Command {
  const { random } = builder;
  if (random.chance(0.7)) {
    const says = random.chance(0.5);
    return [random.pick(RESERVED), says ? random.big(64) : 0n, says ? random.big(56) << 8n : 0n];
  }
  // 4.1.6: SSec on the Non-secure queue.
  const opcode = random.pick([OPCODE.CFGI_STE, OPCODE.CFGI_STE_RANGE, OPCODE.CFGI_CD, OPCODE.CFGI_CD_ALL]);
  return [opcode, 0n, sidOf(builder) | (1n << 10n)];
}

/** A command that is CERROR_ILL, but not to QEMU. */
export function illegalToUs(builder: CaseBuilder): Command {
  const { random } = builder;
  return random.pick<() => Command>([
    () => [random.pick(ABSENT), 0n, 0n],
    () => [random.pick([0x01, 0x02]), 0n, sidOf(builder) | (1n << 10n)],
    () => [OPCODE.SYNC, 0n, 3n << 12n],
    // 4.4.1.1: one granule of no level is not a range.
    () => [
      random.pick([OPCODE.TLBI_NH_VA, OPCODE.TLBI_NH_VAA, OPCODE.TLBI_S2_IPA]),
      BigInt(1 + random.below(3)) << 10n,
      0n,
    ],
  ])();
}
