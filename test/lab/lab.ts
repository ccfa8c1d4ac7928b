import { requireHostLab } from '../../src/lab/host-lab.ts';
import { type BootOptions, bootHostLab } from '../../src/lab/lab-boot.ts';
import type { LabGuest } from '../../src/lab/lab-guest.ts';
import { RunFolder } from '../../src/qemu/run-folder.ts';
import { STAGED } from './stage.ts';

/** The program, in the lab. */
export const PROGRAM = 'node /lab/vsmmu/src/cli/main.js';

/**
 * Boots the lab with the program at /lab/vsmmu. It does not outlive this process.
 * @throws {LabError} UNSUPPORTED_HERE if it has not been built; that is a failure here, and says what to do.
 */
export async function bootLab(options: Partial<BootOptions> = {}): Promise<LabGuest> {
  const folder = new RunFolder();
  const shares = [{ name: 'vsmmu', path: STAGED }, ...(options.shares ?? [])];
  return bootHostLab(await requireHostLab(), { ...options, folder, shares });
}
