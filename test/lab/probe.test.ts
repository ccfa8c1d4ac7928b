import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ENDPOINTS } from '../../src/lab/lab-machine.ts';
import type { LabGuest } from '../../src/lab/lab-guest.ts';
import { bootLab, PROGRAM } from './lab.ts';

interface Reason {
  readonly code: string;
  readonly commands: readonly string[];
}
interface Device {
  readonly name: string;
  readonly usable: string;
  readonly vfio: { readonly path: string } | null;
  readonly properties: Record<string, unknown> | null;
  readonly reasons: readonly Reason[];
}
interface Report {
  readonly usable: string;
  readonly kernel: { readonly release: string };
  readonly smmus: readonly {
    readonly registers: Record<string, string> | null;
    readonly devices: readonly Device[];
  }[];
}

const FIRST = '0000:00:04.0';

describe('vsmmu probe', () => {
  let lab: LabGuest;
  beforeAll(async () => {
    lab = await bootLab();
  });
  afterAll(async () => {
    await lab.close();
  });

  const probe = async (): Promise<{ status: number; report: Report; devices: Map<string, Device> }> => {
    const { status, output } = await lab.run(`${PROGRAM} probe --json`);
    const report = JSON.parse(output) as Report;
    const devices = report.smmus.flatMap((smmu) => smmu.devices);
    return { status, report, devices: new Map(devices.map((device) => [device.name, device])) };
  };

  it('finds both SMMUs and all devices, none of which can be used yet', async () => {
    const { status, report, devices } = await probe();
    expect(status).toBe(3);
    expect(report.usable).toBe('no');
    expect(report.kernel.release).toMatch(/^7\.3\./);
    expect(report.smmus).toHaveLength(2);
    for (const { address } of ENDPOINTS) {
      expect(devices.get(address), address).toMatchObject({ usable: 'no' });
      expect(devices.get(address)?.reasons.map(({ code }) => code)).toEqual(['NOT_BOUND']);
    }
  });

  it('names commands that make a device usable, and then says with which properties', async () => {
    const { devices } = await probe();
    const commands = devices.get(FIRST)?.reasons.flatMap((reason) => reason.commands) ?? [];
    expect(commands.length).toBeGreaterThan(0);
    await lab.check(commands.join(' && '));
    const { status, report, devices: after } = await probe();
    expect(status).toBe(0);
    expect(report.usable).toBe('yes');
    expect(after.get(FIRST)).toMatchObject({
      usable: 'yes',
      vfio: { path: '/dev/vfio/devices/vfio0' },
      properties: { ats: false, ril: true, ssidsize: 0, oas: 44 },
      reasons: [],
    });
    // What QEMU's SMMU says of itself; the one without a usable device cannot be asked.
    expect(report.smmus[0]?.registers).toMatchObject({ IDR0: '0x0d44101b', IDR1: '0x02730010' });
    expect(report.smmus[1]?.registers).toBeNull();
  });

  it('says so in words, too', async () => {
    const { status, output } = await lab.run(`${PROGRAM} probe`);
    expect(status).toBe(0);
    expect(output).toMatch(/0000:00:04\.0 .*can be used with ats=off ril=on/);
    expect(output).toContain('echo vfio-pci > /sys/bus/pci/devices/0000:00:05.0/driver_override');
  });

  it('leaves the devices as they are', async () => {
    expect(await lab.check('ls /sys/bus/pci/drivers/vfio-pci | grep -c ^0000:')).toBe('1');
    const open = await lab.check('ls -l /proc/[0-9]*/fd 2> /dev/null | grep -cE "/dev/(iommu|vfio)" || true');
    expect(open).toBe('0');
  });

  it('says why nothing can be used without the kernel’s parts', async () => {
    const { status, output } = await lab.run(
      `mv /dev/iommu /dev/hidden; ${PROGRAM} probe --json; s=$?; mv /dev/hidden /dev/iommu; exit $s`,
    );
    expect(status).toBe(3);
    const { usable, reasons } = JSON.parse(output) as { usable: string; reasons: Reason[] };
    expect(usable).toBe('no');
    expect(reasons.length).toBeGreaterThan(0);
  });
});

describe('on a machine whose firmware does not promise coherent DMA', () => {
  it('vsmmu probe says so, and the kernel refuses as it says', async () => {
    const lab = await bootLab({ nesting: false });
    try {
      const path = await lab.bindToVfio(FIRST);
      const probed = await lab.run(`${PROGRAM} probe --json`);
      expect(probed.status).toBe(3);
      const report = JSON.parse(probed.output) as Report;
      const device = report.smmus.flatMap(({ devices }) => devices).find(({ name }) => name === FIRST);
      expect(device?.reasons.map(({ code }) => code)).toEqual(['NOT_COHERENT']);
      const run = await lab.run(`${PROGRAM} run --host linux --device nic0=${path}`);
      expect(run.status).toBe(3);
      expect(run.output).toContain('CANWBS');
    } finally {
      await lab.close();
    }
  });
});
