/** Plays one case of a scenario on a machine of its own. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { SmmuProperties } from '../../accel/properties.ts';
import { hiOf, loOf } from '../../bits/u64.ts';
import { explainWalk } from '../../explain/walk/explain-walk.ts';
import { formatWalk } from '../../explain/walk/format-walk.ts';
import { GuestDriverError } from '../../guest/errors.ts';
import { ReferenceGuest } from '../../guest/reference-guest.ts';
import { HostError } from '../../iommufd/errors.ts';
import { Memory } from '../../memory/memory.ts';
import { GUEST_DEFAULT } from '../../smmu/identification.ts';
import { SnapshotError } from '../../smmu/snapshot.ts';
import type { Smmu } from '../../smmu/smmu.ts';
import { Transaction } from '../../smmu/transaction.ts';
import type { TraceRing } from '../../trace/trace-ring.ts';
import { Machine } from '../machine.ts';
import type { Reporter } from '../report.ts';
import type { ScenarioHost } from '../scenario-host.ts';
import type { Scheduler } from '../scheduler.ts';
import { restoreSnapshot, takeSnapshot } from '../snapshot.ts';
import { CaseDma, RAM } from './case-dma.ts';
import { CaseRecord } from './case-record.ts';
import { describeStep } from './describe.ts';
import type { Verdict } from './expectations.ts';
import { FaultPolicy } from './fault-policy.ts';
import { GuestDevices } from './guest-devices.ts';
import type { Scenario, ScenarioCase } from './parse.ts';
import type { Expectation, Step } from './steps.ts';

/** What the driver may use of it; scenarios reach the rest by address. */
const DRIVER_RAM = { base: 0x4000_0000, size: 0x400_0000 };
/** Between two looks at what takes its time. */
const POLL_MS = 20;
/** How long nothing must happen for it to be believed, where things take their time. */
const QUIET_MS = 200;

/** What a scenario can cause. */
const isExpected = (error: unknown): error is Error =>
  error instanceof HostError ||
  error instanceof GuestDriverError ||
  error instanceof SnapshotError ||
  error instanceof RangeError;

export interface CaseOptions {
  readonly scenario: Scenario;
  readonly host: ScenarioHost;
  /** Makes another host like it. */
  readonly fresh: () => ScenarioHost;
  readonly scheduler: Scheduler;
  readonly report: Reporter;
  readonly trace: TraceRing | undefined;
}

export class CaseRun {
  readonly #report: Reporter;
  readonly #devices: GuestDevices;
  readonly #record: CaseRecord;
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
  readonly #dma: CaseDma;

  constructor({ scenario, host, fresh, scheduler, report, trace }: CaseOptions) {
    this.#report = report;
    this.#devices = new GuestDevices(scenario.devices, () => this.#guest);
    this.#dma = new CaseDma(report, this.#memory, this.#devices);
    this.#record = new CaseRecord(report, (sid) => this.#devices.withSid(sid));
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
      onEvent: (event) => this.#record.sawEvent(event),
      onStall: (event) => this.#policy.onStall(event),
      onPageRequest: (request) => this.#policy.onPageRequest(request),
    });
    this.#policy = new FaultPolicy({
      guest: () => this.#guest,
      map: (sid, iova, size) =>
        this.#map(this.#devices.withSid(sid)!.name, iova, size, { read: true, write: true }),
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
      observer: (reconcile) => this.#record.reconciled(reconcile),
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
    const paths = Object.fromEntries(this.#devices.names.map((name) => [name, this.#host.pathOf(name)]));
    restoreSnapshot(this.#machine, JSON.parse(this.#snapshot), { paths });
  }

  async play({ steps }: ScenarioCase): Promise<void> {
    for (const step of steps) {
      if (step.action === 'expect') {
        await this.#expect(step.args, step.line);
        continue;
      }
      this.#report({ kind: 'step', line: step.line, action: step.action, text: describeStep(step) });
      this.#record.begin();
      try {
        if (step.action === 'dma') await this.#dma.play(step, this.#machine, this.#host, this.#ram);
        else this.#do(step);
      } catch (error) {
        if (!isExpected(error)) throw error;
        const hint = error instanceof HostError && error.hint !== undefined ? ` ${error.hint}` : '';
        this.#report({ kind: 'expectation', line: step.line, ok: false, text: `${error.message}${hint}` });
      }
      await this.#settle(step.action === 'dma');
      this.#record.reportState(this.#machine.state);
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
        const { device } = step.args;
        this.#machine.plug(device, this.#host.pathOf(device), this.#devices.sidOf(device));
        break;
      }
      case 'unplug': {
        const { device } = step.args;
        this.#leave(device);
        this.#machine.unplug(device);
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
      case 'attach':
        this.#devices.attach(step.args.device);
        break;
      case 'bypass':
        guest.attachIdentity(this.#devices.introduce(step.args.device));
        break;
      case 'detach':
        guest.detach(this.#devices.introduce(step.args.device));
        break;
      case 'map': {
        const { device, iova, size, access } = step.args;
        this.#map(device, iova, size, { read: access !== 'w', write: access !== 'r' });
        break;
      }
      case 'unmap': {
        const { device, iova, size } = step.args;
        this.#devices.unmap(device, iova, size);
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
        const count = this.#policy.answerAll(this.#devices.sidOf(device), answer);
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
    const gpa = this.#devices.map(device, iova, size, access);
    const text = `${device}: IOVA 0x${iova.toString(16)} is now guest memory at 0x${gpa.toString(16)}.`;
    this.#report({ kind: 'note', text });
  }

  #explain({ args, line }: Extract<Step, { action: 'explain' }>): void {
    const { device, iova, access, ssid, cause } = args;
    const transaction = new Transaction();
    transaction.sid = this.#devices.sidOf(device);
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

  /** The guest's driver hears that a device goes. */
  #leave(device: string): void {
    this.#policy.forget(this.#devices.sidOf(device));
    this.#devices.leave(device);
  }

  /** The guest's kernel is gone, and with it all that it knew. */
  #forget(): void {
    this.#guest.forget();
    this.#devices.forget();
    this.#policy.forget();
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
    this.#record.seen(expected);
    for (const { ok, text } of verdicts) this.#report({ kind: 'expectation', line, ok, text });
  }

  #compare(expected: Expectation): Verdict[] {
    return this.#record.compare(expected, this.#machine, this.#guest, this.#host.objects());
  }

  async #wait(ms: number): Promise<void> {
    await sleep(ms);
    await this.#settle(false);
  }
}
