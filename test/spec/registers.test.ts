import { describe, expect, it } from 'vitest';
import { Field, type Span } from '../../src/bits/field.ts';
import * as registers from '../../src/spec/registers.ts';
import { OFFSET, REGISTERS } from '../../src/spec/registers.ts';

/** Second source, the register table of the architecture: name, offset, width in bits, fields as `hi:lo name`. */
const ARCHITECTURE: readonly (readonly [string, number, 32 | 64, string])[] = [
  [
    'IDR0',
    0x00,
    32,
    '0 S2P, 1 S1P, 3:2 TTF, 4 COHACC, 5 BTM, 7:6 HTTU, 8 DORMHINT, 9 HYP, 10 ATS, 11 NS1ATS, 12 ASID16, 13 MSI, 14 SEV, 15 ATOS, 16 PRI, 17 VMW, 18 VMID16, 19 CD2L, 20 VATOS, 22:21 TTENDIAN, 23 ATSRECERR, 25:24 STALL_MODEL, 26 TERM_MODEL, 28:27 ST_LEVEL, 30 RME_IMPL',
  ],
  [
    'IDR1',
    0x04,
    32,
    '5:0 SIDSIZE, 10:6 SSIDSIZE, 15:11 PRIQS, 20:16 EVENTQS, 25:21 CMDQS, 26 ATTR_PERMS_OVR, 27 ATTR_TYPES_OVR, 28 REL, 29 QUEUES_PRESET, 30 TABLES_PRESET, 31 ECMDQ',
  ],
  ['IDR2', 0x08, 32, '9:0 BA_VATOS'],
  [
    'IDR3',
    0x0c,
    32,
    '2 HAD, 3 PBHA, 4 XNX, 5 PPS, 7 MPAM, 8 FWB, 9 STT, 10 RIL, 12:11 BBML, 13 E0PD, 14 PTWNNC, 15 DPT, 16 PASIDTT, 17 EPAN, 18 S1PI, 19 S2PI, 20 S2PO, 21 THE, 22 MTEPERM, 23 AIE',
  ],
  ['IDR4', 0x10, 32, '31:0 IMPDEF'],
  ['IDR5', 0x14, 32, '2:0 OAS, 4 GRAN4K, 5 GRAN16K, 6 GRAN64K, 7 DS, 8 D128, 11:10 VAX, 31:16 STALL_MAX'],
  ['IIDR', 0x18, 32, '11:0 Implementer, 15:12 Revision, 19:16 Variant, 31:20 ProductID'],
  ['AIDR', 0x1c, 32, '3:0 ArchMinorRev, 7:4 ArchMajorRev'],
  ['CR0', 0x20, 32, '0 SMMUEN, 1 PRIQEN, 2 EVENTQEN, 3 CMDQEN, 4 ATSCHK, 8:6 VMW, 10 DPT_WALK_EN'],
  ['CR0ACK', 0x24, 32, '0 SMMUEN, 1 PRIQEN, 2 EVENTQEN, 3 CMDQEN, 4 ATSCHK, 8:6 VMW, 10 DPT_WALK_EN'],
  ['CR1', 0x28, 32, '1:0 QUEUE_IC, 3:2 QUEUE_OC, 5:4 QUEUE_SH, 7:6 TABLE_IC, 9:8 TABLE_OC, 11:10 TABLE_SH'],
  ['CR2', 0x2c, 32, '0 E2H, 1 RECINVSID, 2 PTM, 3 REC_CFG_ATS'],
  ['S2PII', 0x30, 64, '63:0 S2PII'],
  ['STATUSR', 0x40, 32, '0 DORMANT'],
  [
    'GBPA',
    0x44,
    32,
    '3:0 MemAttr, 4 MTCFG, 11:8 ALLOCCFG, 13:12 SHCFG, 17:16 PRIVCFG, 19:18 INSTCFG, 20 ABORT, 31 UPDATE',
  ],
  ['AGBPA', 0x48, 32, ''],
  ['IRQ_CTRL', 0x50, 32, '0 GERROR_IRQEN, 1 PRIQ_IRQEN, 2 EVENTQ_IRQEN'],
  ['IRQ_CTRLACK', 0x54, 32, '0 GERROR_IRQEN, 1 PRIQ_IRQEN, 2 EVENTQ_IRQEN'],
  [
    'GERROR',
    0x60,
    32,
    '0 CMDQ_ERR, 2 EVENTQ_ABT_ERR, 3 PRIQ_ABT_ERR, 4 MSI_CMDQ_ABT_ERR, 5 MSI_EVENTQ_ABT_ERR, 6 MSI_PRIQ_ABT_ERR, 7 MSI_GERROR_ABT_ERR, 8 SFM_ERR, 9 CMDQP_ERR, 10 DPT_ERR',
  ],
  [
    'GERRORN',
    0x64,
    32,
    '0 CMDQ_ERR, 2 EVENTQ_ABT_ERR, 3 PRIQ_ABT_ERR, 4 MSI_CMDQ_ABT_ERR, 5 MSI_EVENTQ_ABT_ERR, 6 MSI_PRIQ_ABT_ERR, 7 MSI_GERROR_ABT_ERR, 8 SFM_ERR, 9 CMDQP_ERR, 10 DPT_ERR',
  ],
  ['GERROR_IRQ_CFG0', 0x68, 64, '55:2 ADDR'],
  ['GERROR_IRQ_CFG1', 0x70, 32, '31:0 DATA'],
  ['GERROR_IRQ_CFG2', 0x74, 32, '3:0 MemAttr, 5:4 SH'],
  ['STRTAB_BASE', 0x80, 64, '55:6 ADDR, 62 RA'],
  ['STRTAB_BASE_CFG', 0x88, 32, '5:0 LOG2SIZE, 10:6 SPLIT, 17:16 FMT'],
  ['CMDQ_BASE', 0x90, 64, '4:0 LOG2SIZE, 55:5 ADDR, 62 RA'],
  ['CMDQ_PROD', 0x98, 32, '19:0 WR'],
  ['CMDQ_CONS', 0x9c, 32, '19:0 RD, 30:24 ERR'],
  ['EVENTQ_BASE', 0xa0, 64, '4:0 LOG2SIZE, 55:5 ADDR, 62 WA'],
  ['EVENTQ_IRQ_CFG0', 0xb0, 64, '55:2 ADDR'],
  ['EVENTQ_IRQ_CFG1', 0xb8, 32, '31:0 DATA'],
  ['EVENTQ_IRQ_CFG2', 0xbc, 32, '3:0 MemAttr, 5:4 SH'],
  ['PRIQ_BASE', 0xc0, 64, '4:0 LOG2SIZE, 55:5 ADDR, 62 WA'],
  ['PRIQ_IRQ_CFG0', 0xd0, 64, '55:2 ADDR'],
  ['PRIQ_IRQ_CFG1', 0xd8, 32, '31:0 DATA'],
  ['PRIQ_IRQ_CFG2', 0xdc, 32, '3:0 MemAttr, 5:4 SH, 31 LO'],
  ['GATOS_CTRL', 0x100, 32, '0 RUN'],
  ['GATOS_SID', 0x108, 64, '31:0 STREAMID, 51:32 SUBSTREAMID, 52 SSID_VALID'],
  ['GATOS_ADDR', 0x110, 64, '63:12 ADDR, 11:10 TYPE, 9 PnU, 8 RnW, 7 InD, 6 HTTUI'],
  ['GATOS_PAR', 0x118, 64, '0 FAULT, 9:8 SH, 11 Size, 55:12 ADDR, 63:56 ATTR'],
  ['MPAMIDR', 0x130, 32, '15:0 PARTID_MAX, 23:16 PMG_MAX'],
  ['GMPAM', 0x138, 32, '15:0 PARTID, 23:16 PMG, 31 UPDATE'],
  ['GBPMPAM', 0x13c, 32, '15:0 PARTID, 23:16 PMG, 31 UPDATE'],
  ['VATOS_SEL', 0x180, 32, '15:0 VMID'],
  ['IDR6', 0x190, 32, '19:16 LOG2NUMQ, 27:24 LOG2NUMP'],
  ['DPT_BASE', 0x200, 64, '55:12 BADDR, 62 RA'],
  ['DPT_BASE_CFG', 0x208, 32, '2:0 DPTPS, 15:14 DPTGS, 23:20 L0DPTSZ'],
  ['DPT_CFG_FAR', 0x210, 64, '0 FAULT, 1 LEVEL, 7:4 Code, 55:12 FADDR'],
  ...(['PIDR4', 'PIDR5', 'PIDR6', 'PIDR7', 'PIDR0', 'PIDR1', 'PIDR2', 'PIDR3'] as const).map(
    (name, i) => [name, 0xfd0 + 4 * i, 32, '7:0 Value'] as const,
  ),
  ...(['CIDR0', 'CIDR1', 'CIDR2', 'CIDR3'] as const).map(
    (name, i) => [name, 0xff0 + 4 * i, 32, '7:0 Value'] as const,
  ),
  ['EVENTQ_PROD', 0x100a8, 32, '19:0 WR, 31 OVFLG'],
  ['EVENTQ_CONS', 0x100ac, 32, '19:0 RD, 31 OVACKFLG'],
  ['PRIQ_PROD', 0x100c8, 32, '19:0 WR, 31 OVFLG'],
  ['PRIQ_CONS', 0x100cc, 32, '19:0 RD, 31 OVACKFLG'],
];

/** Third source: masks of the Linux driver, for what decides whether it boots. */
const DRIVER: readonly (readonly [Field | Span, number, number])[] = [
  [registers.IDR0.ST_LEVEL, 28, 27],
  [registers.IDR0.STALL_MODEL, 25, 24],
  [registers.IDR0.TTENDIAN, 22, 21],
  [registers.IDR0.CD2L, 19, 19],
  [registers.IDR0.VMID16, 18, 18],
  [registers.IDR0.HTTU, 7, 6],
  [registers.IDR0.TTF, 3, 2],
  [registers.IDR1.CMDQS, 25, 21],
  [registers.IDR1.EVENTQS, 20, 16],
  [registers.IDR1.PRIQS, 15, 11],
  [registers.IDR1.SSIDSIZE, 10, 6],
  [registers.IDR1.SIDSIZE, 5, 0],
  [registers.IDR3.RIL, 10, 10],
  [registers.IDR3.BBML, 12, 11],
  [registers.IDR5.STALL_MAX, 31, 16],
  [registers.IDR5.OAS, 2, 0],
  [registers.IDR5.VAX, 11, 10],
  [registers.STRTAB_BASE_CFG.FMT, 17, 16],
  [registers.STRTAB_BASE_CFG.SPLIT, 10, 6],
  [registers.STRTAB_BASE_CFG.LOG2SIZE, 5, 0],
  [registers.CMDQ_CONS.ERR, 30, 24],
  [registers.GBPA.ABORT, 20, 20],
  [registers.GBPA.UPDATE, 31, 31],
];

const text = (field: Field | Span): string =>
  field.hi === field.lo ? `${field.lo}` : `${field.hi}:${field.lo}`;
const sorted = (fields: string[]): string[] => fields.filter((field) => field !== '').sort();

describe('the register table', () => {
  it('has the registers of the architecture and no others, in order of offset', () => {
    expect(REGISTERS.map(({ name, offset, width }) => [name, offset, width])).toEqual(
      ARCHITECTURE.map(([name, offset, width]) => [name, offset, width]),
    );
    expect(REGISTERS.map(({ offset }) => offset)).toEqual(
      REGISTERS.map(({ offset }) => offset).sort((a, b) => a - b),
    );
    expect(Object.keys(OFFSET).sort()).toEqual(ARCHITECTURE.map(([name]) => name).sort());
  });

  it.each(ARCHITECTURE)('%s has its fields', (name, _offset, width, fields) => {
    const spec = REGISTERS.find((register) => register.name === name)!;
    expect(sorted(Object.entries(spec.fields).map(([field, at]) => `${text(at)} ${field}`))).toEqual(
      sorted(fields.split(', ')),
    );
    for (const field of Object.values(spec.fields)) expect(field.hi).toBeLessThan(width);
  });

  it('has no overlapping fields', () => {
    for (const { name, fields } of REGISTERS) {
      const owner: string[] = [];
      for (const [fieldName, field] of Object.entries(fields))
        for (let bit = field.lo; bit <= field.hi; bit++) {
          expect(owner[bit], `${name}[${bit}]`).toBeUndefined();
          owner[bit] = fieldName;
        }
    }
  });

  it('names only its own fields in gates and rules', () => {
    for (const { fields, fieldNeeds, fieldWrite } of REGISTERS)
      for (const name of Object.keys({ ...fieldNeeds, ...fieldWrite })) expect(fields).toHaveProperty(name);
  });

  it('agrees with the masks of the Linux driver', () => {
    for (const [field, hi, lo] of DRIVER) expect([field.hi, field.lo]).toEqual([hi, lo]);
  });

  it('keeps fields of one word as fields and addresses as spans', () => {
    expect(registers.CMDQ_BASE.LOG2SIZE).toBeInstanceOf(Field);
    expect([registers.CMDQ_BASE.ADDR.hiMask, registers.CMDQ_BASE.ADDR.loMask]).toEqual([
      0x00ff_ffff, 0xffff_ffe0,
    ]);
    expect([registers.IRQ_CFG0.ADDR.hiMask, registers.IRQ_CFG0.ADDR.loMask]).toEqual([
      0x00ff_ffff, 0xffff_fffc,
    ]);
  });
});
