/** The one place that makes control calls on a {@link Kernel}: it encodes, reports to whoever watches, and throws. */

import { HostError } from './errors.ts';
import type { Errno, Fd, Kernel } from './kernel.ts';
import type { Ioctl, Members, Values } from './uapi/struct.ts';

/** A value of an argument: a member of the uAPI structure, or a path. */
export type CallValue = number | bigint | string | readonly number[];

/** A call as it was made, for people. */
export interface Call {
  /** uAPI name, or `open` and `close`. */
  readonly operation: string;
  /** What was given, without `size`, `argsz` and members that are zero by default. */
  readonly given: Readonly<Record<string, CallValue>>;
  /** What came back in `out_...` members, and `fd` for `open`; empty if it failed. */
  readonly returned: Readonly<Record<string, CallValue>>;
  readonly errno: Errno;
}

/** Control calls on one kernel. The paths of invalidations and events do not come through here. */
export class Caller {
  readonly kernel: Kernel;
  /** Told of every call after it was made. */
  observer: ((call: Call) => void) | undefined;

  constructor(kernel: Kernel) {
    this.kernel = kernel;
  }

  /**
   * @param operation the name to report; that of the ioctl itself unless given.
   * @returns all members as the kernel left them.
   * @throws HostError
   */
  ioctl<M extends Members>(fd: Fd, ioctl: Ioctl<M>, values: Partial<Values<M>>): Values<M> {
    const arg = ioctl.encode(values);
    const errno = this.kernel.ioctl(fd, ioctl.request, arg);
    const after = ioctl.decode(arg);
    if (this.observer !== undefined) {
      const returned: Record<string, CallValue> = {};
      if (errno === 0)
        for (const [name, value] of Object.entries(after))
          if (name.startsWith('out_')) returned[name] = value;
      this.observer({ operation: ioctl.ioctl, given: values as Record<string, CallValue>, returned, errno });
    }
    if (errno !== 0) throw HostError.of(errno, ioctl.ioctl);
    return after;
  }

  /** @throws HostError */
  open(path: string): Fd {
    const fd = this.kernel.open(path);
    const errno = fd < 0 ? -fd : 0;
    this.observer?.({ operation: 'open', given: { path }, returned: errno === 0 ? { fd } : {}, errno });
    if (errno !== 0) throw HostError.of(errno, 'open');
    return fd;
  }

  /** Closes a descriptor. Linux frees it whatever `close` answers, so there is nothing to throw. */
  close(fd: Fd): void {
    const errno = this.kernel.close(fd);
    this.observer?.({ operation: 'close', given: { fd }, returned: {}, errno });
  }
}
