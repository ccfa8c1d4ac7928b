/**
 * Rounds of reconciling: each has a cause, collects the calls that it makes, is reported, and is asked for again if the
 * host refused something.
 */

import type { Call } from '../iommufd/call.ts';
import type { Actual } from './actual.ts';
import type { Desired, GuestState } from './desired.ts';
import { reconcile } from './reconcile.ts';
import { queueMoment, reportQueue, type QueueReport, type ReconcileReport } from './report.ts';

export interface RoundsOptions {
  /** Told of every reconcile after it is done. */
  readonly observer: ((report: ReconcileReport) => void) | undefined;
  /**
   * Asked to call for another round after a while, because the host refused something.
   * @param attempt 1 after the first failure, and one more each time in a row: wait longer.
   */
  readonly retryLater: ((attempt: number) => void) | undefined;
}

/** What a round starts from. */
export interface Aim {
  readonly guest: GuestState;
  readonly desired: Desired;
}

export class Rounds {
  /** What should exist, as of the last round. */
  desired: Desired = { viommu: false, veventq: undefined, faultQueues: new Map(), streams: [] };
  /** What last became of the vEVENTQ. */
  queue: QueueReport = { change: 'absent', why: 'Not allocated: EVENTQEN=0, and no device is plugged.' };
  /** EVENTQEN as of the last round. */
  eventqEnabled = false;
  readonly #actual: Actual;
  readonly #aim: () => Aim;
  readonly #options: RoundsOptions;
  /** Calls made since the cause began, while someone wants to know. */
  #calls: Call[] = [];
  #running = false;
  #again = false;
  /** Retries in a row that were asked for; and whether one is to come. */
  #attempts = 0;
  #retryDue = false;

  constructor(actual: Actual, aim: () => Aim, options: RoundsOptions) {
    this.#actual = actual;
    this.#aim = aim;
    this.#options = options;
  }

  /** Starts to collect the calls of one cause, which {@link run} does by itself if nobody has. */
  begin(): void {
    this.#calls = [];
    if (this.#options.observer !== undefined)
      this.#actual.space.caller.observer = (call) => this.#calls.push(call);
  }

  /** Reconciles, and reports. Called again from inside itself it makes another round instead. */
  run(cause: string): void {
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    const before = queueMoment(this.#actual);
    if (this.#actual.space.caller.observer === undefined) this.begin();
    let aim: Aim;
    try {
      do {
        this.#again = false;
        aim = this.#aim();
        this.desired = aim.desired;
        reconcile(this.#actual, aim.desired);
      } while (this.#again);
    } finally {
      this.#running = false;
    }
    this.eventqEnabled = aim.guest.eventqEnabled;
    this.queue = reportQueue(before, this.#actual, aim.guest, aim.desired.streams.length);
    this.#report(cause);
    this.#askForRetry();
  }

  /** The round that was asked for is about to be made. */
  retried(): void {
    this.#retryDue = false;
  }

  #askForRetry(): void {
    if (this.#actual.failures.size === 0) this.#attempts = 0;
    else if (!this.#retryDue && this.#options.retryLater !== undefined) {
      this.#retryDue = true;
      this.#options.retryLater(++this.#attempts);
    }
  }

  #report(cause: string): void {
    this.#actual.space.caller.observer = undefined;
    const { viommu, queue, failures } = this.#actual;
    this.#options.observer?.({
      cause,
      operations: this.#calls,
      eventqEnabled: this.eventqEnabled,
      viommu: viommu?.id,
      veventq: queue && { id: queue.veventq.id, depth: queue.veventq.depth },
      queue: this.queue,
      failures: new Map(failures),
    });
  }
}
