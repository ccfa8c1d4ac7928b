/** The accelerator as it is now, for display: what exists on the host, and why. */

import type { HostError } from '../iommufd/errors.ts';
import type { Actual, Concern } from './actual.ts';
import type { Desired, Target } from './desired.ts';
import type { EventCounters } from './event-counters.ts';
import type { FaultQueueState } from './fault-bridges.ts';
import type { InvalidationCounters } from './invalidation.ts';
import type { QueueReport } from './report.ts';

export type Attached = 'translate' | 'bypass' | 'abort' | 'none';

export interface DeviceState {
  readonly name: string;
  /** StreamID and id of its vDEVICE, if it has one. */
  readonly vsid: number | undefined;
  readonly vdevice: number | undefined;
  /** What it is attached to; `none` is detached, all DMA blocked. */
  readonly attached: Attached;
  readonly hwpt: number | undefined;
  /** What it should be attached to, and why. */
  readonly wanted: Attached;
  readonly why: string;
  /** EventType that is due, besides the abort, if the device does DMA now: it has no valid STE. Else 0. */
  readonly event: number;
  /** Whether the guest hears of that event; else the abort is silent. */
  readonly reported: boolean;
  readonly failure: HostError | undefined;
}

export interface VeventqState {
  readonly id: number;
  readonly depth: number;
  /** Nothing is read: the guest has no room, and no other device suffers from it. */
  readonly paused: boolean;
  /** Records that were read, and that the guest has no room for. */
  readonly backlog: number;
}

export interface AcceleratorState {
  readonly eventqEnabled: boolean;
  readonly viommu: number | undefined;
  readonly veventq: VeventqState | undefined;
  /** What last became of the vEVENTQ, and why. */
  readonly queue: QueueReport;
  readonly devices: readonly DeviceState[];
  readonly failures: ReadonlyMap<Concern, HostError>;
  readonly events: Readonly<EventCounters>;
  readonly invalidations: Readonly<InvalidationCounters>;
  /** Faults that wait for an answer, by their kind. */
  readonly faults: readonly FaultQueueState[];
}

/** A tripwire aborts. */
const effect = ({ kind }: Target): Attached => (kind === 'tripwire' ? 'abort' : kind);

/** What the host objects do not tell. */
export interface Besides {
  readonly eventqEnabled: boolean;
  readonly paused: boolean;
  readonly backlog: number;
  readonly queue: QueueReport;
  readonly events: Readonly<EventCounters>;
  readonly invalidations: Readonly<InvalidationCounters>;
  readonly faults: readonly FaultQueueState[];
}

/** Puts together what exists and what should. The counters are live; the rest is of this moment. */
export function describeState(actual: Actual, desired: Desired, besides: Besides): AcceleratorState {
  const { queue } = actual;
  return {
    eventqEnabled: besides.eventqEnabled,
    viommu: actual.viommu?.id,
    veventq: queue && {
      id: queue.veventq.id,
      depth: queue.veventq.depth,
      paused: besides.paused,
      backlog: besides.backlog,
    },
    queue: besides.queue,
    devices: desired.streams.map(({ name, target, why, event }) => {
      const stream = actual.streams.get(name);
      return {
        name,
        vsid: stream?.vdevice?.vsid,
        vdevice: stream?.vdevice?.id,
        attached: stream?.table === undefined ? 'none' : effect(stream.table.target),
        hwpt: stream?.table?.hwpt.id,
        wanted: effect(target),
        why,
        event,
        reported: stream?.table?.target.kind === 'tripwire',
        failure: actual.failures.get(`device ${name}`),
      };
    }),
    failures: new Map(actual.failures),
    events: besides.events,
    invalidations: besides.invalidations,
    faults: besides.faults,
  };
}
