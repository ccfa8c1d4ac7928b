import { createHash } from 'node:crypto';

/**
 * What is fetched, and from which release of Debian. A component's folder in the cache is named after its recipe, so a
 * changed recipe is fetched anew and an unchanged one never twice.
 */

const STABLE = 'trixie';
const BACKPORTS = 'trixie-backports';

export const SUITES = [STABLE, BACKPORTS] as const;

export interface Recipe {
  /** Raised when the way in which the folder is filled changes. */
  layout: number;
  package: string;
  suite: string;
  /** What it is, for people. */
  title: string;
}

export const RECIPES = {
  /** Needed only where the machine has no QEMU that is new enough. */
  qemu: { layout: 1, package: 'qemu-system-arm', suite: BACKPORTS, title: 'QEMU' },
  /** The cloud flavour has the NVMe driver built in, so that no modules are needed. */
  kernel: { layout: 1, package: 'linux-image-cloud-arm64', suite: BACKPORTS, title: 'an arm64 Linux' },
  /** An older kernel, whose driver prints events as raw words; only for tests. */
  'kernel-stable': {
    layout: 1,
    package: 'linux-image-cloud-arm64',
    suite: STABLE,
    title: 'an older arm64 Linux',
  },
  busybox: { layout: 1, package: 'busybox-static', suite: STABLE, title: 'busybox' },
} as const satisfies Record<string, Recipe>;

export type Component = keyof typeof RECIPES;

/**
 * The name of a component's folder in the cache.
 * @param architecture Debian's name of this machine's CPU; QEMU depends on it, the guest does not.
 */
export function folderName(component: Component, architecture: string): string {
  const inputs = [RECIPES[component], component === 'qemu' ? architecture : 'arm64'];
  const key = createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 12);
  return `${component}-${key}`;
}
