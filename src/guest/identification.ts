/** What the ID registers say, read as Linux reads them, with its refusals. */

import { hex32 } from '../bits/u64.ts';
import { IDR0, IDR1, IDR3, IDR5, OAS_BITS, OFFSET } from '../spec/registers.ts';
import { BATCH_ENTRIES } from './command-queue.ts';
import { GuestDriverError } from './errors.ts';
import type { KernelLog } from './kernel-log.ts';
import type { RegisterPort } from './register-port.ts';

/** StreamIDs that one second-level stream table covers: 2^8. */
export const STRTAB_SPLIT = 8;

export interface IdentifyOptions {
  /** What the firmware says of the device's coherency; Linux believes it over IDR0.COHACC, with a warning. */
  readonly firmwareCoherent: boolean | undefined;
  /** The guest kernel runs at EL2 with VHE. */
  readonly vhe: boolean;
  /** Whether CMD_SYNC may complete by a write to memory, if the device can. */
  readonly msiPolling: boolean;
}

export interface Features {
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly twoLevelStreamTable: boolean;
  readonly twoLevelCdTable: boolean;
  readonly littleEndian: boolean;
  readonly bigEndian: boolean;
  readonly pri: boolean;
  readonly ats: boolean;
  readonly sev: boolean;
  readonly msi: boolean;
  readonly coherent: boolean;
  readonly stalls: boolean;
  readonly stallForce: boolean;
  readonly hyp: boolean;
  readonly e2h: boolean;
  readonly vax: boolean;
  readonly rangeInvalidation: boolean;
  readonly attrTypesOvr: boolean;
  readonly hardwareAccess: boolean;
  readonly hardwareDirty: boolean;
  readonly s2fwb: boolean;
  /** CMD_SYNC completes by a write to its own slot. */
  readonly msiPoll: boolean;
  readonly asidBits: 8 | 16;
  readonly sidBits: number;
  readonly ssidBits: number;
  /** log2 of the largest queues. */
  readonly cmdqLog2: number;
  readonly eventqLog2: number;
  readonly priqLog2: number;
  readonly oasBits: number;
  /** IDR5.OAS, as CD.IPS takes it. */
  readonly oasCode: number;
  /** log2 of the translation granules, smallest first. */
  readonly granules: readonly (12 | 14 | 16)[];
}

/** Features in the order of the bits of the word that Linux prints. */
const FEATURE_BITS: readonly (keyof Features)[] = [
  'twoLevelStreamTable',
  'twoLevelCdTable',
  'littleEndian',
  'bigEndian',
  'pri',
  'ats',
  'sev',
  'msi',
  'coherent',
  'stage1',
  'stage2',
  'stalls',
  'hyp',
  'stallForce',
  'vax',
  'rangeInvalidation',
];
const HIGH_FEATURE_BITS: readonly (readonly [keyof Features, number])[] = [
  ['e2h', 18],
  ['attrTypesOvr', 20],
  ['hardwareAccess', 21],
  ['hardwareDirty', 22],
  ['s2fwb', 23],
];

/** The word of features in Linux's start-up line. */
export function featureWord(features: Features): number {
  let word = 0;
  for (const [bit, name] of FEATURE_BITS.entries()) if (features[name] === true) word |= 1 << bit;
  for (const [name, bit] of HIGH_FEATURE_BITS) if (features[name] === true) word |= 1 << bit;
  return word >>> 0;
}

const refuse = (log: KernelLog, code: ConstructorParameters<typeof GuestDriverError>[0], text: string) => {
  log.warn(text);
  return new GuestDriverError(code, `The driver refuses this SMMU: ${text}`);
};

/** Values of IDR0.TTENDIAN, IDR0.TTF and IDR0.STALL_MODEL that the driver looks for. */
const TTENDIAN = { Mixed: 0, Little: 2 } as const;
const TTF_AARCH64 = 2;
const STALL_MODEL = { Both: 0, Force: 2 } as const;
/** IDR5.OAS of 48 bits, used when the device says something unknown; and the largest that the driver knows. */
const OAS_48 = 5;
const OAS_52 = 6;

/**
 * Reads IDR0, IDR1, IDR3, IDR5 in this order.
 * @throws GuestDriverError with the codes whose errno is ENXIO: the driver does not bind.
 */
export function identify(port: RegisterPort, log: KernelLog, options: IdentifyOptions): Features {
  const idr0 = port.read(OFFSET.IDR0);
  const endian = IDR0.TTENDIAN.of(idr0);
  if (endian !== TTENDIAN.Mixed && endian !== TTENDIAN.Little)
    throw refuse(log, 'GUEST_TT_ENDIAN', 'unknown/unsupported TT endianness!');
  const cohacc = IDR0.COHACC.of(idr0) === 1;
  const coherent = options.firmwareCoherent ?? cohacc;
  if (coherent !== cohacc) log.warn(`IDR0.COHACC overridden by FW configuration (${coherent})`);
  const stage1 = IDR0.S1P.of(idr0) === 1;
  const stage2 = IDR0.S2P.of(idr0) === 1;
  if (!stage1 && !stage2) throw refuse(log, 'GUEST_NO_TRANSLATION', 'no translation support!');
  if ((IDR0.TTF.of(idr0) & TTF_AARCH64) === 0)
    throw refuse(log, 'GUEST_NO_AARCH64', 'AArch64 table format not supported!');

  const idr1 = port.read(OFFSET.IDR1);
  if (IDR1.TABLES_PRESET.of(idr1) + IDR1.QUEUES_PRESET.of(idr1) + IDR1.REL.of(idr1) > 0)
    throw refuse(log, 'GUEST_PRESET', 'embedded implementation not supported');
  const cmdqLog2 = IDR1.CMDQS.of(idr1);
  if (2 ** cmdqLog2 <= BATCH_ENTRIES)
    throw refuse(log, 'GUEST_CMDQ_TOO_SMALL', `command queue size <= ${BATCH_ENTRIES} entries not supported`);
  const sidBits = IDR1.SIDSIZE.of(idr1);

  const idr3 = port.read(OFFSET.IDR3);
  const idr5 = port.read(OFFSET.IDR5);
  let oasCode = IDR5.OAS.of(idr5);
  if (oasCode > OAS_52) {
    log.info('unknown output address size. Truncating to 48-bit');
    oasCode = OAS_48;
  }
  const granules: (12 | 14 | 16)[] = [];
  if (IDR5.GRAN4K.of(idr5)) granules.push(12);
  if (IDR5.GRAN16K.of(idr5)) granules.push(14);
  if (IDR5.GRAN64K.of(idr5)) granules.push(16);
  if (granules.length === 0) throw refuse(log, 'GUEST_NO_GRANULE', 'no translation granule');

  const msi = IDR0.MSI.of(idr0) === 1;
  const hyp = IDR0.HYP.of(idr0) === 1;
  const stallModel = IDR0.STALL_MODEL.of(idr0);
  const features: Features = {
    stage1,
    stage2,
    // A table of no more StreamIDs than one second-level table gets no first level.
    twoLevelStreamTable: IDR0.ST_LEVEL.of(idr0) === 1 && sidBits > STRTAB_SPLIT,
    twoLevelCdTable: IDR0.CD2L.of(idr0) === 1,
    littleEndian: true,
    bigEndian: endian === TTENDIAN.Mixed,
    pri: IDR0.PRI.of(idr0) === 1,
    ats: IDR0.ATS.of(idr0) === 1,
    sev: IDR0.SEV.of(idr0) === 1,
    msi,
    coherent,
    stalls: stallModel === STALL_MODEL.Both || stallModel === STALL_MODEL.Force,
    stallForce: stallModel === STALL_MODEL.Force,
    hyp,
    e2h: hyp && options.vhe,
    vax: IDR5.VAX.of(idr5) === 1,
    rangeInvalidation: IDR3.RIL.of(idr3) === 1,
    attrTypesOvr: IDR1.ATTR_TYPES_OVR.of(idr1) === 1,
    hardwareAccess: IDR0.HTTU.of(idr0) === 1 || IDR0.HTTU.of(idr0) === 2,
    hardwareDirty: IDR0.HTTU.of(idr0) === 2,
    s2fwb: IDR3.FWB.of(idr3) === 1,
    msiPoll: msi && coherent && options.msiPolling,
    asidBits: IDR0.ASID16.of(idr0) ? 16 : 8,
    sidBits,
    ssidBits: IDR1.SSIDSIZE.of(idr1),
    cmdqLog2,
    eventqLog2: IDR1.EVENTQS.of(idr1),
    priqLog2: IDR1.PRIQS.of(idr1),
    oasBits: OAS_BITS[oasCode],
    oasCode,
    granules,
  };
  // Only an implementation that is known by it would change anything.
  port.read(OFFSET.IIDR);
  log.info(`oas ${features.oasBits}-bit (features ${hex32(featureWord(features), 8)})`);
  return features;
}
