/** Something that must not be, in words. */
export interface Problem {
  /** Short name of what was broken. */
  readonly invariant: Invariant;
  readonly text: string;
}

/** What must hold, by name. */
export const INVARIANTS = {
  exceptions: 'nothing throws but what the host refused',
  calls: 'the host refuses nothing by itself: no id or descriptor is used that does not exist',
  errors: 'the guest gets no error that it has not caused: GERROR, CERROR',
  veventq:
    'a vEVENTQ of the right depth, always the same one, exists exactly while EVENTQEN=1 and a device is plugged',
  attachment: 'each device is attached to what the STE, or GBPA, says',
  hitless: 'a translation is replaced by another in one step, and what has not changed costs no attachment',
  leaks: 'the host has the objects and files that are needed, and no others',
  events: 'every fault is delivered, counted as lost, or still queued; the guest gets nothing else',
  fairness: 'devices that share a queue are served in turn, and none loses its events to one that has more',
  interrupts: 'an interrupt tells of events in the queue',
  isolation: 'no device reaches memory by a stale or foreign table',
  access: 'a device reaches what its table maps',
  recovery: 'what the host refused once succeeds when it is tried again',
  idempotence: 'reconciling again makes no call',
  deterministic: 'the same steps lead to the same state',
} as const;
export type Invariant = keyof typeof INVARIANTS;
