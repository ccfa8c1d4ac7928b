/** Plays a scenario with the embedded guest on either host. Each case has a fresh machine. */

import { setTimeout as sleep } from 'node:timers/promises';
import { callArguments, callResult, type QueueReport, type ReconcileReport } from '../../accel/report.ts';
import { describeCall } from '../../accel/call-sentences.ts';
import type { SmmuProperties } from '../../accel/properties.ts';
import { hiOf, loOf } from '../../bits/u64.ts';
import { explainWalk } from '../../explain/walk/explain-walk.ts';
import { formatWalk } from '../../explain/walk/format-walk.ts';
import { GuestDriverError } from '../../guest/errors.ts';
import type { GuestDomain } from '../../guest/domain.ts';
import type { GuestEvent } from '../../guest/event.ts';
import { ReferenceGuest } from '../../guest/reference-guest.ts';
import { HostError } from '../../iommufd/errors.ts';
import { Memory } from '../../memory/memory.ts';
import { GUEST_DEFAULT } from '../../smmu/identification.ts';
import { Transaction } from '../../smmu/transaction.ts';
import type { Smmu } from '../../smmu/smmu.ts';
import { SnapshotError } from '../../smmu/snapshot.ts';
import type { TraceRing } from '../../trace/trace-ring.ts';
import { EmbeddedHost } from '../embedded-host.ts';
import { eventAccount } from '../event-account.ts';
import { Machine } from '../machine.ts';
import { linuxName, requesterId } from '../pci-address.ts';
import type { Reporter } from '../report.ts';
import type { DmaRequest, ScenarioHost, Workspace } from '../scenario-host.ts';
import { Scheduler } from '../scheduler.ts';
import { restoreSnapshot, takeSnapshot } from '../snapshot.ts';
import { describeStep } from './describe.ts';
import { compare, type ObservedEvent, type Verdict } from './expectations.ts';
import { FaultPolicy } from './fault-policy.ts';
import type { Scenario, ScenarioCase, ScenarioDevice } from './parse.ts';
import type { Expectation, Step } from './steps.ts';

const RAM = { base: 0x4000_0000, size: 0x1000_0000 };
/** What the driver may use of it; scenarios reach the rest by address. */
const DRIVER_RAM = { base: 0x4000_0000, size: 0x400_0000 };
/** For devices that have to be loaded and emptied by DMA: the last page of RAM, and where they find it if translated. */
const WORKSPACE = { gpa: RAM.base + RAM.size - 0x1000, iova: 0xf_ffff_f000n, size: 0x1000 };

/** Between two looks at what takes its time. */
const POLL_MS = 20;
/** How long nothing must happen for it to be believed, where things take their time. */
const QUIET_MS = 200;

export interface RunResult {
  readonly cases: number;
  readonly expectations: number;
  readonly failed: number;
}

/** What a host may want to know of a scenario. */
export interface HostRequest {
  readonly scenario: Scenario;
  readonly scheduler: Scheduler;
  /** Told every line of the host's log, if it can be heard. */
  readonly log: (line: string) => void;
}

export type MakeHost = (request: HostRequest) => ScenarioHost;

const embeddedHost: MakeHost = ({ scenario: { devices, host }, scheduler, log }) =>
  new EmbeddedHost({ devices, smmu: host.smmu, scheduler, log });

/** What a run shows of its inside, besides what it reports. */
export interface RunObservation {
  /** Takes down all cases, one after the other. */
  readonly trace?: TraceRing | undefined;
  /** Told of each machine when its case has ended, and is still there. */
  readonly ended?: ((machine: Machine, scenarioCase: number) => void) | undefined;
}

/**
 * Plays all cases. Reports as it goes; does not throw for what a scenario can cause.
 * @param makeHost makes a host for each case; the embedded one by default.
 */
export async function runReferenceScenario(
  scenario: Scenario,
  report: Reporter,
  makeHost: MakeHost = embeddedHost,
  observation: RunObservation = {},
): Promise<RunResult> {
  let expectations = 0;
  let failed = 0;
  const count: Reporter = (event) => {
    if (event.kind === 'expectation') {
      expectations += 1;
      if (!event.ok) failed += 1;
    }
    report(event);
  };
  for (const [i, scenarioCase] of scenario.cases.entries()) {
    const scheduler = new Scheduler();
    const log = (text: string): void => report({ kind: 'host', text });
    const fresh = (): ScenarioHost => makeHost({ scenario, scheduler, log });
    const host = fresh();
    if (i === 0)
      report({
        kind: 'scenario',
        title: scenario.title,
        about: scenario.about ?? null,
        guest: 'the embedded reference driver',
        host: host.description,
      });
    report({ kind: 'case', number: i + 1, title: scenarioCase.title });
    observation.trace?.note('vsmmu_case', { title: scenarioCase.title });
    const run = new CaseRun({ scenario, host, fresh, scheduler, report: count, trace: observation.trace });
    try {
      await run.play(scenarioCase);
      report({ kind: 'events', ...eventAccount(run.machine) });
      observation.ended?.(run.machine, i + 1);
    } finally {
      run.close();
    }
  }
  const result = { cases: scenario.cases.length, expectations, failed };
  report({ kind: 'end', ...result });
  return result;
}

/** A piece of guest memory that a scenario mapped. */
interface Mapping {
  readonly iova: bigint;
  readonly size: bigint;
  readonly gpa: number;
}

/** The translated domain of a device, and what is in it. */
interface Domain {
  readonly domain: GuestDomain;
  mappings: Mapping[];
  /** The workspace is mapped in it. */
  workspace: boolean;
}

/** What a scenario can cause. */
const isExpected = (error: unknown): error is Error =>
  error instanceof HostError ||
  error instanceof GuestDriverError ||
  error instanceof SnapshotError ||
  error instanceof RangeError;

interface CaseOptions {
  readonly scenario: Scenario;
  readonly host: ScenarioHost;
  /** Makes another host like it. */
  readonly fresh: () => ScenarioHost;
  readonly scheduler: Scheduler;
  readonly report: Reporter;
  readonly trace: TraceRing | undefined;
}

class CaseRun {
  readonly #report: Reporter;
  readonly #devices: readonly ScenarioDevice[];
  readonly #scheduler: Scheduler;
  readonly #memory = new Memory();
  readonly #smmu: SmmuProperties;
  readonly #fresh: () => ScenarioHost;
  readonly #trace: TraceRing | undefined;
  #ram: Uint8Array;
  #host: ScenarioHost;
  #machine: Machine;
  /** As text, for it has to survive that. */
  #snapshot: string | undefined;
  readonly #guest: ReferenceGuest;
  readonly #policy: FaultPolicy;
  /** Devices that the guest's driver has been told of. */
  readonly #known = new Set<string>();
  readonly #domains = new Map<string, Domain>();
  /** What this step did to the vEVENTQ, if anything. */
  #queueReport: QueueReport | undefined;
  #events: ObservedEvent[] = [];
  #ioctls = 0;
  #pattern = 0;

  constructor({ scenario, host, fresh, scheduler, report, trace }: CaseOptions) {
    this.#report = report;
    this.#devices = scenario.devices;
    this.#smmu = scenario.smmu;
    this.#scheduler = scheduler;
    this.#fresh = fresh;
    this.#trace = trace;
    this.#host = host;
    this.#machine = this.#makeMachine();
    const smmu = (): Smmu => this.#machine.smmu;
    this.#guest = new ReferenceGuest({
      // Whichever SMMU it is now: a restore exchanges it under the guest.
      registers: {
        read: (offset, size) => smmu().read(offset, size),
        get readHi() {
          return smmu().readHi;
        },
        write: (offset, size, hi, lo) => smmu().write(offset, size, hi, lo),
      },
      memory: this.#memory,
      ram: DRIVER_RAM,
      relax: () => this.#scheduler.run(),
      onEvent: (event) => this.#sawEvent(event),
      onStall: (event) => this.#policy.onStall(event),
      onPageRequest: (request) => this.#policy.onPageRequest(request),
    });
    this.#policy = new FaultPolicy({
      guest: () => this.#guest,
      map: (sid, iova, size) => this.#mapPage(sid, iova, size),
    });
    this.#ram = host.ram(RAM.size);
    this.#machine.addRam(RAM.base, this.#ram);
  }

  get machine(): Machine {
    return this.#machine;
  }

  close(): void {
    this.#host.close();
  }

  #makeMachine(): Machine {
    return new Machine({
      kernel: this.#host.kernel,
      memory: this.#memory,
      ids: this.#host.fit(GUEST_DEFAULT),
      properties: this.#smmu,
      faultsOf: (path) => this.#host.faultsOf(path),
      interrupts: {
        raise: (line) => this.#scheduler.post(() => this.#guest.handleInterrupt(line)),
        writeMsi: (hi, lo, data) => this.#memory.store32(hi, lo, data) === 0,
      },
      scheduler: this.#scheduler,
      observer: (reconcile) => this.#reconciled(reconcile),
      removed: (name) => {
        this.#report({ kind: 'note', text: `${name}: the host takes the device away, so it is unplugged.` });
        this.#leave(name);
      },
      ...(this.#trace !== undefined && { trace: this.#trace }),
    });
  }

  /** Ends the host, and with it all that the machine has there, and goes on with the snapshot on another one. */
  #restore(): void {
    if (this.#snapshot === undefined) throw new RangeError('There is no snapshot: take one first');
    for (const { name } of this.#machine.state.devices) this.#machine.unplug(name);
    const old = this.#host;
    const ram = this.#ram;
    this.#host = this.#fresh();
    this.#ram = this.#host.ram(RAM.size);
    this.#ram.set(ram);
    this.#memory.remove(0, RAM.base, RAM.size);
    old.close();
    this.#machine = this.#makeMachine();
    this.#machine.addRam(RAM.base, this.#ram);
    const paths = Object.fromEntries(this.#devices.map(({ name }) => [name, this.#host.pathOf(name)]));
    restoreSnapshot(this.#machine, JSON.parse(this.#snapshot), { paths });
  }

  async play({ steps }: ScenarioCase): Promise<void> {
    for (const step of steps) {
      if (step.action === 'expect') {
        await this.#expect(step.args, step.line);
        continue;
      }
      this.#report({ kind: 'step', line: step.line, action: step.action, text: describeStep(step) });
      this.#queueReport = undefined;
      try {
        if (step.action === 'dma') await this.#dma(step);
        else this.#do(step);
      } catch (error) {
        if (!isExpected(error)) throw error;
        const hint = error instanceof HostError && error.hint !== undefined ? ` ${error.hint}` : '';
        this.#report({ kind: 'expectation', line: step.line, ok: false, text: `${error.message}${hint}` });
      }
      await this.#settle(step.action === 'dma');
      this.#reportState();
    }
  }

  /** Lets everything that is under way come to rest. @param stirred hardware was set off. */
  async #settle(stirred: boolean): Promise<void> {
    if (!(await this.#host.settle(this.#scheduler, stirred)))
      this.#report({ kind: 'expectation', line: 0, ok: false, text: 'the machine does not come to rest' });
  }

  #do(step: Exclude<Step, { action: 'expect' | 'dma' }>): void {
    const guest = this.#guest;
    switch (step.action) {
      case 'plug': {
        const { name, at } = this.#device(step.args.device);
        this.#machine.plug(name, this.#host.pathOf(name), requesterId(at));
        break;
      }
      case 'unplug': {
        const { name } = this.#device(step.args.device);
        this.#leave(name);
        this.#machine.unplug(name);
        break;
      }
      case 'reset':
        this.#forget();
        this.#machine.reset();
        break;
      case 'snapshot':
        this.#snapshot = JSON.stringify(takeSnapshot(this.#machine));
        this.#report({ kind: 'note', text: `The snapshot has ${this.#snapshot.length} characters.` });
        break;
      case 'restore':
        this.#restore();
        break;
      case 'probe':
        // A driver that is there already is a kernel that crashed: nobody shuts it down.
        this.#forget();
        guest.probe({
          kdump: step.args.kdump,
          ...(step.args.eventq !== undefined && { eventqLog2: step.args.eventq }),
        });
        break;
      case 'shutdown':
        guest.shutdown();
        this.#forget();
        break;
      case 'eventq':
        guest.setEventQueueEnabled(step.args.on);
        break;
      case 'attach': {
        const sid = this.#introduce(step.args.device);
        this.#domains.set(step.args.device, { domain: guest.attach(sid), mappings: [], workspace: false });
        break;
      }
      case 'bypass':
        guest.attachIdentity(this.#introduce(step.args.device));
        break;
      case 'detach':
        guest.detach(this.#introduce(step.args.device));
        break;
      case 'map': {
        const { device, iova, size, access } = step.args;
        this.#map(device, iova, size, { read: access !== 'w', write: access !== 'r' });
        break;
      }
      case 'unmap': {
        const { device, iova, size } = step.args;
        const entry = this.#domain(device);
        entry.domain.unmap(iova, Number(size));
        entry.mappings = entry.mappings.filter(
          (mapping) => mapping.iova < iova || mapping.iova >= iova + size,
        );
        this.#report({
          kind: 'note',
          text: `${device}: IOVA 0x${iova.toString(16)} is unmapped and invalidated.`,
        });
        break;
      }
      case 'on-fault':
        this.#policy.answer = step.args.do;
        break;
      case 'answer': {
        const { device, with: answer } = step.args;
        const count = this.#policy.answerAll(requesterId(this.#device(device).at), answer);
        this.#report({ kind: 'note', text: `${device}: ${count} faults that waited are answered.` });
        break;
      }
      case 'explain':
        this.#explain(step);
        break;
      default:
        throw new Error(`${step.action} needs another guest, which the scenario's check has seen to`);
    }
  }

  /** Maps fresh guest memory for a device. */
  #map(device: string, iova: bigint, size: bigint, access: { read: boolean; write: boolean }): void {
    const { domain, mappings } = this.#domain(device);
    const gpa = this.#guest.allocate(Number(size));
    domain.map(iova, gpa, Number(size), access);
    mappings.push({ iova, size, gpa });
    const text = `${device}: IOVA 0x${iova.toString(16)} is now guest memory at 0x${gpa.toString(16)}.`;
    this.#report({ kind: 'note', text });
  }

  /** The page that a fault wants. */
  #mapPage(sid: number, iova: bigint, size: bigint): void {
    const device = this.#devices.find(({ at }) => requesterId(at) === sid)!;
    this.#map(device.name, iova, size, { read: true, write: true });
  }

  #explain({ args, line }: Extract<Step, { action: 'explain' }>): void {
    const { device, iova, access, ssid, cause } = args;
    const transaction = new Transaction();
    transaction.sid = requesterId(this.#device(device).at);
    transaction.ssv = ssid !== undefined;
    transaction.ssid = ssid ?? 0;
    transaction.addrHi = hiOf(iova);
    transaction.addrLo = loOf(iova);
    transaction.write = access === 'w';
    transaction.instruction = access === 'x';
    const walk = explainWalk(this.#machine.smmu, transaction);
    this.#report({ kind: 'walk', device, walk, text: formatWalk(walk) });
    if (cause === undefined) return;
    const found = walk.cause?.field ?? 'none';
    this.#report({
      kind: 'expectation',
      line,
      ok: found === cause,
      text: `what stops the access is ${cause}${found === cause ? '' : ` was expected, but it is ${found}`}`,
    });
  }

  #device(name: string): ScenarioDevice {
    return this.#devices.find((device) => device.name === name)!;
  }

  /** Tells the guest's driver of a device, if it does not know it yet. @returns its StreamID. */
  #introduce(name: string): number {
    const { at, faults } = this.#device(name);
    const sid = requesterId(at);
    if (!this.#known.has(name)) {
      this.#guest.addDevice({
        sid,
        name: linuxName(at),
        canStall: faults === 'stall',
        // The host turns the device's own switch.
        ...(faults === 'page-request' && { ats: { enable() {}, disable() {} } }),
      });
      this.#known.add(name);
    }
    return sid;
  }

  /** The guest's driver hears that a device goes. */
  #leave(name: string): void {
    const sid = requesterId(this.#device(name).at);
    this.#domains.delete(name);
    this.#policy.forget(sid);
    if (this.#known.delete(name)) this.#guest.removeDevice(sid);
  }

  #domain(name: string): Domain {
    const domain = this.#domains.get(name);
    if (domain === undefined) throw new RangeError(`${name} has no domain: attach it first`);
    return domain;
  }

  /** The guest's kernel is gone, and with it all that it knew. */
  #forget(): void {
    this.#guest.forget();
    this.#known.clear();
    this.#domains.clear();
    this.#policy.forget();
  }

  async #dma({ args, line }: Extract<Step, { action: 'dma' }>): Promise<void> {
    const { device } = args;
    const size = Math.min(args.bytes, this.#host.largestDma);
    const write = args.write !== undefined;
    const iova = args.write ?? args.read ?? 0n;
    let gpa = this.#guestAddress(device, iova);
    const sent = this.#nextPattern(size);
    const bytes = write ? sent : new Uint8Array(size);
    // What is there before a write is neither what it sends nor zero, so that it shows whether anything arrived.
    const before = write ? sent.map((byte) => ~byte) : sent;
    if (gpa !== undefined) this.#memory.writeBytes(hiOf(gpa), loOf(gpa), before);

    const outcome = await this.#host.dma({
      device,
      vfio: this.#machine.accelerator.device(device),
      write,
      iova,
      bytes,
      workspace: () => this.#workspace(device),
      ram: this.#ram,
    } satisfies DmaRequest);
    const ok = outcome === 'ok';
    // The guest may have mapped it meanwhile, because it faulted. What was there before is of no interest then.
    gpa ??= ok ? this.#guestAddress(device, iova) : undefined;
    const inRam = new Uint8Array(size);
    if (gpa !== undefined) this.#memory.readBytes(hiOf(gpa), loOf(gpa), inRam);
    const same = gpa === undefined || bytes.every((byte, i) => byte === inRam[i]);
    const untouched = gpa === undefined || before.every((byte, i) => byte === inRam[i]);
    const arrived =
      gpa === undefined ? 'done' : same ? 'done, and the data compares equal' : 'done, but the data differs';
    const wanting = outcome === 'wait' ? 'waits for the guest' : 'aborted';
    const aborted = untouched ? wanting : `${wanting}, but memory has changed`;
    this.#report({
      kind: 'dma',
      device,
      access: write ? 'write' : 'read',
      iova: `0x${iova.toString(16)}`,
      bytes: size,
      outcome,
      text: `${device} ${write ? 'writes' : 'reads'} ${size} bytes at 0x${iova.toString(16)}: ${ok ? arrived : aborted}.`,
    });
    if (args.expect !== undefined)
      this.#report({
        kind: 'expectation',
        line,
        ok: outcome === args.expect && (ok ? same : untouched),
        text: `the DMA was expected to end with ${args.expect}${(ok ? same : untouched) ? '' : `, and memory to have ${ok ? 'the same data' : 'what it had'}`}`,
      });
  }

  #nextPattern(size: number): Uint8Array {
    this.#pattern = (this.#pattern + 0x3b) & 0xff;
    return Uint8Array.from({ length: size }, (_, i) => this.#pattern + i);
  }

  /** Memory that a device reaches: mapped for it, where it has a domain, and at its own address otherwise. */
  #workspace(device: string): Workspace {
    const at = WORKSPACE.gpa - RAM.base;
    const bytes = this.#ram.subarray(at, at + WORKSPACE.size);
    const entry = this.#domains.get(device);
    if (entry === undefined || this.#attachment(device) !== 'translate')
      return { iova: BigInt(WORKSPACE.gpa), bytes };
    if (!entry.workspace) entry.domain.map(WORKSPACE.iova, WORKSPACE.gpa, WORKSPACE.size);
    entry.workspace = true;
    return { iova: WORKSPACE.iova, bytes };
  }

  #attachment(device: string): string | undefined {
    return this.#machine.state.devices.find(({ name }) => name === device)?.attached;
  }

  /** Where a DMA should end in guest memory, as far as the scenario knows. */
  #guestAddress(device: string, iova: bigint): bigint | undefined {
    const mapping = this.#domains.get(device)?.mappings.find((m) => iova >= m.iova && iova < m.iova + m.size);
    if (mapping !== undefined) return BigInt(mapping.gpa) + (iova - mapping.iova);
    return this.#attachment(device) === 'bypass' ? iova : undefined;
  }

  #reconciled({ operations, queue }: ReconcileReport): void {
    // A step may set off several rounds; the one that changed something says why.
    const changed = queue.change !== 'kept' && queue.change !== 'absent';
    if (this.#queueReport === undefined || changed) this.#queueReport = queue;
    this.#ioctls += operations.length;
    for (const call of operations)
      this.#report({
        kind: 'operation',
        operation: call.operation,
        text: describeCall(call),
        detail: callArguments(call),
        result: callResult(call),
      });
  }

  #sawEvent(event: GuestEvent): void {
    const device = this.#devices.find(({ at }) => requesterId(at) === event.sid);
    this.#events.push({
      type: event.name,
      device: device?.name,
      iova: event.iova,
      access: event.read ? 'read' : 'write',
      stage: event.stage,
      ssid: event.ssid,
      stall: event.stall,
    });
    const words: string[] = [];
    for (let i = 0; i < event.words.length; i += 2)
      words.push(
        `0x${((BigInt(event.words[i + 1]) << 32n) | BigInt(event.words[i])).toString(16).padStart(16, '0')}`,
      );
    this.#report({
      kind: 'event',
      type: event.name,
      device: device?.name ?? null,
      sid: `0x${event.sid.toString(16)}`,
      words,
      text: `${event.name} client: ${event.client ?? '(unassigned sid)'} sid: 0x${event.sid.toString(16)} iova: 0x${event.iova.toString(16)}${event.stall ? ', and waits' : ''}`,
    });
  }

  #reportState(): void {
    const { eventqEnabled, viommu, veventq, queue, devices } = this.#machine.state;
    this.#report({
      kind: 'state',
      eventqen: eventqEnabled,
      viommu: viommu ?? null,
      veventq: veventq === undefined ? null : { id: veventq.id, depth: veventq.depth },
      ...(this.#queueReport ?? queue),
      attached: Object.fromEntries(devices.map(({ name, attached }) => [name, attached])),
    });
  }

  async #expect(expected: Expectation, line: number): Promise<void> {
    const patience = this.#host.patienceMs;
    // What must not happen needs a moment in which it could.
    if (patience > 0 && expected.events?.length === 0) await this.#wait(QUIET_MS);
    let verdicts = this.#compare(expected);
    const deadline = performance.now() + patience;
    while (verdicts.some(({ ok }) => !ok) && performance.now() < deadline) {
      await this.#wait(POLL_MS);
      verdicts = this.#compare(expected);
    }
    if (expected.events !== undefined) this.#events = [];
    if (expected.ioctls !== undefined) this.#ioctls = 0;
    for (const { ok, text } of verdicts) this.#report({ kind: 'expectation', line, ok, text });
  }

  async #wait(ms: number): Promise<void> {
    await sleep(ms);
    await this.#settle(false);
  }

  #compare(expected: Expectation): Verdict[] {
    const { eventqEnabled, viommu, veventq, devices } = this.#machine.state;
    return compare(expected, {
      eventqen: eventqEnabled,
      viommu: viommu !== undefined,
      veventq: veventq?.depth,
      attached: Object.fromEntries(devices.map(({ name, attached }) => [name, attached])),
      objects: this.#host.objects(),
      ioctls: this.#ioctls,
      waiting: this.#machine.state.faults.reduce((sum, { outstanding }) => sum + outstanding, 0),
      smmu: Object.fromEntries(
        this.#machine.identity.resolved.properties.map(({ property, value }) => [property, value]),
      ),
      overflow: this.#guest.overflows > 0,
      warnings: this.#guest.warnings,
      events: this.#events,
      dmesg: this.#guest.dmesg,
    });
  }
}
