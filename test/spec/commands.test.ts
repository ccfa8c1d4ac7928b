import { describe, expect, it } from 'vitest';
import {
  CERROR,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_CFGI_VMS_PIDM,
  CMD_DPTI_PA,
  CMD_PREFETCH_ADDR,
  CMD_PREFETCH_CONFIG,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  CMD_SYNC,
  CMD_TLBI_NH_VA,
  CMD_TLBI_S2_IPA,
  COMMANDS,
  OPCODE,
} from '../../src/spec/commands.ts';

/** Second source: [field, 64-bit word, high bit, low bit], as the Linux driver's masks or the architecture's text have them. */
const FIELDS = [
  ['PREFETCH_CONFIG.SSec', CMD_PREFETCH_CONFIG.SSec, 0, 10, 10],
  ['PREFETCH_CONFIG.SSV', CMD_PREFETCH_CONFIG.SSV, 0, 11, 11],
  ['PREFETCH_CONFIG.SubstreamID', CMD_PREFETCH_CONFIG.SubstreamID, 0, 31, 12],
  ['PREFETCH_CONFIG.StreamID', CMD_PREFETCH_CONFIG.StreamID, 0, 63, 32],
  ['PREFETCH_ADDR.Size', CMD_PREFETCH_ADDR.Size, 1, 4, 0],
  ['PREFETCH_ADDR.Stride', CMD_PREFETCH_ADDR.Stride, 1, 9, 5],
  ['PREFETCH_ADDR.Addr', CMD_PREFETCH_ADDR.Addr, 1, 63, 12],
  ['CFGI_STE.StreamID', CMD_CFGI_STE.StreamID, 0, 63, 32],
  ['CFGI_STE.Leaf', CMD_CFGI_STE.Leaf, 1, 0, 0],
  ['CFGI_STE_RANGE.Range', CMD_CFGI_STE_RANGE.Range, 1, 4, 0],
  ['CFGI_CD.SubstreamID', CMD_CFGI_CD.SubstreamID, 0, 31, 12],
  ['CFGI_VMS_PIDM.VMID', CMD_CFGI_VMS_PIDM.VMID, 0, 47, 32],
  ['TLBI.NUM', CMD_TLBI_NH_VA.NUM, 0, 16, 12],
  // The driver's mask is [24:20]; the architecture has one bit more.
  ['TLBI.SCALE', CMD_TLBI_NH_VA.SCALE, 0, 25, 20],
  ['TLBI.VMID', CMD_TLBI_NH_VA.VMID, 0, 47, 32],
  ['TLBI.ASID', CMD_TLBI_NH_VA.ASID, 0, 63, 48],
  ['TLBI.Leaf', CMD_TLBI_NH_VA.Leaf, 1, 0, 0],
  ['TLBI.TTL128', CMD_TLBI_NH_VA.TTL128, 1, 7, 7],
  ['TLBI.TTL', CMD_TLBI_NH_VA.TTL, 1, 9, 8],
  ['TLBI.TG', CMD_TLBI_NH_VA.TG, 1, 11, 10],
  ['TLBI.Address', CMD_TLBI_NH_VA.Address, 1, 63, 12],
  // The driver's mask is [51:12].
  ['TLBI_S2_IPA.Address', CMD_TLBI_S2_IPA.Address, 1, 55, 12],
  ['ATC_INV.Global', CMD_ATC_INV.Global, 0, 9, 9],
  ['ATC_INV.SSV', CMD_ATC_INV.SSV, 0, 11, 11],
  ['ATC_INV.SubstreamID', CMD_ATC_INV.SubstreamID, 0, 31, 12],
  ['ATC_INV.StreamID', CMD_ATC_INV.StreamID, 0, 63, 32],
  ['ATC_INV.Size', CMD_ATC_INV.Size, 1, 5, 0],
  ['ATC_INV.Address', CMD_ATC_INV.Address, 1, 63, 12],
  ['PRI_RESP.PRGIndex', CMD_PRI_RESP.PRGIndex, 1, 8, 0],
  ['PRI_RESP.Resp', CMD_PRI_RESP.Resp, 1, 13, 12],
  ['RESUME.Ac', CMD_RESUME.Ac, 0, 12, 12],
  ['RESUME.Ab', CMD_RESUME.Ab, 0, 13, 13],
  ['RESUME.STAG', CMD_RESUME.STAG, 1, 15, 0],
  ['STALL_TERM.StreamID', CMD_STALL_TERM.StreamID, 0, 63, 32],
  ['SYNC.CS', CMD_SYNC.CS, 0, 13, 12],
  ['SYNC.MSH', CMD_SYNC.MSH, 0, 23, 22],
  ['SYNC.MSIAttr', CMD_SYNC.MSIAttr, 0, 27, 24],
  ['SYNC.MSIData', CMD_SYNC.MSIData, 0, 63, 32],
  // The driver's mask is [51:2].
  ['SYNC.MSIAddress', CMD_SYNC.MSIAddress, 1, 55, 2],
  ['DPTI_PA.SIZE', CMD_DPTI_PA.SIZE, 1, 11, 8],
  ['DPTI_PA.Address', CMD_DPTI_PA.Address, 1, 55, 12],
] as const;

/** The opcode table of 4.1.1. */
const OPCODES = {
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
};

describe('the command table', () => {
  it('has the opcodes of 4.1.1 and no others', () => {
    expect(OPCODE).toEqual(OPCODES);
    expect(COMMANDS.map(({ name, opcode }) => [name, opcode])).toEqual(Object.entries(OPCODES));
  });

  it.each(FIELDS)('%s is where the driver and the text put it', (_name, field, dword, hi, lo) => {
    expect([field.hi, field.lo]).toEqual([dword * 64 + hi, dword * 64 + lo]);
  });

  it('has no overlapping fields, and none over the opcode or outside the command', () => {
    for (const { name, fields } of COMMANDS) {
      const owner: string[] = Array.from({ length: 8 }, () => 'Opcode');
      for (const [fieldName, field] of Object.entries(fields))
        for (let bit = field.lo; bit <= field.hi; bit++) {
          expect(bit).toBeLessThan(128);
          expect(owner[bit], `${name}[${bit}]`).toBeUndefined();
          owner[bit] = fieldName;
        }
    }
  });

  it('has the error codes of 7.1', () => {
    expect(CERROR).toEqual({ NONE: 0, ILL: 1, ABT: 2, ATC_INV_SYNC: 3 });
  });
});
