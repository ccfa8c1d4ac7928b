/** What the simulated kernel asks of a physical SMMU. */

import { outputAddressBits, type IdRegisters } from '../../../smmu/identification.ts';
import { IDR0, IDR1, IDR5 } from '../../../spec/registers.ts';

/** Linux wants room for more than one batch of 64 commands. */
const MIN_LOG2_COMMANDS = 7;
/** Pinned memory lies above 32 GiB. */
const MIN_OUTPUT_BITS = 40;
const TTENDIAN_BIG = 3;

/** One sentence for each reason why the kernel cannot drive an SMMU; empty if it can. */
export function driverProblems(ids: IdRegisters): string[] {
  const problems: string[] = [];
  if (IDR0.TTENDIAN.of(ids.IDR0) === TTENDIAN_BIG)
    problems.push('TTENDIAN 3: Linux has little-endian tables only.');
  if (IDR1.CMDQS.of(ids.IDR1) < MIN_LOG2_COMMANDS)
    problems.push(`CMDQS must be at least ${MIN_LOG2_COMMANDS}: Linux sends 64 commands at a time.`);
  if (IDR5.GRAN4K.of(ids.IDR5) === 0)
    problems.push('GRAN4K must be 1: the simulated host has pages of 4 KiB.');
  if (outputAddressBits(ids) < MIN_OUTPUT_BITS)
    problems.push(
      `OAS must be at least ${MIN_OUTPUT_BITS} bits: the simulated host has memory beyond 32 GiB.`,
    );
  return problems;
}
