/**
 * Moves the DMA of plugged devices as a guest's SMMU says. All it does follows from one rule: what should exist on the
 * host is a function of what the guest can see, and reconcile brings it about, whatever happened and in whatever order.
 */

import type { Call } from '../iommufd/call.ts';
import { HostError } from '../iommufd/errors.ts';
import { getHostInfo } from '../iommufd/host-info.ts';
import { VfioDevice } from '../iommufd/vfio-device.ts';
import type { IdRegisters } from '../smmu/identification.ts';
import type { CommandBatch, InvalidateStatus, StreamBackend } from '../smmu/ports.ts';
import { CR2, EVENTQ_BASE, IDR0, IDR1, IDR3, IDR5, OFFSET } from '../spec/registers.ts';
import { EVENT_RECORD } from '../spec/events.ts';
import { STE_WORDS } from '../spec/ste.ts';
import { Actual, ActualStream } from './actual.ts';
import type { AddressSpace } from './address-space.ts';
import { requireCompatible } from './compatibility.ts';
import { desired, type Desired, type GuestState, type SteLimits } from './desired.ts';
import { EventBridge, type EventSink } from './event-bridge.ts';
import type { CommandLimits } from './canonical.ts';
import { Invalidator } from './invalidation.ts';
import { Identity } from './properties.ts';
import { reconcile } from './reconcile.ts';
import { queueMoment, reportQueue, type QueueReport, type ReconcileReport } from './report.ts';
import { describeState, type AcceleratorState } from './state.ts';
import { rename, tripped, tripwire } from './tripwire.ts';

export type { AcceleratorState } from './state.ts';

/** The SMMU that the guest sees, as far as the accelerator needs it. {@link import('../smmu/smmu.ts').Smmu} is one. */
export interface GuestSmmu extends EventSink {
  readonly smmuEnabled: boolean;
  readonly gbpaAbort: boolean;
  readonly eventqEnabled: boolean;
  /** Effective log2 of the entries of the event queue. */
  readonly eventqLog2Size: number;
  /** Page 0, word by word. */
  readonly registers: Uint32Array;
  /**
   * @param into receives the STE; after F_STE_FETCH the first two words are the address that could not be read.
   * @returns 0 if the STE is valid, else the EventType that using it would raise.
   */
  lookupSte(sid: number, into: Uint32Array): number;
}

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
}

export interface PlugRequest {
  readonly name: string;
  /** VFIO device file. */
  readonly path: string;
  /** The guest's StreamID; undefined while the guest has given the device no place on a bus. */
  readonly sid?: number | undefined;
  /** Of a snapshot: the STE as the SMMU has it cached. */
  readonly ste?: Uint32Array | undefined;
}

/** What a snapshot has of a plugged device. */
export interface PluggedState {
  readonly name: string;
  readonly path: string;
  readonly sid: number | undefined;
  /** The STE as of the guest's last CFGI, if it was valid. */
  readonly ste: Uint32Array | undefined;
}

/** A plugged device, with the STE as the SMMU has it cached: read again only when the guest says that it changed. */
interface Plugged {
  readonly name: string;
  sid: number | undefined;
  readonly ste: Uint32Array;
  /** As {@link GuestSmmu.lookupSte} answered; undefined if it must be read. */
  steStatus: number | undefined;
}

const EVENTQ_BASE_WORD = OFFSET.EVENTQ_BASE >>> 2;
const CR2_WORD = OFFSET.CR2 >>> 2;

/** What the guest was told that bears on its commands. */
const commandLimits = (ids: IdRegisters): CommandLimits => ({
  ril: IDR3.RIL.of(ids.IDR3) !== 0,
  ds: IDR5.DS.of(ids.IDR5) !== 0,
  asid16: IDR0.ASID16.of(ids.IDR0) !== 0,
  ats: IDR0.ATS.of(ids.IDR0) !== 0,
  substreams: IDR1.SSIDSIZE.of(ids.IDR1) !== 0,
});

/** ID registers that the guest knows already. */
function settled(ids: IdRegisters): Identity {
  const identity = new Identity(ids);
  identity.settle();
  return identity;
}

export class Accelerator implements StreamBackend {
  readonly #space: AddressSpace;
  readonly #identity: Identity;
  readonly #observer: ((report: ReconcileReport) => void) | undefined;
  readonly #retryLater: ((attempt: number) => void) | undefined;
  /** Retries in a row that were asked for; and whether one is to come. */
  #attempts = 0;
  #retryDue = false;
  readonly #plugged = new Map<string, Plugged>();
  readonly #actual: Actual;
  readonly #bridge: EventBridge;
  readonly #invalidator: Invalidator;
  #smmu: GuestSmmu | undefined;
  #desired: Desired = { viommu: false, veventq: undefined, streams: [] };
  #queue: QueueReport = { change: 'absent', why: 'Not allocated: EVENTQEN=0, and no device is plugged.' };
  #eventqEnabled = false;
  /** Calls made since the cause began, while someone wants to know. */
  #calls: Call[] = [];
  #running = false;
  #again = false;
  /** A tripwire was met although the stream's STE is now a different one. */
  #outdated = false;
  readonly #ste = new Uint32Array(STE_WORDS);

  constructor({ space, ids, observer, retryLater, name }: AcceleratorOptions) {
    this.#space = space;
    this.#retryLater = retryLater;
    this.#identity = ids instanceof Identity ? ids : settled(ids);
    this.#observer = observer;
    this.#bridge = new EventBridge(
      {
        recordEvent: (words) => this.#guest.recordEvent(words),
        eventQueueSpace: () => this.#guest.eventQueueSpace(),
        eventsLost: () => this.#guest.eventsLost(),
      },
      { rename: (words) => this.#rename(words), turned: (empty) => this.#turned(empty) },
    );
    this.#actual = new Actual(space, this.#bridge, name);
    this.#actual.tripwireMoved = () => this.#run('RAM comes to the page of zeros');
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
  plug({ name, path, sid, ste }: PlugRequest): VfioDevice {
    if (this.#plugged.has(name)) throw new Error(`A device "${name}" is plugged already`);
    this.#begin();
    const before = this.#identity.resolved;
    let stream: ActualStream;
    try {
      stream = this.#bind(name, path);
    } catch (error) {
      this.#run(`plug ${name}, undone`);
      throw error;
    }
    this.#invalidator.limits = commandLimits(this.#ids);
    this.#actual.timedOut = undefined;
    this.#actual.streams.set(name, stream);
    this.#plugged.set(name, {
      name,
      sid,
      ste: ste?.slice() ?? new Uint32Array(STE_WORDS),
      steStatus: ste === undefined ? undefined : 0,
    });
    this.#run(`plug ${name}`);
    const refusal = this.#refusal(stream);
    if (refusal === undefined) return stream.vfio;
    this.#plugged.delete(name);
    this.#identity.adopt(before);
    this.#invalidator.limits = commandLimits(this.#ids);
    this.#run(`plug ${name}, undone`);
    throw refusal;
  }

  /** Gives a device back to the host; harmless if there is none of that name. */
  unplug(name: string): void {
    if (this.#plugged.delete(name)) this.#run(`unplug ${name}`);
  }

  /** The guest gave a device another StreamID, or none. */
  setSid(name: string, sid: number | undefined): void {
    const plugged = this.#plugged.get(name);
    if (plugged === undefined || plugged.sid === sid) return;
    plugged.sid = sid;
    plugged.steStatus = undefined;
    // Behind those that have theirs longer: if two have the same for a moment, it stays with its owner.
    this.#plugged.delete(name);
    this.#plugged.set(name, plugged);
    this.#run(`${name} has ${sid === undefined ? 'no StreamID' : `StreamID 0x${sid.toString(16)}`}`);
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
    return [...this.#plugged.values()].map(({ name, sid, ste, steStatus }) => ({
      name,
      path: this.#actual.streams.get(name)!.vfio.path,
      sid,
      ste: steStatus === 0 ? ste.slice() : undefined,
    }));
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

  /** Tries again what the host refused. */
  retry(): void {
    this.#retryDue = false;
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

  streamsChanged(firstSid: number, lastSid: number): void {
    let any = false;
    for (const plugged of this.#plugged.values()) {
      const { sid } = plugged;
      if (sid !== undefined && (sid < firstSid || sid > lastSid)) continue;
      plugged.steStatus = undefined;
      any = true;
    }
    if (any) this.#run(`streams 0x${firstSid.toString(16)}..0x${lastSid.toString(16)} changed`);
  }

  invalidate(batch: CommandBatch): InvalidateStatus {
    return this.#invalidator.invalidate(batch);
  }

  eventQueueChanged(): void {
    if (!this.#guest.eventqEnabled) this.#bridge.dropBacklog();
    if (this.#queueIsRight()) {
      this.#bridge.resume();
      return;
    }
    const enabled = this.#guest.eventqEnabled;
    const from = this.#eventqEnabled ? 1 : 0;
    const to = enabled ? 1 : 0;
    this.#run(from === to ? 'the event queue changed' : `EVENTQEN ${from} -> ${to}`);
  }

  /** Everything about the host side, for display. */
  get state(): AcceleratorState {
    return describeState(this.#actual, this.#desired, {
      eventqEnabled: this.#smmu?.eventqEnabled ?? false,
      paused: this.#bridge.paused,
      backlog: this.#bridge.backlog,
      queue: this.#queue,
      events: this.#bridge.counters,
      invalidations: this.#invalidator.counters,
    });
  }

  /** Opens and binds a device, and makes sure that it fits the guest. On failure nothing is left of it. */
  #bind(name: string, path: string): ActualStream {
    const iommufd = this.#space.open(this.#actual);
    const vfio = VfioDevice.open(iommufd.caller, path);
    try {
      vfio.bind(iommufd);
      const host = getHostInfo(iommufd, vfio.devid);
      const resolved = this.#identity.fit(host);
      requireCompatible(resolved.ids, host);
      this.#identity.adopt(resolved);
      return new ActualStream(name, vfio, host);
    } catch (error) {
      vfio.close();
      throw error;
    }
  }

  /** Why a device cannot be served at all, if so. A stream that is merely parked is served, and tried again. */
  #refusal(stream: ActualStream): HostError | undefined {
    const { failures } = this.#actual;
    const wanted = this.#desired.streams.find(({ name }) => name === stream.name);
    if (stream.table !== undefined && stream.vdevice?.vsid === wanted?.vsid) return undefined;
    const failure =
      failures.get(`device ${stream.name}`) ??
      failures.get('foundation') ??
      new HostError('EIO', 'plug', 'the host has no place for the device.');
    return failure.code === 'EINVAL' ? this.#withDirections(failure, stream) : failure;
  }

  /** Names the virtual SMMU of this machine that is on the device's physical SMMU, if there is one. */
  #withDirections(failure: HostError, stream: ActualStream): HostError {
    const better = this.#space.users.find(
      (user) => user !== this.#actual && user.wouldTake(stream.vfio.devid),
    );
    if (better === undefined) return failure;
    const hint = `Plug it into the virtual SMMU "${better.name}", which stands for the physical SMMU of this device.`;
    return new HostError(failure.code, failure.operation, failure.reason, hint);
  }

  /** The vEVENTQ is as it should be. Called for each record that the guest consumes. */
  #queueIsRight(): boolean {
    const guest = this.#guest;
    const wanted = guest.eventqEnabled && this.#plugged.size > 0;
    if (guest.eventqEnabled !== this.#eventqEnabled) return false;
    const { queue } = this.#actual;
    if (queue === undefined || !wanted) return queue === undefined && !wanted;
    const { registers } = guest;
    return (
      queue.wanted.log2Size === guest.eventqLog2Size &&
      queue.wanted.baseHi === EVENTQ_BASE.ADDR.getHi(registers, EVENTQ_BASE_WORD) &&
      queue.wanted.baseLo === EVENTQ_BASE.ADDR.getLo(registers, EVENTQ_BASE_WORD)
    );
  }

  #guestState(): GuestState {
    const { smmuEnabled, gbpaAbort, eventqEnabled, eventqLog2Size, registers } = this.#guest;
    return {
      smmuEnabled,
      gbpaAbort,
      eventqEnabled,
      eventqLog2Size,
      recordsBadStreamId: CR2.RECINVSID.get(registers, CR2_WORD) !== 0,
      eventqBaseHi: EVENTQ_BASE.ADDR.getHi(registers, EVENTQ_BASE_WORD),
      eventqBaseLo: EVENTQ_BASE.ADDR.getLo(registers, EVENTQ_BASE_WORD),
    };
  }

  /** The STE as it was at the guest's last CFGI. One that was not valid is not cached, and read again. */
  readonly #lookup = (sid: number, into: Uint32Array): number => {
    for (const plugged of this.#plugged.values()) {
      if (plugged.sid !== sid) continue;
      if (plugged.steStatus !== 0) plugged.steStatus = this.#guest.lookupSte(sid, plugged.ste);
      into.set(plugged.ste);
      return plugged.steStatus;
    }
    return this.#guest.lookupSte(sid, into);
  };

  /** Gives the record of a tripwire the name that is due. */
  #rename(words: Uint32Array): void {
    if (!tripped(words)) return;
    const stream = this.#actual.streamOf(EVENT_RECORD.StreamID.get(words));
    if (stream?.due === undefined) return;
    rename(words, stream.due);
    // C_BAD_STREAMID and F_STE_FETCH need no CFGI to end: an SMMU would look again for every transaction.
    if (stream.table?.target.kind !== 'tripwire') return;
    if (this.#guest.lookupSte(EVENT_RECORD.StreamID.get(words), this.#ste) !== stream.due.event)
      this.#outdated = true;
  }

  /** After a turn of the event bridge. */
  #turned(empty: boolean): void {
    if (empty)
      for (const stream of this.#actual.streams.values())
        if (stream.table?.target.kind !== 'tripwire') stream.due = undefined;
    if (!this.#outdated) return;
    this.#outdated = false;
    this.#run('a stream that had no valid STE was used');
  }

  #steLimits(): SteLimits {
    const { tripwireGpa } = this.#space;
    const [first] = this.#actual.streams.values();
    const hostStalls = first !== undefined && IDR0.STALL_MODEL.of(first.host.idr[0]) === 0b00;
    return {
      ats: IDR0.ATS.of(this.#ids.IDR0) !== 0,
      ssidSize: IDR1.SSIDSIZE.of(this.#ids.IDR1),
      // A fault that the hardware stalls never reaches the guest, and nobody would answer it.
      stallDisable: hostStalls ? 1 : 0,
      tripwire: tripwireGpa === undefined ? undefined : tripwire(tripwireGpa),
    };
  }

  /** Starts to collect the calls of one cause. */
  #begin(): void {
    this.#calls = [];
    if (this.#observer !== undefined) this.#space.caller.observer = (call) => this.#calls.push(call);
  }

  /** Reconciles, and reports. Called again from inside itself it makes another round instead. */
  #run(cause: string): void {
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    const before = queueMoment(this.#actual);
    if (this.#space.caller.observer === undefined) this.#begin();
    let guest = this.#guestState();
    try {
      do {
        this.#again = false;
        guest = this.#guestState();
        this.#desired = desired(guest, [...this.#plugged.values()], this.#lookup, this.#steLimits());
        reconcile(this.#actual, this.#desired);
      } while (this.#again);
    } finally {
      this.#running = false;
    }
    this.#eventqEnabled = guest.eventqEnabled;
    this.#queue = reportQueue(before, this.#actual, guest, this.#plugged.size);
    this.#report(cause);
    this.#askForRetry();
  }

  #askForRetry(): void {
    if (this.#actual.failures.size === 0) this.#attempts = 0;
    else if (!this.#retryDue && this.#retryLater !== undefined) {
      this.#retryDue = true;
      this.#retryLater(++this.#attempts);
    }
  }

  #report(cause: string): void {
    this.#space.caller.observer = undefined;
    const { viommu, queue, failures } = this.#actual;
    this.#observer?.({
      cause,
      operations: this.#calls,
      eventqEnabled: this.#eventqEnabled,
      viommu: viommu?.id,
      veventq: queue && { id: queue.veventq.id, depth: queue.veventq.depth },
      queue: this.#queue,
      failures: new Map(failures),
    });
  }
}
