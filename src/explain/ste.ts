/** Stream Table Entries (IHI 0070 5.2) in sentences. */

import type { Span } from '../bits/field.ts';
import { hex32, hex64 } from '../bits/u64.ts';
import { OAS_BITS } from '../spec/registers.ts';
import { STE, STE_CONFIG, STE_EATS, STE_S1DSS, STE_S1FMT, STE_S2TG, STE_WORDS } from '../spec/ste.ts';
import { decode } from './decode.ts';
import { count, type Explanation, sizeOf } from './explanation.ts';

const GRANULE = { [STE_S2TG.Granule4K]: 12, [STE_S2TG.Granule64K]: 16, [STE_S2TG.Granule16K]: 14 } as const;

/** First level of the walk by S2SL0, per granule. */
const START_LEVEL: Readonly<Record<number, readonly (number | undefined)[]>> = {
  12: [2, 1, 0, 3],
  14: [3, 2, 1, 0],
  16: [3, 2, 1, undefined],
};

const pointer = (field: Span, words: Uint32Array): string => hex64(field.getHi(words), field.getLo(words));

function summary(words: Uint32Array): string {
  if (STE.V.get(words) === 0)
    return 'The entry is not valid (V=0): transactions of the stream are aborted and reported as C_BAD_STE.';
  switch (STE.Config.get(words)) {
    case STE_CONFIG.Bypass:
      return 'The stream bypasses translation: its addresses are used as they are.';
    case STE_CONFIG.S1:
      return 'The stream is translated by stage 1.';
    case STE_CONFIG.S2:
      return 'The stream is translated by stage 2.';
    case STE_CONFIG.Nested:
      return 'The stream is translated by stage 1 and then by stage 2.';
    default:
      return 'The stream is blocked: its transactions are aborted, and no event tells of it.';
  }
}

const DSS: Readonly<Record<number, string>> = {
  [STE_S1DSS.Bypass]: 'bypasses stage 1',
  [STE_S1DSS.Ssid0]: 'uses the descriptor of SubstreamID 0',
};

function stage1(words: Uint32Array): string[] {
  const log2 = STE.S1CDMax.get(words);
  const at = pointer(STE.S1ContextPtr, words);
  const found: string[] = [];
  if (log2 === 0) found.push(`Stage 1 has one context descriptor, at ${at}; there are no substreams.`);
  else {
    const format = STE.S1Fmt.get(words);
    const shape =
      format === STE_S1FMT.Leaf4K
        ? 'in two levels with leaves of 4 KiB'
        : format === STE_S1FMT.Leaf64K
          ? 'in two levels with leaves of 64 KiB'
          : 'in one array';
    const plain = DSS[STE.S1DSS.get(words)] ?? 'is terminated (F_STREAM_DISABLED)';
    found.push(
      `Stage 1 has up to 2^${log2} context descriptors ${shape} at ${at}; traffic without a SubstreamID ${plain}.`,
    );
  }
  if (STE.Config.get(words) === STE_CONFIG.Nested)
    found.push('That pointer is an IPA: stage 2 translates it.');
  if (STE.S1STALLD.get(words) === 1) found.push('Stage 1 faults of this stream may not stall (S1STALLD=1).');
  return found;
}

function stage2(words: Uint32Array): string[] {
  const log2 = (GRANULE as Readonly<Record<number, number>>)[STE.S2TG.get(words)];
  const level = log2 === undefined ? undefined : START_LEVEL[log2]?.[STE.S2SL0.get(words)];
  const vmid = hex32(STE.S2VMID.get(words));
  const output = OAS_BITS[STE.S2PS.get(words)];
  const found = [
    `Stage 2 of VMID ${vmid} takes IPAs of ${64 - STE.S2T0SZ.get(words)} bits to addresses of ${output} bits, with ` +
      `${log2 === undefined ? 'a reserved granule' : `a granule of ${sizeOf(log2)}`}; its tables start at ` +
      `${pointer(STE.S2TTB, words)}${level === undefined ? '' : `, level ${level}`}.`,
  ];
  const fate = STE.S2S.get(words) === 1 ? 'stall the transaction' : 'abort it';
  const told = STE.S2R.get(words) === 1 || STE.S2S.get(words) === 1 ? 'are recorded' : 'are not recorded';
  found.push(`Its faults ${fate} and ${told} (S2S, S2R).`);
  if (STE.S2FWB.get(words) === 1) found.push('Stage 2 decides the memory type (S2FWB=1).');
  if (STE.S2PTW.get(words) === 1) found.push('Stage 1 tables may not lie in device memory (S2PTW=1).');
  if (STE.S2HD.get(words) === 1) found.push('Hardware marks pages as accessed and dirty (S2HA, S2HD).');
  else if (STE.S2HA.get(words) === 1) found.push('Hardware marks pages as accessed (S2HA).');
  return found;
}

const EATS: Readonly<Record<number, string>> = {
  [STE_EATS.Full]: 'The device may use ATS.',
  [STE_EATS.SplitStage]: 'The device may use ATS for stage 1 only; stage 2 applies again to what it sends.',
  [STE_EATS.Dpt]: 'The device may use ATS, checked against the device permission table.',
};

/** What looks wrong, seen from the words alone. */
function suspicions(words: Uint32Array): string[] {
  if (words.every((word) => word === 0))
    return ['All words are 0: the entry was never written (Linux fills new tables with V=1, Config=0).'];
  if (STE.V.get(words) === 0)
    return ['An entry that is being changed passes through V=0; if it stays so, the driver did not finish.'];
  const config = STE.Config.get(words);
  const found: string[] = [];
  if (config > 0 && config < 4) found.push(`Config=${hex32(config)} is reserved and acts as abort.`);
  const eats = STE.EATS.get(words);
  if (
    (config & 4) !== 0 &&
    config !== STE_CONFIG.Bypass &&
    eats === STE_EATS.SplitStage &&
    config !== STE_CONFIG.Nested
  )
    found.push('EATS=2 needs both stages: ILLEGAL in an SMMU with ATS.');
  if (config >= 6) {
    if (STE.S2TG.get(words) === 3) found.push('S2TG=3 is reserved: ILLEGAL.');
    if (STE.S2AA64.get(words) === 0) found.push('S2AA64=0 asks for AArch32 tables, which few SMMUs have.');
    const size = STE.S2T0SZ.get(words);
    if (size < 16 || size > 39)
      found.push(
        `S2T0SZ=${size} is outside 16..39: ILLEGAL unless the SMMU has small tables or 52-bit addresses.`,
      );
    if (STE.S2S.get(words) === 1 && eats === STE_EATS.Full) found.push('EATS=1 with S2S=1 is ILLEGAL.');
  }
  return found;
}

/**
 * Explains a Stream Table Entry.
 * @param words the sixteen 32-bit words of the entry; missing ones count as zero
 */
export function explainSte(words: Uint32Array): Explanation {
  const ste = new Uint32Array(STE_WORDS);
  ste.set(words.subarray(0, STE_WORDS));
  const config = STE.V.get(ste) === 1 ? STE.Config.get(ste) : 0;
  const details: string[] = [];
  if (config >= 4) {
    if ((config & 1) !== 0) details.push(...stage1(ste));
    if ((config & 2) !== 0) details.push(...stage2(ste));
    const eats = EATS[STE.EATS.get(ste)];
    if (config !== STE_CONFIG.Bypass && eats !== undefined) details.push(eats);
    if (STE.CONT.get(ste) !== 0)
      details.push(`It stands for ${count(2 ** STE.CONT.get(ste), 'entry', 'entries')} like it (CONT).`);
  }
  return {
    kind: 'ste',
    severity: 'info',
    name: 'STE',
    summary: summary(ste),
    details,
    checks: suspicions(ste),
    fields: decode(STE, ste),
    clause: '5.2',
  };
}
