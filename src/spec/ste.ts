import { address, bits } from '../bits/field.ts';

/** Bytes and 32-bit words of a Stream Table Entry. */
export const STE_SIZE = 64;
export const STE_WORDS = 16;

/** Stream Table Entry (IHI 0070 5.2). Bits are counted through the 64 bytes. */
export const STE = {
  V: bits(0),
  Config: bits(3, 1),
  S1Fmt: bits(5, 4),
  S1ContextPtr: address(55, 6),
  S1CDMax: bits(63, 59),
  S1DSS: bits(65, 64),
  S1CIR: bits(67, 66),
  S1COR: bits(69, 68),
  S1CSH: bits(71, 70),
  S2HWU59: bits(72),
  S2HWU60: bits(73),
  S2HWU61: bits(74),
  S2HWU62: bits(75),
  DRE: bits(76),
  CONT: bits(80, 77),
  DCP: bits(81),
  PPAR: bits(82),
  MEV: bits(83),
  SW_RESERVED: bits(87, 84),
  S1PIE: bits(88),
  S2FWB: bits(89),
  S1MPAM: bits(90),
  S1STALLD: bits(91),
  EATS: bits(93, 92),
  STRW: bits(95, 94),
  MemAttr: bits(99, 96),
  MTCFG: bits(100),
  ALLOCCFG: bits(104, 101),
  SHCFG: bits(109, 108),
  NSCFG: bits(111, 110),
  PRIVCFG: bits(113, 112),
  INSTCFG: bits(115, 114),
  S2VMID: bits(143, 128),
  S2T0SZ: bits(165, 160),
  S2SL0: bits(167, 166),
  S2IR0: bits(169, 168),
  S2OR0: bits(171, 170),
  S2SH0: bits(173, 172),
  S2TG: bits(175, 174),
  S2PS: bits(178, 176),
  S2AA64: bits(179),
  S2ENDI: bits(180),
  S2AFFD: bits(181),
  S2PTW: bits(182),
  S2HD: bits(183),
  S2HA: bits(184),
  S2S: bits(185),
  S2R: bits(186),
  S2HAFT: bits(187),
  S2PIE: bits(188),
  S2POE: bits(189),
  DPT_VMATCH: bits(191, 190),
  S2SL0_2: bits(194),
  S2DS: bits(195),
  S2TTB: address(247, 196),
  PARTID: bits(287, 272),
  PMG: bits(327, 320),
  VMSPtr: address(375, 332),
} as const;

/** STE.Config: bit 2 enables traffic, bit 0 stage 1, bit 1 stage 2. 0b001 to 0b011 behave as Abort. */
export const STE_CONFIG = { Abort: 0b000, Bypass: 0b100, S1: 0b101, S2: 0b110, Nested: 0b111 } as const;

/** STE.S1Fmt: shape of the table of CDs. 0b11 behaves as Linear. */
export const STE_S1FMT = { Linear: 0b00, Leaf4K: 0b01, Leaf64K: 0b10 } as const;

/** STE.S1DSS: what a transaction without SubstreamID does in a stream with substreams. 0b11 behaves as Terminate. */
export const STE_S1DSS = { Terminate: 0b00, Bypass: 0b01, Ssid0: 0b10 } as const;

/** STE.EATS: what ATS may do. 0b11 behaves as Disabled without IDR3.DPT. */
export const STE_EATS = { Disabled: 0b00, Full: 0b01, SplitStage: 0b10, Dpt: 0b11 } as const;

/** STE.STRW in the Non-secure table, with IDR0.Hyp=1. */
export const STE_STRW = { NsEl1: 0b00, El2: 0b10 } as const;

/** STE.SHCFG and GBPA.SHCFG. */
export const STE_SHCFG = { NonShareable: 0b00, Incoming: 0b01, Outer: 0b10, Inner: 0b11 } as const;

/** STE.PRIVCFG and GBPA.PRIVCFG. 0b01 behaves as Incoming. */
export const STE_PRIVCFG = { Incoming: 0b00, Unprivileged: 0b10, Privileged: 0b11 } as const;

/** STE.INSTCFG and GBPA.INSTCFG; reads only. 0b01 behaves as Incoming. */
export const STE_INSTCFG = { Incoming: 0b00, Data: 0b10, Instruction: 0b11 } as const;

/** STE.S2TG and CD.TG0: granule. 0b11 is reserved. */
export const STE_S2TG = { Granule4K: 0b00, Granule64K: 0b01, Granule16K: 0b10 } as const;
