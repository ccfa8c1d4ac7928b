/** PRI queue entries (IHI 0070 chapter 8) in sentences. */

import { hex32, hex64 } from '../bits/u64.ts';
import { PRI_ENTRY, PRI_ENTRY_WORDS } from '../spec/queues.ts';
import { decode } from './decode.ts';
import { type DeviceKnowledge, deviceGuess, deviceName } from './device.ts';
import { type Explanation, list, sentence } from './explanation.ts';

/**
 * Explains a page request.
 * @param words the four 32-bit words of the PRI queue entry
 */
export function explainPageRequest(words: Uint32Array, knowledge: DeviceKnowledge = {}): Explanation {
  const entry = new Uint32Array(PRI_ENTRY_WORDS);
  entry.set(words.subarray(0, PRI_ENTRY_WORDS));
  const flag = (name: 'R' | 'W' | 'X' | 'Priv' | 'Last' | 'SSV'): boolean => PRI_ENTRY[name].get(entry) === 1;
  const sid = PRI_ENTRY.StreamID.get(entry);
  const ssid = flag('SSV') ? PRI_ENTRY.SubstreamID.get(entry) : undefined;
  const wants = [
    ...(flag('R') ? ['read'] : []),
    ...(flag('W') ? ['write'] : []),
    ...(flag('X') ? ['execute'] : []),
  ];
  const device = deviceName(sid, ssid, knowledge);
  const guess = deviceGuess(sid, knowledge);
  const address = hex64(PRI_ENTRY.Addr.getHi(entry), PRI_ENTRY.Addr.getLo(entry));
  const group = PRI_ENTRY.PRGIndex.get(entry);
  const stop = flag('Last') && flag('SSV') && wants.length === 0;
  return {
    kind: 'page-request',
    severity: 'warning',
    name: stop ? 'Stop Marker' : 'Page Request',
    summary: sentence(
      stop
        ? `${device} says that it sends no more page requests for this SubstreamID.`
        : `${device} asks for ${wants.length === 0 ? 'no access' : `${flag('Priv') ? 'privileged ' : ''}${list(wants)} access`} to the page at IOVA ${address}.`,
    ),
    details: [
      `Page request group ${hex32(group)}${flag('Last') ? ', of which this is the last request: it wants an answer' : '; more requests of the group follow'}.`,
      ...(guess === undefined ? [] : [guess]),
    ],
    checks: [
      'Linux answers requests that no page fault handler takes with a failure: is SVA or a fault handler set up?',
    ],
    fields: decode(PRI_ENTRY, entry),
    clause: '8.2',
  };
}
