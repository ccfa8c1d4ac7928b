/** A simulated host with two DMA testers behind one SMMU, like the machine on which the ground truth was measured. */

import { DmaTester } from '../../../src/host/sim/functions/dma-tester.ts';
import { LAB_SMMU } from '../../../src/host/sim/profiles.ts';
import { SimHost, type DeviceDescription, type SimHostOptions } from '../../../src/host/sim/sim-host.ts';
import type { IdRegisters } from '../../../src/smmu/identification.ts';

export const PATH_A = '/dev/vfio/devices/vfio0';
export const PATH_B = '/dev/vfio/devices/vfio1';
export const SID_A = 0x20;
export const SID_B = 0x28;

export interface Machine {
  readonly host: SimHost;
  readonly a: DmaTester;
  readonly b: DmaTester;
  /** Runs what was scheduled, and what that schedules. */
  readonly run: () => void;
}

export function machine(
  options: {
    readonly ids?: IdRegisters;
    readonly host?: Partial<SimHostOptions>;
    readonly device?: Partial<DeviceDescription>;
  } = {},
): Machine {
  const tasks: (() => void)[] = [];
  const host = new SimHost({ schedule: (task) => tasks.push(task), ...options.host });
  const smmu = host.addSmmu({ name: 'arm-smmu-v3.0.auto', ids: options.ids ?? LAB_SMMU });
  const a = new DmaTester(host.physicalMemory);
  const b = new DmaTester(host.physicalMemory);
  host.addDevice({ path: PATH_A, address: '0000:00:04.0', smmu, sid: SID_A, function: a, ...options.device });
  host.addDevice({ path: PATH_B, address: '0000:00:05.0', smmu, sid: SID_B, function: b, ...options.device });
  const run = (): void => {
    for (let task = tasks.shift(); task !== undefined; task = tasks.shift()) task();
  };
  return { host, a, b, run };
}
