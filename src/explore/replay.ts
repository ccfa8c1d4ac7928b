/** Plays a scenario for a bare guest, and checks after every step all that the explorer checks. */

import type { ReconcileReport } from '../accel/report.ts';
import { reportOperations, type Reporter } from '../machine/report.ts';
import { eventAccount, type EventAccount } from '../machine/event-account.ts';
import { describeStep } from '../machine/scenario/describe.ts';
import { compare, type ObservedEvent } from '../machine/scenario/expectations.ts';
import type { Scenario, ScenarioCase } from '../machine/scenario/parse.ts';
import type { Expectation, Step } from '../machine/scenario/steps.ts';
import type { GuestEvent } from '../guest/event.ts';
import { check, finish } from './checks.ts';
import { INVARIANTS, type Problem } from './problem.ts';
import { type Action, World } from './world.ts';

export interface ReplayResult {
  readonly cases: number;
  readonly expectations: number;
  readonly failed: number;
}

/** Plays all cases, each until something must not be. Does not throw for what a scenario can cause. */
export function runBareScenario(scenario: Scenario, report: Reporter): ReplayResult {
  report({
    kind: 'scenario',
    title: scenario.title,
    about: scenario.about ?? null,
    guest: 'none, step by step',
    host: 'embedded Linux 7.3 iommufd over a simulated SMMUv3',
  });
  let expectations = 0;
  let failed = 0;
  for (const [i, scenarioCase] of scenario.cases.entries()) {
    report({ kind: 'case', number: i + 1, title: scenarioCase.title });
    const replay = new Replay(scenario, (event) => {
      if (event.kind === 'expectation') {
        expectations += 1;
        if (!event.ok) failed += 1;
      }
      report(event);
    });
    replay.play(scenarioCase);
    report({ kind: 'events', ...replay.events });
  }
  const result = { cases: scenario.cases.length, expectations, failed };
  report({ kind: 'end', ...result });
  return result;
}

class Replay {
  readonly #report: Reporter;
  readonly #world: World;
  #overflow = false;
  #ioctls = 0;
  #events: GuestEvent[] = [];

  constructor({ devices }: Scenario, report: Reporter) {
    this.#report = report;
    this.#world = new World(devices, (reconcile) => this.#reconciled(reconcile));
  }

  /** What became of all events. */
  get events(): EventAccount {
    return eventAccount(this.#world.machine);
  }

  play({ steps }: ScenarioCase): void {
    for (const step of steps) {
      if (step.action === 'expect') {
        this.#expect(step.args, step.line);
        continue;
      }
      this.#report({ kind: 'step', line: step.line, action: step.action, text: describeStep(step) });
      if (step.action === 'check') {
        this.#verdict(finish(this.#world), step.line);
        return;
      }
      const problem =
        this.#perform(step) ??
        (step.action === 'fail' ? undefined : (check(this.#world) ?? this.#world.onlookers.look()));
      this.#reportState();
      if (problem === undefined) continue;
      this.#verdict(problem, step.line);
      return;
    }
  }

  #perform(step: Extract<Step, Action>): Problem | undefined {
    const world = this.#world;
    const acknowledges = world.overflow;
    const problem = world.perform(step);
    this.#ioctls += step.action === 'fail' ? 0 : world.kernel.ioctls.length;
    if (world.refusal !== undefined) this.#note(`The host refuses: ${world.refusal.message}`);
    if (step.action === 'take') {
      this.#overflow ||= acknowledges;
      this.#events.push(...world.taken);
      for (const event of world.taken.splice(0)) this.#sawEvent(event);
    }
    if (step.action === 'dma') this.#reportDma(step);
    return problem;
  }

  #verdict(problem: Problem | undefined, line: number): void {
    const text =
      problem === undefined ? 'all that must hold does' : `${INVARIANTS[problem.invariant]}. ${problem.text}`;
    this.#report({ kind: 'expectation', line, ok: problem === undefined, text });
  }

  #note(text: string): void {
    this.#report({ kind: 'note', text });
  }

  #reportDma({ args, line }: Extract<Step, { action: 'dma' }>): void {
    const { device, bytes, expect } = args;
    const access = args.write === undefined ? 'read' : 'write';
    const iova = `0x${(args.write ?? args.read ?? 0n).toString(16)}`;
    const { ok, reach } = this.#world.lastDma ?? { ok: false, reach: undefined };
    const where = typeof reach === 'number' ? `, from frame ${reach}` : '';
    this.#report({
      kind: 'dma',
      device,
      access,
      iova,
      bytes,
      outcome: ok ? 'ok' : 'abort',
      text: `${device} ${access}s ${bytes} bytes at ${iova}: ${ok ? `done${where}` : 'aborted'}.`,
    });
    if (expect !== undefined)
      this.#report({
        kind: 'expectation',
        line,
        ok: ok === (expect === 'ok'),
        text: `the DMA was expected to end with ${expect}`,
      });
  }

  #reconciled({ operations }: ReconcileReport): void {
    reportOperations(this.#report, operations);
  }

  #deviceOf(sid: number): string | undefined {
    const i = this.#world.model.devices.findIndex((device) => device.sid === sid);
    return this.#world.devices[i]?.name;
  }

  #sawEvent({ name, sid, iova, words }: GuestEvent): void {
    const pairs: string[] = [];
    for (let i = 0; i < words.length; i += 2)
      pairs.push(`0x${((BigInt(words[i + 1]) << 32n) | BigInt(words[i])).toString(16).padStart(16, '0')}`);
    this.#report({
      kind: 'event',
      type: name,
      device: this.#deviceOf(sid) ?? null,
      sid: `0x${sid.toString(16)}`,
      words: pairs,
      text: `${name} sid: 0x${sid.toString(16)} iova: 0x${iova.toString(16)}`,
    });
  }

  #reportState(): void {
    const { eventqEnabled, viommu, veventq, queue, devices } = this.#world.machine.state;
    this.#report({
      kind: 'state',
      eventqen: eventqEnabled,
      viommu: viommu ?? null,
      veventq: veventq === undefined ? null : { id: veventq.id, depth: veventq.depth },
      ...queue,
      attached: Object.fromEntries(devices.map(({ name, attached }) => [name, attached])),
    });
  }

  #expect(expected: Expectation, line: number): void {
    const { eventqEnabled, viommu, veventq, devices } = this.#world.machine.state;
    const objects: Record<string, number> = {};
    for (const { type } of this.#world.host.sim.snapshotOfObjects()) objects[type] = (objects[type] ?? 0) + 1;
    const verdicts = compare(expected, {
      eventqen: eventqEnabled,
      viommu: viommu !== undefined,
      veventq: veventq?.depth,
      attached: Object.fromEntries(devices.map(({ name, attached }) => [name, attached])),
      objects,
      ioctls: this.#ioctls,
      overflow: this.#overflow,
      warnings: [],
      events: this.#events.map((event) => this.#observed(event)),
      dmesg: [],
    });
    if (expected.events !== undefined) this.#events = [];
    if (expected.ioctls !== undefined) this.#ioctls = 0;
    for (const { ok, text } of verdicts) this.#report({ kind: 'expectation', line, ok, text });
  }

  #observed({ name, sid, iova, read, stage, ssid, stall }: GuestEvent): ObservedEvent {
    const access = read ? 'read' : 'write';
    return { type: name, device: this.#deviceOf(sid), iova, access, stage, ssid, stall };
  }
}
