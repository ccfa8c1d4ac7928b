import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { hiOf, loOf } from '../../../src/bits/u64.ts';
import { VectorMachine } from '../../../src/conformance/vector-machine.ts';
import { vectorMoment } from '../../../src/conformance/vector-moment.ts';
import { type DmaResult, parseVector } from '../../../src/conformance/vector.ts';
import { explainWalk } from '../../../src/explain/walk/explain-walk.ts';
import { formatWalk } from '../../../src/explain/walk/format-walk.ts';
import { Transaction } from '../../../src/smmu/transaction.ts';

const linesOf = (name: string): string[] =>
  gunzipSync(readFileSync(new URL(`../../conformance/vectors/${name}`, import.meta.url)))
    .toString('utf8')
    .split('\n')
    .filter((line) => line !== '');

it.each(['vectors.jsonl.gz', 'disputed.jsonl.gz'])(
  'every DMA of %s is explained as it ends, and none stops without a cause',
  (name) => {
    const machine = new VectorMachine();
    const wrong: string[] = [];
    let explained = 0;
    for (const line of linesOf(name)) {
      const vector = parseVector(line);
      machine.prepare(vector);
      for (const [i, step] of vector.steps.entries()) {
        if (step[0] === 'dma') {
          const iova = BigInt(step[3]);
          const walk = explainWalk(
            machine.smmu,
            Object.assign(new Transaction(), {
              sid: step[1],
              write: step[2] === 'w',
              addrHi: hiOf(iova),
              addrLo: loOf(iova),
            }),
          );
          explained += 1;
          const { ok, pa } = vector.expected.out[i] as DmaResult;
          // A DMA may also fail behind the SMMU, where there is no memory.
          const same = ok ? walk.outcome === 'ok' && Number(walk.pa) === Number(pa) : true;
          const complete = (walk.outcome === 'ok') === (walk.cause === undefined);
          if (!same || !complete || formatWalk(walk).includes('undefined')) wrong.push(`${vector.id} ${i}`);
        }
        machine.step(step, vector);
      }
    }
    expect(wrong).toEqual([]);
    expect(explained).toBeGreaterThan(200);
  },
);

const FIRST = linesOf('vectors.jsonl.gz').find((line) => line.includes('"s1_'))!;
const VECTOR = parseVector(FIRST);

it.each([
  ['two vectors without an id', [FIRST, FIRST], undefined, undefined, /name the one/],
  ['an id that is not there', [FIRST], 'nobody', undefined, /no vector nobody/],
  ['a step that is not there', [FIRST], VECTOR.id, 1000, /there is no 1000/],
  ['a line that is no vector', ['{"id":"x"}'], 'x', undefined, /has an id and a cat/],
] as const)('a moment of a vector needs more than %s', (_what, lines, id, step, message) => {
  expect(() => vectorMoment([...lines], id, step)).toThrow(message);
});

it('a moment of a vector is in front of its last DMA, or of the step asked for', () => {
  const last = VECTOR.steps.findLastIndex(([action]) => action === 'dma');
  expect(vectorMoment([FIRST, '']).step).toBe(last);
  const start = vectorMoment([FIRST], VECTOR.id, 0);
  expect([start.step, start.dma]).toEqual([0, undefined]);
  expect(start.smmu.smmuEnabled).toBe(false);
  expect(vectorMoment([FIRST]).smmu.smmuEnabled).toBe(true);
});
