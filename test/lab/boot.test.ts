import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { requireHostLab } from '../../src/lab/host-lab.ts';
import { bootHostLab } from '../../src/lab/lab-boot.ts';
import type { LabGuest } from '../../src/lab/lab-guest.ts';
import { RunFolder } from '../../src/qemu/run-folder.ts';
import { bootLab } from './lab.ts';

const parts = await requireHostLab();

describe('a lab that does not boot', () => {
  it('says what QEMU said', async () => {
    const failure = bootHostLab({ ...parts, kernel: '/nowhere/Image' }, { folder: new RunFolder() });
    await expect(failure).rejects.toMatchObject({ code: 'QEMU_EXITED' });
    await expect(failure).rejects.toThrow('/nowhere/Image');
  });

  it('is given up after a time, with the last lines of its console', async () => {
    const failure = bootHostLab(parts, { folder: new RunFolder(), timeoutMs: 700 });
    await expect(failure).rejects.toMatchObject({ code: 'TIMEOUT' });
    await expect(failure).rejects.toThrow(/did not get ready[^]*console/);
  });

  it('ends when its kernel panics', async () => {
    const failure = bootHostLab(parts, { folder: new RunFolder(), append: 'rdinit=/nothing init=/nothing' });
    await expect(failure).rejects.toThrow(/panic/i);
  });
});

describe('the lab', () => {
  let lab: LabGuest;
  let shared: string;
  beforeAll(async () => {
    shared = mkdtempSync(join(tmpdir(), 'vsmmu-share-'));
    writeFileSync(join(shared, 'file'), 'from outside\n');
    lab = await bootLab({ shares: [{ name: 'mine', path: shared }] });
  });
  afterAll(async () => {
    await lab.close();
    rmSync(shared, { recursive: true });
  });

  it('is a kernel with iommufd behind two SMMUs, which may nest', async () => {
    expect(lab.ready.kernel).toBe('7.3.4-vsmmu-lab');
    expect(await lab.check('ls /sys/class/iommu | wc -l')).toBe('2');
    expect(await lab.check('[ -c /dev/iommu ] && echo yes')).toBe('yes');
    expect(lab.log.lines().filter((line) => /panic|BUG|WARNING/.test(line))).toEqual([]);
  });

  it('gives vfio-pci what it is asked to, and says what cannot be given', async () => {
    const path = await lab.bindToVfio('0000:00:05.0');
    expect(path).toMatch(/^\/dev\/vfio\/devices\/vfio\d+$/);
    expect(await lab.bindToVfio('0000:00:05.0')).toBe(path);
    await expect(lab.bindToVfio('0000:00:1f.7')).rejects.toMatchObject({ code: 'REFUSED' });
  });

  it('tells status and output apart, whatever they are', async () => {
    expect(await lab.run('echo out; echo err >&2; exit 7')).toEqual({ status: 7, output: 'out\nerr\n' });
    expect(await lab.run('true')).toEqual({ status: 0, output: '' });
    expect(await lab.run('printf "no end of line"')).toEqual({ status: 0, output: 'no end of line' });
    expect(await lab.run("printf '@vsmmu end 0 0\\n'")).toEqual({ status: 0, output: '@vsmmu end 0 0\n' });
    const { output } = await lab.run('seq 1 100000');
    expect(output.split('\n')).toHaveLength(100_001);
  });

  it('has Node.js, which finds vsmmu’s dependencies', async () => {
    const words = await lab.check(
      "cd /lab/mine && node -p \"process.version + ' ' + process.arch + ' ' + require('koffi').version\"",
    );
    expect(words).toMatch(/^v20\.\d+\.\d+ arm64 3\.\d+\.\d+$/);
  });

  it('shares folders, for reading only unless told', async () => {
    expect(await lab.check('cat /lab/mine/file')).toBe('from outside');
    expect((await lab.run('echo x > /lab/mine/file')).status).not.toBe(0);
  });

  it('refuses more output than was asked for, and goes on', async () => {
    await expect(lab.run('seq 1 100000', 60_000, 1000)).rejects.toMatchObject({ code: 'PROTOCOL' });
    await expect.poll(async () => (await lab.run('echo on')).output, { timeout: 10_000 }).toBe('on\n');
  });

  // Last: the lab is busy afterwards.
  it('gives up on a script that does not end, and can be closed all the same', async () => {
    await expect(lab.run('sleep 1000', 300)).rejects.toThrow(/"sleep 1000" did not end/);
    await expect(lab.run('echo')).rejects.toMatchObject({ code: 'TIMEOUT' });
    await lab.close(100);
    await expect(lab.run('echo')).rejects.toMatchObject({ code: 'QEMU_EXITED' });
  });
});
