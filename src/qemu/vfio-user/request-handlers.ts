/** What a device answers to each command, once the handshake is done. */

import { ERRNO } from '../../sys/errno.ts';
import type { Errno, VfioUserDevice } from './device.ts';
import { DmaRequests } from './dma-requests.ts';
import type { Interrupts } from './interrupts.ts';
import { IrqRequests } from './irq-requests.ts';
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
  DMA_UNMAP,
  REGION_READ,
  REGION_WRITE,
  REGION_WRITE_MULTI,
} from './messages.ts';
import { RegionRequests } from './region-requests.ts';
import type { Reject, Request } from './request.ts';

export class RequestHandlers {
  readonly #device: VfioUserDevice;
  readonly #reject: Reject;
  readonly #dma: DmaRequests;
  readonly #handlers: ReadonlyMap<number, (request: Request) => Errno>;

  constructor(device: VfioUserDevice, interrupts: Interrupts, reject: Reject) {
    this.#device = device;
    this.#reject = reject;
    const dma = new DmaRequests(device, reject);
    const regions = new RegionRequests(device, reject);
    const irqs = new IrqRequests(device.irqs, interrupts, reject);
    this.#dma = dma;
    this.#handlers = new Map<number, (request: Request) => Errno>([
      [DMA_MAP.command, (request) => dma.map(request)],
      [DMA_UNMAP.command, (request) => dma.unmap(request)],
      [DEVICE_GET_INFO.command, (request) => this.#getInfo(request)],
      [DEVICE_GET_REGION_INFO.command, (request) => regions.info(request)],
      // Every access comes to us through the socket; there is no other way to offer.
      [DEVICE_GET_REGION_IO_FDS.command, () => ERRNO.EOPNOTSUPP],
      [DEVICE_GET_IRQ_INFO.command, (request) => irqs.info(request)],
      [DEVICE_SET_IRQS.command, (request) => irqs.set(request)],
      [REGION_READ.command, (request) => regions.read(request)],
      [REGION_WRITE.command, (request) => regions.write(request)],
      [REGION_WRITE_MULTI.command, (request) => regions.writeMulti(request)],
      [DEVICE_RESET.command, () => this.#reset()],
    ]);
  }

  /** Carries out a command whose size and number of descriptors fit its table entry. */
  handle(command: number, request: Request): Errno {
    return this.#handlers.get(command)?.(request) ?? ERRNO.ENOSYS;
  }

  /** Takes all memory away from the device. */
  unmapAll(): void {
    this.#dma.unmapAll();
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

  #reset(): Errno {
    this.#device.reset();
    return 0;
  }
}
