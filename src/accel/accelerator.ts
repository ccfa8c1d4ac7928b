/**
 * Moves the DMA of plugged devices as a guest's SMMU says. All it does follows from one rule: what should exist on the
 * host is a function of what the guest can see, and reconcile brings it about, whatever happened and in whatever order.
 */

import type { FaultKind } from '../iommufd/host-info.ts';
import type { VfioDevice } from '../iommufd/vfio-device.ts';
import type { IdRegisters } from '../smmu/identification.ts';
import type {
  CommandBatch,
  InvalidateStatus,
  PageResponsePort,
  StallCommandPort,
  StreamBackend,
  Trace,
} from '../smmu/ports.ts';
import { IDR0, IDR1 } from '../spec/registers.ts';
import { Actual, type ActualStream } from './actual.ts';
import type { AddressSpace } from './address-space.ts';
import { bindDevice, refusalOf } from './binding.ts';
import { desired, type SteLimits } from './desired.ts';
import { EventBridge } from './event-bridge.ts';
import { FaultBridges } from './fault-bridges.ts';
import { commandLimits, isQueueOf, readGuest, type GuestSmmu } from './guest-smmu.ts';
import { Invalidator } from './invalidation.ts';
import { PluggedDevices, type PluggedState, type PlugRequest } from './plugged.ts';
import { Identity } from './properties.ts';
import { offeredFaults, offersStalls } from './recoverable-faults.ts';
import type { ReconcileReport } from './report.ts';
import { Rounds } from './rounds.ts';
import { describeState, type AcceleratorState } from './state.ts';
import { TripwireRecords } from './tripwire-records.ts';
import { tripwire } from './tripwire.ts';

export type { AcceleratorState } from './state.ts';
export type { GuestSmmu } from './guest-smmu.ts';
export type { PlugRequest } from './plugged.ts';

export interface AcceleratorOptions {
  /** Guest RAM on the host; shared by the accelerators of a machine. */
  readonly space: AddressSpace;
  /** What to call it, when a machine has several. */
  readonly name?: string;
  /** What the guest is told; true on every host device that is plugged. It may follow the host until the guest looks. */
  readonly ids: IdRegisters | Identity;
  /** Told of every reconcile after it is done. */
  readonly observer?: (report: ReconcileReport) => void;
  /**
   * Asked to call {@link Accelerator.retry} after a while, because the host refused something.
   * @param attempt 1 after the first failure, and one more each time in a row: wait longer.
   */
  readonly retryLater?: (attempt: number) => void;
  /**
   * Which faults of the device of a VFIO file wait for an answer that the host takes from user space; none if absent.
   * The host does not say it in any call.
   */
  readonly faultsOf?: ((path: string) => FaultKind | undefined) | undefined;
  /** Takes down the faults that wait for an answer, and the answers. */
  readonly trace?: Trace | undefined;
}

const NOBODY: readonly number[] = [];

/** ID registers that the guest knows already. */
function settled(ids: IdRegisters): Identity {
  const identity = new Identity(ids);
  identity.settle();
  return identity;
}

export class Accelerator implements StreamBackend {
  readonly #space: AddressSpace;
  readonly #identity: Identity;
  readonly #plugged = new PluggedDevices(() => this.#guest);
  readonly #actual: Actual;
  readonly #rounds: Rounds;
  readonly #bridge: EventBridge;
  readonly #faults: FaultBridges;
  readonly #faultsOf: (path: string) => FaultKind | undefined;
  readonly #invalidator: Invalidator;
  #smmu: GuestSmmu | undefined;
  readonly #tripwires: TripwireRecords;
  #offeredBy: IdRegisters | undefined;
  #offeredNow: ReadonlySet<FaultKind> = new Set();

  constructor({ space, ids, observer, retryLater, name, faultsOf, trace }: AcceleratorOptions) {
    this.#space = space;
    this.#identity = ids instanceof Identity ? ids : settled(ids);
    this.#bridge = new EventBridge(
      {
        recordEvent: (words) => this.#guest.recordEvent(words),
        eventQueueSpace: () => this.#guest.eventQueueSpace(),
        eventsLost: () => this.#guest.eventsLost(),
      },
      {
        rename: (words) => this.#tripwires.rename(words),
        turned: (empty) => this.#tripwires.turned(empty),
      },
    );
    this.#actual = new Actual(space, this.#bridge, name);
    this.#tripwires = new TripwireRecords(
      this.#actual,
      () => this.#guest,
      () => this.#run('a stream that had no valid STE was used'),
    );
    this.#faults = new FaultBridges(this.#actual, () => this.#guest, trace);
    this.#faultsOf = faultsOf ?? (() => undefined);
    this.#actual.tripwireMoved = () => this.#run('RAM comes to the page of zeros');
    this.#rounds = new Rounds(
      this.#actual,
      () => {
        const guest = readGuest(this.#guest);
        const { streams, lookup } = this.#plugged;
        return { guest, desired: desired(guest, streams, lookup, this.#steLimits()) };
      },
      { observer, retryLater },
    );
    this.#invalidator = new Invalidator(this.#actual, commandLimits(this.#ids), () => {
      this.#actual.flushAll = true;
      this.#run('the host could not invalidate');
    });
  }

  /** Joins the accelerator and the SMMU that has it as backend; once, before anything else. */
  connect(smmu: GuestSmmu): void {
    this.#smmu = smmu;
  }

  get #ids(): IdRegisters {
    return this.#identity.resolved.ids;
  }

  /** Kinds of fault that the guest was told of. Kept until the ID registers are others. */
  get #offered(): ReadonlySet<FaultKind> {
    if (this.#offeredBy !== this.#ids) {
      this.#offeredBy = this.#ids;
      this.#offeredNow = offeredFaults(this.#ids);
    }
    return this.#offeredNow;
  }

  get #guest(): GuestSmmu {
    if (this.#smmu === undefined) throw new Error('The accelerator is not connected to an SMMU');
    return this.#smmu;
  }

  /**
   * Takes a device from the host and puts it behind the guest's SMMU. When this returns its DMA goes where the guest's
   * registers and stream table say.
   * @returns the device, for its regions and interrupts.
   * @throws HostError if it cannot be served; nothing is left of the attempt, and it may be made again.
   */
  plug(request: PlugRequest): VfioDevice {
    const { name } = request;
    if (this.#plugged.has(name)) throw new Error(`A device "${name}" is plugged already`);
    this.#rounds.begin();
    const before = this.#identity.resolved;
    let stream: ActualStream;
    try {
      stream = bindDevice(this.#actual, this.#identity, request, this.#faultsOf(request.path));
    } catch (error) {
      this.#run(`plug ${name}, undone`);
      throw error;
    }
    this.#invalidator.limits = commandLimits(this.#ids);
    this.#actual.timedOut = undefined;
    this.#actual.streams.set(name, stream);
    this.#plugged.add(request, stream.host.faults);
    this.#run(`plug ${name}`);
    const wanted = this.#rounds.desired.streams.find((other) => other.name === name);
    const refusal = refusalOf(this.#actual, stream, wanted);
    if (refusal === undefined) return stream.vfio;
    this.#plugged.remove(name);
    this.#identity.adopt(before);
    this.#invalidator.limits = commandLimits(this.#ids);
    this.#run(`plug ${name}, undone`);
    throw refusal;
  }

  /** Gives a device back to the host; harmless if there is none of that name. */
  unplug(name: string): void {
    if (this.#plugged.remove(name)) this.#run(`unplug ${name}`);
  }

  /** The guest gave a device another StreamID, or none. */
  setSid(name: string, sid: number | undefined): void {
    const which = sid === undefined ? 'no StreamID' : `StreamID 0x${sid.toString(16)}`;
    if (this.#plugged.setSid(name, sid)) this.#run(`${name} has ${which}`);
  }

  /** The machine was reset, and the SMMU with it: nothing of the last guest may be left in the caches of the host. */
  reset(): void {
    if (this.#actual.viommu === undefined) return;
    this.#actual.flushAll = true;
    this.#actual.timedOut = undefined;
    this.#run('reset');
  }

  /** For a snapshot: the plugged devices, in the order in which they got their StreamIDs. */
  get plugged(): readonly PluggedState[] {
    return this.#plugged.states;
  }

  /**
   * For a snapshot: takes all events out of the host, to be delivered from here.
   * @returns copies of the records that the guest has not got yet.
   */
  drainEvents(): readonly Uint32Array[] {
    return this.#bridge.drain();
  }

  /** Events of a snapshot: the guest gets them before any other. */
  restoreEvents(records: readonly Uint32Array[]): void {
    this.#bridge.restore(records);
  }

  /**
   * For a snapshot: what waits for an answer of the guest is tried again, and may ask anew.
   * @returns STAGs that the guest may still answer by, for {@link restoreStags}.
   */
  releaseFaults(): readonly number[] {
    return this.#faults.releaseAll();
  }

  /** STAGs of a snapshot: they are the last to be names again, so that late answers do nothing. Before any device. */
  restoreStags(stags: readonly number[]): void {
    this.#faults.restoreStags(stags);
  }

  /** Tries again what the host refused. */
  retry(): void {
    this.#rounds.retried();
    this.#actual.timedOut = undefined;
    if (this.#actual.failures.size > 0) this.#run('retry');
  }

  /** Adds guest RAM. @throws RangeError @throws HostError See {@link AddressSpace.addRam}. */
  addRam(gpa: number, bytes: Uint8Array, writable = true): void {
    this.#space.addRam(gpa, bytes, writable);
  }

  /** Removes guest RAM that was added at this address. @throws HostError; it is then still there. */
  removeRam(gpa: number): void {
    this.#space.removeRam(gpa);
  }

  /** The VFIO device of a plugged device. */
  device(name: string): VfioDevice | undefined {
    return this.#actual.streams.get(name)?.vfio;
  }

  /** What became of events, by StreamID. */
  get eventsBySid(): EventBridge['bySid'] {
    return this.#bridge.bySid;
  }

  /** StreamIDs of the events that wait here for room in the guest's queue, in the order in which it will get them. */
  get eventsWaiting(): readonly number[] {
    return this.#bridge.backlog === 0 ? NOBODY : this.#bridge.waiting;
  }

  /** For the SMMU: takes CMD_RESUME and CMD_STALL_TERM. */
  get stallCommands(): StallCommandPort {
    return this.#faults.stallCommands;
  }

  /** For the SMMU: takes CMD_PRI_RESP, and what the PRI queue answers by itself. */
  get pageResponses(): PageResponsePort {
    return this.#faults.pageResponses;
  }

  streamsChanged(firstSid: number, lastSid: number): boolean {
    this.#faults.invalidated();
    this.#invalidator.dropCds(firstSid, lastSid);
    if (this.#plugged.forgetStes(firstSid, lastSid))
      this.#run(`streams 0x${firstSid.toString(16)}..0x${lastSid.toString(16)} changed`);
    return this.#invalidator.isDue;
  }

  invalidate(batch: CommandBatch): InvalidateStatus {
    const status = this.#invalidator.invalidate(batch);
    this.#faults.invalidated();
    return status;
  }

  eventQueueChanged(): void {
    if (!this.#guest.eventqEnabled) this.#bridge.dropBacklog();
    if (this.#queueIsRight() && this.#faultQueuesAreRight()) {
      // Stalled transactions first: they hold up their devices, and their records may not be lost.
      this.#faults.roomAppeared();
      this.#bridge.resume();
      return;
    }
    const from = this.#rounds.eventqEnabled ? 1 : 0;
    const to = this.#guest.eventqEnabled ? 1 : 0;
    this.#run(from === to ? 'an output queue changed' : `EVENTQEN ${from} -> ${to}`);
    this.#faults.roomAppeared();
  }

  /** Everything about the host side, for display. */
  get state(): AcceleratorState {
    return describeState(this.#actual, this.#rounds.desired, {
      eventqEnabled: this.#smmu?.eventqEnabled ?? false,
      paused: this.#bridge.paused,
      backlog: this.#bridge.backlog,
      queue: this.#rounds.queue,
      events: this.#bridge.counters,
      invalidations: this.#invalidator.counters,
      faults: this.#faults.states,
    });
  }

  /** The vEVENTQ is as it should be. Called for each record that the guest consumes. */
  #queueIsRight(): boolean {
    const guest = this.#guest;
    const wanted = guest.eventqEnabled && this.#plugged.size > 0;
    if (guest.eventqEnabled !== this.#rounds.eventqEnabled) return false;
    const { queue } = this.#actual;
    if (queue === undefined || !wanted) return queue === undefined && !wanted;
    return isQueueOf(guest, queue.wanted);
  }

  /** As {@link #queueIsRight}, for FAULT_QUEUEs. A queue of the guest does not move while it is enabled. */
  #faultQueuesAreRight(): boolean {
    const offered = this.#offered;
    if (offered.size === 0) return true;
    const { eventqEnabled, priqEnabled } = this.#guest;
    const { faultQueues, streams } = this.#actual;
    const stall = offered.has('stall') && eventqEnabled && streams.size > 0;
    const request = offered.has('page-request') && priqEnabled && streams.size > 0;
    return faultQueues.has('stall') === stall && faultQueues.has('page-request') === request;
  }

  #steLimits(): SteLimits {
    const { tripwireGpa } = this.#space;
    const [first] = this.#actual.streams.values();
    const hostStalls = first !== undefined && offersStalls(first.host.idr[0]);
    return {
      ats: IDR0.ATS.of(this.#ids.IDR0) !== 0,
      ssidSize: IDR1.SSIDSIZE.of(this.#ids.IDR1),
      // A fault that the hardware stalls never reaches the guest, and nobody would answer it.
      stallDisable: hostStalls ? 1 : 0,
      offered: this.#offered,
      tripwire: tripwireGpa === undefined ? undefined : tripwire(tripwireGpa),
    };
  }

  #run(cause: string): void {
    this.#rounds.run(cause);
  }
}
