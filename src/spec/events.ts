/**
 * Event records as data (IHI 0070 G.b, 7.3). A record is eight 32-bit words; bits are counted through all 256.
 */

import { address, bits, type Layout } from '../bits/field.ts';

/** Bytes and 32-bit words of one event record. */
export const EVENT_SIZE = 32;
export const EVENT_WORDS = 8;

/** Event numbers. */
export const EVENT_TYPE = {
  F_UUT: 0x01,
  C_BAD_STREAMID: 0x02,
  F_STE_FETCH: 0x03,
  C_BAD_STE: 0x04,
  F_BAD_ATS_TREQ: 0x05,
  F_STREAM_DISABLED: 0x06,
  F_TRANSL_FORBIDDEN: 0x07,
  C_BAD_SUBSTREAMID: 0x08,
  F_CD_FETCH: 0x09,
  C_BAD_CD: 0x0a,
  F_WALK_EABT: 0x0b,
  F_TRANSLATION: 0x10,
  F_ADDR_SIZE: 0x11,
  F_ACCESS: 0x12,
  F_PERMISSION: 0x13,
  F_TLB_CONFLICT: 0x20,
  F_CFG_CONFLICT: 0x21,
  E_PAGE_REQUEST: 0x24,
  F_VMS_FETCH: 0x25,
} as const;
export type EventName = keyof typeof EVENT_TYPE;

/** CLASS: what the SMMU was doing when it met the fault. */
export const EVENT_CLASS = { CD: 0, TT: 1, IN: 2 } as const;

/** All fields of event records. Which record has which is in {@link EVENTS}; positions never conflict but for Reason and STAG. */
export const EVENT_RECORD = {
  EventID: bits(7, 0),
  SSV: bits(11),
  SubstreamID: bits(31, 12),
  StreamID: bits(63, 32),
  /** F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION: names the stalled transaction. */
  STAG: bits(79, 64),
  /** IMPLEMENTATION DEFINED cause. */
  Reason: bits(79, 64),
  /** F_STE_FETCH, F_CD_FETCH, F_VMS_FETCH, F_WALK_EABT: a granule protection check failed (RME). */
  GPCF: bits(80),
  Stall: bits(95),
  /** 1 is privileged, instruction, read. */
  PnU: bits(97),
  InD: bits(98),
  RnW: bits(99),
  NSIPA: bits(102),
  /** The fault is of stage 2; IPA is then valid. */
  S2: bits(103),
  CLASS: bits(105, 104),
  /** F_PERMISSION with CLASS=TT: 1 for a descriptor read, 0 for a hardware update. */
  TTRnW: bits(108),
  /** F_BAD_ATS_TREQ: STUs and permissions that were asked for. */
  Span: bits(67, 64),
  ReqP: bits(92),
  ReqX: bits(93),
  ReqW: bits(94),
  ReqR: bits(95),
  /** All 64 bits; F_BAD_ATS_TREQ gives [63:12]. */
  InputAddr: address(191, 128),
  IPA: address(247, 204),
  FetchAddr: address(247, 195),
} as const;
export type EventField = keyof typeof EVENT_RECORD;

export interface EventSpec {
  readonly name: EventName;
  readonly type: number;
  /** The fields that this record defines, in order; all other bits are 0. */
  readonly fields: readonly EventField[];
  readonly clause: string;
}

const COMMON = ['EventID', 'SSV', 'SubstreamID', 'StreamID'] as const;
const ACCESS = ['PnU', 'InD', 'RnW'] as const;
const TRANSLATION = [
  ...COMMON,
  'STAG',
  'Stall',
  ...ACCESS,
  'NSIPA',
  'S2',
  'CLASS',
  'InputAddr',
  'IPA',
] as const;
const FETCH = [...COMMON, 'Reason', 'GPCF', 'FetchAddr'] as const;

const event = (name: EventName, fields: readonly EventField[], clause: string): EventSpec => ({
  name,
  type: EVENT_TYPE[name],
  fields,
  clause,
});

/** Every event of the architecture in order of its number; 0xe0..0xef are IMPLEMENTATION DEFINED, the rest Reserved. */
export const EVENTS: readonly EventSpec[] = [
  event('F_UUT', [...COMMON, 'Reason', ...ACCESS, 'InputAddr'], '7.3.2'),
  event('C_BAD_STREAMID', COMMON, '7.3.3'),
  event('F_STE_FETCH', FETCH, '7.3.4'),
  event('C_BAD_STE', COMMON, '7.3.5'),
  event('F_BAD_ATS_TREQ', [...COMMON, 'Span', 'ReqP', 'ReqX', 'ReqW', 'ReqR', 'InputAddr'], '7.3.6'),
  event('F_STREAM_DISABLED', COMMON, '7.3.7'),
  event('F_TRANSL_FORBIDDEN', [...COMMON, 'RnW', 'InputAddr'], '7.3.8'),
  // 7.3.9: the SubstreamID of this record is always valid, so it has no SSV.
  event('C_BAD_SUBSTREAMID', ['EventID', 'SubstreamID', 'StreamID'], '7.3.9'),
  event('F_CD_FETCH', FETCH, '7.3.10'),
  event('C_BAD_CD', COMMON, '7.3.11'),
  event(
    'F_WALK_EABT',
    [...COMMON, 'Reason', 'GPCF', ...ACCESS, 'NSIPA', 'S2', 'CLASS', 'InputAddr', 'FetchAddr'],
    '7.3.12',
  ),
  event('F_TRANSLATION', TRANSLATION, '7.3.13'),
  event('F_ADDR_SIZE', TRANSLATION, '7.3.14'),
  event('F_ACCESS', TRANSLATION, '7.3.15'),
  event('F_PERMISSION', [...TRANSLATION, 'TTRnW'], '7.3.16'),
  event('F_TLB_CONFLICT', [...COMMON, 'Reason', ...ACCESS, 'NSIPA', 'S2', 'InputAddr', 'IPA'], '7.3.17'),
  event('F_CFG_CONFLICT', [...COMMON, 'Reason'], '7.3.18'),
  event('E_PAGE_REQUEST', [...COMMON, 'InputAddr'], '7.3.19'),
  event('F_VMS_FETCH', FETCH, '7.3.20'),
];

/** Layout of the fields that one record defines, for decoders. */
export const eventLayout = (spec: EventSpec): Layout =>
  Object.fromEntries(spec.fields.map((name) => [name, EVENT_RECORD[name]]));
