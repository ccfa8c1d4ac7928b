import { address, bits } from '../bits/field.ts';

/** Bytes of a VMSAv8-64 translation table descriptor. */
export const DESCRIPTOR_SIZE = 8;

/** The two lowest bits of a descriptor. At the last level only Page is valid; above it Block needs a level that has blocks. */
export const DESCRIPTOR_TYPE = { Block: 0b01, Table: 0b11, Page: 0b11 } as const;

/** What every VMSAv8-64 descriptor has in common. The address field is widest: it depends on granule and level. */
export const DESCRIPTOR = {
  Valid: bits(0),
  /** With Valid: 1 is a table, or a page at the last level; 0 is a block. */
  Table: bits(1),
  Address: address(47, 12),
} as const;

/** Fields of a stage 1 table descriptor. */
export const S1_TABLE = {
  AF: bits(10),
  PXNTable: bits(59),
  UXNTable: bits(60),
  APTable: bits(62, 61),
  NSTable: bits(63),
} as const;

/** Fields of a stage 1 block or page descriptor. */
export const S1_LEAF = {
  AttrIndx: bits(4, 2),
  NS: bits(5),
  AP: bits(7, 6),
  SH: bits(9, 8),
  AF: bits(10),
  nG: bits(11),
  nT: bits(16),
  DBM: bits(51),
  Contiguous: bits(52),
  PXN: bits(53),
  UXN: bits(54),
} as const;

/** Fields of a stage 2 block or page descriptor. */
export const S2_LEAF = {
  MemAttr: bits(5, 2),
  S2AP: bits(7, 6),
  SH: bits(9, 8),
  AF: bits(10),
  nT: bits(16),
  DBM: bits(51),
  Contiguous: bits(52),
  XN: bits(54, 53),
} as const;

/** Stage 1 AP[2:1]. Bit 0 lets unprivileged accesses in, bit 1 keeps writes out. */
export const S1_AP = { PrivilegedRw: 0b00, Rw: 0b01, PrivilegedRo: 0b10, Ro: 0b11 } as const;

/** Stage 1 APTable: the same two restrictions for all that lies below a table. */
export const S1_APTABLE = {
  None: 0b00,
  NoUnprivileged: 0b01,
  NoWrite: 0b10,
  NoWriteNoUnprivileged: 0b11,
} as const;

/** Stage 2 S2AP: bit 0 allows reads, bit 1 writes. */
export const S2_AP = { None: 0b00, Read: 0b01, Write: 0b10, ReadWrite: 0b11 } as const;

/** Stage 2 XN[1:0]. Without IDR3.XNX only bit 1 counts. */
export const S2_XN = { Execute: 0b00, UnprivilegedOnly: 0b01, Never: 0b10, PrivilegedOnly: 0b11 } as const;

/** Stage 2 MemAttr[3:2]=0: some kind of Device memory (with IDR3.FWB and S2FWB=1: MemAttr[2]=0 instead of a Normal type). */
export const S2_MEMATTR_DEVICE = 0b0000;

/** What the granule of a translation table fixes. Each level resolves `stride` bits; level 3 is the last. */
export interface Granule {
  /** log2 of the page size in bytes. */
  readonly log2Size: 12 | 14 | 16;
  /** Input address bits that one whole table resolves. */
  readonly stride: 9 | 11 | 13;
  /** First level whose descriptors may be blocks, without 52-bit addresses. */
  readonly firstBlockLevel: 1 | 2;
}

export const GRANULE_4K: Granule = { log2Size: 12, stride: 9, firstBlockLevel: 1 };
export const GRANULE_16K: Granule = { log2Size: 14, stride: 11, firstBlockLevel: 2 };
export const GRANULE_64K: Granule = { log2Size: 16, stride: 13, firstBlockLevel: 2 };

/** Last level of every VMSAv8-64 walk. */
export const LAST_LEVEL = 3;

/**
 * log2 of the bytes that one descriptor of a level covers.
 * @param level 0..3
 */
export const log2BytesAt = (granule: Granule, level: number): number =>
  granule.log2Size + (LAST_LEVEL - level) * granule.stride;
