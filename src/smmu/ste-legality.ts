import { STE, STE_CONFIG, STE_EATS, STE_S1FMT } from '../spec/ste.ts';
import { type Features, HTTU, STALL_MODEL, TTENDIAN } from './features.ts';
import { effectiveS2DS, stage2Sl, stage2StartLevel } from './stage-two.ts';
import { LOG2_GRANULE_TG0 } from './table-geometry.ts';

/** Whether a value of (hi, lo) needs more than `bits` bits (32..64). */
export const exceeds = (hi: number, bits: number): boolean => bits < 64 && hi >>> (bits - 32) !== 0;

/** STE.STRW says which regime stage 1 is of; IGNORED otherwise (5.2.2 IgnoreSTESTRW). */
export const usesSTRW = (config: number, features: Features): boolean =>
  features.S1P && features.HYP && config === STE_CONFIG.S1;

/** Smallest TxSZ and largest, for a granule (5.2 S2T0SZ, 5.4 T0SZ). */
export const txszMax = (log2Granule: number, STT: boolean): number =>
  STT ? (log2Granule === 16 ? 47 : 48) : 39;

/** A field of an STE, by name. */
export type SteField = keyof typeof STE;

/**
 * SteIllegal() of 5.2.2 for the Non-secure table, in its order. Fields that it does not name never count, nor do
 * reserved bits (a choice that chapter 5 leaves to the implementation).
 * @returns the field that makes the STE ILLEGAL, undefined if it is legal
 */
export function illegalSteField(ste: Uint32Array, features: Features): SteField | undefined {
  if (STE.V.get(ste) === 0) return 'V';
  const config = STE.Config.get(ste);
  // Config=0b0xx ends the transaction without an event, whatever the rest says.
  if ((config & 4) === 0) return undefined;
  const stage1 = (config & 1) !== 0;
  const stage2 = (config & 2) !== 0;
  if (stage1 && !features.S1P) return 'Config';
  if (stage2 && !features.S2P) return 'Config';
  if (features.ATS && config !== STE_CONFIG.Bypass && eatsIllegal(ste, config, features)) return 'EATS';
  if (usesSTRW(config, features) && (STE.STRW.get(ste) & 1) !== 0) return 'STRW';
  const field =
    (stage1 ? illegalStage1Field(ste, stage2, features) : undefined) ??
    (stage2 ? illegalStage2Field(ste, features) : undefined);
  if (field !== undefined) return field;
  // 5.2 S2VMID: checked also without stage 2, wherever it tags translations.
  const tagged =
    features.S2P && config !== STE_CONFIG.Bypass && !(usesSTRW(config, features) && STE.STRW.get(ste) !== 0);
  return tagged && !features.VMID16 && STE.S2VMID.get(ste) > 0xff ? 'S2VMID' : undefined;
}

function eatsIllegal(ste: Uint32Array, config: number, features: Features): boolean {
  const eats = STE.EATS.get(ste);
  const stall = STE.S2S.get(ste) === 1;
  const stage2 = (config & 2) !== 0;
  if (eats === STE_EATS.SplitStage) return config !== STE_CONFIG.Nested || stall || features.NS1ATS;
  if (eats === STE_EATS.Full) return stage2 && stall;
  if (eats === STE_EATS.Dpt && features.DPT)
    return (usesSTRW(config, features) && STE.STRW.get(ste) !== 0) || (stage2 && stall);
  return false;
}

function illegalStage1Field(ste: Uint32Array, stage2: boolean, features: Features): SteField | undefined {
  if (STE.S1STALLD.get(ste) === 1 && features.STALL_MODEL !== STALL_MODEL.StallAndTerminate)
    return 'S1STALLD';
  // 5.2 S1CDMax, S1Fmt: IGNORED without SubstreamIDs.
  if (features.SSIDSIZE !== 0) {
    const S1CDMax = STE.S1CDMax.get(ste);
    const S1Fmt = STE.S1Fmt.get(ste);
    if (S1CDMax > features.SSIDSIZE) return 'S1CDMax';
    if (S1CDMax !== 0 && !features.CD2L && (S1Fmt === STE_S1FMT.Leaf4K || S1Fmt === STE_S1FMT.Leaf64K))
      return 'S1Fmt';
  }
  // 3.4.3: alone it is a PA. Nested, C_BAD_STE is one of the two behaviours allowed; the other is the stage 2 fault
  // of the CD fetch, which the walk gives by itself.
  return !stage2 && exceeds(STE.S1ContextPtr.getHi(ste), features.oasBits) ? 'S1ContextPtr' : undefined;
}

function illegalStage2Field(ste: Uint32Array, features: Features): SteField | undefined {
  const stall = STE.S2S.get(ste) === 1;
  if (stall && features.STALL_MODEL === STALL_MODEL.TerminateOnly) return 'S2S';
  if (!stall && features.STALL_MODEL === STALL_MODEL.StallOnly) return 'S2S';
  // The model has VMSAv8-64 tables only (IDR0.TTF=0b10, IDR5.D128=0).
  if (STE.S2AA64.get(ste) === 0) return 'S2AA64';
  const HA = STE.S2HA.get(ste) === 1;
  const HD = STE.S2HD.get(ste) === 1;
  if (HA && features.HTTU === HTTU.None) return 'S2HA';
  if (HD && (features.HTTU === HTTU.None || features.HTTU === HTTU.AccessFlag)) return 'S2HD';
  if (STE.S2HAFT.get(ste) === 1 && !HA && features.HTTU === HTTU.TableAccessFlag) return 'S2HAFT';
  const log2Granule = LOG2_GRANULE_TG0[STE.S2TG.get(ste)];
  if ((features.granules & (1 << log2Granule)) === 0 || log2Granule === 0) return 'S2TG';
  const DS = effectiveS2DS(ste, features);
  const ttbHi = STE.S2TTB.getHi(ste) & 0xf_ffff;
  if (exceeds(ttbHi, features.outputBits(STE.S2PS.get(ste)))) return 'S2TTB';
  if (log2Granule !== 16 && !DS && exceeds(ttbHi, 48)) return 'S2TTB';
  const S2T0SZ = STE.S2T0SZ.get(ste);
  const least = Math.max(log2Granule === 16 || DS ? 12 : 16, 64 - features.oasBits);
  if (S2T0SZ < least || S2T0SZ > txszMax(log2Granule, features.STT)) return 'S2T0SZ';
  if (startLevelInconsistent(ste, log2Granule, 64 - S2T0SZ, DS, features)) return 'S2SL0';
  return endianIllegal(STE.S2ENDI.get(ste), features) ? 'S2ENDI' : undefined;
}

/** S2T0SZ, S2SL0 and S2TG must agree: at most 16 tables concatenated at the first level, and none to spare. */
function startLevelInconsistent(
  ste: Uint32Array,
  log2Granule: number,
  inputBits: number,
  DS: boolean,
  features: Features,
): boolean {
  const level = stage2StartLevel(log2Granule, stage2Sl(ste, log2Granule, DS), DS, features.STT);
  if (level === undefined) return true;
  // The highest levels exist only where the PA size can need them.
  if (log2Granule === 12 && level === 0 && features.oasBits < 44) return true;
  if (log2Granule === 16 && level === 1 && features.oasBits < 44) return true;
  if (log2Granule === 14 && level === 1 && features.oasBits < 42) return true;
  const stride = log2Granule - 3;
  const firstBits = inputBits - (log2Granule + (3 - level) * stride);
  return firstBits < 1 || firstBits > stride + 4;
}

/** Whether the tables' byte order is one that the SMMU lacks. */
export const endianIllegal = (ENDI: number, features: Features): boolean =>
  (features.TTENDIAN === TTENDIAN.Little && ENDI === 1) || (features.TTENDIAN === TTENDIAN.Big && ENDI === 0);
