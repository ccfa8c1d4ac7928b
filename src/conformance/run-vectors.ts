import { CMDQ_CONS, OFFSET } from '../spec/registers.ts';
import { VectorMachine } from './vector-machine.ts';
import { type Expectation, type StepResult, type Vector, parseVector } from './vector.ts';

/** One way in which the model differs from a vector. */
export interface Mismatch {
  readonly id: string;
  readonly name: string;
  readonly cat: string;
  /** Number of the step, the name of a register after the last one, or "vector" if it could not be played to its end. */
  readonly where: number | string;
  readonly expected: string;
  readonly got: string;
}

export interface CategoryCount {
  passed: number;
  failed: number;
}

export interface ConformanceReport {
  passed: number;
  failed: number;
  /** By category, in the order of the file. Has no prototype: a vector may name its category as it likes. */
  readonly categories: Record<string, CategoryCount>;
  /** All of them; several may be of one vector. */
  readonly mismatches: Mismatch[];
  /** Lines that are not vectors: number from 1, and why. */
  readonly malformed: { readonly line: number; readonly reason: string }[];
}

/**
 * Replays conformance vectors on the model.
 * @param lines one vector in JSON each; empty lines are skipped
 * @returns counts, and every mismatch. Malformed lines are listed and count as failed.
 */
export function runVectors(lines: Iterable<string>): ConformanceReport {
  const report: ConformanceReport = {
    passed: 0,
    failed: 0,
    categories: Object.create(null) as Record<string, CategoryCount>,
    mismatches: [],
    malformed: [],
  };
  const machine = new VectorMachine();
  let line = 0;
  for (const text of lines) {
    line += 1;
    if (text.trim() === '') continue;
    let vector: Vector;
    try {
      vector = parseVector(text);
    } catch (error) {
      report.malformed.push({ line, reason: error instanceof Error ? error.message : String(error) });
      report.failed += 1;
      continue;
    }
    const before = report.mismatches.length;
    try {
      runVector(machine, vector, report.mismatches);
    } catch (error) {
      // One vector that cannot be played says nothing about the others.
      const { id, name, cat } = vector;
      const got = error instanceof Error ? error.message : String(error);
      report.mismatches.push({ id, name, cat, where: 'vector', expected: 'an end', got });
    }
    const count = (report.categories[vector.cat] ??= { passed: 0, failed: 0 });
    if (report.mismatches.length === before) {
      count.passed += 1;
      report.passed += 1;
    } else {
      count.failed += 1;
      report.failed += 1;
    }
  }
  return report;
}

function runVector(machine: VectorMachine, vector: Vector, mismatches: Mismatch[]): void {
  const { id, name, cat, expected } = vector;
  const differ = (where: number | string, want: string, got: string): void => {
    mismatches.push({ id, name, cat, where, expected: want, got });
  };
  machine.prepare(vector);
  let drains = 0;
  for (const [i, step] of vector.steps.entries()) {
    const got = machine.step(step, vector);
    const want = expected.out[i];
    const isDrain = step[0] === 'drain';
    const same = isDrain
      ? sameEvents(want, got, expected.masks[drains] ?? [])
      : step[0] === 'r32'
        ? sameRegister(Number(step[1]), want as string, got as string, machine)
        : sameResult(want, got);
    if (isDrain) drains += 1;
    if (!same) differ(i, JSON.stringify(want), JSON.stringify(got));
  }
  for (const [register, want] of expected.final) {
    const offset = machine.offsetOf(register);
    const got = offset === undefined ? 'none' : machine.read(offset);
    if (offset === undefined || !sameRegister(offset, want, got, machine)) differ(register, want, got);
  }
}

/** 6.3.28: ERR means something only while the error is active. */
function sameRegister(offset: number, want: string, got: string, machine: VectorMachine): boolean {
  const mask = offset === OFFSET.CMDQ_CONS && !machine.commandError ? ~CMDQ_CONS.ERR.inPlace : -1;
  return ((Number(got) ^ Number(want)) & mask) === 0;
}

function sameResult(want: StepResult, got: StepResult): boolean {
  if (want === null || got === null) return want === got;
  if (typeof want === 'string' || typeof got === 'string') return false;
  if (!('ok' in want) || !('ok' in got)) return false;
  return want.ok === got.ok && want.ev === got.ev && (!want.ok || Number(want.pa) === Number(got.pa));
}

function sameEvents(want: StepResult, got: StepResult, masks: Expectation['masks'][number]): boolean {
  if (!Array.isArray(want) || !Array.isArray(got) || want.length !== got.length) return false;
  return want.every((record: string | null, i) => {
    const other = got[i] as string | null;
    if (record === null || other === null) return record === other;
    return sameRecord(record, other, masks[i] ?? null);
  });
}

function sameRecord(want: string, got: string, mask: string | null): boolean {
  if (mask === null) return want.toLowerCase() === got;
  return ((BigInt(`0x${want}`) ^ BigInt(`0x${got}`)) & BigInt(`0x${mask}`)) === 0n;
}
