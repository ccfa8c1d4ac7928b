import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { requireLab } from '../../src/lab/status.ts';
import { QemuError } from '../../src/qemu/errors.ts';
import type { Guest } from '../../src/qemu/guest.ts';
import { launchGuest, type LaunchOptions } from '../../src/qemu/launch.ts';
import { RunFolder } from '../../src/qemu/run-folder.ts';

// Not a skip: without a lab this file fails, and says what to do.
const lab = await requireLab();

let folder: RunFolder;
let guest: Guest | undefined;
beforeEach(() => {
  folder = new RunFolder();
});
afterEach(async () => {
  await guest?.close();
  guest = undefined;
  folder.remove();
});

const launch = async (options: Partial<LaunchOptions> = {}): Promise<Guest> => {
  guest = await launchGuest({ ...lab, folder, ...options });
  return guest;
};

const failure = async (promise: Promise<unknown>): Promise<QemuError> =>
  promise.then(
    () => expect.fail('nothing failed'),
    (error: unknown) => (error instanceof QemuError ? error : expect.fail(String(error))),
  );

describe('a QEMU that cannot do what is asked', () => {
  it('is quoted, and nothing is left running', async () => {
    const error = await failure(launch({ kernel: '/nowhere/vmlinuz' }));
    expect(error.code).toBe('QEMU_EXITED');
    expect(error.message).toMatch(/could not load kernel '\/nowhere\/vmlinuz'/);
  });

  it('is named when it is not there', async () => {
    const qemu = { file: '/nowhere/qemu', leadingArguments: [], environment: {} };
    expect((await failure(launch({ qemu }))).code).toBe('QEMU_UNUSABLE');
  });

  it('because nobody listens for the SMMU is quoted', async () => {
    const error = await failure(launch({ smmu: { socket: folder.socket('nobody') } }));
    expect(error.message).toMatch(/nobody/);
  });
});

/** Whether a process runs; one that has ended and waits to be collected does not. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

const kernels = [
  ['a new kernel', lab.kernel],
  ['an older kernel', lab.olderKernel],
] as const;

describe.each(kernels)('%s without an SMMU', (_, kernel) => {
  it('boots, runs scripts, reboots and powers off', async () => {
    expect(kernel, 'run "npm run lab:setup" again').toBeDefined();
    const { shell, log, ...rest } = await launch({ kernel: kernel ?? '' }).then((g) => ({
      shell: g.shell,
      log: g.log,
      qmp: g.qmp,
    }));
    const report = await shell.ready();
    expect(report.uptimeS).toBeGreaterThan(0);
    expect(await shell.check('uname -m')).toBe('aarch64');
    expect(await shell.run('echo out; echo err >&2; exit 3')).toEqual({ output: 'out\nerr\n', status: 3 });
    // The GICv2m frame is in use: the root ports have their interrupts from it.
    expect(await shell.check('cat /proc/interrupts')).toMatch(/GICv2m-PCI-MSIX?-0000:00:01\.0/);
    const long = await shell.check('head -c 40000 /dev/zero | tr "\\0" x');
    expect(long).toBe('x'.repeat(40_000));

    const reset = rest.qmp.waitForEvent('RESET');
    shell.leave('reboot -f');
    await reset;
    await shell.ready(2);
    expect(guest?.resets).toBe(1);
    expect(await shell.check('echo again')).toBe('again');

    shell.leave('poweroff -f');
    expect(await guest?.waitForExit()).toEqual({ status: 0, signal: null });
    expect((await failure(shell.run('true'))).code).toBe('QEMU_EXITED');
    expect(log.tail()).not.toMatch(/panic/);
  });
});

describe('a guest', () => {
  it('has a private folder: nobody else can reach its sockets', async () => {
    await launch();
    expect(statSync(folder.path).mode & 0o777).toBe(0o700);
  });

  it('that dies takes all who wait for it with it', async () => {
    const { shell, log, qmp, qtest, pid } = await launch();
    const waiting = [
      shell.ready(),
      log.waitFor(/never/),
      qmp.waitForEvent('NEVER'),
      qtest.command('clock_step'),
    ];
    process.kill(pid ?? 0, 'SIGKILL');
    const errors = await Promise.all(waiting.map(failure));
    expect(errors[0]?.message).toMatch(/QEMU ended by SIGKILL/);
    expect(errors.map(({ code }) => code)).toEqual([
      'QEMU_EXITED',
      'QEMU_EXITED',
      'CLOSED',
      expect.any(String),
    ]);
  });

  it('whose kernel panics says so, with the last lines', async () => {
    const { log } = await launch({ append: 'rdinit=/nowhere panic=0' });
    const error = await failure(log.waitFor(/this is never printed/));
    expect(error.code).toBe('GUEST_PANIC');
    expect(error.message).toMatch(/Kernel panic - not syncing/);
  });

  it('does not outlive the process that started it, even if that is killed', async () => {
    const { pid } = await launch();
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')).toContain('exit-with-parent=on');
    // The same promise, seen from outside: a shell starts QEMU and is killed.
    const { file, leadingArguments, environment } = lab.qemu;
    const script = '"$@" -M none -nodefaults -display none -S -run-with exit-with-parent=on & echo $!; wait';
    const shell = spawn('sh', ['-c', script, 'sh', file, ...leadingArguments], {
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(shell.stdout, 'data')) as [Buffer];
    const child = Number(line.toString());
    // Give QEMU the time to make its promise.
    await new Promise((resolve) => {
      setTimeout(resolve, 1000);
    });
    expect(isAlive(child)).toBe(true);
    shell.kill('SIGKILL');
    await expect.poll(() => isAlive(child), { timeout: 5000 }).toBe(false);
  });
});
