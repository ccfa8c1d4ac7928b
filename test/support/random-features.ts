/** SMMUs that differ in what they let tables do, for the device and for the slow walker. */

import type { IdFields, IdRegisters } from '../../src/smmu/identification.ts';
import type { SlowIds } from './slow-machine.ts';

const WITH_DS: IdFields = { OAS: 6, DS: 1, VAX: 1, STT: 1 };
/** Sets of features that differ in what they let tables do. */
export const FEATURES: readonly IdFields[] = [
  {},
  { HTTU: 2 },
  { HTTU: 3, E0PD: 1, EPAN: 1 },
  { TERM_MODEL: 0, STT: 1, FWB: 1, TTENDIAN: 0 },
  { SSIDSIZE: 12, CD2L: 1, HTTU: 1, XNX: 0, HAD: 0, ArchMinorRev: 0 },
  { SSIDSIZE: 4, CD2L: 0, ATTR_PERMS_OVR: 1, E0PD: 1 },
  WITH_DS,
  { ...WITH_DS, HTTU: 3, ATTR_PERMS_OVR: 1 },
  { OAS: 3, ASID16: 0, VMID16: 0, TTENDIAN: 3 },
  { HYP: 1, HTTU: 2, E0PD: 1, TTENDIAN: 0 },
  { HYP: 1, SSIDSIZE: 3, CD2L: 1, ATTR_PERMS_OVR: 1, ...WITH_DS },
  { STALL_MODEL: 0, STALL_MAX: 4, TERM_MODEL: 0 },
  { STALL_MODEL: 2, STALL_MAX: 4 },
  { ATS: 1, HTTU: 2, ATSRECERR: 1 },
  { ATS: 1, SSIDSIZE: 6, CD2L: 1, ATTR_PERMS_OVR: 1, ATSRECERR: 1, E0PD: 1 },
  { ATS: 1, NS1ATS: 1, HTTU: 3, OAS: 5, DS: 1, VAX: 1, EPAN: 1, TTENDIAN: 0 },
];

export function slowIds(ids: IdRegisters): SlowIds {
  const bit = (value: number, at: number): boolean => ((value >>> at) & 1) !== 0;
  return {
    oas: [32, 36, 40, 42, 44, 48, 52, 52][ids.IDR5 & 7],
    httu: (ids.IDR0 >>> 6) & 3,
    hyp: bit(ids.IDR0, 9),
    ats: bit(ids.IDR0, 10),
    splitAts: bit(ids.IDR0, 10) && !bit(ids.IDR0, 11),
    asid16: bit(ids.IDR0, 12),
    vmid16: bit(ids.IDR0, 18),
    stallModel: (ids.IDR0 >>> 24) & 3,
    ssidsize: (ids.IDR1 >>> 6) & 31,
    cd2l: bit(ids.IDR0, 19),
    xnx: bit(ids.IDR3, 4),
    fwb: bit(ids.IDR3, 8),
    stt: bit(ids.IDR3, 9),
    e0pd: bit(ids.IDR3, 13),
    epan: bit(ids.IDR3, 17),
    had: bit(ids.IDR3, 2),
    ds: bit(ids.IDR5, 7),
    vax52: ((ids.IDR5 >>> 10) & 3) !== 0,
    permsOvr: bit(ids.IDR1, 26),
    termModel: bit(ids.IDR0, 26),
    ttendian: (ids.IDR0 >>> 21) & 3,
  };
}
