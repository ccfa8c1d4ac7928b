/** What a reconcile did, for people: the calls that it made, and one sentence on the vEVENTQ. */

import type { Call, CallValue } from '../iommufd/call.ts';
import { errnoName } from '../iommufd/uapi/errno.ts';
import type { HostError } from '../iommufd/errors.ts';
import type { Actual, Concern } from './actual.ts';
import type { DesiredQueue, GuestState } from './desired.ts';

/** What became of the vEVENTQ. */
export type QueueChange = 'allocated' | 'reallocated' | 'closed' | 'kept' | 'absent' | 'refused';

export interface QueueReport {
  readonly change: QueueChange;
  /** Why, as a sentence. */
  readonly why: string;
}

export interface ReconcileReport {
  /** What set it off: 'plug nic0', 'EVENTQEN 0 -> 1'. */
  readonly cause: string;
  /** In the order in which they were made. */
  readonly operations: readonly Call[];
  /** The two conditions. */
  readonly eventqEnabled: boolean;
  /** Id of the vIOMMU. */
  readonly viommu: number | undefined;
  readonly veventq: { readonly id: number; readonly depth: number } | undefined;
  readonly queue: QueueReport;
  /** What the host refused; it is tried again at the next reconcile. */
  readonly failures: ReadonlyMap<Concern, HostError>;
}

/** The vEVENTQ at one moment. */
export interface QueueMoment {
  readonly id: number;
  readonly wanted: DesiredQueue;
}

export const queueMoment = (actual: Actual): QueueMoment | undefined =>
  actual.queue && { id: actual.queue.veventq.id, wanted: actual.queue.wanted };

/** Says what became of the vEVENTQ between two moments, and why. */
export function reportQueue(
  before: QueueMoment | undefined,
  actual: Actual,
  guest: GuestState,
  plugged: number,
): QueueReport {
  const after = queueMoment(actual);
  const failure = actual.failures.get('veventq');
  const conditions = missing(guest, actual, plugged);
  if (after === undefined) {
    if (conditions === undefined)
      return {
        change: 'refused',
        why: `Not allocated, although EVENTQEN=1 and a vIOMMU exists: ${failure?.message ?? 'the host refused.'}`,
      };
    if (before === undefined) return { change: 'absent', why: `Not allocated: ${conditions}.` };
    return { change: 'closed', why: `Closed: ${conditions}.` };
  }
  const { depth, log2Size } = after.wanted;
  const size = `depth ${depth} for the guest's queue of 2^${log2Size} records`;
  if (before === undefined)
    return { change: 'allocated', why: `Allocated: EVENTQEN=1 and a vIOMMU exists; ${size}.` };
  if (before.wanted === after.wanted)
    return { change: 'kept', why: 'Kept: EVENTQEN=1 and a vIOMMU exists, and the guest queue is the same.' };
  return { change: 'reallocated', why: `Allocated anew: the guest moved or resized its queue; ${size}.` };
}

/** Which condition is not met, if any. */
function missing(guest: GuestState, actual: Actual, plugged: number): string | undefined {
  if (plugged === 0)
    return guest.eventqEnabled
      ? 'EVENTQEN=1, but no device is plugged, so there is no vIOMMU'
      : 'EVENTQEN=0, and no device is plugged';
  if (!guest.eventqEnabled)
    return actual.viommu === undefined
      ? 'EVENTQEN=0, and there is no vIOMMU'
      : 'a vIOMMU exists, but EVENTQEN=0';
  if (actual.viommu !== undefined) return undefined;
  const failure = actual.failures.get('foundation');
  return `EVENTQEN=1, but there is no vIOMMU${failure === undefined ? '' : `, because ${failure.message.replace(/\.$/, '')}`}`;
}

/** The arguments of a call in one line: `dev_id=1 pt_id=3`. */
export const callArguments = (call: Call): string => values(call.given);

/** What came back: `out_viommu_id=4`, or the errno's name. */
export const callResult = (call: Call): string =>
  call.errno === 0 ? values(call.returned) || 'OK' : errnoName(call.errno);

function values(record: Readonly<Record<string, CallValue>>): string {
  return Object.entries(record)
    .map(
      ([name, value]) => `${name}=${typeof value === 'bigint' ? `0x${value.toString(16)}` : String(value)}`,
    )
    .join(' ');
}
