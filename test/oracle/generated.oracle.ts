import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { CASE_DEPARTURES } from './case-departures.ts';
import { type Verdict, compare } from './compare.ts';
import { WALK_DEPARTURES } from './departures.ts';
import { findQemu } from './find-qemu.ts';
import { TEMPLATES, generate } from './generators.ts';
import { ModelOracle } from './model-oracle.ts';
import type { QemuOracle } from './qemu-oracle.ts';

/**
 * Settings by environment: ORACLE_SEED is the first seed, a number or "random"; ORACLE_CASES is how many of each category;
 * ORACLE_CATEGORIES are some of the categories, with commas between them.
 */
const { ORACLE_SEED = '1', ORACLE_CASES = '300', ORACLE_CATEGORIES } = process.env;
const seed =
  ORACLE_SEED === 'random' ? Math.floor(Math.random() * 2 ** 31) : number('ORACLE_SEED', ORACLE_SEED);
const count = number('ORACLE_CASES', ORACLE_CASES);
const categories = ORACLE_CATEGORIES?.split(',') ?? Object.keys(TEMPLATES);

/** No case at all would be a test that cannot fail. */
function number(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new RangeError(`${name}=${text} is not a number from 1.`);
  return value;
}

for (const category of categories)
  if (!Object.hasOwn(TEMPLATES, category))
    throw new RangeError(
      `ORACLE_CATEGORIES: there is no ${category}, but ${Object.keys(TEMPLATES).join(', ')}.`,
    );

/** In how many cases each departure was needed. */
const used = new Map<string, number>(
  [...Object.keys(WALK_DEPARTURES), ...CASE_DEPARTURES.map(({ id }) => id)].map((id) => [id, 0]),
);
const models = new ModelOracle();
let qemu: QemuOracle;
let cases = 0;
let accesses = 0;
let plain = 0;

beforeAll(async () => {
  qemu = await findQemu();
  console.log(`Seeds ${seed} to ${seed + count - 1} in each of ${categories.length} categories.`);
});

afterAll(async () => {
  await qemu?.close();
  const rows = [...used].filter(([, times]) => times > 0).sort(([, a], [, b]) => b - a);
  const unused = [...used].filter(([, times]) => times === 0).map(([id]) => id);
  console.log(
    [
      `${cases} cases, ${accesses} accesses; ${plain} cases without any departure.`,
      'Departures of QEMU, and in how many cases:',
      ...rows.map(([id, times]) => `  ${id} ${times}`),
      `Not seen: ${unused.length === 0 ? 'none' : unused.join(', ')}.`,
    ].join('\n'),
  );
});

function explain(category: string, at: number, verdict: Verdict): string[] {
  if (verdict.model.length + verdict.qemu.length === 0) return [];
  const again = `ORACLE_CATEGORIES=${category} ORACLE_SEED=${at} ORACLE_CASES=1 npm run test:oracle`;
  const { name } = generate(category, at);
  return [
    ...verdict.model.map(({ step, text }) => `${name} step ${step}: ${text} [${again}]`),
    ...verdict.qemu.map(({ step, text }) => `${name} step ${step}: ${text} [${again}]`),
  ];
}

describe('the model, on generated cases', () => {
  it.each(categories)('%s: is what QEMU is, but for known departures', async (category) => {
    const different: string[] = [];
    for (let at = seed; at < seed + count; at++) {
      const given = generate(category, at);
      const verdict = compare(given, models, await qemu.run(given));
      different.push(...explain(category, at, verdict));
      for (const id of verdict.used) used.set(id, used.get(id)! + 1);
      cases += 1;
      accesses += given.steps.filter(([kind]) => kind === 'dma').length;
      if (verdict.used.size === 0) plain += 1;
    }
    expect(different.slice(0, 20), `${different.length} differences`).toEqual([]);
  });
});
