import { CD } from '../spec/cd.ts';
import type { Features } from './features.ts';
import { LOG2_GRANULE_TG0, LOG2_GRANULE_TG1, TableGeometry, firstLevel } from './table-geometry.ts';

/** Translation regimes that a Non-secure stream can use (3.3.3 StreamWorld). */
export const WORLD = { EL1: 0, EL2: 1, EL2_E2H: 2 } as const;
export type World = (typeof WORLD)[keyof typeof WORLD];

/** One half of the VA space: TTB0 or TTB1. */
export class Half {
  readonly table = new TableGeometry();
  /** No walks through this half (5.4 EPD0). */
  EPD = false;
  TBI = false;
  HAD = false;
  E0PD = false;
}

/** CD.DS where it has an effect. */
export const effectiveDS = (cd: Uint32Array, features: Features, log2Granule: number): boolean =>
  features.DS && CD.DS.get(cd) === 1 && log2Granule !== 16;

/** A legal CD, decoded for the walk. */
export class StageOne {
  readonly lower = new Half();
  readonly upper = new Half();
  world: World = WORLD.EL1;
  ASID = 0;
  ASET = 0;
  A = false;
  R = false;
  S = false;
  AFFD = false;
  HA = false;
  HD = false;
  HAFT = false;
  WXN = false;
  PAN = false;
  EPAN = false;
  bigEndian = false;

  /** Decodes a CD that is not ILLEGAL. */
  set(cd: Uint32Array, world: World, features: Features): void {
    const outputBits = features.outputBits(CD.IPS.get(cd));
    const lower = this.lower;
    const upper = this.upper;
    this.world = world;
    // 5.4 EPD0: plain EL2 has no EPD and no upper half.
    lower.EPD = world !== WORLD.EL2 && CD.EPD0.get(cd) === 1;
    upper.EPD = world === WORLD.EL2 || CD.EPD1.get(cd) === 1;
    if (!lower.EPD) {
      const granule = LOG2_GRANULE_TG0[CD.TG0.get(cd)];
      const inputBits = 64 - CD.T0SZ.get(cd);
      lower.table.set(
        granule,
        inputBits,
        firstLevel(granule, inputBits),
        CD.TTB0.getHi(cd) & 0xf_ffff,
        CD.TTB0.getLo(cd) | 0,
        outputBits,
        effectiveDS(cd, features, granule),
        features.oasBits,
      );
    }
    if (!upper.EPD) {
      const granule = LOG2_GRANULE_TG1[CD.TG1.get(cd)];
      const inputBits = 64 - CD.T1SZ.get(cd);
      upper.table.set(
        granule,
        inputBits,
        firstLevel(granule, inputBits),
        CD.TTB1.getHi(cd) & 0xf_ffff,
        CD.TTB1.getLo(cd) | 0,
        outputBits,
        effectiveDS(cd, features, granule),
        features.oasBits,
      );
    }
    lower.TBI = CD.TBI0.get(cd) === 1;
    upper.TBI = world === WORLD.EL2 ? lower.TBI : CD.TBI1.get(cd) === 1;
    lower.HAD = features.HAD && CD.HAD0.get(cd) === 1;
    upper.HAD = features.HAD && CD.HAD1.get(cd) === 1;
    lower.E0PD = features.E0PD && world !== WORLD.EL2 && CD.E0PD0.get(cd) === 1;
    upper.E0PD = features.E0PD && world !== WORLD.EL2 && CD.E0PD1.get(cd) === 1;
    // 5.4 ASID: IGNORED in plain EL2.
    this.ASID = world === WORLD.EL2 ? 0 : CD.ASID.get(cd);
    this.ASET = CD.ASET.get(cd);
    this.A = CD.A.get(cd) === 1;
    this.R = CD.R.get(cd) === 1;
    this.S = CD.S.get(cd) === 1;
    this.AFFD = CD.AFFD.get(cd) === 1;
    // 5.4 HA: {HA=0, HD=1} behaves as no update at all.
    this.HA = CD.HA.get(cd) === 1;
    this.HD = this.HA && CD.HD.get(cd) === 1;
    this.HAFT = this.HA && features.HTTU === 3 && CD.HAFT.get(cd) === 1;
    this.WXN = CD.WXN.get(cd) === 1;
    this.PAN = world !== WORLD.EL2 && CD.PAN.get(cd) === 1;
    this.EPAN = features.EPAN && CD.EPAN.get(cd) === 1;
    this.bigEndian = CD.ENDI.get(cd) === 1;
  }
}
