/** The bridges of both kinds of fault that waits for an answer, as the accelerator has them. */

import type { FaultKind } from '../iommufd/host-info.ts';
import type { PageResponsePort, StallCommandPort, Trace } from '../smmu/ports.ts';
import type { Actual } from './actual.ts';
import { FaultBridge, type StallSink } from './fault-bridge.ts';
import type { FaultCounters } from './fault-pipe.ts';
import type { GuestSmmu } from './guest-smmu.ts';
import { GuestWalk } from './guest-walk.ts';
import { PageRequestBridge, type PageRequestSink } from './page-request-bridge.ts';

/** One FAULT_QUEUE and what waits for its answer, for display. */
export interface FaultQueueState {
  readonly kind: FaultKind;
  /** Of the FAULT_QUEUE; undefined if there is none now. */
  readonly id: number | undefined;
  /** Groups that wait for the guest's answer. */
  readonly outstanding: number;
  /** Waits for room in the guest's queue, or for answers, before it takes more. */
  readonly paused: boolean;
  readonly counters: Readonly<FaultCounters>;
}

export class FaultBridges {
  readonly #actual: Actual;
  readonly #stalls: FaultBridge;
  readonly #requests: PageRequestBridge;
  readonly #walk = new GuestWalk();

  constructor(actual: Actual, guest: () => GuestSmmu, trace: Trace | undefined) {
    this.#actual = actual;
    const sidOf = (deviceId: number): number => this.#sidOf(deviceId);
    const stalls: StallSink = {
      recordEvent: (words) => guest().recordEvent(words),
      eventQueueSpace: () => guest().eventQueueSpace(),
      typeOf: (transaction) => this.#walk.fault(guest(), transaction),
      sidOf,
    };
    const requests: PageRequestSink = { pageRequest: (request) => guest().pageRequest(request), sidOf };
    this.#stalls = new FaultBridge(stalls, trace);
    this.#requests = new PageRequestBridge(requests, trace);
    actual.faultReaders.set('stall', this.#stalls);
    actual.faultReaders.set('page-request', this.#requests);
  }

  /** Takes the guest's answers to stalls. */
  get stallCommands(): StallCommandPort {
    return this.#stalls;
  }

  /** Takes the answers to page requests. */
  get pageResponses(): PageResponsePort {
    return this.#requests;
  }

  /** There may be room for events again. */
  roomAppeared(): void {
    this.#stalls.roomAppeared();
  }

  /** The guest has invalidated something. */
  invalidated(): void {
    this.#stalls.invalidated();
  }

  /** For a snapshot: nothing waits for the guest afterwards. @returns STAGs for {@link restoreStags}. */
  releaseAll(): readonly number[] {
    this.#stalls.releaseAll();
    this.#requests.releaseAll();
    return this.#stalls.givenStags;
  }

  /** The guest may still answer by these STAGs of a snapshot. */
  restoreStags(given: readonly number[]): void {
    this.#stalls.restoreStags(given);
  }

  get states(): readonly FaultQueueState[] {
    return [this.#stateOf('stall', this.#stalls), this.#stateOf('page-request', this.#requests)];
  }

  #stateOf(
    kind: FaultKind,
    { outstanding, paused, counters }: FaultBridge | PageRequestBridge,
  ): FaultQueueState {
    return { kind, id: this.#actual.faultQueues.get(kind)?.queue.id, outstanding, paused, counters };
  }

  /** The kernel notes a stream's vSID when it attaches a table: the guest knows a translating device by that. */
  #sidOf(deviceId: number): number {
    for (const { vfio, notedVsid } of this.#actual.streams.values())
      if (vfio.devid === deviceId) return notedVsid ?? -1;
    return -1;
  }
}
