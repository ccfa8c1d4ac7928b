/** One iommufd: its objects, and an ioctl on them under way. */

import type { Errno, Fd } from '../../../iommufd/kernel.ts';
import type { Ioctl, Members, Values } from '../../../iommufd/uapi/struct.ts';
import type { OpenFile } from '../file.ts';
import type { HostMemory } from '../host-memory.ts';
import type { KernelVersion } from '../kernel-versions.ts';
import type { UserSpace } from '../user-space.ts';
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
