import type { Field } from '../bits/field.ts';
import { AIDR, IDR0, IDR1, IDR3, IDR5, OAS_BITS } from '../spec/registers.ts';
import type { IdRegisters } from './identification.ts';

/** IDR0.STALL_MODEL (6.3.1). */
export const STALL_MODEL = { StallAndTerminate: 0b00, TerminateOnly: 0b01, StallOnly: 0b10 } as const;

/** IDR0.TTENDIAN (6.3.1). */
export const TTENDIAN = { Mixed: 0b00, Little: 0b10, Big: 0b11 } as const;

/** IDR0.HTTU (6.3.1): what the SMMU may write to translation tables. */
export const HTTU = { None: 0b00, AccessFlag: 0b01, Dirty: 0b10, TableAccessFlag: 0b11 } as const;

/** What the ID registers say about translation, decoded once. Nothing else enables a feature of the model. */
export class Features {
  readonly S1P: boolean;
  readonly S2P: boolean;
  readonly HTTU: number;
  readonly HYP: boolean;
  readonly ATS: boolean;
  readonly NS1ATS: boolean;
  readonly ASID16: boolean;
  readonly VMID16: boolean;
  readonly CD2L: boolean;
  readonly TTENDIAN: number;
  readonly ATSRECERR: boolean;
  readonly STALL_MODEL: number;
  readonly TERM_MODEL: boolean;
  readonly twoLevelStreamTable: boolean;
  readonly SIDSIZE: number;
  readonly SSIDSIZE: number;
  readonly ATTR_PERMS_OVR: boolean;
  readonly HAD: boolean;
  readonly XNX: boolean;
  readonly FWB: boolean;
  readonly STT: boolean;
  readonly RIL: boolean;
  readonly E0PD: boolean;
  readonly EPAN: boolean;
  readonly PTWNNC: boolean;
  readonly DPT: boolean;
  readonly DS: boolean;
  readonly VAX: number;
  readonly STALL_MAX: number;
  /** Output address size in bits; also the IAS, as the model has no AArch32 tables (3.4). */
  readonly oasBits: number;
  /** log2 of the page sizes that there are, as bits of this number: 12, 14, 16. */
  readonly granules: number;
  /** SMMUv3.minor. */
  readonly minor: number;

  constructor(ids: IdRegisters) {
    const has = (register: number, field: Field): boolean => field.of(register) !== 0;
    this.S1P = has(ids.IDR0, IDR0.S1P);
    this.S2P = has(ids.IDR0, IDR0.S2P);
    this.HTTU = IDR0.HTTU.of(ids.IDR0);
    // 6.3.1: HYP and NS1ATS exist only with what they refine.
    this.HYP = has(ids.IDR0, IDR0.HYP) && this.S1P && this.S2P;
    this.ATS = has(ids.IDR0, IDR0.ATS);
    this.NS1ATS = has(ids.IDR0, IDR0.NS1ATS) || !this.ATS || !this.S1P || !this.S2P;
    this.ASID16 = has(ids.IDR0, IDR0.ASID16);
    this.VMID16 = has(ids.IDR0, IDR0.VMID16);
    this.CD2L = has(ids.IDR0, IDR0.CD2L);
    this.TTENDIAN = IDR0.TTENDIAN.of(ids.IDR0);
    this.ATSRECERR = has(ids.IDR0, IDR0.ATSRECERR);
    this.STALL_MODEL = IDR0.STALL_MODEL.of(ids.IDR0);
    this.TERM_MODEL = has(ids.IDR0, IDR0.TERM_MODEL);
    this.twoLevelStreamTable = has(ids.IDR0, IDR0.ST_LEVEL);
    this.SIDSIZE = Math.min(IDR1.SIDSIZE.of(ids.IDR1), 32);
    this.SSIDSIZE = Math.min(IDR1.SSIDSIZE.of(ids.IDR1), 20);
    this.ATTR_PERMS_OVR = has(ids.IDR1, IDR1.ATTR_PERMS_OVR);
    this.HAD = has(ids.IDR3, IDR3.HAD);
    this.XNX = has(ids.IDR3, IDR3.XNX);
    this.FWB = has(ids.IDR3, IDR3.FWB);
    this.STT = has(ids.IDR3, IDR3.STT);
    this.RIL = has(ids.IDR3, IDR3.RIL);
    this.E0PD = has(ids.IDR3, IDR3.E0PD);
    this.EPAN = has(ids.IDR3, IDR3.EPAN);
    this.PTWNNC = has(ids.IDR3, IDR3.PTWNNC);
    this.DPT = has(ids.IDR3, IDR3.DPT);
    this.DS = has(ids.IDR5, IDR5.DS);
    this.VAX = IDR5.VAX.of(ids.IDR5);
    this.STALL_MAX = IDR5.STALL_MAX.of(ids.IDR5);
    this.minor = AIDR.ArchMinorRev.of(ids.AIDR);
    // The model has no 128-bit descriptors, so no address beyond 52 bits can be made by a table.
    this.oasBits = Math.min(OAS_BITS[IDR5.OAS.of(ids.IDR5)], 52);
    this.granules =
      (has(ids.IDR5, IDR5.GRAN4K) ? 1 << 12 : 0) |
      (has(ids.IDR5, IDR5.GRAN16K) ? 1 << 14 : 0) |
      (has(ids.IDR5, IDR5.GRAN64K) ? 1 << 16 : 0);
  }

  /**
   * Bits of the output addresses that an IPS or S2PS encoding allows: never more than OAS (5.4 IPS, 5.2 S2PS).
   * @param encoding 0..7
   */
  outputBits(encoding: number): number {
    return Math.min(OAS_BITS[encoding], this.oasBits);
  }
}
