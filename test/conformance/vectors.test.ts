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

  const QUEUE = { base: '0x40010000', log2: 1 };
  /** A vector that the runner takes, and passes, with something else in it. */
  const small = (more: object): string =>
    JSON.stringify({ id: 'x', cat: 'c', mem: [], eventq: QUEUE, steps: [], out: [], final: {}, ...more });
  const DRAIN = { steps: [['drain']], out: [[]], masks: [[]] };

  it('takes the smallest vector there is', () => {
    expect(runVectors([small({}), small(DRAIN)])).toMatchObject({ passed: 2, failed: 0, malformed: [] });
  });

  it.each([
    ['text', 'not JSON'],
    ['null', 'null'],
    ['a list', '[]'],
    ['an empty object', '{}'],
    ['too many brackets', '['.repeat(100_000)],
    ['no id', small({ id: 7 })],
    ['a step without its numbers', small({ steps: [['w32']], out: [null] })],
    ['an action that there is not', small({ steps: [['w8', '0x0', '0x0']], out: [null] })],
    ['a decimal number as text', small({ steps: [['r32', '32']], out: ['0x0'] })],
    ['a negative number', small({ steps: [['r32', -4]], out: ['0x0'] })],
    ['33 bits in w32', small({ steps: [['w32', '0x20', '0x100000000']], out: [null] })],
    ['65 bits in w64', small({ steps: [['w64', '0x80', '0x10000000000000000']], out: [null] })],
    ['an offset that no register has', small({ steps: [['r32', '0x100000000']], out: ['0x0'] })],
    ['a StreamID of 33 bits', small({ steps: [['dma', 2 ** 32, 'r', '0x0']], out: [{ ok: false, ev: 0 }] })],
    ['a StreamID of -1', small({ steps: [['dma', -1, 'r', '0x0']], out: [{ ok: false, ev: 0 }] })],
    ['an IOVA without 0x', small({ steps: [['dma', 1, 'r', 'ff']], out: [{ ok: false, ev: 0 }] })],
    ['half a byte', small({ mem: [['0x40000000', 'abc']] })],
    ['memory below RAM', small({ mem: [['0x3ffffffe', '00000000']] })],
    ['memory beyond RAM', small({ mem: [['0x1bffffffe', '00000000']] })],
    ['memory beyond all', small({ mem: [['0xffffffffffffffff', '00']] })],
    ['no queue', small({ eventq: null })],
    ['a queue larger than any', small({ ...DRAIN, eventq: { ...QUEUE, log2: 20 } })],
    ['a queue of less than one', small({ ...DRAIN, eventq: { ...QUEUE, log2: -1 } })],
    ['a queue of 2^1000', small({ ...DRAIN, eventq: { ...QUEUE, log2: 1000 } })],
    ['fewer results than steps', small({ steps: [['drain']] })],
    ['no results', small({ out: 'crash' })],
    ['a result of a write', small({ steps: [['w32', '0x20', '0x0']], out: ['0x0'] })],
    ['a register that is none', small({ steps: [['r32', '0x20']], out: ['zero'] })],
    ['a register of an object', small({ steps: [['r32', '0x20']], out: [{}] })],
    ['an access that gives a number', small({ steps: [['dma', 0, 'r', '0x0']], out: [7] })],
    ['an access that gives true', small({ steps: [['dma', 0, 'r', '0x0']], out: [true] })],
    ['an access to nowhere known', small({ steps: [['dma', 0, 'r', '0x0']], out: [{ ok: true, ev: 0 }] })],
    ['half an event', small({ steps: [['dma', 0, 'r', '0x0']], out: [{ ok: false, ev: 0.5 }] })],
    ['a short record', small({ ...DRAIN, out: [['00']] })],
    ['a record that is none', small({ ...DRAIN, out: [['zz'.repeat(32)]] })],
    ['a record of a number', small({ ...DRAIN, out: [[5]] })],
    ['a mask that is none', small({ ...DRAIN, masks: [['zz'.repeat(32)]] })],
    ['masks that are none', small({ ...DRAIN, masks: 'all' })],
    ['no registers', small({ final: null })],
    ['a final register that is none', small({ final: { GERROR: 'zero' } })],
    ['a final register of an object', small({ final: { GERROR: {} } })],
    ['a dispute without the right outcome', small({ disputed: { kind: 'departure', arch: null } })],
    ['a dispute that is none', small({ disputed: 'yes' })],
  ])('lists %s as malformed and goes on', (_what, line) => {
    const report = runVectors([line, agreed[0]]);
    expect(report.malformed).toMatchObject([{ line: 1 }]);
    expect(report.malformed[0].reason).not.toBe('');
    expect([report.passed, report.failed]).toEqual([1, 1]);
  });

  it('takes the numbers of another generator, plain or in hexadecimal, and whatever else it says', () => {
    const plain = small({
      mem: [[0x4000_0000, '00']],
      steps: [['w32', 0x28, 0xd75], ['r32', 0x28], ['dma', 3, 'w', 0x4000_0000], ['drain']],
      out: [null, 0xd75, { ok: true, ev: 0, pa: 0x4000_0000 }, []],
      final: { GERROR: 0 },
      generator: 'another',
      data: 'anything',
    });
    expect(runVectors([plain])).toMatchObject({ passed: 1, failed: 0, malformed: [], mismatches: [] });
  });

  it.each(['__proto__', 'constructor', 'toString', '', 'never seen'])('counts the category "%s"', (cat) => {
    const { categories } = runVectors([
      small({ cat }),
      small({ cat }),
      small({ cat, final: { CR0: '0x1' } }),
    ]);
    expect(Object.entries(categories)).toEqual([[cat, { passed: 2, failed: 1 }]]);
    expect({}).not.toHaveProperty('passed');
    expect(JSON.parse(JSON.stringify(categories))).toEqual(
      JSON.parse(`{${JSON.stringify(cat)}:{"passed":2,"failed":1}}`),
    );
  });

  it.each(['toString', '__proto__', 'constructor', 'IDR9'])('knows no register %s', (name) => {
    const line = small({}).replace('"final":{}', `"final":{${JSON.stringify(name)}:"0x0"}`);
    expect(runVectors([line]).mismatches).toMatchObject([{ where: name, got: 'none' }]);
  });

  it('gives up on a vector that spreads over all of RAM, and goes on', () => {
    const mem = Array.from({ length: 0x6000 }, (_, i) => [
      `0x${(0x4000_0000 + 0x1_0000 * i).toString(16)}`,
      '01',
    ]);
    const report = runVectors([small({ mem }), agreed[0]]);
    expect([report.passed, report.failed]).toEqual([1, 1]);
    expect(report.mismatches).toMatchObject([
      { id: 'x', where: 'vector', got: expect.stringMatching(/256 MiB/u) },
    ]);
  });

  it('does not compare CMDQ_CONS.ERR once its error was acknowledged (6.3.28)', () => {
    const line = agreed.find((text) => text.includes('"q_illegal'))!;
    const vector = JSON.parse(line) as { steps: string[][]; out: unknown[] };
    const cons = vector.steps.flatMap(([name, offset], i) =>
      name === 'r32' && offset === '0x9c' ? [i] : [],
    );
    const withError = (i: number, error: number): string => {
      const out = [...vector.out];
      out[i] = `0x${((Number(out[i]) & 0x00ff_ffff) | (error << 24)).toString(16)}`;
      return JSON.stringify({ ...vector, out });
    };
    // The first is read while the error is active, the last after GERRORN was written.
    expect(runVectors([withError(cons[0], 2)]).failed).toBe(1);
    expect(runVectors([withError(cons.at(-1)!, 2)]).failed).toBe(0);
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
