import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { cacheFolder, publishFolder, removeLeftovers } from '../../src/lab/cache-folder.ts';
import { LabError } from '../../src/lab/errors.ts';
import { writeManifest } from '../../src/lab/manifest.ts';
import { type Component, folderName } from '../../src/lab/recipe.ts';
import { setup } from '../../src/lab/setup.ts';
import { describeStatus, labStatus, machineArchitecture, requireLab } from '../../src/lab/status.ts';

let cache: string;
let environment: Record<string, string>;
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), 'vsmmu-cache-'));
  environment = { VSMMU_CACHE: cache, PATH: join(cache, 'bin') };
});
afterEach(() => {
  rmSync(cache, { recursive: true });
});

describe('the cache folder', () => {
  it('is the one that was asked for, or the one of the XDG specification', () => {
    expect(cacheFolder({ VSMMU_CACHE: '/a', XDG_CACHE_HOME: '/b' })).toBe('/a');
    expect(cacheFolder({ VSMMU_CACHE: '', XDG_CACHE_HOME: '/b' })).toBe('/b/vsmmu');
    expect(cacheFolder({ XDG_CACHE_HOME: 'relative' })).toMatch(/^\/.*\/\.cache\/vsmmu$/);
  });
});

describe('a folder in the cache', () => {
  it('is not there if building it failed, and nothing is left behind', async () => {
    const build = async (folder: string): Promise<void> => {
      writeFileSync(join(folder, 'half'), '');
      throw new Error('no network');
    };
    await expect(publishFolder(cache, 'x', build)).rejects.toThrow('no network');
    expect(readdirSync(cache)).toEqual([]);
  });

  it('stays as it was if replacing it failed', async () => {
    mkdirSync(join(cache, 'x'));
    writeFileSync(join(cache, 'x', 'old'), '');
    await expect(publishFolder(cache, 'x', () => Promise.reject(new Error('no network')))).rejects.toThrow();
    expect(readdirSync(join(cache, 'x'))).toEqual(['old']);
  });

  it('is replaced whole', async () => {
    mkdirSync(join(cache, 'x'));
    writeFileSync(join(cache, 'x', 'old'), '');
    await publishFolder(cache, 'x', async (folder) => writeFileSync(join(folder, 'new'), ''));
    expect(readdirSync(join(cache, 'x'))).toEqual(['new']);
    expect(readdirSync(cache)).toEqual(['x']);
  });

  it('is complete when two build it at once', async () => {
    const build = async (folder: string): Promise<void> => {
      for (const name of ['a', 'b', 'c']) writeFileSync(join(folder, name), '');
    };
    await Promise.all([publishFolder(cache, 'x', build), publishFolder(cache, 'x', build)]);
    expect(readdirSync(join(cache, 'x')).sort((a, b) => (a < b ? -1 : 1))).toEqual(['a', 'b', 'c']);
  });

  it('that a killed run left half-done is removed, one of a living run is not', async () => {
    // Numbers of processes are below 2^22.
    mkdirSync(join(cache, '.tmp-99999999-abc'));
    mkdirSync(join(cache, `.tmp-${process.pid}-abc`));
    await removeLeftovers(cache);
    expect(readdirSync(cache)).toEqual([`.tmp-${process.pid}-abc`]);
  });
});

/** Puts a component into the cache as `setup` does. */
async function fetched(component: Component, files: Record<string, string>): Promise<void> {
  await publishFolder(cache, folderName(component, machineArchitecture()), async (folder) => {
    for (const file of Object.values(files)) writeFileSync(join(folder, file), '');
    await writeManifest(folder, {
      component,
      description: `some ${component}`,
      packages: [],
      files,
      created: '',
    });
  });
}

/** A program that answers as a QEMU of that version does. */
function fakeQemu(version: string, devices = 'name "vfio-user-pci", bus PCI'): string {
  mkdirSync(join(cache, 'bin'), { recursive: true });
  const file = join(cache, 'bin', 'qemu-system-aarch64');
  writeFileSync(
    file,
    `#!/bin/sh\ncase "$1" in --version) echo 'QEMU emulator version ${version}';; *) echo '${devices}';; esac\n`,
  );
  chmodSync(file, 0o755);
  return file;
}

describe('a lab', () => {
  it('that is missing says so part by part, how to get it, and that it is not possible here', async () => {
    const error: unknown = await requireLab({}, environment).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(LabError);
    expect((error as LabError).code).toBe('UNSUPPORTED_HERE');
    for (const words of [
      /qemu: missing .*--qemu/,
      /kernel: missing .*--kernel/,
      /busybox: missing/,
      /vsmmu lab setup/,
    ]) {
      expect((error as LabError).message).toMatch(words);
    }
  });

  it('with a QEMU that is too old says which version it is', async () => {
    const { qemu } = await labStatus({ qemu: fakeQemu('7.2.22 (Debian)') }, environment);
    expect(qemu).toMatchObject({
      found: false,
      reason: expect.stringContaining('is QEMU 7.2.22; 10.1 is needed'),
    });
  });

  it('with a QEMU without vfio-user says so', async () => {
    const { qemu } = await labStatus({ qemu: fakeQemu('10.2.0', 'name "x-vfio-user-server"') }, environment);
    expect(qemu).toMatchObject({ found: false, reason: expect.stringContaining('without vfio-user-pci') });
  });

  it("with a QEMU that is not one says so, and does not take it for the machine's", async () => {
    const { qemu } = await labStatus({ qemu: '/bin/true' }, environment);
    expect(qemu).toMatchObject({ found: false, reason: expect.stringContaining('is not a QEMU') });
    const missing = await labStatus({ qemu: '/nowhere/qemu' }, environment);
    expect(missing.qemu).toMatchObject({ found: false, reason: expect.stringContaining('cannot be run') });
  });

  it("takes this machine's QEMU if it is new enough", async () => {
    const file = fakeQemu('10.1.0');
    const { qemu } = await labStatus({}, environment);
    expect(qemu).toMatchObject({ found: true, from: 'machine', value: { file, leadingArguments: [] } });
  });

  it('takes what the user names before all else, and refuses it if it is not there', async () => {
    await fetched('kernel', { image: 'vmlinuz' });
    const { kernel } = await labStatus({ kernel: join(cache, 'mine') }, environment);
    expect(kernel).toMatchObject({ found: false, reason: expect.stringContaining('mine is not there') });
    writeFileSync(join(cache, 'mine'), '');
    expect(await labStatus({ kernel: join(cache, 'mine') }, environment)).toMatchObject({
      kernel: { found: true, from: 'option', value: join(cache, 'mine') },
    });
  });

  it('is complete when all of it was fetched', async () => {
    fakeQemu('11.1.3');
    await fetched('kernel', { image: 'vmlinuz' });
    await fetched('busybox', { program: 'busybox' });
    const lab = await requireLab({}, environment);
    expect(existsSync(lab.kernel)).toBe(true);
    expect(lab.olderKernel).toBeUndefined();
    expect(describeStatus(await labStatus({}, environment))[1]).toBe('kernel: some kernel');
  });

  it('does not count a folder that lost a file, or whose manifest is damaged', async () => {
    await fetched('kernel', { image: 'vmlinuz' });
    const folder = join(cache, folderName('kernel', machineArchitecture()));
    rmSync(join(folder, 'vmlinuz'));
    expect((await labStatus({}, environment)).kernel.found).toBe(false);
    await fetched('kernel', { image: 'vmlinuz' });
    writeFileSync(join(folder, 'manifest.json'), readFileSync(join(folder, 'manifest.json')).subarray(0, 20));
    expect((await labStatus({}, environment)).kernel.found).toBe(false);
  });

  it('that is complete is not fetched again', async () => {
    fakeQemu('11.1.3');
    await fetched('kernel', { image: 'vmlinuz' });
    await fetched('kernel-stable', { image: 'vmlinuz' });
    await fetched('busybox', { program: 'busybox' });
    const lines: string[] = [];
    await setup({ environment, progress: (line) => lines.push(line) });
    expect(lines).toHaveLength(4);
    expect(lines[0]).toContain("this machine's own");
    expect(lines.slice(1).every((line) => line.endsWith('fetched already'))).toBe(true);
  });
});
