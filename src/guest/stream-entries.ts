/** The Stream Table Entries that the driver writes, and which of their bits a device looks at. */

import { hiOfNumber, loOfNumber } from '../bits/u64.ts';
import { CACHEABILITY, SHAREABILITY } from '../spec/cd.ts';
import { STE, STE_CONFIG, STE_EATS, STE_S1DSS, STE_SHCFG, STE_STRW, STE_WORDS } from '../spec/ste.ts';
import type { EntryKind } from './entry-writer.ts';
import type { Features } from './identification.ts';

/** An entry that aborts everything. */
export function abortSte(): Uint32Array {
  const words = new Uint32Array(STE_WORDS);
  STE.V.set(words, 1);
  STE.Config.set(words, STE_CONFIG.Abort);
  return words;
}

/** An entry that lets everything through as it comes. */
export function bypassSte(features: Features): Uint32Array {
  const words = abortSte();
  STE.Config.set(words, STE_CONFIG.Bypass);
  if (features.attrTypesOvr) STE.SHCFG.set(words, STE_SHCFG.Incoming);
  return words;
}

/** Where the CDs of a stream are. */
export interface CdTableShape {
  readonly address: number;
  /** STE.S1Fmt and STE.S1CDMax. */
  readonly format: number;
  readonly log2Cds: number;
}

const S1DSS = { cd0: STE_S1DSS.Ssid0, bypass: STE_S1DSS.Bypass, terminate: STE_S1DSS.Terminate } as const;

export interface StageOneStream {
  /** What a transaction without SubstreamID does: use CD 0, pass untranslated, or abort. */
  readonly withoutSsid: 'cd0' | 'bypass' | 'terminate';
  readonly ats: boolean;
  /** The device copes with stalled transactions. */
  readonly stalls: boolean;
}

/** An entry that translates by a table of CDs. */
export function stageOneSte(table: CdTableShape, stream: StageOneStream, features: Features): Uint32Array {
  const words = abortSte();
  STE.Config.set(words, STE_CONFIG.S1);
  STE.S1Fmt.set(words, table.format);
  STE.S1ContextPtr.set(words, hiOfNumber(table.address), loOfNumber(table.address));
  STE.S1CDMax.set(words, table.log2Cds);
  STE.S1DSS.set(words, S1DSS[stream.withoutSsid]);
  STE.S1CIR.set(words, CACHEABILITY.WriteBackWriteAllocate);
  STE.S1COR.set(words, CACHEABILITY.WriteBackWriteAllocate);
  STE.S1CSH.set(words, SHAREABILITY.Inner);
  STE.S1STALLD.set(words, features.stalls && !stream.stalls ? 1 : 0);
  STE.EATS.set(words, stream.ats ? STE_EATS.Full : STE_EATS.Disabled);
  STE.STRW.set(words, features.e2h ? STE_STRW.El2 : STE_STRW.NsEl1);
  if (features.attrTypesOvr && stream.withoutSsid === 'bypass') STE.SHCFG.set(words, STE_SHCFG.Incoming);
  return words;
}

const ALL = 0xffff_ffff;
const STAGE_1 = [
  STE.S1Fmt,
  STE.S1CDMax,
  STE.S1DSS,
  STE.S1CIR,
  STE.S1COR,
  STE.S1CSH,
  STE.S1STALLD,
  STE.EATS,
  STE.STRW,
  STE.MEV,
  STE.S2VMID,
];

const harmless = new Uint32Array(STE_WORDS);
// MEV only merges events. EATS changes only while the device itself has ATS switched off.
STE.MEV.set(harmless, ALL);
STE.EATS.set(harmless, ALL);

/** The driver writes no stage 2 entries, so their fields are not listed. */
export const STE_KIND: EntryKind = {
  harmless,
  usedBits(entry) {
    const used = new Uint32Array(STE_WORDS);
    STE.V.set(used, 1);
    if (STE.V.get(entry) === 0) return used;
    STE.Config.set(used, ALL);
    const config = STE.Config.get(entry);
    if (config === STE_CONFIG.S1) {
      for (const field of STAGE_1) field.set(used, ALL);
      STE.S1ContextPtr.set(used, ALL, ALL);
    }
    if (
      config === STE_CONFIG.Bypass ||
      (config === STE_CONFIG.S1 && STE.S1DSS.get(entry) === STE_S1DSS.Bypass)
    )
      STE.SHCFG.set(used, ALL);
    return used;
  },
};
