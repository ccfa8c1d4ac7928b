/** Where events went, for people: by cause, and by the device that they are of, as far as anyone can tell. */

/** What is known of the events of one StreamID. */
export interface StreamEventCounters {
  /** Written to the guest's queue. */
  delivered: number;
  /** Gave way to another device's while the guest had no room: this one had most records waiting. */
  crowdedOut: number;
  /** The device did not take them: the guest's queue was disabled, or its memory refused the write. */
  refused: number;
  /** Not delivered yet when the host's queue was closed. */
  discarded: number;
}

/** Every event that reached the host's queue is counted exactly once. */
export interface EventCounters extends StreamEventCounters {
  /** The host's queue had no room for them. It does not say whose they were. */
  lostInHost: number;
  /** Bytes that made no record. */
  malformed: number;
  /** Reads that failed. */
  readErrors: number;
}

export class EventTally {
  readonly all: EventCounters = {
    delivered: 0,
    crowdedOut: 0,
    refused: 0,
    discarded: 0,
    lostInHost: 0,
    malformed: 0,
    readErrors: 0,
  };
  /** StreamIDs are those of vDEVICEs, 16 bits of a requester ID: there are at most 65,536. */
  readonly bySid = new Map<number, StreamEventCounters>();

  delivered(sid: number): void {
    this.all.delivered++;
    this.#of(sid).delivered++;
  }

  notDelivered(cause: 'crowdedOut' | 'refused' | 'discarded', sid: number, count = 1): void {
    this.all[cause] += count;
    this.#of(sid)[cause] += count;
  }

  #of(sid: number): StreamEventCounters {
    let counters = this.bySid.get(sid);
    if (counters === undefined) {
      counters = { delivered: 0, crowdedOut: 0, refused: 0, discarded: 0 };
      this.bySid.set(sid, counters);
    }
    return counters;
  }
}
