/** Commands and completions of NVM Express 1.4 as data (4.2, 4.6, chapters 5 and 6). */

import { bits } from '../../../../bits/field.ts';

/** 32-bit words of a submission queue entry. */
export const SQE_WORDS = 16;

/** 4.2: what every command has. */
export const SQE = {
  OPC: bits(7, 0),
  FUSE: bits(9, 8),
  PSDT: bits(15, 14),
  CID: bits(31, 16),
} as const;

/** Indices of 32-bit words of a submission queue entry. */
export const WORD = {
  NSID: 1,
  PRP1: 6,
  PRP2: 8,
  CDW10: 10,
  CDW11: 11,
  CDW12: 12,
  CDW13: 13,
} as const;

export const ADMIN = {
  DeleteIoSq: 0x00,
  CreateIoSq: 0x01,
  GetLogPage: 0x02,
  DeleteIoCq: 0x04,
  CreateIoCq: 0x05,
  Identify: 0x06,
  Abort: 0x08,
  SetFeatures: 0x09,
  GetFeatures: 0x0a,
  AsyncEventRequest: 0x0c,
} as const;

export const IO = {
  Flush: 0x00,
  Write: 0x01,
  Read: 0x02,
  WriteZeroes: 0x08,
  DatasetManagement: 0x09,
} as const;

/** Do Not Retry: the command would fail again. */
const DNR = 0x4000;
const generic = (code: number): number => code;
const specific = (code: number): number => 0x100 | code;

/** Status field of a completion without its phase tag (4.6.1): SC [7:0], SCT [10:8], DNR [14]. */
export const STATUS = {
  Success: 0,
  InvalidOpcode: DNR | generic(0x01),
  InvalidField: DNR | generic(0x02),
  /** Memory refused a transfer. May be tried again: the page tables of the next attempt can be others. */
  DataTransferError: generic(0x04),
  AbortRequested: generic(0x07),
  InvalidNamespace: DNR | generic(0x0b),
  CommandSequenceError: DNR | generic(0x0c),
  InvalidPrpOffset: DNR | generic(0x13),
  LbaOutOfRange: DNR | generic(0x80),
  CompletionQueueInvalid: DNR | specific(0x00),
  InvalidQueueIdentifier: DNR | specific(0x01),
  InvalidQueueSize: DNR | specific(0x02),
  AsyncEventLimitExceeded: DNR | specific(0x05),
  InvalidInterruptVector: DNR | specific(0x08),
  InvalidLogPage: DNR | specific(0x09),
  InvalidQueueDeletion: DNR | specific(0x0c),
  FeatureNotSaveable: DNR | specific(0x0d),
} as const;

/** Not a status: the command stays outstanding and is completed later. */
export const HELD = -1;
