/**
 * Changes a live STE or CD so that the device, which may read its eight 64-bit words at any time and in any order, sees
 * the old entry or the new one, or where that cannot be done, an invalid one, and never a mixture.
 */

import type { GuestRam } from './guest-ram.ts';

/** 32-bit words of an entry, which is read in 64-bit words. */
export const ENTRY_WORDS = 16;
const ENTRY_DWORDS = ENTRY_WORDS / 2;

export interface EntryKind {
  /** The bits of the entry that the device looks at, given its other bits. */
  usedBits(entry: Uint32Array): Uint32Array;
  /** Bits that the device may look at, but that change nothing that could hurt in passing. */
  readonly harmless: Uint32Array;
}

/**
 * Makes the entry at `at` equal to `target`.
 * @param invalidate what makes the device forget the entry, and waits: CFGI and CMD_SYNC. Called after each step that
 *   changed memory, so one to three times.
 */
export function writeEntry(
  ram: GuestRam,
  kind: EntryKind,
  at: number,
  target: Uint32Array,
  invalidate: () => void,
): void {
  const current = new Uint32Array(ENTRY_WORDS);
  ram.loadWords(at, current, ENTRY_WORDS);
  const store = (value: Uint32Array, from: number, to: number): boolean => {
    let changed = false;
    for (let i = 2 * from; i < 2 * to; i += 2) {
      if (current[i] === value[i] && current[i + 1] === value[i + 1]) continue;
      current[i] = value[i];
      current[i + 1] = value[i + 1];
      ram.store64(at + 4 * i, value[i + 1], value[i]);
      changed = true;
    }
    return changed;
  };

  // First come the bits that nobody looks at yet. What then still differs in bits that the target uses is critical.
  const inUse = kind.usedBits(current);
  const used = kind.usedBits(target);
  const prepared = new Uint32Array(ENTRY_WORDS);
  const critical = new Set<number>();
  for (let i = 0; i < ENTRY_WORDS; i++) {
    const busy = inUse[i] & ~kind.harmless[i];
    prepared[i] = (current[i] & busy) | (target[i] & ~busy);
    if (((prepared[i] ^ target[i]) & used[i]) !== 0) critical.add(i >>> 1);
  }

  if (critical.size > 1) {
    // No single store does it: the entry becomes invalid first. Word 0 holds V in both kinds.
    prepared[0] = 0;
    prepared[1] = 0;
    if (store(prepared, 0, 1)) invalidate();
    if (store(target, 1, ENTRY_DWORDS)) invalidate();
    if (store(target, 0, 1)) invalidate();
    return;
  }
  for (const dword of critical) {
    // One store of one word switches over. That word must not be touched before.
    prepared[2 * dword] = current[2 * dword];
    prepared[2 * dword + 1] = current[2 * dword + 1];
    if (store(prepared, 0, ENTRY_DWORDS)) invalidate();
    if (store(target, dword, dword + 1)) invalidate();
  }
  if (store(target, 0, ENTRY_DWORDS)) invalidate();
}
