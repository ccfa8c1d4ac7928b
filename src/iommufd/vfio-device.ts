import { HostError } from './errors.ts';
import type { Caller } from './call.ts';
import type { Iommufd } from './iommufd.ts';
import type { Fd } from './kernel.ts';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
} from './uapi/vfio.ts';

export interface RegionInfo {
  readonly flags: number;
  /** In bytes; 0 if the region is absent. */
  readonly size: number;
  /** Position of the region in the device's descriptor. */
  readonly offset: number;
}

/** A VFIO device by its own file. What it may reach by DMA is decided by what it is attached to; nothing, if detached. */
export class VfioDevice {
  readonly path: string;
  readonly fd: Fd;
  readonly #caller: Caller;
  #devid: number | undefined;
  #open = true;

  private constructor(caller: Caller, path: string, fd: Fd) {
    this.#caller = caller;
    this.path = path;
    this.fd = fd;
  }

  /** @param path such as /dev/vfio/devices/vfio0. @throws HostError */
  static open(caller: Caller, path: string): VfioDevice {
    return new VfioDevice(caller, path, caller.open(path));
  }

  /** Id of the device in the iommufd that it is bound to. */
  get devid(): number {
    if (this.#devid === undefined) throw new Error(`${this.path} is not bound to an iommufd yet`);
    return this.#devid;
  }

  /** Gives the device to an iommufd, until it is closed. All its DMA is blocked until it is attached. @throws HostError */
  bind(iommufd: Iommufd): void {
    const answer = this.#caller.ioctl(this.fd, VFIO_DEVICE_BIND_IOMMUFD, { iommufd: iommufd.fd });
    this.#devid = answer.out_devid;
  }

  /**
   * Attaches a page table, in place of the one that is attached, if any; attaching the same one again does nothing.
   * @throws HostError; what was attached before still is.
   */
  attach(hwptId: number): void {
    this.#caller.ioctl(this.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id: hwptId });
  }

  /** Blocks all DMA. Detaching twice is harmless. @throws HostError */
  detach(): void {
    this.#caller.ioctl(this.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, {});
  }

  /** @throws HostError */
  info(): { flags: number; numRegions: number; numIrqs: number } {
    const { flags, num_regions, num_irqs } = this.#caller.ioctl(this.fd, VFIO_DEVICE_GET_INFO, {});
    return { flags, numRegions: num_regions, numIrqs: num_irqs };
  }

  /** @throws HostError EINVAL if there is no such region. */
  regionInfo(index: number): RegionInfo {
    const { flags, size, offset } = this.#caller.ioctl(this.fd, VFIO_DEVICE_GET_REGION_INFO, { index });
    return { flags, size: Number(size), offset: Number(offset) };
  }

  /** @returns number of vectors of an interrupt index. @throws HostError EINVAL if there is no such index. */
  irqCount(index: number): number {
    return this.#caller.ioctl(this.fd, VFIO_DEVICE_GET_IRQ_INFO, { index }).count;
  }

  /**
   * Has vectors `start...` of an interrupt index signal these eventfds; -1 leaves a vector unconnected, and an empty
   * list turns the whole index off.
   * @throws HostError
   */
  setIrqs(index: number, start: number, eventfds: readonly Fd[]): void {
    const header = VFIO_DEVICE_SET_IRQS;
    const data = eventfds.length === 0 ? VFIO_IRQ_SET_DATA_NONE : VFIO_IRQ_SET_DATA_EVENTFD;
    const arg = header.encode(
      { flags: data | VFIO_IRQ_SET_ACTION_TRIGGER, index, start, count: eventfds.length },
      header.size + 4 * eventfds.length,
    );
    const payload = new DataView(arg.buffer, arg.byteOffset + header.size);
    for (const [i, fd] of eventfds.entries()) payload.setInt32(4 * i, fd, true);
    const errno = this.#caller.kernel.ioctl(this.fd, header.request, arg);
    this.#caller.observer?.({
      operation: header.ioctl,
      given: { index, start, eventfds },
      returned: {},
      errno,
    });
    if (errno !== 0) throw HostError.of(errno, header.ioctl);
  }

  /** Resets the function; its attachment stays. @throws HostError EINVAL if it cannot be reset. */
  reset(): void {
    this.#caller.ioctl(this.fd, VFIO_DEVICE_RESET, {});
  }

  /** Reads a region. @returns bytes, or a negative errno. */
  read(region: RegionInfo, offset: number, into: Uint8Array): number {
    return this.#caller.kernel.pread(this.fd, into, region.offset + offset);
  }

  /** Writes a region. @returns bytes, or a negative errno. */
  write(region: RegionInfo, offset: number, from: Uint8Array): number {
    return this.#caller.kernel.pwrite(this.fd, from, region.offset + offset);
  }

  /** Detaches, unbinds and closes. Closing twice is harmless. */
  close(): void {
    if (this.#open) this.#caller.close(this.fd);
    this.#open = false;
  }
}
