import { describe, expect, it } from 'vitest';
import { probeText } from '../../src/cli/probe-text.ts';
import { DmaTester } from '../../src/host/sim/functions/dma-tester.ts';
import { LAB_SMMU, SERVER_SMMU } from '../../src/host/sim/profiles.ts';
import { SimHost, type DeviceDescription } from '../../src/host/sim/sim-host.ts';
import type { Kernel } from '../../src/iommufd/kernel.ts';
import type { ErrnoName } from '../../src/iommufd/uapi/errno.ts';
import { probeHost, type DeviceReport, type ProbeReport } from '../../src/machine/probe/probe.ts';
import { GUEST_DEFAULT, identify, type IdRegisters } from '../../src/smmu/identification.ts';
import { fixture } from '../host/linux/fixture.ts';

const NOT_ASKED = 'this is a test.';
const DISK = '0000:01:00.0';

const probe = (name: string, kernel: Kernel | string = NOT_ASKED, ...more: readonly string[]): ProbeReport =>
  probeHost({ files: fixture(name, ...more), kernel, ids: GUEST_DEFAULT });

/** A kernel with the device of vfio.tree, and those of the other fixtures. */
function host(ids: IdRegisters = LAB_SMMU, device: Partial<DeviceDescription> = {}): SimHost {
  const sim = new SimHost({ schedule: () => {} });
  const smmu = sim.addSmmu({ name: 'arm-smmu-v3.0.auto', ids });
  for (const [i, address] of [DISK, '0000:02:00.0'].entries())
    sim.addDevice({
      path: `/dev/vfio/devices/vfio${i}`,
      address,
      smmu,
      sid: 0x100 + 0x100 * i,
      function: new DmaTester(),
      ...device,
    });
  return sim;
}

function deviceIn({ smmus }: ProbeReport, name = DISK): DeviceReport {
  const device = smmus.flatMap(({ devices }) => devices).find((other) => other.name === name);
  if (device === undefined) throw new Error(`${name} is not in the report`);
  return device;
}
const codes = ({ reasons }: { readonly reasons: readonly { readonly code: string }[] }): string[] =>
  reasons.map(({ code }) => code);

describe('a machine cannot be used', () => {
  it.each([
    ['without an SMMU', 'no-smmu.tree', ['NO_IOMMU', 'NO_IOMMUFD_FILE']],
    ['that is no arm64 machine, whatever else it lacks', 'other-machine.tree', ['NOT_ARM64']],
    [
      'whose kernel is too old, and lacks options',
      'old-kernel.tree',
      ['OLD_KERNEL', 'KERNEL_WITHOUT_NESTING', 'KERNEL_WITHOUT_VFIO_CDEV'],
    ],
    ['whose user may not open the files', 'no-permission.tree', ['IOMMUFD_REFUSED', 'LOCKED_MEMORY']],
    ['that is a container without the files', 'container.tree', ['NO_IOMMUFD_FILE']],
  ])('%s', (_, name, reasons) => {
    const report = probe(name);
    expect(codes(report)).toEqual(reasons);
    expect(report.usable).toBe('no');
  });

  it.each([
    ['dmar0', 'Intel VT-d'],
    ['ivhd3', 'AMD-Vi'],
    ['smmu.0x0000000009050000', 'an Arm SMMU of version 1 or 2'],
    ['virtio1', 'a virtio-iommu'],
  ])('whose IOMMU is %s', (name, kind) => {
    const report = probe('no-smmu.tree', NOT_ASKED, `/sys/class/iommu/${name}/devices/`);
    expect(report.reasons[0].code).toBe('NO_SMMUV3');
    expect(report.reasons[0].text).toContain(`${name} is ${kind}`);
  });

  it.each([
    ['the limit of locked memory is below what a guest needs', '268435455', '0', true],
    ['unless it is as much as that', '268435456', '0', false],
    ['unless there is none', 'unlimited', '0', false],
    ['unless the user is exempt (CAP_IPC_LOCK)', '65536', '000001ffffffffff', false],
    ['and has other capabilities only', '65536', '000001ffffffbfff', true],
  ])('if %s', (_, limit, capabilities, refused) => {
    const report = probe(
      'vfio.tree',
      NOT_ASKED,
      `/proc/self/limits: Max locked memory         ${limit}            unlimited            bytes`,
      `/proc/self/status: CapEff:\t${capabilities}`,
    );
    expect(codes(report)).toEqual(refused ? ['LOCKED_MEMORY'] : []);
  });

  it.each([
    ['6.2.0', true],
    ['6.14.11-1-arm64', true],
    ['6.15.0', false],
    ['7.0', false],
    ['something else', false],
  ])('if it runs Linux %s: %s', (release, refused) => {
    const report = probe('vfio.tree', NOT_ASKED, `/proc/sys/kernel/osrelease: ${release}`);
    expect(codes(report)).toEqual(refused ? ['OLD_KERNEL'] : []);
  });

  it('and its devices are not asked then', () => {
    const sim = host();
    const opened: string[] = [];
    const open = sim.open.bind(sim);
    sim.open = (path) => {
      opened.push(path);
      return open(path);
    };
    probe('old-kernel.tree', sim);
    probe('no-permission.tree', sim);
    probe('host-driver.tree', sim);
    expect(opened).toEqual([]);
    probe('vfio.tree', sim);
    expect(opened).toEqual(['/dev/iommu', '/dev/vfio/devices/vfio0']);
  });
});

describe('a device cannot be used', () => {
  it('that the host uses; the commands give it to vfio-pci', () => {
    const report = probe('host-driver.tree');
    expect(codes(report)).toEqual([]);
    const { usable, reasons } = deviceIn(report);
    expect(usable).toBe('no');
    expect(codes({ reasons })).toEqual(['NOT_BOUND']);
    expect(reasons[0].text).toContain('nvme');
    expect(reasons[0].commands).toEqual([
      'modprobe vfio-pci',
      'echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override',
      'echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind',
      'echo 0000:01:00.0 > /sys/bus/pci/drivers_probe',
    ]);
  });

  it('that no driver has; there is nothing to unbind then', () => {
    const { reasons } = deviceIn(probe('smmu.tree', NOT_ASKED, '/sys/bus/pci/drivers/vfio-pci/bind:'));
    expect(codes({ reasons })).toEqual(['NOT_BOUND']);
    expect(reasons[0].commands).toEqual([
      'echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override',
      'echo 0000:01:00.0 > /sys/bus/pci/drivers_probe',
    ]);
  });

  it('whose IOMMU group the host uses otherwise; a bridge in it is no harm', () => {
    const device = deviceIn(probe('group-shared.tree'), '0000:02:00.0');
    expect(codes(device)).toEqual(['GROUP_SHARED']);
    expect(device.reasons[0].text).toContain('0000:02:00.1 by igb');
    expect(device.reasons[0].text).not.toContain('0000:00:02.0');
    expect(device.reasons[0].commands.at(-1)).toBe('echo 0000:02:00.1 > /sys/bus/pci/drivers_probe');
  });

  it('that firmware ties to addresses', () => {
    const device = deviceIn(probe('odd-devices.tree'), '0000:03:00.0');
    expect(codes(device)).toEqual(['FIRMWARE_MAPPING', 'NOT_BOUND']);
    expect(device.reasons[0].text).toContain('0xf0000000-0xf00fffff');
  });

  it.each([
    ['that is a bridge', '0000:00:01.0', 'BRIDGE'],
    ['that is in no group', '0000:04:00.0', 'NO_GROUP'],
    ['that is not PCI', 'arm-dma.0', 'NOT_PCI'],
  ])('%s', (_, name, code) => {
    expect(codes(deviceIn(probe('odd-devices.tree'), name))).toEqual([code]);
  });

  it.each([
    ['whose file the user may not open', 'no-permission.tree', [], 'VFIO_REFUSED'],
    ['whose file is not in the container', 'container.tree', [], 'NO_VFIO_FILE'],
    [
      'for which the kernel makes no file',
      'host-driver.tree',
      [
        '/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/driver -> ../../../../bus/pci/drivers/vfio-pci',
        '/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/vfio-dev/vfio0/power/',
      ],
      'KERNEL_WITHOUT_VFIO_CDEV',
    ],
  ])('%s', (_, name, more, code) => {
    expect(codes(deviceIn(probe(name, NOT_ASKED, ...more)))).toEqual([code]);
  });

  it('and in a container, the commands make the files', () => {
    const report = probe('container.tree');
    expect(report.reasons[0].commands).toEqual(['mknod /dev/iommu c 10 124']);
    expect(deviceIn(report).reasons[0].commands.at(-1)).toBe('mknod /dev/vfio/devices/vfio0 c 511 0');
  });
});

describe('a device that is asked cannot be used', () => {
  const asked = (sim: SimHost): string[] => codes(deviceIn(probe('vfio.tree', sim)));

  it('if the SMMU has no stage 2, although Linux drives it', () => {
    const ids = identify(LAB_SMMU, { S2P: 0, XNX: 0 });
    expect(asked(host(ids))).toEqual(['NO_STAGE_2']);
  });

  it('if its DMA may be incoherent and the SMMU cannot force it', () => {
    expect(asked(host(LAB_SMMU, { canwbs: false }))).toEqual(['NOT_COHERENT']);
    // Forced write-back makes up for it.
    expect(asked(host(SERVER_SMMU, { canwbs: false }))).toEqual([]);
  });

  it('if it has several StreamIDs', () => {
    const sim = host();
    sim.faults.add({ ioctl: 'IOMMU_VDEVICE_ALLOC', errno: 'EOPNOTSUPP' });
    expect(asked(sim)).toEqual(['STREAM_IDS']);
  });

  it.each([
    ['VFIO_DEVICE_BIND_IOMMUFD', 'EBUSY', 'IN_USE'],
    ['VFIO_DEVICE_BIND_IOMMUFD', 'EINVAL', 'IN_USE'],
    ['VFIO_DEVICE_BIND_IOMMUFD', 'EPERM', 'UNSAFE_INTERRUPTS'],
    ['IOMMU_VEVENTQ_ALLOC', 'ENOTTY', 'OLD_KERNEL'],
    ['IOMMU_VIOMMU_ALLOC', 'ENOMEM', 'HOST_REFUSED'],
  ] as const)('if %s gives %s', (ioctl, errno, code) => {
    const sim = host();
    sim.faults.add({ ioctl, errno: errno satisfies ErrnoName });
    expect(asked(sim)).toEqual([code]);
    expect(sim.openFiles).toBe(0);
  });

  it.each([
    [0x4831_043b, 'MMU-600 r1p0'],
    [0x4870_143b, 'MMU-700 r0p1'],
    [0x4871_043b, 'MMU-700 r1p0'],
  ])('if it is a part with errata (IIDR 0x%s)', (IIDR, name) => {
    const sim = host({ ...LAB_SMMU, IIDR: IIDR >>> 0 });
    sim.faults.add({ ioctl: 'IOMMU_HWPT_ALLOC', errno: 'EOPNOTSUPP' });
    const { reasons } = deviceIn(probe('vfio.tree', sim));
    expect(codes({ reasons })).toEqual(['NESTING_ERRATUM']);
    expect(reasons[0].text).toContain(name);
  });

  it.each([0x4832_043b, 0x4871_143b, 0x4871_0000])(
    'but no erratum is made up for others (IIDR %s)',
    (IIDR) => {
      const sim = host({ ...SERVER_SMMU, IIDR });
      sim.faults.add({ ioctl: 'IOMMU_HWPT_ALLOC', errno: 'EOPNOTSUPP' });
      expect(asked(sim)).toEqual(['KERNEL_WITHOUT_NESTING']);
    },
  );

  it('if guest and host have no granule in common', () => {
    const kernel = host(identify(LAB_SMMU, { GRAN16K: 0, GRAN64K: 0 }));
    const ids = identify(GUEST_DEFAULT, { GRAN4K: 0 });
    const report = probeHost({ files: fixture('vfio.tree'), kernel, ids });
    expect(codes(deviceIn(report))).toEqual(['INCOMPATIBLE']);
  });
});

describe('a device can be used', () => {
  it('with the properties that its SMMU has', () => {
    const report = probe('vfio.tree', host());
    expect(report.usable).toBe('yes');
    expect(report.smmus[0].registers).toMatchObject({ IDR0: '0x0d44101b', IDR5: '0x00000074' });
    expect(deviceIn(report)).toMatchObject({
      usable: 'yes',
      properties: { ats: false, ril: true, ssidsize: 0, oas: 44, stall: false },
      reasons: [],
      notes: [],
    });
  });

  it('with ATS only if device and SMMU have it', () => {
    expect(deviceIn(probe('vfio.tree', host(SERVER_SMMU))).properties?.ats).toBe(false);
    expect(deviceIn(probe('vfio.tree', host(SERVER_SMMU, { ats: true }))).properties).toEqual({
      ats: true,
      ril: true,
      ssidsize: 20,
      oas: 48,
      stall: false,
    });
  });

  const MARK = `/sys/bus/pci/devices/${DISK}/of_node/dma-can-stall: `;
  const CONFIG = '/boot/config-7.3.4-server:';
  it.each([
    ['if it is marked, its SMMU stalls and the kernel was built to hear of it', SERVER_SMMU, [MARK], true],
    [
      'if it is marked, as far as a kernel whose options are not known shows',
      SERVER_SMMU,
      [MARK, '/proc/sys/kernel/osrelease: 7.3.5'],
      true,
    ],
    ['not if nobody marks it', SERVER_SMMU, [], false],
    ['not if its SMMU does not stall', LAB_SMMU, [MARK], false],
  ])('with stalls %s', (_, ids, lines, stall) => {
    const device = deviceIn(probe('vfio.tree', host(ids), ...lines));
    expect(device).toMatchObject({ usable: 'yes', stallMark: lines.length > 0, properties: { stall } });
    expect(device.notes.filter((note) => note.includes('SVA'))).toEqual([]);
  });

  it('without the stalls that its kernel was not built for, and says so: page tables with a FAULT_QUEUE cannot be attached', () => {
    const options =
      'CONFIG_IOMMUFD=m|CONFIG_VFIO_PCI=m|CONFIG_VFIO_DEVICE_CDEV=y|CONFIG_ARM_SMMU_V3=y|CONFIG_ARM_SMMU_V3_IOMMUFD=y';
    const device = deviceIn(probe('vfio.tree', host(SERVER_SMMU), MARK, `${CONFIG} ${options}`));
    expect(device).toMatchObject({ usable: 'yes', properties: { stall: false } });
    expect(device.notes).toContainEqual(expect.stringContaining('CONFIG_ARM_SMMU_V3_SVA'));
  });

  it('with less than a guest is told by default, and says what', () => {
    const { notes } = deviceIn(probe('vfio.tree', host(identify(LAB_SMMU, { OAS: 2, RIL: 0 }))));
    expect(notes).toEqual([expect.stringContaining('IDR3.RIL=0'), expect.stringContaining('IDR5.OAS=2')]);
  });

  it('while another of its group is free too, with the remark that only one can be', () => {
    const report = probe(
      'group-shared.tree',
      host(),
      '/sys/devices/pci0000:00/0000:02:00.1/driver -> ../../../bus/pci/drivers/vfio-pci',
    );
    const { usable, notes } = deviceIn(report, '0000:02:00.0');
    expect(usable).toBe('yes');
    expect(notes).toEqual([expect.stringMatching(/^Group 5 holds 0000:02:00\.1 too; only one/)]);
  });

  it('if it was not asked, as far as it shows', () => {
    const report = probe('vfio.tree');
    expect([report.usable, report.notAsked]).toEqual(['unknown', NOT_ASKED]);
    expect(deviceIn(report).properties).toBeNull();
  });

  it('and is as it was afterwards: nothing is left open, and no object', () => {
    const sim = host();
    for (let i = 0; i < 3; i++) expect(probe('vfio.tree', sim).usable).toBe('yes');
    expect(sim.openFiles).toBe(0);
    expect(sim.snapshotOfObjects()).toEqual([]);
  });

  it('and one that is in use is not disturbed by the question', () => {
    const sim = host();
    const iommufd = sim.open('/dev/iommu');
    const device = sim.open('/dev/vfio/devices/vfio0');
    const arg = new Uint8Array(24);
    new DataView(arg.buffer).setUint32(0, 24, true);
    new DataView(arg.buffer).setInt32(8, iommufd, true);
    expect(sim.ioctl(device, 0x3b76, arg)).toBe(0);
    const before = sim.snapshotOfObjects();
    expect(codes(deviceIn(probe('vfio.tree', sim)))).toEqual(['IN_USE']);
    expect(sim.snapshotOfObjects()).toEqual(before);
  });
});

describe('the text', () => {
  it.each([
    ['no-smmu', NOT_ASKED],
    ['other-machine', NOT_ASKED],
    ['host-driver', NOT_ASKED],
    ['vfio', host()],
    ['vfio-not-asked', NOT_ASKED],
    ['group-shared', host(SERVER_SMMU, { ats: true })],
    ['no-permission', NOT_ASKED],
    ['container', NOT_ASKED],
    ['odd-devices', host(LAB_SMMU, { canwbs: false })],
  ] as const)('of %s', async (name, kernel) => {
    const lines = probeText(probe(`${name}.tree`, kernel));
    for (const line of lines) if (!/^ +# /.test(line)) expect(line.length).toBeLessThanOrEqual(96);
    await expect(`${lines.join('\n')}\n`).toMatchFileSnapshot(`probe-expected/${name}.txt`);
  });

  it('is JSON too', () => {
    const report = probe('group-shared.tree', host());
    expect(JSON.parse(JSON.stringify(report))).toMatchObject({ usable: 'yes' });
  });
});
