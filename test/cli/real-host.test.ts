import { describe, expect, it, vi } from 'vitest';
import { EXIT, UsageError } from '../../src/cli/exit.ts';
import { probe } from '../../src/cli/commands/probe.ts';
import { run } from '../../src/cli/commands/run.ts';
import { discover } from '../../src/host/linux/discovery.ts';
import { hostFiles } from '../../src/host/linux/host-files.ts';
import { onLinux, NO_SYSCALLS } from '../support/syscalls.ts';

/** Why what is claimed of machines without an SMMUv3 cannot be seen here. */
const HAS_SMMU = discover(hostFiles()).iommus.some(({ kind }) => kind === 'arm-smmu-v3');

async function output(command: () => Promise<number>): Promise<{ status: number; text: string }> {
  let text = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  try {
    return { status: await command(), text };
  } finally {
    write.mockRestore();
  }
}

describe('vsmmu run', () => {
  it.each([
    ['a host that there is not', { host: 'vmware' }, '--host is sim or linux'],
    [
      'a device without the real host',
      { device: ['nic0=/dev/vfio/devices/vfio0'] },
      '--device needs --host linux',
    ],
    ['a device without a file', { host: 'linux', device: ['nic0'] }, '--device is NAME=FILE'],
    ['a relative file', { host: 'linux', device: ['nic0=vfio0'] }, '--device is NAME=FILE'],
    [
      'an unknown kind',
      { host: 'linux', device: ['nic0=/dev/x,kind=nvme'] },
      'a kind is iommu-testdev or edu',
    ],
    ['a device that the scenario lacks', { host: 'linux', device: ['nic9=/dev/x'] }, 'it has nic0'],
    ['a device twice', { host: 'linux', device: ['nic0=/dev/x', 'nic0=/dev/y'] }, 'gives nic0 twice'],
    [
      'the real host for a guest in QEMU',
      { host: 'linux', guest: 'qemu' },
      '--host linux needs --guest reference',
    ],
  ])('refuses %s as a mistake in its use', async (_, options, message) => {
    await expect(run(undefined, options)).rejects.toThrow(UsageError);
    await expect(run(undefined, options)).rejects.toThrow(message);
  });

  it.skipIf(HAS_SMMU || NO_SYSCALLS !== '')(
    onLinux('with --host linux says why this machine cannot do it, and prints nothing else [no SMMUv3]'),
    async () => {
      const { text } = await output(async () => {
        await expect(run(undefined, { host: 'linux' })).rejects.toMatchObject({
          code: 'UNSUPPORTED_HERE',
          message: expect.stringContaining('This machine cannot be the host:\n  ') as string,
        });
        return 0;
      });
      expect(text).toBe('');
    },
  );
});

describe.skipIf(HAS_SMMU || process.platform !== 'linux')('vsmmu probe on a Linux without SMMUv3', () => {
  it.each([true, false])('says why, and ends as not possible here (open: %s)', async (open) => {
    const { status, text } = await output(() => probe({ open }));
    expect(status).toBe(EXIT.NotPossibleHere);
    expect(text).toContain('No device of this machine can be behind an accelerated vSMMU:\n  ');
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(96);
  });

  it('says it in one JSON object, with null for what cannot be told', async () => {
    const { status, text } = await output(() => probe({ json: true }));
    expect(status).toBe(EXIT.NotPossibleHere);
    const report = JSON.parse(text) as { usable: string; reasons: unknown[]; iommufd: object };
    expect(report.usable).toBe('no');
    expect(report.reasons.length).toBeGreaterThan(0);
    expect(Object.keys(report.iommufd)).toEqual(['access', 'number']);
  });
});
