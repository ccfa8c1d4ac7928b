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
});
