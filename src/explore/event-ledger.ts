/**
 * Where every fault went. A fault that a device met while its events were wanted has to be in the guest's queue sooner or
 * later, or counted as lost; and the guest gets nothing else.
 */

import type { EventCounters } from '../accel/event-counters.ts';
import type { GuestEvent } from '../guest/event.ts';
import { EventTurns } from './event-turns.ts';
import type { Problem } from './problem.ts';

export class EventLedger {
  /** Faults of the current life of the guest's queue that are not in it yet, by type and StreamID. */
  readonly #open = new Map<string, number>();
  #faults = 0;
  #delivered = 0;
  /** Events of the guest's queue that have been looked at. */
  #seen = 0;
  /** Losses that were looked at, and whether the guest has to see an overflow because of them. */
  #losses = 0;
  #overflow = false;
  readonly turns = new EventTurns();

  /** A device met a fault that the guest wants to hear of. */
  fault(type: string, sid: number, iova: bigint): void {
    const key = keyOf(type, sid, iova);
    this.#open.set(key, (this.#open.get(key) ?? 0) + 1);
    this.#faults += 1;
    this.turns.fault(sid);
  }

  /**
   * The life of the vEVENTQ ended: what is not in the guest's queue now must never be.
   * @param listens the guest's queue goes on: it hears of what was lost.
   */
  close(counters: Readonly<EventCounters>, listens: boolean): void {
    this.#open.clear();
    this.turns.close();
    if (listens) this.#mark(counters);
    this.#losses = lossesOf(counters);
  }

  /** The guest took some of its events, the oldest. @param acknowledged an overflow, if there was one. */
  took(count: number, acknowledged: boolean): void {
    this.#seen -= count;
    if (acknowledged) this.#overflow = false;
  }

  /** The guest's queue was made empty by moving it. */
  moved(): void {
    this.#seen = 0;
    this.#overflow = false;
  }

  /** Enters what has come into the guest's queue. */
  look(queue: readonly GuestEvent[]): Problem | undefined {
    for (const { name, sid, iova } of queue.slice(this.#seen)) {
      const key = keyOf(name, sid, iova);
      const open = this.#open.get(key) ?? 0;
      if (open === 0)
        return {
          invariant: 'events',
          text: `The guest got ${key}, which nothing caused in this life of its queue.`,
        };
      this.#open.set(key, open - 1);
      this.#delivered += 1;
      const unfair = this.turns.delivered(sid);
      if (unfair !== undefined) return unfair;
    }
    this.#seen = queue.length;
    return undefined;
  }

  /**
   * What holds at any time.
   * @param quiet nothing is under way: no event may be between the two queues.
   */
  check(counters: Readonly<EventCounters>, overflow: boolean, quiet: boolean): Problem | undefined {
    const problem = (text: string): Problem => ({ invariant: 'events', text });
    const { refused, malformed, readErrors, delivered } = counters;
    if (malformed > 0 || readErrors > 0) return problem('Reading the vEVENTQ went wrong.');
    if (refused > 0) return problem('An event reached a guest that could not take it.');
    if (delivered !== this.#delivered)
      return problem(`${delivered} events count as delivered, and ${this.#delivered} came to the guest.`);
    const known = this.#delivered + lossesOf(counters);
    if (known > this.#faults) return problem(`Of ${this.#faults} faults, ${known} are accounted for.`);
    if (quiet && known < this.#faults)
      return problem(`Of ${this.#faults} faults, only ${known} were delivered or counted as lost.`);
    this.#mark(counters);
    if (this.#overflow && !overflow)
      return problem('Events were lost, and the guest does not see its queue overflow.');
    if (!this.#overflow && overflow)
      return problem('The guest sees its queue overflow, and nothing was lost.');
    return undefined;
  }

  /** A loss that is new has to show. */
  #mark(counters: Readonly<EventCounters>): void {
    const losses = lossesOf(counters);
    if (losses > this.#losses) this.#overflow = true;
    this.#losses = losses;
  }

  /** Everything that the future depends on. */
  text(counters: Readonly<EventCounters>): string {
    const open = [...this.#open].filter(([, count]) => count > 0).map(([key, count]) => `${key}${count}`);
    const under = this.#faults - this.#delivered - lossesOf(counters);
    return `${open.sort().join()}/${under}/${this.#seen}/${Number(this.#overflow)}/${this.turns.text}`;
  }
}

const lossesOf = ({ lostInHost, crowdedOut, discarded }: Readonly<EventCounters>): number =>
  lostInHost + crowdedOut + discarded;

const keyOf = (type: string, sid: number, iova: bigint): string =>
  `${type} of StreamID ${sid} at 0x${iova.toString(16)}`;
