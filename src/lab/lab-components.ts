/** How the folders are filled that only the lab needs. */

import { copyFile, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { type Apt, type FetchedPackage, unpack } from './apt.ts';
import { broken, type Builder, type Built } from './built.ts';
import { exists } from './cache-folder.ts';
import { LabError } from './errors.ts';
import { buildLinux, missingBuildTools } from './kernel-build.ts';
import { RECIPES } from './recipe.ts';

/** UEFI in a form that QEMU takes with -bios. */
export async function buildFirmware(apt: Apt, folder: string): Promise<Built> {
  const { package: name, suite } = RECIPES.firmware;
  const version = (await apt.show(name, suite))?.get('version');
  if (version === undefined) throw broken(`${name} is not in ${suite}`);
  const fetched = await apt.fetch(name, version);
  const root = join(folder, 'root');
  await mkdir(root);
  await unpack(fetched, root);
  const image = join(root, 'usr/share/qemu-efi-aarch64/QEMU_EFI.fd');
  if (!(await exists(image))) throw broken(`${name} holds no QEMU_EFI.fd`);
  await copyFile(image, join(folder, 'QEMU_EFI.fd'));
  await rm(root, { recursive: true });
  return {
    packages: [fetched],
    files: { image: 'QEMU_EFI.fd' },
    description: `UEFI ${version} (Debian ${suite})`,
  };
}

/** Of an unpacked root with Node.js, what nobody runs. */
const NOT_NEEDED = [
  'usr/share/doc',
  'usr/share/man',
  'usr/share/locale',
  'usr/share/lintian',
  'usr/lib/systemd',
];

/** A folder that is `/usr` of an arm64 machine with Node.js, to be shared with the lab's guest. */
export async function buildNode(apt: Apt, folder: string): Promise<Built> {
  const { package: name, suite } = RECIPES.node;
  const all = await apt.fetchWithDependencies(`${name}:arm64`, suite);
  const packages = all.filter(({ architecture }) => architecture === 'arm64' || architecture === 'all');
  const root = join(folder, 'root');
  await mkdir(root);
  for (const fetched of packages) await unpack(fetched, root);
  for (const path of NOT_NEEDED) await rm(join(root, path), { recursive: true, force: true });
  const loader = join(root, 'usr/lib/ld-linux-aarch64.so.1');
  if (!(await exists(loader)) || !(await exists(join(root, 'usr/bin/node'))))
    throw broken(`${name} holds no node`);
  const version = packages.find((fetched) => fetched.name === name)?.version ?? '';
  return {
    packages,
    files: { root: 'root', program: 'root/usr/bin/node' },
    description: `Node.js ${version} for arm64 (Debian ${suite})`,
  };
}

/** What of the peer's packages is needed to run it. */
const PEER_KEEPS = /^usr\/(bin\/(qemu-system-aarch64|strace)|lib|share\/qemu|share\/doc)(\/|$)/;

/** A folder with an arm64 QEMU and strace, with their libraries, to be shared with the lab's guest. */
export async function buildPeer(apt: Apt, folder: string): Promise<Built> {
  const { package: name, suite } = RECIPES.peer;
  const root = join(folder, 'root');
  await mkdir(root);
  const packages: FetchedPackage[] = [];
  for (const wanted of [name, 'strace']) {
    const all = await apt.fetchWithDependencies(`${wanted}:arm64`, suite);
    for (const fetched of all) {
      const { architecture } = fetched;
      if (architecture !== 'arm64' && architecture !== 'all') continue;
      if (packages.some((other) => other.name === fetched.name)) continue;
      await unpack(fetched, root);
      packages.push(fetched);
    }
  }
  for (const place of ['', 'usr', 'usr/bin', 'usr/share'])
    for (const entry of await readdir(join(root, place))) {
      const path = place === '' ? entry : `${place}/${entry}`;
      const leadsThere = ['usr', 'usr/bin', 'usr/share'].includes(path);
      if (!leadsThere && !PEER_KEEPS.test(path)) await rm(join(root, path), { recursive: true });
    }
  const files = {
    root: 'root',
    loader: 'root/usr/lib/ld-linux-aarch64.so.1',
    qemu: 'root/usr/bin/qemu-system-aarch64',
    strace: 'root/usr/bin/strace',
  };
  for (const file of Object.values(files))
    if (!(await exists(join(folder, file)))) throw broken(`${name} and strace for arm64 hold no ${file}`);
  const version = packages.find((fetched) => fetched.name === name)?.version ?? '';
  return { packages, files, description: `QEMU ${version} for arm64 (Debian ${suite}), with strace` };
}

export const buildLabKernel: Builder = async (apt, folder, progress) => {
  const { package: name, suite } = RECIPES['lab-kernel'];
  const missing = await missingBuildTools();
  if (missing.length > 0) {
    throw new LabError(
      'UNSUPPORTED_HERE',
      'A kernel for the lab cannot be built here; programs are missing.',
      `Install them as root: apt-get install -y --no-install-recommends ${missing.join(' ')}`,
    );
  }
  const version = (await apt.show(name, suite))?.get('version');
  if (version === undefined) throw broken(`${name} is not in ${suite}`);
  progress(`lab-kernel: fetching ${name} ${version}`);
  const fetched = await apt.fetch(name, version);
  const { release, compiler } = await buildLinux(fetched, folder, progress);
  return {
    packages: [fetched],
    files: { image: 'Image', config: 'config' },
    description: `Linux ${release} (Debian's ${name} ${version}, ${compiler})`,
  };
};
