/** Message-signalled interrupts: the doorbell that devices write to, and who hears it. */

import { hiOfNumber, loOfNumber } from '../../bits/u64.ts';
import { HOST_PAGE_SIZE, type HostMemory } from './host-memory.ts';

/** Physical address of the interrupt translation service's doorbell, as on QEMU's virt machine. */
const DOORBELL_FRAME = 0x0809_0000;
const DOORBELL_OFFSET = 0x40;
const FRAME_SIZE = 0x1_0000;

export const DOORBELL = DOORBELL_FRAME + DOORBELL_OFFSET;
export const DOORBELL_PAGE = DOORBELL - (DOORBELL % HOST_PAGE_SIZE);

/** Gives each vector a number; whoever writes the number to the doorbell signals that vector. */
export class MsiController {
  readonly #handlers = new Map<number, () => void>();
  #next = 8192;

  constructor(memory: HostMemory) {
    memory.memory.addMmio(hiOfNumber(DOORBELL_FRAME), loOfNumber(DOORBELL_FRAME), FRAME_SIZE, {
      write32: (offset, value) => {
        if (offset === DOORBELL_OFFSET) this.#handlers.get(value)?.();
        return true;
      },
    });
  }

  /** @returns the number to write for this vector. */
  allocate(handler: () => void): number {
    const number = this.#next;
    this.#next += 1;
    this.#handlers.set(number, handler);
    return number;
  }

  free(number: number): void {
    this.#handlers.delete(number);
  }
}
