/** Controllers for tests, as far up as they need them. */

import { expect } from 'vitest';
import { NvmeFunction, type NvmeOptions } from '../../../../../src/host/sim/functions/nvme.ts';
import { Driver } from './nvme-driver.ts';

export const MIB = 1 << 20;

/** A driver for a device of 4 MiB, whose leftover work is run only when a test says so. */
export function driverFor(options: Partial<NvmeOptions> = {}): Driver {
  return new Driver(
    new NvmeFunction({ serial: 'TEST1', storage: 4 * MIB, defer: () => undefined, ...options }),
  );
}

/** Enabled, with I/O queue pair 1. */
export function ready(options: Partial<NvmeOptions> = {}): Driver {
  const driver = driverFor(options);
  driver.enablePci();
  expect(driver.enable()).toBe(1);
  driver.createIo();
  return driver;
}

export const DATA_TRANSFER_ERROR = 0x04;
export const INVALID_FIELD = 0x02;
export const READ = { opcode: 2, nsid: 1 };
