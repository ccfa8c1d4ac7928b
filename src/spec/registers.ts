/**
 * The Non-secure programming interface as data (IHI 0070 G.b, 6.1 to 6.3): where each register is, its fields, what
 * resets it, what lets software write it, and which feature it needs. The device, `explain` and the tests read this.
 */

import { address, bits, type Layout } from '../bits/field.ts';

/** Byte offsets; page 1 starts at 0x10000. */
export const OFFSET = {
  IDR0: 0x00,
  IDR1: 0x04,
  IDR2: 0x08,
  IDR3: 0x0c,
  IDR4: 0x10,
  IDR5: 0x14,
  IIDR: 0x18,
  AIDR: 0x1c,
  CR0: 0x20,
  CR0ACK: 0x24,
  CR1: 0x28,
  CR2: 0x2c,
  S2PII: 0x30,
  STATUSR: 0x40,
  GBPA: 0x44,
  AGBPA: 0x48,
  IRQ_CTRL: 0x50,
  IRQ_CTRLACK: 0x54,
  GERROR: 0x60,
  GERRORN: 0x64,
  GERROR_IRQ_CFG0: 0x68,
  GERROR_IRQ_CFG1: 0x70,
  GERROR_IRQ_CFG2: 0x74,
  STRTAB_BASE: 0x80,
  STRTAB_BASE_CFG: 0x88,
  CMDQ_BASE: 0x90,
  CMDQ_PROD: 0x98,
  CMDQ_CONS: 0x9c,
  EVENTQ_BASE: 0xa0,
  EVENTQ_IRQ_CFG0: 0xb0,
  EVENTQ_IRQ_CFG1: 0xb8,
  EVENTQ_IRQ_CFG2: 0xbc,
  PRIQ_BASE: 0xc0,
  PRIQ_IRQ_CFG0: 0xd0,
  PRIQ_IRQ_CFG1: 0xd8,
  PRIQ_IRQ_CFG2: 0xdc,
  GATOS_CTRL: 0x100,
  GATOS_SID: 0x108,
  GATOS_ADDR: 0x110,
  GATOS_PAR: 0x118,
  MPAMIDR: 0x130,
  GMPAM: 0x138,
  GBPMPAM: 0x13c,
  VATOS_SEL: 0x180,
  IDR6: 0x190,
  DPT_BASE: 0x200,
  DPT_BASE_CFG: 0x208,
  DPT_CFG_FAR: 0x210,
  PIDR4: 0xfd0,
  PIDR5: 0xfd4,
  PIDR6: 0xfd8,
  PIDR7: 0xfdc,
  PIDR0: 0xfe0,
  PIDR1: 0xfe4,
  PIDR2: 0xfe8,
  PIDR3: 0xfec,
  CIDR0: 0xff0,
  CIDR1: 0xff4,
  CIDR2: 0xff8,
  CIDR3: 0xffc,
  EVENTQ_PROD: 0x1_00a8,
  EVENTQ_CONS: 0x1_00ac,
  PRIQ_PROD: 0x1_00c8,
  PRIQ_CONS: 0x1_00cc,
} as const;
export type RegisterName = keyof typeof OFFSET;

/** Size of one page of registers, and of the interface without VATOS and ECMDQ, in bytes. */
export const PAGE_SIZE = 0x1_0000;
export const INTERFACE_SIZE = 0x2_0000;

/** 6.3.1 */
export const IDR0 = {
  S2P: bits(0),
  S1P: bits(1),
  TTF: bits(3, 2),
  COHACC: bits(4),
  BTM: bits(5),
  HTTU: bits(7, 6),
  DORMHINT: bits(8),
  HYP: bits(9),
  ATS: bits(10),
  NS1ATS: bits(11),
  ASID16: bits(12),
  MSI: bits(13),
  SEV: bits(14),
  ATOS: bits(15),
  PRI: bits(16),
  VMW: bits(17),
  VMID16: bits(18),
  CD2L: bits(19),
  VATOS: bits(20),
  TTENDIAN: bits(22, 21),
  ATSRECERR: bits(23),
  STALL_MODEL: bits(25, 24),
  TERM_MODEL: bits(26),
  ST_LEVEL: bits(28, 27),
  RME_IMPL: bits(30),
} as const;

/** 6.3.2 */
export const IDR1 = {
  SIDSIZE: bits(5, 0),
  SSIDSIZE: bits(10, 6),
  PRIQS: bits(15, 11),
  EVENTQS: bits(20, 16),
  CMDQS: bits(25, 21),
  ATTR_PERMS_OVR: bits(26),
  ATTR_TYPES_OVR: bits(27),
  REL: bits(28),
  QUEUES_PRESET: bits(29),
  TABLES_PRESET: bits(30),
  ECMDQ: bits(31),
} as const;

/** 6.3.3 */
export const IDR2 = { BA_VATOS: bits(9, 0) } as const;

/** 6.3.4 */
export const IDR3 = {
  HAD: bits(2),
  PBHA: bits(3),
  XNX: bits(4),
  PPS: bits(5),
  MPAM: bits(7),
  FWB: bits(8),
  STT: bits(9),
  RIL: bits(10),
  BBML: bits(12, 11),
  E0PD: bits(13),
  PTWNNC: bits(14),
  DPT: bits(15),
  PASIDTT: bits(16),
  EPAN: bits(17),
  S1PI: bits(18),
  S2PI: bits(19),
  S2PO: bits(20),
  THE: bits(21),
  MTEPERM: bits(22),
  AIE: bits(23),
} as const;

/** 6.3.5 */
export const IDR4 = { IMPDEF: bits(31, 0) } as const;

/** 6.3.6 */
export const IDR5 = {
  OAS: bits(2, 0),
  GRAN4K: bits(4),
  GRAN16K: bits(5),
  GRAN64K: bits(6),
  DS: bits(7),
  D128: bits(8),
  VAX: bits(11, 10),
  STALL_MAX: bits(31, 16),
} as const;

/** Output address size in bits for each value of IDR5.OAS, and of IPS and S2PS. */
export const OAS_BITS = [32, 36, 40, 42, 44, 48, 52, 56] as const;

/** 6.3.7 */
export const IIDR = {
  Implementer: bits(11, 0),
  Revision: bits(15, 12),
  Variant: bits(19, 16),
  ProductID: bits(31, 20),
} as const;

/** 6.3.8 */
export const AIDR = { ArchMinorRev: bits(3, 0), ArchMajorRev: bits(7, 4) } as const;

/** 6.3.9; CR0ACK has the same fields. */
export const CR0 = {
  SMMUEN: bits(0),
  PRIQEN: bits(1),
  EVENTQEN: bits(2),
  CMDQEN: bits(3),
  ATSCHK: bits(4),
  VMW: bits(8, 6),
  DPT_WALK_EN: bits(10),
} as const;

/** 6.3.11 */
export const CR1 = {
  QUEUE_IC: bits(1, 0),
  QUEUE_OC: bits(3, 2),
  QUEUE_SH: bits(5, 4),
  TABLE_IC: bits(7, 6),
  TABLE_OC: bits(9, 8),
  TABLE_SH: bits(11, 10),
} as const;

/** 6.3.12 */
export const CR2 = { E2H: bits(0), RECINVSID: bits(1), PTM: bits(2), REC_CFG_ATS: bits(3) } as const;

export const S2PII = { S2PII: address(63, 0) } as const;

/** 6.3.13 */
export const STATUSR = { DORMANT: bits(0) } as const;

/** 6.3.14 */
export const GBPA = {
  MemAttr: bits(3, 0),
  MTCFG: bits(4),
  ALLOCCFG: bits(11, 8),
  SHCFG: bits(13, 12),
  PRIVCFG: bits(17, 16),
  INSTCFG: bits(19, 18),
  ABORT: bits(20),
  UPDATE: bits(31),
} as const;

/** 6.3.15 */
export const AGBPA = {} as const;

/** 6.3.16; IRQ_CTRLACK has the same fields. */
export const IRQ_CTRL = { GERROR_IRQEN: bits(0), PRIQ_IRQEN: bits(1), EVENTQ_IRQEN: bits(2) } as const;

/** 6.3.19; GERRORN has the same fields. An error is active while its bits in the two registers differ. */
export const GERROR = {
  CMDQ_ERR: bits(0),
  EVENTQ_ABT_ERR: bits(2),
  PRIQ_ABT_ERR: bits(3),
  MSI_CMDQ_ABT_ERR: bits(4),
  MSI_EVENTQ_ABT_ERR: bits(5),
  MSI_PRIQ_ABT_ERR: bits(6),
  MSI_GERROR_ABT_ERR: bits(7),
  SFM_ERR: bits(8),
  CMDQP_ERR: bits(9),
  DPT_ERR: bits(10),
} as const;

/** 6.3.21 to 6.3.23, and the same for the event and PRI queues. */
export const IRQ_CFG0 = { ADDR: address(55, 2) } as const;
export const IRQ_CFG1 = { DATA: bits(31, 0) } as const;
export const IRQ_CFG2 = { MemAttr: bits(3, 0), SH: bits(5, 4) } as const;
/** 6.3.36 */
export const PRIQ_IRQ_CFG2 = { ...IRQ_CFG2, LO: bits(31) } as const;

/** 6.3.24 */
export const STRTAB_BASE = { ADDR: address(55, 6), RA: bits(62) } as const;
/** 6.3.25 */
export const STRTAB_BASE_CFG = { LOG2SIZE: bits(5, 0), SPLIT: bits(10, 6), FMT: bits(17, 16) } as const;
/** Values of STRTAB_BASE_CFG.FMT; 2 and 3 act as Linear. */
export const STRTAB_FMT = { Linear: 0, TwoLevel: 1 } as const;

/** 6.3.26 */
export const CMDQ_BASE = { LOG2SIZE: bits(4, 0), ADDR: address(55, 5), RA: bits(62) } as const;
/** 6.3.27; the wrap flag is the bit above the index. */
export const CMDQ_PROD = { WR: bits(19, 0) } as const;
/** 6.3.28 */
export const CMDQ_CONS = { RD: bits(19, 0), ERR: bits(30, 24) } as const;

/** 6.3.29 and 6.3.33 */
export const EVENTQ_BASE = { LOG2SIZE: bits(4, 0), ADDR: address(55, 5), WA: bits(62) } as const;
/** 6.3.95 and 6.3.97 */
export const EVENTQ_PROD = { WR: bits(19, 0), OVFLG: bits(31) } as const;
/** 6.3.96 and 6.3.98 */
export const EVENTQ_CONS = { RD: bits(19, 0), OVACKFLG: bits(31) } as const;

export const GATOS_CTRL = { RUN: bits(0) } as const;
export const GATOS_SID = { STREAMID: bits(31, 0), SUBSTREAMID: bits(51, 32), SSID_VALID: bits(52) } as const;
export const GATOS_ADDR = {
  HTTUI: bits(6),
  InD: bits(7),
  RnW: bits(8),
  PnU: bits(9),
  TYPE: bits(11, 10),
  ADDR: address(63, 12),
} as const;
/** The form after success. On a fault FAULT=1 and the rest is REASON [2:1], FAULTCODE [11:4], FADDR [55:12]. */
export const GATOS_PAR = {
  FAULT: bits(0),
  SH: bits(9, 8),
  Size: bits(11),
  ADDR: address(55, 12),
  ATTR: bits(63, 56),
} as const;

export const MPAMIDR = { PARTID_MAX: bits(15, 0), PMG_MAX: bits(23, 16) } as const;
export const GMPAM = { PARTID: bits(15, 0), PMG: bits(23, 16), UPDATE: bits(31) } as const;
export const VATOS_SEL = { VMID: bits(15, 0) } as const;
export const IDR6 = { LOG2NUMQ: bits(19, 16), LOG2NUMP: bits(27, 24) } as const;
export const DPT_BASE = { BADDR: address(55, 12), RA: bits(62) } as const;
export const DPT_BASE_CFG = { DPTPS: bits(2, 0), DPTGS: bits(15, 14), L0DPTSZ: bits(23, 20) } as const;
export const DPT_CFG_FAR = {
  FAULT: bits(0),
  LEVEL: bits(1),
  Code: bits(7, 4),
  FADDR: address(55, 12),
} as const;

/** CoreSight identification (6.3.170): one byte a register. */
export const ID_BYTE = { Value: bits(7, 0) } as const;

/** What a register or a field depends on: the ID register field of this name is not zero. */
export type Feature =
  | 'ATOS'
  | 'ATS'
  | 'ATSRECERR'
  | 'BTM'
  | 'DORMHINT'
  | 'DPT'
  | 'ECMDQ'
  | 'HYP'
  | 'MPAM'
  | 'MSI'
  | 'PRI'
  | 'S2PI'
  | 'ST_LEVEL'
  | 'VATOS'
  | 'VMW';

/**
 * What lets software write. `RO`: nothing, writes are ignored. `RW`: always. A field of CR0 or IRQ_CTRL, or `QUEUES`
 * (any of CMDQEN, EVENTQEN, PRIQEN): only while it is 0 there and in the ACK register. `UPDATE`: one 32-bit write
 * with bit UPDATE set, while that reads 0. `RUN`: while the ATOS or VATOS operation is not running.
 */
export type WriteRule =
  | 'RO'
  | 'RW'
  | 'SMMUEN'
  | 'CMDQEN'
  | 'EVENTQEN'
  | 'PRIQEN'
  | 'DPT_WALK_EN'
  | 'QUEUES'
  | 'GERROR_IRQEN'
  | 'EVENTQ_IRQEN'
  | 'PRIQ_IRQEN'
  | 'UPDATE'
  | 'RUN';

export interface RegisterSpec {
  readonly name: RegisterName;
  readonly offset: number;
  readonly width: 32 | 64;
  readonly fields: Layout;
  readonly write: WriteRule;
  /** `zero`, or not fixed by the architecture. */
  readonly reset: 'zero' | 'UNKNOWN' | 'IMPDEF';
  /** The register is RES0 without these. */
  readonly needs?: readonly Feature[];
  /** Single fields that are RES0 without these. */
  readonly fieldNeeds?: Readonly<Record<string, readonly Feature[]>>;
  /** Fields with a rule of their own. */
  readonly fieldWrite?: Readonly<Record<string, WriteRule>>;
  /** The register is read-only if this bit of IDR1 is set. */
  readonly preset?: 'TABLES_PRESET' | 'QUEUES_PRESET';
  /** Clause of IHI 0070 G.b. */
  readonly clause: string;
}

const CR0_NEEDS = { PRIQEN: ['PRI'], ATSCHK: ['ATS'], VMW: ['VMW'], DPT_WALK_EN: ['DPT'] } as const;
const IRQ_CTRL_NEEDS = { PRIQ_IRQEN: ['PRI'] } as const;
const GERROR_NEEDS = {
  PRIQ_ABT_ERR: ['PRI'],
  MSI_CMDQ_ABT_ERR: ['MSI'],
  MSI_EVENTQ_ABT_ERR: ['MSI'],
  MSI_PRIQ_ABT_ERR: ['MSI', 'PRI'],
  MSI_GERROR_ABT_ERR: ['MSI'],
  CMDQP_ERR: ['ECMDQ'],
  DPT_ERR: ['DPT'],
} as const;
const QUEUE_GUARDED = { QUEUE_IC: 'QUEUES', QUEUE_OC: 'QUEUES', QUEUE_SH: 'QUEUES' } as const;

type Rest = Omit<RegisterSpec, 'name' | 'offset' | 'width' | 'fields' | 'write' | 'reset' | 'clause'>;
function register(
  name: RegisterName,
  width: 32 | 64,
  fields: Layout,
  write: WriteRule,
  reset: RegisterSpec['reset'],
  clause: string,
  rest: Rest = {},
): RegisterSpec {
  return { name, offset: OFFSET[name], width, fields, write, reset, clause, ...rest };
}
const idByte = (name: RegisterName): RegisterSpec => register(name, 32, ID_BYTE, 'RO', 'IMPDEF', '6.3.170');

/** Every Non-secure register of pages 0 and 1, in order of its offset. What is not here is RES0. */
// prettier-ignore
export const REGISTERS: readonly RegisterSpec[] = [
  register('IDR0', 32, IDR0, 'RO', 'IMPDEF', '6.3.1'),
  register('IDR1', 32, IDR1, 'RO', 'IMPDEF', '6.3.2'),
  register('IDR2', 32, IDR2, 'RO', 'IMPDEF', '6.3.3', { needs: ['VATOS'] }),
  register('IDR3', 32, IDR3, 'RO', 'IMPDEF', '6.3.4'),
  register('IDR4', 32, IDR4, 'RO', 'IMPDEF', '6.3.5'),
  register('IDR5', 32, IDR5, 'RO', 'IMPDEF', '6.3.6'),
  register('IIDR', 32, IIDR, 'RO', 'IMPDEF', '6.3.7'),
  register('AIDR', 32, AIDR, 'RO', 'IMPDEF', '6.3.8'),
  register('CR0', 32, CR0, 'RW', 'zero', '6.3.9', { fieldNeeds: CR0_NEEDS }),
  register('CR0ACK', 32, CR0, 'RO', 'zero', '6.3.10', { fieldNeeds: CR0_NEEDS }),
  register('CR1', 32, CR1, 'SMMUEN', 'UNKNOWN', '6.3.11', { fieldWrite: QUEUE_GUARDED }),
  register('CR2', 32, CR2, 'SMMUEN', 'UNKNOWN', '6.3.12',
    { fieldNeeds: { E2H: ['HYP'], PTM: ['BTM'], REC_CFG_ATS: ['ATSRECERR'] } }),
  register('S2PII', 64, S2PII, 'RW', 'UNKNOWN', '6.2.1', { needs: ['S2PI'] }),
  register('STATUSR', 32, STATUSR, 'RO', 'zero', '6.3.13', { needs: ['DORMHINT'] }),
  register('GBPA', 32, GBPA, 'UPDATE', 'IMPDEF', '6.3.14'),
  register('AGBPA', 32, AGBPA, 'RW', 'IMPDEF', '6.3.15'),
  register('IRQ_CTRL', 32, IRQ_CTRL, 'RW', 'zero', '6.3.16', { fieldNeeds: IRQ_CTRL_NEEDS }),
  register('IRQ_CTRLACK', 32, IRQ_CTRL, 'RO', 'zero', '6.3.17', { fieldNeeds: IRQ_CTRL_NEEDS }),
  register('GERROR', 32, GERROR, 'RO', 'zero', '6.3.19', { fieldNeeds: GERROR_NEEDS }),
  register('GERRORN', 32, GERROR, 'RW', 'zero', '6.3.20', { fieldNeeds: GERROR_NEEDS }),
  register('GERROR_IRQ_CFG0', 64, IRQ_CFG0, 'GERROR_IRQEN', 'UNKNOWN', '6.3.21', { needs: ['MSI'] }),
  register('GERROR_IRQ_CFG1', 32, IRQ_CFG1, 'GERROR_IRQEN', 'UNKNOWN', '6.3.22', { needs: ['MSI'] }),
  register('GERROR_IRQ_CFG2', 32, IRQ_CFG2, 'GERROR_IRQEN', 'UNKNOWN', '6.3.23', { needs: ['MSI'] }),
  register('STRTAB_BASE', 64, STRTAB_BASE, 'SMMUEN', 'UNKNOWN', '6.3.24', { preset: 'TABLES_PRESET' }),
  register('STRTAB_BASE_CFG', 32, STRTAB_BASE_CFG, 'SMMUEN', 'UNKNOWN', '6.3.25',
    { preset: 'TABLES_PRESET', fieldNeeds: { SPLIT: ['ST_LEVEL'], FMT: ['ST_LEVEL'] } }),
  register('CMDQ_BASE', 64, CMDQ_BASE, 'CMDQEN', 'UNKNOWN', '6.3.26', { preset: 'QUEUES_PRESET' }),
  register('CMDQ_PROD', 32, CMDQ_PROD, 'RW', 'UNKNOWN', '6.3.27'),
  register('CMDQ_CONS', 32, CMDQ_CONS, 'CMDQEN', 'UNKNOWN', '6.3.28'),
  register('EVENTQ_BASE', 64, EVENTQ_BASE, 'EVENTQEN', 'UNKNOWN', '6.3.29', { preset: 'QUEUES_PRESET' }),
  register('EVENTQ_IRQ_CFG0', 64, IRQ_CFG0, 'EVENTQ_IRQEN', 'UNKNOWN', '6.3.30', { needs: ['MSI'] }),
  register('EVENTQ_IRQ_CFG1', 32, IRQ_CFG1, 'EVENTQ_IRQEN', 'UNKNOWN', '6.3.31', { needs: ['MSI'] }),
  register('EVENTQ_IRQ_CFG2', 32, IRQ_CFG2, 'EVENTQ_IRQEN', 'UNKNOWN', '6.3.32', { needs: ['MSI'] }),
  register('PRIQ_BASE', 64, EVENTQ_BASE, 'PRIQEN', 'UNKNOWN', '6.3.33', { needs: ['PRI'], preset: 'QUEUES_PRESET' }),
  register('PRIQ_IRQ_CFG0', 64, IRQ_CFG0, 'PRIQ_IRQEN', 'UNKNOWN', '6.3.34', { needs: ['PRI', 'MSI'] }),
  register('PRIQ_IRQ_CFG1', 32, IRQ_CFG1, 'PRIQ_IRQEN', 'UNKNOWN', '6.3.35', { needs: ['PRI', 'MSI'] }),
  register('PRIQ_IRQ_CFG2', 32, PRIQ_IRQ_CFG2, 'PRIQ_IRQEN', 'UNKNOWN', '6.3.36',
    { needs: ['PRI'], fieldNeeds: { MemAttr: ['MSI'], SH: ['MSI'] } }),
  register('GATOS_CTRL', 32, GATOS_CTRL, 'RUN', 'zero', '6.3.37', { needs: ['ATOS'] }),
  register('GATOS_SID', 64, GATOS_SID, 'RUN', 'UNKNOWN', '6.3.38', { needs: ['ATOS'] }),
  register('GATOS_ADDR', 64, GATOS_ADDR, 'RUN', 'UNKNOWN', '6.3.39', { needs: ['ATOS'] }),
  register('GATOS_PAR', 64, GATOS_PAR, 'RO', 'UNKNOWN', '6.3.40', { needs: ['ATOS'] }),
  register('MPAMIDR', 32, MPAMIDR, 'RO', 'IMPDEF', '6.3.41', { needs: ['MPAM'] }),
  register('GMPAM', 32, GMPAM, 'UPDATE', 'zero', '6.3.42', { needs: ['MPAM'] }),
  register('GBPMPAM', 32, GMPAM, 'UPDATE', 'zero', '6.3.43', { needs: ['MPAM'] }),
  register('VATOS_SEL', 32, VATOS_SEL, 'RUN', 'UNKNOWN', '6.3.44', { needs: ['VATOS'] }),
  register('IDR6', 32, IDR6, 'RO', 'IMPDEF', '6.3.45', { needs: ['ECMDQ'] }),
  register('DPT_BASE', 64, DPT_BASE, 'DPT_WALK_EN', 'UNKNOWN', '6.3.46', { needs: ['DPT'] }),
  register('DPT_BASE_CFG', 32, DPT_BASE_CFG, 'DPT_WALK_EN', 'UNKNOWN', '6.3.47', { needs: ['DPT'] }),
  register('DPT_CFG_FAR', 64, DPT_CFG_FAR, 'RW', 'UNKNOWN', '6.3.48', { needs: ['DPT'] }),
  idByte('PIDR4'), idByte('PIDR5'), idByte('PIDR6'), idByte('PIDR7'),
  idByte('PIDR0'), idByte('PIDR1'), idByte('PIDR2'), idByte('PIDR3'),
  idByte('CIDR0'), idByte('CIDR1'), idByte('CIDR2'), idByte('CIDR3'),
  register('EVENTQ_PROD', 32, EVENTQ_PROD, 'EVENTQEN', 'UNKNOWN', '6.3.95'),
  register('EVENTQ_CONS', 32, EVENTQ_CONS, 'RW', 'UNKNOWN', '6.3.96'),
  register('PRIQ_PROD', 32, EVENTQ_PROD, 'PRIQEN', 'UNKNOWN', '6.3.97', { needs: ['PRI'] }),
  register('PRIQ_CONS', 32, EVENTQ_CONS, 'RW', 'UNKNOWN', '6.3.98', { needs: ['PRI'] }),
];
