import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { isAtLeast } from '../../../src/host/linux/discovery-kernel.ts';
import { discover } from '../../../src/host/linux/discovery.ts';
import { hostFiles } from '../../../src/host/linux/host-files.ts';
import { fixture } from './fixture.ts';

describe('discovery', () => {
  it('finds nothing in an empty tree, and says so without an error', () => {
    expect(discover(hostFiles('/nowhere/at/all'))).toEqual({
      kernel: {
        release: undefined,
        architecture: undefined,
        options: undefined,
        lockedMemory: { limit: undefined, exempt: false },
      },
      iommufd: { access: 'absent', number: undefined },
      vfioPci: false,
      iommus: [],
    });
  });

  it('describes an SMMU and what is behind it', () => {
    const { iommus, iommufd, vfioPci } = discover(fixture('vfio.tree'));
    expect(iommufd).toEqual({ access: 'granted', number: '10:124' });
    expect(vfioPci).toBe(true);
    expect(iommus).toEqual([
      {
        name: 'smmu3.0x0000000009050000',
        kind: 'arm-smmu-v3',
        devices: [
          {
            name: '0000:00:01.0',
            pci: { id: '1b36:000c', classCode: 0x060400 },
            driver: 'pcieport',
            group: { id: 3, others: [], firmwareRanges: [] },
            vfio: undefined,
            stallMark: false,
          },
          {
            name: '0000:01:00.0',
            pci: { id: '144d:a808', classCode: 0x010802 },
            driver: 'vfio-pci',
            group: { id: 4, others: [], firmwareRanges: [] },
            vfio: { path: '/dev/vfio/devices/vfio0', number: '511:0', access: 'granted' },
            stallMark: false,
          },
        ],
      },
    ]);
  });

  it('tells bridges in a group from devices', () => {
    const [{ devices }] = discover(fixture('group-shared.tree')).iommus;
    expect(devices.find(({ name }) => name === '0000:02:00.0')?.group?.others).toEqual([
      { name: '0000:00:02.0', driver: 'pcieport', bridge: true },
      { name: '0000:02:00.1', driver: 'igb', bridge: false },
    ]);
  });

  it('reads the limits of this process where they are', () => {
    const tree = (limits: string) =>
      discover(fixture('vfio.tree', `/proc/self/limits: ${limits}`)).kernel.lockedMemory;
    const heading = 'Limit                     Soft Limit           Hard Limit           Units|';
    expect(
      tree(`${heading}Max locked memory         65536                unlimited            bytes`).limit,
    ).toBe(65536);
    expect(
      tree(`${heading}Max locked memory         unlimited            unlimited            bytes`).limit,
    ).toBeUndefined();
  });

  it('prefers the configuration that the kernel shows, which is packed', () => {
    const root = mkdtempSync(join(tmpdir(), 'vsmmu-config-'));
    mkdirSync(join(root, 'proc'));
    writeFileSync(
      join(root, 'proc/config.gz'),
      gzipSync('# CONFIG_ARM_SMMU_V3 is not set\nCONFIG_IOMMUFD=m\nCONFIG_VFIO_PCI_CORE=y\n'),
    );
    expect(discover(hostFiles(root)).kernel.options).toEqual({
      IOMMUFD: 'm',
      VFIO_PCI: 'n',
      VFIO_DEVICE_CDEV: 'n',
      ARM_SMMU_V3: 'n',
      ARM_SMMU_V3_IOMMUFD: 'n',
      ARM_SMMU_V3_SVA: 'n',
    });
    writeFileSync(join(root, 'proc/config.gz'), 'not gzip');
    expect(discover(hostFiles(root)).kernel.options).toBeUndefined();
    rmSync(root, { recursive: true });
  });

  it('of this machine succeeds, whatever it is', () => {
    expect(Array.isArray(discover(hostFiles()).iommus)).toBe(true);
  });
});

describe('a release', () => {
  it.each([
    ['6.15.0', true],
    ['6.15', true],
    ['7.0.1-rc2', true],
    ['6.9.12', false],
    ['5.19.0', false],
    [undefined, true],
  ])('%s is at least 6.15: %s', (release, expected) => {
    expect(isAtLeast(release, 6, 15)).toBe(expected);
  });
});
