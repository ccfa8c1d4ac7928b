/**
 * Whose events wait while the guest has no room, as far as it shows from outside: devices that share a queue are served
 * in turn, none is crowded out by others that have more, and none waits behind another's in the host.
 */

import type { StreamEventCounters } from '../accel/event-counters.ts';
import type { Problem } from './problem.ts';

/** Events that each device can have waiting, however many others have. */
const SHARE = 2;

/** How things are at the end of a step. */
export interface TurnsMoment {
  readonly bySid: ReadonlyMap<number, Readonly<StreamEventCounters>>;
  readonly lostInHost: number;
  /** Records that were taken out of the host, and wait. */
  readonly backlog: number;
  /** Several devices share the queue, and the host has nothing to do: all that waits was taken out of it. */
  readonly atRest: boolean;
}

export class EventTurns {
  /** Events that wait, by StreamID. */
  readonly #waiting = new Map<number, number>();
  readonly #crowdedOut = new Map<number, number>();
  #lostInHost = 0;
  /** The host has lost some, and nobody knows whose they were. */
  #unsure = false;
  /** All that waits was taken out of the host when the step began. */
  #atRest = false;
  /** Who was served last, and who waited then. */
  #served: { readonly sid: number; readonly others: Set<number> } | undefined;
  readonly #delivered = new Map<number, number>();

  fault(sid: number): void {
    this.#add(sid, 1);
  }

  /** An event has come into the guest's queue. */
  delivered(sid: number): Problem | undefined {
    this.#add(sid, -1);
    this.#delivered.set(sid, (this.#delivered.get(sid) ?? 0) + 1);
    const served = this.#served;
    this.#served = undefined;
    if (!this.#atRest || this.#unsure) return undefined;
    const others = new Set<number>();
    for (const [other, count] of this.#waiting) if (other !== sid && count > 0) others.add(other);
    this.#served = { sid, others };
    if (served?.sid !== sid) return undefined;
    for (const other of served.others)
      if (others.has(other))
        return problem(`StreamID ${sid} was served twice, and StreamID ${other} waited all the time.`);
    return undefined;
  }

  /** The step is over. @param audited false if there were faults of which nothing is known. */
  settle({ bySid, lostInHost, backlog, atRest }: TurnsMoment, audited: boolean): Problem | undefined {
    if (!audited) return undefined;
    let found: Problem | undefined;
    for (const [sid, { crowdedOut }] of bySid) {
      const more = crowdedOut - (this.#crowdedOut.get(sid) ?? 0);
      if (more === 0) continue;
      this.#crowdedOut.set(sid, crowdedOut);
      this.#add(sid, -more);
      this.#served?.others.delete(sid);
      const had = (this.#waiting.get(sid) ?? 0) + (this.#delivered.get(sid) ?? 0);
      if (!this.#unsure && had < SHARE)
        found = problem(`StreamID ${sid} lost an event to another, and had only ${had} more waiting.`);
    }
    this.#delivered.clear();
    if (lostInHost !== this.#lostInHost) this.#unsure = true;
    this.#lostInHost = lostInHost;
    this.#atRest = atRest;
    if (found !== undefined || !atRest || this.#unsure) return found;
    let waiting = 0;
    for (const count of this.#waiting.values()) waiting += count;
    if (waiting === backlog) return undefined;
    return problem(`${waiting - backlog} events rest in the host, in the way of those of other devices.`);
  }

  /** The life of the vEVENTQ ended. */
  close(): void {
    this.#waiting.clear();
    this.#unsure = false;
    this.#served = undefined;
  }

  /** A new machine has the events of the old one, and counts those of each device anew. */
  moved(): void {
    this.#crowdedOut.clear();
    this.#served = undefined;
  }

  #add(sid: number, count: number): void {
    this.#waiting.set(sid, (this.#waiting.get(sid) ?? 0) + count);
  }

  /** Everything that the future depends on. */
  get text(): string {
    const waiting = [...this.#waiting].filter(([, count]) => count > 0).map((one) => one.join(':'));
    const served = this.#served === undefined ? '' : `${this.#served.sid}<${[...this.#served.others].join()}`;
    return this.#unsure ? '?' : `${waiting.sort().join()}/${Number(this.#atRest)}${served}`;
  }
}

const problem = (text: string): Problem => ({ invariant: 'fairness', text });
