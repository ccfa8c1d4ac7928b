/** Which records are of tripwires, and when a stream has to leave one without the guest saying so. */

import { EVENT_RECORD } from '../spec/events.ts';
import { STE_WORDS } from '../spec/ste.ts';
import type { Actual } from './actual.ts';
import type { RecordFilter } from './event-bridge.ts';
import type { GuestSmmu } from './guest-smmu.ts';
import { GuestWalk } from './guest-walk.ts';
import { rename, tripped } from './tripwire.ts';

export class TripwireRecords implements RecordFilter {
  readonly #actual: Actual;
  readonly #guest: () => GuestSmmu;
  readonly #leave: () => void;
  /** A tripwire was met although the stream's STE is now a different one. */
  #outdated = false;
  readonly #ste = new Uint32Array(STE_WORDS);
  readonly #walk = new GuestWalk();

  /** @param leave called when STEs have to be read again; from outside the bridge's work. */
  constructor(actual: Actual, guest: () => GuestSmmu, leave: () => void) {
    this.#actual = actual;
    this.#guest = guest;
    this.#leave = leave;
  }

  /** Gives the record of a tripwire the name that is due. */
  rename(words: Uint32Array): void {
    if (!tripped(words)) return;
    const sid = EVENT_RECORD.StreamID.get(words);
    const stream = this.#actual.streamOf(sid);
    if (stream?.due === undefined) return;
    const onTripwire = stream.table?.target.kind === 'tripwire';
    // Off it, the record may be of before, or the guest's own: its CD may really be bad.
    if (!onTripwire && this.#walk.stillRecords(this.#guest(), words)) return;
    rename(words, stream.due);
    // C_BAD_STREAMID and F_STE_FETCH need no CFGI to end: an SMMU would look again for every transaction.
    if (onTripwire && this.#guest().lookupSte(sid, this.#ste) !== stream.due.event) this.#outdated = true;
  }

  /** After a turn of the event bridge. @param empty the host's queue had nothing more: no record of before is left. */
  turned(empty: boolean): void {
    if (empty)
      for (const stream of this.#actual.streams.values())
        if (stream.table?.target.kind !== 'tripwire') stream.due = undefined;
    if (!this.#outdated) return;
    this.#outdated = false;
    this.#leave();
  }
}
