import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const root = new URL('../../', import.meta.url);
const page = readFileSync(new URL('docs/qemu-gaps.md', root), 'utf8');
const tests = readdirSync(new URL('test/', root), { recursive: true, encoding: 'utf8' }).filter((name) =>
  name.endsWith('.test.ts'),
);
const text = new Map(
  tests.map((name) => [`test/${name}`, readFileSync(new URL(`test/${name}`, root), 'utf8')]),
);
const rows = [...page.matchAll(/^\| (\d+) +\|.*\| `(test\/[^`]+)`: (gap [^|]*?) *\|$/gm)].map(
  ([, gap, file, name]) => ({
    gap: Number(gap),
    file,
    name,
  }),
);

const [, below = ''] = page.split(/^## In the lab, too$/m);
const shown = [...below.matchAll(/^\| (\d+) +\| (gap [^|]*?) *\|$/gm)].map(([, gap, name]) => ({
  gap: Number(gap),
  name,
}));
const CONTRACT = readFileSync(new URL('test/contract/gaps.contract.ts', root), 'utf8');
/** Gaps that the page says the lab cannot show: `- 7: ...`, `- 12, 27 and 31 to 34 ...`. */
const notShown = [...below.matchAll(/^- ([\d, andto]+?)(?::| are)/gm)].flatMap(([, list]) =>
  list.split(/, | and /).flatMap((range) => {
    const [first, last = first] = range.split(' to ').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  }),
);

describe('docs/qemu-gaps.md', () => {
  it('has every gap once, in order', () => {
    expect(rows.map(({ gap }) => gap)).toEqual(Array.from({ length: 36 }, (_, i) => i + 1));
  });
  it.each(rows)('gap $gap is closed by a test that exists, and bears its number', ({ gap, file, name }) => {
    expect(text.get(file)).toContain(`'${name}'`);
    expect(name).toMatch(new RegExp(`^gap (?:\\d+ and )?${gap}\\b`));
  });
  it('names no file that is not there', () => {
    for (const [, target] of page.matchAll(/\]\(([^)#]+)\)/g))
      expect(readFileSync(new URL(`docs/${target}`, root), 'utf8').length).toBeGreaterThan(0);
  });
  it.each(shown)(
    'gap $gap is shown in the lab by a case that exists, and bears its number',
    ({ gap, name }) => {
      expect(CONTRACT).toContain(`it('${name}'`);
      expect(name).toMatch(new RegExp(`^gap ${gap}\\b`));
    },
  );
  it('says of every gap whether the lab shows it', () => {
    const both = [...shown.map(({ gap }) => gap), ...notShown].toSorted((a, b) => a - b);
    expect(both).toEqual(Array.from({ length: 36 }, (_, i) => i + 1));
  });
  it('leaves out no case of the contract', () => {
    const gaps = new Set([...CONTRACT.matchAll(/^ *it\('gap (\d+): /gm)].map(([, gap]) => Number(gap)));
    expect([...gaps].toSorted((a, b) => a - b)).toEqual(shown.map(({ gap }) => gap));
  });
});
