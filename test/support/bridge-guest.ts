/** What the event bridge sees of a guest: a queue of some size that the guest empties when it likes. */

import { EVENT, type EventStatus } from '../../src/smmu/ports.ts';
import type { EventSink } from '../../src/accel/event-bridge.ts';

export class BridgeGuest implements EventSink {
  /** StreamID and address of each record, as it came; losses as 'LOST'. */
  readonly log: ([number, number] | 'LOST')[] = [];
  /** Records that fit now. Setting it is no sign to the bridge: that is resume(). */
  room: number;
  /** EVENTQEN. */
  enabled = true;
  /** Answers in place of Queued, in turn. */
  readonly answers: EventStatus[] = [];
  /** The next record cannot be written; then none until `aborted` is unset: EVENTQ_ABT_ERR (7.2.1). */
  aborts = false;
  aborted = false;
  onRecord: () => void = () => {};

  constructor(room: number) {
    this.room = room;
  }
  recordEvent(words: Uint32Array): EventStatus {
    if (!this.enabled) return EVENT.Disabled;
    const answer = this.answers.shift();
    if (answer !== undefined) return answer;
    if (this.aborted) return EVENT.Aborted;
    if (this.room === 0) return EVENT.Full;
    if (this.aborts) {
      this.aborts = false;
      this.aborted = true;
      return EVENT.Aborted;
    }
    this.room--;
    this.log.push([words[1], words[4]]);
    this.onRecord();
    return EVENT.Queued;
  }
  eventQueueSpace(): number {
    return this.enabled && !this.aborted ? this.room : 0;
  }
  eventsLost(): void {
    if (this.enabled) this.log.push('LOST');
  }
  /** Addresses of the records of a stream. */
  of(sid: number): number[] {
    return this.log.flatMap((entry) => (entry !== 'LOST' && entry[0] === sid ? [entry[1]] : []));
  }
  get losses(): number {
    return this.log.filter((entry) => entry === 'LOST').length;
  }
}
