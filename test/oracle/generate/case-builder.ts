import type { Step } from '../../../src/conformance/vector.ts';
import { Random } from '../../support/random.ts';
import type { TableSpace } from '../../support/tables.ts';
import { EVENT_BYTES, type OracleCase, RAM_END, RAM_FIRST, toHex } from '../oracle-case.ts';
import { StreamTable } from './stream-table.ts';

/** The driver keeps the end of RAM for itself. */
const LAST = BigInt(RAM_END) - 0x10_0000n;
const FIRST = BigInt(RAM_FIRST);

/** Addresses that nothing answers at, below 2^38 and from 2^40; elsewhere QEMU's machine has devices. */
const NOWHERE = [
  [0x2_0000_0000n, 0x3f_0000_0000n],
  [0x100_0000_0000n, 0xfff_0000_0000n],
] as const;

export const isNowhere = (address: bigint): boolean =>
  NOWHERE.some(([from, to]) => address >= from && address < to);

export const CR0 = { SMMUEN: 1, EVENTQEN: 4, CMDQEN: 8, ALL: 0xd } as const;

export const OPCODE = {
  CFGI_STE: 0x03,
  CFGI_STE_RANGE: 0x04,
  CFGI_CD: 0x05,
  CFGI_CD_ALL: 0x06,
  TLBI_NH_ALL: 0x10,
  TLBI_NH_ASID: 0x11,
  TLBI_NH_VA: 0x12,
  TLBI_NH_VAA: 0x13,
  TLBI_S12_VMALL: 0x28,
  TLBI_S2_IPA: 0x2a,
  TLBI_NSNH_ALL: 0x30,
  SYNC: 0x46,
} as const;

interface Queue {
  readonly base: bigint;
  readonly log2: number;
}

export interface Setup {
  /** Sizes; the Event queue takes all events of a case unless said otherwise. */
  cmdqLog2?: number;
  eventqLog2?: number;
  /** Where it is, if not anywhere in RAM. */
  cmdqBase?: bigint;
  eventqBase?: bigint;
  recinvsid?: boolean;
  /** CR0 at the end of the setup. */
  cr0?: number;
  /** CMDQ_PROD and CMDQ_CONS, EVENTQ_PROD and EVENTQ_CONS at the start. */
  cmdqStart?: number;
  eventqStart?: number;
}

/** Puts one case together: memory first, then {@link CaseBuilder.setup}, then steps; then memory is written by steps. */
export class CaseBuilder {
  readonly random: Random;
  readonly streamTable: StreamTable;
  cmdq: Queue = { base: 0n, log2: 0 };
  eventq: Queue = { base: 0n, log2: 0 };
  /** CMDQ_PROD as written. */
  prod = 0;
  /** Highest address + 1 that {@link CaseBuilder.take} gives. */
  limit = LAST;
  readonly #words = new Map<bigint, bigint>();
  #initial: OracleCase['mem'] | undefined;
  readonly #claims: { from: bigint; to: bigint }[] = [];
  readonly #data: bigint[] = [];
  readonly #steps: Step[] = [];
  #commands: [bigint, bigint][] = [];
  /** Where the commands are that were put into the queue by the last {@link CaseBuilder.submit}. */
  #lastBatch: number[] = [];

  constructor(random: Random) {
    this.random = random;
    this.streamTable = new StreamTable(this);
  }

  /** Whether a range of RAM is free, and if so takes it. */
  #claim(from: bigint, size: bigint): boolean {
    const to = from + size;
    if (from < FIRST || to > LAST) return false;
    if (this.#claims.some((other) => from < other.to && other.from < to)) return false;
    this.#claims.push({ from, to });
    return true;
  }

  /** Zeroed RAM somewhere. @param size a power of two; the address is aligned to it and to 64 */
  take(size: bigint): bigint {
    const align = size < 64n ? 64n : size;
    for (let i = 0; i < 1000; i++) {
      const span = (this.random.chance(0.5) ? 0x8000_0000n : this.limit) - FIRST;
      const at = FIRST + ((this.random.big(33) % span) & -align);
      if (at + size <= this.limit && this.#claim(at, size)) return at;
    }
    throw new RangeError('RAM is used up');
  }

  /** A new page of data in a block of RAM of that size, at `offset` or anywhere in it: every access ends in one. */
  dataPage(block = 0x1000n, offset?: bigint): { block: bigint; page: bigint } {
    for (let i = 0; i < 1000; i++) {
      const from = (FIRST + (this.random.big(33) % (this.limit - FIRST))) & -block;
      const page = from + ((offset ?? this.random.big(33) % block) & -0x1000n);
      if (from < FIRST || !this.#claim(page, 0x1000n)) continue;
      this.#data.push(page);
      return { block: from, page };
    }
    throw new RangeError('RAM is used up');
  }

  /** An address of that many bits at which nothing answers, or undefined. */
  nowhere(bits: number): bigint | undefined {
    const ranges = NOWHERE.filter(([first]) => first < 1n << BigInt(bits));
    if (ranges.length === 0) return undefined;
    const [from, to] = this.random.pick(ranges);
    const end = to < 1n << BigInt(bits) ? to : 1n << BigInt(bits);
    return from + ((this.random.big(44) % (end - from)) & -0x1_0000n);
  }

  readonly space: TableSpace = {
    take: (size) => this.take(size),
    write: (at, value) => {
      this.write(at, value);
    },
    read: (at) => this.read(at),
  };

  read(at: bigint): bigint {
    return this.#words.get(at) ?? 0n;
  }

  /** Writes 64-bit words, at once or as a step. */
  write(at: bigint, ...words: readonly bigint[]): void {
    for (const [i, word] of words.entries()) this.#words.set(at + BigInt(8 * i), word);
    if (this.#initial !== undefined) this.#steps.push(['mem', toHex(at), bytesOf(words)]);
  }

  /** Registers and queues, as a driver sets them up: with invalidation of everything. */
  setup(given: Setup = {}): void {
    const { random } = this;
    const cmdqLog2 = given.cmdqLog2 ?? 2 + random.below(7);
    const eventqLog2 = given.eventqLog2 ?? random.pick([5, 5, 6, 7]);
    this.cmdq = { base: given.cmdqBase ?? this.take(alignOf(16n << BigInt(cmdqLog2))), log2: cmdqLog2 };
    this.eventq = {
      base: given.eventqBase ?? this.take(alignOf(32n << BigInt(eventqLog2))),
      log2: eventqLog2,
    };
    this.#initial = piecesOf(this.#words);
    const recinvsid = given.recinvsid ?? random.chance(0.9);
    // While all is off, any order is as good as another.
    const writes = shuffled(random, [
      () => this.w32(0x28, random.chance(0.5) ? 0xd75 : random.below(0x1000)),
      () => this.w32(0x2c, recinvsid ? 2 : 0),
      () => this.base(0x80, this.streamTable.base),
      () => this.w32(0x88, this.streamTable.config),
      () => this.base(0x90, this.cmdq.base | BigInt(cmdqLog2)),
      () => this.base(0xa0, this.eventq.base | BigInt(eventqLog2)),
    ]);
    for (const write of writes) write();
    this.prod = given.cmdqStart ?? this.#anyPointer(cmdqLog2);
    const events = given.eventqStart ?? this.#anyPointer(eventqLog2);
    for (const offset of [0x98, 0x9c]) this.w32(offset, this.prod);
    for (const offset of [0x100a8, 0x100ac]) this.w32(offset, events);
    this.#enable(given.cr0 ?? CR0.ALL);
  }

  /** Turns things on, all at once or one after the other. Nothing is cached after reset, so nothing has to be invalidated. */
  #enable(cr0: number): void {
    const { random } = this;
    if ((cr0 & CR0.CMDQEN) !== 0 && random.chance(0.75)) {
      this.w32(0x20, random.chance(0.5) ? cr0 & ~CR0.SMMUEN : CR0.CMDQEN);
      if (random.chance(0.1)) this.r32(0x24);
      this.command(OPCODE.CFGI_STE_RANGE, 31n);
      this.command(OPCODE.TLBI_NSNH_ALL);
      this.sync();
    }
    if (random.chance(0.1)) this.w32(0x20, cr0 & ~CR0.EVENTQEN);
    this.w32(0x20, cr0);
    if (random.chance(0.25)) this.r32(0x24);
  }

  /** An empty queue may start anywhere. */
  #anyPointer(log2: number): number {
    return this.random.chance(0.5) ? 0 : this.random.below(2 ** (log2 + 1));
  }

  w32(offset: number, value: number): void {
    this.#steps.push(['w32', toHex(offset), toHex(value >>> 0)]);
  }

  w64(offset: number, value: bigint): void {
    this.#steps.push(['w64', toHex(offset), toHex(value)]);
  }

  /** A 64-bit register, in one write or two, in any order; bit 62 is a hint. */
  base(offset: number, address: bigint): void {
    const value = this.random.chance(0.3) ? address | (1n << 62n) : address;
    if (this.random.chance(0.7)) return this.w64(offset, value);
    const halves: [number, number][] = [
      [offset, Number(value & 0xffff_ffffn)],
      [offset + 4, Number(value >> 32n)],
    ];
    for (const [at, half] of this.random.chance(0.5) ? halves : halves.toReversed()) this.w32(at, half);
  }

  r32(...offsets: readonly number[]): void {
    for (const offset of offsets) this.#steps.push(['r32', toHex(offset)]);
  }

  dma(sid: number, direction: 'r' | 'w', iova: bigint): void {
    this.#steps.push(['dma', sid, direction, toHex(iova & 0xffff_ffff_ffff_ffffn)]);
  }

  drain(): void {
    this.#steps.push(['drain']);
  }

  /** One more command for {@link CaseBuilder.submit}. @param more the first word without the opcode */
  command(opcode: number, w1 = 0n, more = 0n): void {
    this.#commands.push([BigInt(opcode) | more, w1]);
  }

  /** Puts the commands into the queue, as many at a time as fit, and rings. */
  submit(): void {
    const size = 2 ** this.cmdq.log2;
    this.#lastBatch = [];
    while (this.#commands.length > 0) {
      for (const [w0, w1] of this.#commands.splice(0, size)) this.putCommand(w0, w1);
      this.w32(0x98, this.prod);
    }
  }

  /** One command into the queue, without ringing. */
  putCommand(w0: bigint, w1: bigint): void {
    const size = 2 ** this.cmdq.log2;
    const base = this.cmdq.base & -alignOf(16n << BigInt(this.cmdq.log2));
    this.write(base + 16n * BigInt(this.prod % size), w0, w1);
    this.#lastBatch.push(this.prod % size);
    this.prod = (this.prod + 1) % (2 * size);
  }

  /** Writes a legal command over every one that is in the queue: whichever was refused can go on. */
  mend(): void {
    const base = this.cmdq.base & -alignOf(16n << BigInt(this.cmdq.log2));
    for (const at of this.#lastBatch) this.write(base + 16n * BigInt(at), 0x46n, 0n);
  }

  /** Another Command queue; it is disabled now. */
  moveCommandQueue(log2: number): void {
    this.cmdq = { base: this.take(alignOf(16n << BigInt(log2))), log2 };
    this.prod = this.#anyPointer(log2);
    this.base(0x90, this.cmdq.base | BigInt(log2));
    for (const offset of [0x98, 0x9c]) this.w32(offset, this.prod);
  }

  /** Ends the commands so far with CMD_SYNC. */
  sync(): void {
    this.command(OPCODE.SYNC, 0n, this.random.chance(0.7) ? 0n : 1n << 12n);
    this.submit();
  }

  /** The case; a drain is its last step. */
  finish(id: string, cat: string, name: string): OracleCase {
    this.drain();
    const base = this.eventq.base & -alignOf(BigInt(EVENT_BYTES) << BigInt(this.eventq.log2));
    return {
      id,
      cat,
      name,
      mem: this.#initial ?? [],
      data: this.#data.map(toHex),
      eventq: { base: toHex(base), log2: this.eventq.log2 },
      steps: this.#steps,
    };
  }
}

/** The same things in another order. */
export function shuffled<T>(random: Random, from: readonly T[]): T[] {
  const left = [...from];
  return from.map(() => left.splice(random.below(left.length), 1)[0]);
}

/** 6.3.26: a queue is aligned to its size, and to 32 bytes. */
const alignOf = (bytes: bigint): bigint => (bytes < 32n ? 32n : bytes);

function bytesOf(words: readonly bigint[]): string {
  return Buffer.from(BigUint64Array.from(words).buffer).toString('hex');
}

/** Words in runs. */
function piecesOf(words: ReadonlyMap<bigint, bigint>): [string, string][] {
  const pieces: [string, string][] = [];
  let run: bigint[] = [];
  let next = -1n;
  const sorted = [...words].sort(([a], [b]) => (a < b ? -1 : 1));
  const flush = (): void => {
    if (run.length > 0) pieces.push([toHex(next - BigInt(8 * run.length)), bytesOf(run)]);
    run = [];
  };
  for (const [at, word] of sorted) {
    if (at !== next) flush();
    run.push(word);
    next = at + 8n;
  }
  flush();
  return pieces;
}
