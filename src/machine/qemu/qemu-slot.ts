/** One device of the host in a guest in QEMU: it is behind the vSMMU, and served to QEMU at a socket. */

import { VFIO_PCI_MSI_IRQ_INDEX } from '../../iommufd/uapi/vfio.ts';
import { HostError } from '../../iommufd/errors.ts';
import type { Fd, Kernel, Watch } from '../../iommufd/kernel.ts';
import type { RegionInfo, VfioDevice } from '../../iommufd/vfio-device.ts';
import { joinNumber } from '../../bits/u64.ts';
import { type PassthroughPort, VfioPassthrough } from '../../qemu/vfio-passthrough.ts';
import { PCI_REGION } from '../../qemu/vfio-user/device.ts';
import { VfioUserServer } from '../../qemu/vfio-user/server.ts';
import type { PollLoop } from '../../qemu/poll-loop.ts';
import { OUTCOME, Transaction, Translation } from '../../smmu/transaction.ts';
import type { Syscalls } from '../../sys/syscalls.ts';
import type { Machine } from '../machine.ts';

export interface QemuSlotOptions {
  readonly sys: Syscalls;
  readonly loop: PollLoop;
  readonly kernel: Kernel;
  readonly machine: Machine;
  readonly name: string;
  /** VFIO device file. */
  readonly path: string;
  readonly sid: number;
  readonly socket: string;
  /** The guest does not have the device any more: it gave it back, or QEMU is gone. Called from within the loop. */
  readonly gone: () => void;
  /** What goes wrong, in sentences. */
  readonly log: (text: string) => void;
}

export class QemuSlot {
  readonly #options: QemuSlotOptions;
  readonly #device: VfioDevice;
  readonly #regions: readonly RegionInfo[];
  readonly #passthrough: VfioPassthrough;
  readonly #server: VfioUserServer;
  readonly #transaction = new Transaction();
  readonly #translation = new Translation();
  readonly #count = new Uint8Array(8);
  #vectors: { readonly fd: Fd; readonly watch: Watch }[] = [];

  /**
   * Takes the device from the host and listens.
   * @throws HostError if the host does not give it; QemuError if there can be no socket. Nothing is left then.
   */
  constructor(options: QemuSlotOptions) {
    this.#options = options;
    const { machine, name, path, sid, sys, loop, socket, log } = options;
    this.#device = machine.plug(name, path, sid);
    this.#transaction.sid = sid;
    this.#transaction.write = true;
    try {
      // The VGA region, which comes last, is an error on every other device.
      this.#regions = Array.from({ length: PCI_REGION.Config + 1 }, (_, region) =>
        this.#device.regionInfo(region),
      );
      this.#passthrough = new VfioPassthrough(name, this.#port());
      this.#server = new VfioUserServer({ sys, loop, path: socket, device: this.#passthrough, log });
    } catch (error) {
      machine.unplug(name);
      throw error;
    }
  }

  /** Ends the service and gives the device back. */
  close(): void {
    this.#server.close();
    this.#connect(0);
    this.#options.machine.unplug(this.#options.name);
  }

  get lostInterrupts(): number {
    return this.#passthrough.lostInterrupts;
  }

  #port(): PassthroughPort {
    return {
      regionSize: (region) => this.#regions[region]?.size ?? 0,
      read: (region, offset, into) => this.#device.read(this.#regions[region], offset, into),
      write: (region, offset, from) => this.#device.write(this.#regions[region], offset, from),
      msiChanged: (vectors) => this.#connect(vectors),
      translate: (hi, lo) => this.#translate(hi, lo),
      reset: () => this.#try(() => this.#device.reset()),
      connection: (connected) => {
        if (!connected) this.#options.gone();
      },
    };
  }

  /** Where a message of the device ends up, which is a write like any other to the guest's SMMU. */
  #translate(hi: number, lo: number): number | undefined {
    const transaction = this.#transaction;
    const translation = this.#translation;
    transaction.addrHi = hi;
    transaction.addrLo = lo;
    if (this.#options.machine.smmu.translate(transaction, translation) !== OUTCOME.Ok) return undefined;
    return joinNumber(translation.paHi, translation.paLo);
  }

  /** Has the device's first `vectors` messages come here, and no others. */
  #connect(vectors: number): void {
    const { kernel } = this.#options;
    if (this.#vectors.length > 0) this.#try(() => this.#device.setIrqs(VFIO_PCI_MSI_IRQ_INDEX, 0, []));
    for (const { fd, watch } of this.#vectors) {
      watch.stop();
      kernel.close(fd);
    }
    this.#vectors = [];
    for (let vector = 0; vector < vectors; vector++) {
      const fd = kernel.eventfd();
      if (fd < 0) {
        this.#options.log(`${this.#options.name}: no eventfd for vector ${vector} (errno ${-fd}).`);
        break;
      }
      const watch = kernel.onReadable(fd, () => {
        kernel.read(fd, this.#count);
        this.#passthrough.interrupt(vector);
      });
      this.#vectors.push({ fd, watch });
    }
    if (this.#vectors.length > 0)
      this.#try(() =>
        this.#device.setIrqs(
          VFIO_PCI_MSI_IRQ_INDEX,
          0,
          this.#vectors.map(({ fd }) => fd),
        ),
      );
  }

  /** What the host refuses here must not end the thread: the guest asked for it. */
  #try(step: () => void): void {
    try {
      step();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#options.log(`${this.#options.name}: ${error.message}`);
    }
  }
}
