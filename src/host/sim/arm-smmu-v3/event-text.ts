/** Event records in the words of Linux's log. */

import { hex32, hex64 } from '../../../bits/u64.ts';
import { EVENT_RECORD, EVENT_TYPE, EVENT_WORDS, EVENTS } from '../../../spec/events.ts';

/** The events that Linux knows by name. */
const NAMED = new Set<string>([
  'C_BAD_STREAMID',
  'F_STE_FETCH',
  'C_BAD_STE',
  'F_STREAM_DISABLED',
  'C_BAD_SUBSTREAMID',
  'F_CD_FETCH',
  'C_BAD_CD',
  'F_TRANSLATION',
  'F_ADDR_SIZE',
  'F_ACCESS',
  'F_PERMISSION',
  'F_VMS_FETCH',
]);
const NAMES = new Map(EVENTS.filter(({ name }) => NAMED.has(name)).map(({ type, name }) => [type, name]));

const CLASS_TEXT = [
  'CD fetch',
  'Stage 1 translation table fetch',
  'Input address caused fault',
  'Reserved',
] as const;
const CLASS_TT = 1;

/**
 * The lines that Linux prints for an event that nobody handled, without the device's prefix.
 * @param client name of the device that the StreamID belongs to, if any.
 */
export function eventLines(record: Uint32Array, client: string | undefined): string[] {
  const type = EVENT_RECORD.EventID.get(record);
  const lines = [`event ${hex32(type, 2)} received:`];
  for (let i = 0; i < EVENT_WORDS; i += 2) lines.push(`\t${hex64(record[i + 1], record[i], 16)}`);
  const sid = hex32(EVENT_RECORD.StreamID.get(record));
  const ssid = hex32(EVENT_RECORD.SSV.get(record) === 1 ? EVENT_RECORD.SubstreamID.get(record) : 0);
  const who = `event: ${NAMES.get(type) ?? 'UNKNOWN'} client: ${client ?? '(unassigned sid)'} sid: ${sid} ssid: ${ssid}`;
  switch (type) {
    case EVENT_TYPE.F_TRANSLATION:
    case EVENT_TYPE.F_ADDR_SIZE:
    case EVENT_TYPE.F_ACCESS:
    case EVENT_TYPE.F_PERMISSION: {
      const iova = hex64(EVENT_RECORD.InputAddr.getHi(record), EVENT_RECORD.InputAddr.getLo(record));
      const ipa = hex64(EVENT_RECORD.IPA.getHi(record), EVENT_RECORD.IPA.getLo(record));
      lines.push(`${who} iova: ${iova} ipa: ${ipa}`, accessLine(record));
      break;
    }
    case EVENT_TYPE.F_STE_FETCH:
    case EVENT_TYPE.F_CD_FETCH:
    case EVENT_TYPE.F_VMS_FETCH: {
      const address = hex64(EVENT_RECORD.FetchAddr.getHi(record), EVENT_RECORD.FetchAddr.getLo(record));
      lines.push(`${who} fetch_addr: ${address}`);
      break;
    }
    default:
      lines.push(who);
  }
  return lines;
}

function accessLine(record: Uint32Array): string {
  const eventClass = EVENT_RECORD.CLASS.get(record);
  const walk =
    eventClass === CLASS_TT ? (EVENT_RECORD.TTRnW.get(record) === 1 ? ' ttd_read' : ' ttd_write') : '';
  return (
    `${EVENT_RECORD.PnU.get(record) === 1 ? 'priv' : 'unpriv'} ` +
    `${EVENT_RECORD.InD.get(record) === 1 ? 'inst' : 'data'} ` +
    `${EVENT_RECORD.RnW.get(record) === 1 ? 'read' : 'write'} ` +
    `${EVENT_RECORD.S2.get(record) === 1 ? 's2' : 's1'} "${CLASS_TEXT[eventClass]}"${walk}` +
    `${EVENT_RECORD.Stall.get(record) === 1 ? ' stall' : ''} stag: ${hex32(EVENT_RECORD.STAG.get(record))}`
  );
}
