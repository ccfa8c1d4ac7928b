import { randomBytes } from 'node:crypto';
import { access, constants, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

import { LabError } from './errors.ts';

/** Environment variables that matter here, by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Where fetched things are kept: $VSMMU_CACHE, or `vsmmu` in the user's cache folder. */
export function cacheFolder(environment: Environment = process.env): string {
  const own = environment['VSMMU_CACHE'];
  if (own !== undefined && own !== '') return own;
  const base = environment['XDG_CACHE_HOME'];
  // The XDG specification has relative paths ignored.
  return join(base?.startsWith('/') ? base : join(homedir(), '.cache'), 'vsmmu');
}

/** Makes the cache folder, unless it is there. @throws {LabError} UNSUPPORTED_HERE if that cannot be. */
export async function makeCacheFolder(cache: string): Promise<void> {
  try {
    await mkdir(cache, { recursive: true });
    await access(cache, constants.W_OK);
  } catch (error) {
    const { code = 'an error' } = error as NodeJS.ErrnoException;
    throw new LabError(
      'UNSUPPORTED_HERE',
      `The cache folder ${cache} cannot be written (${code}).`,
      'VSMMU_CACHE names another one; building the lab needs 3 GB there.',
    );
  }
}

const TEMPORARY = /^\.tmp-(\d+)-[0-9a-f]+$/;

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Removes what runs that were killed have left behind. */
export async function removeLeftovers(cache: string): Promise<void> {
  for (const name of await readdir(cache).catch(() => [])) {
    const match = TEMPORARY.exec(name);
    if (match !== null && !isAlive(Number(match[1])))
      await rm(join(cache, name), { recursive: true, force: true });
  }
}

/** Runs `work` with an empty folder that is gone afterwards. */
export async function withTemporaryFolder<T>(
  cache: string,
  work: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = join(cache, `.tmp-${process.pid}-${randomBytes(6).toString('hex')}`);
  await mkdir(folder, { recursive: true });
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Makes the folder `name` in the cache, or replaces it: `build` fills a temporary one, which then takes that name in one
 * step, so a folder that is there is complete.
 */
export async function publishFolder(
  cache: string,
  name: string,
  build: (folder: string) => Promise<void>,
): Promise<void> {
  const target = join(cache, name);
  await withTemporaryFolder(cache, async (folder) => {
    const content = join(folder, 'new');
    await mkdir(content);
    await build(content);
    // Again and again, but not for ever: another process may put its own there between our two steps.
    for (let attempt = 0; ; attempt++) {
      try {
        await rename(content, target);
        return;
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code;
        if (attempt > 2 || (code !== 'ENOTEMPTY' && code !== 'EEXIST')) throw error;
        await rename(target, join(folder, `old-${attempt}`));
      }
    }
  });
}

/** Whether there is something at that path. */
export const exists = async (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
