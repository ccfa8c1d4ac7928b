/** An open `/dev/iommu`: the objects of one context, and the dispatcher of its ioctls. */

import type { Errno, Fd } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import { IOMMUFD_IOCTLS } from '../../../iommufd/uapi/iommufd.ts';
import type { Ioctl, Members, Values } from '../../../iommufd/uapi/struct.ts';
import { OpenFile } from '../file.ts';
import type { HostMemory } from '../host-memory.ts';
import type { KernelVersion } from '../kernel-versions.ts';
import type { UserSpace } from '../user-space.ts';
import { HANDLERS } from './handlers.ts';
import { type KernelObject, ObjectTable } from './objects.ts';

export interface ContextPorts {
  readonly version: KernelVersion;
  readonly user: UserSpace;
  readonly memory: HostMemory;
  /** Gives a file a descriptor. @returns it, or -EMFILE. */
  openFile(file: OpenFile): Fd;
  /** Whether a descriptor is open. */
  isOpen(fd: Fd): boolean;
}

/** The objects of one iommufd. It lives as long as its descriptor, an event descriptor or a bound device. */
export class IommufdContext {
  readonly ports: ContextPorts;
  readonly objects = new ObjectTable();
  /** Physical addresses of MSI doorbells in the order in which they got a page of the SW_MSI window. */
  readonly doorbells: number[] = [];
  /** IOAS for VFIO's old interface, set by IOMMU_VFIO_IOAS. */
  vfioIoas: KernelObject | undefined;
  rlimitMode = 0;
  #pins = 1;

  constructor(ports: ContextPorts) {
    this.ports = ports;
  }

  pin(): void {
    this.#pins += 1;
  }

  unpin(): void {
    this.#pins -= 1;
    if (this.#pins === 0) this.objects.destroyAll();
  }

  /** The object with this id, if it is of this kind. */
  find<T extends KernelObject>(id: number, kind: abstract new (...args: never[]) => T): T | undefined {
    const object = this.objects.get(id);
    return object instanceof kind ? object : undefined;
  }
}

/** One ioctl under way: the structure as the kernel has copied it, and the way back. */
export class Command<M extends Members> {
  readonly context: IommufdContext;
  readonly values: Values<M>;
  readonly #ioctl: Ioctl<M>;
  readonly #user: Uint8Array;
  readonly #userSize: number;

  constructor(context: IommufdContext, ioctl: Ioctl<M>, user: Uint8Array, userSize: number) {
    this.context = context;
    this.#ioctl = ioctl;
    this.#user = user;
    this.#userSize = userSize;
    this.values = ioctl.decode(user.subarray(0, userSize));
  }

  /** Writes the structure back, as far as the caller knows it. @returns 0. */
  respond(outputs: Partial<Values<M>>): Errno {
    const known = this.#user.subarray(0, Math.min(this.#userSize, this.#ioctl.size));
    for (const name in outputs) {
      const member = this.#ioctl.members[name];
      if (member.offset + member.width * (member.count ?? 1) > known.length) continue;
      this.#ioctl.set(known, name, outputs[name] as Values<M>[typeof name]);
    }
    return 0;
  }
}

const FIRST_NUMBER = 0x80;
const TABLE = new Map<number, Ioctl<Members>>(
  IOMMUFD_IOCTLS.map((ioctl) => [ioctl.request & 0xff, ioctl as Ioctl<Members>]),
);

export class IommufdFile extends OpenFile {
  readonly context: IommufdContext;

  constructor(ports: ContextPorts) {
    super();
    this.context = new IommufdContext(ports);
  }

  override ioctl(request: number, arg: Uint8Array): Errno {
    const ioctl = TABLE.get(request & 0xff);
    const { unknown, sizes } = this.context.ports.version;
    if (ioctl === undefined || (request & 0xff) < FIRST_NUMBER || unknown.has(ioctl.request))
      return ERRNO.ENOTTY;
    if (arg.length < 4) return ERRNO.EFAULT;
    const size = new DataView(arg.buffer, arg.byteOffset).getUint32(0, true);
    if (ioctl.request !== request) return ERRNO.ENOTTY;
    if (size < ioctl.minSize) return ERRNO.EINVAL;
    if (size > arg.length) return ERRNO.EFAULT;
    if (arg.subarray(sizes.get(request) ?? ioctl.size, size).some((byte) => byte !== 0)) return ERRNO.E2BIG;
    const handle = HANDLERS[ioctl.ioctl as keyof typeof HANDLERS] as (command: Command<Members>) => Errno;
    return handle(new Command(this.context, ioctl, arg, size));
  }

  override pread(_into: Uint8Array, _offset: number): number {
    return -ERRNO.EINVAL;
  }

  override pwrite(_from: Uint8Array, _offset: number): number {
    return -ERRNO.EINVAL;
  }

  override release(): void {
    this.context.unpin();
  }
}
