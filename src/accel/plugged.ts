/** The plugged devices as the guest's SMMU has them: StreamIDs, and STEs as of the guest's last CFGI. */

import type { FaultKind } from '../iommufd/host-info.ts';
import { STE_WORDS } from '../spec/ste.ts';
import type { PluggedStream } from './desired.ts';
import type { GuestSmmu } from './guest-smmu.ts';

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
  readonly path: string;
  sid: number | undefined;
  readonly faults: FaultKind | undefined;
  readonly ste: Uint32Array;
  /** As {@link GuestSmmu.lookupSte} answered; undefined if it must be read. */
  steStatus: number | undefined;
}

export class PluggedDevices {
  readonly #guest: () => GuestSmmu;
  /** In the order in which they got their StreamIDs. */
  readonly #devices = new Map<string, Plugged>();

  constructor(guest: () => GuestSmmu) {
    this.#guest = guest;
  }

  get size(): number {
    return this.#devices.size;
  }

  /** For desired(): all of them, those that have their StreamID longest first. */
  get streams(): readonly PluggedStream[] {
    return [...this.#devices.values()];
  }

  /** For a snapshot. */
  get states(): readonly PluggedState[] {
    return [...this.#devices.values()].map(({ name, path, sid, ste, steStatus }) => ({
      name,
      path,
      sid,
      ste: steStatus === 0 ? ste.slice() : undefined,
    }));
  }

  has(name: string): boolean {
    return this.#devices.has(name);
  }

  /** @param faults which of its faults the host hands over. */
  add({ name, path, sid, ste }: PlugRequest, faults: FaultKind | undefined): void {
    this.#devices.set(name, {
      name,
      path,
      sid,
      faults,
      ste: ste?.slice() ?? new Uint32Array(STE_WORDS),
      steStatus: ste === undefined ? undefined : 0,
    });
  }

  /** @returns whether there was one. */
  remove(name: string): boolean {
    return this.#devices.delete(name);
  }

  /** @returns whether that is another StreamID than before. */
  setSid(name: string, sid: number | undefined): boolean {
    const device = this.#devices.get(name);
    if (device === undefined || device.sid === sid) return false;
    device.sid = sid;
    device.steStatus = undefined;
    // Behind those that have theirs longer: if two have the same for a moment, it stays with its owner.
    this.#devices.delete(name);
    this.#devices.set(name, device);
    return true;
  }

  /** Forgets the STEs of a range, inclusive. @returns whether any device is concerned. */
  forgetStes(firstSid: number, lastSid: number): boolean {
    let any = false;
    for (const device of this.#devices.values()) {
      const { sid } = device;
      if (sid !== undefined && (sid < firstSid || sid > lastSid)) continue;
      device.steStatus = undefined;
      any = true;
    }
    return any;
  }

  /** The STE as it was at the guest's last CFGI. One that was not valid is not cached, and read again. */
  readonly lookup = (sid: number, into: Uint32Array): number => {
    for (const device of this.#devices.values()) {
      if (device.sid !== sid) continue;
      if (device.steStatus !== 0) device.steStatus = this.#guest().lookupSte(sid, device.ste);
      into.set(device.ste);
      return device.steStatus;
    }
    return this.#guest().lookupSte(sid, into);
  };
}
