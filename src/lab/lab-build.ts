/** Gets and builds what the lab is made of, and boots it. */

import { join } from 'node:path';

import { RunFolder } from '../qemu/run-folder.ts';
import {
  cacheFolder,
  type Environment,
  makeCacheFolder,
  publishFolder,
  removeLeftovers,
} from './cache-folder.ts';
import { LabError } from './errors.ts';
import { installedDependencies, installModules, modulesFolderName } from './guest-modules.ts';
import { requireHostLab } from './host-lab.ts';
import { missingBuildTools } from './kernel-build.ts';
import { bootHostLab } from './lab-boot.ts';
import { readManifest, writeManifest } from './manifest.ts';
import { setup } from './setup.ts';
import { cached } from './status.ts';

export interface LabBuildOptions {
  /** Called with one line after the other as the work goes on. */
  progress: (line: string) => void;
  /** Fetch and build again what is there, to get newer versions. */
  refresh?: boolean;
  environment?: Environment;
}

/**
 * Makes what is missing of the lab, in the cache folder, and boots it once. Needs apt and dpkg-deb, a compiler for
 * arm64 and npm, but no root. The kernel is built anew when lab/kernel.config has changed.
 * @throws {LabError} UNSUPPORTED_HERE if something has to be installed first, LAB_FETCH_FAILED, LAB_BUILD_FAILED.
 */
export async function buildLab({
  progress,
  refresh = false,
  environment = process.env,
}: LabBuildOptions): Promise<void> {
  const cache = cacheFolder(environment);
  if (refresh || (await cached('lab-kernel', environment)) === undefined) await requireBuildTools();
  await setup({ progress, refresh, for: 'lab', environment });

  await makeCacheFolder(cache);
  await removeLeftovers(cache);
  const versions = await installedDependencies();
  const modules = modulesFolderName(versions);
  if (refresh || (await readManifest(join(cache, modules))) === undefined) {
    progress('modules: installing with npm');
    await publishFolder(cache, modules, async (folder) => {
      await writeManifest(folder, await installModules(versions, folder));
    });
  }
  progress(`modules: ${(await readManifest(join(cache, modules)))?.description ?? ''}`);

  const lab = await requireHostLab(environment);
  const folder = new RunFolder();
  try {
    const guest = await bootHostLab(lab, { folder }, environment);
    progress(`lab: Linux ${guest.ready.kernel} takes commands ${guest.ready.uptimeS} s after its start`);
    await guest.close();
  } finally {
    folder.remove();
  }
}

async function requireBuildTools(): Promise<void> {
  const missing = await missingBuildTools();
  if (missing.length === 0) return;
  throw new LabError(
    'UNSUPPORTED_HERE',
    'A kernel for the lab cannot be built here; programs are missing.',
    `Install them as root: apt-get install -y --no-install-recommends ${missing.join(' ')}`,
  );
}
