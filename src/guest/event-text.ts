/** The lines that Linux 7.3 prints about an event, and about a page request. */

import { hex32, hex64 } from '../bits/u64.ts';
import { EVENT_TYPE } from '../spec/events.ts';
import type { GuestEvent } from './event.ts';

/** Events that the kernel has a name for; it calls all others UNKNOWN. */
const NAMED: ReadonlySet<number> = new Set([
  EVENT_TYPE.C_BAD_STREAMID,
  EVENT_TYPE.F_STE_FETCH,
  EVENT_TYPE.C_BAD_STE,
  EVENT_TYPE.F_STREAM_DISABLED,
  EVENT_TYPE.C_BAD_SUBSTREAMID,
  EVENT_TYPE.F_CD_FETCH,
  EVENT_TYPE.C_BAD_CD,
  EVENT_TYPE.F_TRANSLATION,
  EVENT_TYPE.F_ADDR_SIZE,
  EVENT_TYPE.F_ACCESS,
  EVENT_TYPE.F_PERMISSION,
  EVENT_TYPE.F_VMS_FETCH,
]);
const FAULTS: ReadonlySet<number> = new Set([
  EVENT_TYPE.F_TRANSLATION,
  EVENT_TYPE.F_ADDR_SIZE,
  EVENT_TYPE.F_ACCESS,
  EVENT_TYPE.F_PERMISSION,
]);
const FETCHES: ReadonlySet<number> = new Set([
  EVENT_TYPE.F_STE_FETCH,
  EVENT_TYPE.F_CD_FETCH,
  EVENT_TYPE.F_VMS_FETCH,
]);
const CLASSES = ['CD fetch', 'Stage 1 translation table fetch', 'Input address caused fault', 'Reserved'];

const hex = (value: bigint): string => `0x${value.toString(16)}`;

/** Without the prefix that names the SMMU. */
export function eventLines(event: GuestEvent): string[] {
  const { words } = event;
  const lines = [`event ${hex32(event.type, 2)} received:`];
  for (let i = 0; i < words.length; i += 2) lines.push(`\t${hex64(words[i + 1], words[i], 16)}`);
  const name = NAMED.has(event.type) ? event.name : 'UNKNOWN';
  const who =
    `event: ${name} client: ${event.client ?? '(unassigned sid)'}` +
    ` sid: ${hex32(event.sid)} ssid: ${hex32(event.ssid)}`;
  if (FAULTS.has(event.type)) {
    lines.push(`${who} iova: ${hex(event.iova)} ipa: ${hex(event.ipa)}`);
    const walk = event.tableRead === undefined ? '' : event.tableRead ? ' ttd_read' : ' ttd_write';
    lines.push(
      `${event.privileged ? 'priv' : 'unpriv'} ${event.instruction ? 'inst' : 'data'}` +
        ` ${event.read ? 'read' : 'write'} s${event.stage} "${CLASSES[event.class]}"${walk}` +
        `${event.stall ? ' stall' : ''} stag: ${hex32(event.stag)}`,
    );
  } else if (FETCHES.has(event.type)) lines.push(`${who} fetch_addr: ${hex(event.fetchAddr)}`);
  else lines.push(who);
  return lines;
}
