import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { makeCacheFolder } from '../../src/lab/cache-folder.ts';
import { buildLab } from '../../src/lab/lab-build.ts';
import { installModules } from '../../src/lab/guest-modules.ts';

describe('vsmmu lab build', () => {
  let folder: string;
  let bin: string;
  const path = process.env['PATH'];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'vsmmu-build-'));
    bin = join(folder, 'bin');
    mkdirSync(bin);
    process.env['PATH'] = bin;
  });
  afterEach(() => {
    process.env['PATH'] = path;
    rmSync(folder, { recursive: true });
  });

  /** A program that says that it is there, and does nothing. */
  const fake = (...names: readonly string[]): void => {
    for (const name of names) symlinkSync('/bin/true', join(bin, name));
  };
  const build = (cache = join(folder, 'cache')): Promise<void> =>
    buildLab({ progress: () => {}, environment: { VSMMU_CACHE: cache, PATH: bin } });

  it('names what has to be installed where there is no compiler, and touches nothing', async () => {
    fake('make', 'bc', 'flex', 'bison', 'perl', 'xz');
    const failure = build();
    await expect(failure).rejects.toMatchObject({ code: 'UNSUPPORTED_HERE' });
    await expect(failure).rejects.toThrow(/as root: apt-get install .*\bgcc libc6-dev\b/);
    await expect(failure).rejects.not.toThrow(/bison|perl/);
    expect(existsSync(join(folder, 'cache'))).toBe(false);
  });

  it('says what it is made of where there are no Debian packages', async () => {
    fake('gcc', 'aarch64-linux-gnu-gcc', 'make', 'bc', 'flex', 'bison', 'perl', 'xz');
    const failure = build();
    await expect(failure).rejects.toMatchObject({ code: 'UNSUPPORTED_HERE' });
    await expect(failure).rejects.toThrow(/lab-kernel missing[^]*apt and dpkg-deb/);
    await expect(failure).rejects.not.toThrow('--guest qemu');
  });

  it('says so if npm is not there', async () => {
    await expect(installModules({}, folder)).rejects.toMatchObject({ code: 'UNSUPPORTED_HERE' });
  });
});

describe('a cache folder that cannot be written', () => {
  it('is named, with what to do', async () => {
    // A file is no folder, not even for root.
    const failure = makeCacheFolder(fileURLToPath(import.meta.url));
    await expect(failure).rejects.toMatchObject({ code: 'UNSUPPORTED_HERE' });
    await expect(failure).rejects.toThrow(/lab-build\.test\.ts[^]*VSMMU_CACHE/);
  });
});
