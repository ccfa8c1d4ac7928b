import { describe, expect, it } from 'vitest';
import { CD_KIND, contextDescriptor, type AddressSpace } from '../../src/guest/context-table.ts';
import { ENTRY_WORDS, type EntryKind, writeEntry } from '../../src/guest/entry-writer.ts';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import type { Features } from '../../src/guest/identification.ts';
import { PageAllocator } from '../../src/guest/page-allocator.ts';
import { abortSte, bypassSte, STE_KIND, stageOneSte } from '../../src/guest/stream-entries.ts';
import { Memory } from '../../src/memory/memory.ts';

const AT = 0x4000_0040;
const FEATURES = { attrTypesOvr: true, stalls: true, e2h: false, oasCode: 5 } as Features;

const table = (address: number, log2Cds = 0) => ({ address, format: 0, log2Cds });
const stream = { withoutSsid: 'cd0', ats: false, stalls: false } as const;
const space = (asid: number, root: number): AddressSpace => ({
  asid,
  table: root,
  granule: 12,
  iovaBits: 48,
  mair0: 0xf404_ff44,
  mair1: 0,
  stall: false,
  hardwareUpdate: false,
});

const INVALID = new Uint32Array(ENTRY_WORDS);
const S1 = stageOneSte(table(0x4100_0000), stream, FEATURES);
const S1_ELSEWHERE = stageOneSte(table(0x4200_0000, 4), stream, FEATURES);
const S1_STALLS = stageOneSte(table(0x4200_0000), { ...stream, stalls: true }, FEATURES);
const S1_ATS = stageOneSte(table(0x4100_0000), { ...stream, ats: true }, FEATURES);
const S1_BYPASS = stageOneSte(table(0x4100_0000), { ...stream, withoutSsid: 'bypass' }, FEATURES);
const S1_TERMINATE = stageOneSte(table(0x4100_0000), { ...stream, withoutSsid: 'terminate' }, FEATURES);
const BYPASS = bypassSte(FEATURES);
const CD = contextDescriptor(space(1, 0x4300_0000), FEATURES);
const CD_ASID = contextDescriptor(space(2, 0x4300_0000), FEATURES);
const CD_ELSEWHERE = contextDescriptor(space(3, 0x4400_0000), FEATURES);

/** What of an entry the device acts on. */
const effect = (kind: EntryKind, words: Uint32Array): string => {
  const used = kind.usedBits(words);
  return words.map((word, i) => word & used[i] & ~kind.harmless[i]).join();
};

/** Writes one entry over another. @returns the number of invalidations, and every entry that the device could see. */
function change(
  kind: EntryKind,
  from: Uint32Array,
  to: Uint32Array,
): { steps: number; effects: Set<string>; end: Uint32Array } {
  const memory = new Memory();
  memory.addRam(0, 0x4000_0000, new Uint8Array(0x1000));
  const ram = new GuestRam(memory, new PageAllocator(0x4000_0000, 0x1000));
  ram.storeWords(AT, from, ENTRY_WORDS);
  let cached = from.slice();
  const now = new Uint32Array(ENTRY_WORDS);
  const effects = new Set<string>();
  let steps = 0;
  writeEntry(ram, kind, AT, to, () => {
    steps += 1;
    ram.loadWords(AT, now, ENTRY_WORDS);
    // Until it is told to forget, the device may have any of the 64-bit words from before.
    for (let mixture = 0; mixture < 256; mixture++)
      effects.add(
        effect(
          kind,
          now.map((word, i) => ((mixture >>> (i >>> 1)) & 1 ? word : cached[i])),
        ),
      );
    cached = now.slice();
  });
  return { steps, effects, end: cached };
}

describe('changing an entry', () => {
  it.each([
    ['abort to stage 1', STE_KIND, abortSte(), S1, 2],
    ['stage 1 to abort', STE_KIND, S1, abortSte(), 2],
    ['abort to bypass', STE_KIND, abortSte(), BYPASS, 2],
    ['bypass to abort', STE_KIND, BYPASS, abortSte(), 2],
    ['stage 1 to bypass', STE_KIND, S1, BYPASS, 3],
    ['bypass to stage 1', STE_KIND, BYPASS, S1, 3],
    ['S1DSS alone', STE_KIND, S1, S1_TERMINATE, 1],
    ['stage 1 with S1DSS=bypass to bypass', STE_KIND, S1_BYPASS, BYPASS, 2],
    ['bypass to stage 1 with S1DSS=bypass', STE_KIND, BYPASS, S1_BYPASS, 2],
    ['a table of CDs to another and more', STE_KIND, S1_STALLS, S1, 3],
    ['a table of CDs to another', STE_KIND, S1, S1_ELSEWHERE, 1],
    ['invalid to CD', CD_KIND, INVALID, CD, 2],
    ['CD to invalid', CD_KIND, CD, INVALID, 2],
    ['ASID alone', CD_KIND, CD, CD_ASID, 1],
    ['address space', CD_KIND, CD, CD_ELSEWHERE, 3],
    ['nothing', CD_KIND, CD, CD, 0],
  ])('%s takes as many invalidations as in Linux', (_, kind, from, to, steps) => {
    expect(change(kind, from, to).steps).toBe(steps);
  });

  it.each([
    ['STE', STE_KIND, [abortSte(), BYPASS, S1, S1_ELSEWHERE, S1_STALLS, S1_ATS, S1_BYPASS, S1_TERMINATE]],
    ['CD', CD_KIND, [INVALID, CD, CD_ASID, CD_ELSEWHERE]],
  ])('never shows the device a mixture of two %ss', (_, kind, entries) => {
    for (const from of entries)
      for (const to of entries) {
        const { effects, end } = change(kind, from, to);
        const allowed = [from, to, INVALID].map((words) => effect(kind, words));
        for (const seen of effects) expect(allowed).toContain(seen);
        if (from !== to) expect(end).toEqual(to);
      }
  });
});
