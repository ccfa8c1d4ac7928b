import { loadSyscalls } from '../../src/sys/koffi-syscalls.ts';
import type { Syscalls } from '../../src/sys/syscalls.ts';

let found: Syscalls | undefined;
let reason = '';
try {
  found = await loadSyscalls();
} catch (error) {
  reason = (error as Error).message;
}

/** The real system calls. Only for tests inside `describe.skipIf(NO_SYSCALLS !== '')`. */
export const SYS = found as Syscalls;

/** Why there are none here; empty if there are. */
export const NO_SYSCALLS = reason;

/** `claim`, with the reason for which it is skipped. */
export const onLinux = (claim: string): string => (NO_SYSCALLS === '' ? claim : `${claim} [${NO_SYSCALLS}]`);
