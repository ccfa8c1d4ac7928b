/**
 * A kernel between the machine and the host that sees every call: it keeps its own account of what exists and what is
 * attached, remembers what the host refused, and refuses calls itself where it is told to.
 */

import { IOMMUFD_PATH } from '../iommufd/iommufd.ts';
import type { Errno, Fd, Kernel, UserMemory, Watch } from '../iommufd/kernel.ts';
import { COMMAND_WORDS } from '../spec/commands.ts';
import { blameLast } from './blame-last.ts';
import { HostCaches, wordsOf } from './host-caches.ts';
import { errnoName, ERRNO, type ErrnoName } from '../iommufd/uapi/errno.ts';
import {
  IOMMU_DESTROY,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_IOAS_ALLOC,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VIOMMU_ALLOC,
  IOMMUFD_IOCTLS,
} from '../iommufd/uapi/iommufd.ts';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_IOCTLS,
} from '../iommufd/uapi/vfio.ts';

const NAMES = new Map<number, string>(
  [...IOMMUFD_IOCTLS, ...VFIO_IOCTLS].map(({ request, ioctl }) => [request, ioctl]),
);

/** An object as the calls tell of it. `table` is words 0 and 1 of the STE of a nested HWPT, as text. */
export interface SeenObject {
  readonly kind: 'ioas' | 'hwpt_paging' | 'hwpt_nested' | 'viommu' | 'vdevice' | 'veventq';
  readonly table?: string;
  /** vDEVICE: its StreamID. vEVENTQ: its depth. */
  readonly value?: number;
}

/** A call that is to fail: the nth of its kind, from 1. */
export interface Failure {
  readonly ioctl: string;
  readonly nth: number;
  readonly errno: ErrnoName;
}

interface Armed {
  readonly ioctl: string;
  readonly errno: Errno;
  left: number;
}

export class WatchedKernel implements Kernel {
  readonly #host: Kernel;
  /** What the host may have cached. */
  readonly caches = new HostCaches();
  /** By id. A device is not in here: it lives as long as its file. */
  readonly objects = new Map<number, SeenObject>();
  /** Open files by descriptor: the path, or what they are. */
  readonly files = new Map<Fd, string>();
  /** The HWPT that each bound device is attached to, by descriptor; 0 if it is to none. */
  readonly attached = new Map<Fd, number>();
  /** The object of a vEVENTQ's or device's descriptor. */
  readonly #idOf = new Map<Fd, number>();
  /** vDEVICEs by the device that they go away with. */
  readonly #vdeviceOf = new Map<number, number>();
  readonly #bytes = new Map<bigint, Uint8Array>();
  #armed: Armed[] = [];
  /** Names of the ioctls since {@link forget}. */
  ioctls: string[] = [];
  /** What the host refused and should not have had to, since {@link forget}. */
  refusals: string[] = [];
  /** Calls that failed because they were told to, since {@link forget}. */
  failed = 0;
  /** Called before and after each ioctl, and before and after a descriptor is closed. */
  between: (() => void) | undefined;

  constructor(host: Kernel) {
    this.#host = host;
  }

  /** Forgets the calls so far, and which were to fail. */
  forget(): void {
    this.ioctls = [];
    this.refusals = [];
    this.failed = 0;
    this.#armed = [];
  }

  /** Has a call fail; it is counted from now. */
  fail({ ioctl, nth, errno }: Failure): void {
    this.#armed.push({ ioctl, errno: ERRNO[errno], left: nth });
  }

  open(path: string): Fd {
    const fd = this.#host.open(path);
    if (fd < 0) this.#refused(`open ${path}`, -fd);
    else this.files.set(fd, path);
    return fd;
  }

  close(fd: Fd): Errno {
    this.between?.();
    const errno = this.#close(fd);
    this.between?.();
    return errno;
  }

  #close(fd: Fd): Errno {
    const errno = this.#host.close(fd);
    if (errno !== 0) this.#refused(`close ${this.files.get(fd) ?? fd}`, errno);
    const path = this.files.get(fd);
    this.files.delete(fd);
    if (this.attached.delete(fd)) this.caches.installed(path ?? '');
    const id = this.#idOf.get(fd);
    this.#idOf.delete(fd);
    if (id !== undefined && path !== 'veventq') {
      // A vDEVICE does not outlive the binding of its device.
      const vdevice = this.#vdeviceOf.get(id);
      if (vdevice !== undefined) this.objects.delete(vdevice);
      this.#vdeviceOf.delete(id);
    }
    // Objects live as long as `/dev/iommu`, or a queue of it, is open.
    if (![...this.files.values()].some((file) => file === IOMMUFD_PATH || file === 'veventq'))
      this.#allGone();
    return errno;
  }

  ioctl(fd: Fd, request: number, arg: Uint8Array): Errno {
    this.between?.();
    const errno = this.#ioctl(fd, request, arg);
    this.between?.();
    return errno;
  }

  #ioctl(fd: Fd, request: number, arg: Uint8Array): Errno {
    const name = NAMES.get(request) ?? `ioctl 0x${request.toString(16)}`;
    this.ioctls.push(name);
    const ordered = this.#take(name);
    if (ordered !== 0) {
      this.failed += 1;
      if (request === IOMMU_HWPT_INVALIDATE.request) blameLast(arg);
      return ordered;
    }
    const errno = this.#host.ioctl(fd, request, arg);
    if (errno === 0) this.#account(fd, request, arg);
    else this.#refused(name, errno);
    return errno;
  }

  read(fd: Fd, into: Uint8Array): number {
    const count = this.#host.read(fd, into);
    if (count < 0) this.#refused(`read ${this.files.get(fd) ?? fd}`, -count);
    return count;
  }

  write(fd: Fd, from: Uint8Array): number {
    return this.#host.write(fd, from);
  }

  pread(fd: Fd, into: Uint8Array, offset: number): number {
    return this.#host.pread(fd, into, offset);
  }

  pwrite(fd: Fd, from: Uint8Array, offset: number): number {
    return this.#host.pwrite(fd, from, offset);
  }

  eventfd(): Fd {
    const fd = this.#host.eventfd();
    if (fd >= 0) this.files.set(fd, 'eventfd');
    return fd;
  }

  onReadable(fd: Fd, callback: () => void): Watch {
    if (!this.files.has(fd)) this.refusals.push(`descriptor ${fd} is watched, and not open`);
    return this.#host.onReadable(fd, callback);
  }

  userMemory(bytes: Uint8Array): UserMemory {
    const memory = this.#host.userMemory(bytes);
    this.#bytes.set(memory.address, bytes);
    return memory;
  }

  /** Number of live objects of a kind. */
  count(kind: SeenObject['kind']): number {
    let count = 0;
    for (const object of this.objects.values()) if (object.kind === kind) count += 1;
    return count;
  }

  /** What the device with this path is attached to: the STE as text, `paging`, `nothing`, or undefined if not open. */
  attachmentOf(path: string): string | undefined {
    for (const [fd, file] of this.files)
      if (file === path) {
        const object = this.objects.get(this.attached.get(fd) ?? 0);
        return object === undefined ? 'nothing' : (object.table ?? 'paging');
      }
    return undefined;
  }

  #refused(what: string, errno: Errno): void {
    this.refusals.push(`${what}: ${errnoName(errno)}`);
  }

  #take(name: string): Errno {
    let errno = 0;
    for (const armed of this.#armed) {
      if (armed.ioctl !== name || armed.left === 0) continue;
      armed.left -= 1;
      if (armed.left === 0) errno = armed.errno;
    }
    return errno;
  }

  #account(fd: Fd, request: number, arg: Uint8Array): void {
    switch (request) {
      case IOMMU_IOAS_ALLOC.request:
        this.objects.set(IOMMU_IOAS_ALLOC.decode(arg).out_ioas_id, { kind: 'ioas' });
        break;
      case IOMMU_HWPT_ALLOC.request: {
        const { out_hwpt_id, data_type, data_uptr } = IOMMU_HWPT_ALLOC.decode(arg);
        const nested = data_type === IOMMU_HWPT_DATA_ARM_SMMUV3;
        this.objects.set(
          out_hwpt_id,
          nested ? { kind: 'hwpt_nested', table: this.#words(data_uptr) } : { kind: 'hwpt_paging' },
        );
        break;
      }
      case IOMMU_VIOMMU_ALLOC.request:
        this.objects.set(IOMMU_VIOMMU_ALLOC.decode(arg).out_viommu_id, { kind: 'viommu' });
        break;
      case IOMMU_VDEVICE_ALLOC.request: {
        const { out_vdevice_id, dev_id, virt_id } = IOMMU_VDEVICE_ALLOC.decode(arg);
        this.objects.set(out_vdevice_id, { kind: 'vdevice', value: Number(virt_id) });
        this.#vdeviceOf.set(dev_id, out_vdevice_id);
        break;
      }
      case IOMMU_VEVENTQ_ALLOC.request: {
        const { out_veventq_id, out_veventq_fd, veventq_depth } = IOMMU_VEVENTQ_ALLOC.decode(arg);
        this.objects.set(out_veventq_id, { kind: 'veventq', value: veventq_depth });
        this.files.set(out_veventq_fd, 'veventq');
        this.#idOf.set(out_veventq_fd, out_veventq_id);
        break;
      }
      case IOMMU_DESTROY.request:
        this.#destroyed(IOMMU_DESTROY.decode(arg).id);
        break;
      case IOMMU_HWPT_INVALIDATE.request: {
        const { data_uptr, entry_num } = IOMMU_HWPT_INVALIDATE.decode(arg);
        const bytes = this.#bytes.get(data_uptr);
        if (bytes === undefined) break;
        const words = wordsOf(bytes, entry_num);
        for (let at = 0; at < words.length; at += COMMAND_WORDS)
          this.caches.invalidated(words, at, (vsid) => this.#pathOfVsid(vsid));
        break;
      }
      case VFIO_DEVICE_BIND_IOMMUFD.request:
        this.#idOf.set(fd, VFIO_DEVICE_BIND_IOMMUFD.decode(arg).out_devid);
        this.attached.set(fd, 0);
        break;
      case VFIO_DEVICE_ATTACH_IOMMUFD_PT.request:
        this.attached.set(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT.decode(arg).pt_id);
        this.caches.installed(this.files.get(fd) ?? '');
        break;
      case VFIO_DEVICE_DETACH_IOMMUFD_PT.request:
        this.attached.set(fd, 0);
        this.caches.installed(this.files.get(fd) ?? '');
        break;
      default:
    }
  }

  #allGone(): void {
    this.objects.clear();
    this.caches.stage2Gone();
  }

  /** An id that is free may be another object's soon. */
  #destroyed(id: number): void {
    if (this.objects.get(id)?.kind === 'hwpt_paging') this.caches.stage2Gone();
    this.objects.delete(id);
    for (const [device, vdevice] of this.#vdeviceOf) if (vdevice === id) this.#vdeviceOf.delete(device);
  }

  #pathOfVsid(vsid: number): string | undefined {
    for (const [fd, path] of this.files) {
      const vdevice = this.#vdeviceOf.get(this.#idOf.get(fd) ?? 0);
      if (vdevice !== undefined && this.objects.get(vdevice)?.value === vsid) return path;
    }
    return undefined;
  }

  #words(address: bigint): string {
    const bytes = this.#bytes.get(address);
    if (bytes === undefined) return 'unknown';
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    return [0, 4, 8, 12].map((at) => view.getUint32(at, true).toString(16)).join(':');
  }
}
