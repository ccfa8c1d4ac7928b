import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { type Environment, exists } from './cache-folder.ts';
import { chooseMirror, type DebianMirror, readSources } from './debian-mirror.ts';
import { LabError } from './errors.ts';
import { run } from './subprocess.ts';

/** A package file that apt has fetched, and whose place in Debian's signed lists it has checked. */
export interface FetchedPackage {
  file: string;
  name: string;
  version: string;
  architecture: string;
  sha256: string;
}

/** What an apt of our own is to know. */
export interface AptOptions {
  /** An empty folder; everything that apt writes goes there. */
  folder: string;
  mirror: DebianMirror;
  suites: readonly string[];
  /** Debian's names of CPUs; the first is this machine's. */
  architectures: readonly string[];
}

/** Debian's own keys, as its package debian-archive-keyring installs them. */
const KEYRINGS = [
  '/usr/share/keyrings/debian-archive-keyring.pgp',
  '/usr/share/keyrings/debian-archive-keyring.gpg',
];

/** The text as a value of apt's configuration. */
const quoted = (text: string): string => `"${text.replaceAll('"', '')}"`;

/**
 * An apt that leaves the machine's own alone: it has its own lists, its own idea of what is installed (nothing), and
 * needs no root. It uses the machine's apt programs with the machine's settings (proxies, credentials) and checks
 * signatures as they do.
 */
export class Apt {
  readonly #config: string;
  readonly #folder: string;

  private constructor(folder: string, config: string) {
    this.#folder = folder;
    this.#config = config;
  }

  /** Prepares an apt and reads Debian's lists. */
  static async open({ folder, mirror, suites, architectures }: AptOptions): Promise<Apt> {
    for (const name of ['state/lists/partial', 'cache/archives/partial', 'sources']) {
      await mkdir(join(folder, name), { recursive: true });
    }
    const status = join(folder, 'status');
    await writeFile(status, '');
    let keyring = mirror.signedBy;
    for (const candidate of KEYRINGS) if (await exists(candidate)) keyring = candidate;
    const source = [
      'Types: deb',
      `URIs: ${mirror.uri}`,
      `Suites: ${suites.join(' ')}`,
      'Components: main',
      `Architectures: ${architectures.join(' ')}`,
      ...(keyring === undefined ? [] : [`Signed-By: ${keyring}`]),
    ];
    await writeFile(join(folder, 'sources', 'debian.sources'), `${source.join('\n')}\n`);
    const settings = [
      `Dir::State ${quoted(join(folder, 'state'))};`,
      `Dir::State::status ${quoted(status)};`,
      `Dir::Cache ${quoted(join(folder, 'cache'))};`,
      `Dir::Cache::archives "archives/";`,
      `Dir::Etc::sourcelist "/dev/null";`,
      `Dir::Etc::sourceparts ${quoted(join(folder, 'sources'))};`,
      `Dir::Etc::preferences "/dev/null";`,
      `Dir::Etc::preferencesparts "/dev/null";`,
      `#clear APT::Architectures;`,
      `APT::Architecture ${quoted(architectures[0] ?? '')};`,
      `APT::Architectures { ${architectures.map((name) => `${quoted(name)};`).join(' ')} };`,
      `APT::Install-Recommends "false";`,
      `APT::Keep-Downloaded-Packages "true";`,
      `Acquire::Languages "none";`,
      `Acquire::Retries "3";`,
    ];
    // As root apt would fetch as another user, who cannot reach into root's cache folder; it would then warn and fetch
    // as root all the same.
    if (process.getuid?.() === 0) settings.push('APT::Sandbox::User "root";');
    const config = join(folder, 'apt.conf');
    await writeFile(config, `${settings.join('\n')}\n`);
    const apt = new Apt(folder, config);
    await apt.#run('apt-get', 'update');
    return apt;
  }

  /** The fields of a package's control data in that suite, by lower-case name; undefined if it is not there. */
  async show(name: string, suite: string): Promise<Map<string, string> | undefined> {
    const { status, stdout } = await run('apt-cache', ['-c', this.#config, 'policy', name]);
    if (status !== 0) return undefined;
    const version = versionInSuite(stdout, suite);
    if (version === undefined) return undefined;
    const control = await this.#run('apt-cache', 'show', `${name}=${version}`);
    const fields = new Map<string, string>();
    for (const line of control.split('\n')) {
      const match = /^([A-Za-z0-9-]+): (.*)$/.exec(line);
      if (match !== null) fields.set((match[1] ?? '').toLowerCase(), match[2] ?? '');
    }
    return fields;
  }

  /** Fetches a package and all that it depends on, preferring `suite`. */
  async fetchWithDependencies(name: string, suite: string): Promise<FetchedPackage[]> {
    // What another package depended on is still there.
    await this.#run('apt-get', 'clean');
    await this.#run('apt-get', '-t', suite, '--yes', '--download-only', 'install', name);
    return describeAll(join(this.#folder, 'cache', 'archives'));
  }

  /** Fetches one package and nothing else. `version` is exact. */
  async fetch(name: string, version: string): Promise<FetchedPackage> {
    const folder = join(this.#folder, 'single', name.replaceAll(/[^a-z0-9.+-]/g, '_'));
    await mkdir(folder, { recursive: true });
    await this.#run('apt-get', { cwd: folder }, 'download', `${name}=${version}`);
    const [fetched] = await describeAll(folder);
    if (fetched === undefined) {
      throw new LabError(
        'LAB_FETCH_FAILED',
        `apt-get fetched nothing for ${name} ${version}.`,
        'Try again later.',
      );
    }
    return fetched;
  }

  async #run(program: string, ...words: (string | { cwd: string })[]): Promise<string> {
    const args = words.filter((word) => typeof word === 'string');
    const options = words.find((word) => typeof word === 'object') ?? {};
    const { status, stdout, stderr } = await run(program, ['-q', '-c', this.#config, ...args], options);
    // `update` ends well although lists are missing; it says so in lines that start like this.
    const complaints = stderr.split('\n').filter((line) => /^(E|Err|W: (Failed|GPG|An error)):?/.test(line));
    if (status === 0 && complaints.length === 0) return stdout;
    const said =
      complaints.length > 0 ? complaints.slice(0, 5).join('\n') : stderr.split('\n').slice(-5).join('\n');
    throw new LabError('LAB_FETCH_FAILED', `${program} ${args.join(' ')} failed:\n${said}`, fetchHint(said));
  }
}

/** @returns the version that `apt-cache policy` lists for a suite. */
export function versionInSuite(policy: string, suite: string): string | undefined {
  let version: string | undefined;
  for (const line of policy.split('\n')) {
    // A version is indented by five columns (or marked as installed), its sources by more.
    const entry = /^ (?: {3}|\*\*\*) (\S+) /.exec(line);
    if (entry !== null) version = entry[1];
    else if (version !== undefined && /^ {6,}-?\d+ /.test(line) && line.includes(` ${suite}/`))
      return version;
  }
  return undefined;
}

function fetchHint(said: string): string {
  if (/NO_PUBKEY|not signed|public key/i.test(said)) {
    return 'Debian\'s keys on this machine are too old: update the package "debian-archive-keyring".';
  }
  return 'Can this machine reach its Debian mirror ("apt-get update")?';
}

async function describeAll(folder: string): Promise<FetchedPackage[]> {
  const packages: FetchedPackage[] = [];
  for (const entry of (await readdir(folder)).filter((name) => name.endsWith('.deb'))) {
    const file = join(folder, entry);
    // name_version_architecture.deb; a colon in the version is written as %3a.
    const [name = '', version = '', architecture = ''] = entry.slice(0, -'.deb'.length).split('_');
    const sha256 = createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
    packages.push({ file, name, version: decodeURIComponent(version), architecture, sha256 });
  }
  return packages;
}

/** Unpacks a package's files; its scripts are not run. */
export async function unpack(fetched: FetchedPackage, folder: string): Promise<void> {
  const { status, stderr } = await run('dpkg-deb', ['-x', fetched.file, folder]);
  if (status !== 0) {
    throw new LabError(
      'LAB_FETCH_FAILED',
      `${fetched.name} cannot be unpacked: ${stderr.trim()}`,
      'Is the disk full?',
    );
  }
}

/**
 * This machine's Debian mirror, or undefined if it has no apt or gets no Debian with it.
 * $VSMMU_DEBIAN_MIRROR names a mirror for machines that are not Debian but have apt and Debian's keys.
 */
export async function findDebianMirror(
  environment: Environment = process.env,
): Promise<DebianMirror | undefined> {
  const paths = await run('apt-config', [
    'shell',
    'LIST',
    'Dir::Etc::sourcelist/f',
    'PARTS',
    'Dir::Etc::sourceparts/d',
  ]);
  const unpacker = await run('dpkg-deb', ['--version']);
  if (paths.status !== 0 || unpacker.status !== 0) return undefined;
  const own = environment['VSMMU_DEBIAN_MIRROR'];
  if (own !== undefined && own !== '') return { uri: own, signedBy: undefined };
  const path = (name: string): string =>
    new RegExp(`^${name}='(.*)'$`, 'm').exec(paths.stdout)?.[1] ?? '/dev/null';
  return chooseMirror(await readSources(path('LIST'), path('PARTS')));
}
