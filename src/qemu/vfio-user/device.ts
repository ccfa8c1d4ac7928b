/** A PCI function served over vfio-user: what the protocol server needs of it, and what it gets. */

/** 0, or a positive Linux errno number. */
export type Errno = number;

/** VFIO's numbers of a PCI function's regions. */
export const PCI_REGION = { Bar0: 0, Bar5: 5, Rom: 6, Config: 7, Vga: 8, Count: 9 } as const;

/** VFIO's numbers of a PCI function's interrupts. */
export const PCI_IRQ = { Intx: 0, Msi: 1, Msix: 2, Err: 3, Req: 4, Count: 5 } as const;

export interface RegionInfo {
  /** In bytes; 0 if the function does not have it. */
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** Memory behind the whole region, which the VMM may map. It stays open for as long as the device is served. */
  readonly memory?: { readonly fd: number; readonly offset: number };
}

export const NO_REGION: RegionInfo = { size: 0, readable: false, writable: false };

export interface IrqInfo {
  readonly count: number;
  /** VFIO_IRQ_INFO_* bits: see IRQ_FLAG. */
  readonly flags: number;
}

/** Guest-physical memory that the VMM lets the device reach. */
export interface DmaRange {
  /** Multiples of 4 KiB; the end is at most 2^52. */
  readonly address: number;
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** The file behind it, open for the duration of the call; undefined if the VMM does not share this memory. */
  readonly fd: number | undefined;
  /** Byte offset in the file. */
  readonly offset: number;
}

/** The device's way to the VMM. None of it waits; after the connection has ended all of it does nothing. */
export interface DeviceLink {
  /**
   * Writes guest memory or a device in the guest's address space, some time later and in order. The VMM drops it while
   * bus mastering is off.
   * @param address below 2^53.
   * @param done called if the request was accepted, with what the VMM answered.
   * @returns 0 if the request is on its way; ENOTCONN, EMSGSIZE, or ENOBUFS if the VMM has left too many unanswered.
   */
  dmaWrite(address: number, data: Uint8Array, done?: (errno: Errno) => void): Errno;
  /** Reads likewise; `done` gets what was read, valid during the call, or an errno and nothing. */
  dmaRead(address: number, count: number, done: (errno: Errno, data: Uint8Array) => void): Errno;
  /**
   * Signals the eventfd of an interrupt, if the VMM gave one. One that masks itself (INTx) is remembered while masked.
   * @returns false if there is none.
   */
  interrupt(index: number, vector: number): boolean;
}

/** Every method returns without waiting and without throwing, whatever the VMM asks. */
export interface VfioUserDevice {
  /** Shown in messages: 'smmu', 'nvme0'. */
  readonly name: string;
  /** By {@link PCI_REGION}. */
  readonly regions: readonly RegionInfo[];
  /** By {@link PCI_IRQ}. */
  readonly irqs: readonly IrqInfo[];
  /** A VMM has connected and agreed on the protocol. */
  connected(link: DeviceLink): void;
  /** Fills `into`; the range is inside a readable region, at most 64 KiB, of any size and alignment. */
  regionRead(region: number, offset: number, into: Uint8Array): Errno;
  /** Likewise; `from` is valid during the call. */
  regionWrite(region: number, offset: number, from: Uint8Array): Errno;
  /** Memory came: it overlaps none that is there. @returns an errno to refuse it. */
  dmaMap(range: DmaRange): Errno;
  /** Memory that came is going, wholly. Nothing may touch it after this returns. */
  dmaUnmap(address: number, size: number): void;
  /** The VMM resets the function. */
  reset(): void;
  /** The connection has ended; all memory has been unmapped before. The device may be connected to again. */
  disconnected(): void;
}
