/**
 * How a guest hears of DMA under an STE that it cannot have. The host would install a silent abort; instead the stream
 * gets a stage 1 whose context descriptor is all zeros, so that the hardware reports C_BAD_CD, and that record is given
 * the name of what the guest's own SMMU would have reported (docs/decisions/0002-tripwire.md).
 */

import { EVENT_RECORD, EVENT_TYPE } from '../spec/events.ts';
import { STE, STE_CONFIG } from '../spec/ste.ts';
import type { Target } from './desired.ts';

/** @param gpa of a zero page that the guest cannot write, 64-byte aligned, below 2^52. */
export function tripwire(gpa: number): Target {
  const lo = (STE.V.put(1) | STE.Config.put(STE_CONFIG.S1) | (gpa >>> 0)) >>> 0;
  const hi = Math.floor(gpa / 2 ** 32);
  return { kind: 'tripwire', ste: [lo, hi, 0, 0], key: `tripwire ${gpa.toString(16)}` };
}

/** The event that is due for any DMA of a stream. */
export interface DueEvent {
  /** C_BAD_STREAMID, F_STE_FETCH or C_BAD_STE. */
  readonly event: number;
  /** F_STE_FETCH: what could not be read. */
  readonly fetchHi: number;
  readonly fetchLo: number;
}

/** Whether a record can come from a tripwire: CD.V=0 is C_BAD_CD, and with a SubstreamID S1CDMax=0 is C_BAD_SUBSTREAMID. */
export function tripped(record: Uint32Array): boolean {
  const type = EVENT_RECORD.EventID.get(record);
  return type === EVENT_TYPE.C_BAD_CD || type === EVENT_TYPE.C_BAD_SUBSTREAMID;
}

/** Makes the record of a tripwire the one that is due: same StreamID and SubstreamID, and no field besides its own. */
export function rename(record: Uint32Array, due: DueEvent): void {
  // 7.3.9: the SubstreamID of C_BAD_SUBSTREAMID is always valid.
  const ssv =
    EVENT_RECORD.EventID.get(record) === EVENT_TYPE.C_BAD_SUBSTREAMID ? 1 : EVENT_RECORD.SSV.get(record);
  const ssid = EVENT_RECORD.SubstreamID.get(record);
  const sid = EVENT_RECORD.StreamID.get(record);
  record.fill(0);
  EVENT_RECORD.EventID.set(record, due.event);
  EVENT_RECORD.StreamID.set(record, sid);
  EVENT_RECORD.SSV.set(record, ssv);
  if (ssv === 1) EVENT_RECORD.SubstreamID.set(record, ssid);
  if (due.event === EVENT_TYPE.F_STE_FETCH) EVENT_RECORD.FetchAddr.set(record, due.fetchHi, due.fetchLo);
}
