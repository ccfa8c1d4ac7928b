import { ERRNO } from '../../iommufd/uapi/errno.ts';
import { OpenFile, POLLIN, POLLOUT } from './file.ts';
import type { UserSink } from './user-space.ts';

const MAX_COUNT = 0xffff_ffff_ffff_fffen;

/** eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC): a 64-bit counter; a read takes all of it. */
export class EventFd extends OpenFile {
  #count = 0n;

  /** Adds to the counter, as an interrupt does; it sticks at its maximum. */
  signal(by = 1n): void {
    this.#count = this.#count + by > MAX_COUNT ? MAX_COUNT : this.#count + by;
    this.wake();
  }

  override read(into: UserSink, count: number): number {
    if (count < 8) return -ERRNO.EINVAL;
    if (this.#count === 0n) return -ERRNO.EAGAIN;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, this.#count, true);
    if (!into.copyOut(0, bytes)) return -ERRNO.EFAULT;
    this.#count = 0n;
    return 8;
  }

  override write(from: Uint8Array): number {
    if (from.length < 8) return -ERRNO.EINVAL;
    const by = new DataView(from.buffer, from.byteOffset).getBigUint64(0, true);
    if (by > MAX_COUNT) return -ERRNO.EINVAL;
    if (this.#count + by > MAX_COUNT) return -ERRNO.EAGAIN;
    this.signal(by);
    return 8;
  }

  override poll(): number {
    return (this.#count > 0n ? POLLIN : 0) | (this.#count < MAX_COUNT ? POLLOUT : 0);
  }

  override release(): void {}
}
