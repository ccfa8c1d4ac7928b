import { copyFile, mkdir, open, readdir, rm } from 'node:fs/promises';
import { join, relative } from 'node:path';

import { probeQemu, type QemuProgram } from '../qemu/program.ts';
import { type Apt, unpack } from './apt.ts';
import { type Builder, broken, type Built } from './built.ts';
import { exists } from './cache-folder.ts';
import { buildFirmware, buildLabKernel, buildNode, buildPeer } from './lab-components.ts';
import type { Manifest } from './manifest.ts';
import { type Component, RECIPES } from './recipe.ts';

/** How each component's folder is filled from packages. */

/** What of an unpacked root QEMU needs to run; licences stay with it. */
const KEEP = ['usr/bin/qemu-system-aarch64', 'usr/lib', 'usr/lib64', 'usr/share/qemu', 'usr/share/doc'];

async function prune(root: string): Promise<void> {
  const visit = async (folder: string): Promise<void> => {
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      const name = relative(root, path);
      if (KEEP.includes(name)) continue;
      if (entry.isDirectory() && KEEP.some((kept) => kept.startsWith(`${name}/`))) await visit(path);
      else await rm(path, { recursive: true, force: true });
    }
  };
  await visit(root);
}

/**
 * How to run the QEMU in a folder that {@link buildQemu} filled: by the loader and the libraries beside it, as those of
 * this machine may be too old.
 */
export function packagedQemu(
  folder: string,
  files: Readonly<Record<string, string>>,
): QemuProgram | undefined {
  const { loader, libraries, program, data } = files;
  if (loader === undefined || libraries === undefined || program === undefined || data === undefined)
    return undefined;
  const at = (path: string): string => join(folder, path);
  return {
    file: at(loader),
    leadingArguments: ['--inhibit-cache', '--library-path', at(libraries), at(program), '-L', at(data)],
    environment: { QEMU_MODULE_DIR: join(at(libraries), 'qemu') },
  };
}

async function buildQemu(apt: Apt, folder: string): Promise<Built> {
  const { package: name, suite } = RECIPES.qemu;
  const packages = await apt.fetchWithDependencies(name, suite);
  const root = join(folder, 'root');
  await mkdir(root);
  for (const fetched of packages) await unpack(fetched, root);
  await prune(root);
  let loader: string | undefined;
  for (const place of ['usr/lib64', 'usr/lib']) {
    const names = await readdir(join(root, place)).catch(() => []);
    const found = names.find((entry) => /^ld-linux.*\.so\.\d+$/.test(entry));
    if (found !== undefined) loader ??= `root/${place}/${found}`;
  }
  let libraries: string | undefined;
  for (const entry of await readdir(join(root, 'usr/lib'))) {
    if (await exists(join(root, 'usr/lib', entry, 'libc.so.6'))) libraries = `root/usr/lib/${entry}`;
  }
  if (loader === undefined || libraries === undefined) throw broken('no dynamic loader or no C library');
  const files = {
    loader,
    libraries,
    program: 'root/usr/bin/qemu-system-aarch64',
    data: 'root/usr/share/qemu',
  };
  const program = packagedQemu(folder, files);
  if (program === undefined) throw broken('no QEMU');
  const { version } = await probeQemu(program);
  return { packages, files, description: `QEMU ${version.join('.')} (Debian ${suite})` };
}

/** An arm64 kernel image says so at offset 0x38, "ARM" and 0x64. */
async function isArm64Image(file: string): Promise<boolean> {
  const handle = await open(file);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(64), 0, 64, 0);
    return bytesRead === 64 && buffer.readUInt32LE(0x38) === 0x644d_5241;
  } finally {
    await handle.close();
  }
}

async function buildKernel(apt: Apt, folder: string, component: 'kernel' | 'kernel-stable'): Promise<Built> {
  const { package: name, suite } = RECIPES[component];
  // An empty package whose dependencies name the current kernel.
  const meta = await apt.show(`${name}:arm64`, suite);
  const dependency = (fields: Map<string, string> | undefined, pattern: RegExp): string | undefined =>
    pattern.exec(fields?.get('depends') ?? '')?.[1];
  const imageName = dependency(meta, /(?:^|, )(linux-image-\d[^ ,(]*)/);
  const image = imageName === undefined ? undefined : await apt.show(`${imageName}:arm64`, suite);
  if (imageName === undefined || image === undefined) throw broken(`${name} names no kernel in ${suite}`);
  // Newer packages have the image apart from the modules, which we do not need.
  const binaryName = dependency(image, /(?:^|, )(linux-binary-\d[^ ,(]*)/);
  const wanted = binaryName ?? imageName;
  const version = (binaryName === undefined ? image : await apt.show(`${wanted}:arm64`, suite))?.get(
    'version',
  );
  if (version === undefined) throw broken(`${wanted} is not in ${suite}`);

  const fetched = await apt.fetch(`${wanted}:arm64`, version);
  const root = join(folder, 'root');
  await mkdir(root);
  await unpack(fetched, root);
  const release = imageName.slice('linux-image-'.length);
  const places = [
    `boot/vmlinuz-${release}`,
    `usr/lib/modules/${release}/vmlinuz`,
    `lib/modules/${release}/vmlinuz`,
  ];
  let found: string | undefined;
  for (const place of places) if (await exists(join(root, place))) found ??= join(root, place);
  if (found === undefined || !(await isArm64Image(found)))
    throw broken(`${wanted} holds no arm64 kernel image`);
  await copyFile(found, join(folder, 'vmlinuz'));
  await rm(root, { recursive: true });
  return {
    packages: [fetched],
    files: { image: 'vmlinuz' },
    description: `Linux ${release} (Debian ${version})`,
  };
}

async function buildBusybox(apt: Apt, folder: string): Promise<Built> {
  const { package: name, suite } = RECIPES.busybox;
  const version = (await apt.show(`${name}:arm64`, suite))?.get('version');
  if (version === undefined) throw broken(`${name} is not in ${suite}`);
  const fetched = await apt.fetch(`${name}:arm64`, version);
  const root = join(folder, 'root');
  await mkdir(root);
  await unpack(fetched, root);
  let found: string | undefined;
  for (const place of ['usr/bin/busybox', 'bin/busybox']) {
    if (await exists(join(root, place))) found ??= join(root, place);
  }
  if (found === undefined) throw broken(`${name} holds no busybox`);
  await copyFile(found, join(folder, 'busybox'));
  await rm(root, { recursive: true });
  return {
    packages: [fetched],
    files: { program: 'busybox' },
    description: `busybox ${version} (Debian ${suite})`,
  };
}

const BUILDERS: Record<Component, Builder> = {
  qemu: buildQemu,
  kernel: async (apt, folder) => buildKernel(apt, folder, 'kernel'),
  'kernel-stable': async (apt, folder) => buildKernel(apt, folder, 'kernel-stable'),
  busybox: buildBusybox,
  firmware: buildFirmware,
  node: buildNode,
  peer: buildPeer,
  'lab-kernel': buildLabKernel,
};

/** Fills an empty folder with a component; what it throws leaves the folder half-filled, so give it a temporary one. */
export async function buildComponent(
  component: Component,
  apt: Apt,
  folder: string,
  progress: (line: string) => void,
): Promise<Manifest> {
  const built = await BUILDERS[component](apt, folder, progress);
  return {
    component,
    description: built.description,
    packages: built.packages.map(({ name, version, architecture, sha256 }) => ({
      name,
      version,
      architecture,
      sha256,
    })),
    files: built.files,
    created: new Date().toISOString(),
  };
}
