import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { IOMMUFD_IOCTLS } from '../../src/iommufd/uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../../src/iommufd/uapi/vfio.ts';
import { BenchHost, BenchMachine, BUFFERS, sidOf } from '../support/bench-machine.ts';

const page = readFileSync(new URL('../../docs/ioctls.md', import.meta.url), 'utf8');
const NAMES = new Map<number, string>(
  [...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].map(({ request, ioctl }) => [request, ioctl]),
);
const SHORT: Readonly<Record<string, string>> = {
  VFIO_DEVICE_BIND_IOMMUFD: 'bind',
  IOMMU_GET_HW_INFO: 'hw_info',
  IOMMU_IOAS_ALLOC: 'ioas',
  IOMMU_IOAS_MAP: 'map',
  IOMMU_HWPT_ALLOC: 'hwpt',
  IOMMU_VIOMMU_ALLOC: 'viommu',
  IOMMU_VDEVICE_ALLOC: 'vdevice',
  IOMMU_VEVENTQ_ALLOC: 'veventq',
  IOMMU_HWPT_INVALIDATE: 'invalidate',
  IOMMU_DESTROY: 'destroy',
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: 'attach',
  VFIO_DEVICE_DETACH_IOMMUFD_PT: 'detach',
  VFIO_DEVICE_RESET: 'reset',
};
const MAPPED = 0x1000_0000n;

const probe = (machine: BenchMachine): void => machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
const plugged = (machine: BenchMachine): void => machine.plug();
const probed = (machine: BenchMachine): void => {
  machine.plug();
  probe(machine);
};
const attached = (machine: BenchMachine): void => {
  probed(machine);
  machine.attach().map(MAPPED, BUFFERS, 0x1_0000);
};
const nothing = (): void => {};

/** What happens before, and what is counted. */
const ACTIONS: Readonly<Record<string, readonly [(m: BenchMachine) => void, (m: BenchMachine) => void]>> = {
  'plug of the first device, cold': [nothing, plugged],
  'plug of a second device, cold': [plugged, (m) => m.plug(1)],
  'plug of the first device, hot': [probe, plugged],
  'probe of the driver, one device': [plugged, probe],
  'attach to a domain': [probed, (m) => void m.attach()],
  map: [attached, (m) => m.attach().map(0x3000_0000n, BUFFERS, 0x1000)],
  'unmap of one page': [attached, (m) => m.attach().unmap(MAPPED, 0x1000)],
  'unmap of 16 pages, singly, one CMD_SYNC': [
    attached,
    (m) =>
      m.guest.commands.issueAndSync(
        ...Array.from({ length: 16 }, (_, i) =>
          Uint32Array.of(0x12, 1 << 16, 1, (0x1000_0000 >>> 0) + i * 0x1000),
        ),
      ),
  ],
  'switch to another domain': [attached, (m) => void m.guest.attach(sidOf(0), m.guest.createDomain())],
  'to identity': [attached, (m) => m.guest.attachIdentity(sidOf(0))],
  detach: [attached, (m) => m.guest.detach(sidOf(0))],
  'the same STE again (CFGI_STE)': [
    attached,
    (m) => m.guest.commands.issueAndSync(Uint32Array.of(0x03, sidOf(0), 1, 0)),
  ],
  'an event': [attached, (m) => void m.dma(0x5000_0000n)],
  'event queue moved and resized': [attached, (m) => m.guest.rebaseEventQueue(6)],
  'shutdown of the driver': [attached, (m) => m.guest.shutdown()],
  'system reset': [attached, (m) => m.reset()],
  'unplug of the last device': [attached, (m) => m.unplug()],
};

function measure(action: string): { total: number; what: string } {
  const machine = new BenchMachine(new BenchHost());
  const [before, act] = ACTIONS[action];
  before(machine);
  machine.settle();
  machine.host.ioctls = [];
  act(machine);
  machine.settle();
  const counts = new Map<string, number>();
  for (const request of machine.host.ioctls) {
    const name = SHORT[NAMES.get(request) ?? ''] ?? `0x${request.toString(16)}`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const what = [...counts].map(([name, n]) => (n === 1 ? name : `${n} ${name}`)).join(', ');
  return { total: machine.host.ioctls.length, what };
}

it.each(Object.keys(ACTIONS))('docs/ioctls.md says what "%s" costs', (action) => {
  const { total, what } = measure(action);
  const row = page
    .split('\n')
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .find((cells) => cells[1] === action);
  expect(row?.slice(2, 4)).toEqual([String(total), what === '' ? '-' : what]);
});

it('an unchanged state costs nothing, whatever makes us look', () => {
  const machine = new BenchMachine(new BenchHost());
  attached(machine);
  machine.expectSettled();
});
