/**
 * Faults that wait for an answer: stalled transactions, and page requests of PCIe devices. Whether a guest can be told
 * of them depends on the SMMU, on the device, and on a host that hands them to user space.
 */

import { HostError } from '../iommufd/errors.ts';
import type { FaultKind, HostInfo } from '../iommufd/host-info.ts';
import type { IdFields, IdRegisters } from '../smmu/identification.ts';
import { IDR0, IDR5 } from '../spec/registers.ts';

/** IDR0.STALL_MODEL of an SMMU that stalls where it is told to. */
const STALL_AND_TERMINATE = 0b00;
const TERMINATE_ONLY = 0b01;
/** IDR5.STALL_MAX while there is no host to take it from. */
const STALL_MAX = 64;
/** Most transactions of one guest that wait at once, whatever the host's SMMU can stall. */
export const STALLS_MAX = 4096;
/** log2 of the entries of a PRI queue. */
const PRIQS = 8;

/** The ID fields of an SMMU that offers these kinds, or does not. */
export function faultFields(stall: boolean, pri: boolean, host: HostInfo | undefined): IdFields {
  const most = host === undefined ? STALL_MAX : Math.min(IDR5.STALL_MAX.of(host.idr[5]), STALLS_MAX);
  return {
    STALL_MODEL: stall ? STALL_AND_TERMINATE : TERMINATE_ONLY,
    STALL_MAX: stall ? Math.max(most, 1) : 0,
    PRI: Number(pri),
    PRIQS: pri ? PRIQS : 0,
  };
}

/** Which kinds a guest with these ID registers was told of. */
export const offeredFaults = (ids: IdRegisters): ReadonlySet<FaultKind> =>
  new Set<FaultKind>([
    ...(offersStalls(ids.IDR0) ? (['stall'] as const) : []),
    ...(IDR0.PRI.of(ids.IDR0) === 1 ? (['page-request'] as const) : []),
  ]);

/** Whether a value of IDR0 says that a stream can choose between stalls and termination. */
export const offersStalls = (idr0: number): boolean => IDR0.STALL_MODEL.of(idr0) === STALL_AND_TERMINATE;

/** What `auto` is for a device: the host hands its faults over. */
export const handsOver = (host: HostInfo, kind: FaultKind): boolean =>
  host.faults === kind && (kind !== 'stall' || offersStalls(host.idr[0]));

/**
 * Makes sure that a device has one of the kinds that were asked for, if any was.
 * @throws HostError saying what is missing.
 */
export function requireFaults(asked: readonly FaultKind[], host: HostInfo): void {
  if (asked.length === 0 || asked.some((kind) => handsOver(host, kind))) return;
  const [why, hint] = asked.includes('stall') ? stallReason(host) : PRI_REASON;
  throw new HostError('EOPNOTSUPP', 'plug', why, hint);
}

const PRI_REASON = [
  'pri=on was asked for, but the host hands no page requests of this device to user space.',
  'Linux 7.3 denies the page requests of devices behind an SMMUv3; leave pri=off.',
] as const;

function stallReason(host: HostInfo): readonly [string, string] {
  if (!offersStalls(host.idr[0]))
    return [
      `stall=on was asked for, but the host SMMU does not stall where it is told to (IDR0.STALL_MODEL=${IDR0.STALL_MODEL.of(host.idr[0])}).`,
      'Say stall=auto to take what the host has.',
    ];
  return [
    'stall=on was asked for, but the host does not let this device stall.',
    'Linux lets a device stall whose firmware marks it dma-can-stall; PCIe devices may not. With stall=auto the first device decides, and others may be beside it.',
  ];
}
