/** `vsmmu probe`: whether this machine can run an accelerated vSMMU, device by device. */

import { hostFiles } from '../../host/linux/host-files.ts';
import { LinuxKernel } from '../../host/linux/linux-kernel.ts';
import { probeHost } from '../../machine/probe/probe.ts';
import { GUEST_DEFAULT } from '../../smmu/identification.ts';
import { loadSyscalls } from '../../sys/koffi-syscalls.ts';
import { UnsupportedHere } from '../../sys/unsupported.ts';
import { EXIT } from '../exit.ts';
import { probeText } from '../probe-text.ts';

export interface ProbeCommandOptions {
  readonly json?: boolean;
  /** False: nothing is opened. */
  readonly open?: boolean;
}

/** @returns the exit code: fine if a device can be used, or may be and was not asked. @throws UnsupportedHere */
export async function probe({ json = false, open = true }: ProbeCommandOptions): Promise<number> {
  const kernel = open ? await realKernel() : '--no-open was given.';
  try {
    const report = probeHost({ files: hostFiles(), kernel, ids: GUEST_DEFAULT });
    const lines = json ? [JSON.stringify(report, orNull)] : probeText(report);
    for (const line of lines) process.stdout.write(`${line}\n`);
    return report.usable === 'no' ? EXIT.NotPossibleHere : EXIT.Fine;
  } finally {
    if (typeof kernel !== 'string') kernel.release();
  }
}

/** What cannot be told is null, so that every object has all its members. */
const orNull = (_: string, value: unknown): unknown => (value === undefined ? null : value);

/** The kernel, or why it cannot be called. Without koffi there is still something to say. */
async function realKernel(): Promise<LinuxKernel | string> {
  try {
    return new LinuxKernel({ sys: await loadSyscalls() });
  } catch (error) {
    if (error instanceof UnsupportedHere && error.missing !== 'linux') return error.message;
    throw error;
  }
}
