import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { MemStatus } from '../../src/memory/memory.ts';
import { Memory } from '../../src/memory/memory.ts';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { INVALIDATE } from '../../src/smmu/ports.ts';
import { COMMANDS_PER_DOORBELL, Smmu } from '../../src/smmu/smmu.ts';
import { KIND, Transaction, Translation } from '../../src/smmu/transaction.ts';
import { OPCODE } from '../../src/spec/commands.ts';
import { REGISTERS } from '../../src/spec/registers.ts';

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

/** mulberry32, so that a failing case is named by its seed. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

const OFFSETS = REGISTERS.flatMap(({ offset, width }) => (width === 64 ? [offset, offset + 4] : [offset]));
const OPCODES = Object.values(OPCODE);

/** One guest that writes what it likes for `steps` accesses. @returns what went wrong, if anything. */
function misbehave(seed: number, steps: number): string | undefined {
  const next = random(seed);
  const below = (n: number): number => next() % n;
  const buffer = new ArrayBuffer(RAM_SIZE + 2 * GUARD);
  const bytes = new Uint8Array(buffer, GUARD, RAM_SIZE);
  const words = new Uint32Array(buffer, GUARD, RAM_SIZE / 4);
  const memory = new CountingMemory();
  memory.addRam(0, RAM, bytes);
  let deferred = 0;
  const smmu = new Smmu({
    ids: FEATURES[seed % FEATURES.length],
    memory,
    interrupts: { raise() {}, writeMsi: () => next() % 4 !== 0 },
    backend: {
      streamsChanged() {},
      eventQueueChanged() {},
      invalidate: () => (next() % 16 === 0 ? INVALIDATE.AtcInvTimeout : INVALIDATE.Complete),
    },
    responses: { respond() {} },
    stalls: { resolved() {} },
    ...(seed % 2 === 0 && { defer: () => void deferred++ }),
  });
  const transaction = new Transaction();
  const translation = new Translation();
  const ste = new Uint32Array(16);
  // An address that is likely to be in RAM, or just not.
  const pointer = (): number => (RAM + below(RAM_SIZE + 0x2000)) >>> 0;
  const value = (): number => {
    switch (below(6)) {
      case 0:
        return next();
      case 1:
        return 0;
      case 2:
        return (pointer() & ~31) | below(16);
      case 3:
        return below(64);
      case 4:
        return 0xf;
      default:
        return next() & next() & next();
    }
  };
  for (let step = 0; step < steps; step++) {
    memory.accesses = 0;
    switch (below(12)) {
      case 0:
        smmu.read(below(0x2_1000) - 16, 1 << below(5));
        break;
      case 1:
        smmu.write(below(0x2_1000) - 16, 1 << below(5), next(), next());
        break;
      case 2:
        // Commands with a plausible opcode, somewhere.
        for (let i = 0; i < 64; i++) {
          const at = below(words.length / 4) * 4;
          words[at] = (OPCODES[below(OPCODES.length)] | (below(4) === 0 ? next() & 0xffff_ff00 : 0)) >>> 0;
          words[at + 1] = below(64);
          words[at + 2] = value();
        }
        break;
      case 3:
        for (let i = 0; i < 64; i++) words[below(words.length)] = next();
        break;
      case 4:
        smmu.recordEvent(words.subarray(0, 8));
        break;
      case 5:
        transaction.sid = below(3) === 0 ? next() : below(64);
        transaction.ssv = below(4) === 0;
        transaction.ssid = below(16);
        transaction.addrHi = below(4) === 0 ? next() : 0;
        transaction.addrLo = pointer();
        transaction.write = below(2) === 0;
        transaction.kind = below(8) === 0 ? KIND.AtsRequest : KIND.Untranslated;
        transaction.mayStall = below(2) === 0;
        smmu.translate(transaction, translation);
        break;
      case 6:
        smmu.lookupSte(next(), ste);
        break;
      case 7:
        // What a guest does to go on after an error.
        smmu.write(0x64, 4, 0, smmu.read(0x60, 4));
        break;
      case 8:
        smmu.run();
        break;
      default: {
        const offset = OFFSETS[below(OFFSETS.length)];
        smmu.write(offset, below(3) === 0 && offset % 8 === 0 ? 8 : 4, below(2) === 0 ? 0 : next(), value());
      }
    }
    if (deferred > 0 && memory.accesses > 2 * COMMANDS_PER_DOORBELL + 64)
      return `step ${step}: ${memory.accesses} accesses for one register access`;
  }
  smmu.reset();
  if (smmu.read(0x20, 4) !== 0) return 'CR0 is not 0 after reset';
  const all = new Uint8Array(buffer);
  for (let i = 0; i < GUARD; i++)
    if (all[i] !== 0 || all[GUARD + RAM_SIZE + i] !== 0) return 'wrote outside RAM';
  return undefined;
}

describe('a hostile guest', () => {
  it('neither throws, hangs nor leaves guest RAM in 10,000 random sequences', () => {
    for (let seed = 0; seed < 10_000; seed++) {
      let problem: string | undefined;
      try {
        problem = misbehave(seed, 60);
      } catch (error) {
        problem = String(error);
      }
      if (problem !== undefined) expect.fail(`seed ${seed}: ${problem}`);
    }
  });

  it('finds every register in range after any writes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 10_000, max: 2 ** 31 }), (seed) => {
        expect(misbehave(seed, 300)).toBeUndefined();
      }),
      { numRuns: 200 },
    );
  });
});
