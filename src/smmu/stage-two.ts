import { STE } from '../spec/ste.ts';
import type { Features } from './features.ts';
import { LOG2_GRANULE_TG0, TableGeometry } from './table-geometry.ts';

/**
 * First level of a stage 2 walk, or undefined where S2SL0 is reserved (5.2 S2SL0; VTCR_EL2.SL0 and SL2).
 * @param sl S2SL0_2:S2SL0 where S2DS=1 with 4 KB, else S2SL0
 */
export function stage2StartLevel(
  log2Granule: number,
  sl: number,
  DS: boolean,
  STT: boolean,
): number | undefined {
  if (log2Granule === 12) {
    if (sl === 4) return DS ? -1 : undefined;
    if (sl === 3) return STT ? 3 : undefined;
    return sl < 3 ? 2 - sl : undefined;
  }
  if (sl < 3) return 3 - sl;
  // 16 KB with 52-bit addresses begins at level 0; 64 KB never does.
  return log2Granule === 14 && sl === 3 && DS ? 0 : undefined;
}

/** S2SL0 with its third bit where that exists: 4 KB granule and DS. */
export function stage2Sl(words: Uint32Array, log2Granule: number, DS: boolean): number {
  return STE.S2SL0.get(words) | (DS && log2Granule === 12 ? STE.S2SL0_2.get(words) << 2 : 0);
}

/** S2DS where it has an effect: IDR5.DS and a granule smaller than 64 KB (5.2 S2DS). */
export function effectiveS2DS(words: Uint32Array, features: Features): boolean {
  return features.DS && STE.S2DS.get(words) === 1 && LOG2_GRANULE_TG0[STE.S2TG.get(words)] !== 16;
}

/** The stage 2 half of a legal STE, decoded for the walk. */
export class StageTwo {
  readonly table = new TableGeometry();
  VMID = 0;
  /** Access flag: set by hardware (HA), else ignored (AFFD), else a fault. */
  HA = false;
  HD = false;
  HAFT = false;
  AFFD = false;
  /** Walks and CD fetches may not touch Device memory; only nested (5.2 S2PTW). */
  PTW = false;
  FWB = false;
  R = false;
  S = false;
  bigEndian = false;
  /** Oldest valid TLB entry of stage 2 alone, as of `tlbChanges`. */
  floor = 0;
  tlbChanges = 0;

  /** Decodes an STE that is not ILLEGAL and has Config[1]=1. */
  set(ste: Uint32Array, features: Features): void {
    const log2Granule = LOG2_GRANULE_TG0[STE.S2TG.get(ste)];
    const DS = effectiveS2DS(ste, features);
    this.table.set(
      log2Granule,
      64 - STE.S2T0SZ.get(ste),
      stage2StartLevel(log2Granule, stage2Sl(ste, log2Granule, DS), DS, features.STT)!,
      // 5.2 S2TTB: bits [55:52] belong to 128-bit descriptors only.
      STE.S2TTB.getHi(ste) & 0xf_ffff,
      STE.S2TTB.getLo(ste) | 0,
      features.outputBits(STE.S2PS.get(ste)),
      DS,
      features.oasBits,
    );
    this.VMID = STE.S2VMID.get(ste);
    this.tlbChanges = 0;
    // 5.2 S2HA: {HA=0, HD=1} behaves as no update at all.
    this.HA = STE.S2HA.get(ste) === 1;
    this.HD = this.HA && STE.S2HD.get(ste) === 1;
    this.HAFT = this.HA && features.HTTU === 3 && STE.S2HAFT.get(ste) === 1;
    this.AFFD = STE.S2AFFD.get(ste) === 1;
    this.PTW = STE.Config.get(ste) === 7 && STE.S2PTW.get(ste) === 1;
    this.FWB = features.FWB && STE.S2FWB.get(ste) === 1;
    this.R = STE.S2R.get(ste) === 1;
    this.S = STE.S2S.get(ste) === 1;
    this.bigEndian = STE.S2ENDI.get(ste) === 1;
  }
}
