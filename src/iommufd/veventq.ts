import type { Iommufd } from './iommufd.ts';
import type { Fd, Watch } from './kernel.ts';
import { IOMMU_VEVENTQ_ALLOC, IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 } from './uapi/iommufd.ts';

/** The kernel's queue of events for the guest of one vIOMMU. */
export class Veventq {
  readonly id: number;
  readonly fd: Fd;
  /** Records that it holds; what comes while it is full is lost. */
  readonly depth: number;
  readonly #iommufd: Iommufd;
  #open = true;

  private constructor(iommufd: Iommufd, id: number, fd: Fd, depth: number) {
    this.#iommufd = iommufd;
    this.id = id;
    this.fd = fd;
    this.depth = depth;
  }

  /** @param depth 1..VEVENTQ_MAX_DEPTH. @throws HostError EEXIST if the vIOMMU has one. */
  static alloc(iommufd: Iommufd, viommuId: number, depth: number): Veventq {
    const { out_veventq_id, out_veventq_fd } = iommufd.caller.ioctl(iommufd.fd, IOMMU_VEVENTQ_ALLOC, {
      viommu_id: viommuId,
      type: IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
      veventq_depth: depth,
    });
    return new Veventq(iommufd, out_veventq_id, out_veventq_fd, depth);
  }

  /**
   * Reads whole records, as many as fit. Never blocks.
   * @param into at least 40 bytes.
   * @returns bytes; 0 says that the queue is empty now and is not an end; negative is an errno.
   */
  read(into: Uint8Array): number {
    return this.#iommufd.caller.kernel.read(this.fd, into);
  }

  /** Calls back whenever there is something to read. */
  onReadable(callback: () => void): Watch {
    return this.#iommufd.caller.kernel.onReadable(this.fd, callback);
  }

  /** Closes the descriptor, without which it cannot be destroyed, and drops what was not read. */
  close(): void {
    if (this.#open) this.#iommufd.caller.close(this.fd);
    this.#open = false;
  }

  /** Closes the descriptor if it is open, and destroys the queue. @throws HostError */
  destroy(): void {
    this.close();
    this.#iommufd.destroy(this.id);
  }
}
