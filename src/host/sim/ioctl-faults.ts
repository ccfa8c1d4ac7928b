/** Fault injection: ioctls that fail, or take their time, because a test says so. */

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
  /** What the call fails with, without any effect; without it the call is carried out. */
  readonly errno?: ErrnoName;
  /** How long the call takes before it fails or has its effect, in milliseconds; default 0. */
  readonly delayMs?: number;
  /** The n-th call from now is the first, 1 is the next; default 1. */
  readonly nth?: number;
  /** Number of calls from there on; default 1. */
  readonly times?: number;
}

interface Armed {
  readonly request: number;
  readonly errno: Errno;
  readonly delayMs: number;
  skip: number;
  left: number;
}

export class IoctlFaults {
  #armed: Armed[] = [];
  readonly #sleep: ((ms: number) => void) | undefined;

  /** @param sleep lets time pass; without it there can be no delays. */
  constructor(sleep?: (ms: number) => void) {
    this.#sleep = sleep;
  }

  /**
   * Arms a fault. If several are due at the same call, their delays add up and the first errno counts.
   * @throws RangeError for a name that is no ioctl, a fault that does nothing, or a delay where time cannot pass.
   */
  add(fault: IoctlFault): void {
    const request = REQUESTS.get(fault.ioctl);
    if (request === undefined) throw new RangeError(`${fault.ioctl} is not an ioctl of iommufd or VFIO`);
    const { errno, delayMs = 0 } = fault;
    if (!(delayMs >= 0)) throw new RangeError(`a delay of ${delayMs} ms is not possible`);
    if (errno === undefined && delayMs === 0)
      throw new RangeError(`a fault of ${fault.ioctl} needs an errno or a delay`);
    if (delayMs > 0 && this.#sleep === undefined)
      throw new RangeError('a delay needs a host that was made with `sleep`');
    this.#armed.push({
      request,
      errno: errno === undefined ? 0 : ERRNO[errno],
      delayMs,
      skip: (fault.nth ?? 1) - 1,
      left: fault.times ?? 1,
    });
  }

  /** Disarms everything. */
  clear(): void {
    this.#armed = [];
  }

  /** Lets this call take its time. @returns the errno that it then has to fail with, or 0. */
  take(request: number): Errno {
    let errno = 0;
    let delayMs = 0;
    for (const fault of this.#armed) {
      if (fault.request !== request) continue;
      if (fault.skip > 0) fault.skip -= 1;
      else if (errno === 0 || fault.errno === 0) {
        errno ||= fault.errno;
        delayMs += fault.delayMs;
        fault.left -= 1;
      }
    }
    this.#armed = this.#armed.filter(({ left }) => left > 0);
    if (delayMs > 0) this.#sleep?.(delayMs);
    return errno;
  }
}
