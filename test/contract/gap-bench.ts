/**
 * A whole machine on a rig: the embedded guest with its SMMU and accelerator, and what is counted of the host behind it.
 * On the embedded host and on Linux alike; DMA is real where the rig is.
 */

import { ReferenceGuest } from '../../src/guest/reference-guest.ts';
import type { GuestDomain } from '../../src/guest/domain.ts';
import type { Fd, Kernel } from '../../src/iommufd/kernel.ts';
import { IOMMU_DESTROY, IOMMUFD_IOCTLS } from '../../src/iommufd/uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../../src/iommufd/uapi/vfio.ts';
import { Machine, type MachineOptions } from '../../src/machine/machine.ts';
import { Scheduler } from '../../src/machine/scheduler.ts';
import { Memory } from '../../src/memory/memory.ts';
import { GUEST_DEFAULT, identify, type IdRegisters } from '../../src/smmu/identification.ts';
import type { Smmu } from '../../src/smmu/smmu.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import type { Rig } from './rig.ts';
import { TestDevice, TX_FAIL } from './test-device.ts';

export const RAM = 0x4000_0000;
const RAM_SIZE = 0x40_0000;
/** The last MiB is for DMA, the rest the driver's. */
export const BUFFERS = RAM + 0x30_0000;
/** What iommu-testdev writes. */
const PATTERN = 0x1234_5678;

/** What the guest is told on an SMMU like QEMU's: its 44 bits of address. */
const GUEST_IDS: IdRegisters = identify(GUEST_DEFAULT, { OAS: 4, EVENTQS: 16, CMDQS: 16 });

const NAMES = new Map<number, string>(
  [...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].map(({ request, ioctl }) => [request, ioctl]),
);

/** The guest's StreamID of a device. */
export const sidOf = (index: number): number => 8 + index;
export const nameOf = (index: number): string => `nic${index}`;

/** Bytes of what a read took. */
export interface EventRead {
  readonly asked: number;
  readonly got: number;
}

export class GapBench {
  readonly rig: Rig;
  readonly scheduler = new Scheduler();
  readonly memory = new Memory();
  readonly guest: ReferenceGuest;
  readonly ram: Uint8Array;
  /** Control calls since they were taken last, by name. */
  #calls: string[] = [];
  /** Reads of event queues since they were taken last. */
  #reads: EventRead[] = [];
  /** Callbacks of descriptors that are watched, as the host would call them. */
  readonly watched = new Map<Fd, () => void>();
  /** Interrupts of the event queue and of global errors, whether let through or not. */
  readonly interrupts = { eventq: 0, gerror: 0 };
  /** Interrupts reach the guest only while this is unset. */
  interruptsOff = false;
  /** The descriptor of the newest iommufd. */
  iommufd: Fd = -1;
  #machine: Machine;
  readonly #devices = new Map<number, TestDevice>();
  /** Grows with everything that happens. */
  #activity = 0;
  readonly #retries: (() => void)[] = [];

  constructor(rig: Rig, options: Partial<MachineOptions> = {}) {
    this.rig = rig;
    this.ram = rig.ram(RAM_SIZE);
    this.#machine = this.makeMachine(options);
    this.#machine.addRam(RAM, this.ram);
    const smmu = (): Smmu => this.#machine.smmu;
    this.guest = new ReferenceGuest({
      // Whichever SMMU it is now: a restore exchanges it under the guest.
      registers: {
        read: (offset, size) => smmu().read(offset, size),
        get readHi(): number {
          return smmu().readHi;
        },
        write: (offset, size, hi, lo) => smmu().write(offset, size, hi, lo),
      },
      memory: this.memory,
      ram: { base: RAM, size: BUFFERS - RAM },
      relax: () => void this.scheduler.run(),
      maxQueueBytes: 0x1000,
    });
  }

  get machine(): Machine {
    return this.#machine;
  }

  /** Goes on with another machine over the same guest. */
  set machine(machine: Machine) {
    this.#machine = machine;
    this.#devices.clear();
  }

  /** A machine over the same guest memory, without RAM for DMA and without devices. */
  makeMachine(options: Partial<MachineOptions> = {}): Machine {
    return new Machine({
      kernel: this.#kernel(this.rig.kernel),
      memory: this.memory,
      ids: GUEST_IDS,
      interrupts: {
        raise: (line) => {
          this.#activity += 1;
          if (line === 'eventq' || line === 'gerror') this.interrupts[line] += 1;
          if (!this.interruptsOff) this.scheduler.post(() => this.guest.handleInterrupt(line));
        },
        writeMsi: (hi, lo, data) => this.memory.store32(hi, lo, data) === 0,
      },
      scheduler: this.scheduler,
      later: (_milliseconds, task) => void this.#retries.push(task),
      ...options,
    });
  }

  /** Plugs the rig's device, and lets it do DMA. */
  plug(index = 0, machine = this.machine): void {
    const { fd } = machine.plug(nameOf(index), this.rig.devices[index].path, sidOf(index));
    this.adopt(index, fd);
  }

  /** Lets a device that is plugged already do DMA. @param fd of its VFIO device. */
  adopt(index: number, fd: Fd): void {
    const device = new TestDevice(this.rig.kernel, fd);
    device.enable();
    this.#devices.set(index, device);
  }

  unplug(index = 0): void {
    this.machine.unplug(nameOf(index));
    this.#devices.delete(index);
  }

  /** Tells the guest's driver of a device, if need be, and gives it a domain. */
  attach(index = 0): GuestDomain {
    const sid = sidOf(index);
    try {
      this.guest.device(sid);
    } catch {
      this.guest.addDevice({ sid, name: `0000:00:0${index + 1}.0` });
    }
    return this.guest.attach(sid);
  }

  /** System reset: the driver is gone without a word, and devices do DMA when they are told to. */
  reset(): void {
    this.guest.forget();
    this.machine.reset();
    for (const device of this.#devices.values()) device.enable();
  }

  /** A device writes four bytes. What follows from it is left to come. @returns whether the device says that it could. */
  dmaOnly(iova: bigint, index = 0): boolean {
    this.#activity += 1;
    const device = this.#devices.get(index);
    if (device === undefined) throw new Error(`device ${index} is not plugged`);
    return device.dma(iova, 0n) !== TX_FAIL;
  }

  /**
   * As {@link dmaOnly}, and then all comes to rest.
   * @param lands where in guest memory it arrives, if it does. @throws if it says so and did not, or the other way round.
   */
  dma(iova: bigint, index = 0, lands = BUFFERS): boolean {
    this.memory.store32(0, lands, 0);
    const done = this.dmaOnly(iova, index);
    this.settle();
    this.memory.load32(0, lands);
    const there = this.memory.lo >>> 0 === PATTERN;
    if (there !== done) throw new Error(`the device says ${done}, but the memory says ${there}`);
    return done;
  }

  /** Faults at consecutive pages. They have reached the host's queue, and no further, when this returns. */
  faults(count: number, iova: bigint, index = 0): void {
    for (let i = 0; i < count; i++)
      if (this.dmaOnly(iova + BigInt(i) * 0x1000n, index)) throw new Error('a DMA that should fault did not');
  }

  /** Lets everything that is under way come to rest. */
  settle(): void {
    let before: number;
    do {
      before = this.#activity;
      this.rig.settle();
      if (!this.scheduler.run()) throw new Error('the machine does not come to rest');
    } while (this.#activity !== before);
  }

  /** The time for which the machine waits before it tries again what the host refused is over. */
  retry(): void {
    for (const task of this.#retries.splice(0)) task();
    this.settle();
  }

  /** Names and addresses of the events that the guest has read, which forgets them. */
  takeEvents(): string[] {
    return this.guest.events
      .splice(0)
      .map(({ name, sid, iova }) => `${name} sid ${sid} iova 0x${iova.toString(16)}`);
  }

  takeCalls(): string[] {
    return this.#calls.splice(0);
  }

  takeReads(): EventRead[] {
    return this.#reads.splice(0);
  }

  /** GERROR that the guest has not acknowledged: 0 if there is no error. */
  get globalError(): number {
    const { smmu } = this.machine;
    return smmu.read(OFFSET.GERROR, 4) ^ smmu.read(OFFSET.GERRORN, 4);
  }

  /** Takes a host object away behind the accelerator's back, so that the host has a reason to refuse. */
  destroy(id: number | undefined): void {
    const errno = this.rig.kernel.ioctl(
      this.iommufd,
      IOMMU_DESTROY.request,
      IOMMU_DESTROY.encode({ id: id ?? 0 }),
    );
    if (errno !== 0) throw new Error(`IOMMU_DESTROY of ${id}: errno ${errno}`);
  }

  /** The host's kernel, of which everything is counted that a test looks at. */
  #kernel(kernel: Kernel): Kernel {
    const veventqs = this.watched;
    return {
      open: (path) => {
        const fd = kernel.open(path);
        if (path === '/dev/iommu') this.iommufd = fd;
        return fd;
      },
      close: (fd) => kernel.close(fd),
      ioctl: (fd, request, arg) => {
        this.#activity += 1;
        this.#calls.push(NAMES.get(request) ?? `0x${request.toString(16)}`);
        return kernel.ioctl(fd, request, arg);
      },
      read: (fd, into) => {
        this.#activity += 1;
        const got = kernel.read(fd, into);
        this.#reads.push({ asked: into.length, got });
        return got;
      },
      write: (fd, from) => kernel.write(fd, from),
      pread: (fd, into, offset) => kernel.pread(fd, into, offset),
      pwrite: (fd, from, offset) => kernel.pwrite(fd, from, offset),
      eventfd: () => kernel.eventfd(),
      onReadable: (fd, callback) => {
        veventqs.set(fd, callback);
        const watch = kernel.onReadable(fd, callback);
        return {
          stop: () => {
            veventqs.delete(fd);
            watch.stop();
          },
        };
      },
      userMemory: (bytes) => kernel.userMemory(bytes),
    };
  }
}

/** A machine with a driver, and a first device of which one page is mapped to {@link BUFFERS}. */
export function running(rig: Rig, iova: bigint, eventqLog2 = 4): { bench: GapBench; domain: GuestDomain } {
  const bench = new GapBench(rig);
  bench.plug();
  bench.guest.probe({ cmdqLog2: 8, eventqLog2 });
  const domain = bench.attach();
  domain.map(iova, BUFFERS, 0x1000);
  bench.settle();
  return { bench, domain };
}
