import {
  CFGI_ALL_RANGE,
  CMD_CFGI_CD,
  CMD_CFGI_STE_RANGE,
  CMD_TLBI_EL2_VA,
  CMD_TLBI_S2_IPA,
  OPCODE,
  TLBI_RANGE,
} from '../spec/commands.ts';
import { CR0, CR2, OFFSET } from '../spec/registers.ts';
import type { ConfigurationCache } from './configuration-cache.ts';
import type { Features } from './features.ts';
import type { Tlb } from './tlb.ts';

const CR0_WORD = OFFSET.CR0 >>> 2;
const CR2_WORD = OFFSET.CR2 >>> 2;
// Numbers of this module cost nothing where they are used; properties of imported objects are loaded every time.
const CFGI_STE = OPCODE.CMD_CFGI_STE;
const CFGI_CD_ALL = OPCODE.CMD_CFGI_CD_ALL;
const CFGI_STE_RANGE = OPCODE.CMD_CFGI_STE_RANGE;
const CFGI_CD = OPCODE.CMD_CFGI_CD;
const TLBI_NH_ALL = OPCODE.CMD_TLBI_NH_ALL;
const TLBI_NH_ASID = OPCODE.CMD_TLBI_NH_ASID;
const TLBI_NH_VA = OPCODE.CMD_TLBI_NH_VA;
const TLBI_NH_VAA = OPCODE.CMD_TLBI_NH_VAA;
const TLBI_S12_VMALL = OPCODE.CMD_TLBI_S12_VMALL;
const TLBI_S2_IPA = OPCODE.CMD_TLBI_S2_IPA;
const TLBI_NSNH_ALL = OPCODE.CMD_TLBI_NSNH_ALL;
const TLBI_EL2_ASID = OPCODE.CMD_TLBI_EL2_ASID;
const TLBI_EL2_VA = OPCODE.CMD_TLBI_EL2_VA;
const TLBI_EL2_ALL = OPCODE.CMD_TLBI_EL2_ALL;
const TLBI_EL2_VAA = OPCODE.CMD_TLBI_EL2_VAA;
const TG_WORD = TLBI_RANGE.TG.word;
const TG_IN_PLACE = TLBI_RANGE.TG.inPlace;
const TG_SHIFT = TLBI_RANGE.TG.shift;
/** In the word of TG. */
const TTL_IN_PLACE = TLBI_RANGE.TTL.inPlace;
const TTL_SHIFT = TLBI_RANGE.TTL.shift;
const NUM_IN_PLACE = TLBI_RANGE.NUM.inPlace;
const NUM_SHIFT = TLBI_RANGE.NUM.shift;
const SCALE_IN_PLACE = TLBI_RANGE.SCALE.inPlace;
const SCALE_SHIFT = TLBI_RANGE.SCALE.shift;
const VMW = CR0.VMW.inPlace;

/** No address has more than 52 bits, so larger ranges in 4 KB pages are all the same. */
const PAGES_MAX = 2 ** 40;

/**
 * High half of a VA with its top byte made copies of bit 55, as the TLB keeps it. Where TBI ignores that byte a command may
 * carry any (4.4.1.1); elsewhere no entry could have another.
 */
export const withoutTag = (vaHi: number): number => ((vaHi << 8) >> 8) >>> 0;

/** Carries out CFGI_* and TLBI_* commands on the caches (4.3, 4.4). Dropping more than was asked for is always legal. */
export class Invalidation {
  readonly #features: Features;
  readonly #s2p: boolean;
  readonly #ril: boolean;
  readonly #ssidMask: number;
  readonly #registers: Uint32Array;
  readonly #tlb: Tlb;
  readonly #configuration: ConfigurationCache;

  constructor(features: Features, registers: Uint32Array, tlb: Tlb, configuration: ConfigurationCache) {
    this.#features = features;
    this.#s2p = features.S2P;
    this.#ril = features.RIL;
    this.#ssidMask = 2 ** features.SSIDSIZE - 1;
    this.#registers = registers;
    this.#tlb = tlb;
    this.#configuration = configuration;
  }

  /** One legal command of four words at words[at]. Others change nothing. */
  carryOut(words: Uint32Array, at: number): void {
    const tlb = this.#tlb;
    switch (words[at] & 0xff) {
      case TLBI_NH_VA:
        if (tlb.isEmpty) break;
        if (this.#vmidWildcard()) tlb.invalidateAll();
        else
          tlb.invalidateVa(
            this.#vmid(words, at),
            words[at + 1] >>> 16,
            withoutTag(words[at + 3]),
            words[at + 2] & ~0xfff,
            this.#pages(words, at),
            this.#leaf(words, at),
          );
        break;
      case CFGI_STE:
      // 4.3.4: all CDs of the StreamID; they are cached together with its STE.
      case CFGI_CD_ALL:
        this.#configuration.invalidateSte(words[at + 1] | 0);
        break;
      case CFGI_STE_RANGE: {
        const Range = CMD_CFGI_STE_RANGE.Range.get(words, at);
        this.#configuration.invalidateStes(
          CMD_CFGI_STE_RANGE.StreamID.get(words, at),
          Range === CFGI_ALL_RANGE ? 32 : Range + 1,
        );
        break;
      }
      case CFGI_CD:
        this.#configuration.invalidateCd(
          CMD_CFGI_CD.StreamID.get(words, at),
          // 4.1.7: one out of range may act as one in range.
          CMD_CFGI_CD.SubstreamID.get(words, at) & this.#ssidMask,
        );
        break;
      case TLBI_NH_ALL:
        if (tlb.isEmpty) break;
        if (this.#vmidWildcard()) tlb.invalidateAll();
        else tlb.invalidateStage1(this.#vmid(words, at));
        break;
      case TLBI_NH_ASID:
        if (tlb.isEmpty) break;
        if (this.#vmidWildcard()) tlb.invalidateAll();
        else tlb.invalidateAsid(this.#vmid(words, at), words[at + 1] >>> 16);
        break;
      case TLBI_NH_VAA:
        if (tlb.isEmpty) break;
        if (this.#vmidWildcard()) tlb.invalidateAll();
        else tlb.invalidateVaAllAsids(this.#vmid(words, at));
        break;
      case TLBI_S12_VMALL:
        if (tlb.isEmpty) break;
        if (this.#vmidWildcard()) tlb.invalidateAll();
        else tlb.invalidateVmid(this.#vmid(words, at));
        break;
      case TLBI_S2_IPA:
        if (tlb.isEmpty) break;
        if (this.#vmidWildcard()) tlb.invalidateAll();
        else
          tlb.invalidateIpa(
            this.#vmid(words, at),
            CMD_TLBI_S2_IPA.Address.getHi(words, at),
            CMD_TLBI_S2_IPA.Address.getLo(words, at),
            this.#pages(words, at),
            this.#leaf(words, at),
          );
        break;
      case TLBI_NSNH_ALL:
        tlb.invalidateAll();
        break;
      case TLBI_EL2_ASID:
        tlb.invalidateEl2Asid(CMD_TLBI_EL2_VA.ASID.get(words, at));
        break;
      case TLBI_EL2_VA:
        // 4.4.2: the ASID counts only with E2H. Plain EL2 is cached under ASID 0.
        tlb.invalidateEl2Va(
          CR2.E2H.get(this.#registers, CR2_WORD) === 1 ? CMD_TLBI_EL2_VA.ASID.get(words, at) : 0,
          withoutTag(words[at + 3]),
          words[at + 2] & ~0xfff,
          this.#pages(words, at),
          this.#leaf(words, at),
        );
        break;
      case TLBI_EL2_ALL:
      case TLBI_EL2_VAA:
        tlb.invalidateEl2();
        break;
      default:
    }
  }

  /** 4.4.2: VMIDs are matched only if there is stage 2. */
  #vmid(words: Uint32Array, at: number): number {
    return this.#s2p ? words[at + 1] & 0xffff : 0;
  }

  /** 6.3.9.1: low bits of VMIDs do not count, so one command means several VMIDs. */
  #vmidWildcard(): boolean {
    return (this.#registers[CR0_WORD] & VMW) !== 0;
  }

  /** Length of the range in 4 KB pages (4.4.1.1); without RIL or TG it is one address. */
  #pages(words: Uint32Array, at: number): number {
    if (!this.#ril || (words[at + TG_WORD] & TG_IN_PLACE) === 0) return 1;
    const TG = (words[at + TG_WORD] & TG_IN_PLACE) >>> TG_SHIFT;
    const granules = ((words[at] & NUM_IN_PLACE) >>> NUM_SHIFT) + 1;
    const shift = ((words[at] & SCALE_IN_PLACE) >>> SCALE_SHIFT) + 2 * (TG - 1);
    // NUM has five bits.
    return shift <= 25 ? granules << shift : Math.min(granules * 2 ** shift, PAGES_MAX);
  }

  /** log2 of the size of the leaves that TTL and TG say are meant, or 0 if they do not say. */
  #leaf(words: Uint32Array, at: number): number {
    if (!this.#ril || (words[at + TG_WORD] & TG_IN_PLACE) === 0) return 0;
    const TG = (words[at + TG_WORD] & TG_IN_PLACE) >>> TG_SHIFT;
    const TTL = (words[at + TG_WORD] & TTL_IN_PLACE) >>> TTL_SHIFT;
    // 4.4.1.1: level 1 of 16 KB has no blocks without DS; the hint is then no hint.
    if (TTL === 0 || (TG === 2 && TTL === 1 && !this.#features.DS)) return 0;
    const log2Granule = 10 + 2 * TG;
    return log2Granule + (3 - TTL) * (log2Granule - 3);
  }
}
