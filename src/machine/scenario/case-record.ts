/** What has happened in a case: told to the reporter at once, and kept for the expectations of later steps. */

import type { QueueReport, ReconcileReport } from '../../accel/report.ts';
import type { GuestEvent } from '../../guest/event.ts';
import type { ReferenceGuest } from '../../guest/reference-guest.ts';
import type { Machine } from '../machine.ts';
import { reportOperations, type Reporter } from '../report.ts';
import { compare, type Observed, type ObservedEvent, type Verdict } from './expectations.ts';
import type { ScenarioDevice } from './parse.ts';
import type { Expectation } from './steps.ts';

export class CaseRecord {
  readonly #report: Reporter;
  readonly #deviceWithSid: (sid: number) => ScenarioDevice | undefined;
  /** What this step did to the vEVENTQ, if anything. */
  #queueReport: QueueReport | undefined;
  #events: ObservedEvent[] = [];
  #ioctls = 0;

  constructor(report: Reporter, deviceWithSid: (sid: number) => ScenarioDevice | undefined) {
    this.#report = report;
    this.#deviceWithSid = deviceWithSid;
  }

  /** Another step begins. */
  begin(): void {
    this.#queueReport = undefined;
  }

  /** What these expectations have looked at is not there for later ones. */
  seen(expected: Expectation): void {
    if (expected.events !== undefined) this.#events = [];
    if (expected.ioctls !== undefined) this.#ioctls = 0;
  }

  reconciled({ operations, queue }: ReconcileReport): void {
    // A step may set off several rounds; the one that changed something says why.
    const changed = queue.change !== 'kept' && queue.change !== 'absent';
    if (this.#queueReport === undefined || changed) this.#queueReport = queue;
    this.#ioctls += operations.length;
    reportOperations(this.#report, operations);
  }

  sawEvent(event: GuestEvent): void {
    const device = this.#deviceWithSid(event.sid);
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

  reportState({ eventqEnabled, viommu, veventq, queue, devices }: Machine['state']): void {
    this.#report({
      kind: 'state',
      eventqen: eventqEnabled,
      viommu: viommu ?? null,
      veventq: veventq === undefined ? null : { id: veventq.id, depth: veventq.depth },
      ...(this.#queueReport ?? queue),
      attached: Object.fromEntries(devices.map(({ name, attached }) => [name, attached])),
    });
  }

  compare(
    expected: Expectation,
    machine: Machine,
    guest: ReferenceGuest,
    objects: Observed['objects'],
  ): Verdict[] {
    const { eventqEnabled, viommu, veventq, devices, faults } = machine.state;
    return compare(expected, {
      eventqen: eventqEnabled,
      viommu: viommu !== undefined,
      veventq: veventq?.depth,
      attached: Object.fromEntries(devices.map(({ name, attached }) => [name, attached])),
      objects,
      ioctls: this.#ioctls,
      waiting: faults.reduce((sum, { outstanding }) => sum + outstanding, 0),
      smmu: Object.fromEntries(
        machine.identity.resolved.properties.map(({ property, value }) => [property, value]),
      ),
      overflow: guest.overflows > 0,
      warnings: guest.warnings,
      events: this.#events,
      dmesg: guest.dmesg,
    });
  }
}
