import type { StepResult } from '../../src/conformance/vector.ts';
import { type Access, type Kept, type Outcome, leavesKey } from './access.ts';
import { CaseState } from './case-state.ts';
import { CASE_DEPARTURES } from './case-departures.ts';
import type { Quirk } from './departures.ts';
import { fewest } from './fewest.ts';
import type { ModelOracle, ModelResult } from './model-oracle.ts';
import { type CaseResult, FINAL_REGISTERS, type OracleCase } from './oracle-case.ts';
import { type Seen, accessesOf, sameRecord, wordsOf } from './records.ts';
import { keptAfter, outcomeOf } from './walker.ts';

/** One thing that nobody can explain. */
export interface Difference {
  readonly step: number | string;
  readonly text: string;
}

export interface Verdict {
  /** Where the model is not what the walker says. */
  readonly model: Difference[];
  /** Where QEMU is not what the model says, and no departure explains it. */
  readonly qemu: Difference[];
  /** Departures that explain something in this case. */
  readonly used: Set<string>;
}

const EVENTQ = { PROD: 0x100a8, CONS: 0x100ac } as const;
/** Compares what the model and QEMU made of a case. */
export function compare(given: OracleCase, models: ModelOracle, qemu: CaseResult): Verdict {
  const verdict: Verdict = { model: [], qemu: [], used: new Set() };
  const model = models.run(given);
  checkModel(given, model, verdict);
  if (same(given, model, qemu)) return verdict;
  // What is QEMU's way with registers and queues can be put into the case; the model then shows what comes of it.
  let asQemu = given;
  let expected: ModelResult = model;
  for (const departure of CASE_DEPARTURES) {
    if (!departure.applies(asQemu, expected)) continue;
    if (departure.crash === true) {
      if (qemu.crashed === undefined) continue;
      verdict.used.add(departure.id);
      return verdict;
    }
    const before = JSON.stringify(expected);
    if (departure.rewrite !== undefined) {
      asQemu = departure.rewrite(asQemu);
      expected = models.run(asQemu);
    }
    departure.adjust?.(asQemu, expected, given);
    if (JSON.stringify(expected) !== before) verdict.used.add(departure.id);
  }
  if (qemu.crashed !== undefined) verdict.qemu.push({ step: 'end', text: qemu.crashed });
  else new Comparison(asQemu, expected, qemu, verdict).run();
  return verdict;
}

const same = (given: OracleCase, one: CaseResult, other: CaseResult): boolean =>
  new Comparison(given, { ...one, writable: given.steps.map(() => true), overflow: undefined }, other, {
    model: [],
    qemu: [],
    used: new Set(),
  }).isSame();

/** The model against the walker, access by access. */
function checkModel(given: OracleCase, model: ModelResult, verdict: Verdict): void {
  const state = new CaseState(given.mem);
  const seen = accessesOf(given, model.out);
  for (const [i, step] of given.steps.entries()) {
    state.apply(step);
    const access = accessOf(step);
    if (access === undefined) continue;
    const outcome = outcomeOf(state, access);
    const got = seen?.get(i);
    if (got === undefined || isOutcome(got, outcome, model.writable[i])) continue;
    verdict.model.push({
      step: i,
      text: `${step.join(' ')}: model ${textOfSeen(got)}, walker ${textOf(outcome)}`,
    });
  }
}

const accessOf = (step: OracleCase['steps'][number]): Access | undefined =>
  step[0] === 'dma' ? { sid: step[1], write: step[2] === 'w', iova: BigInt(step[3]) } : undefined;

function isOutcome(seen: Seen, { pa, record }: Outcome, writable: boolean): boolean {
  const recorded = writable ? record : undefined;
  if (seen.ok !== (pa !== undefined) || seen.events !== (recorded === undefined ? 0 : 1)) return false;
  return (!seen.ok || seen.pa === pa) && sameRecord(recorded, seen.record);
}

/** A comparison of results that should be the same but for what happens to single accesses. */
class Comparison {
  readonly #case: OracleCase;
  readonly #expected: ModelResult;
  readonly #qemu: CaseResult;
  readonly #verdict: Verdict;
  readonly #state: CaseState;
  /** How many more records QEMU has written than the model; and at the last drain, so before EVENTQ_CONS. */
  #more = 0;
  #drained = 0;
  /** Leaves that an access went through. */
  readonly #reached = new Set<string>();
  readonly #tables = new Map<string, bigint>();
  readonly #pages = new Map<string, bigint>();

  constructor(given: OracleCase, expected: ModelResult, qemu: CaseResult, verdict: Verdict) {
    this.#case = given;
    this.#expected = expected;
    this.#qemu = qemu;
    this.#verdict = verdict;
    this.#state = new CaseState(given.mem);
  }

  /** Whether nothing needs to be explained. */
  isSame(): boolean {
    if (this.#qemu.crashed !== undefined) return false;
    const { out } = this.#expected;
    const one = accessesOf(this.#case, out);
    const other = accessesOf(this.#case, this.#qemu.out);
    for (const [i, step] of this.#case.steps.entries()) {
      if (step[0] === 'drain' && one !== undefined && other !== undefined) continue;
      if (JSON.stringify(out[i]) !== JSON.stringify(this.#qemu.out[i])) return false;
    }
    for (const [i, seen] of one ?? []) if (!sameRecord(seen.record, other?.get(i)?.record)) return false;
    return Object.keys(FINAL_REGISTERS).every((name) => this.#sameRegister(name));
  }

  run(): void {
    const { unordered } = this.#expected;
    const expected = unordered === true ? undefined : accessesOf(this.#case, this.#expected.out);
    const got = accessesOf(this.#case, this.#qemu.out);
    for (const [i, step] of this.#case.steps.entries()) {
      this.#state.apply(step);
      if (step[0] === 'dma') {
        const one = expected?.get(i);
        const other = got?.get(i);
        if (one === undefined || other === undefined) this.#exactly(i);
        else this.#access(i, accessOf(step)!, one, other);
      } else if (step[0] === 'drain') {
        this.#drained = this.#more;
        if (expected === undefined || got === undefined) this.#exactly(i);
      } else if (step[0] === 'r32') this.#register(i, Number(step[1]));
    }
    for (const name of Object.keys(FINAL_REGISTERS)) {
      if (this.#sameRegister(name)) continue;
      this.#differ(name, `model ${this.#expected.final[name]}, QEMU ${this.#qemu.final[name]}`);
    }
  }

  #differ(step: number | string, text: string): void {
    this.#verdict.qemu.push({ step, text });
  }

  #exactly(i: number): void {
    if (this.#sameDrain(i)) return;

    const [one, other] = [this.#expected.out[i], this.#qemu.out[i]].map((result) => JSON.stringify(result));
    if (one !== other) this.#differ(i, `${this.#case.steps[i].join(' ')}: model ${one}, QEMU ${other}`);
  }

  #sameDrain(i: number): boolean {
    const [one, other] = [this.#expected.out[i], this.#qemu.out[i]];
    if (!Array.isArray(one) || !Array.isArray(other) || one.length !== other.length) return false;
    return one.every((record: string | null, n) => {
      const got = other[n] as string | null;
      return record === null || got === null ? record === got : sameRecord(wordsOf(record), wordsOf(got));
    });
  }

  #register(i: number, offset: number): void {
    if (!this.#sameValue(offset, this.#expected.out[i], this.#qemu.out[i])) this.#exactly(i);
  }

  #sameRegister(name: string): boolean {
    const { final } = this.#expected;
    const one = final[name];
    const other = this.#qemu.final[name];
    // 6.3.28: ERR means something only while the error is active.
    const active = ((Number(final.GERROR) ^ Number(final.GERRORN)) & 1) !== 0;
    if (name === 'CMDQ_CONS' && !active) return ((Number(one) ^ Number(other)) & 0xff_ffff) === 0;
    return this.#sameValue(FINAL_REGISTERS[name as keyof typeof FINAL_REGISTERS], one, other);
  }

  /** The same, but for the records that QEMU has more. */
  #sameValue(offset: number, one: StepResult, other: StepResult): boolean {
    const more = offset === EVENTQ.PROD ? this.#more : offset === EVENTQ.CONS ? this.#drained : 0;
    const wrap = 2 ** (this.#case.eventq.log2 + 1) - 1;
    const [a, b] = [Number(one), Number(other)];
    if (more === 0) return a === b;
    return ((a + more) & wrap) === (b & wrap) && (a & ~wrap) === (b & ~wrap);
  }

  #access(i: number, access: Access, expected: Seen, got: Seen): void {
    const writable = this.#expected.writable[i];
    const wanted: Outcome = {
      ...(expected.pa !== undefined && { pa: expected.pa }),
      ...(expected.record && { record: expected.record }),
    };
    let quirks: Quirk[] | undefined = [];
    if (!isOutcome(got, wanted, true)) {
      quirks = this.#explain(access, got, writable);
      if (quirks === undefined) {
        this.#differ(
          i,
          `${this.#case.steps[i].join(' ')}: model ${textOfSeen(expected)}, QEMU ${textOfSeen(got)}`,
        );
      } else for (const quirk of quirks) this.#verdict.used.add(quirk);
    }
    this.#more += got.events - expected.events;
    const { destination, page, leaves, leafBits, tables } = keptAfter(
      this.#state,
      access,
      quirks ?? [],
      this.#kept,
    );
    if (destination !== undefined) {
      this.#reached.add(leavesKey(leaves));
      // Where the leaf of stage 1 is the larger one.
      if (page !== undefined && leafBits[0] > leafBits[1]) this.#pages.set(page, destination & -0x1000n);
    }
    for (const [key, pa] of tables) if (!this.#tables.has(key)) this.#tables.set(key, pa);
  }

  get #kept(): Kept {
    return { tables: this.#tables, reached: this.#reached, pages: this.#pages };
  }

  #explain(access: Access, got: Seen, writable: boolean): Quirk[] | undefined {
    const kept = this.#kept;
    const outcome = (quirks: readonly Quirk[]): Outcome =>
      outcomeOf(this.#state, access, new Set(quirks), kept);
    return fewest(
      (quirks) => isOutcome(got, outcome(quirks), writable),
      (quirks) => textOf(outcome(quirks)),
    );
  }
}

const hex = (value: bigint): string => value.toString(16);
const textOf = ({ pa, record }: Outcome): string =>
  `${pa === undefined ? 'fails' : `at ${hex(pa)}`}${record === undefined ? '' : ` ${record.map(hex).join('.')}`}`;
const textOfSeen = ({ ok, pa, events, record }: Seen): string =>
  `${ok ? `at ${pa === undefined ? '?' : hex(pa)}` : 'fails'}${record === undefined ? '' : ` ${record.map(hex).join('.')}`}${events > 1 ? ` (${events})` : ''}`;
