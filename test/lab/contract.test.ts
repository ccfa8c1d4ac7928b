import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { describe, expect, it } from 'vitest';

import type { Recorded } from './inside/contract.ts';
import { bootLab } from './lab.ts';
import { STAGED } from './stage.ts';

/** In the order that the cases want: two behind one SMMU, one behind another, one with interrupts. */
const DEVICES = ['0000:00:04.0', '0000:00:05.0', '0000:21:00.0', '0000:00:07.0'];

interface Difference {
  /** Name of a case. */
  readonly name: RegExp;
  /** What both kernels say where they differ; every other line has to be equal. */
  readonly line: RegExp;
  readonly reason: string;
}

/** Where the real kernel's answer is another, and rightly so. */
const DIFFERENCES: readonly Difference[] = [
  {
    name: /^vfioContract: information > says that it is a PCI device/,
    line: /^VFIO_DEVICE_GET_INFO: OK /,
    reason: 'iommu-testdev cannot be reset',
  },
  {
    name: /^vfioContract: (information > says where regions are|regions > are read up to their end)/,
    line: /^(VFIO_DEVICE_GET_REGION_INFO: OK |pread\(4, \d+\): EINVAL)/,
    reason: 'iommu-testdev is a conventional device with a BAR of one page that can be mapped',
  },
  {
    name: /^veventqContract: events > do not come from holes in stage 2: table walk$/,
    line: /^read\(65536\): /,
    reason:
      'QEMU reports a stage 2 fault of a stage 1 walk without S2, so that the kernel forwards it; ' +
      'the architecture has it with S2',
  },
];

const parse = (text: string): Recorded[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Recorded);

const PROGRAM = 'test/lab/inside/contract.js';

async function onEmbeddedHost(): Promise<Recorded[]> {
  const { stdout } = await promisify(execFile)(process.execPath, [join(STAGED, PROGRAM), 'sim'], {
    maxBuffer: 64 << 20,
  });
  return parse(stdout);
}

async function onLinux(): Promise<Recorded[]> {
  const lab = await bootLab();
  try {
    for (const address of DEVICES) await lab.bindToVfio(address);
    return parse(await lab.check(`node /lab/vsmmu/${PROGRAM} linux ${DEVICES.join(' ')}`, 150_000));
  } finally {
    await lab.close();
  }
}

const [embedded, linux] = await Promise.all([onEmbeddedHost(), onLinux()]);

/** Lines that differ, and that no entry above explains. */
function unexplained(name: string, ours: readonly string[], theirs: readonly string[]): string[] {
  const known = DIFFERENCES.filter((difference) => difference.name.test(name));
  const differ: string[] = [];
  for (let i = 0; i < Math.max(ours.length, theirs.length); i++) {
    const [a, b] = [ours, theirs].map((lines) => (i < lines.length ? lines[i] : '(nothing)'));
    if (a !== b && !known.some(({ line }) => line.test(a) && line.test(b)))
      differ.push(`${i}: embedded ${a}\n${i}: Linux    ${b}`);
  }
  return differ;
}

describe('the embedded host and Linux answer alike', () => {
  it('in as many cases', () => {
    expect(embedded.length).toBeGreaterThan(290);
    expect(linux.map(({ name }) => name)).toEqual(embedded.map(({ name }) => name));
  });

  it.each(embedded.map(({ name }, i) => [name, i] as const))('%s', (name, i) => {
    const [ours, theirs] = [embedded[i], linux[i]];
    expect(ours.failure).toBeUndefined();
    // A case that says what the embedded host answers fails where Linux rightly answers something else.
    if (!DIFFERENCES.some((difference) => difference.name.test(name))) expect(theirs.failure).toBeUndefined();
    expect(unexplained(name, ours.lines, theirs.lines)).toEqual([]);
  });

  it.each(DIFFERENCES.map((difference) => [difference.reason, difference] as const))(
    'still differ because %s',
    (_, { name, line }) => {
      const differs = embedded.some(
        (ours, i) =>
          name.test(ours.name) &&
          ours.lines.some((text, j) => line.test(text) && text !== linux[i]?.lines[j]),
      );
      expect(differs).toBe(true);
    },
  );

  it('line by line: the count', () => {
    const lines = embedded.reduce((sum, { lines: ours }) => sum + ours.length, 0);
    const equal = embedded.reduce(
      (sum, { lines: ours }, i) => sum + ours.filter((line, j) => line === linux[i]?.lines[j]).length,
      0,
    );
    console.log(`${equal} of ${lines} answers are equal, in ${embedded.length} cases`);
    expect(equal / lines).toBeGreaterThan(0.99);
  });
});

describe('Linux answers as it did when it was measured', () => {
  const measured = readFileSync(new URL('../contract/linux-7.3.jsonl', import.meta.url), 'utf8')
    .trim()
    .split('\n')
    .map(
      (line) => JSON.parse(line) as { operation: string; result: string; detail: string; records?: string[] },
    );
  const now = linux.find(({ name }) => name === 'the 268 lines')?.lines ?? [];

  /** Times are the measuring machine's. */
  const timeless = (detail: string): string =>
    detail.replace(/ {2}[0-9.]+ ms$/, '').replace(/^[0-9.]+ ms .*$/, '(time)');

  it.each(measured.map((line, i) => [i + 1, line.operation, line] as const))('%i: %s', (number, _, line) => {
    const { result, detail, records = [] } = line;
    expect(now[number - 1]).toBe([result, timeless(detail), ...records].join(' | '));
  });
});
