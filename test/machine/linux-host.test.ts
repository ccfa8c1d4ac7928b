/** The code that drives a real machine, on the embedded host through the same port. */

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { DmaTester } from '../../src/host/sim/functions/dma-tester.ts';
import { LAB_SMMU, SERVER_SMMU } from '../../src/host/sim/profiles.ts';
import { SimHost } from '../../src/host/sim/sim-host.ts';
import type { PciFunction } from '../../src/host/sim/pci-function.ts';
import { Edu } from '../../src/host/linux/endpoints/edu.ts';
import { Iommufd } from '../../src/iommufd/iommufd.ts';
import { VfioDevice } from '../../src/iommufd/vfio-device.ts';
import { HostUnusable, LinuxHost, type Assignment, type OwningKernel } from '../../src/machine/linux-host.ts';
import type { RunEvent } from '../../src/machine/report.ts';
import { parseScenario, type Scenario } from '../../src/machine/scenario/parse.ts';
import { runReferenceScenario } from '../../src/machine/scenario/reference-run.ts';
import { identify, type IdRegisters } from '../../src/smmu/identification.ts';
import { fixture } from '../host/linux/fixture.ts';
import { EduFunction } from '../support/edu-function.ts';

const TESTDEV = '1b36 0005';
const EDU = '1234 11e8';
const PCI = '/sys/devices/pci0000:00';
const SMMU = '/sys/devices/platform/arm-smmu-v3.0.auto/iommu/smmu3.0x0000000009050000';

/** A machine whose devices are these, bound to vfio-pci; sysfs and the simulated kernel agree on them. */
function world(functions: readonly PciFunction[], ids: IdRegisters = LAB_SMMU, more: readonly string[] = []) {
  // As with a real kernel, what it has to say comes from the event loop.
  const sim = new SimHost({ schedule: (task) => void setImmediate(task) });
  const smmu = sim.addSmmu({ name: 'arm-smmu-v3.0.auto', ids });
  const lines = ['/sys/class/misc/iommu/dev: 10:124', '/dev/iommu:', '/sys/bus/pci/drivers/vfio-pci/bind:'];
  lines.push(`/sys/class/iommu/smmu3.0x0000000009050000 -> ../..${SMMU.slice(4)}`);
  for (const [i, device] of functions.entries()) {
    const address = `0000:00:0${4 + i}.0`;
    sim.addDevice({ path: `/dev/vfio/devices/vfio${i}`, address, smmu, sid: 0x20 + 8 * i, function: device });
    const [vendor, id] = (device.kind === 'edu' ? EDU : TESTDEV).split(' ');
    lines.push(
      `${SMMU}/devices/${address} -> ../../../../../pci0000:00/${address}`,
      `${PCI}/${address}/vendor: 0x${vendor}`,
      `${PCI}/${address}/device: 0x${id}`,
      `${PCI}/${address}/class: 0x00ff00`,
      `${PCI}/${address}/driver -> ../../../bus/pci/drivers/vfio-pci`,
      `${PCI}/${address}/iommu_group -> ../../../kernel/iommu_groups/${i}`,
      `${PCI}/${address}/vfio-dev/vfio${i}/dev: 511:${i}`,
      `/dev/vfio/devices/vfio${i}:`,
    );
  }
  const files = fixture('kernel.tree', ...lines, ...more);
  let released = 0;
  const kernel: OwningKernel = Object.assign(
    Object.create(sim) as SimHost,
    {
      guestRam: (size: number) => new Uint8Array(size),
      release: () => void released++,
    },
    // Private members are the original's.
    Object.fromEntries(
      (
        ['open', 'close', 'ioctl', 'read', 'pread', 'pwrite', 'eventfd', 'onReadable', 'userMemory'] as const
      ).map((name) => [
        name,
        (...args: never[]) => (sim[name] as (...args: never[]) => unknown).apply(sim, args),
      ]),
    ),
  );
  const open = (devices: readonly string[], assignments: readonly Assignment[] = []): LinuxHost =>
    LinuxHost.open({ kernel, files, devices, assignments });
  return { sim, open, kernel, released: () => released };
}

async function play(
  scenario: Scenario,
  made: ReturnType<typeof world>,
  assignments: readonly Assignment[] = [],
) {
  const events: RunEvent[] = [];
  const counts: [Record<string, number>, Record<string, number>][] = [];
  const result = await runReferenceScenario(
    scenario,
    (event) => {
      events.push(event);
    },
    () => {
      const host = made.open(
        scenario.devices.map(({ name }) => name),
        assignments,
      );
      const objects = host.objects.bind(host);
      host.objects = () => {
        const truth: Record<string, number> = {};
        for (const { type } of made.sim.snapshotOfObjects()) truth[type] = (truth[type] ?? 0) + 1;
        counts.push([objects(), truth]);
        return objects();
      };
      return host;
    },
  );
  return { result, events, counts };
}

const scenario = (name: string): Scenario =>
  parseScenario(readFileSync(new URL(`../../scenarios/${name}`, import.meta.url), 'utf8'), name);
const inline = (steps: string): Scenario =>
  parseScenario(`{ title: t, devices: { nic0: {} }, cases: [{ title: c, steps: [${steps}] }] }`, 'inline');
const failures = (events: readonly RunEvent[]): string[] =>
  events.flatMap((event) => (event.kind === 'expectation' && !event.ok ? [event.text] : []));
const transfers = (events: readonly RunEvent[]): string[] =>
  events.flatMap((event) => (event.kind === 'dma' ? [`${event.access} ${event.outcome}`] : []));

describe('a scenario on a machine with edu', () => {
  it.each([false, true])('passes as on the embedded host (failed reads clear: %s)', async (clears) => {
    const edu = new EduFunction();
    edu.clears = clears;
    const { result, events, counts } = await play(scenario('three-orders.yaml'), world([edu]));
    expect(failures(events)).toEqual([]);
    expect(result).toMatchObject({ cases: 3, failed: 0 });
    expect(transfers(events)).toEqual([
      'write ok',
      'read abort',
      'read ok',
      'write abort',
      'write ok',
      'write ok',
      'write abort',
    ]);
    // What the ledger counts is what the kernel has.
    expect(counts.length).toBeGreaterThan(10);
    for (const [ledger, truth] of counts) expect(ledger).toEqual(truth);
  });
});

describe('edu', () => {
  it('that does not finish is an error, after a while', async () => {
    const edu = new EduFunction();
    edu.hangs = true;
    const { kernel } = world([edu]);
    const iommufd = Iommufd.open(kernel);
    const device = VfioDevice.open(iommufd.caller, '/dev/vfio/devices/vfio0');
    device.bind(iommufd);
    const bytes = new Uint8Array(4);
    const transfer = { write: false, iova: 0n, bytes, workspace: () => ({ iova: 0n, bytes }), ram: bytes };
    await expect(new Edu(device, 20).transfer(transfer)).rejects.toThrow('a DMA of edu failed (ETIMEDOUT)');
  });
});

describe('a scenario on a machine with iommu-testdev', () => {
  it('writes through stage 1, and sees the abort and its event', async () => {
    const { events } = await play(
      inline(`{ plug: nic0 }, probe, { attach: nic0 }, { map: { device: nic0, iova: 0x10000000 } },
        { dma: { device: nic0, write: 0x10000010, expect: ok } },
        { unmap: { device: nic0, iova: 0x10000000 } },
        { dma: { device: nic0, write: 0x10000010, expect: abort } },
        { expect: { events: [{ type: F_TRANSLATION, device: nic0, iova: 0x10000010, access: write }] } },
        { unplug: nic0 }, { expect: { objects: {}, warnings: 0 } }`),
      world([new DmaTester()]),
    );
    expect(failures(events)).toEqual([]);
    expect(transfers(events)).toEqual(['write ok', 'write abort']);
  });

  it('cannot read, and says so', async () => {
    const { events } = await play(
      inline('{ plug: nic0 }, probe, { dma: { device: nic0, read: 0x10000000 } }'),
      world([new DmaTester()]),
    );
    expect(failures(events)).toEqual(['iommu-testdev can only write; edu can read']);
  });

  it('does nothing for a device that is not plugged', async () => {
    const { events } = await play(
      inline('probe, { dma: { device: nic0, write: 0x10000000 } }'),
      world([new DmaTester()]),
    );
    expect(failures(events)).toEqual(['nic0 is not plugged, so nothing can drive it']);
  });
});

describe('devices are chosen', () => {
  it('as assigned; the others by what they can do', () => {
    const made = world([new DmaTester(), new DmaTester(), new EduFunction()]);
    const host = made.open(['a', 'b', 'c'], [{ name: 'b', path: '/dev/vfio/devices/vfio0' }]);
    expect(['a', 'b', 'c'].map((name) => host.pathOf(name).at(-1))).toEqual(['2', '0', '1']);
    expect(host.description).toContain('a is 0000:00:06.0 (edu)');
    expect(made.sim.openFiles).toBe(0);
    expect(() => host.pathOf('d')).toThrow(RangeError);
  });

  it('and others are not even opened if all are assigned', () => {
    const made = world([new DmaTester(), new DmaTester()]);
    const opened: string[] = [];
    const open = made.kernel.open.bind(made.kernel);
    made.kernel.open = (path) => {
      opened.push(path);
      return open(path);
    };
    made.open(['a'], [{ name: 'a', path: '/dev/vfio/devices/vfio1' }]);
    expect(opened).toContain('/dev/vfio/devices/vfio1');
    expect(opened).not.toContain('/dev/vfio/devices/vfio0');
  });

  it.each([
    ['there are too few', ['a', 'b'], [], 'NO_TEST_DEVICE'],
    ['a file is no device’s', ['a'], [{ name: 'a', path: '/dev/vfio/devices/vfio9' }], 'NO_VFIO_FILE'],
  ])('or it is refused, because %s', (_, devices, assignments, code) => {
    const made = world([new DmaTester()]);
    const refused = (): LinuxHost => made.open(devices, assignments);
    expect(refused).toThrow(HostUnusable);
    expect(refused).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED_HERE', reasons: [expect.objectContaining({ code })] }),
    );
  });

  it('or it is refused, because the one that was assigned is in use', () => {
    const made = world([new DmaTester()]);
    made.sim.faults.add({ ioctl: 'VFIO_DEVICE_BIND_IOMMUFD', errno: 'EBUSY' });
    expect(() => made.open(['a'], [{ name: 'a', path: '/dev/vfio/devices/vfio0' }])).toThrow(
      /a \(0000:00:04\.0\): It cannot be bound/,
    );
  });

  it('or it is refused with what is wrong with the machine', () => {
    const { kernel } = world([]);
    const open = (): LinuxHost =>
      LinuxHost.open({ kernel, files: fixture('no-smmu.tree'), devices: ['a'], assignments: [] });
    expect(open).toThrow('this machine shows no IOMMU');
    expect(open).toThrow('# modprobe iommufd');
  });
});

describe('faults that wait', () => {
  const MARK = '/sys/bus/pci/devices/0000:00:04.0/of_node/dma-can-stall: ';
  it.each([
    ['come from a device that is marked', [MARK], 'stall'],
    ['come from no other', [], undefined],
    [
      'come from none where the kernel would attach no page table that has them',
      [
        MARK,
        '/boot/config-7.3.4-server: CONFIG_IOMMUFD=m|CONFIG_VFIO_PCI=m|CONFIG_VFIO_DEVICE_CDEV=y|CONFIG_ARM_SMMU_V3=y|CONFIG_ARM_SMMU_V3_IOMMUFD=y',
      ],
      undefined,
    ],
  ])('%s', (_, lines, kind) => {
    const host = world([new DmaTester()], SERVER_SMMU, lines).open(['nic0']);
    expect(host.faultsOf('/dev/vfio/devices/vfio0')).toBe(kind);
    host.close();
  });
});

describe('the guest', () => {
  it('is told no more than the host can do', () => {
    const made = world([new DmaTester()], identify(LAB_SMMU, { OAS: 2, RIL: 0 }));
    const host = made.open(['nic0']);
    const fitted = host.fit(identify(LAB_SMMU, { S2P: 0, XNX: 0 }));
    expect([fitted.IDR5 & 7, fitted.IDR3 & 0x400]).toEqual([2, 0]);
  });

  it('leaves nothing behind: closing the host releases the kernel', async () => {
    const made = world([new EduFunction()]);
    await play(inline('{ plug: nic0 }, probe, { attach: nic0 }'), made);
    expect(made.released()).toBe(1);
  });
});
