import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { conformance } from '../../src/cli/commands/conformance.ts';

const folder = mkdtempSync(join(tmpdir(), 'vsmmu-conformance-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

let files = 0;
function file(content: string | Uint8Array): string {
  const path = join(folder, `${(files += 1)}.jsonl`);
  writeFileSync(path, content);
  return path;
}

const AGREED = new URL('../conformance/vectors/vectors.jsonl.gz', import.meta.url).pathname;
const lines = gunzipSync(readFileSync(AGREED)).toString('utf8').split('\n').slice(0, 30);
const GOOD = lines.join('\n');
const vector = JSON.parse(lines[0]) as { id: string; cat: string; final: Record<string, string> };
const WRONG = JSON.stringify({ ...vector, cat: 'new\u001b[31m', final: { ...vector.final, CR0: '0x77' } });

function run(
  paths: readonly string[],
  options: Parameters<typeof conformance>[1] = {},
): { readonly code: number; readonly text: string; readonly errors: string } {
  let text = '';
  let errors = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((chunk) => {
    errors += String(chunk);
    return true;
  });
  const code = conformance(paths, options);
  vi.restoreAllMocks();
  return { code, text, errors };
}

interface Printed {
  readonly file: string;
  readonly passed: number;
  readonly failed: number;
  readonly categories: Record<string, { passed: number; failed: number }>;
  readonly mismatches: { id: string; where: unknown; expected: string; got: string }[];
  readonly malformed: { line: number; reason: string }[];
}
const printed = (text: string): Printed[] =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Printed);

describe('vsmmu conformance ends with 2', () => {
  it.each<[string, () => string]>([
    ['is not there', () => join(folder, 'none')],
    [
      'is a folder',
      () => {
        mkdirSync(join(folder, 'folder'), { recursive: true });
        return join(folder, 'folder');
      },
    ],
    ['is empty', () => file('')],
    ['has empty lines only', () => file('\n  \n\r\n')],
    ['is a gzip that was cut', () => file(gzipSync(GOOD).subarray(0, 200))],
  ])('if a file %s, and runs the others all the same', (_what, path) => {
    const bad = path();
    const { code, text, errors } = run([bad, AGREED, file(WRONG)]);
    expect(code).toBe(2);
    expect(errors).toContain(bad);
    expect(errors.split('\n')).toHaveLength(2);
    expect(text).toContain('1244 passed, 0 failed');
    expect(text).toContain('0 passed, 1 failed');
  });
});

describe('vsmmu conformance ends with 1', () => {
  it('if a vector differs, and says where', () => {
    const { code, text } = run([file(`${GOOD}\n${WRONG}`)]);
    expect(code).toBe(1);
    expect(text).toContain('30 passed, 1 failed');
    expect(text).toContain(`${vector.id}, CR0: expected 0x77, got ${vector.final['CR0']}`);
  });

  it.each(['{', 'null', '\0\u0001\u0002', '{"id":"\u001b[2J","cat":7}', '['.repeat(50_000)])(
    'if a line is %j, which is no vector, and says which',
    (line) => {
      const { code, text } = run([file(`${GOOD}\n\n${line}\n${lines[0]}\n`)]);
      expect(code).toBe(1);
      expect(text).toContain('31 passed, 1 failed');
      expect(text).toMatch(/line 32: ./u);
      expect(text.split('\n').every((row) => row.length < 300)).toBe(true);
    },
  );

  it('if any of several files has a failure', () => {
    expect(run([file(WRONG), file(GOOD)]).code).toBe(1);
    expect(run([file(GOOD), file(WRONG)]).code).toBe(1);
  });

  it('and prints nothing that a terminal would take as more than text', () => {
    const { text } = run([file(`${WRONG}\n{"id":"\u001b[2J\u009b","cat":"c"}`)]);
    expect(text.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
  });
});

describe('vsmmu conformance ends with 0', () => {
  it.each<[string, () => string]>([
    ['plain', () => file(GOOD)],
    ['gzip', () => file(gzipSync(GOOD))],
    [
      'two gzips in one',
      () => file(Buffer.concat([gzipSync(`${lines[0]}\n`), gzipSync(lines.slice(1).join('\n'))])),
    ],
    ['with CRLF', () => file(lines.join('\r\n'))],
    ['with a byte order mark', () => file(`\ufeff${GOOD}`)],
  ])('if all of a file passes: %s', (_what, path) => {
    const { code, text } = run([path()]);
    expect(code).toBe(0);
    expect(text).toContain('30 passed, 0 failed');
  });
});

describe('vsmmu conformance --json', () => {
  it('prints an object per file, with counts per category and each mismatch', () => {
    const other = file(`${WRONG}\nno vector`);
    const { code, text } = run([AGREED, other], { json: true });
    expect(code).toBe(1);
    const [first, second] = printed(text);
    expect(first).toMatchObject({ file: AGREED, passed: 1244, failed: 0, mismatches: [], malformed: [] });
    expect(first.categories).toMatchObject({
      gbpa: { passed: 40, failed: 0 },
      tlb: { passed: 219, failed: 0 },
      mix: { passed: 37, failed: 0 },
    });
    expect(Object.keys(first.categories)).toHaveLength(13);
    expect(second).toMatchObject({ file: other, passed: 0, failed: 2 });
    expect(second.categories).toEqual({ 'new\u001b[31m': { passed: 0, failed: 1 } });
    expect(second.mismatches).toMatchObject([{ id: vector.id, where: 'CR0', expected: '0x77' }]);
    expect(second.malformed).toMatchObject([{ line: 2 }]);
  });
});
