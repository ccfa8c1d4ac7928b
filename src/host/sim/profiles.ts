/** Physical SMMUs as they exist. */

import type { IdRegisters } from '../../smmu/identification.ts';
import { AIDR, IDR0, IDR1, IDR3, IDR5 } from '../../spec/registers.ts';

/** QEMU 11.1's own SMMUv3 with nested stages: no ATS, no SubstreamIDs, no forced write-back, 44-bit addresses. */
export const LAB_SMMU: IdRegisters = {
  IDR0: 0x0d44_101b,
  IDR1: 0x0273_0010,
  IDR2: 0,
  IDR3: 0x0000_1414,
  IDR4: 0,
  IDR5: 0x0000_0074,
  IIDR: 0,
  AIDR: 1,
};

/** A server part of Grace's class: ATS, 20-bit SubstreamIDs, stalls, forced write-back, HTTU, 48-bit addresses. */
export const SERVER_SMMU: IdRegisters = {
  IDR0:
    (IDR0.S2P.put(1) |
      IDR0.S1P.put(1) |
      IDR0.TTF.put(2) |
      IDR0.COHACC.put(1) |
      IDR0.HTTU.put(2) |
      IDR0.HYP.put(1) |
      IDR0.ATS.put(1) |
      IDR0.NS1ATS.put(1) |
      IDR0.ASID16.put(1) |
      IDR0.MSI.put(1) |
      IDR0.VMID16.put(1) |
      IDR0.CD2L.put(1) |
      IDR0.TTENDIAN.put(2) |
      IDR0.STALL_MODEL.put(0) |
      IDR0.TERM_MODEL.put(1) |
      IDR0.ST_LEVEL.put(1)) >>>
    0,
  IDR1:
    (IDR1.SIDSIZE.put(22) |
      IDR1.SSIDSIZE.put(20) |
      IDR1.EVENTQS.put(19) |
      IDR1.CMDQS.put(19) |
      IDR1.ATTR_TYPES_OVR.put(1)) >>>
    0,
  IDR2: 0,
  IDR3: IDR3.HAD.put(1) | IDR3.XNX.put(1) | IDR3.FWB.put(1) | IDR3.RIL.put(1) | IDR3.BBML.put(2),
  IDR4: 0,
  IDR5:
    IDR5.OAS.put(5) | IDR5.GRAN4K.put(1) | IDR5.GRAN16K.put(1) | IDR5.GRAN64K.put(1) | IDR5.STALL_MAX.put(64),
  IIDR: 0,
  AIDR: AIDR.ArchMinorRev.put(2),
};

/**
 * The same with a PRI queue. Linux 7.3 denies what is in it; see `pageRequests` of SmmuDescription for a kernel that
 * does not.
 */
export const PRI_SMMU: IdRegisters = {
  ...SERVER_SMMU,
  IDR0: (SERVER_SMMU.IDR0 | IDR0.PRI.put(1)) >>> 0,
  IDR1: (SERVER_SMMU.IDR1 | IDR1.PRIQS.put(8)) >>> 0,
};
