import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { parseScenario } from '../../src/machine/scenario/parse.ts';
import { STEPS } from '../../src/machine/scenario/steps.ts';

const page = readFileSync(new URL('../../docs/scenarios.md', import.meta.url), 'utf8');
const folder = new URL('../../scenarios/', import.meta.url);

it.each(Object.entries(STEPS))('docs/scenarios.md has the action %s with all that it takes', (name, rule) => {
  const row = page.split('\n').find((line) => line.startsWith(`| \`${name}\` `));
  expect(row).toBeDefined();
  const fields = Object.keys((rule.schema as unknown as { entries: object }).entries);
  if (name === 'expect') for (const field of fields) expect(page).toContain(`| \`${field}\``);
  else for (const field of fields) expect(row).toContain(`\`${field}\``);
  expect(row).toMatch(new RegExp(`\\| ${rule.guest}\\s*\\|`));
});

it('the example in docs/scenarios.md is a scenario', () => {
  const example = /```yaml\n([\s\S]*?)```/.exec(page)![1];
  expect(parseScenario(example, 'docs/scenarios.md').cases).toHaveLength(1);
});

it.each(readdirSync(folder))('scenarios/%s is a scenario', (name) => {
  expect(parseScenario(readFileSync(new URL(name, folder), 'utf8'), name).cases.length).toBeGreaterThan(0);
});
