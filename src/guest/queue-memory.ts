/** Memory for the driver's queues: as large as the device and the kernel's allocator allow. */

import { COMMAND_SIZE } from '../spec/commands.ts';
import { EVENT_SIZE } from '../spec/events.ts';
import { PRI_ENTRY_SIZE } from '../spec/queues.ts';
import { OFFSET } from '../spec/registers.ts';
import { CommandQueue } from './command-queue.ts';
import { GuestDriverError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import type { KernelLog } from './kernel-log.ts';
import { OutputQueue } from './output-queue.ts';
import { PAGE } from './page-allocator.ts';
import type { RegisterPort } from './register-port.ts';

/** Makes queues. Each method throws GuestDriverError GUEST_OUT_OF_MEMORY if not even a page is left. */
export class QueueMemory {
  readonly #port: RegisterPort;
  readonly #ram: GuestRam;
  readonly #log: KernelLog;
  readonly #limit: number;

  /** @param limit bytes of the largest block that the kernel hands out. */
  constructor(port: RegisterPort, ram: GuestRam, log: KernelLog, limit: number) {
    this.#port = port;
    this.#ram = ram;
    this.#log = log;
    this.#limit = limit;
  }

  commandQueue(log2: number, msiPoll: boolean): CommandQueue {
    const { base, log2Size } = this.#allocate('cmdq', log2, COMMAND_SIZE);
    return new CommandQueue({ port: this.#port, ram: this.#ram, log: this.#log }, base, log2Size, msiPoll);
  }

  eventQueue(log2: number): OutputQueue {
    const { base, log2Size } = this.#allocate('evtq', log2, EVENT_SIZE);
    const registers = { prodOffset: OFFSET.EVENTQ_PROD, consOffset: OFFSET.EVENTQ_CONS };
    return this.#output('EVTQ', EVENT_SIZE, registers, base, log2Size);
  }

  priQueue(log2: number): OutputQueue {
    const { base, log2Size } = this.#allocate('priq', log2, PRI_ENTRY_SIZE);
    const registers = { prodOffset: OFFSET.PRIQ_PROD, consOffset: OFFSET.PRIQ_CONS };
    return this.#output('PRIQ', PRI_ENTRY_SIZE, registers, base, log2Size);
  }

  #output(
    name: string,
    recordSize: number,
    registers: { readonly prodOffset: number; readonly consOffset: number },
    base: number,
    log2Size: number,
  ): OutputQueue {
    const parts = { port: this.#port, ram: this.#ram, log: this.#log, name, recordSize, ...registers };
    return new OutputQueue(parts, base, log2Size);
  }

  /** Halves the queue until it fits. */
  #allocate(name: string, log2: number, entrySize: number): { base: number; log2Size: number } {
    for (let log2Size = log2; ; log2Size--) {
      const bytes = 2 ** log2Size * entrySize;
      const base = bytes > this.#limit && bytes > PAGE ? undefined : this.#ram.tryAllocate(bytes);
      if (base !== undefined) {
        this.#log.info(`allocated ${2 ** log2Size} entries for ${name}`);
        return { base, log2Size };
      }
      if (bytes <= PAGE) {
        this.#log.warn(`failed to allocate queue (0x${bytes.toString(16)} bytes) for ${name}`);
        throw new GuestDriverError('GUEST_OUT_OF_MEMORY', `No memory is left for ${name}`);
      }
    }
  }
}
