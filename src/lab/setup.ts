import { Apt, findDebianMirror } from './apt.ts';
import {
  cacheFolder,
  type Environment,
  makeCacheFolder,
  publishFolder,
  removeLeftovers,
  withTemporaryFolder,
} from './cache-folder.ts';
import { buildComponent } from './components.ts';
import { LabError } from './errors.ts';
import { writeManifest } from './manifest.ts';
import { type Component, componentsFor, folderName, RECIPES, SUITES, type User } from './recipe.ts';
import { cached, installedQemuPart, machineArchitecture } from './status.ts';

export interface SetupOptions {
  /** Called with one line after the other as the work goes on. */
  progress: (line: string) => void;
  /** Fetch again what is there, to get newer versions. */
  refresh?: boolean;
  /** What for; a real guest unless told. */
  for?: User;
  environment?: Environment;
}

/** What a machine without Debian packages has to provide for a real guest. */
const PROVIDE_GUEST = [
  'Give them to "vsmmu run --guest qemu" by hand:',
  '  --qemu PATH     qemu-system-aarch64, version 10.1 or later, built with vfio-user-pci',
  '  --kernel PATH   an arm64 Linux image with ARM_SMMU_V3, PCI_HOST_GENERIC, PL011 and NVMe built in',
  '  --busybox PATH  a static arm64 busybox, or --initrd PATH with an initramfs of your own',
  'With apt and the package debian-archive-keyring, VSMMU_DEBIAN_MIRROR=URL names a mirror to fetch them from.',
].join('\n');

/** The lab's kernel and programs have to go together, so there is no other way to get them. */
const PROVIDE_LAB = [
  'The lab is made of Debian packages: it needs apt and dpkg-deb, and either Debian itself or',
  'debian-archive-keyring with VSMMU_DEBIAN_MIRROR=URL, which names a mirror to fetch them from.',
].join('\n');

const PROVIDE: Record<User, string> = { guest: PROVIDE_GUEST, lab: PROVIDE_LAB };

/**
 * Fetches what is missing for a real guest into the cache folder. Needs apt and dpkg-deb, but no root. A component is
 * there completely or not at all; one that is there is not touched.
 * @throws {LabError} UNSUPPORTED_HERE where there are no Debian packages; LAB_FETCH_FAILED if fetching failed.
 */
export async function setup({
  progress,
  refresh = false,
  for: user = 'guest',
  environment = process.env,
}: SetupOptions): Promise<void> {
  const cache = cacheFolder(environment);
  const architecture = machineArchitecture();
  const missing: Component[] = [];
  for (const component of componentsFor(user)) {
    const there = await cached(component, environment);
    if (there !== undefined && !refresh) {
      progress(`${component}: ${there.manifest.description}, fetched already`);
      continue;
    }
    if (component === 'qemu') {
      const installed = await installedQemuPart(environment);
      if (installed.found) {
        progress(`qemu: ${installed.description}, this machine's own`);
        continue;
      }
      progress(`qemu: this machine's own cannot be used: ${installed.reason}`);
    }
    missing.push(component);
  }
  if (missing.length === 0) return;

  const mirror = await findDebianMirror(environment);
  if (mirror === undefined) {
    throw new LabError(
      'UNSUPPORTED_HERE',
      `This machine gets no Debian packages: ${missing.join(', ')} missing.`,
      PROVIDE[user],
    );
  }
  await makeCacheFolder(cache);
  await removeLeftovers(cache);
  await withTemporaryFolder(cache, async (folder) => {
    const architectures = [...new Set([architecture, 'arm64'])];
    progress(`reading the lists of Debian ${SUITES.join(', ')} (${architectures.join(', ')})`);
    const apt = await Apt.open({ folder, mirror, suites: SUITES, architectures });
    for (const component of missing) {
      const { title, package: name, suite } = RECIPES[component];
      progress(`${component}: fetching ${title} (${name} from ${suite})`);
      const target = folderName(component, architecture);
      let description = '';
      const build = async (content: string): Promise<void> => {
        const manifest = await buildComponent(component, apt, content, progress);
        await writeManifest(content, manifest);
        description = `${manifest.description}, ${manifest.packages.length} packages`;
      };
      await publishFolder(cache, target, build);
      progress(`${component}: ${description}`);
    }
  });
}
