/**
 * Why the TLB is what it is: first the designs of bench/tlb-designs.ts side by side, then the capacity, with the whole
 * SMMU around it. Nanoseconds each, least of mitata's samples. `npm run bench:tlb`.
 */

import { measure } from 'mitata';
import { BenchMachine, STREAM } from './machine.ts';
import { TLB_DESIGNS, type TlbDesign } from './tlb-designs.ts';

const BATCH = 4096;
const LOG2_ENTRIES = 14;
/** Odd, so that a walk through it meets each page of a power of two once, in no order that a cache would like. */
const STRIDE = 0x9e37_79b1;

async function least(operations: number, run: () => void): Promise<number> {
  run();
  const { min } = await measure(run, { min_cpu_time: 150e6, batch_threshold: 0 });
  return min / operations;
}

/** Looks up scattered pages of one ASID, and fills in what is missing. */
function lookUp(tlb: TlbDesign, pages: number, first: number): void {
  for (let i = first; i < first + BATCH; i++) {
    const page = (Math.imul(i, STRIDE) & (pages - 1)) << 12;
    if (tlb.find(page, 1) < 0) tlb.fill(page, 1, page | 1);
  }
}

/**
 * Share of misses once it is warm, in percent, if so many ASIDs use so many pages each, in pieces of so many neighbours
 * that lie anywhere. Accesses are random.
 */
function missRate(tlb: TlbDesign, asids: number, pages: number, piece: number): number {
  let state = 1;
  /** 0..limit-1, from a linear congruential generator. */
  const random = (limit: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return Math.floor((state / 2 ** 31) * limit);
  };
  const bases = Array.from({ length: (asids * pages) / piece }, () => random(2 ** 19));
  const accesses = 16 * asids * pages;
  let missing = 0;
  for (let i = 0; i < 2 * accesses; i++) {
    const which = random(bases.length);
    const page = ((bases[which] + random(piece)) & 0xf_ffff) << 12;
    const asid = which % asids;
    if (tlb.find(page, asid) >= 0) continue;
    if (i >= accesses) missing += 1;
    tlb.fill(page, asid, page | 1);
  }
  return (100 * missing) / accesses;
}

async function designs(): Promise<void> {
  const columns = ['hit 64', 'hit 4096', 'miss % half', 'scattered', 'miss % full', 'TLBI VA', 'TLBI ASID'];
  console.log(`${`${2 ** LOG2_ENTRIES} entries`.padEnd(20)}${columns.map((c) => c.padStart(14)).join('')}`);
  for (const [name, make] of Object.entries(TLB_DESIGNS)) {
    const figures: number[] = [];
    for (const pages of [64, 4096]) {
      const tlb = make(LOG2_ENTRIES);
      lookUp(tlb, pages, 0);
      figures.push(await least(BATCH, () => lookUp(tlb, pages, 0)));
    }
    // A half of what fits, in buffers of 256 KB and in single pages, and all of it.
    figures.push(missRate(make(LOG2_ENTRIES), 16, 512, 64));
    figures.push(missRate(make(LOG2_ENTRIES), 16, 512, 1));
    figures.push(missRate(make(LOG2_ENTRIES), 16, 1024, 64));
    const full = make(LOG2_ENTRIES);
    for (let first = 0; first < 2 ** LOG2_ENTRIES; first += BATCH) lookUp(full, 2 ** LOG2_ENTRIES, first);
    figures.push(
      await least(BATCH, () => {
        for (let i = 0; i < BATCH; i++) full.invalidateVa(i << 12, 9);
      }),
      await least(64, () => {
        for (let i = 0; i < 64; i++) full.invalidateAsid(9);
      }),
    );
    console.log(name.padEnd(20) + figures.map((f) => f.toFixed(1).padStart(14)).join(''));
  }
}

async function capacities(): Promise<void> {
  const workingSets = [256, 1024, 4096, 16384, 65536];
  console.log(
    `\n${'entries (nested)'.padEnd(20)}${workingSets.map((n) => `${n} pages`.padStart(14)).join('')}`,
  );
  for (const log2TlbEntries of [8, 10, 12, 14, 16, 18]) {
    const figures: number[] = [];
    for (const pages of workingSets) {
      const machine = new BenchMachine(pages, { log2TlbEntries });
      const { smmu, transaction, result } = machine;
      let first = 0;
      figures.push(
        await least(BATCH, () => {
          for (let i = first; i < first + BATCH; i++) {
            machine.aim(STREAM.nested, Math.imul(i, STRIDE) & (pages - 1));
            smmu.translate(transaction, result);
          }
          first = (first + BATCH) & 0xf_ffff;
        }),
      );
    }
    const size = `${2 ** log2TlbEntries} (${(32 << log2TlbEntries) >>> 10} KiB)`;
    console.log(size.padEnd(20) + figures.map((f) => f.toFixed(1).padStart(14)).join(''));
  }
}

await designs();
await capacities();
