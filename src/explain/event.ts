/** Event records (IHI 0070 7.3) in sentences. */

import { join } from '../bits/u64.ts';
import {
  EVENT_RECORD,
  EVENT_WORDS,
  type EventField,
  EVENTS,
  eventLayout,
  type EventSpec,
} from '../spec/events.ts';
import { decode } from './decode.ts';
import { type DeviceKnowledge, deviceGuess, deviceName } from './device.ts';
import { CAUSES, type Facts, otherCause } from './event-causes.ts';
import { type Explanation, sentence } from './explanation.ts';

const BY_TYPE = new Map<number, EventSpec>(EVENTS.map((spec) => [spec.type, spec]));

/** What is known besides the record itself. */
export interface EventContext extends DeviceKnowledge {
  /** Bit n: word n of the record is known. Default: those that were given. */
  readonly known?: number;
}

/** The words that hold the access, InputAddr, and IPA or FetchAddr. */
const ACCESS = 1 << 3;
const INPUT = (1 << 4) | (1 << 5);
const SECOND = (1 << 6) | (1 << 7);

function factsOf(words: Uint32Array, known: number, context: EventContext): Facts {
  const has = (mask: number): boolean => (known & mask) === mask;
  const record = EVENT_RECORD;
  // 7.3.9: the SubstreamID of C_BAD_SUBSTREAMID is always valid.
  const type = record.EventID.get(words);
  const ssv = record.SSV.get(words) === 1 || type === 0x08;
  const sid = record.StreamID.get(words);
  const ssid = ssv ? record.SubstreamID.get(words) : undefined;
  const privilege = record.PnU.get(words) === 1 ? 'privileged' : 'unprivileged';
  const kind = record.InD.get(words) === 1 ? 'instruction' : 'data';
  const read = record.RnW.get(words) === 1;
  return {
    type,
    device: deviceName(sid, ssid, context),
    sid,
    ssid,
    access: has(ACCESS) ? `${privilege} ${kind} ${read ? 'read' : 'write'}` : 'transaction',
    read,
    instruction: record.InD.get(words) === 1,
    stage2: record.S2.get(words) === 1,
    class: record.CLASS.get(words),
    hardwareUpdate: record.TTRnW.get(words) === 0,
    stall: record.Stall.get(words) === 1,
    stag: record.STAG.get(words),
    reason: record.Reason.get(words),
    iova: has(INPUT) ? join(record.InputAddr.getHi(words), record.InputAddr.getLo(words)) : undefined,
    ipa: has(SECOND) ? join(record.IPA.getHi(words), record.IPA.getLo(words)) : undefined,
    fetchAddr: has(SECOND) ? join(record.FetchAddr.getHi(words), record.FetchAddr.getLo(words)) : undefined,
    requested: [
      ...(record.ReqR.get(words) === 1 ? ['read'] : []),
      ...(record.ReqW.get(words) === 1 ? ['write'] : []),
      ...(record.ReqX.get(words) === 1 ? ['execute'] : []),
    ],
  };
}

/** All words of a field are known. */
function isKnown(name: EventField, known: number): boolean {
  const { lo, hi } = EVENT_RECORD[name];
  for (let word = lo >>> 5; word <= hi >>> 5; word++) if ((known & (1 << word)) === 0) return false;
  return true;
}

/**
 * Explains an event record.
 * @param words the eight 32-bit words of the record; missing ones count as unknown
 */
export function explainEvent(words: Uint32Array, context: EventContext = {}): Explanation {
  const record = new Uint32Array(EVENT_WORDS);
  record.set(words.subarray(0, EVENT_WORDS));
  const known = context.known ?? 2 ** Math.min(words.length, EVENT_WORDS) - 1;
  const facts = factsOf(record, known, context);
  const spec = BY_TYPE.get(facts.type);
  const cause = spec === undefined ? otherCause(facts) : CAUSES[spec.name](facts);
  const guess = deviceGuess(facts.sid, context);
  const details = [...cause.details];
  if (spec?.fields.includes('Stall') === true && facts.stall)
    details.push(
      `The transaction waits (STAG 0x${facts.stag.toString(16)}) until software answers with CMD_RESUME or CMD_STALL_TERM.`,
    );
  if (guess !== undefined) details.push(guess);
  const fields =
    spec === undefined
      ? { EventID: EVENT_RECORD.EventID, StreamID: EVENT_RECORD.StreamID }
      : eventLayout(spec);
  return {
    kind: 'event',
    severity: spec?.name === 'E_PAGE_REQUEST' ? 'info' : 'error',
    name: spec?.name ?? 'UNKNOWN',
    summary: sentence(cause.summary),
    details,
    checks: cause.checks,
    fields: decode(fields, record).filter(({ name }) => isKnown(name as EventField, known)),
    ...(spec === undefined ? {} : { clause: spec.clause }),
  };
}
