/** Physical STEs as the kernel writes them. */

import { hiOfNumber, loOfNumber } from '../../../bits/u64.ts';
import { CACHEABILITY, SHAREABILITY } from '../../../spec/cd.ts';
import { STE, STE_CONFIG, STE_EATS, STE_S2TG, STE_SHCFG, STE_WORDS } from '../../../spec/ste.ts';
import type { Stage1Domain, Stage2Domain } from './domain.ts';

/** STE.S2SL0 by the level of the first table, 4 KiB granule. */
const S2SL0_BY_LEVEL = [2, 1, 0, 3] as const;

/** V=1, Config=0: every transaction is terminated, and nothing is recorded. */
export function abortSte(): Uint32Array {
  const ste = new Uint32Array(STE_WORDS);
  STE.V.set(ste, 1);
  STE.Config.set(ste, STE_CONFIG.Abort);
  return ste;
}

/** Stage 1 by the kernel's own context descriptor. */
export function stage1Ste(domain: Stage1Domain, ats: boolean): Uint32Array {
  const ste = new Uint32Array(STE_WORDS);
  STE.V.set(ste, 1);
  STE.Config.set(ste, STE_CONFIG.S1);
  STE.S1ContextPtr.set(ste, hiOfNumber(domain.contextDescriptor), loOfNumber(domain.contextDescriptor));
  STE.S1CIR.set(ste, CACHEABILITY.WriteBackWriteAllocate);
  STE.S1COR.set(ste, CACHEABILITY.WriteBackWriteAllocate);
  STE.S1CSH.set(ste, SHAREABILITY.Inner);
  STE.EATS.set(ste, ats ? STE_EATS.Full : STE_EATS.Disabled);
  return ste;
}

/** Stage 2 alone: input addresses are IPAs. */
export function stage2Ste(domain: Stage2Domain, ats: boolean): Uint32Array {
  const ste = new Uint32Array(STE_WORDS);
  STE.V.set(ste, 1);
  STE.Config.set(ste, STE_CONFIG.S2);
  STE.EATS.set(ste, ats ? STE_EATS.Full : STE_EATS.Disabled);
  STE.SHCFG.set(ste, STE_SHCFG.Incoming);
  STE.S2FWB.set(ste, domain.fwb ? 1 : 0);
  STE.S2VMID.set(ste, domain.vmid);
  STE.S2T0SZ.set(ste, 64 - domain.table.inputBits);
  STE.S2SL0.set(ste, S2SL0_BY_LEVEL[domain.table.startLevel]);
  STE.S2IR0.set(ste, CACHEABILITY.WriteBackWriteAllocate);
  STE.S2OR0.set(ste, CACHEABILITY.WriteBackWriteAllocate);
  STE.S2SH0.set(ste, SHAREABILITY.Inner);
  STE.S2TG.set(ste, STE_S2TG.Granule4K);
  STE.S2PS.set(ste, domain.outputSize);
  STE.S2AA64.set(ste, 1);
  STE.S2PTW.set(ste, 1);
  STE.S2R.set(ste, 1);
  STE.S2TTB.set(ste, hiOfNumber(domain.table.root), loOfNumber(domain.table.root));
  return ste;
}

/** What a nested HWPT asks for: words 0 and 1 of the guest's STE as four 32-bit words, already checked. */
export type GuestSte = readonly [lo0: number, hi0: number, lo1: number, hi1: number];

const guestSteConfig = (words: GuestSte): number => STE.Config.of(words[STE.Config.word]);
const guestSteValid = (words: GuestSte): boolean => STE.V.of(words[0]) === 1;

/** Whether the guest's STE translates by stage 1, which needs a vDEVICE. */
export const translates = (words: GuestSte): boolean =>
  guestSteValid(words) && guestSteConfig(words) === STE_CONFIG.S1;

/** The guest's STE over the parent's stage 2. */
export function nestedSte(words: GuestSte, parent: Stage2Domain, deviceAts: boolean): Uint32Array {
  if (!guestSteValid(words)) return abortSte();
  switch (guestSteConfig(words)) {
    case STE_CONFIG.Bypass:
      return stage2Ste(parent, deviceAts);
    case STE_CONFIG.S1: {
      const guestAts = STE.EATS.of(words[STE.EATS.word]) === STE_EATS.Full;
      const ste = stage2Ste(parent, false);
      for (let i = 0; i < words.length; i++) ste[i] |= words[i];
      STE.Config.set(ste, STE_CONFIG.Nested);
      STE.EATS.set(ste, guestAts && deviceAts ? STE_EATS.Full : STE_EATS.Disabled);
      // The kernel lets the hardware merge a guest's faults, so that they cannot drown the host's queue.
      STE.MEV.set(ste, 1);
      return ste;
    }
    default:
      return abortSte();
  }
}
