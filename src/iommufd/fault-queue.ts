import type { Iommufd } from './iommufd.ts';
import type { Errno, Fd, Watch } from './kernel.ts';
import { ERRNO } from './uapi/errno.ts';
import { IOMMU_FAULT_QUEUE_ALLOC } from './uapi/iommufd.ts';
import { iommu_hwpt_page_response } from './uapi/page-fault.ts';

/** Faults of devices that wait for an answer, and the way to answer them. Page tables are made with one or without. */
export class FaultQueue {
  readonly id: number;
  readonly fd: Fd;
  readonly #iommufd: Iommufd;
  readonly #response = new Uint8Array(iommu_hwpt_page_response.size);
  readonly #words = new Uint32Array(this.#response.buffer);
  #open = true;

  private constructor(iommufd: Iommufd, id: number, fd: Fd) {
    this.#iommufd = iommufd;
    this.id = id;
    this.fd = fd;
  }

  /** @throws HostError */
  static alloc(iommufd: Iommufd): FaultQueue {
    const { out_fault_id, out_fault_fd } = iommufd.caller.ioctl(iommufd.fd, IOMMU_FAULT_QUEUE_ALLOC, {});
    return new FaultQueue(iommufd, out_fault_id, out_fault_fd);
  }

  /**
   * Reads whole groups of faults, as many as fit. Never blocks.
   * @param into a multiple of 40 bytes.
   * @returns bytes; 0 says that no fault waits now and is not an end; negative is an errno, EINVAL if the next group
   * does not fit.
   */
  read(into: Uint8Array): number {
    return this.#iommufd.caller.kernel.read(this.fd, into);
  }

  /**
   * Answers a group that was read.
   * @param code IOMMUFD_PAGE_RESP_SUCCESS tries again what waits, IOMMUFD_PAGE_RESP_INVALID ends it with an abort.
   * @returns 0, or an errno: EINVAL if nothing waits under this cookie any more.
   */
  respond(cookie: number, code: number): Errno {
    this.#words[0] = cookie;
    this.#words[1] = code;
    const { kernel } = this.#iommufd.caller;
    let written = kernel.write(this.fd, this.#response);
    // A signal may come between; the answer was not taken then.
    if (written === -ERRNO.EINTR) written = kernel.write(this.fd, this.#response);
    return written === this.#response.length ? 0 : written < 0 ? -written : ERRNO.EIO;
  }

  /** Calls back whenever there is something to read. */
  onReadable(callback: () => void): Watch {
    return this.#iommufd.caller.kernel.onReadable(this.fd, callback);
  }

  /** Closes the descriptor. The kernel ends what is unanswered when the device's page table is replaced. */
  close(): void {
    if (this.#open) this.#iommufd.caller.close(this.fd);
    this.#open = false;
  }

  /** Closes the descriptor if it is open, and destroys the queue. @throws HostError EBUSY while a page table uses it. */
  destroy(): void {
    this.close();
    this.#iommufd.destroy(this.id);
  }
}
