import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { MemStatus } from '../../src/memory/memory.ts';
import { Memory } from '../../src/memory/memory.ts';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { EVENT, INVALIDATE } from '../../src/smmu/ports.ts';
import { COMMANDS_PER_DOORBELL } from '../../src/smmu/register-effects.ts';
import { Smmu } from '../../src/smmu/smmu.ts';
import { KIND, OUTCOME, Transaction, Translation } from '../../src/smmu/transaction.ts';
import { OPCODE } from '../../src/spec/commands.ts';
import { REGISTERS } from '../../src/spec/registers.ts';
import { Random } from '../support/random.ts';

const RAM = 0x4000_0000;
const RAM_SIZE = 0x2_0000;
/** Bytes on both sides of RAM that nobody may touch. */
const GUARD = 0x1000;

/** Memory that counts what the device asks for, so that the work of one access can be bounded. */
class CountingMemory extends Memory {
  accesses = 0;

  override loadWords(hi: number, lo: number, into: Uint32Array, n: number, at = 0): MemStatus {
    this.accesses++;
    return super.loadWords(hi, lo, into, n, at);
  }

  override storeWords(hi: number, lo: number, words: Uint32Array, n: number, from = 0): MemStatus {
    this.accesses++;
    return super.storeWords(hi, lo, words, n, from);
  }
}

const FEATURES = [
  QEMU_LIKE,
  identify(QEMU_LIKE, { MSI: 1, ATS: 1, PRI: 1, PRIQS: 19, HYP: 1, SSIDSIZE: 20, SIDSIZE: 32 }),
  identify(QEMU_LIKE, { STALL_MODEL: 0, STALL_MAX: 4, RIL: 0, S2P: 0 }),
  identify(QEMU_LIKE, { STALL_MODEL: 2, STALL_MAX: 2, HTTU: 3, OAS: 6, DS: 1, VAX: 1, TTENDIAN: 0 }),
];

const OFFSETS = REGISTERS.flatMap(({ offset, width }) => (width === 64 ? [offset, offset + 4] : [offset]));
const OPCODES = Object.values(OPCODE);
/** Opcodes that every set of features above has. */
const ALWAYS = [0x01, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x46];

/** What a run did, so that the test can tell that it did something. */
interface Tally {
  commands: number;
  events: number;
  translated: number;
  faulted: number;
  stalled: number;
}

/**
 * A guest that knows what a driver does and does it wrong: queues, tables and enables are set up plausibly, and then
 * registers, commands, descriptors and pointers get random values.
 */
class HostileGuest {
  readonly tally: Tally = { commands: 0, events: 0, translated: 0, faulted: 0, stalled: 0 };
  #random = new Random(0);
  readonly #buffer = new ArrayBuffer(RAM_SIZE + 2 * GUARD);
  readonly #words = new Uint32Array(this.#buffer, GUARD, RAM_SIZE / 4);
  readonly #memory = new CountingMemory();
  readonly #smmu: Smmu;
  readonly #transaction = new Transaction();
  readonly #translation = new Translation();
  readonly #ste = new Uint32Array(16);
  readonly #deferring: boolean;

  /** @param kind which of the {@link KINDS} sorts of device it meets. */
  constructor(kind: number) {
    this.#deferring = kind % 2 === 0;
    this.#memory.addRam(0, RAM, new Uint8Array(this.#buffer, GUARD, RAM_SIZE));
    this.#smmu = new Smmu({
      ids: FEATURES[kind >>> 1],
      memory: this.#memory,
      interrupts: { raise() {}, writeMsi: () => this.#below(4) !== 0 },
      backend: {
        streamsChanged() {},
        eventQueueChanged() {},
        invalidate: () => (this.#below(16) === 0 ? INVALIDATE.AtcInvTimeout : INVALIDATE.Complete),
      },
      responses: { respond() {} },
      stalls: { resolved() {} },
      trace: (event) => {
        if (event === 'smmuv3_cmdq_opcode') this.tally.commands++;
      },
      ...(this.#deferring && { defer() {} }),
    });
  }

  #below(n: number): number {
    return this.#random.word() % n;
  }

  /** An address that is likely to be in RAM, or just not. */
  #pointer(): number {
    return (RAM + this.#below(RAM_SIZE + 0x1000)) >>> 0;
  }

  #write(offset: number, value: number): void {
    this.#smmu.write(offset, 4, 0, value);
  }

  #value(): number {
    switch (this.#below(6)) {
      case 0:
        return this.#random.word();
      case 1:
        return 0;
      case 2:
        return (this.#pointer() & ~31) | this.#below(16);
      case 3:
        return this.#below(64);
      case 4:
        return 0xf;
      default:
        return this.#random.word() & this.#random.word() & this.#random.word();
    }
  }

  /** Programs tables and queues that are mostly in RAM, and enables them. */
  #setUp(): void {
    this.#write(0x20, 0);
    this.#write(0x28, 0xd75);
    this.#write(0x2c, this.#below(16));
    this.#smmu.write(0x80, 8, 0, this.#pointer() & ~0xfff);
    this.#write(0x88, this.#below(3) === 0 ? 0x1_0000 | (6 << 6) | this.#below(20) : 5 + this.#below(4));
    this.#smmu.write(0x90, 8, 0, (this.#pointer() & ~31) | this.#below(9));
    this.#smmu.write(0xa0, 8, 0, (this.#pointer() & ~31) | this.#below(6));
    for (const offset of [0x98, 0x9c, 0x1_00a8, 0x1_00ac]) this.#write(offset, 0);
    this.#write(0x50, this.#below(8));
    this.#write(0x20, this.#below(8) === 0 ? this.#random.word() : 0x1d);
  }

  /** Fills pages with STEs, CDs or descriptors that could be right. */
  #fillTables(pages: number): void {
    const words = this.#words;
    for (let n = 0; n < pages; n++) {
      const page = this.#below(words.length / 1024) * 1024;
      const kind = this.#below(4);
      for (let at = page; at < page + 1024; at += 16) {
        const low = (this.#pointer() & ~0xfff) >>> 0;
        if (kind === 0) {
          words[at] = low | (this.#below(2) === 0 ? 5 << 1 : this.#below(8) << 1) | 1;
          words[at + 1] = this.#below(8) === 0 ? this.#value() : 0;
          words[at + 2] = this.#below(8) === 0 ? this.#value() : this.#below(4);
          words[at + 3] = this.#below(8) === 0 ? this.#value() : this.#below(2) << 28;
          words[at + 4] = this.#below(16);
          words[at + 5] = 25 | (1 << 6) | (4 << 16) | (1 << 19) | (this.#below(2) << 25) | (1 << 26);
          words[at + 6] = low;
        } else if (kind === 1) {
          words[at] = (25 | (1 << 30) | (1 << 31) | (this.#below(8) === 0 ? this.#value() : 0)) >>> 0;
          words[at + 1] = 4 | (1 << 9) | (this.#below(2) << 12) | (3 << 13) | (this.#below(16) << 16);
          words[at + 2] = low;
          words[at + 3] = 0;
        } else {
          for (let k = 0; k < 16; k += 2) {
            words[at + k] = (low | this.#below(0x1000)) >>> 0;
            words[at + k + 1] = this.#below(8) === 0 ? this.#value() : 0;
          }
        }
      }
    }
  }

  /** Puts commands with an opcode that exists where the queue is, as far as that is in RAM, and rings. */
  #submit(): void {
    const base = this.#smmu.read(0x90, 4);
    const log2 = Math.min(base & 31, 19);
    const size = 2 ** log2;
    const start = (((base & ~31 & ~(Math.max(16 * size, 32) - 1)) >>> 0) - RAM) / 4;
    let prod = this.#smmu.read(0x98, 4);
    const count = 1 + this.#below(Math.min(size, 64));
    for (let i = 0; i < count; i++, prod++) {
      const at = start + (prod & (size - 1)) * 4;
      if (at < 0 || at + 4 > this.#words.length) continue;
      const known = this.#below(8) === 0 ? OPCODES : ALWAYS;
      this.#words[at] = known[this.#below(known.length)] | (this.#below(8) === 0 ? this.#value() << 8 : 0);
      this.#words[at + 1] = this.#below(2) === 0 ? this.#below(64) : this.#value();
      this.#words[at + 2] = this.#value();
      this.#words[at + 3] = this.#below(2) === 0 ? 0 : this.#value();
    }
    this.#write(0x98, prod & (2 * size - 1));
  }

  #translate(): void {
    const transaction = this.#transaction;
    transaction.sid = this.#below(8) === 0 ? this.#random.word() : this.#below(32);
    transaction.ssv = this.#below(8) === 0;
    transaction.ssid = this.#below(16);
    transaction.addrHi = this.#below(4) === 0 ? this.#value() : 0;
    transaction.addrLo = this.#pointer();
    transaction.write = this.#below(2) === 0;
    transaction.privileged = this.#below(4) === 0;
    transaction.instruction = this.#below(8) === 0;
    transaction.kind = [KIND.AtsRequest, KIND.AtsTranslated][this.#below(8)] ?? KIND.Untranslated;
    transaction.mayStall = this.#below(4) !== 0;
    const outcome = this.#smmu.translate(transaction, this.#translation);
    if (outcome === OUTCOME.Ok) this.tally.translated++;
    else if (outcome === OUTCOME.Stalled) this.tally.stalled++;
    else this.tally.faulted++;
  }

  /** Any register, with any value. */
  #poke(): void {
    const offset = OFFSETS[this.#below(OFFSETS.length)];
    const size = this.#below(3) === 0 && offset % 8 === 0 ? 8 : 4;
    this.#smmu.write(offset, size, this.#below(2) === 0 ? 0 : this.#random.word(), this.#value());
  }

  #step(): void {
    switch (this.#below(16)) {
      case 0:
        this.#smmu.read(this.#below(0x2_1000) - 16, 1 << this.#below(5));
        break;
      case 1:
        this.#smmu.write(
          this.#below(0x2_1000) - 16,
          1 << this.#below(5),
          this.#random.word(),
          this.#random.word(),
        );
        break;
      case 2:
        this.#fillTables(1);
        break;
      case 3:
        for (let i = 0; i < 64; i++) this.#words[this.#below(this.#words.length)] = this.#random.word();
        break;
      case 4:
        if (this.#smmu.recordEvent(this.#words.subarray(0, 8)) === EVENT.Queued) this.tally.events++;
        else this.#smmu.eventsLost();
        break;
      case 5:
        // As a driver does: drain and acknowledge.
        this.#write(0x1_00ac, this.#smmu.read(0x1_00a8, 4));
        break;
      case 6:
        this.#smmu.lookupSte(this.#random.word(), this.#ste);
        break;
      case 7:
      case 13:
        this.#write(0x64, this.#smmu.read(0x60, 4));
        break;
      case 8:
        this.#smmu.run();
        break;
      case 9:
        this.#poke();
        break;
      case 10:
        if (this.#below(4) === 0) this.#setUp();
        break;
      case 11:
      case 12:
        this.#submit();
        break;
      default:
        this.#translate();
    }
  }

  /** @returns what went wrong, if anything. The device is cold afterwards. */
  misbehave(seed: number, steps: number): string | undefined {
    this.#random = new Random(seed);
    this.#words.fill(0);
    if (this.#below(8) !== 0) {
      this.#fillTables(16);
      this.#setUp();
    }
    for (let step = 0; step < steps; step++) {
      this.#memory.accesses = 0;
      this.#step();
      // Without `defer` one write may carry out a whole queue, twice.
      const commands = this.#deferring ? COMMANDS_PER_DOORBELL : 2 ** 20;
      if (this.#memory.accesses > commands * 64) return `step ${step}: ${this.#memory.accesses} accesses`;
    }
    this.#smmu.reset();
    if (this.#smmu.read(0x20, 4) !== 0) return 'CR0 is not 0 after reset';
    const all = new Uint8Array(this.#buffer);
    for (let i = 0; i < GUARD; i++)
      if (all[i] !== 0 || all[GUARD + RAM_SIZE + i] !== 0) return 'wrote outside RAM';
    return undefined;
  }
}

/** Every set of features, with and without `defer`. Devices are reused after a reset, as they are in a machine. */
const KINDS = 2 * FEATURES.length;
const guests = Array.from({ length: KINDS }, (_, kind) => new HostileGuest(kind));

describe('a hostile guest', () => {
  it('neither throws, hangs nor leaves guest RAM in 10,000 random sequences', () => {
    for (let seed = 0; seed < 10_000; seed++) {
      let problem: string | undefined;
      try {
        problem = guests[seed % KINDS].misbehave(seed, 50);
      } catch (error) {
        problem = error instanceof Error ? error.stack : String(error);
      }
      if (problem !== undefined) expect.fail(`seed ${seed}: ${problem}`);
    }
    // A guest that only ever meets a disabled device proves nothing.
    const sum = (name: keyof Tally): number => guests.reduce((all, { tally }) => all + tally[name], 0);
    expect(sum('commands')).toBeGreaterThan(50_000);
    expect(sum('events')).toBeGreaterThan(10_000);
    expect(sum('translated')).toBeGreaterThan(1_000);
    expect(sum('faulted')).toBeGreaterThan(10_000);
    expect(sum('stalled')).toBeGreaterThan(10);
  });

  it('does not get further with long sequences', () => {
    fc.assert(
      fc.property(fc.integer({ min: 10_000, max: 2 ** 31 }), (seed) => {
        expect(guests[seed % KINDS].misbehave(seed, 500)).toBeUndefined();
      }),
      { numRuns: 100 },
    );
  });
});
