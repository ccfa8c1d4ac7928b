import { arch } from 'node:os';
import { delimiter, join } from 'node:path';

import { installedQemu, probeQemu, type QemuProgram } from '../qemu/program.ts';
import { cacheFolder, type Environment, exists } from './cache-folder.ts';
import { packagedQemu } from './components.ts';
import { LabError } from './errors.ts';
import { type Manifest, readManifest } from './manifest.ts';
import { type Component, folderName } from './recipe.ts';

/** What a real guest needs: where it is, or why it is not there. */
export type Part<T> =
  | { found: true; value: T; from: 'option' | 'machine' | 'cache'; description: string }
  | { found: false; reason: string };

export interface LabStatus {
  qemu: Part<QemuProgram>;
  kernel: Part<string>;
  /** Or the user's own initramfs. */
  busybox: Part<string>;
  /** Only for tests; a lab is complete without it. */
  olderKernel: Part<string>;
}

/** What the user named, instead of what is in the cache. */
export interface LabOverrides {
  qemu?: string | undefined;
  kernel?: string | undefined;
  busybox?: string | undefined;
  /** An initramfs instead of ours; busybox is not needed then. */
  initrd?: string | undefined;
}

/** A complete lab. */
export interface Lab {
  qemu: QemuProgram;
  kernel: string;
  /** What our initramfs is made of, or else the user's own. */
  busybox?: string;
  initrd?: string;
  olderKernel: string | undefined;
  /** One line for each part, for people. */
  description: string[];
}

/** Debian's name of this machine's CPU, as far as a QEMU is fetched for it. */
export const machineArchitecture = (): string => (arch() === 'x64' ? 'amd64' : arch());

/** A component's folder in the cache with its manifest, if it is complete. */
export async function cached(
  component: Component,
  environment: Environment,
): Promise<{ folder: string; manifest: Manifest } | undefined> {
  const folder = join(cacheFolder(environment), folderName(component, machineArchitecture()));
  const manifest = await readManifest(folder);
  if (manifest === undefined) return undefined;
  for (const file of Object.values(manifest.files)) if (!(await exists(join(folder, file)))) return undefined;
  return { folder, manifest };
}

async function cachedFile(
  component: Component,
  part: string,
  environment: Environment,
): Promise<Part<string>> {
  const there = await cached(component, environment);
  const file = there?.manifest.files[part];
  if (there === undefined || file === undefined) return { found: false, reason: 'not fetched yet' };
  return {
    found: true,
    value: join(there.folder, file),
    from: 'cache',
    description: there.manifest.description,
  };
}

async function namedFile(path: string): Promise<Part<string>> {
  if (!(await exists(path))) return { found: false, reason: `${path} is not there` };
  return { found: true, value: path, from: 'option', description: path };
}

async function onPath(name: string, environment: Environment): Promise<string | undefined> {
  for (const folder of (environment['PATH'] ?? '').split(delimiter)) {
    if (folder !== '' && (await exists(join(folder, name)))) return join(folder, name);
  }
  return undefined;
}

async function probed(file: string, from: 'option' | 'machine'): Promise<Part<QemuProgram>> {
  const program = installedQemu(file);
  try {
    const { version } = await probeQemu(program);
    return { found: true, value: program, from, description: `QEMU ${version.join('.')} (${file})` };
  } catch (error) {
    return { found: false, reason: error instanceof Error ? error.message : String(error) };
  }
}

/** The QEMU that this machine has installed, if it is of use. */
export async function installedQemuPart(environment: Environment): Promise<Part<QemuProgram>> {
  const file = await onPath('qemu-system-aarch64', environment);
  return file === undefined ? { found: false, reason: 'not installed' } : probed(file, 'machine');
}

async function findQemu(option: string | undefined, environment: Environment): Promise<Part<QemuProgram>> {
  if (option !== undefined) {
    // As a shell does: a name without a slash is looked for on the path.
    const file = option.includes('/') ? option : ((await onPath(option, environment)) ?? option);
    return probed(file, 'option');
  }
  const there = await cached('qemu', environment);
  const program = there && packagedQemu(there.folder, there.manifest.files);
  if (there !== undefined && program !== undefined) {
    return { found: true, value: program, from: 'cache', description: there.manifest.description };
  }
  const installed = await installedQemuPart(environment);
  return installed.found
    ? installed
    : { found: false, reason: `not fetched yet; on this machine: ${installed.reason}` };
}

/** Looks for everything; changes nothing. What the user named comes first, then the cache, then the machine. */
export async function labStatus(
  overrides: LabOverrides = {},
  environment: Environment = process.env,
): Promise<LabStatus> {
  const file = async (
    option: string | undefined,
    component: Component,
    part: string,
  ): Promise<Part<string>> =>
    option === undefined ? cachedFile(component, part, environment) : namedFile(option);
  return {
    qemu: await findQemu(overrides.qemu, environment),
    kernel: await file(overrides.kernel, 'kernel', 'image'),
    busybox: await file(overrides.initrd ?? overrides.busybox, 'busybox', 'program'),
    olderKernel: await file(undefined, 'kernel-stable', 'image'),
  };
}

/** What each part is called, and the option that names one. */
const PARTS = [
  ['qemu', '--qemu', 'a qemu-system-aarch64 of version 10.1 or later with vfio-user-pci'],
  ['kernel', '--kernel', 'an arm64 Linux kernel image with ARM_SMMU_V3 and NVMe built in'],
  ['busybox', '--busybox', 'a static arm64 busybox, or --initrd with an initramfs of your own'],
] as const;

/** The lines that say what is there, what is missing, and how to get that. */
export function describeStatus(status: LabStatus): string[] {
  const lines: string[] = [];
  for (const [name, option, what] of PARTS) {
    const part = status[name];
    lines.push(
      part.found
        ? `${name}: ${part.description}`
        : `${name}: missing (${part.reason}); needed is ${option}: ${what}`,
    );
  }
  return lines;
}

/**
 * Everything that a real guest needs.
 * @throws {LabError} UNSUPPORTED_HERE with a line for each part and what to do.
 */
export async function requireLab(
  overrides: LabOverrides = {},
  environment: Environment = process.env,
): Promise<Lab> {
  const status = await labStatus(overrides, environment);
  const { qemu, kernel, busybox, olderKernel } = status;
  if (!qemu.found || !kernel.found || !busybox.found) {
    throw new LabError(
      'UNSUPPORTED_HERE',
      [
        'A real guest needs more than there is here:',
        ...describeStatus(status).map((line) => `  ${line}`),
      ].join('\n'),
      'Run "vsmmu lab setup" to fetch it from Debian packages, or name it with the options.',
    );
  }
  return {
    qemu: qemu.value,
    kernel: kernel.value,
    ...(overrides.initrd === undefined ? { busybox: busybox.value } : { initrd: overrides.initrd }),
    olderKernel: olderKernel.found ? olderKernel.value : undefined,
    description: describeStatus(status),
  };
}
