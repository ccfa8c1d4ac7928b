/** The devices of a case as the guest's driver has them: what it knows of, their domains, and what is mapped in those. */

import type { GuestDomain } from '../../guest/domain.ts';
import type { ReferenceGuest } from '../../guest/reference-guest.ts';
import { linuxName, requesterId } from '../pci-address.ts';
import type { ScenarioDevice } from './parse.ts';

/** A piece of guest memory that a scenario mapped. */
interface Mapping {
  readonly iova: bigint;
  readonly size: bigint;
  readonly gpa: number;
}

/** The translated domain of a device, and what is in it. */
export interface Domain {
  readonly domain: GuestDomain;
  mappings: Mapping[];
  /** The workspace is mapped in it. */
  workspace: boolean;
}

export class GuestDevices {
  readonly #devices: readonly ScenarioDevice[];
  readonly #guest: () => ReferenceGuest;
  /** Devices that the guest's driver has been told of. */
  readonly #known = new Set<string>();
  readonly #domains = new Map<string, Domain>();

  constructor(devices: readonly ScenarioDevice[], guest: () => ReferenceGuest) {
    this.#devices = devices;
    this.#guest = guest;
  }

  /** All, whether plugged or not. */
  get names(): readonly string[] {
    return this.#devices.map(({ name }) => name);
  }

  /** A device of the scenario, which has checked that there is one of that name. */
  named(name: string): ScenarioDevice {
    return this.#devices.find((device) => device.name === name)!;
  }

  withSid(sid: number): ScenarioDevice | undefined {
    return this.#devices.find(({ at }) => requesterId(at) === sid);
  }

  sidOf(name: string): number {
    return requesterId(this.named(name).at);
  }

  /** Tells the guest's driver of a device, if it does not know it yet. @returns its StreamID. */
  introduce(name: string): number {
    const { at, faults } = this.named(name);
    const sid = requesterId(at);
    if (!this.#known.has(name)) {
      this.#guest().addDevice({
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
  leave(name: string): void {
    this.#domains.delete(name);
    if (this.#known.delete(name)) this.#guest().removeDevice(this.sidOf(name));
  }

  /** The guest's kernel is gone, and with it all that it knew. */
  forget(): void {
    this.#known.clear();
    this.#domains.clear();
  }

  /** Gives a device a domain of its own, which is empty. */
  attach(name: string): void {
    const domain = this.#guest().attach(this.introduce(name));
    this.#domains.set(name, { domain, mappings: [], workspace: false });
  }

  domainOf(name: string): Domain | undefined {
    return this.#domains.get(name);
  }

  /** Maps fresh guest memory for a device. @returns where it is. @throws RangeError if it has no domain. */
  map(name: string, iova: bigint, size: bigint, access: { read: boolean; write: boolean }): number {
    const { domain, mappings } = this.#requireDomain(name);
    const gpa = this.#guest().allocate(Number(size));
    domain.map(iova, gpa, Number(size), access);
    mappings.push({ iova, size, gpa });
    return gpa;
  }

  /** @throws RangeError if the device has no domain. */
  unmap(name: string, iova: bigint, size: bigint): void {
    const entry = this.#requireDomain(name);
    entry.domain.unmap(iova, Number(size));
    entry.mappings = entry.mappings.filter((mapping) => mapping.iova < iova || mapping.iova >= iova + size);
  }

  /** Where in guest memory an address of a device leads, if a scenario mapped it. */
  mapped(name: string, iova: bigint): bigint | undefined {
    const mapping = this.#domains.get(name)?.mappings.find((m) => iova >= m.iova && iova < m.iova + m.size);
    return mapping === undefined ? undefined : BigInt(mapping.gpa) + (iova - mapping.iova);
  }

  #requireDomain(name: string): Domain {
    const domain = this.#domains.get(name);
    if (domain === undefined) throw new RangeError(`${name} has no domain: attach it first`);
    return domain;
  }
}
