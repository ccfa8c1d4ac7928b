import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const folder = new URL('../../docs/decisions/', import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, folder), 'utf8');
const files = readdirSync(folder).filter((name) => name !== 'README.md');
const index = read('README.md');

it('every decision is named by its number, and has one of its own', () => {
  for (const name of files) {
    expect(name).toMatch(/^\d{4}-[a-z0-9-]+\.md$/);
    expect(read(name)).toMatch(new RegExp(`^# ${Number(name.slice(0, 4))}\\. `));
  }
  expect(new Set(files.map((name) => name.slice(0, 4))).size).toBe(files.length);
});

it.each(files)('%s is in the index, under its title', (name) => {
  const title = /^# \d+\. (.+)$/m.exec(read(name))![1];
  // The formatter may break a long line.
  expect(index.replace(/\s+/g, ' ')).toContain(`[${Number(name.slice(0, 4))}](./${name}): ${title}`);
});

it('the index names no decision that is not there', () => {
  for (const [, name] of index.matchAll(/\]\(\.\/([^)]+)\)/g)) expect(files).toContain(name);
});

it.each(files)('the files of the project that %s names exist', (name) => {
  for (const [, path] of read(name).matchAll(/`((?:src|test|docs)\/[\w./-]+)`/g))
    expect(existsSync(new URL(`../../${path}`, import.meta.url)), path).toBe(true);
});
