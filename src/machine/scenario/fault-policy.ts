/** What the guest's driver does with faults that wait for its answer, as a scenario says. */

import { type Command, resume } from '../../guest/commands.ts';
import type { GuestEvent } from '../../guest/event.ts';
import { answerPages, type GuestPageRequest } from '../../guest/page-request.ts';
import type { ReferenceGuest } from '../../guest/reference-guest.ts';

/** `map` gives the page that is missing, `wait` leaves the answer to a later step. */
export type FaultAnswer = 'map' | 'abort' | 'wait';

export interface FaultPolicyParts {
  readonly guest: () => ReferenceGuest;
  /** Maps fresh memory for a device, for reading and writing. @throws if there is none, or the address is taken. */
  readonly map: (sid: number, iova: bigint, size: bigint) => void;
}

/** A stalled transaction or a group of page requests that the guest has not answered. */
interface Waiting {
  readonly sid: number;
  /** The command that has it tried again, or ends it. */
  readonly command: (answer: 'retry' | 'abort') => Command;
}

const PAGE_SIZE = 0x1000n;

export class FaultPolicy {
  /** As Linux does where nobody handles page faults, unless a step says otherwise. */
  answer: FaultAnswer = 'abort';
  readonly #parts: FaultPolicyParts;
  /** Oldest first. */
  readonly #waiting: Waiting[] = [];

  constructor(parts: FaultPolicyParts) {
    this.#parts = parts;
  }

  /** For ReferenceGuest's `onStall`. */
  onStall({ sid, stag, iova }: GuestEvent): 'retry' | 'abort' | 'later' {
    if (this.answer === 'map') {
      this.#mapPage(sid, iova);
      return 'retry';
    }
    if (this.answer === 'abort') return 'abort';
    this.#waiting.push({ sid, command: (answer) => resume(sid, stag, answer) });
    return 'later';
  }

  /** For ReferenceGuest's `onPageRequest`. */
  onPageRequest(request: GuestPageRequest): 'success' | 'invalid' | 'later' {
    const { sid, iova, last } = request;
    if (this.answer === 'map') {
      this.#mapPage(sid, iova);
      return 'success';
    }
    if (this.answer === 'abort') return 'invalid';
    if (last)
      this.#waiting.push({
        sid,
        command: (answer) => answerPages(request, answer === 'retry' ? 'success' : 'invalid'),
      });
    return 'later';
  }

  /** Answers all that waits of a StreamID. @returns how many that are. */
  answerAll(sid: number, answer: 'retry' | 'abort'): number {
    const theirs = this.#waiting.filter((waiting) => waiting.sid === sid);
    this.forget(sid);
    for (const { command } of theirs) this.#parts.guest().commands.issue(command(answer));
    return theirs.length;
  }

  /** A device is gone; or, without a StreamID, the driver with all that it knew. */
  forget(sid?: number): void {
    const left = sid === undefined ? [] : this.#waiting.filter((waiting) => waiting.sid !== sid);
    this.#waiting.splice(0, this.#waiting.length, ...left);
  }

  #mapPage(sid: number, iova: bigint): void {
    this.#parts.map(sid, iova - (iova % PAGE_SIZE), PAGE_SIZE);
  }
}
