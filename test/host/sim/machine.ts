/**
 * A simulated host with two DMA testers behind one SMMU, like the machine on which the ground
 * truth was measured, and a third behind another SMMU.
 */

import type { ArmSmmu } from '../../../src/host/sim/arm-smmu-v3/arm-smmu.ts';
import { DmaTester } from '../../../src/host/sim/functions/dma-tester.ts';
import { LAB_SMMU } from '../../../src/host/sim/profiles.ts';
import { SimHost, type DeviceDescription, type SimHostOptions } from '../../../src/host/sim/sim-host.ts';
import type { Rig } from '../../contract/rig.ts';
import type { IdRegisters } from '../../../src/smmu/identification.ts';

export const PATH_A = '/dev/vfio/devices/vfio0';
const PATH_B = '/dev/vfio/devices/vfio1';
const PATH_C = '/dev/vfio/devices/vfio2';
export const SID_A = 0x20;
const SID_B = 0x28;
/** Behind the second SMMU, so that it can have the same StreamID. */
const SID_C = 0x20;

export interface Machine {
  readonly host: SimHost;
  readonly a: DmaTester;
  readonly b: DmaTester;
  readonly c: DmaTester;
  readonly smmu: ArmSmmu;
  readonly otherSmmu: ArmSmmu;
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
  const otherSmmu = host.addSmmu({ name: 'arm-smmu-v3.1.auto', ids: options.ids ?? LAB_SMMU });
  const c = new DmaTester(host.physicalMemory);
  host.addDevice({ path: PATH_C, address: '0000:20:04.0', smmu: otherSmmu, sid: SID_C, function: c });
  const run = (): void => {
    for (let task = tasks.shift(); task !== undefined; task = tasks.shift()) task();
  };
  return { host, a, b, c, smmu, otherSmmu, run };
}

/** The machine as contract cases see it. */
export function simRig(simulated = machine()): Rig {
  const { host, run } = simulated;
  return {
    kernel: host,
    devices: [
      { path: PATH_A, address: '0000:00:04.0' },
      { path: PATH_B, address: '0000:00:05.0' },
      { path: PATH_C, address: '0000:20:04.0' },
    ],
    interrupting: 0,
    ram: (size) => new Uint8Array(size),
    settle: run,
    poll: (fd) => host.poll(fd),
    readTo: (fd, address, count) => host.readTo(fd, address, count),
    lseek: (fd) => host.lseek(fd),
    flags: (fd) => host.flags(fd),
    physicalAddress: (bytes, offset) => (host.physicalAddress(bytes) ?? 0n) + BigInt(offset),
  };
}
