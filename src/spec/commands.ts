/**
 * Commands as data (IHI 0070 G.b, chapter 4). A command is four 32-bit words; bits are counted through all 128.
 */

import { address, bits, type Layout } from '../bits/field.ts';

/** Bytes and 32-bit words of one command. */
export const COMMAND_SIZE = 16;
export const COMMAND_WORDS = 4;

/** 4.1.1 */
export const OPCODE = {
  CMD_PREFETCH_CONFIG: 0x01,
  CMD_PREFETCH_ADDR: 0x02,
  CMD_CFGI_STE: 0x03,
  CMD_CFGI_STE_RANGE: 0x04,
  CMD_CFGI_CD: 0x05,
  CMD_CFGI_CD_ALL: 0x06,
  CMD_CFGI_VMS_PIDM: 0x07,
  CMD_TLBI_NH_ALL: 0x10,
  CMD_TLBI_NH_ASID: 0x11,
  CMD_TLBI_NH_VA: 0x12,
  CMD_TLBI_NH_VAA: 0x13,
  CMD_TLBI_EL3_ALL: 0x18,
  CMD_TLBI_EL3_VA: 0x1a,
  CMD_TLBI_EL2_ALL: 0x20,
  CMD_TLBI_EL2_ASID: 0x21,
  CMD_TLBI_EL2_VA: 0x22,
  CMD_TLBI_EL2_VAA: 0x23,
  CMD_TLBI_S12_VMALL: 0x28,
  CMD_TLBI_S2_IPA: 0x2a,
  CMD_TLBI_NSNH_ALL: 0x30,
  CMD_ATC_INV: 0x40,
  CMD_PRI_RESP: 0x41,
  CMD_RESUME: 0x44,
  CMD_STALL_TERM: 0x45,
  CMD_SYNC: 0x46,
  CMD_TLBI_S_EL2_ALL: 0x50,
  CMD_TLBI_S_EL2_ASID: 0x51,
  CMD_TLBI_S_EL2_VA: 0x52,
  CMD_TLBI_S_EL2_VAA: 0x53,
  CMD_TLBI_S_S12_VMALL: 0x58,
  CMD_TLBI_S_S2_IPA: 0x5a,
  CMD_TLBI_SNH_ALL: 0x60,
  CMD_DPTI_ALL: 0x70,
  CMD_DPTI_PA: 0x73,
} as const;
export type CommandName = keyof typeof OPCODE;

/** What every command has. */
export const COMMAND = { Opcode: bits(7, 0) } as const;

const SSec = bits(10);
const SSV = bits(11);
const SubstreamID = bits(31, 12);
const StreamID = bits(63, 32);
const VMID = bits(47, 32);
const ASID = bits(63, 48);
const Leaf = bits(64);

/** 4.2.1 */
export const CMD_PREFETCH_CONFIG = { SSec, SSV, SubstreamID, StreamID } as const;

/** 4.2.2; `Size` and `Stride` are log2. */
export const CMD_PREFETCH_ADDR = {
  ...CMD_PREFETCH_CONFIG,
  Size: bits(68, 64),
  Stride: bits(73, 69),
  Addr: address(127, 76),
} as const;

/** 4.3.1 */
export const CMD_CFGI_STE = { SSec, StreamID, Leaf } as const;
/** 4.3.2: 2^(Range+1) StreamIDs; 31 is CMD_CFGI_ALL. */
export const CMD_CFGI_STE_RANGE = { SSec, StreamID, Range: bits(68, 64) } as const;
/** CMD_CFGI_STE_RANGE.Range of CMD_CFGI_ALL. */
export const CFGI_ALL_RANGE = 31;
/** 4.3.3 */
export const CMD_CFGI_CD = { SSec, SubstreamID, StreamID, Leaf } as const;
/** 4.3.4 */
export const CMD_CFGI_CD_ALL = { SSec, StreamID } as const;
/** 4.3.5 */
export const CMD_CFGI_VMS_PIDM = { SSec, VMID } as const;

/** 4.4.1.1: what range invalidation adds; RES0 without IDR3.RIL. */
export const TLBI_RANGE = {
  NUM: bits(16, 12),
  SCALE: bits(25, 20),
  Leaf,
  TTL128: bits(71),
  TTL: bits(73, 72),
  TG: bits(75, 74),
} as const;
/** Values of TG; 0 means a single address of any granule. */
export const TLBI_TG = { None: 0, Granule4K: 1, Granule16K: 2, Granule64K: 3 } as const;

/** 4.4.2.1 */
export const CMD_TLBI_NH_ALL = { VMID } as const;
export const CMD_TLBI_NH_ASID = { VMID, ASID } as const;
export const CMD_TLBI_NH_VA = { ...TLBI_RANGE, VMID, ASID, Address: address(127, 76) } as const;
export const CMD_TLBI_NH_VAA = { ...TLBI_RANGE, VMID, Address: address(127, 76) } as const;
export const CMD_TLBI_EL2_ASID = { ASID } as const;
export const CMD_TLBI_EL2_VA = { ...TLBI_RANGE, ASID, Address: address(127, 76) } as const;
export const CMD_TLBI_EL2_VAA = { ...TLBI_RANGE, Address: address(127, 76) } as const;
export const CMD_TLBI_S12_VMALL = { VMID } as const;
/** 4.4.3.1: the address is an IPA. */
export const CMD_TLBI_S2_IPA = { ...TLBI_RANGE, VMID, Address: address(119, 76) } as const;

/** 4.5.1: 2^Size pages of 4 KiB, aligned to that; 52 is everything. */
export const CMD_ATC_INV = {
  Global: bits(9),
  SSV,
  SubstreamID,
  StreamID,
  Size: bits(69, 64),
  Address: address(127, 76),
} as const;
/** CMD_ATC_INV.Size that names the whole address space. */
export const ATC_INV_SIZE_ALL = 52;

/** 4.5.2 */
export const CMD_PRI_RESP = {
  SSV,
  SubstreamID,
  StreamID,
  PRGIndex: bits(72, 64),
  Resp: bits(77, 76),
} as const;
/** Values of CMD_PRI_RESP.Resp; 3 is ILLEGAL. */
export const PRI_RESP = { ResponseFailure: 0, InvalidRequest: 1, Success: 2 } as const;

/** 4.7.1: Ac=1 retries; otherwise Ab=1 aborts and Ab=0 is RAZ/WI. */
export const CMD_RESUME = { SSec, Ac: bits(12), Ab: bits(13), StreamID, STAG: bits(79, 64) } as const;
/** 4.7.2 */
export const CMD_STALL_TERM = { SSec, StreamID } as const;

/** 4.7.3 */
export const CMD_SYNC = {
  CS: bits(13, 12),
  MSH: bits(23, 22),
  MSIAttr: bits(27, 24),
  MSIData: bits(63, 32),
  MSIAddress: address(119, 66),
} as const;
/** Values of CMD_SYNC.CS; 3 is ILLEGAL. */
export const SYNC_CS = { None: 0, IRQ: 1, SEV: 2 } as const;

/** 4.6 */
export const CMD_DPTI_PA = { Leaf, SIZE: bits(75, 72), Address: address(119, 76) } as const;

/** CMDQ_CONS.ERR (7.1). */
export const CERROR = { NONE: 0, ILL: 1, ABT: 2, ATC_INV_SYNC: 3 } as const;

export interface CommandSpec {
  readonly name: CommandName;
  readonly opcode: number;
  readonly fields: Layout;
  readonly clause: string;
}

const command = (name: CommandName, fields: Layout, clause: string): CommandSpec => ({
  name,
  opcode: OPCODE[name],
  fields,
  clause,
});

/** Every command of the architecture in order of its opcode; those of other Security states are ILLEGAL here. */
export const COMMANDS: readonly CommandSpec[] = [
  command('CMD_PREFETCH_CONFIG', CMD_PREFETCH_CONFIG, '4.2.1'),
  command('CMD_PREFETCH_ADDR', CMD_PREFETCH_ADDR, '4.2.2'),
  command('CMD_CFGI_STE', CMD_CFGI_STE, '4.3.1'),
  command('CMD_CFGI_STE_RANGE', CMD_CFGI_STE_RANGE, '4.3.2'),
  command('CMD_CFGI_CD', CMD_CFGI_CD, '4.3.3'),
  command('CMD_CFGI_CD_ALL', CMD_CFGI_CD_ALL, '4.3.4'),
  command('CMD_CFGI_VMS_PIDM', CMD_CFGI_VMS_PIDM, '4.3.5'),
  command('CMD_TLBI_NH_ALL', CMD_TLBI_NH_ALL, '4.4.2'),
  command('CMD_TLBI_NH_ASID', CMD_TLBI_NH_ASID, '4.4.2'),
  command('CMD_TLBI_NH_VA', CMD_TLBI_NH_VA, '4.4.2'),
  command('CMD_TLBI_NH_VAA', CMD_TLBI_NH_VAA, '4.4.2'),
  command('CMD_TLBI_EL3_ALL', {}, '4.4.2'),
  command('CMD_TLBI_EL3_VA', CMD_TLBI_EL2_VAA, '4.4.2'),
  command('CMD_TLBI_EL2_ALL', {}, '4.4.2'),
  command('CMD_TLBI_EL2_ASID', CMD_TLBI_EL2_ASID, '4.4.2'),
  command('CMD_TLBI_EL2_VA', CMD_TLBI_EL2_VA, '4.4.2'),
  command('CMD_TLBI_EL2_VAA', CMD_TLBI_EL2_VAA, '4.4.2'),
  command('CMD_TLBI_S12_VMALL', CMD_TLBI_S12_VMALL, '4.4.3.2'),
  command('CMD_TLBI_S2_IPA', CMD_TLBI_S2_IPA, '4.4.3.1'),
  command('CMD_TLBI_NSNH_ALL', {}, '4.4.4.1'),
  command('CMD_ATC_INV', CMD_ATC_INV, '4.5.1'),
  command('CMD_PRI_RESP', CMD_PRI_RESP, '4.5.2'),
  command('CMD_RESUME', CMD_RESUME, '4.7.1'),
  command('CMD_STALL_TERM', CMD_STALL_TERM, '4.7.2'),
  command('CMD_SYNC', CMD_SYNC, '4.7.3'),
  command('CMD_TLBI_S_EL2_ALL', {}, '4.4.2'),
  command('CMD_TLBI_S_EL2_ASID', CMD_TLBI_EL2_ASID, '4.4.2'),
  command('CMD_TLBI_S_EL2_VA', CMD_TLBI_EL2_VA, '4.4.2'),
  command('CMD_TLBI_S_EL2_VAA', CMD_TLBI_EL2_VAA, '4.4.2'),
  command('CMD_TLBI_S_S12_VMALL', CMD_TLBI_S12_VMALL, '4.4.3.4'),
  command('CMD_TLBI_S_S2_IPA', CMD_TLBI_S2_IPA, '4.4.3.3'),
  command('CMD_TLBI_SNH_ALL', {}, '4.4.4.2'),
  command('CMD_DPTI_ALL', {}, '4.6'),
  command('CMD_DPTI_PA', CMD_DPTI_PA, '4.6'),
];
