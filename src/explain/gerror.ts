/** Global errors (IHI 0070 7.5) in sentences. */

import type { Field } from '../bits/field.ts';
import { hex32 } from '../bits/u64.ts';
import { GERROR } from '../spec/registers.ts';
import { decode } from './decode.ts';
import { count, type Explanation, list } from './explanation.ts';

interface Meaning {
  readonly summary: string;
  readonly checks: readonly string[];
}

const msi = (what: string): Meaning => ({
  summary: `the MSI of ${what} could not be written`,
  checks: [`Is the MSI address of ${what} (its IRQ_CFG0 register) a doorbell that the SMMU can reach?`],
});

const MEANINGS: Readonly<Record<keyof typeof GERROR, Meaning>> = {
  CMDQ_ERR: {
    summary: 'the command queue stopped at a command',
    checks: ['The line "CMDQ error" says which error; the command is at CMDQ_CONS.RD.'],
  },
  EVENTQ_ABT_ERR: {
    summary: 'an event record could not be written to memory, and no more are until this is acknowledged',
    checks: [
      'Is EVENTQ_BASE in RAM that the SMMU can reach? Was the queue freed, or the memory taken away from a guest?',
    ],
  },
  PRIQ_ABT_ERR: {
    summary: 'a page request could not be written to memory, so devices get failures',
    checks: ['Is PRIQ_BASE in RAM that the SMMU can reach?'],
  },
  MSI_CMDQ_ABT_ERR: msi('CMD_SYNC'),
  MSI_EVENTQ_ABT_ERR: msi('the event queue'),
  MSI_PRIQ_ABT_ERR: msi('the PRI queue'),
  MSI_GERROR_ABT_ERR: msi('global errors'),
  SFM_ERR: {
    summary: 'the SMMU entered Service Failure Mode and translates nothing any more',
    checks: ['This is an uncorrectable internal error: look at RAS records; only a reset helps.'],
  },
  CMDQP_ERR: {
    summary: 'an enhanced command queue stopped at a command',
    checks: ['Look at the error in the CONS registers of the enhanced command queues.'],
  },
  DPT_ERR: {
    summary: 'a device permission table access failed',
    checks: ['Read DPT_CFG_FAR and check the device permission table.'],
  },
};

/** The sentence and checks of one GERROR bit, for messages that name just one. */
export const gerrorMeaning = (name: keyof typeof GERROR): Meaning => MEANINGS[name];

/**
 * Explains global errors.
 * @param active GERROR XOR GERRORN, which is also what Linux prints: a one is an error that was not acknowledged
 */
export function explainGerror(active: number): Explanation {
  const words = Uint32Array.of(active);
  const entries = Object.entries(GERROR) as [keyof typeof GERROR, Field][];
  const set = entries.filter(([, field]) => field.get(words) !== 0);
  const named = set.reduce((mask, [, field]) => mask | field.inPlace, 0);
  const rest = (active & ~named) >>> 0;
  const parts = set.map(([name]) => `${MEANINGS[name].summary} (${name})`);
  if (rest !== 0) parts.push(`bits ${hex32(rest)} are set, which the architecture does not define`);
  return {
    kind: 'gerror',
    severity: active === 0 ? 'info' : 'error',
    name: set.length === 0 ? 'GERROR' : set.map(([name]) => name).join(', '),
    summary:
      parts.length === 0
        ? 'No global error is active.'
        : `${count(parts.length, 'global error').replace(/^1 /, 'A ')}: ${list(parts)}.`,
    details: [],
    checks: set.flatMap(([name]) => MEANINGS[name].checks),
    fields: decode(GERROR, words),
    clause: '7.5',
  };
}
