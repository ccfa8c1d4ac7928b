import { expect, it } from 'vitest';

import type { FaultReport } from './inside/faults.ts';
import { bootLab } from './lab.ts';

const DEVICE = '0000:00:04.0';

it('faults of a real device reach the guest’s driver, and lost ones are counted', async () => {
  const lab = await bootLab();
  try {
    await lab.bindToVfio(DEVICE);
    const output = await lab.check(`node /lab/vsmmu/test/lab/inside/faults.js ${DEVICE}`, 120_000);
    const { latencyMs, dmaMs, sids, burst, ioctls } = JSON.parse(output) as FaultReport;
    const median = (values: readonly number[]): string =>
      (values.toSorted((a, b) => a - b)[values.length >>> 1] ?? 0).toFixed(2);
    console.log(
      `fault to the guest's driver: median ${median(latencyMs)} ms of ${latencyMs.length}, ` +
        `${median(dmaMs)} ms of that until the device itself knows; ` +
        `${ioctls} ioctls to plug a device, start the driver and attach`,
    );
    expect(latencyMs).toHaveLength(40);
    // One that never came would have taken the whole limit.
    expect(Math.max(...latencyMs)).toBeLessThan(5_000);
    expect(sids).toEqual([0x100]);
    // Nobody read meanwhile: the vEVENTQ is as deep as the guest's queue, and the guest hears of the rest as OVFLG.
    expect(burst).toEqual({ raised: 48, read: burst.depth, depth: 16, overflows: 1 });
  } finally {
    await lab.close();
  }
});
