import { requireHostLab } from '../../src/lab/host-lab.ts';
import { type BootOptions, bootHostLab } from '../../src/lab/lab-boot.ts';
import type { LabGuest } from '../../src/lab/lab-guest.ts';
import { RunFolder } from '../../src/qemu/run-folder.ts';
import { STAGED } from './stage.ts';

/**
 * Boots the lab with the program at /lab/vsmmu, and ends it when `use` is done.
 * @throws {LabError} UNSUPPORTED_HERE if it has not been built; that is a failure here, and says what to do.
 */
export async function withLab<T>(
  options: Partial<BootOptions>,
  use: (lab: LabGuest) => Promise<T>,
): Promise<T> {
  const folder = new RunFolder();
  try {
    const shares = [{ name: 'vsmmu', path: STAGED }, ...(options.shares ?? [])];
    const lab = await bootHostLab(await requireHostLab(), { ...options, folder, shares });
    try {
      return await use(lab);
    } finally {
      await lab.close();
    }
  } finally {
    folder.remove();
  }
}
