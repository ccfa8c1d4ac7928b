import type { Step } from '../../src/conformance/vector.ts';
import { CaseState } from './case-state.ts';
import type { Departure } from './departures.ts';
import type { ModelResult } from './model-oracle.ts';
import { EVENT_BYTES, type OracleCase, toHex } from './oracle-case.ts';
import { accessesOf } from './records.ts';
import { structuresOf } from './walker.ts';

/** A departure that is not of single accesses: of registers, of queues, or QEMU ends. */
export interface CaseDeparture extends Departure {
  readonly id: string;
  /** Whether there is anything in the case, or in what the model made of it, that QEMU does in its own way. */
  applies(given: OracleCase, result: ModelResult): boolean;
  /** The case in which the architecture does what QEMU does. */
  rewrite?(given: OracleCase): OracleCase;
  /** Changes results, where no other case has them. */
  adjust?(given: OracleCase, result: ModelResult, original: OracleCase): void;
  /** QEMU ends. */
  readonly crash?: boolean;
}

const STRTAB_BASE_CFG = 0x88;
const CMDQ_BASE = 0x90;
const EVENTQ_BASE = 0xa0;
const GERROR = 0x60;
const EVENTQ = { PROD: 0x100a8, CONS: 0x100ac } as const;
const OVFLG = 0x8000_0000;

const w32 = (step: Step, offset: number): number | undefined =>
  step[0] === 'w32' && Number(step[1]) === offset ? Number(step[2]) : undefined;

/** Steps with QEMU's view of STRTAB_BASE_CFG: once there are two levels, there are until reset. */
function keepTwoLevels(steps: readonly Step[]): Step[] {
  let split: number | undefined;
  return steps.map((step) => {
    const value = w32(step, STRTAB_BASE_CFG);
    if (value === undefined) return step;
    if (((value >> 16) & 3) === 1) {
      split = value & 0x7c0;
      return step;
    }
    return split === undefined
      ? step
      : ['w32', toHex(STRTAB_BASE_CFG), toHex((value & 63) | split | 0x1_0000)];
  });
}

/** The last value that a 64-bit register is given before the first write to another offset. */
function firstBase(given: OracleCase, offset: number): bigint {
  let value = 0n;
  for (const step of given.steps) {
    if (step[0] === 'w64' && Number(step[1]) === offset) return BigInt(step[2]);
    if (w32(step, offset) !== undefined) value |= BigInt(w32(step, offset)!);
    if (w32(step, offset + 4) !== undefined) value |= BigInt(w32(step, offset + 4)!) << 32n;
    if (step[0] === 'w32' && Number(step[1]) === 0x20) break;
  }
  return value;
}

/** Where a queue is, by the architecture and to QEMU, and its size in bytes. */
function queuePlaces(
  given: OracleCase,
  offset: number,
  log2EntrySize: number,
): Record<'right' | 'qemu' | 'size', bigint> {
  const value = firstBase(given, offset);
  const size = 1n << ((value & 31n) + BigInt(log2EntrySize));
  const right = value & 0xff_ffff_ffff_ffe0n & -(size < 32n ? 32n : size);
  return { right, qemu: value & 0xff_ffff_ffff_ffc0n, size };
}

const isElsewhere = (given: OracleCase, offset: number, log2EntrySize: number): boolean => {
  const { right, qemu } = queuePlaces(given, offset, log2EntrySize);
  return right !== qemu;
};

/** Memory in which what QEMU finds in its queue is where the architecture has the queue. */
function shiftCommands(given: OracleCase): OracleCase {
  const { right, qemu, size } = queuePlaces(given, CMDQ_BASE, 4);
  const steps: Step[] = given.steps.map((step) => {
    if (step[0] !== 'mem') return step;
    const at = BigInt(step[1]);
    if (at >= qemu && at < qemu + size) return ['mem', toHex(at - qemu + right), step[2]];
    // As many steps as before; this one then does nothing.
    return at >= right && at < right + size ? ['mem', step[1], ''] : step;
  });
  return { ...given, steps };
}

/** What drains find where the architecture has the queue, when QEMU has put the records at the base as written. */
function shiftRecords(given: OracleCase, result: ModelResult): void {
  const { right, qemu } = queuePlaces(given, EVENTQ_BASE, 5);
  const shift = Number(qemu - right) / EVENT_BYTES;
  const size = 2 ** given.eventq.log2;
  const accesses = accessesOf(given, result.out);
  /** By slot as the architecture has it. */
  const memory = new Map<number, string>();
  const zeros = '00'.repeat(EVENT_BYTES);
  let prod = 0;
  let cons = 0;
  let next = 0;
  const records = given.steps.flatMap((step, i) =>
    step[0] === 'drain' ? (result.out[i] as readonly string[]) : [],
  );
  for (const [i, step] of given.steps.entries()) {
    const start = w32(step, EVENTQ.PROD);
    if (start !== undefined) prod = cons = start;
    if (step[0] === 'dma' && accesses?.get(i)?.events === 1) {
      memory.set((prod % size) + shift, records[next]);
      next += 1;
      prod += 1;
    } else if (step[0] === 'drain') {
      const found: string[] = [];
      for (; cons !== prod; cons += 1) found.push(memory.get(cons % size) ?? zeros);
      result.out[i] = found;
    }
  }
  result.unordered = true;
}

const CRASHES: readonly CaseDeparture[] = [
  {
    id: 's2aa64',
    crash: true,
    reason: 'QEMU ends at an STE with S2AA64=0; without AArch32 tables (IDR0.TTF) that is C_BAD_STE.',
    clause: '5.2 S2AA64',
    applies: (given) =>
      someAccess(
        given,
        ({ ste }) => (ste[0] & 9n) === 9n && (ste[0] & 4n) !== 0n && ((ste[2] >> 51n) & 1n) === 0n,
      ),
  },
  {
    id: 'ips-52',
    crash: true,
    reason: 'QEMU ends at a CD with IPS of 52 bits or more; that is the OAS, if the OAS is smaller.',
    clause: '5.4 IPS',
    applies: (given) => someAccess(given, ({ cd }) => cd !== undefined && ((cd[0] >> 32n) & 7n) > 5n),
  },
];

function someAccess(
  given: OracleCase,
  accept: (structures: { ste: readonly bigint[]; cd?: readonly bigint[] }) => boolean,
): boolean {
  const state = new CaseState(given.mem);
  return given.steps.some((step) => {
    state.apply(step);
    if (step[0] !== 'dma') return false;
    const structures = structuresOf(state, { sid: step[1], write: step[2] === 'w', iova: BigInt(step[3]) });
    return structures !== undefined && accept(structures);
  });
}

/** Commands of a case that are there when it starts or are written later. */
const withCommands = (
  given: OracleCase,
  change: (w0: bigint, w1: bigint) => readonly [bigint, bigint],
): OracleCase => {
  const steps = given.steps.map((step): Step => {
    if (step[0] !== 'mem' || step[2].length !== 32) return step;
    const bytes = Buffer.from(step[2], 'hex');
    const words = change(bytes.readBigUInt64LE(0), bytes.readBigUInt64LE(8));
    return ['mem', step[1], Buffer.from(BigUint64Array.from(words).buffer).toString('hex')];
  });
  return { ...given, steps };
};

/** A departure in which QEMU does nothing at a command that is CERROR_ILL. */
function ignoredCommand(
  id: string,
  reason: string,
  clause: string,
  isIgnored: (w0: bigint, w1: bigint) => boolean,
): CaseDeparture {
  // Nothing that a case can see.
  const instead: readonly [bigint, bigint] = [0x46n, 0n];
  const rewrite = (given: OracleCase): OracleCase =>
    withCommands(given, (w0, w1) => (isIgnored(w0, w1) ? instead : [w0, w1]));
  return {
    id,
    reason,
    clause,
    applies: (given) => JSON.stringify(rewrite(given).steps) !== JSON.stringify(given.steps),
    rewrite,
  };
}

const ABSENT = [0x18n, 0x1an, 0x20n, 0x21n, 0x22n, 0x23n, 0x40n, 0x41n, 0x44n, 0x45n];
const RANGES = [0x12n, 0x13n, 0x2an];

/** In the order in which they are put into a case. */
export const CASE_DEPARTURES: readonly CaseDeparture[] = [
  ...CRASHES,
  {
    id: 'strtab-fmt',
    reason: 'QEMU keeps two levels once STRTAB_BASE_CFG.FMT has said so, until reset.',
    clause: '6.3.25',
    applies: ({ steps }) => JSON.stringify(keepTwoLevels(steps)) !== JSON.stringify(steps),
    rewrite: (given) => ({ ...given, steps: keepTwoLevels(given.steps) }),
    // It reads as it was written all the same.
    adjust: (_given, { final }, { steps }) => {
      const written = steps.findLast((step) => w32(step, STRTAB_BASE_CFG) !== undefined)!;
      final['STRTAB_BASE_CFG'] = toHex(w32(written, STRTAB_BASE_CFG)!);
    },
  },
  ignoredCommand(
    'absent-command',
    'QEMU ignores commands of EL2, EL3, ATS, PRI and stalls; without these they are CERROR_ILL.',
    '7.1, 4.4.2, 4.5.1, 4.5.2, 4.7.1, 4.7.2',
    (w0) => ABSENT.includes(w0 & 0xffn),
  ),
  ignoredCommand(
    'prefetch-ssec',
    'QEMU does not look at SSec of CMD_PREFETCH_*; on the Non-secure queue it is CERROR_ILL.',
    '4.1.6',
    (w0) => [1n, 2n].includes(w0 & 0xffn) && (w0 & 0x400n) !== 0n,
  ),
  ignoredCommand(
    'sync-cs3',
    'QEMU takes CMD_SYNC with CS=0b11; it is CERROR_ILL.',
    '4.7.3',
    (w0) => (w0 & 0x30ffn) === 0x3046n,
  ),
  ignoredCommand(
    'one-granule-range',
    'QEMU takes a range of one granule of no level; TG with NUM, SCALE and TTL of 0 is CERROR_ILL.',
    '4.4.1.1',
    (w0, w1) =>
      RANGES.includes(w0 & 0xffn) && (w0 & 0x3f1_f000n) === 0n && (w1 & 0xc00n) !== 0n && isNoLevel(w1),
  ),
  {
    id: 'cmdq-align',
    reason: 'QEMU does not align CMDQ_BASE to the size of the queue, and ignores its bit 5.',
    clause: '6.3.26',
    applies: (given) => isElsewhere(given, CMDQ_BASE, 4),
    rewrite: shiftCommands,
  },
  {
    id: 'eventq-align',
    reason: 'QEMU does not align EVENTQ_BASE to the size of the queue, and ignores its bit 5.',
    clause: '6.3.29',
    applies: (given) => isElsewhere(given, EVENTQ_BASE, 5),
    adjust: shiftRecords,
  },
  {
    id: 'eventq-overflow',
    reason: 'QEMU raises EVENTQ_ABT_ERR when the Event queue overflows, and does not toggle OVFLG.',
    clause: '7.4, 7.5',
    applies: (_given, { overflow }) => overflow !== undefined,
    adjust: noOverflowFlag,
  },
];

/** 4.4.1.1: with 16 KiB granules there is no level 1. */
const isNoLevel = (w1: bigint): boolean => {
  const ttl = (w1 >> 8n) & 3n;
  return ttl === 0n || (ttl === 1n && ((w1 >> 10n) & 3n) === 2n);
};

function noOverflowFlag({ steps }: OracleCase, result: ModelResult): void {
  const change = (offset: number, value: string, after: boolean): string => {
    if (offset === EVENTQ.PROD || offset === EVENTQ.CONS) return toHex(Number(value) % OVFLG);
    return offset === GERROR && after ? toHex((Number(value) ^ 4) >>> 0) : value;
  };
  for (const [i, step] of steps.entries()) {
    const value = result.out[i];
    if (step[0] === 'r32' && typeof value === 'string')
      result.out[i] = change(Number(step[1]), value, i > result.overflow!);
  }
  const { final } = result;
  final['GERROR'] = change(GERROR, final['GERROR'], true);
  final['EVENTQ_PROD'] = change(EVENTQ.PROD, final['EVENTQ_PROD'], true);
  final['EVENTQ_CONS'] = change(EVENTQ.CONS, final['EVENTQ_CONS'], true);
}
