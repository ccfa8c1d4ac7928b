/**
 * The PCI function that carries the SMMU's registers into a guest: BAR 0 is the register file, and each access of the
 * guest's CPU comes here as one message. It sits on a bus that the guest does not know of.
 */

import { INTERFACE_SIZE } from '../spec/registers.ts';
import { addExpressCapability } from './express-capability.ts';
import type { GuestRam } from './guest-ram.ts';
import { CONFIG_SIZE, PciConfig } from './pci-config.ts';
import type { SmmuInterrupts } from './smmu-interrupts.ts';
import {
  type DeviceLink,
  type DmaRange,
  type Errno,
  type IrqInfo,
  NO_REGION,
  PCI_REGION,
  type RegionInfo,
  type VfioUserDevice,
} from './vfio-user/device.ts';
import { IRQ_FLAG } from './vfio-user/messages.ts';

/** The registers, as {@link import('../smmu/smmu.ts').Smmu} has them. */
interface RegisterPort {
  /** High word of the last 8-byte read. */
  readonly readHi: number;
  read(offset: number, size: number): number;
  write(offset: number, size: number, hi: number, lo: number): void;
}

export interface SmmuFunctionOptions {
  /** Shown in messages. */
  readonly name: string;
  readonly registers: RegisterPort;
  readonly interrupts: SmmuInterrupts;
  /** Where the memory goes that QEMU announces; this function is the one through which we get it. */
  readonly ram: GuestRam;
  /** QEMU resets the machine; the SMMU has to be as after power-on when this returns. */
  readonly reset: () => void;
  /** QEMU has connected, or has gone. */
  readonly connection?: (connected: boolean) => void;
}

/** Base system peripheral, IOMMU. No driver looks at it: vendor and device are those of QEMU's own experiments. */
const IDENTITY = {
  vendor: 0x1234,
  device: 0x3303,
  classCode: 0x08_06_00,
  revision: 0,
  interruptPin: 1,
  bars: [{ index: 0, size: INTERFACE_SIZE, is64: false, prefetchable: false }],
} as const;

const BAR0: RegionInfo = { size: INTERFACE_SIZE, readable: true, writable: true };
const CONFIG: RegionInfo = { size: CONFIG_SIZE.Express, readable: true, writable: true };
const INTX: IrqInfo = { count: 1, flags: IRQ_FLAG.Eventfd | IRQ_FLAG.Maskable | IRQ_FLAG.Automasked };
const NO_IRQ: IrqInfo = { count: 0, flags: IRQ_FLAG.Eventfd };

export class SmmuFunction implements VfioUserDevice {
  readonly name: string;
  readonly regions: readonly RegionInfo[] = [
    BAR0,
    NO_REGION,
    NO_REGION,
    NO_REGION,
    NO_REGION,
    NO_REGION,
    NO_REGION,
    CONFIG,
    NO_REGION,
  ];
  readonly irqs: readonly IrqInfo[] = [INTX, NO_IRQ, NO_IRQ, NO_IRQ, NO_IRQ];
  readonly #options: SmmuFunctionOptions;
  readonly #config = new PciConfig(IDENTITY);

  constructor(options: SmmuFunctionOptions) {
    this.#options = options;
    this.name = options.name;
    addExpressCapability(this.#config);
  }

  connected(link: DeviceLink): void {
    this.#options.interrupts.link = link;
    this.#options.connection?.(true);
  }

  disconnected(): void {
    this.#options.interrupts.link = undefined;
    this.#options.connection?.(false);
  }

  /**
   * 6.2: registers are reached with aligned accesses of 4 or 8 bytes. What others do is CONSTRAINED UNPREDICTABLE:
   * here they read zeros and change nothing.
   */
  regionRead(region: number, offset: number, into: Uint8Array): Errno {
    if (region === PCI_REGION.Config) {
      this.#config.read(offset, into);
      return 0;
    }
    const size = into.length;
    if ((size !== 4 && size !== 8) || offset % size !== 0) {
      into.fill(0);
      return 0;
    }
    const { registers } = this.#options;
    const view = new DataView(into.buffer, into.byteOffset, size);
    view.setUint32(0, registers.read(offset, size), true);
    if (size === 8) view.setUint32(4, registers.readHi, true);
    return 0;
  }

  regionWrite(region: number, offset: number, from: Uint8Array): Errno {
    if (region === PCI_REGION.Config) {
      this.#config.write(offset, from);
      return 0;
    }
    const size = from.length;
    if ((size !== 4 && size !== 8) || offset % size !== 0) return 0;
    const view = new DataView(from.buffer, from.byteOffset, size);
    this.#options.registers.write(
      offset,
      size,
      size === 8 ? view.getUint32(4, true) : 0,
      view.getUint32(0, true),
    );
    return 0;
  }

  dmaMap(range: DmaRange): Errno {
    return this.#options.ram.map(range);
  }

  dmaUnmap(address: number): void {
    this.#options.ram.unmap(address);
  }

  reset(): void {
    this.#config.reset();
    this.#options.reset();
  }
}
