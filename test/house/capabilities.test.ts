import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { describeIds, GUEST_DEFAULT } from '../../src/smmu/identification.ts';

const page = readFileSync(new URL('../../docs/capabilities.md', import.meta.url), 'utf8');

it("docs/capabilities.md says what the model's ID registers say, no more and no less", () => {
  const written: Record<string, number> = {};
  for (const [, field, value] of page.matchAll(/^\| `(\w+)`\s*\| (\d+)\s*\|/gm))
    written[field] = Number(value);
  const actual = Object.fromEntries(
    Object.entries(describeIds(GUEST_DEFAULT)).filter(([, value]) => value !== 0),
  );
  expect(written).toEqual(actual);
});
