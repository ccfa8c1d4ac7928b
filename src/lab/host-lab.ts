/** The lab: an arm64 Linux behind SMMUv3s that have both stages, so that it can be a host for VMMs. */

import { join } from 'node:path';

import type { QemuProgram } from '../qemu/program.ts';
import { cacheFolder, type Environment } from './cache-folder.ts';
import { LabError } from './errors.ts';
import { installedDependencies, modulesFolderName } from './guest-modules.ts';
import { readManifest } from './manifest.ts';
import { cached, labStatus } from './status.ts';

/** What the lab's machine is made of. */
export interface HostLab {
  readonly qemu: QemuProgram;
  /** UEFI for arm64. */
  readonly firmware: string;
  readonly kernel: string;
  readonly busybox: string;
  /** Becomes `/usr` of the guest; has an arm64 Node.js. */
  readonly nodeRoot: string;
  /** vsmmu's dependencies for arm64: a folder with `node_modules`. */
  readonly modules: string;
  /** One line for each part, for people. */
  readonly description: readonly string[];
}

/** Its parts by name: where each is and what, or why it is not there. */
type Parts = Record<
  'firmware' | 'kernel' | 'busybox' | 'node' | 'modules',
  { readonly path?: string; readonly description: string }
>;

async function findParts(environment: Environment): Promise<Parts> {
  const missing = { description: 'not there yet' };
  const component = async (
    name: 'firmware' | 'lab-kernel' | 'node',
    file: string,
  ): Promise<Parts['node']> => {
    const there = await cached(name, environment);
    const path = there?.manifest.files[file];
    if (there === undefined || path === undefined) return missing;
    return { path: join(there.folder, path), description: there.manifest.description };
  };
  const modulesFolder = join(cacheFolder(environment), modulesFolderName(await installedDependencies()));
  const modules = await readManifest(modulesFolder);
  const { busybox } = await labStatus({}, environment);
  return {
    firmware: await component('firmware', 'image'),
    kernel: await component('lab-kernel', 'image'),
    node: await component('node', 'root'),
    modules: modules === undefined ? missing : { path: modulesFolder, description: modules.description },
    busybox: busybox.found
      ? { path: busybox.value, description: busybox.description }
      : { description: busybox.reason },
  };
}

/**
 * The lab's parts.
 * @throws {LabError} UNSUPPORTED_HERE with a line for each part and what to do.
 */
export async function requireHostLab(environment: Environment = process.env): Promise<HostLab> {
  const { qemu } = await labStatus({}, environment);
  const parts = await findParts(environment);
  const { firmware, kernel, busybox, node, modules } = parts;
  const description = [
    `qemu: ${qemu.found ? qemu.description : `missing (${qemu.reason})`}`,
    ...Object.entries(parts).map(
      ([name, part]) =>
        `${name}: ${part.path === undefined ? `missing (${part.description})` : part.description}`,
    ),
  ];
  if (
    !qemu.found ||
    firmware.path === undefined ||
    kernel.path === undefined ||
    busybox.path === undefined ||
    node.path === undefined ||
    modules.path === undefined
  ) {
    throw new LabError(
      'UNSUPPORTED_HERE',
      ['The lab needs more than there is here:', ...description.map((line) => `  ${line}`)].join('\n'),
      'Run "vsmmu lab build" (in a clone: npm run lab:build). It builds a kernel, which takes some minutes.',
    );
  }
  return {
    qemu: qemu.value,
    firmware: firmware.path,
    kernel: kernel.path,
    busybox: busybox.path,
    nodeRoot: node.path,
    modules: modules.path,
    description,
  };
}

/**
 * An arm64 QEMU and strace for programs in the lab: a folder that is their `/usr`'s parent.
 * @throws {LabError} UNSUPPORTED_HERE if it has not been fetched.
 */
export async function requirePeer(environment: Environment = process.env): Promise<string> {
  const there = await cached('peer', environment);
  const root = there?.manifest.files['root'];
  if (there !== undefined && root !== undefined) return join(there.folder, root);
  throw new LabError(
    'UNSUPPORTED_HERE',
    'There is no arm64 QEMU to compare with.',
    'Run "vsmmu lab build" (in a clone: npm run lab:build).',
  );
}
