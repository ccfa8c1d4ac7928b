import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { explainWalkOf, type WalkOptions } from '../../src/cli/commands/explain-walk.ts';
import { UsageError } from '../../src/cli/exit.ts';

const folder = mkdtempSync(join(tmpdir(), 'vsmmu-walk-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}
/** An SMMU that is off: addresses pass. */
const IMAGE = file('image.json', JSON.stringify({ registers: { CR0: 0 }, memory: [] }));
const VECTORS = new URL('../conformance/vectors/vectors.jsonl.gz', import.meta.url).pathname;

function run(options: WalkOptions): { readonly code: number; readonly text: string } {
  let text = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  const code = explainWalkOf(options);
  return { code, text };
}

describe('vsmmu explain --walk refuses', () => {
  it.each<[string, WalkOptions, RegExp]>([
    ['a file that is not there', { walk: join(folder, 'none') }, /cannot be read/],
    ['no address', { walk: IMAGE, sid: '1' }, /needs --sid and --iova/],
    ['no StreamID', { walk: IMAGE, iova: '1' }, /needs --sid and --iova/],
    ['a StreamID of 33 bits', { walk: IMAGE, sid: '0x100000000', iova: '0' }, /--sid.*2\^32/],
    ['a SubstreamID of 21 bits', { walk: IMAGE, sid: '0', ssid: '0x100000', iova: '0' }, /--ssid.*2\^20/],
    ['an address that is none', { walk: IMAGE, sid: '0', iova: 'here' }, /--iova: here/],
    ['another access', { walk: IMAGE, sid: '0', iova: '0', access: 'rw' }, /r, w or x/],
    ['a vector in an image', { walk: IMAGE, sid: '0', iova: '0', id: 'x' }, /go with vectors/],
    ['a vector that is not there', { walk: VECTORS, id: 'x' }, /no vector x/],
    ['text', { walk: file('text', 'hello') }, /text: /],
    [
      'an image that is none',
      { walk: file('bad.json', '{"registers":{"X":1}}'), sid: '0' },
      /no register "X"/,
    ],
  ])('%s', (_what, options, message) => {
    expect(() => run(options)).toThrow(UsageError);
    expect(() => run(options)).toThrow(message);
  });
});

describe('vsmmu explain --walk', () => {
  it('prints the way of a transaction', () => {
    const { code, text } = run({ walk: IMAGE, sid: '1', iova: '0x1_0000' });
    expect(code).toBe(0);
    expect(text).toMatch(/^An unprivileged read of IOVA 0x10000 by StreamID 0x1 passes untranslated/);
  });

  it('fails where the transaction does', () => {
    expect(run({ walk: IMAGE, sid: '1', iova: '0xffff_0000_0000_0000' }).code).toBe(1);
  });

  it('takes the last DMA of a vector, and what is asked for instead', () => {
    const id = 's1_first_level-3028640fed';
    const walk = JSON.parse(run({ walk: VECTORS, id, json: true }).text) as object;
    expect(walk).toMatchObject({ sid: 0xf8, access: 'write', outcome: 'ok' });
    const other = run({ walk: VECTORS, id, json: true, sid: '2', access: 'x', privileged: true });
    expect(JSON.parse(other.text)).toMatchObject({ sid: 2, access: 'execute', privileged: true });
    expect(other.code).toBe(1);
    const early = run({ walk: VECTORS, id, step: '0', sid: '1', iova: '0' });
    expect(early.text).toContain('the SMMU is off');
  });
});
