/** The configuration space of an emulated PCI function with a type 0 header. */

import { ConfigBytes } from './config-bytes.ts';

/** Offsets in the header. */
export const PCI = {
  VendorId: 0x00,
  DeviceId: 0x02,
  Command: 0x04,
  Status: 0x06,
  RevisionAndClass: 0x08,
  Bar0: 0x10,
  SubsystemVendorId: 0x2c,
  SubsystemId: 0x2e,
  RomBar: 0x30,
  CapabilitiesPointer: 0x34,
  InterruptLine: 0x3c,
  InterruptPin: 0x3d,
  /** Where the header ends and capabilities may begin. */
  HeaderEnd: 0x40,
  /** Where they end, and the extended part of PCI Express begins. */
  CapabilitiesEnd: 0x100,
} as const;

/** Bits of Command that an emulated function has: memory space, bus master, parity, SERR, INTx disable. */
const COMMAND_WRITABLE = 0x0546;
const STATUS_CAPABILITIES = 0x0010;

const BAR_64BIT = 0x4;
const BAR_PREFETCHABLE = 0x8;

export const CAPABILITY = { Msi: 0x05, PciExpress: 0x10, MsiX: 0x11 } as const;

/** Size of the configuration space without and with PCI Express' extended part. */
export const CONFIG_SIZE = { Conventional: 0x100, Express: 0x1000 } as const;

export interface Bar {
  /** 0..5; a 64-bit BAR takes the next one as well. */
  readonly index: number;
  /** In bytes; a power of two, at least 16. */
  readonly size: number;
  readonly is64: boolean;
  readonly prefetchable: boolean;
}

export interface PciIdentity {
  readonly vendor: number;
  readonly device: number;
  /** Base class, subclass and interface: 0x080600. */
  readonly classCode: number;
  readonly revision: number;
  /** INTx: 0 for none, 1 for INTA. */
  readonly interruptPin: number;
  readonly bars: readonly Bar[];
}

/** The ROM BAR stays 0 whatever is written: there is no ROM, and Linux would look for one otherwise. */
export class PciConfig extends ConfigBytes {
  /** Byte that holds the offset of the next capability to be added. */
  #link: number = PCI.CapabilitiesPointer;
  #free: number = PCI.HeaderEnd;

  constructor(identity: PciIdentity, size: number = CONFIG_SIZE.Express) {
    super(size);
    this.set16(PCI.VendorId, identity.vendor);
    this.set16(PCI.DeviceId, identity.device);
    this.set16(PCI.SubsystemVendorId, identity.vendor);
    this.set16(PCI.SubsystemId, identity.device);
    this.set32(PCI.RevisionAndClass, ((identity.classCode << 8) | identity.revision) >>> 0);
    this.set8(PCI.InterruptPin, identity.interruptPin);
    this.allowWrites(PCI.Command, 2, COMMAND_WRITABLE);
    this.allowWrites(PCI.InterruptLine, 1, 0xff);
    for (const bar of identity.bars) this.#addBar(bar);
  }

  #addBar({ index, size, is64, prefetchable }: Bar): void {
    if (!Number.isInteger(Math.log2(size)) || size < 16 || index < 0 || index > (is64 ? 4 : 5))
      throw new RangeError(`There can be no BAR ${index} of ${size} bytes`);
    const offset = PCI.Bar0 + 4 * index;
    this.set32(offset, (is64 ? BAR_64BIT : 0) | (prefetchable ? BAR_PREFETCHABLE : 0));
    // Software finds the size by writing ones: the bits below it stay as they are.
    const mask = ~(BigInt(size) - 1n);
    this.allowWrites(offset, 4, Number(mask & 0xffff_fff0n));
    if (is64) this.allowWrites(offset + 4, 4, Number((mask >> 32n) & 0xffff_ffffn));
  }

  /**
   * Appends a capability of `size` bytes to the list; what follows its id and next pointer is 0 and read-only.
   * @returns its offset. @throws RangeError if there is no room.
   */
  addCapability(id: number, size: number): number {
    const offset = this.#free;
    if (offset + size > PCI.CapabilitiesEnd) throw new RangeError(`No room for ${size} bytes of capability`);
    this.set8(this.#link, offset);
    this.set8(offset, id);
    this.#link = offset + 1;
    this.#free = (offset + size + 3) & ~3;
    this.set16(PCI.Status, this.get16(PCI.Status) | STATUS_CAPABILITIES);
    return offset;
  }
}
