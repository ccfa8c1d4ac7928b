/** PRI queue entries, which the driver refuses, as Linux does without shared virtual addressing. */

import { hex32, hex64, join } from '../bits/u64.ts';
import { PRI_RESP } from '../spec/commands.ts';
import { PRI_ENTRY } from '../spec/queues.ts';
import { type Command, priResp } from './commands.ts';
import type { KernelLog } from './kernel-log.ts';

/** A page request as the driver reads it. */
export interface GuestPageRequest {
  readonly sid: number;
  readonly ssv: boolean;
  /** 0 if there is none. */
  readonly ssid: number;
  /** Page Request Group Index. */
  readonly group: number;
  /** The last of its group, which the answer is for. */
  readonly last: boolean;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
  readonly iova: bigint;
}

export function decodePageRequest(entry: Uint32Array): GuestPageRequest {
  const flag = (field: { get(words: Uint32Array): number }): boolean => field.get(entry) === 1;
  const ssv = flag(PRI_ENTRY.SSV);
  return {
    sid: PRI_ENTRY.StreamID.get(entry),
    ssv,
    ssid: ssv ? PRI_ENTRY.SubstreamID.get(entry) : 0,
    group: PRI_ENTRY.PRGIndex.get(entry),
    last: flag(PRI_ENTRY.Last),
    read: flag(PRI_ENTRY.R),
    write: flag(PRI_ENTRY.W),
    execute: flag(PRI_ENTRY.X),
    privileged: flag(PRI_ENTRY.Priv),
    iova: join(PRI_ENTRY.Addr.getHi(entry), PRI_ENTRY.Addr.getLo(entry)),
  };
}

/** The answer to a group. */
export const answerPages = (request: GuestPageRequest, answer: 'success' | 'invalid'): Command =>
  priResp(
    request.sid,
    request.ssid,
    request.ssv,
    request.group,
    answer === 'success' ? PRI_RESP.Success : PRI_RESP.InvalidRequest,
  );

/** Notes a request. @returns the refusal, if it is the last of its group and so gets one. */
export function refusePageRequest(entry: Uint32Array, log: KernelLog): Command | undefined {
  const sid = PRI_ENTRY.StreamID.get(entry);
  const ssv = PRI_ENTRY.SSV.get(entry) === 1;
  const ssid = ssv ? PRI_ENTRY.SubstreamID.get(entry) : 0;
  const group = PRI_ENTRY.PRGIndex.get(entry);
  const last = PRI_ENTRY.Last.get(entry) === 1;
  const address = hex64(PRI_ENTRY.Addr.getHi(entry), PRI_ENTRY.Addr.getLo(entry), 16);
  log.warn('unexpected PRI request received:');
  log.warn(
    `\tsid ${hex32(sid, 8)}.${hex32(ssid, 5)}: [${group}${last ? 'L' : ''}]` +
      ` ${PRI_ENTRY.Priv.get(entry) ? '' : 'un'}privileged` +
      ` ${PRI_ENTRY.R.get(entry) ? 'R' : ''}${PRI_ENTRY.W.get(entry) ? 'W' : ''}` +
      `${PRI_ENTRY.X.get(entry) ? 'X' : ''} access at iova ${address}`,
  );
  return last ? priResp(sid, ssid, ssv, group, PRI_RESP.ResponseFailure) : undefined;
}
