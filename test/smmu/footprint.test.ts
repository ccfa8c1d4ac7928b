import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { Memory } from '../../src/memory/memory.ts';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { Smmu } from '../../src/smmu/smmu.ts';
import { OUTCOME, Transaction, Translation } from '../../src/smmu/transaction.ts';

const MIB = 1024 * 1024;
const RAM = 0x4000_0000;
const CD = RAM + 16 * MIB;
const TABLE = CD + 0x1000;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Bytes on the heap and in buffers that somebody still refers to. */
function inUse(): number {
  collect();
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** RAM with a linear stream table of 2^16 entries, all with one CD whose table maps 1 GiB. */
function memory(): Memory {
  const words = new Uint32Array((17 * MIB) / 4);
  const at = (address: number): number => (address - RAM) / 4;
  for (let sid = 0; sid < 65_536; sid++) words[at(RAM) + 16 * sid] = CD | (5 << 1) | 1;
  words[at(CD)] = (25 | (1 << 30) | (1 << 31)) >>> 0;
  words[at(CD) + 1] = 4 | (1 << 9) | (1 << 13) | (1 << 14);
  words[at(CD) + 2] = TABLE;
  words[at(TABLE)] = (0x8000_0000 | (1 << 10) | (1 << 6) | 1) >>> 0;
  const ram = new Memory();
  ram.addRam(0, RAM, new Uint8Array(words.buffer));
  return ram;
}

function makeDevice(ram: Memory, SIDSIZE: number): Smmu {
  const smmu = new Smmu({
    ids: identify(QEMU_LIKE, { SIDSIZE }),
    memory: ram,
    interrupts: { raise() {}, writeMsi: () => true },
  });
  smmu.write(0x80, 8, 0, RAM);
  smmu.write(0x88, 4, 0, 16);
  smmu.write(0x20, 4, 0, 1);
  return smmu;
}

/** What one device costs; the average of a few, since a measurement is off by some kilobytes. */
function costOf(ram: Memory, SIDSIZE: number, use: (smmu: Smmu) => void): number {
  const COUNT = 4;
  const kept: Smmu[] = [];
  const once = makeDevice(ram, SIDSIZE);
  use(once);
  const before = inUse();
  for (let i = 0; i < COUNT; i++) {
    const smmu = makeDevice(ram, SIDSIZE);
    use(smmu);
    kept.push(smmu);
  }
  const cost = (inUse() - before) / COUNT;
  // Both have to live as long as the measurement.
  expect([once, ...kept].every((smmu) => smmu.smmuEnabled)).toBe(true);
  return cost;
}

const transaction = new Transaction();
const result = new Translation();
function translate(smmu: Smmu, sid: number, addrLo = 0): number {
  transaction.sid = sid;
  transaction.addrLo = addrLo;
  return smmu.translate(transaction, result);
}

describe('a device with the default TLB', () => {
  it('has less than 8 MiB, also after 65,536 StreamIDs with a thousand pages', () => {
    const cost = costOf(memory(), 16, (smmu) => {
      let good = 0;
      for (let sid = 0; sid < 65_536; sid++) if (translate(smmu, sid) === OUTCOME.Ok) good += 1;
      expect(good).toBe(65_536);
      for (let page = 0; page < 1000; page++) translate(smmu, 1, page << 12);
    });
    expect(cost).toBeLessThan(8 * MIB);
  });

  it('has nothing for StreamIDs that no device uses', () => {
    const ram = memory();
    const use = (smmu: Smmu): void => void translate(smmu, 1);
    // What else goes on in this process can be as large as what is looked for, but not most of the time.
    const usual = (SIDSIZE: number): number =>
      [1, 2, 3, 4, 5].map(() => costOf(ram, SIDSIZE, use)).sort((a, b) => a - b)[2];
    const few = usual(7);
    const all = usual(32);
    expect(few).toBeLessThan(2 * MIB);
    expect(Math.abs(all - few)).toBeLessThan(64 * 1024);
  });
});
