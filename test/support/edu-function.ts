/** QEMU's edu as a simulated PCI function, as far as its DMA goes: docs/specs/edu.rst. */

import { ConfigSpace } from '../../src/host/sim/functions/config-space.ts';
import type { PciBus, PciFunction } from '../../src/host/sim/pci-function.ts';

const HEADER = {
  vendorId: 0x1234,
  deviceId: 0x11e8,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
  classCode: 0x00_ff00,
  revision: 0x10,
};
const BAR_SIZE = 0x10_0000;
const BUFFER = 0x4_0000;
const DMA = { Source: 0x80, Destination: 0x88, Count: 0x90, Command: 0x98 };
const RUN = 1;
const TO_MEMORY = 2;
/** Looks at the command register until a transfer is over: it takes its time. */
const LOOKS = 2;

export class EduFunction implements PciFunction {
  readonly kind = 'edu';
  readonly regionSizes = [BAR_SIZE, 0, 0, 0, 0, 0, 0, 4096, 0];
  readonly irqCounts = [1, 1, 0, 0, 1];
  /** A failed read clears the buffer, as some QEMUs do, instead of leaving it alone. */
  clears = false;
  /** It never finishes. */
  hangs = false;
  readonly #buffer = new Uint8Array(4096);
  readonly #registers = new DataView(new ArrayBuffer(0x100));
  readonly #config = new ConfigSpace(HEADER, BAR_SIZE, 1);
  #bus: PciBus | undefined;
  #looks = 0;

  connect(bus: PciBus): void {
    this.#bus = bus;
  }

  regionRead(region: number, offset: number, into: Uint8Array): void {
    if (region === 7) return this.#config.read(offset, into);
    if (offset === DMA.Command && !this.hangs && this.#running && ++this.#looks > LOOKS) this.#transfer();
    into.set(new Uint8Array(this.#registers.buffer, offset, into.length));
  }

  regionWrite(region: number, offset: number, from: Uint8Array): void {
    if (region === 7) {
      if (this.#config.write(offset, from)) this.reset();
      return;
    }
    // While it runs, its registers keep their values.
    if (offset < DMA.Source || this.#running) return;
    // A register has 64 bits; a write of 32 clears the upper half.
    this.#registers.setBigUint64(offset, 0n, true);
    new Uint8Array(this.#registers.buffer).set(from, offset);
    this.#looks = 0;
  }

  reset(): void {
    this.#buffer.fill(0);
    new Uint8Array(this.#registers.buffer).fill(0);
    this.#config.reset();
  }

  get #running(): boolean {
    return (this.#registers.getUint32(DMA.Command, true) & RUN) !== 0;
  }

  #transfer(): void {
    const command = this.#registers.getUint32(DMA.Command, true);
    this.#registers.setUint32(DMA.Command, command & ~RUN, true);
    const toMemory = (command & TO_MEMORY) !== 0;
    const [inside, outside] = toMemory ? [DMA.Source, DMA.Destination] : [DMA.Destination, DMA.Source];
    const at = this.#registers.getUint32(inside, true) - BUFFER;
    const bytes = this.#buffer.subarray(at, at + this.#registers.getUint32(DMA.Count, true));
    const hi = this.#registers.getUint32(outside + 4, true);
    const lo = this.#registers.getUint32(outside, true);
    if (this.#bus === undefined || !this.#config.busMaster) return;
    if (toMemory) this.#bus.write(hi, lo, bytes);
    else {
      const read = new Uint8Array(bytes.length);
      const failed = this.#bus.read(hi, lo, read) !== 0;
      if (!failed) bytes.set(read);
      else if (this.clears) bytes.fill(0);
    }
  }
}
