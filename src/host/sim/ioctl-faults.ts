/** Fault injection: ioctls that fail because a test says so. */

import { ERRNO, type ErrnoName } from '../../iommufd/uapi/errno.ts';
import type { Errno } from '../../iommufd/kernel.ts';
import { IOMMUFD_IOCTLS } from '../../iommufd/uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../../iommufd/uapi/vfio.ts';

type IoctlName = (typeof IOMMUFD_IOCTLS)[number]['ioctl'] | (typeof VFIO_IOCTLS)[number]['ioctl'];

const REQUESTS = new Map<string, number>(
  [...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].map(({ ioctl, request }) => [ioctl, request]),
);

export interface IoctlFault {
  /** Such as `IOMMU_HWPT_ALLOC`. */
  readonly ioctl: IoctlName;
  readonly errno: ErrnoName;
  /** Fails the n-th call from now, 1 is the next; default 1. */
  readonly nth?: number;
  /** Number of calls from there on that fail; default 1. */
  readonly times?: number;
}

interface Armed {
  readonly request: number;
  readonly errno: Errno;
  skip: number;
  left: number;
}

export class IoctlFaults {
  #armed: Armed[] = [];

  /** Arms a fault. The failing call has no effect at all. @throws RangeError for a name that is no ioctl. */
  add(fault: IoctlFault): void {
    const request = REQUESTS.get(fault.ioctl);
    if (request === undefined) throw new RangeError(`${fault.ioctl} is not an ioctl of iommufd or VFIO`);
    this.#armed.push({
      request,
      errno: ERRNO[fault.errno],
      skip: (fault.nth ?? 1) - 1,
      left: fault.times ?? 1,
    });
  }

  /** Disarms everything. */
  clear(): void {
    this.#armed = [];
  }

  /** @returns the errno that this call has to fail with, or 0. */
  take(request: number): Errno {
    let errno = 0;
    for (const fault of this.#armed) {
      if (fault.request !== request) continue;
      if (fault.skip > 0) fault.skip -= 1;
      else if (errno === 0) {
        errno = fault.errno;
        fault.left -= 1;
      }
    }
    this.#armed = this.#armed.filter(({ left }) => left > 0);
    return errno;
  }
}
