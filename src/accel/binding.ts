/** Taking a device from the host: bound, asked what its SMMU can do, and refused if the guest was told of more. */

import { HostError } from '../iommufd/errors.ts';
import { getHostInfo, type FaultKind } from '../iommufd/host-info.ts';
import { VfioDevice } from '../iommufd/vfio-device.ts';
import { type Actual, ActualStream } from './actual.ts';
import { requireCompatible } from './compatibility.ts';
import type { DesiredStream } from './desired.ts';
import type { PlugRequest } from './plugged.ts';
import type { Identity } from './properties.ts';

/**
 * Opens and binds a device, and makes sure that it fits the guest, whose ID registers may follow it.
 * @param faults which of its faults the host hands over.
 * @throws HostError; nothing is left of it then.
 */
export function bindDevice(
  actual: Actual,
  identity: Identity,
  { name, path }: PlugRequest,
  faults: FaultKind | undefined,
): ActualStream {
  const iommufd = actual.space.open(actual);
  const vfio = VfioDevice.open(iommufd.caller, path);
  try {
    vfio.bind(iommufd);
    const host = { ...getHostInfo(iommufd, vfio.devid), faults };
    const resolved = identity.fit(host);
    requireCompatible(resolved.ids, host);
    identity.adopt(resolved);
    return new ActualStream(name, vfio, host);
  } catch (error) {
    vfio.close();
    throw error;
  }
}

/**
 * Why a bound device cannot be served at all, if so. A stream that is merely parked is served, and tried again.
 * @param wanted what the last reconcile was to make of it.
 */
export function refusalOf(
  actual: Actual,
  stream: ActualStream,
  wanted: DesiredStream | undefined,
): HostError | undefined {
  const { failures } = actual;
  if (stream.table !== undefined && stream.vdevice?.vsid === wanted?.vsid) return undefined;
  const failure =
    failures.get(`device ${stream.name}`) ??
    failures.get('foundation') ??
    new HostError('EIO', 'plug', 'the host has no place for the device.');
  return failure.code === 'EINVAL' ? withDirections(actual, failure, stream) : failure;
}

/** Names the virtual SMMU of this machine that is on the device's physical SMMU, if there is one. */
function withDirections(actual: Actual, failure: HostError, stream: ActualStream): HostError {
  const better = actual.space.users.find((user) => user !== actual && user.wouldTake(stream.vfio.devid));
  if (better === undefined) return failure;
  const hint = `Plug it into the virtual SMMU "${better.name}", which stands for the physical SMMU of this device.`;
  return new HostError(failure.code, failure.operation, failure.reason, hint);
}
