import { CD } from '../spec/cd.ts';
import { STE } from '../spec/ste.ts';
import { type Features, HTTU, STALL_MODEL } from './features.ts';
import { WORLD, type World, effectiveDS } from './stage-one.ts';
import { endianIllegal, exceeds, txszMax } from './ste-legality.ts';
import { LOG2_GRANULE_TG0, LOG2_GRANULE_TG1 } from './table-geometry.ts';

/** CdIllegal() of 5.4.2 for a Non-secure stream, in its order, for VMSAv8-64. */
export function cdIllegal(cd: Uint32Array, ste: Uint32Array, world: World, features: Features): boolean {
  if (CD.V.get(cd) === 0) return true;
  const stall = CD.S.get(cd) === 1;
  if (stall && STE.S1STALLD.get(ste) === 1) return true;
  if (features.TERM_MODEL && CD.A.get(cd) === 0) return true;
  if (stall && features.STALL_MODEL === STALL_MODEL.TerminateOnly) return true;
  if (!stall && features.STALL_MODEL === STALL_MODEL.StallOnly) return true;
  // 5.4 EPD0: IGNORED in plain EL2, which has no upper half either.
  const lower = world === WORLD.EL2 || CD.EPD0.get(cd) === 0;
  const upper = world !== WORLD.EL2 && CD.EPD1.get(cd) === 0;
  if ((lower || upper) && endianIllegal(CD.ENDI.get(cd), features)) return true;
  // The model has VMSAv8-64 tables only (IDR0.TTF=0b10, IDR5.D128=0).
  if (CD.AA64.get(cd) === 0) return true;
  const HA = CD.HA.get(cd) === 1;
  const HD = CD.HD.get(cd) === 1;
  if ((HA || HD) && features.HTTU === HTTU.None) return true;
  if (HD && features.HTTU === HTTU.AccessFlag) return true;
  if (CD.HAFT.get(cd) === 1 && !HA && features.HTTU === HTTU.TableAccessFlag) return true;
  if (world !== WORLD.EL2 && !features.ASID16 && CD.ASID.get(cd) > 0xff) return true;
  if (lower) {
    const granule = LOG2_GRANULE_TG0[CD.TG0.get(cd)];
    if (halfIllegal(cd, features, granule, CD.T0SZ.get(cd), CD.TTB0.getHi(cd) & 0xf_ffff)) return true;
  }
  if (upper) {
    const granule = LOG2_GRANULE_TG1[CD.TG1.get(cd)];
    if (halfIllegal(cd, features, granule, CD.T1SZ.get(cd), CD.TTB1.getHi(cd) & 0xf_ffff)) return true;
  }
  return false;
}

/** TxSZ, TGx and TTBx of a half that is walked. TTBx is a range check only: nothing is fetched for it (5.4.1.1). */
function halfIllegal(
  cd: Uint32Array,
  features: Features,
  log2Granule: number,
  TxSZ: number,
  ttbHi: number,
): boolean {
  if (log2Granule === 0 || (features.granules & (1 << log2Granule)) === 0) return true;
  const DS = effectiveDS(cd, features, log2Granule);
  const least = features.VAX !== 0 && (log2Granule === 16 || DS) ? 12 : 16;
  if (TxSZ < least || TxSZ > txszMax(log2Granule, features.STT)) return true;
  if (exceeds(ttbHi, features.outputBits(CD.IPS.get(cd)))) return true;
  return log2Granule !== 16 && !DS && exceeds(ttbHi, 48);
}
