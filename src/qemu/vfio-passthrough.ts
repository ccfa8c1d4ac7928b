/**
 * The PCI function that puts a VFIO device of the host into a guest in QEMU. Accesses go through to the device. Its
 * interrupts do not go through QEMU: the guest aims them at an address that only our SMMU can translate, so we do, and
 * have QEMU make the write.
 */

import { ERRNO } from '../sys/errno.ts';
import { ConfigBytes } from './config-bytes.ts';
import { MsiCapability, msiForm, msiSize } from './msi-capability.ts';
import { CAPABILITY, PCI } from './pci-config.ts';
import {
  type DeviceLink,
  type Errno,
  type IrqInfo,
  NO_REGION,
  PCI_REGION,
  type RegionInfo,
  type VfioUserDevice,
} from './vfio-user/device.ts';
import { IRQ_FLAG } from './vfio-user/messages.ts';

/** The VFIO device, and the machine that it is part of. Nothing here throws. */
export interface PassthroughPort {
  /** Size in bytes of a VFIO region, 0 if it is absent. */
  regionSize(region: number): number;
  /** Reads a region of the device. @returns bytes, or a negative errno. */
  read(region: number, offset: number, into: Uint8Array): number;
  write(region: number, offset: number, from: Uint8Array): number;
  /** The guest has turned MSIs on, with so many vectors, or off (0). {@link VfioPassthrough.interrupt} follows. */
  msiChanged(vectors: number): void;
  /**
   * Where a write of the device to this address ends up, through the guest's SMMU.
   * @returns a guest-physical address, or undefined if the SMMU faulted it (and has said so).
   */
  translate(addressHi: number, addressLo: number): number | undefined;
  /** Resets the function, as VFIO_DEVICE_RESET. */
  reset(): void;
  /** QEMU has connected, or has gone: the guest does not have the device any more. */
  connection(connected: boolean): void;
}

const NO_IRQ: IrqInfo = { count: 0, flags: IRQ_FLAG.Eventfd };
/** A list of capabilities cannot be longer than this without a loop. */
const MAX_CAPABILITIES = 48;
const ACCESS_SIZES = [8, 4, 2, 1] as const;

export class VfioPassthrough implements VfioUserDevice {
  readonly name: string;
  readonly regions: readonly RegionInfo[];
  readonly irqs: readonly IrqInfo[];
  readonly #port: PassthroughPort;
  /** What the guest reads in place of the device's own bytes. */
  readonly #overlay: ConfigBytes;
  /** Not 0 where the overlay counts. */
  readonly #covered: Uint8Array;
  readonly #msi: MsiCapability | undefined;
  #link: DeviceLink | undefined;
  #vectors = 0;
  /** Interrupts that did not reach the guest: masked by a fault, or QEMU refused the write. */
  lostInterrupts = 0;

  /** Reads the device's configuration space, so it has to be there. */
  constructor(name: string, port: PassthroughPort) {
    this.name = name;
    this.#port = port;
    const configSize = port.regionSize(PCI_REGION.Config);
    this.#overlay = new ConfigBytes(configSize);
    this.#covered = new Uint8Array(configSize);
    this.#msi = this.#coverConfig();
    this.regions = Array.from({ length: PCI_REGION.Count }, (_, region) =>
      region <= PCI_REGION.Bar5 || region === PCI_REGION.Config
        ? { size: port.regionSize(region), readable: true, writable: true }
        : NO_REGION,
    );
    const msi: IrqInfo = {
      count: this.#msi?.form.vectors ?? 0,
      flags: IRQ_FLAG.Eventfd | IRQ_FLAG.Noresize,
    };
    this.irqs = [NO_IRQ, msi, NO_IRQ, NO_IRQ, NO_IRQ];
  }

  /**
   * Decides what the guest sees otherwise than the device has it: no ROM, no INTx (QEMU cannot tell when such a line
   * falls), no MSI-X (QEMU keeps its table to itself), and an MSI capability of our own.
   */
  #coverConfig(): MsiCapability | undefined {
    const config = new Uint8Array(this.#overlay.size);
    this.#port.read(PCI_REGION.Config, 0, config);
    this.#cover(PCI.RomBar, 4);
    this.#cover(PCI.InterruptPin, 1);

    let msi: MsiCapability | undefined;
    let link: number = PCI.CapabilitiesPointer;
    let offset = config[PCI.CapabilitiesPointer] & 0xfc;
    for (let n = 0; n < MAX_CAPABILITIES && offset >= PCI.HeaderEnd; n++) {
      const id = config[offset];
      if (id !== CAPABILITY.MsiX) {
        this.#cover(link, 1);
        this.#overlay.set8(link, offset);
        link = offset + 1;
      }
      if (id === CAPABILITY.Msi && msi === undefined) {
        const form = msiForm(config[offset + 2] | (config[offset + 3] << 8));
        if (offset + msiSize(form) <= PCI.CapabilitiesEnd) {
          msi = new MsiCapability(this.#overlay, offset, form);
          this.#cover(offset, msiSize(form));
        }
      }
      offset = config[offset + 1] & 0xfc;
    }
    this.#cover(link, 1);
    this.#overlay.set8(link, 0);
    return msi;
  }

  #cover(offset: number, size: number): void {
    this.#covered.fill(1, offset, offset + size);
  }

  connected(link: DeviceLink): void {
    this.#link = link;
    this.#port.connection(true);
  }

  disconnected(): void {
    this.#link = undefined;
    this.#overlay.reset();
    this.#msi?.clearPending();
    this.#updateMsi();
    this.#port.connection(false);
  }

  regionRead(region: number, offset: number, into: Uint8Array): Errno {
    if (region !== PCI_REGION.Config) return this.#eachAccess(region, offset, into, false);
    const got = this.#port.read(region, offset, into);
    if (got !== into.length) return got < 0 ? -got : ERRNO.EIO;
    const overlay = new Uint8Array(into.length);
    this.#overlay.read(offset, overlay);
    for (let i = 0; i < into.length; i++) if (this.#covered[offset + i] !== 0) into[i] = overlay[i];
    return 0;
  }

  /** A device has to see its Message Control too: it sends no MSIs unless these are enabled. */
  regionWrite(region: number, offset: number, from: Uint8Array): Errno {
    if (region !== PCI_REGION.Config) return this.#eachAccess(region, offset, from, true);
    const put = this.#port.write(region, offset, from);
    this.#overlay.write(offset, from);
    this.#updateMsi();
    for (const vector of this.#msi?.takeUnmasked() ?? []) this.interrupt(vector);
    if (put === from.length) return 0;
    return put < 0 ? -put : ERRNO.EIO;
  }

  /** Cuts an access to a BAR into pieces of a size and alignment that a CPU could have made. */
  #eachAccess(region: number, offset: number, bytes: Uint8Array, write: boolean): Errno {
    for (let at = 0; at < bytes.length;) {
      const size = ACCESS_SIZES.find((n) => n <= bytes.length - at && (offset + at) % n === 0) ?? 1;
      const piece = bytes.subarray(at, at + size);
      const done = write
        ? this.#port.write(region, offset + at, piece)
        : this.#port.read(region, offset + at, piece);
      if (done !== size) return done < 0 ? -done : ERRNO.EIO;
      at += size;
    }
    return 0;
  }

  #updateMsi(): void {
    const vectors = this.#msi?.enabled === true ? this.#msi.vectors : 0;
    if (vectors === this.#vectors) return;
    this.#vectors = vectors;
    this.#port.msiChanged(vectors);
  }

  /** The device has signalled a vector: its write goes through the guest's SMMU, and what is left of it to QEMU. */
  interrupt(vector: number): void {
    const msi = this.#msi;
    if (msi === undefined || vector >= this.#vectors) return;
    if (msi.masked(vector)) {
      msi.setPending(vector);
      return;
    }
    const address = this.#port.translate(msi.addressHi, msi.addressLo);
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, msi.data(vector), true);
    const errno =
      address === undefined
        ? ERRNO.EFAULT
        : (this.#link?.dmaWrite(address, data, (answer) => {
            if (answer !== 0) this.lostInterrupts++;
          }) ?? ERRNO.ENOTCONN);
    if (errno !== 0) this.lostInterrupts++;
  }

  /** The device reaches memory through the host's IOMMU; what QEMU shares here, the SMMU's function has got as well. */
  dmaMap(): Errno {
    return 0;
  }

  dmaUnmap(): void {}

  reset(): void {
    this.#overlay.reset();
    this.#msi?.clearPending();
    this.#updateMsi();
    this.#port.reset();
  }
}
