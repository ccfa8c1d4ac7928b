/**
 * The embedded host: a Linux in this process, as far as iommufd and vfio-pci go, on a machine with SMMUs and PCI
 * functions of our own. It answers the {@link Kernel} port; everything else here is what a person would do to the
 * machine: put SMMUs and devices in, read the kernel's log.
 */

import { IOMMUFD_PATH } from '../../iommufd/iommufd.ts';
import type { Errno, Fd, Kernel, UserMemory, Watch } from '../../iommufd/kernel.ts';
import { ERRNO } from '../../iommufd/uapi/errno.ts';
import type { Memory } from '../../memory/memory.ts';
import { identificationProblems } from '../../smmu/identification-rules.ts';
import type { IdRegisters } from '../../smmu/identification.ts';
import { ArmSmmu } from './arm-smmu-v3/arm-smmu.ts';
import { driverProblems } from './arm-smmu-v3/driver-needs.ts';
import { EventFd } from './eventfd.ts';
import { FileTable, type OpenFile, POLLNVAL } from './file.ts';
import { HostMemory } from './host-memory.ts';
import { IoctlFaults } from './ioctl-faults.ts';
import { IommuGroup } from './iommufd/bound-device.ts';
import type { IommufdContext } from './iommufd/context.ts';
import { IommufdFile } from './iommufd/iommufd-file.ts';
import { VeventqFile } from './iommufd/veventq.ts';
import { KernelLog } from './kernel-log.ts';
import { KERNEL_VERSIONS, type KernelName } from './kernel-versions.ts';
import { DOORBELL, MsiController } from './msi.ts';
import type { PciFunction } from './pci-function.ts';
import { PciSlot } from './pci-slot.ts';
import { bytesSink, UserSpace } from './user-space.ts';
import { VfioFile } from './vfio-cdev.ts';

const DEFAULT_FD_LIMIT = 1024;
const O_RDWR = 0x2;

export interface SimHostOptions {
  /** Runs a task later, in order, and never from inside this call. */
  readonly schedule: (task: () => void) => void;
  /** Milliseconds for the log's rate limit; without it time stands still. */
  readonly now?: () => number;
  /**
   * Called when a call is made to take time ({@link IoctlFault.delayMs}): the host is synchronous, so whoever gives it
   * `now` lets that go on by as many milliseconds, and does what else happens meanwhile; no calls of this host.
   */
  readonly sleep?: (ms: number) => void;
  /** Told every line of the kernel's log. */
  readonly log?: (line: string) => void;
  /** Told every ioctl after it was answered; `arg` holds the outputs and must be copied to be kept. */
  readonly onIoctl?: (fd: Fd, request: number, arg: Uint8Array, errno: Errno) => void;
  /**
   * `translated`: as on real hardware, a message-signalled interrupt is a write to the SW_MSI window that the device's
   * SMMU translates, so that a guest has to map that window to itself. `direct`: it reaches its eventfd regardless.
   * Default `direct`.
   */
  readonly msi?: 'translated' | 'direct';
  /** Which Linux; default 7.3. What differs is in {@link KERNEL_VERSIONS}. */
  readonly kernel?: KernelName;
  /** RLIMIT_NOFILE; default 1024. */
  readonly fdLimit?: number;
}

export interface SmmuDescription {
  /** As in the kernel's log: `3e000000.smmuv3`. */
  readonly name: string;
  readonly ids: IdRegisters;
  /** log2 of the entries of its TLB, 4..20; by default a large one. */
  readonly log2TlbEntries?: number;
  /**
   * Its driver hands page requests (IDR0.PRI) to FAULT_QUEUEs. **Not Linux 7.3**, which denies them all: this is a host
   * that does not exist yet, for what such a one would make possible. Default false.
   */
  readonly pageRequests?: boolean;
}

export interface DeviceDescription {
  /** Such as `/dev/vfio/devices/vfio0`. */
  readonly path: string;
  /** PCI address, such as `0000:01:00.0`. */
  readonly address: string;
  readonly smmu: ArmSmmu;
  /** Physical StreamID, or all of a device that has several. */
  readonly sid: number | readonly number[];
  readonly function: PciFunction;
  /** Another device that the hardware cannot keep apart from this one. */
  readonly groupWith?: PciSlot;
  /** The device and its root complex can use ATS; default false. */
  readonly ats?: boolean;
  /** Bits of PASID that the device can send; default 0. */
  readonly pasidBits?: number;
  /** Its faults may stall, if the SMMU's can; default false. PCIe devices cannot wait, others can. */
  readonly stalls?: boolean;
  /** The firmware marks it dma-can-stall, without which the kernel never resumes what it stalls; default as `stalls`. */
  readonly dmaCanStall?: boolean;
  /** It asks for pages (PCIe PRI) instead of faulting, while its ATS is on; default false. */
  readonly pageRequests?: boolean;
  /** No-Snoop cannot break coherency (IORT's memory access flags); default true. */
  readonly canwbs?: boolean;
}

/** One live object, for leak checks. */
export interface ObjectSnapshot {
  /** Which iommufd, in the order of their opening, from 0. */
  readonly iommufd: number;
  readonly id: number;
  readonly type: string;
  readonly users: number;
}

export class SimHost implements Kernel {
  /** Faults that tests inject. */
  readonly faults: IoctlFaults;
  readonly #user = new UserSpace();
  readonly #memory = new HostMemory();
  readonly #msi = new MsiController(this.#memory);
  readonly #log: KernelLog;
  readonly #files: FileTable;
  readonly #options: SimHostOptions;
  readonly #smmus: ArmSmmu[] = [];
  readonly #slots = new Map<string, PciSlot>();
  readonly #contexts: IommufdContext[] = [];

  constructor(options: SimHostOptions) {
    this.#options = options;
    this.faults = new IoctlFaults(options.sleep);
    this.#log = new KernelLog(options.log);
    this.#files = new FileTable(options.schedule, options.fdLimit ?? DEFAULT_FD_LIMIT);
  }

  /** Adds a physical SMMU and starts its driver. @throws RangeError if it cannot exist, or Linux could not drive it. */
  addSmmu({ name, ids, log2TlbEntries, pageRequests }: SmmuDescription): ArmSmmu {
    const problems = [...identificationProblems(ids), ...driverProblems(ids)];
    if (problems.length > 0) throw new RangeError(`${name}: ${problems.join(' ')}`);
    const now = this.#options.now ?? (() => 0);
    const smmu = new ArmSmmu({
      name,
      ids,
      host: this.#memory,
      log: this.#log,
      now,
      log2TlbEntries,
      handOverPageRequests: pageRequests === true,
    });
    this.#smmus.push(smmu);
    return smmu;
  }

  /** Plugs a device in, bound to vfio-pci. @throws RangeError if its path or StreamID is taken or impossible. */
  addDevice(device: DeviceDescription): PciSlot {
    const sids = typeof device.sid === 'number' ? [device.sid] : device.sid;
    if (this.#slots.has(device.path)) throw new RangeError(`${device.path} is taken`);
    if (sids.length === 0) throw new RangeError(`${device.path} needs a StreamID`);
    for (const sid of sids)
      if (!device.smmu.canHold(sid))
        throw new RangeError(`StreamID 0x${sid.toString(16)} is taken, or more than ${device.smmu.name} has`);
    const slot = new PciSlot(
      {
        path: device.path,
        address: device.address,
        smmu: device.smmu,
        sids,
        function: device.function,
        group: device.groupWith?.group ?? new IommuGroup(),
        ats: device.ats === true,
        pasidBits: device.pasidBits ?? 0,
        canwbs: device.canwbs !== false,
        stalls: device.stalls === true,
        pageRequests: device.pageRequests === true,
        dmaCanStall: device.dmaCanStall ?? device.stalls === true,
        msi: this.#msi,
        translateMsi: this.#options.msi === 'translated',
      },
      DOORBELL,
    );
    this.#slots.set(device.path, slot);
    return slot;
  }

  /**
   * Asks for a device to be pulled out: it can no longer be opened, and whoever has it open is told through its request
   * interrupt. It is gone when the last descriptor is closed.
   * @returns whether it is gone already.
   */
  removeDevice(path: string): boolean {
    const slot = this.#slots.get(path);
    if (slot === undefined) return true;
    slot.leaving = true;
    if (slot.openCount > 0) {
      slot.requestRelease();
      return false;
    }
    this.#slots.delete(path);
    slot.smmu.removeMaster(slot.master);
    return true;
  }

  device(path: string): PciSlot | undefined {
    return this.#slots.get(path);
  }

  /** The kernel's log, without time stamps. */
  get dmesg(): readonly string[] {
    return this.#log.lines;
  }

  /** Physical memory of the host: guests' buffers are in it while they are pinned. */
  get physicalMemory(): Memory {
    return this.#memory.memory;
  }

  /** Physical address of a user buffer's first byte while it is pinned, else undefined. */
  physicalAddress(bytes: Uint8Array): bigint | undefined {
    const address = this.#memory.addressOf(bytes);
    return address === undefined ? undefined : BigInt(address);
  }

  /** Number of open descriptors. */
  get openFiles(): number {
    return this.#files.size;
  }

  /** Every object that is alive, in every iommufd ever opened. */
  snapshotOfObjects(): ObjectSnapshot[] {
    return this.#contexts.flatMap((context, iommufd) =>
      [...context.objects.all()].map(({ id, type, users }) => ({ iommufd, id, type, users })),
    );
  }

  /** For tests: the number that the next event of a vEVENTQ gets. */
  setNextEventSequence(fd: Fd, sequence: number): void {
    const file = this.#files.get(fd);
    if (file instanceof VeventqFile) file.queue.setNextSequence(sequence);
  }

  open(path: string): Fd {
    if (path === IOMMUFD_PATH) {
      const file = new IommufdFile({
        version: KERNEL_VERSIONS[this.#options.kernel ?? '7.3'],
        user: this.#user,
        memory: this.#memory,
        openFile: (opened) => this.#files.open(opened),
        isOpen: (fd) => this.#files.get(fd) !== undefined,
      });
      const fd = this.#files.open(file);
      if (fd >= 0) this.#contexts.push(file.context);
      return fd;
    }
    const slot = this.#slots.get(path);
    if (slot === undefined || slot.leaving) return -ERRNO.ENOENT;
    const file = new VfioFile(slot, {
      file: (fd) => this.#files.get(fd),
      closed: () => this.#deviceClosed(slot),
    });
    slot.openCount += 1;
    const fd = this.#files.open(file);
    if (fd < 0) slot.openCount -= 1;
    return fd;
  }

  close(fd: Fd): Errno {
    const errno = this.#files.close(fd);
    this.#settle();
    return errno;
  }

  ioctl(fd: Fd, request: number, arg: Uint8Array): Errno {
    const file = this.#files.get(fd);
    let errno: Errno = ERRNO.EBADF;
    if (file !== undefined) {
      errno = this.faults.take(request);
      if (errno === 0) errno = file.ioctl(request, arg);
      this.#settle();
    }
    this.#options.onIoctl?.(fd, request, arg, errno);
    return errno;
  }

  read(fd: Fd, into: Uint8Array): number {
    return this.#with(fd, (file) => file.read(bytesSink(into), into.length));
  }

  /** As {@link read}, to a user address that may be bad. */
  readTo(fd: Fd, address: bigint, count: number): number {
    return this.#with(fd, (file) => file.read(this.#user.sink(address), count));
  }

  write(fd: Fd, from: Uint8Array): number {
    return this.#with(fd, (file) => file.write(from));
  }

  pread(fd: Fd, into: Uint8Array, offset: number): number {
    return this.#with(fd, (file) => file.pread(into, offset));
  }

  pwrite(fd: Fd, from: Uint8Array, offset: number): number {
    return this.#with(fd, (file) => file.pwrite(from, offset));
  }

  /** Pending POLLIN and POLLOUT, or POLLNVAL. */
  poll(fd: Fd): number {
    return this.#files.get(fd)?.poll() ?? POLLNVAL;
  }

  /** lseek(2): nothing here has a position. */
  lseek(fd: Fd): number {
    return this.#files.get(fd) === undefined ? -ERRNO.EBADF : -ERRNO.ESPIPE;
  }

  /** F_GETFD and F_GETFL of an open descriptor: all are close-on-exec and O_RDWR. */
  flags(_fd: Fd): { readonly closeOnExec: boolean; readonly status: number } {
    return { closeOnExec: true, status: O_RDWR };
  }

  eventfd(): Fd {
    return this.#files.open(new EventFd());
  }

  onReadable(fd: Fd, callback: () => void): Watch {
    return this.#files.watch(fd, callback);
  }

  userMemory(bytes: Uint8Array): UserMemory {
    return this.#user.register(bytes);
  }

  #with(fd: Fd, use: (file: OpenFile) => number): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    const result = use(file);
    this.#settle();
    return result;
  }

  /** Lets the SMMUs' interrupts be handled, now that no call is under way in them. */
  #settle(): void {
    for (const smmu of this.#smmus) smmu.handleInterrupts();
  }

  #deviceClosed(slot: PciSlot): void {
    slot.openCount -= 1;
    if (slot.leaving && slot.openCount === 0) this.removeDevice(slot.path);
  }
}
