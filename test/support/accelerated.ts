/** An accelerator between a scripted guest and a host of rules, and what every test may ask of the three. */

import { expect } from 'vitest';
import { Accelerator } from '../../src/accel/accelerator.ts';
import { AddressSpace } from '../../src/accel/address-space.ts';
import type { ReconcileReport } from '../../src/accel/report.ts';
import { ScriptedGuest } from './scripted-guest.ts';
import { StrictHost } from './strict-host/strict-host.ts';

/** Stage 1, 44-bit addresses, RIL; no ATS, no substreams. */
export const GUEST_IDS = {
  IDR0: 0x0d44_101a,
  IDR1: 0x0108_0010,
  IDR2: 0,
  IDR3: 0x1404,
  IDR4: 0,
  IDR5: 0x74,
  IIDR: 0,
  AIDR: 1,
};

export class Bench {
  readonly host: StrictHost;
  readonly space: AddressSpace;
  readonly accelerator: Accelerator;
  readonly guest: ScriptedGuest;
  readonly reports: ReconcileReport[] = [];
  /** Retries that were asked for, by the number of the attempt. */
  readonly retries: number[] = [];

  constructor(options: { smmus?: readonly number[]; ids?: typeof GUEST_IDS; beside?: Bench } = {}) {
    this.host = options.beside?.host ?? new StrictHost(options.smmus);
    this.space = options.beside?.space ?? new AddressSpace(this.host);
    if (options.beside === undefined) this.space.addRam(0x4000_0000, new Uint8Array(0x1_0000));
    this.accelerator = new Accelerator({
      space: this.space,
      ids: options.ids ?? GUEST_IDS,
      observer: (report) => this.reports.push(report),
      retryLater: (attempt) => void this.retries.push(attempt),
    });
    this.guest = new ScriptedGuest(this.accelerator);
    this.accelerator.connect(this.guest);
  }

  /** Plugs vfio`index` as `d<index>`, with StreamID 8 + index unless given. */
  plug(index = 0, sid: number | undefined = 8 + index): void {
    this.accelerator.plug({ name: `d${index}`, path: `/dev/vfio/devices/vfio${index}`, sid });
  }
  unplug(index = 0): void {
    this.accelerator.unplug(`d${index}`);
  }
  /** What happened on the host since the last time, without open and close. */
  takeIoctls(): string[] {
    return this.host.takeCalls().filter((name) => name !== 'close' && !name.startsWith('open'));
  }
  /** Conditions, actual state and rules agree, and reconciling again makes no call. */
  expectSettled(plugged: number): void {
    const { accelerator, guest, host } = this;
    const { state } = accelerator;
    expect(host.complaints).toEqual([]);
    expect([...state.failures.keys()]).toEqual([]);
    expect(state.viommu !== undefined).toBe(plugged > 0);
    expect(state.veventq !== undefined).toBe(guest.eventqEnabled && plugged > 0);
    if (state.veventq !== undefined) expect(state.veventq.depth).toBe(2 ** guest.eventqLog2Size);
    if (plugged === 0) expect(host.objects).toEqual({});
    for (const { attached, wanted } of state.devices) expect(attached).toBe(wanted);
    host.takeCalls();
    guest.cfgiAll();
    guest.consMoved();
    expect(host.takeCalls()).toEqual([]);
  }
}
