/** DMA_MAP and DMA_UNMAP: which guest memory the device may reach. */

import { ERRNO } from '../../sys/errno.ts';
import type { Errno, VfioUserDevice } from './device.ts';
import { DmaWindows } from './dma-windows.ts';
import { DMA_MAP, DMA_MAP_READABLE, DMA_MAP_WRITEABLE, DMA_UNMAP, DMA_UNMAP_ALL } from './messages.ts';
import type { Reject, Request } from './request.ts';
import { MAX_DMA_MAPS, PAGE_SIZE } from './version.ts';
import { hex } from './violation.ts';

/** Addresses end here: no Arm system has more than 52 bits of physical address. */
const ADDRESS_END = 2 ** 52;

export class DmaRequests {
  readonly #device: VfioUserDevice;
  readonly #reject: Reject;
  readonly #windows = new DmaWindows();

  constructor(device: VfioUserDevice, reject: Reject) {
    this.#device = device;
    this.#reject = reject;
  }

  /** Takes all memory away from the device. */
  unmapAll(): void {
    for (const { address, size } of this.#windows.takeAll()) this.#device.dmaUnmap(address, size);
  }

  map({ view, fds }: Request): Errno {
    const name = DMA_MAP.name;
    const { fields } = DMA_MAP;
    const argsz = fields.argsz.get(view);
    const flags = fields.flags.get(view);
    const offset = fields.offset.get(view);
    const address = fields.address.get(view);
    const size = fields.size.get(view);
    if (argsz < DMA_MAP.size) return this.#reject(name, 'argsz', String(argsz), `at least ${DMA_MAP.size}`);
    if ((flags & ~(DMA_MAP_READABLE | DMA_MAP_WRITEABLE)) !== 0 || (flags & DMA_MAP_READABLE) === 0)
      return this.#reject(name, 'flags', hex(flags), '1 (readable) or 3 (readable and writeable)');
    for (const [field, value] of [
      ['offset', offset],
      ['address', address],
      ['size', size],
    ] as const)
      if (value % PAGE_SIZE !== 0)
        return this.#reject(name, field, hex(value), `a multiple of ${hex(PAGE_SIZE)}`);
    if (size === 0 || address + size > ADDRESS_END)
      return this.#reject(name, 'size', hex(size), `above 0, with an end of at most ${hex(ADDRESS_END)}`);
    if (offset > ADDRESS_END) return this.#reject(name, 'offset', hex(offset), `at most ${hex(ADDRESS_END)}`);
    const other = this.#windows.overlapping(address, size);
    if (other !== undefined)
      return this.#reject(
        name,
        'address',
        hex(address),
        `nothing of [${hex(other.address)}, ${hex(other.address + other.size)}), which is mapped`,
        ERRNO.EEXIST,
      );
    if (this.#windows.count >= MAX_DMA_MAPS)
      return this.#reject(
        name,
        'number of windows',
        String(MAX_DMA_MAPS + 1),
        `at most ${MAX_DMA_MAPS}`,
        ERRNO.ENOSPC,
      );
    const writable = (flags & DMA_MAP_WRITEABLE) !== 0;
    const errno = this.#device.dmaMap({ address, size, readable: true, writable, fd: fds[0], offset });
    if (errno === 0) this.#windows.add(address, size);
    return errno;
  }

  unmap(request: Request): Errno {
    const { fields, name } = DMA_UNMAP;
    const argsz = fields.argsz.get(request.view);
    const flags = fields.flags.get(request.view);
    const address = fields.address.get(request.view);
    const size = fields.size.get(request.view);
    if (argsz < DMA_UNMAP.size)
      return this.#reject(name, 'argsz', String(argsz), `at least ${DMA_UNMAP.size}`);
    if (flags === DMA_UNMAP_ALL && address === 0 && size === 0) this.unmapAll();
    else if (flags !== 0)
      return this.#reject(name, 'flags', hex(flags), '0, or 2 (all) with address 0 and size 0');
    else if (!this.#windows.remove(address, size))
      return this.#reject(
        name,
        'address and size',
        `${hex(address)} and ${hex(size)}`,
        'those of a window that is mapped',
        ERRNO.ENOENT,
      );
    else this.#device.dmaUnmap(address, size);
    // The reply repeats the request.
    request.out.set(request.payload);
    request.replySize = DMA_UNMAP.size;
    return 0;
  }
}
