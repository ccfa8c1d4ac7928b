/**
 * A machine's files from a text in fixtures/, as real folders, files and links under a temporary root. A line is one of
 *
 *     include other.tree
 *     /a/file: content, where | begins a new line
 *     /a/link -> its target
 *     /a/folder/
 *     /a/file (refused) or (absent), as access(2) would say to the user
 *
 * and replaces an earlier one for the same path.
 */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll } from 'vitest';
import { hostFiles, type Access, type HostFiles } from '../../../src/host/linux/host-files.ts';

const roots: string[] = [];
afterAll(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true });
});

function linesOf(name: string): string[] {
  const text = readFileSync(new URL(`fixtures/${name}`, import.meta.url), 'utf8');
  return text.split('\n').flatMap((line) => {
    if (line.startsWith('include ')) return linesOf(line.slice(8));
    return line === '' || line.startsWith('#') ? [] : [line];
  });
}

/** @param more lines that follow those of the file. */
export function fixture(name: string, ...more: readonly string[]): HostFiles {
  const root = mkdtempSync(join(tmpdir(), 'vsmmu-fixture-'));
  roots.push(root);
  const content = new Map<string, string>();
  const links = new Map<string, string>();
  const access = new Map<string, Access>();
  for (const line of [...linesOf(name), ...more]) {
    const link = /^(\S+) -> (\S+)$/.exec(line);
    const permission = /^(\S+) \((refused|absent)\)$/.exec(line);
    const file = /^(\/\S*?):(?: (.*))?$/.exec(line);
    if (link !== null) links.set(link[1], link[2]);
    else if (permission !== null) access.set(permission[1], permission[2] as Access);
    else if (line.endsWith('/')) mkdirSync(join(root, line), { recursive: true });
    else if (file !== null) content.set(file[1], file[2] ?? '');
    else throw new Error(`${name}: ${line}`);
  }
  for (const [path, text] of content) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text.replaceAll('|', '\n'));
  }
  for (const [path, target] of links) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    symlinkSync(target, join(root, path));
  }
  const files = hostFiles(root);
  return { ...files, access: (path) => access.get(path) ?? files.access(path) };
}
