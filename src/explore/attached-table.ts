/** What a device is attached to, as the kernel's account has it: words 0 and 1 of an STE as text. */

import { bareSpaceOf } from '../guest/bare-guest.ts';

/** What the STE as text, in the account of the kernel, does with DMA. */
export function effectOf(table: string | undefined): string | undefined {
  if (table === undefined || table === 'nothing') return table === undefined ? undefined : 'none';
  if (table === 'paging') return 'bypass';
  const low = parseInt(table, 16);
  const config = (low >>> 1) & 7;
  if (config !== 5) return config === 4 ? 'bypass' : 'abort';
  // A context descriptor that the guest cannot have written is a tripwire: it aborts, with an event.
  return spaceOf(table) === undefined ? 'tripwire' : 'translate';
}

/** The address space whose CD a table names; undefined if it names none of the guest's. */
export function spaceOf(table: string | undefined): number | undefined {
  if (table === undefined) return undefined;
  const low = parseInt(table, 16);
  return ((low >>> 1) & 7) === 5 ? bareSpaceOf((low & ~0x3f) >>> 0) : undefined;
}
