/**
 * What the contract cases use of vitest, for a plain Node: inside the lab a whole vitest would take longer to start than
 * all cases to run. Staged programs find this file as `vitest`.
 */

import { format } from 'node:util';
import { JestAsymmetricMatchers, JestChaiExpect, JestExtend } from '@vitest/expect';
import * as chai from 'chai';

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);

export const { expect } = chai;

export interface Case {
  /** Of the case and all that it stands in. */
  readonly name: string;
  readonly run: () => void;
}

const cases: Case[] = [];
const within: string[] = [];

export function describe(name: string, body: () => void): void {
  within.push(name);
  body();
  within.pop();
}

export function it(name: string, run: () => void): void {
  cases.push({ name: [...within, name].join(' > '), run });
}

it.each =
  (rows: readonly unknown[]) =>
  (name: string, run: (...row: unknown[]) => void): void => {
    for (const row of rows) {
      const values = Array.isArray(row) ? (row as unknown[]) : [row];
      const wanted = name.match(/%[sdifjoO]/g)?.length ?? 0;
      it(format(name, ...values.slice(0, wanted)), () => run(...values));
    }
  };

/** The cases that `define` describes, in order. */
export function casesOf(define: () => void): readonly Case[] {
  cases.length = 0;
  define();
  return [...cases];
}
