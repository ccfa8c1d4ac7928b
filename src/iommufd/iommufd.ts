import { Caller } from './call.ts';
import type { Fd, Kernel, UserMemory } from './kernel.ts';
import { IOMMU_DESTROY } from './uapi/iommufd.ts';

/** Path of the iommufd device. */
export const IOMMUFD_PATH = '/dev/iommu';

/** An open `/dev/iommu`: the context in which all other objects live. Ids are those of this descriptor. */
export class Iommufd {
  readonly caller: Caller;
  readonly fd: Fd;
  /** 64 bytes that an ioctl argument may point to; overwritten by the next call that needs them. */
  readonly scratch: UserMemory;

  private constructor(caller: Caller, fd: Fd) {
    this.caller = caller;
    this.fd = fd;
    this.scratch = caller.kernel.userMemory(new Uint8Array(64));
  }

  /** @throws HostError */
  static open(kernel: Kernel, caller = new Caller(kernel)): Iommufd {
    return new Iommufd(caller, caller.open(IOMMUFD_PATH));
  }

  /** Destroys an object by id. @throws HostError EBUSY if something uses it, ENOENT if it is gone. */
  destroy(id: number): void {
    this.caller.ioctl(this.fd, IOMMU_DESTROY, { id });
  }

  /**
   * Closes the descriptor. The kernel destroys what is left once every device and event descriptor of this context is
   * closed too.
   */
  close(): void {
    this.caller.close(this.fd);
    this.scratch.release();
  }
}
