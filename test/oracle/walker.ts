/**
 * Translation as the architecture has it for the oracle's ID registers (S1P, S2P, AArch64, OAS 44, HAD, XNX, no HTTU, no
 * SubstreamIDs, no stalls), and as QEMU has it: each way in which QEMU departs can be switched on. Plain, on bigint,
 * without caches; shares nothing with the device.
 */

import type { Access, Kept, Outcome } from './access.ts';
import type { CaseState } from './case-state.ts';
import type { Quirk } from './departures.ts';
import { Walk } from './walk.ts';

/** What an access comes to in this state, with some of QEMU's ways. */
export const outcomeOf = (
  state: CaseState,
  access: Access,
  quirks: ReadonlySet<Quirk> = new Set(),
  kept?: Kept,
): Outcome => new Walk(state, access, quirks, kept).run();

/** What QEMU keeps after an access of which this state is the start, and which came to what these ways make of it. */
export function keptAfter(
  state: CaseState,
  access: Access,
  quirks: readonly Quirk[],
  kept: Kept,
): Pick<Walk, 'destination' | 'page' | 'leaves' | 'leafBits' | 'tables'> {
  const walk = new Walk(state, access, new Set([...KEEPING, ...quirks]), kept);
  walk.run();
  if (walk.destination !== undefined) return walk;
  const { tables } = walk;
  const plain = new Walk(state, access, new Set(quirks), kept);
  plain.run();
  const { destination, page, leaves, leafBits } = plain;
  return { destination, page, leaves, leafBits, tables };
}

/** With these QEMU finds first-level tables, and goes on where the architecture stops. */
const KEEPING: readonly Quirk[] = ['s1-table-base', 'ttb-with-cd', 's2ptw'];

/** The STE of an access and its CD, as far as they can be read. */
export const structuresOf = (
  state: CaseState,
  access: Access,
): { ste: readonly bigint[]; cd?: readonly bigint[] } | undefined =>
  new Walk(state, access, new Set()).structures();

/** What an access is translated to, whether something is there or not. */
export function destinationOf(
  state: CaseState,
  access: Access,
  quirks: ReadonlySet<Quirk>,
): bigint | undefined {
  const walk = new Walk(state, access, quirks);
  walk.run();
  return walk.destination;
}
