import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { requireHostLab } from '../../src/lab/host-lab.ts';
import { missingBuildTools, unmetLines } from '../../src/lab/kernel-build.ts';
import { LAB_FILES } from '../../src/lab/lab-files.ts';
import { DEFAULT_LAB_MACHINE, labArguments, labMachineArguments } from '../../src/lab/lab-machine.ts';

describe('a kernel’s configuration', () => {
  const config = ['', 'CONFIG_A=y', '# CONFIG_B is not set', 'CONFIG_C=8', 'CONFIG_D="x"', ''].join('\n');

  it('meets what it has, word for word', () => {
    expect(
      unmetLines('# why\nCONFIG_A=y\n# CONFIG_B is not set\n\nCONFIG_C=8\nCONFIG_D="x"\n', config),
    ).toEqual([]);
  });

  it('does not meet what the rules turned down, or changed', () => {
    const lines = [
      'CONFIG_B=y',
      'CONFIG_C=4',
      'CONFIG_E=y',
      '# CONFIG_A is not set',
      '# CONFIG_C is not set',
    ];
    expect(unmetLines(lines.join('\n'), config)).toEqual(lines);
  });

  it('meets "is not set" if it has never heard of it', () => {
    expect(unmetLines('# CONFIG_Z is not set', config)).toEqual([]);
  });
});

describe('the fragment', () => {
  const lines = readFileSync(LAB_FILES.kernelConfig, 'utf8').split('\n');

  it('sets nothing twice', () => {
    const names = lines.flatMap((line) => /^(?:# )?(CONFIG_\w+)(?:=| is not set)/.exec(line)?.[1] ?? []);
    expect(names.length).toBeGreaterThan(50);
    expect(names.length).toBe(new Set(names).size);
  });

  it.each([
    'CONFIG_IOMMUFD=y',
    'CONFIG_ARM_SMMU_V3_IOMMUFD=y',
    'CONFIG_VFIO_DEVICE_CDEV=y',
    'CONFIG_ACPI_TABLE_UPGRADE=y',
  ])('has %s, without which there is no lab', (line) => {
    expect(lines).toContain(line);
  });
});

describe('the machine', () => {
  it('names a bus for every device, as there is more than one', () => {
    const args = labArguments(DEFAULT_LAB_MACHINE, {
      firmware: 'f',
      kernel: 'k',
      initrd: 'i',
      shares: [{ name: 'one', path: '/a,b' }],
      channels: { console: '/c', commands: '/d' },
      exitWithParent: true,
    });
    const devices = args.filter((_, i) => args[i - 1] === '-device');
    expect(devices.filter((device) => !/^arm-smmuv3,|^virtserialport,|,bus=/.test(device))).toEqual([]);
    expect(args).toContain('local,id=one,path=/a,,b,security_model=none,readonly=on');
  });

  it('has SMMUs with both stages', () => {
    const smmus = labMachineArguments(DEFAULT_LAB_MACHINE).filter((word) => word.startsWith('arm-smmuv3,'));
    expect(smmus).toHaveLength(2);
    for (const smmu of smmus) expect(smmu).toContain('stage=nested');
  });
});

describe('without the lab', () => {
  let cache: string;
  beforeEach(() => {
    cache = mkdtempSync(join(tmpdir(), 'vsmmu-cache-'));
  });
  afterEach(() => {
    rmSync(cache, { recursive: true });
  });

  it('says what is missing and how to get it', async () => {
    const failure = requireHostLab({ VSMMU_CACHE: cache, PATH: '' });
    await expect(failure).rejects.toMatchObject({ code: 'UNSUPPORTED_HERE' });
    await expect(failure).rejects.toThrow(/kernel: missing[^]*lab build/);
  });

  it('names Debian packages, if any', async () => {
    for (const name of await missingBuildTools()) expect(name).toMatch(/^[a-z0-9.+-]+$/);
  });
});
