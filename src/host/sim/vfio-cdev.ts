/** An open `/dev/vfio/devices/vfioN`. */

import type { Errno, Fd } from '../../iommufd/kernel.ts';
import { ERRNO } from '../../iommufd/uapi/errno.ts';
import type { Ioctl, Members, Values } from '../../iommufd/uapi/struct.ts';
import * as vfio from '../../iommufd/uapi/vfio.ts';
import { OpenFile } from './file.ts';
import { HOST_PAGE_SIZE } from './host-memory.ts';
import { BoundDevice, SW_MSI_WINDOW } from './iommufd/bound-device.ts';
import type { IommufdContext } from './iommufd/context.ts';
import { IommufdFile } from './iommufd/iommufd-file.ts';
import { HwptNested, HwptPaging } from './iommufd/hwpt.ts';
import { Ioas } from './iommufd/ioas.ts';
import { DOORBELL, DOORBELL_PAGE } from './msi.ts';
import type { PciSlot } from './pci-slot.ts';
import { setIrqs } from './vfio-irqs.ts';
import { regionAt, regionRead, regionWrite } from './vfio-regions.ts';
import type { UserSink } from './user-space.ts';

export interface VfioPorts {
  /** The open file behind a descriptor. */
  file(fd: Fd): OpenFile | undefined;
  /** The last thing that a closing device does. */
  closed(slot: PciSlot): void;
}

export class VfioFile extends OpenFile {
  readonly slot: PciSlot;
  readonly #ports: VfioPorts;
  #device: BoundDevice | undefined;
  #context: IommufdContext | undefined;

  constructor(slot: PciSlot, ports: VfioPorts) {
    super();
    this.slot = slot;
    this.#ports = ports;
  }

  override ioctl(request: number, arg: Uint8Array): Errno {
    if (request === vfio.VFIO_DEVICE_BIND_IOMMUFD.request) return this.#bind(arg);
    // Nothing else works before the device is bound.
    const device = this.#device;
    if (device === undefined) return ERRNO.EINVAL;
    switch (request) {
      case vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT.request:
        return this.#attach(device, arg);
      case vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT.request:
        return detach(device, arg);
      case vfio.VFIO_DEVICE_GET_INFO.request:
        return respond(vfio.VFIO_DEVICE_GET_INFO, arg, () => ({
          flags: vfio.VFIO_DEVICE_FLAGS_PCI | vfio.VFIO_DEVICE_FLAGS_RESET,
          num_regions: vfio.VFIO_PCI_NUM_REGIONS,
          num_irqs: vfio.VFIO_PCI_NUM_IRQS,
          cap_offset: 0,
        }));
      case vfio.VFIO_DEVICE_GET_REGION_INFO.request:
        return respond(vfio.VFIO_DEVICE_GET_REGION_INFO, arg, ({ index }) => this.#regionInfo(index));
      case vfio.VFIO_DEVICE_GET_IRQ_INFO.request:
        return respond(vfio.VFIO_DEVICE_GET_IRQ_INFO, arg, ({ index }) => this.#irqInfo(index));
      case vfio.VFIO_DEVICE_SET_IRQS.request:
        return setIrqs(this.slot, arg, {
          file: (fd) => this.#ports.file(fd),
          messagesStart: () => this.#placeDoorbell(),
        });
      case vfio.VFIO_DEVICE_FEATURE.request:
        return feature(arg);
      case vfio.VFIO_DEVICE_RESET.request:
        this.slot.function.reset();
        return 0;
      default:
        return ERRNO.ENOTTY;
    }
  }

  override pread(into: Uint8Array, offset: number): number {
    return this.#device === undefined ? -ERRNO.EINVAL : regionRead(this.slot.function, into, offset);
  }

  override pwrite(from: Uint8Array, offset: number): number {
    return this.#device === undefined ? -ERRNO.EINVAL : regionWrite(this.slot.function, from, offset);
  }

  override read(into: UserSink, count: number): number {
    if (this.#device === undefined) return -ERRNO.EINVAL;
    const bytes = new Uint8Array(Math.min(count, HOST_PAGE_SIZE));
    const done = regionRead(this.slot.function, bytes, 0);
    if (done <= 0) return done;
    return into.copyOut(0, bytes.subarray(0, done)) ? done : -ERRNO.EFAULT;
  }

  override release(): void {
    const { slot } = this;
    if (this.#device !== undefined) {
      slot.disableIrqs();
      for (const index of [vfio.VFIO_PCI_ERR_IRQ_INDEX, vfio.VFIO_PCI_REQ_IRQ_INDEX])
        slot.clearVectors(index);
      slot.function.reset();
      this.#device.unbind();
      this.#device = undefined;
      slot.bound = false;
      this.#context?.unpin();
    }
    this.#ports.closed(slot);
  }

  #bind(arg: Uint8Array): Errno {
    const ioctl = vfio.VFIO_DEVICE_BIND_IOMMUFD;
    const bad = checkArgsz(ioctl, arg);
    if (bad !== 0) return bad;
    const values = ioctl.decode(arg);
    if (values.iommufd < 0 || (values.flags & ~vfio.VFIO_DEVICE_BIND_FLAG_TOKEN) !== 0) return ERRNO.EINVAL;
    if (this.slot.bound) return ERRNO.EINVAL;
    const file = this.#ports.file(values.iommufd);
    if (file === undefined) return ERRNO.EBADF;
    if (!(file instanceof IommufdFile)) return ERRNO.EBADFD;
    const { context } = file;
    context.pin();
    this.#context = context;
    this.slot.bound = true;
    this.#device = new BoundDevice({
      master: this.slot.master,
      group: this.slot.group,
      objects: context.objects,
      msiDomainChanged: (hwpt) => this.#msiDomainChanged(hwpt),
    });
    context.objects.add(this.#device);
    ioctl.set(arg, 'out_devid', this.#device.id);
    return 0;
  }

  #attach(device: BoundDevice, arg: Uint8Array): Errno {
    const ioctl = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
    const bad = checkArgsz(ioctl, arg);
    if (bad !== 0) return bad;
    const values = ioctl.decode(arg);
    // No device here has PASIDs of the kernel's own.
    if (values.flags !== 0) return ERRNO.EINVAL;
    const target = this.#context?.objects.get(values.pt_id);
    if (target === undefined) return ERRNO.ENOENT;
    if (!(target instanceof Ioas) && !(target instanceof HwptPaging) && !(target instanceof HwptNested))
      return ERRNO.EINVAL;
    const errno = device.attach(target);
    if (errno === 0) ioctl.set(arg, 'pt_id', device.hwpt?.id ?? 0);
    return errno;
  }

  #regionInfo(index: number): Partial<Values<typeof vfio.VFIO_DEVICE_GET_REGION_INFO.members>> | Errno {
    if (index >= vfio.VFIO_PCI_NUM_REGIONS) return ERRNO.EINVAL;
    const size = this.slot.function.regionSizes[index] ?? 0;
    // The VGA region exists only for graphics cards.
    if (index === vfio.VFIO_PCI_VGA_REGION_INDEX && size === 0) return ERRNO.EINVAL;
    const access =
      index === vfio.VFIO_PCI_ROM_REGION_INDEX
        ? vfio.VFIO_REGION_INFO_FLAG_READ
        : vfio.VFIO_REGION_INFO_FLAG_READ | vfio.VFIO_REGION_INFO_FLAG_WRITE;
    return {
      flags: size > 0 ? access : 0,
      cap_offset: 0,
      size: BigInt(size),
      offset: BigInt(regionAt(index)),
    };
  }

  #irqInfo(index: number): Partial<Values<typeof vfio.VFIO_DEVICE_GET_IRQ_INFO.members>> | Errno {
    if (index >= vfio.VFIO_PCI_NUM_IRQS) return ERRNO.EINVAL;
    const intx = index === vfio.VFIO_PCI_INTX_IRQ_INDEX;
    return {
      flags:
        vfio.VFIO_IRQ_INFO_EVENTFD |
        (intx ? vfio.VFIO_IRQ_INFO_MASKABLE | vfio.VFIO_IRQ_INFO_AUTOMASKED : vfio.VFIO_IRQ_INFO_NORESIZE),
      count: this.slot.function.irqCounts[index] ?? 0,
    };
  }

  /**
   * Message interrupts are being set up: the doorbell is where the device's domain shows it.
   * @returns ENOSPC without a domain: where all DMA is blocked there is no place for it.
   */
  #placeDoorbell(): Errno {
    const iova = this.#mapDoorbell(this.#device?.hwpt);
    this.slot.doorbell = iova ?? DOORBELL;
    return iova === undefined ? ERRNO.ENOSPC : 0;
  }

  #msiDomainChanged(hwpt: HwptPaging): void {
    const usesMessages =
      this.slot.vectorsOf(vfio.VFIO_PCI_MSI_IRQ_INDEX).length > 0 ||
      this.slot.vectorsOf(vfio.VFIO_PCI_MSIX_IRQ_INDEX).length > 0;
    if (usesMessages) this.#mapDoorbell(hwpt);
  }

  /** Shows the doorbell's page in the SW_MSI window. @returns the doorbell's IOVA, or undefined without a domain. */
  #mapDoorbell(hwpt: HwptPaging | HwptNested | undefined): number | undefined {
    const context = this.#context;
    if (hwpt === undefined || context === undefined) return undefined;
    const paging = hwpt instanceof HwptPaging ? hwpt : hwpt.viommu.parent;
    let page = context.doorbells.indexOf(DOORBELL_PAGE);
    if (page < 0) page = context.doorbells.push(DOORBELL_PAGE) - 1;
    const iova = Number(SW_MSI_WINDOW.start) + page * HOST_PAGE_SIZE;
    const access = { read: true, write: true, device: true };
    paging.domain.map(iova, DOORBELL_PAGE, HOST_PAGE_SIZE, access, false);
    return iova + (DOORBELL - DOORBELL_PAGE);
  }
}

function detach(device: BoundDevice, arg: Uint8Array): Errno {
  const ioctl = vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT;
  const bad = checkArgsz(ioctl, arg);
  if (bad !== 0) return bad;
  if (ioctl.decode(arg).flags !== 0) return ERRNO.EINVAL;
  device.detach();
  return 0;
}

/** No feature is there: no migration, no power states, no dma-bufs. */
function feature(arg: Uint8Array): Errno {
  const ioctl = vfio.VFIO_DEVICE_FEATURE;
  const bad = checkArgsz(ioctl, arg);
  if (bad !== 0) return bad;
  const { flags } = ioctl.decode(arg);
  const {
    VFIO_DEVICE_FEATURE_GET: get,
    VFIO_DEVICE_FEATURE_SET: set,
    VFIO_DEVICE_FEATURE_PROBE: probe,
  } = vfio;
  if ((flags & ~(vfio.VFIO_DEVICE_FEATURE_MASK | get | set | probe)) !== 0) return ERRNO.EINVAL;
  // Both at once makes sense only to ask whether they would work.
  if ((flags & (get | set | probe)) === (get | set)) return ERRNO.EINVAL;
  return ERRNO.ENOTTY;
}

/** VFIO looks at the members up to the least size, and at later ones only if a flag says that they are there. */
function checkArgsz<M extends Members>(ioctl: Ioctl<M>, arg: Uint8Array): Errno {
  if (arg.length < ioctl.minSize) return ERRNO.EFAULT;
  const argsz = new DataView(arg.buffer, arg.byteOffset).getUint32(0, true);
  return argsz < ioctl.minSize ? ERRNO.EINVAL : 0;
}

/** Answers an ioctl that only asks; members beyond `argsz` are not written. */
function respond<M extends Members>(
  ioctl: Ioctl<M>,
  arg: Uint8Array,
  answer: (values: Values<M>) => Partial<Values<M>> | Errno,
): Errno {
  const bad = checkArgsz(ioctl, arg);
  if (bad !== 0) return bad;
  const argsz = new DataView(arg.buffer, arg.byteOffset).getUint32(0, true);
  const result = answer(ioctl.decode(arg));
  if (typeof result === 'number') return result;
  const known = arg.subarray(0, Math.min(argsz, arg.length));
  for (const name in result) ioctl.set(known, name, result[name] as Values<M>[typeof name]);
  return 0;
}
