/** Builds the lab's kernel from Debian's package of its source. */

import { copyFile, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

import { type FetchedPackage, unpack } from './apt.ts';
import { LabError } from './errors.ts';
import { LAB_FILES } from './lab-files.ts';
import { run } from './subprocess.ts';

/** On arm64 itself the machine's own compiler does. */
const CROSS = process.arch === 'arm64' ? '' : 'aarch64-linux-gnu-';

/** Programs that building needs, with the Debian packages they are in. */
const TOOLS: readonly (readonly [program: string, ...packages: string[]])[] = [
  ['gcc', 'gcc', 'libc6-dev'],
  [`${CROSS}gcc`, ...(CROSS === '' ? [] : ['gcc-aarch64-linux-gnu'])],
  ['make', 'make'],
  ['bc', 'bc'],
  ['flex', 'flex'],
  ['bison', 'bison'],
  ['perl', 'perl'],
  ['xz', 'xz-utils'],
];

/** Packages of Debian that have to be installed before a kernel can be built here; empty if none. */
export async function missingBuildTools(): Promise<string[]> {
  const missing = new Set<string>();
  for (const [program, ...packages] of TOOLS) {
    const { status } = await run(program, ['--version']);
    if (status === 127) for (const name of packages) missing.add(name);
  }
  return [...missing];
}

/** What compiles for arm64 here: "aarch64-linux-gnu-gcc (Debian 12.2.0-14) 12.2.0". */
export async function compilerVersion(): Promise<string> {
  const { stdout } = await run(`${CROSS}gcc`, ['--version']);
  return stdout.split('\n')[0] ?? '';
}

/** Lines of make's own that say how far it is come every so often. */
const PROGRESS_EVERY_MS = 30_000;

/**
 * Checks that a configuration has all that was asked for. The kernel's build leaves out what its rules do not allow,
 * without a word.
 * @returns the lines that do not hold.
 */
export function unmetLines(fragment: string, config: string): string[] {
  const has = new Set(config.split('\n'));
  return fragment.split('\n').filter((line) => {
    const off = /^# (CONFIG_\w+) is not set$/.exec(line);
    if (off !== null) return config.includes(`\n${off[1]}=`);
    return line.startsWith('CONFIG_') && !has.has(line);
  });
}

/**
 * Builds the kernel.
 * @param fetched Debian's package of the source.
 * @param folder an empty folder; gets `Image` and `config`. What else is needed meanwhile (2 GiB) goes there, too, and
 *   is gone afterwards.
 * @throws {LabError} LAB_BUILD_FAILED.
 */
export async function buildLinux(
  fetched: FetchedPackage,
  folder: string,
  progress: (line: string) => void,
): Promise<{ release: string; compiler: string }> {
  const work = join(folder, 'work');
  const output = join(work, 'out');
  await mkdir(output, { recursive: true });
  await unpack(fetched, work);
  const sources = join(work, 'usr', 'src');
  const archive = (await readdir(sources)).find((name) => /^linux-source-.*\.tar\.xz$/.test(name));
  if (archive === undefined) throw failed(`${fetched.name} holds no archive of the source`, '');
  progress('lab-kernel: unpacking the source');
  const unpacked = await run('tar', ['-xJf', join(sources, archive), '-C', work]);
  if (unpacked.status !== 0) throw failed('unpacking', unpacked.stderr);
  const source = join(work, archive.slice(0, -'.tar.xz'.length));

  const make = async (target: string, ...more: string[]): Promise<string> => {
    const { status, stdout, stderr } = await run('nice', [
      'make',
      '-C',
      source,
      `O=${output}`,
      'ARCH=arm64',
      `CROSS_COMPILE=${CROSS}`,
      // The same inputs give the same kernel.
      'KBUILD_BUILD_TIMESTAMP=1970-01-01',
      'KBUILD_BUILD_USER=vsmmu',
      'KBUILD_BUILD_HOST=lab',
      `-j${availableParallelism()}`,
      '-s',
      ...more,
      target,
    ]);
    if (status !== 0) throw failed(`make ${target}`, stderr === '' ? stdout : stderr);
    return stdout;
  };
  await make('allnoconfig', `KCONFIG_ALLCONFIG=${LAB_FILES.kernelConfig}`);
  const config = await readFile(join(output, '.config'), 'utf8');
  const unmet = unmetLines(await readFile(LAB_FILES.kernelConfig, 'utf8'), config);
  if (unmet.length > 0) throw failed('the kernel’s rules turn down', unmet.join('\n'));

  const compiler = await compilerVersion();
  progress(`lab-kernel: building with ${compiler}; takes 4 to 15 minutes`);
  const start = Date.now();
  const timer = setInterval(() => {
    void countObjects(output).then((count) => {
      progress(`lab-kernel: ${count} objects after ${Math.round((Date.now() - start) / 1000)} s`);
    });
  }, PROGRESS_EVERY_MS);
  try {
    await make('Image');
  } finally {
    clearInterval(timer);
  }
  const release = (await readFile(join(output, 'include/config/kernel.release'), 'utf8')).trim();
  await copyFile(join(output, 'arch/arm64/boot/Image'), join(folder, 'Image'));
  await copyFile(join(output, '.config'), join(folder, 'config'));
  await rm(work, { recursive: true });
  return { release, compiler };
}

async function countObjects(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  return names.filter((name) => name.endsWith('.o')).length;
}

const failed = (what: string, said: string): LabError =>
  new LabError(
    'LAB_BUILD_FAILED',
    `The kernel cannot be built: ${what}${said === '' ? '' : `:\n${said.split('\n').slice(-20).join('\n')}`}`,
    'Is the disk full? 3 GB are needed in the cache folder.',
  );
