/** The registers of an NVM Express 1.4 controller as data: BAR0 offsets and fields (NVMe 1.4, 3.1). */

import { bits } from '../../../../bits/field.ts';

/** Bytes of BAR0: registers in the first page, doorbells from the second on. */
export const BAR_SIZE = 0x4000;
export const DOORBELLS = 0x1000;

export const REGISTER = {
  CAP: 0x00,
  VS: 0x08,
  INTMS: 0x0c,
  INTMC: 0x10,
  CC: 0x14,
  CSTS: 0x1c,
  AQA: 0x24,
  ASQ: 0x28,
  ACQ: 0x30,
} as const;

/** 3.1.1; bits are counted through the 64-bit register. */
export const CAP = {
  /** Most entries of an I/O queue, less one. */
  MQES: bits(15, 0),
  /** Queues must be contiguous in memory. */
  CQR: bits(16),
  AMS: bits(18, 17),
  /** Longest time from CC.EN to CSTS.RDY in units of 500 ms. */
  TO: bits(31, 24),
  DSTRD: bits(35, 32),
  NSSRS: bits(36),
  /** Bit 0: the NVM command set. */
  CSS: bits(44, 37),
  /** log2 of the smallest and largest memory page, less 12. */
  MPSMIN: bits(51, 48),
  MPSMAX: bits(55, 52),
} as const;

/** 3.1.5 */
export const CC = {
  EN: bits(0),
  CSS: bits(6, 4),
  MPS: bits(10, 7),
  AMS: bits(13, 11),
  SHN: bits(15, 14),
  IOSQES: bits(19, 16),
  IOCQES: bits(23, 20),
} as const;

/** 3.1.6 */
export const CSTS = { RDY: bits(0), CFS: bits(1), SHST: bits(3, 2) } as const;

/** CSTS.SHST after a shutdown. */
export const SHUTDOWN_COMPLETE = 2;

/** 3.1.8: entries of the admin queues, less one. */
export const AQA = { ASQS: bits(11, 0), ACQS: bits(27, 16) } as const;

/** VS: 1.4.0. */
export const VERSION = 0x0001_0400;

/** Most entries of an I/O queue. */
export const MAX_QUEUE_ENTRIES = 1024;

/** log2 of the largest memory page that CC.MPS may choose: 64 KiB. */
export const MAX_PAGE_SHIFT = 16;
export const MIN_PAGE_SHIFT = 12;

/** log2 of the bytes of a submission and a completion queue entry. */
export const SQE_SHIFT = 6;
export const CQE_SHIFT = 4;
