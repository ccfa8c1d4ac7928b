/** The npm packages that vsmmu needs, as an arm64 Linux needs them: koffi has a part in machine code. */

import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { exists } from './cache-folder.ts';
import { LabError } from './errors.ts';
import type { Manifest } from './manifest.ts';
import { run } from './subprocess.ts';

interface PackageFile {
  readonly version?: string;
  readonly dependencies?: Record<string, string>;
  readonly optionalDependencies?: Record<string, string>;
}

const readPackage = async (file: string): Promise<PackageFile> =>
  JSON.parse(await readFile(file, 'utf8')) as PackageFile;

/** The package that this file is part of. */
const OWN = fileURLToPath(new URL('../../', import.meta.url));

/** What vsmmu depends on, in the versions that are installed here. */
export async function installedDependencies(): Promise<Record<string, string>> {
  const { dependencies = {}, optionalDependencies = {} } = await readPackage(join(OWN, 'package.json'));
  const versions: Record<string, string> = {};
  for (const [name, range] of Object.entries({ ...dependencies, ...optionalDependencies })) {
    // As Node looks for it: upwards. An optional one may not be there.
    let folder = OWN;
    let found: string | undefined;
    while (found === undefined) {
      const file = join(folder, 'node_modules', name, 'package.json');
      if (await exists(file)) found = (await readPackage(file)).version;
      const parent = dirname(folder);
      if (parent === folder) break;
      folder = parent;
    }
    versions[name] = found ?? range;
  }
  return versions;
}

/** The name of the folder in the cache for these packages. */
export function modulesFolderName(versions: Readonly<Record<string, string>>): string {
  const key = createHash('sha256')
    .update(JSON.stringify([1, versions]))
    .digest('hex')
    .slice(0, 12);
  return `modules-${key}`;
}

/**
 * Fills an empty folder with `node_modules` for an arm64 Linux, by npm. No package's scripts are run.
 * @throws {LabError} LAB_FETCH_FAILED, or UNSUPPORTED_HERE without npm.
 */
export async function installModules(
  versions: Readonly<Record<string, string>>,
  folder: string,
): Promise<Manifest> {
  await writeFile(join(folder, 'package.json'), JSON.stringify({ private: true, dependencies: versions }));
  const { status, stderr } = await run(
    'npm',
    [
      'install',
      '--cpu=arm64',
      '--os=linux',
      '--libc=glibc',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      '--no-package-lock',
    ],
    { cwd: folder },
  );
  if (status === 127) {
    throw new LabError(
      'UNSUPPORTED_HERE',
      "vsmmu's dependencies for arm64 are installed with npm, which is not there.",
      'It comes with Node.js; on Debian it is the package npm.',
    );
  }
  const native = join(folder, 'node_modules/@koromix/koffi-linux-arm64');
  if (status !== 0 || !(await exists(native))) {
    throw new LabError(
      'LAB_FETCH_FAILED',
      `npm cannot install vsmmu's dependencies for arm64:\n${stderr.split('\n').slice(-5).join('\n')}`,
      'Can this machine reach its npm registry?',
    );
  }
  const names = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return {
    component: 'modules',
    description: `${names.join(', ')} for arm64`,
    packages: [],
    files: { modules: 'node_modules' },
    created: new Date().toISOString(),
  };
}
