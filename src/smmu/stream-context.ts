import { STE, STE_CONFIG, STE_EATS, STE_INSTCFG, STE_PRIVCFG } from '../spec/ste.ts';
import { StageOne, WORLD, type World } from './stage-one.ts';
import { StageTwo } from './stage-two.ts';
import type { Features } from './features.ts';
import { usesSTRW } from './ste-legality.ts';
import { TLB_KIND, tlbFlags, type TlbKind } from './tlb.ts';

/** What happens to an untranslated transaction of a stream. Stage2 also serves S1DSS=0b01 with stage 2. */
export const PATH = { Abort: 0, Bypass: 1, Stage1: 2, Stage2: 3, Nested: 4 } as const;
export type Path = (typeof PATH)[keyof typeof PATH];

/** Everything that the STE and CD say about the transactions of one StreamID and SubstreamID, ready for use. */
export class StreamContext {
  /** -1 if the slot is empty. */
  sid = -1;
  /** SubstreamID + 1, or 0 for transactions without. */
  substream = 0;
  /** Index of the CD, for CFGI_CD; 0 if there is none. */
  cdIndex = 0;
  /** When it was read, in the time of the configuration cache. */
  stamp = 0;
  /** `changes` of the configuration cache when it was last found valid. */
  checkedAt = 0;

  path: Path = PATH.Abort;
  /** STE.Config. */
  config = 0;
  MEV = false;
  /** Effective STE.EATS, but for CR0.ATSCHK. */
  EATS = 0;
  PRIVCFG = 0;
  INSTCFG = 0;
  /** Either of the two has an effect. */
  overrides = false;
  readonly s1 = new StageOne();
  readonly s2 = new StageTwo();

  /** What a TLB lookup of each half of the address space needs. */
  kind: TlbKind = TLB_KIND.Stage1;
  vmid = 0;
  tag = 0;
  globalTag = 0;
  lowerFlags = 0;
  upperFlags = 0;
  lowerPage = 0;
  upperPage = 0;
  /** Oldest valid TLB entry, as of `tlbChanges`. */
  floor = 0;
  globalFloor = 0;
  tlbChanges = 0;

  /** Decodes an STE that is legal. */
  setSte(ste: Uint32Array, features: Features): void {
    const config = STE.Config.get(ste);
    this.config = config;
    this.MEV = STE.MEV.get(ste) === 1;
    this.EATS = features.ATS && (config & 4) !== 0 && config !== STE_CONFIG.Bypass ? STE.EATS.get(ste) : 0;
    if (this.EATS === STE_EATS.Dpt) this.EATS = STE_EATS.Disabled;
    this.PRIVCFG = features.ATTR_PERMS_OVR ? STE.PRIVCFG.get(ste) : 0;
    this.INSTCFG = features.ATTR_PERMS_OVR ? STE.INSTCFG.get(ste) : 0;
    this.overrides = this.PRIVCFG >= STE_PRIVCFG.Unprivileged || this.INSTCFG >= STE_INSTCFG.Data;
    if ((config & 6) === 6) this.s2.set(ste, features);
  }

  /** Regime of stage 1 (3.3.3): EL2 only where STRW counts. */
  world(ste: Uint32Array, features: Features, E2H: boolean): World {
    if (!usesSTRW(this.config, features) || STE.STRW.get(ste) === 0) return WORLD.EL1;
    return E2H ? WORLD.EL2_E2H : WORLD.EL2;
  }

  /** Decodes the way of transactions that use a CD, which is legal. */
  setStage1(ste: Uint32Array, cd: Uint32Array, world: World, features: Features): void {
    const nested = (this.config & 2) !== 0;
    this.s1.set(cd, world, features);
    this.path = nested ? PATH.Nested : PATH.Stage1;
    // 5.2 S2VMID: tags translations of NS-EL1 wherever stage 2 is implemented, also without using it.
    this.vmid = world === WORLD.EL1 && features.S2P ? STE.S2VMID.get(ste) : 0;
    this.kind = world !== WORLD.EL1 ? TLB_KIND.El2 : nested ? TLB_KIND.Combined : TLB_KIND.Stage1;
    this.tag = (this.vmid << 16) | this.s1.ASID;
    this.globalTag = (this.vmid << 16) | this.s1.ASET;
    // Entries are as large as the smallest page that either stage may map.
    const least = nested ? this.s2.table.log2Granule : 16;
    const { lower, upper } = this.s1;
    this.lowerPage = lower.EPD ? least : Math.min(lower.table.log2Granule, least);
    this.upperPage = upper.EPD ? least : Math.min(upper.table.log2Granule, least);
    this.lowerFlags = tlbFlags(this.kind, this.lowerPage, false);
    this.upperFlags = tlbFlags(this.kind, this.upperPage, false);
    this.tlbChanges = 0;
  }

  /** Decodes the way of transactions without stage 1. */
  setBypass(): void {
    const stage2 = (this.config & 2) !== 0;
    this.path = (this.config & 4) === 0 ? PATH.Abort : stage2 ? PATH.Stage2 : PATH.Bypass;
    this.kind = TLB_KIND.Stage2;
    this.vmid = stage2 ? this.s2.VMID : 0;
    this.tag = this.vmid << 16;
    this.lowerPage = stage2 ? this.s2.table.log2Granule : 12;
    this.lowerFlags = tlbFlags(this.kind, this.lowerPage, false);
    this.upperPage = this.lowerPage;
    this.upperFlags = this.lowerFlags;
    this.tlbChanges = 0;
  }
}
