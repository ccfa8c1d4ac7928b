import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { runVectors } from '../../src/conformance/run-vectors.ts';

/** Vectors that the architecture proves wrong, with the clause and what is right. None is known. */
const EXCEPTIONS: Readonly<Record<string, { clause: string; why: string }>> = {};

function load(name: string): string[] {
  const file = new URL(`vectors/${name}.jsonl.gz`, import.meta.url);
  return gunzipSync(readFileSync(file))
    .toString('utf8')
    .split('\n')
    .filter((line) => line !== '');
}

const agreed = load('vectors');
const disputed = load('disputed');

/** What the tests change in a vector. */
interface Changeable {
  steps: string[][];
  out: ({ pa: string; ev: number; ok: boolean } & string[])[];
  final: Record<string, string>;
}

/** A vector with something changed by hand. */
function changed(change: (vector: Changeable, dma: { pa: string; ev: number; ok: boolean }) => void): string {
  const vector = JSON.parse(agreed.find((line) => line.includes('"ok":true'))!) as Changeable;
  change(vector, vector.out[vector.steps.findIndex(([name]) => name === 'dma')]);
  return JSON.stringify(vector);
}

describe('the vector runner', () => {
  it.each<[string, Parameters<typeof changed>[0]]>([
    ['the physical address', (_v, dma) => (dma.pa = '0x1')],
    ['the count of events', (_v, dma) => (dma.ev = 7)],
    ['whether it succeeds', (_v, dma) => (dma.ok = false)],
    ['a register at the end', (v) => (v.final.EVENTQ_PROD = '0x77')],
    ['the records', (v) => v.out.at(-1)!.push('00'.repeat(32))],
    ['a register that does not exist', (v) => (v.final.NOSUCH = '0x0')],
  ])('finds a vector that is wrong about %s', (_what, change) => {
    const report = runVectors([changed(change)]);
    expect(report.failed).toBe(1);
    expect(report.mismatches.length).toBeGreaterThan(0);
  });

  it('finds one wrong bit of a record that the mask covers, and none that it does not', () => {
    const line = agreed.find((text) => /"out":.*\["[0-9a-f]{64}"\]\]/u.test(text))!;
    const vector = JSON.parse(line);
    const drain = vector.out.length - 1;
    const record: string = vector.out[drain][0];
    const flip = (at: number): string =>
      record.slice(0, at) + (Number.parseInt(record[at], 16) ^ 1).toString(16) + record.slice(at + 1);
    const mask: string = vector.masks[0][0];
    for (let at = 0; at < 64; at++) {
      vector.out[drain][0] = flip(at);
      const covered = (Number.parseInt(mask[at], 16) & 1) !== 0;
      expect(runVectors([JSON.stringify(vector)]).failed, `digit ${at}`).toBe(covered ? 1 : 0);
    }
  });

  it.each(['', '   '])('skips the empty line "%s"', (line) => {
    expect(runVectors([line])).toMatchObject({ passed: 0, failed: 0, malformed: [] });
  });

  it.each([
    'not JSON',
    'null',
    '[]',
    '{}',
    '{"id":"x","cat":"c","mem":[],"eventq":{"base":"0x0","log2":1},"steps":[["w32"]],"out":[null],"final":{}}',
    '{"id":"x","cat":"c","mem":[["0x0","abc"]],"eventq":{"base":"0x0","log2":1},"steps":[],"out":[],"final":{}}',
    '{"id":"x","cat":"c","mem":[],"eventq":null,"steps":[],"out":[],"final":{}}',
    '{"id":"x","cat":"c","mem":[],"eventq":{"base":"0x0","log2":1},"steps":[["drain"]],"out":[],"final":{}}',
  ])('lists %s as malformed and goes on', (line) => {
    const report = runVectors([line, agreed[0]]);
    expect(report.malformed).toMatchObject([{ line: 1 }]);
    expect([report.passed, report.failed]).toEqual([1, 1]);
  });

  it('is not disturbed by the vectors before', () => {
    const some = agreed.slice(0, 40);
    expect(runVectors([...some, ...some.toReversed()]).mismatches).toEqual([]);
  });
});

describe('the model', () => {
  it('gives what QEMU gives where that agrees with the architecture: 1244 vectors', () => {
    const report = runVectors(agreed);
    expect(report.malformed).toEqual([]);
    expect(report.mismatches.filter(({ id }) => !(id in EXCEPTIONS))).toEqual([]);
    expect(report.passed + Object.keys(EXCEPTIONS).length).toBeGreaterThanOrEqual(1244);
  });

  it('gives what the architecture says where QEMU departs from it: 252 vectors', () => {
    const report = runVectors(disputed);
    expect(report.malformed).toEqual([]);
    expect(report.mismatches.filter(({ id }) => !(id in EXCEPTIONS))).toEqual([]);
    expect(report.passed + Object.keys(EXCEPTIONS).length).toBeGreaterThanOrEqual(252);
  });
});
