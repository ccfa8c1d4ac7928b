/** PCI configuration space: bytes, and which of their bits software may change. */

const SIZE = 4096;

/** What every type 0 header says. */
export interface Header {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  /** Base class, sub-class and programming interface: 0xbbssii. */
  readonly classCode: number;
  readonly revision: number;
}

/** Offsets in the type 0 header. */
export const HEADER = {
  Command: 0x04,
  Status: 0x06,
  Bar0: 0x10,
  InterruptLine: 0x3c,
} as const;

/** Bits of the Command register. */
export const COMMAND = {
  Memory: 1 << 1,
  BusMaster: 1 << 2,
  SERR: 1 << 8,
  InterruptDisable: 1 << 10,
} as const;

/** Bits of the Status register. */
export const STATUS = { Interrupt: 1 << 3, CapabilitiesList: 1 << 4 } as const;

const CAPABILITY_ID = { Msi: 0x05, PciExpress: 0x10 } as const;

/** Registers of the MSI capability with 64-bit addresses, from its start. */
const MSI = { Control: 2, AddressLo: 4, AddressHi: 8, Data: 12 } as const;

/** Device Control of the PCI Express capability, from its start, and its Initiate Function Level Reset bit. */
const DEVICE_CONTROL = 8;
const INITIATE_FLR = 1 << 15;

/** The configuration space of one PCI Express endpoint with one 64-bit memory BAR, INTx on pin A and MSI. */
export class ConfigSpace {
  readonly #bytes = new Uint8Array(SIZE);
  readonly #view = new DataView(this.#bytes.buffer);
  /** A one is a bit that software may write. */
  readonly #writable = new Uint8Array(SIZE);
  readonly #atReset: Uint8Array;
  readonly #msi = 0x50;
  readonly #pcie = 0x70;

  /**
   * @param barSize size of BAR0 in bytes, a power of two of at least 16
   * @param vectors MSI vectors, a power of two up to 32
   */
  constructor(header: Header, barSize: number, vectors: number) {
    const view = this.#view;
    const mask = new DataView(this.#writable.buffer);
    view.setUint16(0x00, header.vendorId, true);
    view.setUint16(0x02, header.deviceId, true);
    view.setUint32(0x08, header.classCode * 0x100 + header.revision, true);
    view.setUint16(0x2c, header.subsystemVendorId, true);
    view.setUint16(0x2e, header.subsystemId, true);
    mask.setUint16(
      HEADER.Command,
      COMMAND.Memory | COMMAND.BusMaster | COMMAND.SERR | COMMAND.InterruptDisable,
      true,
    );
    // Cache line size is writable and means nothing.
    this.#writable[0x0c] = 0xff;
    // 0b100: memory, 64 bits wide, not prefetchable.
    view.setUint32(HEADER.Bar0, 0b100, true);
    mask.setUint32(HEADER.Bar0, (~(barSize - 1) & ~0xf) >>> 0, true);
    mask.setUint32(HEADER.Bar0 + 4, 0xffff_ffff, true);
    this.#writable[HEADER.InterruptLine] = 0xff;
    this.#bytes[HEADER.InterruptLine + 1] = 1;
    view.setUint16(HEADER.Status, STATUS.CapabilitiesList, true);
    this.#bytes[0x34] = this.#msi;
    this.#addMsi(mask, vectors);
    this.#addPciExpress(mask);
    this.#atReset = this.#bytes.slice();
  }

  #addMsi(mask: DataView, vectors: number): void {
    const at = this.#msi;
    this.#bytes[at] = CAPABILITY_ID.Msi;
    this.#bytes[at + 1] = this.#pcie;
    // 64-bit address capable, and log2 of the vectors on offer.
    this.#view.setUint16(at + MSI.Control, (1 << 7) | (Math.log2(vectors) << 1), true);
    // MSI Enable and Multiple Message Enable.
    mask.setUint16(at + MSI.Control, 0x71, true);
    mask.setUint32(at + MSI.AddressLo, 0xffff_fffc, true);
    mask.setUint32(at + MSI.AddressHi, 0xffff_ffff, true);
    mask.setUint16(at + MSI.Data, 0xffff, true);
  }

  #addPciExpress(mask: DataView): void {
    const at = this.#pcie;
    this.#bytes[at] = CAPABILITY_ID.PciExpress;
    // Version 2, endpoint.
    this.#view.setUint16(at + 2, 0x0002, true);
    // Role-based error reporting and Function Level Reset; payloads of 128 bytes.
    this.#view.setUint32(at + 4, (1 << 28) | (1 << 15), true);
    // Error reporting, relaxed ordering, payload and read request sizes, no snoop, extended tags.
    mask.setUint16(at + DEVICE_CONTROL, 0x7fff & ~(1 << 10), true);
    this.#view.setUint16(at + DEVICE_CONTROL, (1 << 4) | (1 << 11) | (2 << 12), true);
    // One lane at 2.5 GT/s, and so it runs.
    this.#view.setUint32(at + 12, 0x11, true);
    mask.setUint16(at + 16, 0x03c3, true);
    this.#view.setUint16(at + 18, 0x11, true);
  }

  /** Copies `into.length` bytes from `offset`; bytes outside the space read as ones. */
  read(offset: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) into[i] = this.#bytes[offset + i] ?? 0xff;
  }

  /**
   * Writes the bits that are writable.
   * @returns true if software asks for a Function Level Reset, which the caller carries out.
   */
  write(offset: number, from: Uint8Array): boolean {
    const flrAt = this.#pcie + DEVICE_CONTROL + 1 - offset;
    for (let i = 0; i < from.length && offset + i < SIZE; i++) {
      const at = offset + i;
      const mask = this.#writable[at];
      this.#bytes[at] = (this.#bytes[at] & ~mask) | (from[i] & mask);
    }
    return flrAt >= 0 && flrAt < from.length && (from[flrAt] & (INITIATE_FLR >>> 8)) !== 0;
  }

  /** The function may read and write memory. */
  get busMaster(): boolean {
    return (this.#bytes[HEADER.Command] & COMMAND.BusMaster) !== 0;
  }

  get intxDisabled(): boolean {
    return (this.#bytes[HEADER.Command + 1] & (COMMAND.InterruptDisable >>> 8)) !== 0;
  }

  get msiEnabled(): boolean {
    return (this.#bytes[this.#msi + MSI.Control] & 1) !== 0;
  }

  /** Number of MSI vectors that software gave us, 1..32. */
  get msiVectors(): number {
    return 1 << Math.min((this.#bytes[this.#msi + MSI.Control] >>> 4) & 7, 5);
  }

  /** Status.Interrupt: the function asserts INTx, whether or not it is disabled. */
  set interruptPending(pending: boolean) {
    if (pending) this.#bytes[HEADER.Status] |= STATUS.Interrupt;
    else this.#bytes[HEADER.Status] &= ~STATUS.Interrupt;
  }

  get interruptPending(): boolean {
    return (this.#bytes[HEADER.Status] & STATUS.Interrupt) !== 0;
  }

  /** Back to the state after power-on; base addresses are forgotten. */
  reset(): void {
    this.#bytes.set(this.#atReset);
  }
}
