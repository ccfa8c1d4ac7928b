/** What became of the events of a machine, by cause and by device: for counters and at the end of a run. */

import type { StreamEventCounters } from '../accel/event-counters.ts';
import type { Machine } from './machine.ts';

/** Events of one device that the guest did not get, by cause. */
export interface DeviceLosses {
  /** Gave way to those of other devices, while the guest had no room for any. */
  readonly crowded_out: number;
  /** The guest's queue did not take them. */
  readonly guest_refused: number;
  /** The vEVENTQ was closed before the guest had them. */
  readonly queue_closed: number;
}

export interface EventAccount {
  readonly delivered: number;
  /** Read from the host, and not delivered yet. */
  readonly waiting: number;
  /** Of all devices together. The host does not say whose its queue had no room for. */
  readonly lost: DeviceLosses & { readonly host_queue_full: number };
  /** By name; a device that is gone, by its StreamID. */
  readonly devices: Readonly<Record<string, { readonly delivered: number; readonly lost: DeviceLosses }>>;
}

const lossesOf = ({ crowdedOut, refused, discarded }: Readonly<StreamEventCounters>): DeviceLosses => ({
  crowded_out: crowdedOut,
  guest_refused: refused,
  queue_closed: discarded,
});

/** The account as of now. */
export function eventAccount({ accelerator, state }: Machine): EventAccount {
  const { events, devices, veventq } = state;
  const names = new Map(devices.map(({ vsid, name }) => [vsid, name]));
  return {
    delivered: events.delivered,
    waiting: veventq?.backlog ?? 0,
    lost: { host_queue_full: events.lostInHost, ...lossesOf(events) },
    devices: Object.fromEntries(
      [...accelerator.eventsBySid].map(([sid, counters]) => [
        names.get(sid) ?? `0x${sid.toString(16)}`,
        { delivered: counters.delivered, lost: lossesOf(counters) },
      ]),
    ),
  };
}
