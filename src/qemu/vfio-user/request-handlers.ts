/** What a device answers to each command, once the handshake is done. */

import { ERRNO } from '../../sys/errno.ts';
import type { Errno, RegionInfo, VfioUserDevice } from './device.ts';
import { DmaWindows } from './dma-windows.ts';
import type { Interrupts } from './interrupts.ts';
import {
  DEVICE_FLAG_PCI,
  DEVICE_FLAG_RESET,
  DEVICE_GET_INFO,
  DEVICE_GET_IRQ_INFO,
  DEVICE_GET_REGION_INFO,
  DEVICE_GET_REGION_IO_FDS,
  DEVICE_RESET,
  DEVICE_SET_IRQS,
  DMA_MAP,
  DMA_MAP_READABLE,
  DMA_MAP_WRITEABLE,
  DMA_UNMAP,
  DMA_UNMAP_ALL,
  HEADER_SIZE,
  IRQ_FLAG,
  MAX_DATA,
  MULTI_WRITE_DATA,
  MULTI_WRITE_SIZE,
  REGION_ACCESS_SIZE,
  REGION_FLAG_MMAP,
  REGION_FLAG_READ,
  REGION_FLAG_WRITE,
  REGION_READ,
  REGION_WRITE,
  REGION_WRITE_MULTI,
  SET_IRQS,
} from './messages.ts';
import { MAX_DMA_MAPS, PAGE_SIZE } from './version.ts';
import { hex } from './violation.ts';

/** Says what is wrong and gives the errno for it, EINVAL unless named. */
export type Reject = (message: string, field: string, got: string, expected: string, errno?: Errno) => Errno;

/** A command as its handler sees it. */
export interface Request {
  readonly payload: Uint8Array;
  readonly view: DataView;
  /** Descriptors that came with it; a handler that keeps some takes them out. */
  readonly fds: number[];
  /** Where the payload of the reply goes, at least 64 KiB and 16 bytes of it. */
  readonly out: Uint8Array;
  readonly outView: DataView;
  /** Payload bytes of the reply. */
  replySize: number;
  /** Descriptors to send with the reply; they stay the device's. */
  readonly sendFds: number[];
}

/** Addresses end here: no Arm system has more than 52 bits of physical address. */
const ADDRESS_END = 2 ** 52;

const ACTIONS: readonly number[] = [SET_IRQS.Mask, SET_IRQS.Unmask, SET_IRQS.Trigger];
const DATA_TYPES: readonly number[] = [SET_IRQS.DataNone, SET_IRQS.DataBool, SET_IRQS.DataEventfd];

export class RequestHandlers {
  readonly #device: VfioUserDevice;
  readonly #interrupts: Interrupts;
  readonly #reject: Reject;
  readonly #windows = new DmaWindows();
  readonly #handlers: ReadonlyMap<number, (request: Request) => Errno>;

  constructor(device: VfioUserDevice, interrupts: Interrupts, reject: Reject) {
    this.#device = device;
    this.#interrupts = interrupts;
    this.#reject = reject;
    this.#handlers = new Map<number, (request: Request) => Errno>([
      [DMA_MAP.command, (request) => this.#dmaMap(request)],
      [DMA_UNMAP.command, (request) => this.#dmaUnmap(request)],
      [DEVICE_GET_INFO.command, (request) => this.#getInfo(request)],
      [DEVICE_GET_REGION_INFO.command, (request) => this.#getRegionInfo(request)],
      // Every access comes to us through the socket; there is no other way to offer.
      [DEVICE_GET_REGION_IO_FDS.command, () => ERRNO.EOPNOTSUPP],
      [DEVICE_GET_IRQ_INFO.command, (request) => this.#getIrqInfo(request)],
      [DEVICE_SET_IRQS.command, (request) => this.#setIrqs(request)],
      [REGION_READ.command, (request) => this.#regionRead(request)],
      [REGION_WRITE.command, (request) => this.#regionWrite(request)],
      [REGION_WRITE_MULTI.command, (request) => this.#regionWriteMulti(request)],
      [DEVICE_RESET.command, () => this.#reset()],
    ]);
  }

  /** Carries out a command whose size and number of descriptors fit its table entry. */
  handle(command: number, request: Request): Errno {
    return this.#handlers.get(command)?.(request) ?? ERRNO.ENOSYS;
  }

  /** Takes all memory away from the device. */
  unmapAll(): void {
    for (const { address, size } of this.#windows.takeAll()) this.#device.dmaUnmap(address, size);
  }

  #dmaMap({ view, fds }: Request): Errno {
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

  #dmaUnmap(request: Request): Errno {
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

  #getInfo(request: Request): Errno {
    const { fields, name, size } = DEVICE_GET_INFO;
    const argsz = fields.argsz.get(request.view);
    if (argsz < size) return this.#reject(name, 'argsz', String(argsz), `at least ${size}`);
    fields.argsz.set(request.outView, size);
    fields.flags.set(request.outView, DEVICE_FLAG_RESET | DEVICE_FLAG_PCI);
    fields.num_regions.set(request.outView, this.#device.regions.length);
    fields.num_irqs.set(request.outView, this.#device.irqs.length);
    request.replySize = size;
    return 0;
  }

  #getRegionInfo(request: Request): Errno {
    const { fields, name, size } = DEVICE_GET_REGION_INFO;
    const argsz = fields.argsz.get(request.view);
    if (argsz < size) return this.#reject(name, 'argsz', String(argsz), `at least ${size}`);
    const index = fields.index.get(request.view);
    const region = this.#region(name, 'index', index);
    if (typeof region === 'number') return region;
    const { memory } = region;
    fields.argsz.set(request.outView, size);
    fields.flags.set(
      request.outView,
      (region.readable ? REGION_FLAG_READ : 0) |
        (region.writable ? REGION_FLAG_WRITE : 0) |
        (memory === undefined ? 0 : REGION_FLAG_MMAP),
    );
    fields.index.set(request.outView, index);
    fields.cap_offset.set(request.outView, 0);
    fields.size.set(request.outView, region.size);
    fields.offset.set(request.outView, memory?.offset ?? 0);
    if (memory !== undefined) request.sendFds.push(memory.fd);
    request.replySize = size;
    return 0;
  }

  #getIrqInfo(request: Request): Errno {
    const { fields, name, size } = DEVICE_GET_IRQ_INFO;
    const argsz = fields.argsz.get(request.view);
    if (argsz < size) return this.#reject(name, 'argsz', String(argsz), `at least ${size}`);
    const index = fields.index.get(request.view);
    const { irqs } = this.#device;
    if (index >= irqs.length) return this.#reject(name, 'index', String(index), `below ${irqs.length}`);
    fields.argsz.set(request.outView, size);
    fields.flags.set(request.outView, irqs[index].flags);
    fields.index.set(request.outView, index);
    fields.count.set(request.outView, irqs[index].count);
    request.replySize = size;
    return 0;
  }

  #setIrqs({ payload, view, fds }: Request): Errno {
    const { fields, name, size } = DEVICE_SET_IRQS;
    const argsz = fields.argsz.get(view);
    const flags = fields.flags.get(view);
    const index = fields.index.get(view);
    const start = fields.start.get(view);
    const count = fields.count.get(view);
    const { irqs } = this.#device;
    if (argsz < size) return this.#reject(name, 'argsz', String(argsz), `at least ${size}`);
    if (index >= irqs.length) return this.#reject(name, 'index', String(index), `below ${irqs.length}`);
    const action = flags & SET_IRQS.ActionMask;
    const data = flags & SET_IRQS.DataMask;
    if (flags !== (action | data) || !ACTIONS.includes(action) || !DATA_TYPES.includes(data))
      return this.#reject(name, 'flags', hex(flags), 'one kind of data and one action');
    if (start + count > irqs[index].count)
      return this.#reject(name, 'start + count', String(start + count), `at most ${irqs[index].count}`);
    const tail = data === SET_IRQS.DataBool ? count : 0;
    if (payload.length !== size + tail)
      return this.#reject(
        name,
        'size',
        String(HEADER_SIZE + payload.length),
        String(HEADER_SIZE + size + tail),
      );
    if (fds.length !== 0 && (data !== SET_IRQS.DataEventfd || fds.length !== count))
      return this.#reject(
        name,
        'number of descriptors',
        String(fds.length),
        data === SET_IRQS.DataEventfd ? `0 or ${count}` : '0',
      );

    if (data === SET_IRQS.DataEventfd) {
      // Telling the client of a mask or an unmask is for kernels that mask; nobody masks here but the client.
      if (action !== SET_IRQS.Trigger) return ERRNO.EOPNOTSUPP;
      if (fds.length === 0) this.#interrupts.remove(index, start, count);
      else this.#interrupts.assign(index, start, fds.splice(0));
      return 0;
    }
    if (count === 0) {
      if (data !== SET_IRQS.DataNone || start !== 0 || action !== SET_IRQS.Trigger)
        return this.#reject(name, 'count', '0', 'above 0, or no data, start 0 and the trigger action');
      this.#interrupts.remove(index, 0, irqs[index].count);
      return 0;
    }
    if (action !== SET_IRQS.Trigger && (irqs[index].flags & IRQ_FLAG.Maskable) === 0)
      return this.#reject(
        name,
        'flags',
        hex(flags),
        'no mask or unmask: this interrupt has none',
        ERRNO.EOPNOTSUPP,
      );
    for (let i = 0; i < count; i++) {
      if (tail !== 0 && payload[size + i] === 0) continue;
      if (action === SET_IRQS.Mask) this.#interrupts.mask(index, start + i);
      else if (action === SET_IRQS.Unmask) this.#interrupts.unmask(index, start + i);
      else this.#interrupts.raise(index, start + i);
    }
    return 0;
  }

  #region(name: string, field: string, index: number): RegionInfo | Errno {
    const { regions } = this.#device;
    return regions[index] ?? this.#reject(name, field, String(index), `below ${regions.length}`);
  }

  /** Checks one access. @returns an errno, 0 if the device may see it. */
  #checkAccess(name: string, index: number, offset: number, count: number, write: boolean): Errno {
    const region = this.#region(name, 'region', index);
    if (typeof region === 'number') return region;
    if (write ? !region.writable : !region.readable)
      return this.#reject(name, 'region', String(index), `one that can be ${write ? 'written' : 'read'}`);
    if (offset + count > region.size)
      return this.#reject(name, 'offset + count', hex(offset + count), `at most ${hex(region.size)}`);
    return 0;
  }

  #regionRead(request: Request): Errno {
    const { fields, name } = REGION_READ;
    const offset = fields.offset.get(request.view);
    const index = fields.region.get(request.view);
    const count = fields.count.get(request.view);
    if (count === 0 || count > MAX_DATA) return this.#reject(name, 'count', String(count), `1..${MAX_DATA}`);
    const refused = this.#checkAccess(name, index, offset, count, false);
    if (refused !== 0) return refused;
    const data = request.out.subarray(REGION_ACCESS_SIZE, REGION_ACCESS_SIZE + count);
    // What the device does not fill in must not be an earlier answer.
    data.fill(0);
    const errno = this.#device.regionRead(index, offset, data);
    request.out.set(request.payload);
    request.replySize = REGION_ACCESS_SIZE + count;
    return errno;
  }

  #regionWrite(request: Request): Errno {
    const { fields, name } = REGION_WRITE;
    const offset = fields.offset.get(request.view);
    const index = fields.region.get(request.view);
    const count = fields.count.get(request.view);
    if (count === 0 || REGION_ACCESS_SIZE + count !== request.payload.length)
      return this.#reject(
        name,
        'count',
        String(count),
        `${request.payload.length - REGION_ACCESS_SIZE} and above 0`,
      );
    const refused = this.#checkAccess(name, index, offset, count, true);
    if (refused !== 0) return refused;
    request.out.set(request.payload.subarray(0, REGION_ACCESS_SIZE));
    request.replySize = REGION_ACCESS_SIZE;
    return this.#device.regionWrite(index, offset, request.payload.subarray(REGION_ACCESS_SIZE));
  }

  #regionWriteMulti(request: Request): Errno {
    const { name, size } = REGION_WRITE_MULTI;
    const writes = REGION_WRITE_MULTI.fields.wr_cnt.get(request.view);
    const { fields } = REGION_WRITE;
    if (size + writes * MULTI_WRITE_SIZE !== request.payload.length)
      return this.#reject(
        name,
        'wr_cnt',
        String(writes),
        String((request.payload.length - size) / MULTI_WRITE_SIZE),
      );
    for (let i = 0; i < writes; i++) {
      const at = size + i * MULTI_WRITE_SIZE;
      const offset = fields.offset.get(request.view, at);
      const index = fields.region.get(request.view, at);
      const count = fields.count.get(request.view, at);
      if (count === 0 || count > MULTI_WRITE_DATA)
        return this.#reject(name, 'count', String(count), `1..${MULTI_WRITE_DATA}`);
      const refused = this.#checkAccess(name, index, offset, count, true);
      if (refused !== 0) return refused;
      const data = at + REGION_ACCESS_SIZE;
      const errno = this.#device.regionWrite(index, offset, request.payload.subarray(data, data + count));
      if (errno !== 0) return errno;
    }
    request.out.set(request.payload.subarray(0, size));
    request.replySize = size;
    return 0;
  }

  #reset(): Errno {
    this.#device.reset();
    return 0;
  }
}
