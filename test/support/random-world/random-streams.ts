/** The streams of a random world. */

import type { Random } from '../random.ts';
import { S2_RW_PAGE, type SteFields, buildSte, writeDwords } from '../tables.ts';
import type { Foundations } from './foundations.ts';
import { RAM_LOW } from './random-memory.ts';
import { RandomStream } from './random-stream.ts';
import { makeStageOne } from './stage-one.ts';
import { makeStageTwo, mapAnywhere, mapStageTwo } from './stage-two.ts';

export class RandomStreams {
  readonly all: RandomStream[] = [];
  /** An STE was changed at random: it may use another stream's CD now. */
  mixed = false;
  readonly #world: Foundations;
  /** Of the streams that share a VMID, by ASET. */
  readonly #sharedAsets = new Map<number, 'globals' | 'no globals'>();

  constructor(world: Foundations) {
    this.#world = world;
  }

  /**
   * Adds stream `i`, unless its StreamID is taken.
   * @param steOf where the table has the STE of a StreamID, if it has one
   */
  add(steOf: (sid: bigint) => bigint | undefined, twoLevel: boolean, i: number): void {
    const { random, ids, memory, e2h } = this.#world;
    const stream = new RandomStream();
    const sids = [i, i + 4, i + 8, ...(twoLevel ? [64 + i, 130 + i, 200 + i] : [])].map(BigInt);
    stream.sid = random.pick(sids.filter((sid) => steOf(sid) !== undefined).concat(sids[0]));
    if (this.all.some(({ sid }) => sid === stream.sid)) return;
    // Where the table has no room for it, the STE is somewhere else, and nobody finds it.
    stream.steAt = steOf(stream.sid) ?? memory.takeLow(64n);
    // Plain EL2 is one address space, so there can be but one stream of it (5.4.1).
    const another = this.all.some(({ el2 }) => el2);
    const globals = this.all.some(({ el2, global }) => el2 && global);
    stream.el2 = ids.hyp && random.chance(0.5) && (e2h ? !globals : !another);
    const config = stream.el2 ? 5 : random.pick([4, 5, 5, 6, 7, 7]);
    stream.stage1 = (config & 1) !== 0;
    stream.stage2 = (config & 2) !== 0;
    // Streams of one VMID share it only with stage 1 alone, and then use other ASIDs.
    // With global pages they must be apart in ASET too (3.17.1).
    const free = [0, 1].filter((aset) => !this.#sharedAsets.has(aset));
    const mates = [0, 1].filter((aset) => this.#sharedAsets.get(aset) === 'no globals');
    const shared = !stream.stage2 && !stream.el2 && free.length + mates.length > 0 && random.chance(0.5);
    stream.vmid = shared ? 7 : 20 + i;
    stream.asid = 40 + i;
    // Global pages of EL2 with E2H serve all ASIDs.
    stream.ASET = random.chance(0.2) ? 1 : 0;
    if (shared) stream.ASET = random.pick([...free, ...free, ...mates]);
    stream.global =
      (stream.el2 ? !another : !shared || free.includes(stream.ASET)) && random.chance(shared ? 0.5 : 0.3);
    if (shared) this.#sharedAsets.set(stream.ASET, stream.global ? 'globals' : 'no globals');
    const ste: SteFields = { Config: config, S2VMID: stream.vmid, STRW: stream.el2 ? 2 : 0 };
    if (ids.ats) ste.EATS = random.pick([0, 1, 1, 1, 2, 3]);
    if (ids.stallModel !== 1) ste.S2S = ids.stallModel === 2 || random.chance(0.3) ? 1 : 0;
    /** IPA of each RAM page that stage 1 uses. */
    let ipaOf = (pa: bigint): bigint => pa;
    let dataIpas: bigint[] = Array.from({ length: 6 }, () => random.big(random.pick([40, ids.oas])));
    if (stream.stage2) {
      const table = makeStageTwo(this.#world, stream, ste);
      // Low enough for every descriptor and IPS, and all of RAM fits above.
      const base = random.big(Math.min(table.shape.inputBits, 43)) >> 1n;
      ipaOf = (pa) => {
        const log2 = BigInt(table.shape.log2Granule);
        // Within what S2T0SZ allows, RAM pages lie somewhere else, in the order of their PAs.
        const ipa = (pa - RAM_LOW + ((base >> 24n) << 24n)) & ((1n << BigInt(table.shape.inputBits)) - 1n);
        const page = (ipa >> log2) << log2;
        // Few of these, or nothing would work any more.
        let attributes = random.chance(0.98) ? S2_RW_PAGE : this.#world.tables.stage2Attributes();
        if (random.chance(0.06)) attributes = (attributes & ~0x3cn) | (random.big(4) << 2n);
        mapStageTwo(stream, table, page, (pa >> log2) << log2, 3, attributes);
        return page | (pa & ((1n << log2) - 1n));
      };
      dataIpas = dataIpas.map(() => mapAnywhere(this.#world, stream, table));
    }
    if (stream.stage1) makeStageOne(this.#world, stream, ste, ipaOf, dataIpas);
    if (random.chance(ids.stallModel === 0 ? 0.3 : 0.08)) ste.S1STALLD = 1;
    if (ids.permsOvr) {
      ste.PRIVCFG = random.below(4);
      ste.INSTCFG = random.below(4);
    }
    writeDwords(memory, stream.steAt, buildSte(ste));
    this.all.push(stream);
    if (random.chance(0.08)) this.mixed = true;
    if (this.mixed) this.#flip(stream.steAt + BigInt(8 * random.pick([0, 1, 3])), stream.steAt + 8n);
  }

  #flip(at: bigint, word1: bigint): void {
    const { random, memory } = this.#world;
    const value = memory.dword(at);
    if (value !== undefined) memory.setDword(at, value ^ (1n << BigInt(randomBit(random, at === word1))));
  }
}

/** A random bit of an STE's word; STRW, in word 1, stays: who is in EL2 must agree with all others there (5.4.1). */
export function randomBit(random: Random, isWord1: boolean): number {
  for (;;) {
    const bit = random.below(64);
    if (!isWord1 || (bit !== 30 && bit !== 31)) return bit;
  }
}
