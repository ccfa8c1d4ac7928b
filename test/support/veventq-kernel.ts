/** A Kernel that has nothing but a vEVENTQ: what the event bridge sees of a host. */

import { Veventq as SimVeventq } from '../../src/host/sim/iommufd/veventq.ts';
import type { Viommu } from '../../src/host/sim/iommufd/viommu.ts';
import { bytesSink } from '../../src/host/sim/user-space.ts';
import { Iommufd } from '../../src/iommufd/iommufd.ts';
import { Veventq } from '../../src/iommufd/veventq.ts';
import { ReadableKernel } from './readable-kernel.ts';

export class VeventqKernel extends ReadableKernel {
  closed = false;

  override close(): number {
    this.closed = true;
    return 0;
  }

  override ioctl(_fd: number, _request: number, arg: Uint8Array): number {
    const words = new DataView(arg.buffer, arg.byteOffset, arg.byteLength);
    if (arg.length === 32) {
      words.setUint32(20, 7, true);
      words.setInt32(24, 4, true);
    }
    return 0;
  }

  override read(fd: number, into: Uint8Array): number {
    const [next] = this.reads;
    if (typeof next === 'object' && next.length > into.length)
      throw new Error('the script gives more than was asked for');
    return super.read(fd, into);
  }

  /** A vEVENTQ of this kernel. */
  veventq(depth = 128): Veventq {
    return Veventq.alloc(Iommufd.open(this), 2, depth);
  }
}

/** A kernel whose queue is the embedded host's: a depth, sequence numbers, LOST. */
export class LiveVeventqKernel extends VeventqKernel {
  readonly queue: SimVeventq;
  /** Events that reached the queue. */
  produced = 0;
  readonly #depth: number;

  constructor(depth: number) {
    super();
    this.#depth = depth;
    this.queue = new SimVeventq({ users: 0, veventqs: new Map() } as unknown as Viommu, 1, depth);
  }
  /** The device with this StreamID meets a fault; the number in its address tells it from others. */
  produce(sid: number, serial = this.produced): void {
    this.produced++;
    this.queue.report(new Uint8Array(Uint32Array.from(event(0, sid, serial).slice(2)).buffer));
  }
  override read(_fd: number, into: Uint8Array): number {
    this.asked.push(into.length);
    return this.queue.read(bytesSink(into), into.length);
  }
  /** Lets the reader have so many turns, as long as there is something to read. */
  turns(count: number): void {
    for (let i = 0; i < count && this.queue.readable && this.callback !== undefined; i++) this.callback();
  }
  override veventq(): Veventq {
    return super.veventq(this.#depth);
  }
}

/** Record of an event with this sequence number; the input address tells events apart. */
export function event(sequence: number, sid = 8, address = sequence): number[] {
  return [0, sequence, 0x10, sid, 0, 0x200, address, 0, 0, 0];
}

/** A header that says that events up to this number were lost. */
export const lost = (sequence: number): number[] => [1, sequence];

/** Bytes of records, in order. */
export function bytes(...records: readonly number[][]): Uint8Array {
  return new Uint8Array(Uint32Array.from(records.flat()).buffer);
}
