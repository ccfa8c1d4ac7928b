/** Event records as the driver reads them. */

import { join } from '../bits/u64.ts';
import { EVENT_CLASS, EVENT_RECORD, EVENT_WORDS, EVENTS } from '../spec/events.ts';

export interface GuestEvent {
  /** Event number, and its name or `UNKNOWN`. */
  readonly type: number;
  readonly name: string;
  readonly sid: number;
  /** 0 if the record has none. */
  readonly ssid: number;
  readonly ssv: boolean;
  readonly stall: boolean;
  readonly stag: number;
  readonly privileged: boolean;
  readonly instruction: boolean;
  readonly read: boolean;
  /** 2 if the fault is stage 2's. */
  readonly stage: 1 | 2;
  /** One of EVENT_CLASS. */
  readonly class: number;
  /** The access was the table walk's own, and this is its direction. */
  readonly tableRead: boolean | undefined;
  readonly iova: bigint;
  readonly ipa: bigint;
  readonly fetchAddr: bigint;
  /** Name of the device with this StreamID, if the driver knows one. */
  readonly client: string | undefined;
  /** The record itself, eight 32-bit words. */
  readonly words: Uint32Array;
}

const NAMES = new Map<number, string>(EVENTS.map(({ type, name }) => [type, name]));

/** Reads a record. Fields that its type does not have are what the record holds there. */
export function decodeEvent(record: Uint32Array, clientOf: (sid: number) => string | undefined): GuestEvent {
  const words = record.slice(0, EVENT_WORDS);
  const type = EVENT_RECORD.EventID.get(words);
  const sid = EVENT_RECORD.StreamID.get(words);
  const ssv = EVENT_RECORD.SSV.get(words) === 1;
  const { InputAddr, IPA, FetchAddr } = EVENT_RECORD;
  const eventClass = EVENT_RECORD.CLASS.get(words);
  return {
    type,
    name: NAMES.get(type) ?? 'UNKNOWN',
    sid,
    ssid: ssv ? EVENT_RECORD.SubstreamID.get(words) : 0,
    ssv,
    stall: EVENT_RECORD.Stall.get(words) === 1,
    stag: EVENT_RECORD.STAG.get(words),
    privileged: EVENT_RECORD.PnU.get(words) === 1,
    instruction: EVENT_RECORD.InD.get(words) === 1,
    read: EVENT_RECORD.RnW.get(words) === 1,
    stage: EVENT_RECORD.S2.get(words) === 1 ? 2 : 1,
    class: eventClass,
    tableRead: eventClass === EVENT_CLASS.TT ? EVENT_RECORD.TTRnW.get(words) === 1 : undefined,
    iova: join(InputAddr.getHi(words), InputAddr.getLo(words)),
    ipa: join(IPA.getHi(words), IPA.getLo(words)),
    fetchAddr: join(FetchAddr.getHi(words), FetchAddr.getLo(words)),
    client: clientOf(sid),
    words,
  };
}
