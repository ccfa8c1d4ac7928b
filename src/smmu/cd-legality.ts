import { CD } from '../spec/cd.ts';
import { STE } from '../spec/ste.ts';
import { type Features, HTTU, STALL_MODEL } from './features.ts';
import { WORLD, type World, effectiveDS } from './stage-one.ts';
import { endianIllegal, exceeds, txszMax } from './ste-legality.ts';
import { LOG2_GRANULE_TG0, LOG2_GRANULE_TG1 } from './table-geometry.ts';

/** A field of a CD, by name. */
export type CdField = keyof typeof CD;

/**
 * CdIllegal() of 5.4.2 for a Non-secure stream, in its order, for VMSAv8-64.
 * @returns the field that makes the CD ILLEGAL, undefined if it is legal
 */
export function illegalCdField(
  cd: Uint32Array,
  ste: Uint32Array,
  world: World,
  features: Features,
): CdField | undefined {
  if (CD.V.get(cd) === 0) return 'V';
  const stall = CD.S.get(cd) === 1;
  if (stall && STE.S1STALLD.get(ste) === 1) return 'S';
  if (features.TERM_MODEL && CD.A.get(cd) === 0) return 'A';
  if (stall && features.STALL_MODEL === STALL_MODEL.TerminateOnly) return 'S';
  if (!stall && features.STALL_MODEL === STALL_MODEL.StallOnly) return 'S';
  // 5.4 EPD0: IGNORED in plain EL2, which has no upper half either.
  const lower = world === WORLD.EL2 || CD.EPD0.get(cd) === 0;
  const upper = world !== WORLD.EL2 && CD.EPD1.get(cd) === 0;
  if ((lower || upper) && endianIllegal(CD.ENDI.get(cd), features)) return 'ENDI';
  // The model has VMSAv8-64 tables only (IDR0.TTF=0b10, IDR5.D128=0).
  if (CD.AA64.get(cd) === 0) return 'AA64';
  const HA = CD.HA.get(cd) === 1;
  const HD = CD.HD.get(cd) === 1;
  if (HA && features.HTTU === HTTU.None) return 'HA';
  if (HD && (features.HTTU === HTTU.None || features.HTTU === HTTU.AccessFlag)) return 'HD';
  if (CD.HAFT.get(cd) === 1 && !HA && features.HTTU === HTTU.TableAccessFlag) return 'HAFT';
  if (world !== WORLD.EL2 && !features.ASID16 && CD.ASID.get(cd) > 0xff) return 'ASID';
  const field = lower ? illegalHalfField(cd, features, LOWER) : undefined;
  return field ?? (upper ? illegalHalfField(cd, features, UPPER) : undefined);
}

interface HalfFields {
  readonly TG: 'TG0' | 'TG1';
  readonly TxSZ: 'T0SZ' | 'T1SZ';
  readonly TTB: 'TTB0' | 'TTB1';
  readonly log2Granule: readonly number[];
}
const LOWER: HalfFields = { TG: 'TG0', TxSZ: 'T0SZ', TTB: 'TTB0', log2Granule: LOG2_GRANULE_TG0 };
const UPPER: HalfFields = { TG: 'TG1', TxSZ: 'T1SZ', TTB: 'TTB1', log2Granule: LOG2_GRANULE_TG1 };

/** TxSZ, TGx and TTBx of a half that is walked. TTBx is a range check only: nothing is fetched for it (5.4.1.1). */
function illegalHalfField(cd: Uint32Array, features: Features, half: HalfFields): CdField | undefined {
  const log2Granule = half.log2Granule[CD[half.TG].get(cd)];
  if (log2Granule === 0 || (features.granules & (1 << log2Granule)) === 0) return half.TG;
  const DS = effectiveDS(cd, features, log2Granule);
  const least = features.VAX !== 0 && (log2Granule === 16 || DS) ? 12 : 16;
  const TxSZ = CD[half.TxSZ].get(cd);
  if (TxSZ < least || TxSZ > txszMax(log2Granule, features.STT)) return half.TxSZ;
  const ttbHi = CD[half.TTB].getHi(cd) & 0xf_ffff;
  if (exceeds(ttbHi, features.outputBits(CD.IPS.get(cd)))) return half.TTB;
  return log2Granule !== 16 && !DS && exceeds(ttbHi, 48) ? half.TTB : undefined;
}
