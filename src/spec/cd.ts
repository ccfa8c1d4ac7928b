import { address, bits } from '../bits/field.ts';

/** Bytes and 32-bit words of a Context Descriptor. */
export const CD_SIZE = 64;
export const CD_WORDS = 16;

/** Context Descriptor (IHI 0070 5.4). Bits are counted through the 64 bytes. */
export const CD = {
  T0SZ: bits(5, 0),
  TG0: bits(7, 6),
  IR0: bits(9, 8),
  OR0: bits(11, 10),
  SH0: bits(13, 12),
  EPD0: bits(14),
  ENDI: bits(15),
  T1SZ: bits(21, 16),
  TG1: bits(23, 22),
  IR1: bits(25, 24),
  OR1: bits(27, 26),
  SH1: bits(29, 28),
  EPD1: bits(30),
  V: bits(31),
  IPS: bits(34, 32),
  AFFD: bits(35),
  WXN: bits(36),
  UWXN: bits(37),
  TBI0: bits(38),
  TBI1: bits(39),
  PAN: bits(40),
  AA64: bits(41),
  HD: bits(42),
  HA: bits(43),
  S: bits(44),
  R: bits(45),
  A: bits(46),
  ASET: bits(47),
  ASID: bits(63, 48),
  NSCFG0: bits(64),
  HAD0: bits(65),
  E0PD0: bits(66),
  HAFT: bits(67),
  TTB0: address(119, 68),
  PnCH: bits(122),
  EPAN: bits(123),
  HWU059: bits(124),
  HWU060: bits(125),
  HWU061: bits(126),
  HWU062: bits(127),
  NSCFG1: bits(128),
  HAD1: bits(129),
  E0PD1: bits(130),
  AIE: bits(131),
  TTB1: address(183, 132),
  DS: bits(186),
  PIE: bits(187),
  HWU159: bits(188),
  HWU160: bits(189),
  HWU161: bits(190),
  HWU162: bits(191),
  MAIR0: bits(223, 192),
  MAIR1: bits(255, 224),
  AMAIR0: bits(287, 256),
  AMAIR1: bits(319, 288),
  PARTID: bits(367, 352),
  PMG: bits(375, 368),
} as const;

/** CD.TG0: granule of the lower half. 0b11 is reserved. */
export const CD_TG0 = { Granule4K: 0b00, Granule64K: 0b01, Granule16K: 0b10 } as const;

/** CD.TG1: granule of the upper half, in another encoding. 0b00 is reserved. */
export const CD_TG1 = { Granule16K: 0b01, Granule4K: 0b10, Granule64K: 0b11 } as const;

/** Cacheability of table walks and CD fetches: CD.IRx, CD.ORx, STE.S1CIR, STE.S1COR, STE.S2IR0, STE.S2OR0. */
export const CACHEABILITY = {
  NonCacheable: 0b00,
  WriteBackWriteAllocate: 0b01,
  WriteThrough: 0b10,
  WriteBack: 0b11,
} as const;

/** Shareability of table walks and CD fetches: CD.SHx, STE.S1CSH, STE.S2SH0. 0b01 behaves as Non. */
export const SHAREABILITY = { Non: 0b00, Outer: 0b10, Inner: 0b11 } as const;
