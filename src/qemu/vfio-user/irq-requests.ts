/** DEVICE_GET_IRQ_INFO and DEVICE_SET_IRQS: a function's interrupts, and what the VMM connects them to. */

import { ERRNO } from '../../sys/errno.ts';
import type { Errno, IrqInfo } from './device.ts';
import type { Interrupts } from './interrupts.ts';
import { DEVICE_GET_IRQ_INFO, DEVICE_SET_IRQS, HEADER_SIZE, IRQ_FLAG, SET_IRQS } from './messages.ts';
import type { Reject, Request } from './request.ts';
import { hex } from './violation.ts';

const ACTIONS: readonly number[] = [SET_IRQS.Mask, SET_IRQS.Unmask, SET_IRQS.Trigger];
const DATA_TYPES: readonly number[] = [SET_IRQS.DataNone, SET_IRQS.DataBool, SET_IRQS.DataEventfd];

export class IrqRequests {
  readonly #irqs: readonly IrqInfo[];
  readonly #interrupts: Interrupts;
  readonly #reject: Reject;

  constructor(irqs: readonly IrqInfo[], interrupts: Interrupts, reject: Reject) {
    this.#irqs = irqs;
    this.#interrupts = interrupts;
    this.#reject = reject;
  }

  info(request: Request): Errno {
    const { fields, name, size } = DEVICE_GET_IRQ_INFO;
    const argsz = fields.argsz.get(request.view);
    if (argsz < size) return this.#reject(name, 'argsz', String(argsz), `at least ${size}`);
    const index = fields.index.get(request.view);
    const irqs = this.#irqs;
    if (index >= irqs.length) return this.#reject(name, 'index', String(index), `below ${irqs.length}`);
    fields.argsz.set(request.outView, size);
    fields.flags.set(request.outView, irqs[index].flags);
    fields.index.set(request.outView, index);
    fields.count.set(request.outView, irqs[index].count);
    request.replySize = size;
    return 0;
  }

  set({ payload, view, fds }: Request): Errno {
    const { fields, name, size } = DEVICE_SET_IRQS;
    const argsz = fields.argsz.get(view);
    const flags = fields.flags.get(view);
    const index = fields.index.get(view);
    const start = fields.start.get(view);
    const count = fields.count.get(view);
    const irqs = this.#irqs;
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
}
