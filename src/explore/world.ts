/**
 * A whole machine that is taken through one schedule, one atomic step at a time: the host with its tasks, the SMMU and
 * the accelerator, a guest without a driver, and beside them the model of what the guest has said. It checks itself
 * after every step, and at the end by use.
 */

import type { EventCounters } from '../accel/event-counters.ts';
import type { ReconcileReport } from '../accel/report.ts';
import type { Step } from '../machine/scenario/steps.ts';
import { Machine } from '../machine/machine.ts';
import { requesterId } from '../machine/pci-address.ts';
import { Scheduler } from '../machine/scheduler.ts';
import { restoreSnapshot, takeSnapshot } from '../machine/snapshot.ts';
import { BARE_PAGE, BARE_RAM, BareGuest } from '../guest/bare-guest.ts';
import type { GuestEvent } from '../guest/event.ts';
import { HostError } from '../iommufd/errors.ts';
import { Memory } from '../memory/memory.ts';
import { GUEST_DEFAULT } from '../smmu/identification.ts';
import { OUTCOME } from '../smmu/transaction.ts';
import { EVENTQ_PROD, OFFSET } from '../spec/registers.ts';
import { BenchHost, LOG2_TLB_ENTRIES, pathOf } from './bench-host.ts';
import { EventLedger } from './event-ledger.ts';
import { GuestModel, type ModelDevice, type Reach } from './guest-model.ts';
import { spaceOf } from './attached-table.ts';
import { carryOut } from './carry-out.ts';
import { Onlookers } from './onlookers.ts';
import { reachOf } from './reach-of.ts';
import type { Problem } from './problem.ts';
import { beforeStep, checkStep } from './step-checks.ts';
import { type Failure, WatchedKernel } from './watched-kernel.ts';

export interface WorldDevice {
  readonly name: string;
  /** Where the guest sees it, on bus 00. */
  readonly at: string;
}

/** A step that a world can take: those of a scenario for a bare guest but for `expect` and `check`. */
export type Action = {
  [Name in Step['action']]: { readonly action: Name; readonly args: Extract<Step, { action: Name }>['args'] };
}[Exclude<Step['action'], 'expect' | 'check'>];

/** RAM is used again by the next world: only the first part is ever written. */
const RAM = new Uint8Array(BARE_RAM.size);
const USED = 0x2_0000;
let template: Uint8Array | undefined;

function freshRam(): Uint8Array {
  if (template === undefined) {
    const memory = new Memory();
    memory.addRam(0, BARE_RAM.base, RAM);
    new BareGuest({ registers: { read: () => 0, readHi: 0, write() {} }, memory }).loadMemory();
    template = RAM.slice(0, USED);
  }
  RAM.set(template);
  return RAM;
}

export class World {
  readonly devices: readonly WorldDevice[];
  readonly host: BenchHost;
  readonly kernel: WatchedKernel;
  machine: Machine;
  readonly guest: BareGuest;
  readonly model: GuestModel;
  readonly ledger = new EventLedger();
  /** Retries that wait for time to pass. */
  readonly retries: (() => void)[] = [];
  /** An interrupt came since the guest last emptied its queue. */
  interrupted = false;
  /** Something was made to fail, ever. */
  everFailed = false;
  /** Faults are entered in the ledger; those of a probe are not. */
  audited = true;
  /** Devices that do DMA beside what happens. */
  readonly onlookers = new Onlookers(this);
  /** What the last `take` got, and where the last DMA went. */
  taken: GuestEvent[] = [];
  lastDma: { readonly ok: boolean; readonly reach: Reach | undefined } | undefined;
  /** Why the last step was refused by the host, if it was. */
  refusal: HostError | undefined;
  /** What became of the events of machines that were before this one. */
  #eventsBefore: Readonly<EventCounters> | undefined;
  readonly #memory = new Memory();
  readonly #observer: ((report: ReconcileReport) => void) | undefined;
  #failures: Failure[] = [];
  readonly #scheduler = new Scheduler();

  /** @param observer told of every reconcile. */
  constructor(devices: readonly WorldDevice[], observer?: (report: ReconcileReport) => void) {
    this.devices = devices;
    this.host = new BenchHost(devices.length);
    this.kernel = new WatchedKernel(this.host.sim);
    this.#observer = observer;
    this.#memory.addRam(0, BARE_RAM.base, freshRam());
    this.machine = this.#makeMachine();
    this.guest = new BareGuest({
      // Not those of one machine: it may give way to another.
      registers: {
        read: (offset, size) => this.machine.smmu.read(offset, size),
        readHi: 0,
        write: (offset, size, hi, lo) => this.machine.smmu.write(offset, size, hi, lo),
      },
      memory: this.#memory,
    });
    this.model = new GuestModel(devices.map(({ at }) => requesterId(at)));
  }

  #makeMachine(): Machine {
    const memory = this.#memory;
    const observer = this.#observer;
    const machine = new Machine({
      kernel: this.kernel,
      memory,
      ids: GUEST_DEFAULT,
      interrupts: {
        raise: (line) => {
          if (line === 'eventq') this.interrupted = true;
        },
        writeMsi: (hi, lo, data) => memory.store32(hi, lo, data) === 0,
      },
      scheduler: this.#scheduler,
      log2TlbEntries: LOG2_TLB_ENTRIES,
      later: (_, task) => this.retries.push(task),
      removed: (name) => this.goes(this.model.devices[this.indexOf(name)]),
      ...(observer !== undefined && { observer }),
    });
    machine.mapRam(BARE_RAM.base, RAM);
    return machine;
  }

  /** Where events went, since the beginning. */
  get events(): Readonly<EventCounters> {
    const { events } = this.machine.state;
    const before = this.#eventsBefore;
    if (before === undefined) return events;
    const sum = { ...events };
    for (const name of Object.keys(sum) as (keyof EventCounters)[]) sum[name] += before[name];
    return sum;
  }

  /** Number of a device by name. */
  indexOf(name: string): number {
    return this.devices.findIndex((device) => device.name === name);
  }

  /**
   * Takes a step. What makes no sense now, such as unplugging what is not there, does nothing.
   * @returns what the step did that must not be; {@link check} tells more.
   */
  perform(action: Action): Problem | undefined {
    if (action.action === 'fail') {
      const { ioctl, errno, nth } = action.args;
      this.#failures.push({ ioctl, errno, nth });
      return undefined;
    }
    const { kernel, ledger } = this;
    kernel.forget();
    for (const failure of this.#failures) kernel.fail(failure);
    this.#failures = [];
    this.refusal = undefined;
    const before = beforeStep(this);
    this.onlookers.start();
    let problem: Problem | undefined;
    try {
      carryOut(this, action);
      while (!this.#scheduler.idle) this.#scheduler.run(1);
    } catch (error) {
      if (error instanceof HostError && kernel.failed > 0) this.refusal = error;
      else problem = { invariant: 'exceptions', text: `${action.action} throws ${describeError(error)}` };
    }
    if (kernel.failed > 0) this.everFailed = true;
    const { events } = this;
    if (before.wantsQueue && !this.wantsQueue) ledger.close(events, this.model.eventqEnabled);
    // What could not be destroyed keeps what it is made of, and its place. Both end when it is tried again.
    if (this.everFailed)
      kernel.refusals = kernel.refusals.filter((refusal) => !/: (EBUSY|EEXIST)$/.test(refusal));
    if (kernel.refusals.length > 0) problem ??= { invariant: 'calls', text: kernel.refusals.join('; ') };
    if (this.audited)
      problem ??= ledger.look(this.guest.pendingEvents()) ?? ledger.check(events, this.overflow, false);
    problem ??= this.#checkTurns();
    return problem ?? checkStep(this, action, before);
  }

  #checkTurns(): Problem | undefined {
    const { machine, ledger, model, host } = this;
    const { veventq } = machine.state;
    const devices = model.devices.filter(({ plugged }) => plugged).length;
    const moment = {
      bySid: machine.accelerator.eventsBySid,
      lostInHost: this.events.lostInHost,
      backlog: veventq?.backlog ?? 0,
      atRest: veventq !== undefined && devices > 1 && host.tasks.length === 0,
    };
    return ledger.turns.settle(moment, this.audited && !this.everFailed);
  }

  /** There should be a vEVENTQ: while this holds, it is one life of it. */
  get wantsQueue(): boolean {
    return this.model.eventqEnabled && this.model.devices.some(({ plugged }) => plugged);
  }

  /** A device is about to go away. */
  goes(device: ModelDevice): void {
    this.model.leaves(device);
    device.plugged = false;
    device.leaving = false;
  }

  /** The virtual SMMU is saved, and a new one goes on where it was. */
  migrate(): void {
    const { delivered } = this.events;
    const snapshot = takeSnapshot(this.machine);
    // What is on its way to the guest is in the snapshot. The old machine goes on, and delivers it to nobody.
    this.#eventsBefore = { ...this.events, delivered };
    for (const { name } of this.machine.state.devices) this.machine.unplug(name);
    this.machine = this.#makeMachine();
    this.ledger.turns.moved();
    restoreSnapshot(this.machine, structuredClone(snapshot));
  }

  /** Where a read of the page by a device really goes. Caches fill, and the guest may get an event. */
  probe(device: number): Reach {
    this.audited = false;
    return this.read(device);
  }

  /** As {@link probe}, where no event can come of it. */
  read(device: number): Reach {
    const bytes = new Uint8Array(8);
    const ok = this.host.read(device, BigInt(BARE_PAGE), bytes) === OUTCOME.Ok;
    const reach = ok ? (reachOf(bytes) ?? -1) : 'abort';
    this.fills(device, reach);
    return reach;
  }

  /** A device has done DMA: what it used is cached. */
  fills(device: number, reach: Reach): void {
    const path = pathOf(device);
    const space = spaceOf(this.kernel.attachmentOf(path));
    if (space !== undefined) this.kernel.caches.used(path, space, this.model.rootOf(space), reach);
  }

  /** An overflow of the guest's queue is shown, and not acknowledged. */
  get overflow(): boolean {
    const { page1 } = this.machine.smmu;
    const differs = page1[(OFFSET.EVENTQ_PROD & 0xffff) >>> 2] ^ page1[(OFFSET.EVENTQ_CONS & 0xffff) >>> 2];
    return (differs & EVENTQ_PROD.OVFLG.inPlace) !== 0;
  }
}

const describeError = (error: unknown): string =>
  error instanceof Error ? `${error.name}: ${error.message}` : String(error);
