/** How the SMMU's interrupts reach a guest in QEMU: as writes that the SMMU's own PCI function asks QEMU to make. */

import { MEM_OK, type Memory } from '../memory/memory.ts';
import type { InterruptLine, InterruptPort } from '../smmu/ports.ts';
import { type DeviceLink, type Errno, PCI_IRQ } from './vfio-user/device.ts';

/** What the device tree says of the SMMU's interrupts. */
export type SmmuWiring =
  /** Edge-triggered SPIs: a write of the interrupt's number to the doorbell of a GICv2m frame raises it. */
  | {
      readonly kind: 'doorbell';
      /** Guest-physical address of the frame's MSI_SETSPI_NS. */
      readonly address: number;
      /** Interrupt numbers (INTID). */
      readonly intids: Readonly<Record<InterruptLine, number>>;
    }
  /** One level-triggered "combined" interrupt: INTA of the SMMU's function. Its handler has to read the registers. */
  | { readonly kind: 'intx' };

export class SmmuInterrupts implements InterruptPort {
  readonly #wiring: SmmuWiring;
  readonly #memory: Memory;
  readonly #data = new Uint8Array(4);
  readonly #view = new DataView(this.#data.buffer);
  /** The connection of the SMMU's function; undefined while there is none. */
  link: DeviceLink | undefined;
  /** Interrupts that did not arrive: no connection, or QEMU refused the write. */
  lost = 0;

  /** @param memory guest RAM: an MSI that targets it is a plain store. */
  constructor(wiring: SmmuWiring, memory: Memory) {
    this.#wiring = wiring;
    this.#memory = memory;
  }

  raise(line: InterruptLine): void {
    const wiring = this.#wiring;
    if (wiring.kind === 'doorbell') this.#write(wiring.address, wiring.intids[line]);
    else if (this.link?.interrupt(PCI_IRQ.Intx, 0) !== true) this.lost++;
  }

  writeMsi(hi: number, lo: number, data: number): boolean {
    // Memory first: a CMD_SYNC whose MSI goes to memory is polled there, and QEMU would only do the same later.
    if (this.#memory.store32(hi, lo, data) === MEM_OK) return true;
    return this.#write(hi * 0x1_0000_0000 + lo, data);
  }

  #write(address: number, value: number): boolean {
    this.#view.setUint32(0, value, true);
    const errno = this.link?.dmaWrite(address, this.#data, this.#done);
    if (errno === 0) return true;
    this.lost++;
    return false;
  }

  readonly #done = (errno: Errno): void => {
    if (errno !== 0) this.lost++;
  };
}
