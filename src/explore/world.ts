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
import {
  BARE_FRAMES,
  BARE_PAGE,
  BARE_RAM,
  BareGuest,
  frameMark,
  IDENTITY_FRAME,
} from '../guest/bare-guest.ts';
import type { GuestEvent } from '../guest/event.ts';
import { HostError } from '../iommufd/errors.ts';
import { Memory } from '../memory/memory.ts';
import { GUEST_DEFAULT } from '../smmu/identification.ts';
import { OUTCOME } from '../smmu/transaction.ts';
import { EVENTQ_PROD, OFFSET } from '../spec/registers.ts';
import { BenchHost, LOG2_TLB_ENTRIES, pathOf } from './bench-host.ts';
import { EventLedger } from './event-ledger.ts';
import { GuestModel, type ModelDevice, type Reach } from './guest-model.ts';
import { Onlookers } from './onlookers.ts';
import type { Problem } from './problem.ts';
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
      removed: (name) => this.#goes(this.model.devices[this.indexOf(name)]),
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
    const before = this.machine.state.failures.size > 0 ? undefined : this.#attachments();
    const wanted = this.#wantsQueue;
    this.onlookers.start();
    let problem: Problem | undefined;
    try {
      this.#do(action);
      while (!this.#scheduler.idle) this.#scheduler.run(1);
    } catch (error) {
      if (error instanceof HostError && kernel.failed > 0) this.refusal = error;
      else problem = { invariant: 'exceptions', text: `${action.action} throws ${describeError(error)}` };
    }
    if (kernel.failed > 0) this.everFailed = true;
    const { events } = this;
    if (wanted && !this.#wantsQueue) ledger.close(events, this.model.eventqEnabled);
    // What could not be destroyed keeps what it is made of, and its place. Both end when it is tried again.
    if (this.everFailed)
      kernel.refusals = kernel.refusals.filter((refusal) => !/: (EBUSY|EEXIST)$/.test(refusal));
    if (kernel.refusals.length > 0) problem ??= { invariant: 'calls', text: kernel.refusals.join('; ') };
    if (this.audited)
      problem ??= ledger.look(this.guest.pendingEvents()) ?? ledger.check(events, this.overflow, false);
    if (action.action === 'plug') problem ??= this.#checkPlug(action.args.device);
    problem ??= this.onlookers.check(action, before === undefined);
    return problem ?? this.#checkHitless(action, before);
  }

  /** A plug that cannot be served is refused: one that succeeds has attached the device to something. */
  #checkPlug(name: string): Problem | undefined {
    const i = this.indexOf(name);
    if (!this.model.devices[i].plugged || this.kernel.attachmentOf(pathOf(i)) !== 'nothing') return undefined;
    return { invariant: 'attachment', text: `${name} was plugged, and is attached to nothing.` };
  }

  /** There should be a vEVENTQ: while this holds, it is one life of it. */
  get #wantsQueue(): boolean {
    return this.model.eventqEnabled && this.model.devices.some(({ plugged }) => plugged);
  }

  #do(action: Action): void {
    const { machine, guest, model } = this;
    switch (action.action) {
      case 'plug': {
        const i = this.indexOf(action.args.device);
        const device = model.devices[i];
        if (device.plugged) return;
        this.host.provide(i);
        machine.plug(action.args.device, pathOf(i), device.sid);
        device.plugged = true;
        model.arrives(device);
        return;
      }
      case 'unplug': {
        const device = model.devices[this.indexOf(action.args.device)];
        if (device.plugged) this.#goes(device);
        machine.unplug(action.args.device);
        return;
      }
      case 'move': {
        const device = model.devices[this.indexOf(action.args.device)];
        model.leaves(device);
        device.sid = requesterId(action.args.at);
        model.arrives(device);
        machine.accelerator.setSid(action.args.device, device.sid);
        return;
      }
      case 'reset':
        model.reset();
        this.interrupted = false;
        this.ledger.moved();
        machine.reset();
        return;
      case 'setup':
        if (machine.smmu.registers[OFFSET.CR0 >>> 2] !== 0) return;
        guest.setUp();
        model.isSetUp = true;
        this.ledger.moved();
        return;
      case 'cr0': {
        const { smmuen = model.smmuEnabled, eventqen = model.eventqEnabled, cmdqen } = action.args;
        if (smmuen !== model.smmuEnabled) model.refreshAll();
        model.smmuEnabled = smmuen;
        model.eventqEnabled = eventqen;
        if (cmdqen !== undefined) model.isSetUp = cmdqen;
        guest.setCr0(action.args);
        return;
      }
      case 'gbpa':
        model.gbpaAbort = action.args.to === 'abort';
        guest.setGbpa(model.gbpaAbort);
        return;
      case 'move-eventq':
        if (model.eventqEnabled) return;
        model.eventqLog2 = action.args.log2;
        model.eventqPlace = action.args.place;
        this.ledger.moved();
        this.interrupted = false;
        guest.moveEventQueue(action.args.log2, action.args.place);
        return;
      case 'move-strtab':
        if (model.smmuEnabled) return;
        model.streamTable = action.args.table;
        model.refreshAll();
        guest.moveStreamTable(action.args.table);
        return;
      case 'ste': {
        const { device, is, space } = action.args;
        const { sid } = model.devices[this.indexOf(device)];
        model.storeSte(sid, is === 'translate' ? space : is);
        guest.storeSte(sid, is, space);
        return;
      }
      case 'cd':
        model.storeCd(action.args.space, action.args.root);
        guest.storeCd(action.args.space, action.args.root);
        return;
      case 'page':
        model.storePage(action.args.space, action.args.frame);
        guest.storePage(action.args.space, action.args.frame);
        return;
      case 'cfgi': {
        const { device } = action.args;
        const sid = device === undefined ? undefined : model.devices[this.indexOf(device)].sid;
        model.invalidateSte(sid);
        guest.invalidateSte(sid);
        return;
      }
      case 'cfgi-cd': {
        const { sid } = model.devices[this.indexOf(action.args.device)];
        model.invalidateCd(sid);
        model.issued(`cd${action.args.all === true ? 's' : ''}${sid}`);
        guest.invalidateCd(sid, action.args.all);
        return;
      }
      case 'tlbi':
        model.invalidateTlb(action.args.space);
        model.issued(`tlb${action.args.space ?? ''}`);
        guest.invalidateTlb(action.args.space);
        return;
      case 'tlbi-va': {
        const { space, range = false } = action.args;
        model.invalidateTlb(space);
        model.issued(`va${space ?? ''}${range ? 'r' : ''}`);
        guest.invalidatePage(space, range);
        return;
      }
      case 'sync':
        guest.sync();
        model.sync();
        return;
      case 'take': {
        const pending = guest.pendingEvents().length;
        const count = action.args.count ?? pending;
        // Room may let others in at once, with another interrupt.
        if (count >= pending) this.interrupted = false;
        this.taken.push(...guest.takeEvents(count).events);
        this.ledger.took(Math.min(count, pending), count >= pending);
        return;
      }
      case 'deliver':
        this.host.tasks.shift()?.run();
        return;
      case 'remove': {
        const i = this.indexOf(action.args.device);
        model.devices[i].leaving = model.devices[i].plugged;
        this.host.label = action.args.device;
        this.host.sim.removeDevice(pathOf(i));
        this.host.label = '';
        return;
      }
      case 'race':
        this.onlookers.racing = true;
        this.audited = false;
        return;
      case 'migrate':
        this.#migrate();
        return;
      case 'retry':
        this.retries.shift()?.();
        return;
      case 'dma':
        this.#dma(action.args);
        return;
      default:
        throw new RangeError(`${action.action} is not for a bare guest`);
    }
  }

  /** A device is about to go away. */
  #goes(device: ModelDevice): void {
    this.model.leaves(device);
    device.plugged = false;
    device.leaving = false;
  }

  /** The virtual SMMU is saved, and a new one goes on where it was. */
  #migrate(): void {
    const { delivered } = this.events;
    const snapshot = takeSnapshot(this.machine);
    // What is on its way to the guest is in the snapshot. The old machine goes on, and delivers it to nobody.
    this.#eventsBefore = { ...this.events, delivered };
    for (const { name } of this.machine.state.devices) this.machine.unplug(name);
    this.machine = this.#makeMachine();
    restoreSnapshot(this.machine, structuredClone(snapshot));
  }

  #dma({ device, read, write, bytes: size }: Extract<Action, { action: 'dma' }>['args']): void {
    const i = this.indexOf(device);
    const { model } = this;
    const iova = write ?? read ?? 0n;
    const bytes = new Uint8Array(size);
    const ste = this.#expectsFaults(model.devices[i]) ? model.certainSte(model.devices[i]) : undefined;
    const outcome = write === undefined ? this.host.read(i, iova, bytes) : this.host.write(i, iova, bytes);
    const ok = outcome === OUTCOME.Ok;
    const reach = ok && write === undefined && iova === BigInt(BARE_PAGE) ? reachOf(bytes) : undefined;
    this.lastDma = { ok, reach: ok ? reach : 'abort' };
    model.uses(model.devices[i], ok ? (reach ?? 'abort') : 'abort');
    if (ok || ste === undefined) return;
    // 7.3.4: C_BAD_STE has no address.
    if (ste === 'invalid') this.ledger.fault('C_BAD_STE', model.devices[i].sid, 0n);
    else if (typeof ste === 'number') this.ledger.fault('F_TRANSLATION', model.devices[i].sid, iova);
  }

  /** A fault of this device would come to the guest: there is a vEVENTQ, and no failure is in the way. */
  #expectsFaults({ plugged }: ModelDevice): boolean {
    const { model, machine } = this;
    return plugged && model.smmuEnabled && model.eventqEnabled && machine.state.failures.size === 0;
  }

  /** Where a read of the page by a device really goes. Caches fill, and the guest may get an event. */
  probe(device: number): Reach {
    this.audited = false;
    return this.read(device);
  }

  /** As {@link probe}, where no event can come of it. */
  read(device: number): Reach {
    const bytes = new Uint8Array(8);
    if (this.host.read(device, BigInt(BARE_PAGE), bytes) !== OUTCOME.Ok) return 'abort';
    return reachOf(bytes) ?? -1;
  }

  /** An overflow of the guest's queue is shown, and not acknowledged. */
  get overflow(): boolean {
    const { page1 } = this.machine.smmu;
    const differs = page1[(OFFSET.EVENTQ_PROD & 0xffff) >>> 2] ^ page1[(OFFSET.EVENTQ_CONS & 0xffff) >>> 2];
    return (differs & EVENTQ_PROD.OVFLG.inPlace) !== 0;
  }

  /** What each device is attached to, as the kernel saw it. */
  #attachments(): (string | undefined)[] {
    return this.devices.map((_, i) => this.kernel.attachmentOf(pathOf(i)));
  }

  /** A translation gives way to another in one step, and what stays is not touched. */
  #checkHitless(action: Action, before: readonly (string | undefined)[] | undefined): Problem | undefined {
    const { kernel } = this;
    if (
      action.action !== 'cfgi' ||
      before === undefined ||
      kernel.failed > 0 ||
      this.machine.state.failures.size > 0
    )
      return undefined;
    const after = this.#attachments();
    let changed = 0;
    for (const [i, table] of after.entries()) if (table !== before[i]) changed += 1;
    const calls = (name: string): number => kernel.ioctls.filter((ioctl) => ioctl === name).length;
    const attaches = calls('VFIO_DEVICE_ATTACH_IOMMUFD_PT');
    const detaches = calls('VFIO_DEVICE_DETACH_IOMMUFD_PT');
    if (attaches > changed || detaches > 0)
      return {
        invariant: 'hitless',
        text: `${changed} devices needed another table, and there were ${attaches} attachments and ${detaches} detachments.`,
      };
    // What was invalidated before has to be done before the CFGI; the rest is for a change.
    const others = kernel.ioctls.filter((name) => name !== 'IOMMU_HWPT_INVALIDATE');
    if (changed === 0 && others.length > 0)
      return { invariant: 'hitless', text: `Nothing changed, and there were calls: ${others.join(', ')}.` };
    return undefined;
  }
}

/** Which frame the bytes come from. */
function reachOf(bytes: Uint8Array): number | undefined {
  const mark = new DataView(bytes.buffer).getUint32(0, true);
  for (let frame = 0; frame < BARE_FRAMES; frame++) if (mark === frameMark(frame)) return frame;
  return mark === frameMark(IDENTITY_FRAME) ? IDENTITY_FRAME : undefined;
}

const describeError = (error: unknown): string =>
  error instanceof Error ? `${error.name}: ${error.message}` : String(error);
