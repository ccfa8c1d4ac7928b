/**
 * The guest's ID registers from what its owner asked for and what the host can do, under QEMU's property names. `auto`
 * takes it from the host of the first device; what nobody asked for is lowered to the host; what was asked for is not.
 */

import { HostError } from '../iommufd/errors.ts';
import type { FaultKind, HostInfo } from '../iommufd/host-info.ts';
import { identify, type IdFields, type IdRegisters } from '../smmu/identification.ts';
import { IDR0, IDR1, IDR3, IDR5, OAS_BITS } from '../spec/registers.ts';
import { fitToHost, type Lowering } from './compatibility.ts';
import { faultFields, handsOver, offersStalls, requireFaults } from './recoverable-faults.ts';

/** QEMU's OnOffAuto. */
export type OnOffAuto = 'on' | 'off' | 'auto';

/** As in `-device arm-smmuv3,accel=on,...`; what is absent has the default of the ID registers. */
export interface SmmuProperties {
  /** IDR3.RIL: range invalidation. */
  readonly ril?: OnOffAuto | undefined;
  /** IDR0.ATS. */
  readonly ats?: OnOffAuto | undefined;
  /** IDR5.OAS, in bits: 32, 36, 40, 42, 44, 48 or 52. */
  readonly oas?: number | 'auto' | undefined;
  /** IDR1.SSIDSIZE: bits of SubstreamID, 0..20. */
  readonly ssidsize?: number | 'auto' | undefined;
  /** IDR0.STALL_MODEL: stream by stream, faults can wait for CMD_RESUME. Not one of QEMU's. */
  readonly stall?: OnOffAuto | undefined;
  /** IDR0.PRI: there is a PRI queue for the page requests of PCIe devices. Not one of QEMU's. */
  readonly pri?: OnOffAuto | undefined;
}

/** What `auto` is for a guest that looks before there is a device: a floor that nearly every host reaches. */
export const FLOOR = {
  ril: 'off',
  ats: 'off',
  oas: 44,
  ssidsize: 0,
  stall: 'off',
  pri: 'off',
} as const satisfies SmmuProperties;

const NAMES = ['ril', 'ats', 'oas', 'ssidsize', 'stall', 'pri'] as const;
type Name = (typeof NAMES)[number];

/** Which ID field a property decides. */
const FIELD: Readonly<Record<Name, string>> = {
  ril: 'IDR3.RIL',
  ats: 'IDR0.ATS',
  oas: 'IDR5.OAS',
  ssidsize: 'IDR1.SSIDSIZE',
  stall: 'IDR0.STALL_MODEL',
  pri: 'IDR0.PRI',
};

/** A property and why it is what it is, for people. */
export interface Resolution {
  readonly property: Name;
  readonly value: 'on' | 'off' | number;
  readonly from: 'asked' | 'host' | 'floor' | 'default' | 'snapshot';
}

export interface Resolved {
  readonly ids: IdRegisters;
  readonly properties: readonly Resolution[];
  /** Fields that nobody asked for, and that the host cannot have as the default has them. */
  readonly lowered: readonly Lowering[];
  /** A host has been asked. */
  readonly host: boolean;
}

/**
 * Turns properties into ID registers: from the first device, and again for each that comes until the guest looks. A
 * device that fits is adopted, and the SMMU told; one that is refused leaves everything as it was.
 */
export class Identity {
  /** Told the ID registers whenever they change; never once they are settled. */
  changed: (ids: IdRegisters) => void = () => {};
  readonly #base: IdRegisters;
  readonly #properties: SmmuProperties;
  readonly #floor: SmmuProperties;
  #resolved: Resolved;
  #settled = false;

  /**
   * @param base what the guest is told if nothing is said.
   * @param floor what `auto` is without a host; it has no `auto` itself.
   * @throws IdentificationError if the properties make no SMMU that can exist.
   */
  constructor(base: IdRegisters, properties: SmmuProperties = {}, floor: SmmuProperties = {}) {
    this.#base = base;
    this.#properties = properties;
    this.#floor = { ...FLOOR, ...floor };
    this.#resolved = this.#resolve(undefined);
  }

  /** As it is now: without any device, the floor. */
  get resolved(): Resolved {
    return this.#resolved;
  }

  /** The guest has had a look: nothing changes any more, and `auto` without a device is the floor. */
  settle(): void {
    this.#settled = true;
  }

  /**
   * What the guest may see with a device of this host, besides all before; it is not adopted yet.
   * @returns what is, once that is settled.
   * @throws HostError if something was asked for that the host does not have.
   */
  fit(host: HostInfo): Resolved {
    requireFaults(this.#askedFaults, host);
    if (this.#settled) return this.#resolved;
    const start = this.#resolved.host ? this.#resolved : this.#resolve(host);
    const { ids, lowered, problems } = fitToHost(start.ids, host);
    if (problems.length > 0) throw new HostError('EOPNOTSUPP', 'plug', problems.join(' '));
    for (const { property, from, value } of start.properties) {
      const refused = lowered.find(({ field }) => field === FIELD[property]);
      if (refused === undefined || from !== 'asked') continue;
      throw new HostError(
        'EOPNOTSUPP',
        'plug',
        `${property}=${value} was asked for, but ${refused.field} can be no more than ${shown(property, refused.to)}: ${refused.why}.`,
        `Say ${property}=auto to take what the host has.`,
      );
    }
    return {
      ids,
      properties: read(ids, start.properties),
      lowered: [...start.lowered, ...lowered],
      host: true,
    };
  }

  /** What a snapshot says: not to be changed by any host. */
  static of(ids: IdRegisters): Resolved {
    const properties = NAMES.map((property) => ({
      property,
      value: VALUE[property](ids),
      from: 'snapshot' as const,
    }));
    return { ids, properties, lowered: [], host: true };
  }

  /** Takes what {@link fit} gave, or goes back to what was before. */
  adopt(resolved: Resolved): void {
    if (this.#settled || resolved === this.#resolved) return;
    this.#resolved = resolved;
    this.changed(resolved.ids);
  }

  /** The kinds of fault of which each device has to have one. */
  get #askedFaults(): FaultKind[] {
    const { stall, pri } = this.#properties;
    return [
      ...(stall === 'on' ? (['stall'] as const) : []),
      ...(pri === 'on' ? (['page-request'] as const) : []),
    ];
  }

  #resolve(host: HostInfo | undefined): Resolved {
    const from = (property: Name): Resolution['from'] => {
      const asked = this.#properties[property];
      if (asked === undefined) return 'default';
      return asked === 'auto' ? (host === undefined ? 'floor' : 'host') : 'asked';
    };
    const chosen = (property: Name): OnOffAuto | number | undefined => {
      const asked = this.#properties[property];
      if (asked !== 'auto') return asked;
      return host === undefined ? this.#floor[property] : OF_HOST[property](host);
    };
    const ssidsize = chosen('ssidsize');
    const ats = chosen('ats');
    // 6.3.1: PRI needs ATS. What was asked for is refused for it, what follows the host is not there then.
    const hasAts = ats === undefined ? IDR0.ATS.of(this.#base.IDR0) === 1 : ats === 'on';
    const pri = chosen('pri') === 'on' && (hasAts || this.#properties.pri === 'on');
    const fields: IdFields = {
      ...faultFields(chosen('stall') === 'on', pri, host),
      // Two levels of CDs cost nothing, and Linux gives a device 2^10 PASIDs at most without them.
      ...(host !== undefined &&
        ssidsize !== 0 &&
        ssidsize !== undefined && { CD2L: IDR0.CD2L.of(host.idr[0]) }),
    };
    const ids = identify(this.#base, fields, {
      ...flag('ril', chosen('ril')),
      ...flag('ats', ats),
      ...size('oas', chosen('oas')),
      ...size('ssidsize', ssidsize),
    });
    const properties = NAMES.map((property) => ({ property, value: 'off' as const, from: from(property) }));
    return { ids, properties: read(ids, properties), lowered: [], host: host !== undefined };
  }
}

/** What `auto` is on a host. */
const OF_HOST: Readonly<Record<Name, (host: HostInfo) => OnOffAuto | number>> = {
  ril: ({ idr }) => (IDR3.RIL.of(idr[3]) === 1 ? 'on' : 'off'),
  // The SMMU's, the root complex's and the device's own: HW_INFO says it for all three.
  ats: ({ idr, ats }) => (ats && IDR0.ATS.of(idr[0]) === 1 ? 'on' : 'off'),
  // 52 bits are the most that a guest's tables can have without 128-bit descriptors.
  oas: ({ idr }) => OAS_BITS[Math.min(IDR5.OAS.of(idr[5]), 6)],
  ssidsize: ({ idr }) => Math.min(IDR1.SSIDSIZE.of(idr[1]), 20),
  stall: (host) => (handsOver(host, 'stall') ? 'on' : 'off'),
  pri: (host) => (handsOver(host, 'page-request') ? 'on' : 'off'),
};

const flag = (
  name: 'ril' | 'ats',
  value: OnOffAuto | number | undefined,
): Partial<Record<typeof name, boolean>> => (value === undefined ? {} : { [name]: value === 'on' });

const size = (
  name: 'oas' | 'ssidsize',
  value: OnOffAuto | number | undefined,
): Partial<Record<typeof name, number>> => (typeof value === 'number' ? { [name]: value } : {});

/** The properties as the ID registers have them. */
function read(ids: IdRegisters, properties: readonly Resolution[]): Resolution[] {
  return properties.map(({ property, from }) => ({ property, value: VALUE[property](ids), from }));
}

const VALUE: Readonly<Record<Name, (ids: IdRegisters) => 'on' | 'off' | number>> = {
  ril: (ids) => (IDR3.RIL.of(ids.IDR3) === 1 ? 'on' : 'off'),
  ats: (ids) => (IDR0.ATS.of(ids.IDR0) === 1 ? 'on' : 'off'),
  oas: (ids) => OAS_BITS[IDR5.OAS.of(ids.IDR5)],
  ssidsize: (ids) => IDR1.SSIDSIZE.of(ids.IDR1),
  stall: (ids) => (offersStalls(ids.IDR0) ? 'on' : 'off'),
  pri: (ids) => (IDR0.PRI.of(ids.IDR0) === 1 ? 'on' : 'off'),
};

const shown = (property: Name, value: number): string =>
  property === 'oas' ? `${value} (${OAS_BITS[value]} bits)` : String(value);
