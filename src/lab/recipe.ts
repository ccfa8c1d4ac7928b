import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { LAB_FILES } from './lab-files.ts';

/**
 * What is fetched, and from which release of Debian. A component's folder in the cache is named after its recipe, so a
 * changed recipe is fetched anew and an unchanged one never twice.
 */

const STABLE = 'trixie';
const BACKPORTS = 'trixie-backports';

export const SUITES = [STABLE, BACKPORTS] as const;

/** A real guest on the embedded host, or the lab, whose Linux is a host itself. */
export type User = 'guest' | 'lab';

export interface Recipe {
  /** Raised when the way in which the folder is filled changes. */
  layout: number;
  package: string;
  suite: string;
  /** What it is, for people. */
  title: string;
  /** Who needs it. */
  for: readonly User[];
}

export const RECIPES = {
  /** Needed only where the machine has no QEMU that is new enough. */
  qemu: { layout: 1, package: 'qemu-system-arm', suite: BACKPORTS, title: 'QEMU', for: ['guest', 'lab'] },
  /** The cloud flavour has the NVMe driver built in, so that no modules are needed. */
  kernel: {
    layout: 1,
    package: 'linux-image-cloud-arm64',
    suite: BACKPORTS,
    title: 'an arm64 Linux',
    for: ['guest'],
  },
  /** An older kernel, whose driver prints events as raw words; only for tests. */
  'kernel-stable': {
    layout: 1,
    package: 'linux-image-cloud-arm64',
    suite: STABLE,
    title: 'an older arm64 Linux',
    for: ['guest'],
  },
  busybox: { layout: 1, package: 'busybox-static', suite: STABLE, title: 'busybox', for: ['guest', 'lab'] },
  /** ACPI needs UEFI. */
  firmware: { layout: 1, package: 'qemu-efi-aarch64', suite: STABLE, title: 'UEFI for arm64', for: ['lab'] },
  node: { layout: 1, package: 'nodejs', suite: STABLE, title: 'an arm64 Node.js', for: ['lab'] },
  /** A VMM for the lab's own guests, with an accelerated SMMUv3 of its own; and strace, to count what it asks of Linux. */
  peer: {
    layout: 1,
    package: 'qemu-system-arm',
    suite: BACKPORTS,
    title: 'an arm64 QEMU, to compare with',
    for: ['lab'],
  },
  /** Built here: none of Debian's kernels has IOMMUFD. The release is the one whose answers we know. */
  'lab-kernel': {
    layout: 1,
    package: 'linux-source-7.3',
    suite: BACKPORTS,
    title: 'an arm64 Linux that is a host',
    for: ['lab'],
  },
} as const satisfies Record<string, Recipe>;

export type Component = keyof typeof RECIPES;

/** The components that somebody needs. */
export const componentsFor = (user: User): Component[] =>
  (Object.keys(RECIPES) as Component[]).filter((component) => {
    const { for: users }: Recipe = RECIPES[component];
    return users.includes(user);
  });

/**
 * The name of a component's folder in the cache.
 * @param architecture Debian's name of this machine's CPU; QEMU depends on it, the guest does not.
 */
export function folderName(component: Component, architecture: string): string {
  const { layout, package: source, suite, title } = RECIPES[component];
  const inputs: unknown[] = [{ layout, package: source, suite, title }];
  inputs.push(component === 'qemu' ? architecture : 'arm64');
  if (component === 'lab-kernel') inputs.push(readFileSync(LAB_FILES.kernelConfig, 'utf8'));
  const key = createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 12);
  return `${component}-${key}`;
}
