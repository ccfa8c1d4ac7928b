/** Plays a scenario with the embedded guest on the embedded host. Each case has a fresh machine. */

import { callArguments, callResult, type QueueReport, type ReconcileReport } from '../../accel/report.ts';
import { hiOf, loOf } from '../../bits/u64.ts';
import { GuestDriverError } from '../../guest/errors.ts';
import type { GuestDomain } from '../../guest/domain.ts';
import type { GuestEvent } from '../../guest/event.ts';
import { ReferenceGuest } from '../../guest/reference-guest.ts';
import { HostError } from '../../iommufd/errors.ts';
import { Memory } from '../../memory/memory.ts';
import { GUEST_DEFAULT } from '../../smmu/identification.ts';
import { OUTCOME } from '../../smmu/transaction.ts';
import { EmbeddedHost } from '../embedded-host.ts';
import { Machine } from '../machine.ts';
import { linuxName, requesterId } from '../pci-address.ts';
import type { Reporter } from '../report.ts';
import { Scheduler } from '../scheduler.ts';
import { describeStep } from './describe.ts';
import { compare, type ObservedEvent } from './expectations.ts';
import type { Scenario, ScenarioCase, ScenarioDevice } from './parse.ts';
import type { Expectation, Step } from './steps.ts';

const RAM = { base: 0x4000_0000, size: 0x1000_0000 };
/** What the driver may use of it; scenarios reach the rest by address. */
const DRIVER_RAM = { base: 0x4000_0000, size: 0x400_0000 };

export interface RunResult {
  readonly cases: number;
  readonly expectations: number;
  readonly failed: number;
}

/** Plays all cases. Reports as it goes; does not throw for what a scenario can cause. */
export function runReferenceScenario(scenario: Scenario, report: Reporter): RunResult {
  report({
    kind: 'scenario',
    title: scenario.title,
    about: scenario.about ?? null,
    guest: 'the embedded reference driver',
    host: 'embedded Linux 7.3 iommufd over a simulated SMMUv3',
  });
  let expectations = 0;
  let failed = 0;
  for (const [i, scenarioCase] of scenario.cases.entries()) {
    report({ kind: 'case', number: i + 1, title: scenarioCase.title });
    const run = new CaseRun(scenario, (event) => {
      if (event.kind === 'expectation') {
        expectations += 1;
        if (!event.ok) failed += 1;
      }
      report(event);
    });
    run.play(scenarioCase);
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
}

class CaseRun {
  readonly #report: Reporter;
  readonly #devices: readonly ScenarioDevice[];
  readonly #scheduler = new Scheduler();
  readonly #memory = new Memory();
  readonly #host: EmbeddedHost;
  readonly #machine: Machine;
  readonly #guest: ReferenceGuest;
  /** Devices that the guest's driver has been told of. */
  readonly #known = new Set<string>();
  readonly #domains = new Map<string, Domain>();
  /** What this step did to the vEVENTQ, if anything. */
  #queueReport: QueueReport | undefined;
  #events: ObservedEvent[] = [];
  #ioctls = 0;
  #pattern = 0;

  constructor(scenario: Scenario, report: Reporter) {
    this.#report = report;
    this.#devices = scenario.devices;
    this.#host = new EmbeddedHost({
      devices: scenario.devices,
      smmu: scenario.host.smmu,
      scheduler: this.#scheduler,
      log: (text) => report({ kind: 'host', text }),
    });
    this.#machine = new Machine({
      kernel: this.#host.kernel,
      memory: this.#memory,
      ids: GUEST_DEFAULT,
      interrupts: {
        raise: (line) => this.#scheduler.post(() => this.#guest.handleInterrupt(line)),
        writeMsi: (hi, lo, data) => this.#memory.store32(hi, lo, data) === 0,
      },
      scheduler: this.#scheduler,
      observer: (reconcile) => this.#reconciled(reconcile),
    });
    this.#guest = new ReferenceGuest({
      registers: this.#machine.smmu,
      memory: this.#memory,
      ram: DRIVER_RAM,
      relax: () => this.#scheduler.run(),
      onEvent: (event) => this.#sawEvent(event),
    });
    this.#machine.addRam(RAM.base, new Uint8Array(RAM.size));
  }

  play({ steps }: ScenarioCase): void {
    for (const step of steps) {
      if (step.action === 'expect') {
        this.#expect(step.args, step.line);
        continue;
      }
      this.#report({ kind: 'step', line: step.line, action: step.action, text: describeStep(step) });
      this.#queueReport = undefined;
      try {
        this.#do(step);
      } catch (error) {
        if (!(error instanceof HostError || error instanceof GuestDriverError || error instanceof RangeError))
          throw error;
        const hint = error instanceof HostError && error.hint !== undefined ? ` ${error.hint}` : '';
        this.#report({ kind: 'expectation', line: step.line, ok: false, text: `${error.message}${hint}` });
      }
      this.#settle();
      this.#reportState();
    }
  }

  /** Lets everything that is under way come to rest. */
  #settle(): void {
    if (!this.#scheduler.run())
      this.#report({ kind: 'expectation', line: 0, ok: false, text: 'the machine does not come to rest' });
  }

  #do(step: Exclude<Step, { action: 'expect' }>): void {
    const guest = this.#guest;
    switch (step.action) {
      case 'plug': {
        const { name, at } = this.#device(step.args.device);
        this.#machine.plug(name, this.#host.pathOf(name), requesterId(at));
        break;
      }
      case 'unplug': {
        const { name, at } = this.#device(step.args.device);
        const sid = requesterId(at);
        this.#domains.delete(name);
        if (this.#known.delete(name)) guest.removeDevice(sid);
        this.#machine.unplug(name);
        break;
      }
      case 'reset':
        this.#forget();
        this.#machine.reset();
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
        this.#domains.set(step.args.device, { domain: guest.attach(sid), mappings: [] });
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
        const { domain, mappings } = this.#domain(device);
        const gpa = guest.allocate(Number(size));
        domain.map(iova, gpa, Number(size), { read: access !== 'w', write: access !== 'r' });
        mappings.push({ iova, size, gpa });
        this.#report({
          kind: 'note',
          text: `${device}: IOVA 0x${iova.toString(16)} is now guest memory at 0x${gpa.toString(16)}.`,
        });
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
      case 'dma':
        this.#dma(step);
        break;
      case 'boot':
      case 'reboot':
      case 'run':
      case 'storage':
        throw new Error(`${step.action} needs a real guest, which the scenario's check has seen to`);
    }
  }

  #device(name: string): ScenarioDevice {
    return this.#devices.find((device) => device.name === name)!;
  }

  /** Tells the guest's driver of a device, if it does not know it yet. @returns its StreamID. */
  #introduce(name: string): number {
    const { at } = this.#device(name);
    const sid = requesterId(at);
    if (!this.#known.has(name)) {
      this.#guest.addDevice({ sid, name: linuxName(at) });
      this.#known.add(name);
    }
    return sid;
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
  }

  #dma({ args, line }: Extract<Step, { action: 'dma' }>): void {
    const { device, bytes: size } = args;
    const write = args.write !== undefined;
    const iova = args.write ?? args.read ?? 0n;
    const bytes = new Uint8Array(size);
    const gpa = this.#guestAddress(device, iova);
    const inRam = new Uint8Array(size);
    this.#pattern = (this.#pattern + 0x3b) & 0xff;
    const sent = write ? bytes : inRam;
    for (let i = 0; i < size; i++) sent[i] = (this.#pattern + i) & 0xff;
    if (!write && gpa !== undefined) this.#memory.writeBytes(hiOf(gpa), loOf(gpa), inRam);

    const outcome = this.#host.dma(device, write, iova, bytes);
    if (write && gpa !== undefined) this.#memory.readBytes(hiOf(gpa), loOf(gpa), inRam);
    const ok = outcome === OUTCOME.Ok;
    const same = bytes.every((byte, i) => byte === inRam[i]);
    const arrived =
      gpa === undefined ? 'done' : same ? 'done, and the data compares equal' : 'done, but the data differs';
    this.#report({
      kind: 'dma',
      device,
      access: write ? 'write' : 'read',
      iova: `0x${iova.toString(16)}`,
      bytes: size,
      outcome: ok ? 'ok' : 'abort',
      text: `${device} ${write ? 'writes' : 'reads'} ${size} bytes at 0x${iova.toString(16)}: ${ok ? arrived : 'aborted'}.`,
    });
    if (args.expect !== undefined)
      this.#report({
        kind: 'expectation',
        line,
        ok: ok === (args.expect === 'ok') && (!ok || gpa === undefined || same),
        text: `the DMA was expected to end with ${args.expect}${ok && gpa !== undefined && !same ? ' and the same data' : ''}`,
      });
  }

  /** Where a DMA should end in guest memory, as far as the scenario knows. */
  #guestAddress(device: string, iova: bigint): bigint | undefined {
    const mapping = this.#domains.get(device)?.mappings.find((m) => iova >= m.iova && iova < m.iova + m.size);
    if (mapping !== undefined) return BigInt(mapping.gpa) + (iova - mapping.iova);
    const untranslated =
      this.#machine.state.devices.find(({ name }) => name === device)?.attached === 'bypass';
    return untranslated ? iova : undefined;
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
      text: `${event.name} client: ${event.client ?? '(unassigned sid)'} sid: 0x${event.sid.toString(16)} iova: 0x${event.iova.toString(16)}`,
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

  #expect(expected: Expectation, line: number): void {
    const { eventqEnabled, viommu, veventq, devices } = this.#machine.state;
    const verdicts = compare(expected, {
      eventqen: eventqEnabled,
      viommu: viommu !== undefined,
      veventq: veventq?.depth,
      attached: Object.fromEntries(devices.map(({ name, attached }) => [name, attached])),
      objects: this.#host.objects(),
      ioctls: this.#ioctls,
      overflow: this.#guest.overflows > 0,
      warnings: this.#guest.warnings,
      events: this.#events,
      dmesg: this.#guest.dmesg,
    });
    if (expected.events !== undefined) this.#events = [];
    if (expected.ioctls !== undefined) this.#ioctls = 0;
    for (const { ok, text } of verdicts) this.#report({ kind: 'expectation', line, ok, text });
  }
}
