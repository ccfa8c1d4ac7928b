/** A command that has come in, as its handler sees it. */

import type { Errno } from './device.ts';

/** Says what is wrong and gives the errno for it, EINVAL unless named. */
export type Reject = (message: string, field: string, got: string, expected: string, errno?: Errno) => Errno;

/** A command as its handler sees it. */
export interface Request {
  readonly payload: Uint8Array;
  readonly view: DataView;
  /** Descriptors that came with it; a handler that keeps some takes them out. */
  readonly fds: number[];
  /** Where the payload of the reply goes, at least 64 KiB and 16 bytes of it. */
  readonly out: Uint8Array;
  readonly outView: DataView;
  /** Payload bytes of the reply. */
  replySize: number;
  /** Descriptors to send with the reply; they stay the device's. */
  readonly sendFds: number[];
}
