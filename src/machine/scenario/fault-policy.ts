/** What the guest's driver does with faults that wait for its answer, as a scenario says. */

import { resume } from '../../guest/commands.ts';
import type { GuestEvent } from '../../guest/event.ts';
import type { ReferenceGuest } from '../../guest/reference-guest.ts';

/** `map` gives the page that is missing, `wait` leaves the answer to a later step. */
export type FaultAnswer = 'map' | 'abort' | 'wait';

export interface FaultPolicyParts {
  readonly guest: () => ReferenceGuest;
  /** Maps fresh memory for a device, for reading and writing. @throws if there is none, or the address is taken. */
  readonly map: (sid: number, iova: bigint, size: bigint) => void;
}

const PAGE_SIZE = 0x1000n;

export class FaultPolicy {
  /** As Linux does where nobody handles page faults, unless a step says otherwise. */
  answer: FaultAnswer = 'abort';
  readonly #parts: FaultPolicyParts;
  /** Stalled transactions that the guest has not answered, oldest first. */
  readonly #waiting: { readonly sid: number; readonly stag: number }[] = [];

  constructor(parts: FaultPolicyParts) {
    this.#parts = parts;
  }

  /** For ReferenceGuest's `onStall`. */
  readonly onStall = ({ sid, stag, iova }: GuestEvent): 'retry' | 'abort' | 'later' => {
    if (this.answer === 'abort') return 'abort';
    if (this.answer === 'wait') {
      this.#waiting.push({ sid, stag });
      return 'later';
    }
    this.#parts.map(sid, iova - (iova % PAGE_SIZE), PAGE_SIZE);
    return 'retry';
  };

  /** Answers all that waits of a StreamID. @returns how many that are. */
  answerAll(sid: number, answer: 'retry' | 'abort'): number {
    const theirs = this.#waiting.filter((stalled) => stalled.sid === sid);
    for (const { stag } of theirs) this.#parts.guest().commands.issue(resume(sid, stag, answer));
    this.forget(sid);
    return theirs.length;
  }

  /** A device is gone; or, without a StreamID, the driver with all that it knew. */
  forget(sid?: number): void {
    const left = sid === undefined ? [] : this.#waiting.filter((stalled) => stalled.sid !== sid);
    this.#waiting.splice(0, this.#waiting.length, ...left);
  }
}
