/** Random streams, tables and changes to them, for comparing the translator with the slow walker. */

import type { IdRegisters } from '../../../src/smmu/identification.ts';
import { QEMU_LIKE, identify } from '../../../src/smmu/identification.ts';
import { EVENT, type EventStatus } from '../../../src/smmu/ports.ts';
import { KIND, OUTCOME, Transaction, Translation } from '../../../src/smmu/transaction.ts';
import { Translator } from '../../../src/smmu/translator.ts';
import { Random } from '../random.ts';
import { FEATURES, slowIds } from '../random-features.ts';
import type { SlowIds, SlowMachine, SlowRequest, SlowResult } from '../slow-machine.ts';
import { slowTranslate } from '../slow-walker.ts';
import { hiOf, loOf } from '../tables.ts';
import { Changes } from './changes.ts';
import { Invalidations } from './invalidations.ts';
import { RandomMemory } from './random-memory.ts';
import type { Focus } from './random-stream.ts';
import { RandomStreams } from './random-streams.ts';
import { RandomTables } from './random-tables.ts';
import { makeStreamTable } from './stream-table.ts';

const KINDS = {
  ordinary: KIND.Untranslated,
  'ats-request': KIND.AtsRequest,
  'ats-translated': KIND.AtsTranslated,
} as const;
const OUTCOMES = {
  [OUTCOME.Ok]: 'ok',
  [OUTCOME.Abort]: 'abort',
  [OUTCOME.RazWi]: 'razwi',
  // Never: nobody takes what stalls.
  [OUTCOME.Stalled]: 'abort',
  [OUTCOME.AtsUr]: 'ur',
  [OUTCOME.AtsCa]: 'ca',
} as const;

export class RandomWorld {
  readonly random: Random;
  readonly ids: IdRegisters;
  readonly memory: RandomMemory;
  readonly registers = new Uint32Array(64);
  readonly translator: Translator;
  readonly #records: bigint[][] = [];
  readonly #slow: SlowIds;
  readonly #e2h: boolean;
  readonly #streams: RandomStreams;
  readonly #changes: Changes;
  /** What was used last: likely to be changed. */
  #used: Focus | undefined;
  readonly #transaction = new Transaction();
  readonly #result = new Translation();

  constructor(seed: number) {
    this.random = new Random(seed);
    const { random, registers } = this;
    this.memory = new RandomMemory(random);
    // One world in four has ATS, and one has EL2.
    const sort = random.below(4);
    const sets = FEATURES.filter(({ ATS, HYP }) => (sort === 0 ? ATS : sort === 1 ? HYP : true));
    this.ids = identify(QEMU_LIKE, random.pick(sets));
    const ids = slowIds(this.ids);
    this.#slow = ids;
    registers[0x20 >>> 2] = 1 | (ids.ats && random.chance(0.8) ? 1 << 4 : 0);
    const e2h = ids.hyp && random.chance(0.6);
    this.#e2h = e2h;
    registers[0x2c >>> 2] = (e2h ? 1 : 0) | (random.chance(0.8) ? 2 : 0) | (random.chance(0.5) ? 8 : 0);
    const steOf = makeStreamTable(random, this.memory, registers);
    this.translator = this.freshTranslator();
    const world = { random, ids, memory: this.memory, tables: new RandomTables(random, ids), e2h };
    this.#streams = new RandomStreams(world);
    const twoLevel = registers[0x88 >>> 2] >>> 16 !== 0;
    const count = 1 + random.below(4);
    for (let i = 0; i < count; i++) this.#streams.add(steOf, twoLevel, i);
    this.#changes = new Changes(world, this.#streams, new Invalidations(world, this.translator));
  }

  /** A translator that knows nothing yet. @param log2TlbEntries as of Translator */
  freshTranslator(log2TlbEntries?: number): Translator {
    const record = (words: Uint32Array): EventStatus => {
      this.#records.push([...new BigUint64Array(words.slice().buffer)]);
      return EVENT.Queued;
    };
    return new Translator(this.ids, this.registers, this.memory, record, undefined, log2TlbEntries);
  }

  /** Changes something in memory, and invalidates as that needs. */
  change(): void {
    this.#changes.change(this.#used);
  }

  /** A transaction that is likely to meet something. */
  request(): SlowRequest {
    const { random } = this;
    const focus = random.chance(0.7) ? this.#changes.changed : undefined;
    const stream = focus?.stream ?? random.pick(this.#streams.all);
    let address: bigint;
    const kind =
      this.#slow.ats || random.chance(0.02)
        ? random.pick(['ordinary', 'ats-request', 'ats-request', 'ats-translated'] as const)
        : 'ordinary';
    const wanted = stream.stage1 && kind !== 'ats-translated' ? 1 : 2;
    // Now and then an address of another stream: what that left in caches must not serve this one.
    const whose = random.chance(0.12) ? random.pick(this.#streams.all) : stream;
    const inputs = whose.mappings.filter(({ stage }) => stage === wanted);
    if (inputs.length > 0 && random.chance(0.92)) {
      const again = focus !== undefined && inputs.includes(focus.mapping);
      const mapping = again ? focus.mapping : random.pick(inputs);
      this.#used = { stream: whose, mapping };
      const { input, log2Size } = mapping;
      const inside = (1n << BigInt(log2Size)) - 1n;
      address = (input & ~inside) | (random.big(64) & inside);
      if (random.chance(0.1)) address ^= 1n << BigInt(random.below(64));
      if (random.chance(0.1)) address = (address & 0xff_ffff_ffff_ffffn) | (random.big(8) << 56n);
    } else address = random.big(random.pick([32, 48, 64]));
    const ssv = random.chance(stream.ssid === undefined ? 0.03 : 0.7);
    return {
      kind,
      noWrite: kind === 'ats-request' && random.chance(0.4),
      sid: random.chance(0.97) ? stream.sid : random.big(random.pick([6, 9])),
      ssv,
      ssid: ssv ? (stream.ssid !== undefined && random.chance(0.9) ? stream.ssid : random.big(5)) : 0n,
      address,
      write: kind !== 'ats-request' && random.chance(0.4),
      privileged: random.chance(0.3),
      instruction: random.chance(0.2),
    };
  }

  /** What the slow walker makes of it, and what it would write. Memory is not changed. */
  slow(request: SlowRequest): { result: SlowResult; writes: Map<bigint, bigint> } {
    const writes = new Map<bigint, bigint>();
    const cfg = this.registers[0x88 >>> 2];
    const cr2 = this.registers[0x2c >>> 2];
    const machine: SlowMachine = {
      ids: this.#slow,
      strtabBase: (BigInt(this.registers[0x84 >>> 2]) << 32n) | BigInt(this.registers[0x80 >>> 2]),
      log2size: BigInt(cfg & 63),
      split: cfg >>> 16 === 0 ? undefined : 6n,
      e2h: this.#e2h,
      recinvsid: (cr2 & 2) !== 0,
      recCfgAts: (cr2 & 8) !== 0 && ((this.ids.IDR0 >>> 23) & 1) === 1,
      atschk: (this.registers[0x20 >>> 2] & (1 << 4)) !== 0,
      read: (at) => writes.get(at) ?? this.memory.dword(at),
      write: (at, value) => void writes.set(at, value),
    };
    return { result: slowTranslate(machine, request), writes };
  }

  /** What the translator makes of it. */
  fast(request: SlowRequest, translator = this.translator): SlowResult {
    const t = this.#transaction;
    t.sid = Number(request.sid);
    t.ssv = request.ssv;
    t.ssid = Number(request.ssid);
    t.addrHi = hiOf(request.address);
    t.addrLo = loOf(request.address);
    t.write = request.write;
    t.privileged = request.privileged;
    t.instruction = request.instruction;
    t.kind = KINDS[request.kind];
    t.noWrite = request.noWrite;
    this.#records.length = 0;
    this.memory.updated.clear();
    const outcome = OUTCOMES[translator.translate(t, this.#result)];
    const events = [...this.#records];
    const { paHi, paLo, readable, writable, executable, log2Size } = this.#result;
    let pa = outcome === 'ok' ? (BigInt(paHi) << 32n) | BigInt(paLo) : 0n;
    if (request.kind !== 'ats-request' || outcome !== 'ok') return { outcome, pa, events };
    const rights = `${readable ? 'r' : '-'}${writable ? 'w' : '-'}${executable ? 'x' : '-'}`;
    // An answer that grants nothing has no address.
    if (rights === '---') pa = 0n;
    return { outcome, pa, grant: `${rights} ${log2Size}`, events };
  }
}
