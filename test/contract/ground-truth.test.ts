/** What Linux 7.3.4 answered, line by line, against the embedded host. */

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { simRig } from '../host/sim/machine.ts';
import { GroundTruth, type Step } from './ground-truth.ts';

interface Line extends Step {
  readonly line: number;
  readonly operation: string;
}

const LINES = readFileSync(new URL('linux-7.3.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Line);

/** Times are the measuring machine's. */
const timeless = (detail: string): string =>
  detail.replace(/ {2}[0-9.]+ ms$/, '').replace(/^[0-9.]+ ms .*$/, '(time)');

describe('the embedded host answers as Linux 7.3 did', () => {
  const steps = new GroundTruth(simRig()).run();

  it('in as many steps', () => {
    expect(steps.length).toBe(268);
    expect(LINES.length).toBe(268);
  });

  it.each(LINES.map((line) => [line.line, line.operation, line] as const))('%i: %s', (number, _, line) => {
    const { result, detail, records } = steps[number - 1];
    expect({ result, detail, records }).toEqual({
      result: line.result,
      detail: timeless(line.detail),
      records: line.records,
    });
  });
});
