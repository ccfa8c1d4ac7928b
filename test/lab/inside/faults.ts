/**
 * Faults of a real device on their way: SMMU, kernel, vEVENTQ, accelerator, the guest's event queue, its driver. Prints
 * one line of JSON. `node faults.js ADDRESS`, in the lab; the device is an iommu-testdev.
 */

import { IommuTestdev } from '../../../src/host/linux/endpoints/iommu-testdev.ts';
import { LinuxKernel } from '../../../src/host/linux/linux-kernel.ts';
import { ReferenceGuest } from '../../../src/guest/reference-guest.ts';
import { Memory } from '../../../src/memory/memory.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { Scheduler } from '../../../src/machine/scheduler.ts';
import { loadSyscalls } from '../../../src/sys/koffi-syscalls.ts';
import { fitToHost } from '../../../src/accel/compatibility.ts';
import { inquire } from '../../../src/host/linux/inquiry.ts';
import { GUEST_DEFAULT } from '../../../src/smmu/identification.ts';
import type { GuestEvent } from '../../../src/guest/event.ts';
import { setTimeout as sleep } from 'node:timers/promises';
import { vfioDevices } from './lab-rig.ts';

export interface FaultReport {
  /** From the start of the DMA until the guest's driver has read the record, one value per fault. */
  readonly latencyMs: readonly number[];
  /** From the start of the DMA until the device says that it failed. */
  readonly dmaMs: readonly number[];
  /** StreamIDs of all records. */
  readonly sids: readonly number[];
  readonly burst: {
    /** Raised without giving the accelerator a turn. */
    readonly raised: number;
    /** Read by the guest's driver. */
    readonly read: number;
    /** Room in the guest's queue, and so the vEVENTQ's depth. */
    readonly depth: number;
    /** How often the driver found that events were lost. */
    readonly overflows: number;
  };
  /** Calls of the kernel to plug the device, start the driver and attach. */
  readonly ioctls: number;
}

const RAM = { base: 0x4000_0000, size: 0x400_0000 };
const SID = 0x100;
const SINGLE = 40;
const BURST = 48;
const LOG2_QUEUE = 4;
const UNMAPPED = 0xdead_0000n;

const [address] = process.argv.slice(2);
const [{ path }] = vfioDevices([address]);
const kernel = new LinuxKernel({ sys: await loadSyscalls() });
const { info } = inquire(kernel, path);
if (info === undefined) throw new Error(`${path} says nothing of its SMMU`);

let ioctls = 0;
const memory = new Memory();
const scheduler = new Scheduler();
const events: GuestEvent[] = [];
let arrived: () => void = () => {};
const machine = new Machine({
  kernel: {
    open: (file) => kernel.open(file),
    close: (fd) => kernel.close(fd),
    ioctl: (fd, request, arg) => {
      ioctls += 1;
      return kernel.ioctl(fd, request, arg);
    },
    read: (fd, into) => kernel.read(fd, into),
    write: (fd, from) => kernel.write(fd, from),
    pread: (fd, into, offset) => kernel.pread(fd, into, offset),
    pwrite: (fd, from, offset) => kernel.pwrite(fd, from, offset),
    eventfd: () => kernel.eventfd(),
    // The accelerator has its turn, and then the guest's driver.
    onReadable: (fd, callback) =>
      kernel.onReadable(fd, () => {
        callback();
        scheduler.run();
        arrived();
      }),
    userMemory: (bytes) => kernel.userMemory(bytes),
  },
  memory,
  ids: fitToHost(GUEST_DEFAULT, info).ids,
  interrupts: {
    raise: (line) => scheduler.post(() => guest.handleInterrupt(line)),
    writeMsi: (hi, lo, data) => memory.store32(hi, lo, data) === 0,
  },
  scheduler,
});
const guest: ReferenceGuest = new ReferenceGuest({
  registers: machine.smmu,
  memory,
  ram: RAM,
  relax: () => scheduler.run(),
  onEvent: (event) => events.push(event),
});
machine.addRam(RAM.base, kernel.guestRam(RAM.size));
const vfio = machine.plug('nic0', path, SID);
guest.probe({ eventqLog2: LOG2_QUEUE });
guest.addDevice({ sid: SID, name: '0000:01:00.0' });
guest.attach(SID);
scheduler.run();
const setUp = ioctls;

const device = new IommuTestdev(vfio);
const fault = (): Promise<boolean> =>
  device.transfer({
    write: true,
    iova: UNMAPPED,
    bytes: new Uint8Array(4),
    workspace: () => ({ iova: 0n, bytes: new Uint8Array(0) }),
    ram: new Uint8Array(0),
  });
const LIMIT_MS = 5_000;
/** Waits until that many records have been read, or no more come. */
async function read(count: number): Promise<void> {
  const end = performance.now() + LIMIT_MS;
  while (events.length < count && performance.now() < end)
    await Promise.race([new Promise<void>((resolve) => (arrived = resolve)), sleep(100)]);
}

const latencyMs: number[] = [];
const dmaMs: number[] = [];
for (let i = 0; i < SINGLE; i++) {
  const start = performance.now();
  await fault();
  dmaMs.push(performance.now() - start);
  await read(i + 1);
  latencyMs.push(performance.now() - start);
}

events.length = 0;
const overflows = guest.overflows;
await Promise.all(Array.from({ length: BURST }, fault));
await read(BURST);
const report: FaultReport = {
  latencyMs,
  dmaMs,
  sids: [...new Set(events.map(({ sid }) => sid))],
  burst: {
    raised: BURST,
    read: events.length,
    depth: 1 << LOG2_QUEUE,
    overflows: guest.overflows - overflows,
  },
  ioctls: setUp,
};
process.stdout.write(`${JSON.stringify(report)}\n`);
machine.unplug('nic0');
kernel.release();
