import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeAll, describe, expect, it } from 'vitest';

import { requireLab } from '../../src/lab/status.ts';
import type { RealGuest, RealGuestOptions } from '../../src/machine/qemu/real-guest.ts';

const lab = await requireLab();

const { RealGuest: Built } = (await import(
  new URL('../../dist/machine/qemu/real-guest.js', import.meta.url).href
)) as typeof import('../../src/machine/qemu/real-guest.ts');

const IOVA = 0xdead_beef_000n;

let guest: RealGuest | undefined;
let consoleLines: string[] = [];
afterEach(async () => {
  await guest?.close();
  guest = undefined;
});

const start = async (options: Partial<RealGuestOptions> = {}, disks = ['disk0']): Promise<RealGuest> => {
  consoleLines = [];
  guest = await Built.create({
    host: { devices: disks.map((name) => ({ name, function: 'nvme' as const })), smmu: 'server' },
    onEvent: () => {},
    onConsole: (line) => consoleLines.push(line),
    ...options,
  });
  return guest;
};

/** Lines of the guest's kernel log, as soon as one of them matches. */
const logged = async (pattern: RegExp): Promise<string[]> => {
  let lines: string[] = [];
  await expect
    .poll(async () => (lines = (await guest?.dmesg()) ?? []).some((line) => pattern.test(line)), {
      timeout: 10_000,
    })
    .toBe(true);
  return lines;
};

const succeeds = async (script: string, timeoutMs = 60_000): Promise<string> => {
  const result = await guest?.run(script, timeoutMs);
  expect(result?.status, `${script}\n${result?.output}\n${consoleLines.slice(-20).join('\n')}`).toBe(0);
  return result?.output.trim() ?? '';
};

/** Waits for a disk and reads its number of blocks of 512 bytes. */
const appears = async (disk: string): Promise<void> => {
  await succeeds(`n=0; until [ -b /dev/${disk} ]; do sleep 0.05; n=$((n+1)); [ $n -lt 400 ] || exit 1; done`);
};

/** Writes random bytes to a disk and reads them back, past the page cache. */
const storesAndReads = async (disk: string, mib: number): Promise<void> => {
  await appears(disk);
  const sums = await succeeds(
    `dd if=/dev/urandom of=/tmp/data bs=1M count=${mib} 2>/dev/null &&
     dd if=/tmp/data of=/dev/${disk} bs=1M oflag=direct 2>/dev/null &&
     md5sum < /tmp/data && dd if=/dev/${disk} bs=1M count=${mib} iflag=direct 2>/dev/null | md5sum`,
    120_000,
  );
  const [written, read] = sums.split('\n');
  expect(written).toMatch(/^[0-9a-f]{32} /);
  expect(read).toBe(written);
};

/** 4 KiB reads per second, one at a time, by the guest's own clock; the best of some, since others use this machine. */
const readRate = async (): Promise<number> => {
  let best = 0;
  for (let i = 0; i < 4; i++) {
    const times = await succeeds(
      `a=$(cut -d' ' -f1 /proc/uptime); dd if=/dev/nvme0n1 of=/dev/null bs=4k count=2000 iflag=direct 2>/dev/null
       b=$(cut -d' ' -f1 /proc/uptime); echo $a $b`,
    );
    const [from = 0, to = 0] = times.split(' ').map(Number);
    best = Math.max(best, 2000 / (to - from));
  }
  return best;
};

/** Complaints of a driver, which a correct device never causes. */
const COMPLAINTS = /timeout|timed out|nobody cared|unexpected|CMD_SYNC|WARNING|Call trace|I\/O error/i;

describe('an older kernel', () => {
  beforeAll(() => {
    expect(lab.olderKernel, 'run "npm run lab:setup" again').toBeDefined();
  });

  it('prints the fault as raw words, and stores and reads', async () => {
    const machine = await start({ kernel: lab.olderKernel });
    await machine.plug('disk0', 0);
    const { release } = await machine.boot();
    expect(release).toMatch(/^6\.12\./);
    await storesAndReads('nvme0n1', 16);
    expect(await machine.dma('disk0', true, IOVA, 64)).toBe(false);
    const lines = await logged(/event 0x10 received/);
    const at = lines.findIndex((line) => /event 0x10 received/.test(line));
    const words = lines.slice(at + 1, at + 5).map((line) => /0x([0-9a-f]{16})$/.exec(line)?.[1]);
    // StreamID 0x100 and F_TRANSLATION; a write (RnW=0), class IN; the address.
    expect(words[0]).toBe('0000010000000010');
    expect(BigInt(`0x${words[1]}`) & (1n << 35n)).toBe(0n);
    expect(words[2]).toBe('00000deadbeef000');
  });
});

describe('two disks and two CPUs', () => {
  it('fault each under its own name, and keep their data apart', async () => {
    const machine = await start({ machine: { smp: 2 } }, ['disk0', 'disk1']);
    await machine.plug('disk0', 0);
    await machine.plug('disk1', 2);
    await machine.boot();
    await storesAndReads('nvme0n1', 8);
    await storesAndReads('nvme1n1', 8);
    const [one, two] = (
      await succeeds(
        'for d in 0 1; do dd if=/dev/nvme${d}n1 bs=1M count=8 iflag=direct 2>/dev/null | md5sum; done',
      )
    ).split('\n');
    expect(one).not.toBe(two);

    await machine.dma('disk1', false, IOVA, 64);
    const lines = await logged(/event: F_TRANSLATION/);
    expect(lines.find((line) => line.includes('event: F_TRANSLATION'))).toContain(
      `client: ${Built.linuxName(2)} sid: 0x300 ssid: 0x0 iova: 0xdeadbeef000 ipa: 0x0`,
    );
    expect(lines.some((line) => line.includes(`client: ${Built.linuxName(0)}`))).toBe(false);
    expect(lines.filter((line) => COMPLAINTS.test(line))).toEqual([]);
  });
});

describe('a storm of faults', () => {
  it('neither hangs the guest nor stops its disk, and what was lost is said', async () => {
    const machine = await start();
    await machine.plug('disk0', 0);
    await machine.boot();
    await appears('nvme0n1');
    for (let i = 0; i < 1000; i++) await machine.dma('disk0', true, IOVA + BigInt(i) * 4096n, 64);
    await logged(/event: F_TRANSLATION/);
    await storesAndReads('nvme0n1', 8);
    expect((await machine.snapshot()).problems).toEqual([]);
    // The interrupt was taken, and nothing was left in the queue: one more fault is seen at once.
    expect(await machine.dma('disk0', true, 0x1234_5000n, 64)).toBe(false);
    await storesAndReads('nvme0n1', 1);
  });
});

describe('a hot-plugged disk', () => {
  it('can be pulled out and put in again, and again', async () => {
    const machine = await start();
    await machine.boot();
    expect(await machine.snapshot()).toMatchObject({ eventqen: true, viommu: undefined, veventq: undefined });
    for (let round = 0; round < 2; round++) {
      await machine.plug('disk0', 1);
      await storesAndReads('nvme0n1', 8);
      expect(await machine.snapshot()).toMatchObject({
        veventq: { depth: 256 },
        attached: { disk0: 'translate' },
      });
      await machine.unplug('disk0');
      expect(await machine.snapshot()).toMatchObject({ eventqen: true, viommu: undefined, objects: {} });
    }
    const lines = (await guest?.dmesg()) ?? [];
    expect(lines.filter((line) => COMPLAINTS.test(line))).toEqual([]);
  });
});

describe('a guest that knows nothing of the SMMU', () => {
  it('has its disk all the same, as a measure for what translation costs', async () => {
    const direct = await start({ smmuVisible: false });
    await direct.plug('disk0', 0);
    await direct.boot();
    await storesAndReads('nvme0n1', 8);
    expect(await direct.snapshot()).toMatchObject({ eventqen: false, attached: { disk0: 'bypass' } });
    const without = await readRate();
    await direct.close();

    const translated = await start();
    await translated.plug('disk0', 0);
    await translated.boot();
    await appears('nvme0n1');
    const behind = await readRate();
    console.log(
      `4 KiB reads per second: ${without.toFixed(0)} without an SMMU, ${behind.toFixed(0)} behind ours`,
    );
    expect(behind).toBeGreaterThan(0);
  });
});

describe('a machine with more memory than 32 bits can address', () => {
  it('stores and reads', async () => {
    const machine = await start({ machine: { memoryMiB: 5120 } });
    await machine.plug('disk0', 0);
    await machine.boot();
    await storesAndReads('nvme0n1', 16);
  });
});

describe('a QEMU that is killed', () => {
  it('takes its memory with it: no DMA goes through any more, and nothing is left behind', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'vsmmu-test-'));
    process.env['TMPDIR'] = folder;
    const machine = await start();
    await machine.plug('disk0', 0);
    await machine.boot();
    process.kill(machine.pid ?? 0, 'SIGKILL');
    await expect(machine.run('true')).rejects.toThrow(/SIGKILL/);
    expect(await machine.dma('disk0', true, IOVA, 64)).toBe(false);
    await machine.close();
    delete process.env['TMPDIR'];
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
  });
});
