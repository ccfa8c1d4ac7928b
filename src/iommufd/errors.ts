/** What the host refuses, as one kind of error with stable codes. */

import { adviceFor } from './advice.ts';
import type { Errno } from './kernel.ts';
import { errnoName } from './uapi/errno.ts';

/** A call that the host refused, or whose answer makes it unusable for us. */
export class HostError extends Error {
  override readonly name = 'HostError';
  /** The errno's name: `'EOPNOTSUPP'`. */
  readonly code: string;
  /** The ioctl or system call, or our own verb for a refusal after it succeeded: `'IOMMU_VIOMMU_ALLOC'`, `'plug'`. */
  readonly operation: string;
  /** Why, as the rest of a sentence, where we know. */
  readonly reason: string | undefined;
  /** What the reader may do about it, as a sentence. */
  readonly hint: string | undefined;

  constructor(code: string, operation: string, reason?: string, hint?: string) {
    super(`${operation} failed (${code})${reason === undefined ? '.' : `: ${reason}`}`);
    this.code = code;
    this.operation = operation;
    this.reason = reason;
    this.hint = hint;
  }

  /** The error for an errno that an operation gave, with what we know about the pair. */
  static of(errno: Errno, operation: string): HostError {
    const code = errnoName(errno);
    const advice = adviceFor(operation, code);
    return new HostError(code, operation, advice?.reason, advice?.hint);
  }
}
