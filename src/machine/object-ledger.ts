/** Keeps account of the iommufd objects that calls on a kernel make and destroy: a real one does not list them. */

import type { Errno, Fd, Kernel, UserMemory, Watch } from '../iommufd/kernel.ts';
import * as iommufd from '../iommufd/uapi/iommufd.ts';
import { VFIO_DEVICE_BIND_IOMMUFD } from '../iommufd/uapi/vfio.ts';

/** As the embedded host names them. */
type ObjectKind =
  'ioas' | 'hwpt_paging' | 'hwpt_nested' | 'viommu' | 'vdevice' | 'veventq' | 'fault' | 'device';

interface Entry {
  readonly kind: ObjectKind;
  /** It goes when this descriptor is closed. */
  readonly endsWith?: Fd;
}

/** The objects of an open `/dev/iommu`, by id. */
type Context = Map<number, Entry>;

export class ObjectLedger implements Kernel {
  readonly #kernel: Kernel;
  /** By every descriptor that refers to it: it lives until the last of them is closed. */
  readonly #contexts = new Map<Fd, Context>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Live objects by kind, without the kinds of which there are none. */
  counts(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const objects of new Set(this.#contexts.values()))
      for (const { kind } of objects.values()) counts[kind] = (counts[kind] ?? 0) + 1;
    return counts;
  }

  open(path: string): Fd {
    return this.#kernel.open(path);
  }

  close(fd: Fd): Errno {
    const errno = this.#kernel.close(fd);
    const context = this.#contexts.get(fd);
    this.#contexts.delete(fd);
    for (const [id, { endsWith }] of context ?? []) if (endsWith === fd) context?.delete(id);
    return errno;
  }

  ioctl(fd: Fd, request: number, arg: Uint8Array): Errno {
    const errno = this.#kernel.ioctl(fd, request, arg);
    if (errno === 0) this.#note(fd, request, arg);
    return errno;
  }

  read(fd: Fd, into: Uint8Array): number {
    return this.#kernel.read(fd, into);
  }

  write(fd: Fd, from: Uint8Array): number {
    return this.#kernel.write(fd, from);
  }

  pread(fd: Fd, into: Uint8Array, offset: number): number {
    return this.#kernel.pread(fd, into, offset);
  }

  pwrite(fd: Fd, from: Uint8Array, offset: number): number {
    return this.#kernel.pwrite(fd, from, offset);
  }

  eventfd(): Fd {
    return this.#kernel.eventfd();
  }

  onReadable(fd: Fd, callback: () => void): Watch {
    return this.#kernel.onReadable(fd, callback);
  }

  userMemory(bytes: Uint8Array): UserMemory {
    return this.#kernel.userMemory(bytes);
  }

  #note(fd: Fd, request: number, arg: Uint8Array): void {
    switch (request) {
      case VFIO_DEVICE_BIND_IOMMUFD.request: {
        const { iommufd: of, out_devid } = VFIO_DEVICE_BIND_IOMMUFD.decode(arg);
        const context = this.#context(of);
        this.#contexts.set(fd, context);
        context.set(out_devid, { kind: 'device', endsWith: fd });
        break;
      }
      case iommufd.IOMMU_IOAS_ALLOC.request:
        this.#add(fd, iommufd.IOMMU_IOAS_ALLOC.get(arg, 'out_ioas_id'), 'ioas');
        break;
      case iommufd.IOMMU_HWPT_ALLOC.request: {
        const { out_hwpt_id, data_type } = iommufd.IOMMU_HWPT_ALLOC.decode(arg);
        this.#add(fd, out_hwpt_id, data_type === 0 ? 'hwpt_paging' : 'hwpt_nested');
        break;
      }
      case iommufd.IOMMU_VIOMMU_ALLOC.request:
        this.#add(fd, iommufd.IOMMU_VIOMMU_ALLOC.get(arg, 'out_viommu_id'), 'viommu');
        break;
      case iommufd.IOMMU_VDEVICE_ALLOC.request: {
        const { out_vdevice_id, dev_id } = iommufd.IOMMU_VDEVICE_ALLOC.decode(arg);
        const context = this.#context(fd);
        const device = context.get(dev_id);
        context.set(out_vdevice_id, {
          kind: 'vdevice',
          ...(device?.endsWith !== undefined && { endsWith: device.endsWith }),
        });
        break;
      }
      case iommufd.IOMMU_VEVENTQ_ALLOC.request: {
        const { out_veventq_id, out_veventq_fd } = iommufd.IOMMU_VEVENTQ_ALLOC.decode(arg);
        this.#add(fd, out_veventq_id, 'veventq', out_veventq_fd);
        break;
      }
      case iommufd.IOMMU_FAULT_QUEUE_ALLOC.request: {
        const { out_fault_id, out_fault_fd } = iommufd.IOMMU_FAULT_QUEUE_ALLOC.decode(arg);
        this.#add(fd, out_fault_id, 'fault', out_fault_fd);
        break;
      }
      case iommufd.IOMMU_DESTROY.request:
        this.#context(fd).delete(iommufd.IOMMU_DESTROY.get(arg, 'id'));
        break;
    }
  }

  /** @param holder a descriptor of the object itself. */
  #add(fd: Fd, id: number, kind: ObjectKind, holder?: Fd): void {
    const context = this.#context(fd);
    context.set(id, { kind });
    if (holder !== undefined) this.#contexts.set(holder, context);
  }

  #context(fd: Fd): Context {
    let context = this.#contexts.get(fd);
    if (context === undefined) {
      context = new Map();
      this.#contexts.set(fd, context);
    }
    return context;
  }
}
