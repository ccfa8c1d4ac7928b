/** DEVICE_GET_REGION_INFO, REGION_READ, REGION_WRITE, REGION_WRITE_MULTI: what a VMM does with a function's regions. */

import type { Errno, RegionInfo, VfioUserDevice } from './device.ts';
import {
  DEVICE_GET_REGION_INFO,
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
} from './messages.ts';
import type { Reject, Request } from './request.ts';
import { hex } from './violation.ts';

export class RegionRequests {
  readonly #device: VfioUserDevice;
  readonly #reject: Reject;

  constructor(device: VfioUserDevice, reject: Reject) {
    this.#device = device;
    this.#reject = reject;
  }

  info(request: Request): Errno {
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

  read(request: Request): Errno {
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

  write(request: Request): Errno {
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

  writeMulti(request: Request): Errno {
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
}
