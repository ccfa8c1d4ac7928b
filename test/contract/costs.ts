/** What a guest's actions cost on a host: the control calls of each action of docs/ioctls.md, counted on a rig. */

import { GapBench, BUFFERS, sidOf } from './gap-bench.ts';
import type { Rig } from './rig.ts';

/** As the page calls them. */
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

type Step = (bench: GapBench) => void;

const nothing: Step = () => {};
const probe: Step = (bench) => bench.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
const plugged: Step = (bench) => bench.plug();
const probed: Step = (bench) => {
  bench.plug();
  probe(bench);
};
const attached: Step = (bench) => {
  probed(bench);
  bench.attach().map(MAPPED, BUFFERS, 0x1_0000);
};

/** What happens before, and what is counted. */
export const ACTIONS: Readonly<Record<string, readonly [before: Step, counted: Step]>> = {
  'plug of the first device, cold': [nothing, plugged],
  'plug of a second device, cold': [plugged, (bench) => bench.plug(1)],
  'plug of the first device, hot': [probe, plugged],
  'probe of the driver, one device': [plugged, probe],
  'attach to a domain': [probed, (bench) => void bench.attach()],
  map: [attached, (bench) => bench.attach().map(0x3000_0000n, BUFFERS, 0x1000)],
  'unmap of one page': [attached, (bench) => bench.attach().unmap(MAPPED, 0x1000)],
  'unmap of 16 pages, singly, one CMD_SYNC': [
    attached,
    (bench) =>
      bench.guest.commands.issueAndSync(
        ...Array.from({ length: 16 }, (_, i) =>
          Uint32Array.of(0x12, 1 << 16, 1, (0x1000_0000 >>> 0) + i * 0x1000),
        ),
      ),
  ],
  'switch to another domain': [
    attached,
    (bench) => void bench.guest.attach(sidOf(0), bench.guest.createDomain()),
  ],
  'to identity': [attached, (bench) => bench.guest.attachIdentity(sidOf(0))],
  detach: [attached, (bench) => bench.guest.detach(sidOf(0))],
  'the same STE again (CFGI_STE)': [
    attached,
    (bench) => bench.guest.commands.issueAndSync(Uint32Array.of(0x03, sidOf(0), 1, 0)),
  ],
  'an event': [attached, (bench) => void bench.dma(0x5000_0000n)],
  'event queue moved and resized': [attached, (bench) => bench.guest.rebaseEventQueue(6)],
  'shutdown of the driver': [attached, (bench) => bench.guest.shutdown()],
  'system reset': [attached, (bench) => bench.reset()],
  'unplug of the last device': [attached, (bench) => bench.unplug()],
};

/** What one action cost. */
export interface Cost {
  readonly total: number;
  /** `attach, 2 destroy`, in the order in which each kind was called first. */
  readonly what: string;
}

export function costOf(rig: Rig, action: string): Cost {
  const bench = new GapBench(rig);
  const [before, counted] = ACTIONS[action];
  before(bench);
  bench.settle();
  bench.takeCalls();
  counted(bench);
  bench.settle();
  return summary(bench.takeCalls().map((call) => SHORT[call] ?? call));
}

/** Calls by kind, in the order in which each kind was first made. */
export function summary(calls: readonly string[]): Cost {
  const counts = new Map<string, number>();
  for (const call of calls) counts.set(call, (counts.get(call) ?? 0) + 1);
  const what = [...counts].map(([name, n]) => (n === 1 ? name : `${n} ${name}`)).join(', ');
  return { total: calls.length, what };
}

/** The cells of an action's row on the page: calls, which, and what is said of QEMU. */
export function rowOf(page: string, action: string): string[] | undefined {
  return page
    .split('\n')
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .find((cells) => cells[1] === action)
    ?.slice(2, -1);
}

/** How the page writes a cost. */
export const asOnPage = ({ total, what }: Cost): string[] => [String(total), what === '' ? '-' : what];
