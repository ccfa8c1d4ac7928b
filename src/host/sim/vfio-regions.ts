/** Reads and writes of a VFIO device's regions through its descriptor. */

import { ERRNO } from '../../iommufd/uapi/errno.ts';
import {
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_ROM_REGION_INDEX,
} from '../../iommufd/uapi/vfio.ts';
import type { PciFunction } from './pci-function.ts';

const REGION_SHIFT = 2 ** 40;

/** Offset of a region in the device's descriptor. */
export const regionAt = (index: number): number => index * REGION_SHIFT;

interface Place {
  readonly region: number;
  readonly at: number;
  /** Bytes that there are, from there on, at most as many as asked for. */
  readonly count: number;
}

function locate(device: PciFunction, offset: number, count: number): Place | number {
  if (!Number.isSafeInteger(offset) || offset < 0) return -ERRNO.EINVAL;
  const region = Math.floor(offset / REGION_SHIFT);
  if (region >= VFIO_PCI_NUM_REGIONS) return -ERRNO.EINVAL;
  const size = device.regionSizes[region] ?? 0;
  const at = offset % REGION_SHIFT;
  if (at >= size) return region === VFIO_PCI_CONFIG_REGION_INDEX ? -ERRNO.EFAULT : -ERRNO.EINVAL;
  return { region, at, count: Math.min(count, size - at) };
}

/** Largest naturally aligned access that fits: 8 bytes to a BAR, 4 to configuration space. */
function accessSize(region: number, at: number, left: number): number {
  let size = region === VFIO_PCI_CONFIG_REGION_INDEX ? 4 : 8;
  while (size > left || at % size !== 0) size >>>= 1;
  return size;
}

/** @returns bytes, or a negative errno. */
export function regionRead(device: PciFunction, into: Uint8Array, offset: number): number {
  const place = locate(device, offset, into.length);
  if (typeof place === 'number') return place;
  for (let done = 0; done < place.count;) {
    const size = accessSize(place.region, place.at + done, place.count - done);
    device.regionRead(place.region, place.at + done, into.subarray(done, done + size));
    done += size;
  }
  return place.count;
}

/** @returns bytes, or a negative errno. */
export function regionWrite(device: PciFunction, from: Uint8Array, offset: number): number {
  const place = locate(device, offset, from.length);
  if (typeof place === 'number') return place;
  if (place.region === VFIO_PCI_ROM_REGION_INDEX) return -ERRNO.EINVAL;
  for (let done = 0; done < place.count;) {
    const size = accessSize(place.region, place.at + done, place.count - done);
    device.regionWrite(place.region, place.at + done, from.subarray(done, done + size));
    done += size;
  }
  return place.count;
}
