import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

import type { CaseResult, OracleCase } from './oracle-case.ts';

/** What QEMU 11.1.3 once made of the conformance vectors, those included in which it departs from the architecture. */
export interface Recorded {
  readonly given: OracleCase;
  readonly result: CaseResult;
}

export function recordedCases(): Recorded[] {
  return ['vectors', 'disputed'].flatMap((name) => {
    const file = new URL(`../conformance/vectors/${name}.jsonl.gz`, import.meta.url);
    const lines = gunzipSync(readFileSync(file)).toString('utf8').split('\n');
    return lines
      .filter((line) => line !== '')
      .map((line) => {
        const given = JSON.parse(line) as OracleCase & {
          out: CaseResult['out'] | 'crash';
          final: CaseResult['final'];
        };
        const { out, final } = given;
        if (out === 'crash') return { given, result: { out: [], final: {}, crashed: 'recorded as a crash' } };
        return { given, result: { out, final } };
      });
  });
}
