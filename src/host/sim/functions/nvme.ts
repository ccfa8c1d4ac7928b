/**
 * A small NVM Express 1.4 controller as a PCI function: one namespace in memory, pairs of I/O queues, PRP lists, MSI and
 * INTx. Linux's nvme driver binds to it as it is.
 */

import type { Outcome } from '../../../smmu/transaction.ts';
import type { PciBus, PciFunction } from '../pci-function.ts';
import { ConfigSpace, type Header } from './config-space.ts';
import { Controller } from './nvme/controller.ts';
import { HostPort } from './nvme/host-port.ts';
import { identifyController, identifyDescriptors, identifyNamespace } from './nvme/identity.ts';
import { Namespace } from './nvme/namespace.ts';
import { BAR_SIZE } from './nvme/registers.ts';

export interface NvmeOptions {
  /** At most 20 characters. The NQN and namespace identifiers derive from it: two controllers of a machine must differ. */
  readonly serial: string;
  /** Called when a doorbell left commands over: call {@link NvmeFunction.run} some time later, not from inside. */
  readonly defer: () => void;
  /** Storage in bytes, a multiple of the block size below 2 TiB; or the storage itself. Default 128 MiB. */
  readonly storage?: number | Uint8Array;
  /** Bytes of a logical block. Default 512. */
  readonly blockSize?: 512 | 4096;
  /** Pairs of I/O queues, 1..64. Default 8. */
  readonly ioQueues?: number;
  /** MSI vectors, a power of two up to 32. Default 1. */
  readonly vectors?: number;
  /** Most bytes of one command: 4096 times a power of two, up to 4 MiB. Default 512 KiB. */
  readonly maxTransfer?: number;
  /** Default 'vsmmu NVMe'. */
  readonly model?: string;
}

const HEADER: Header = {
  vendorId: 0x1234,
  deviceId: 0x4e56,
  subsystemVendorId: 0x1234,
  subsystemId: 0x4e56,
  classCode: 0x01_0802,
  revision: 1,
};

const MIB = 0x10_0000;
const FIRMWARE = '1.0';
const BAR0 = 0;
const CONFIG = 7;

const isPowerOfTwo = (value: number): boolean => Number.isInteger(Math.log2(value));

export class NvmeFunction implements PciFunction {
  readonly kind = 'nvme';
  readonly regionSizes = [BAR_SIZE, 0, 0, 0, 0, 0, 0, 4096, 0];
  readonly irqCounts: readonly number[];
  /** What is stored, block by block. */
  readonly storage: Uint8Array;
  readonly #config: ConfigSpace;
  readonly #port: HostPort;
  readonly #controller: Controller;

  /** @throws RangeError if an option is out of its range */
  constructor(options: NvmeOptions) {
    const blockSize = options.blockSize ?? 512;
    const ioQueues = options.ioQueues ?? 8;
    const vectors = options.vectors ?? 1;
    const maxTransfer = options.maxTransfer ?? MIB / 2;
    const storage = options.storage ?? 128 * MIB;
    const size = typeof storage === 'number' ? storage : storage.length;
    if (options.serial.length === 0 || options.serial.length > 20)
      throw new RangeError('An NVMe serial number has 1 to 20 characters');
    if (size < blockSize || size % blockSize !== 0 || size / blockSize >= 2 ** 32)
      throw new RangeError(`NVMe storage of ${size} bytes is not 1 to 2^32 - 1 blocks of ${blockSize}`);
    if (!Number.isInteger(ioQueues) || ioQueues < 1 || ioQueues > 64)
      throw new RangeError(`${ioQueues} pairs of NVMe I/O queues are not 1 to 64`);
    if (!isPowerOfTwo(vectors) || vectors < 1 || vectors > 32)
      throw new RangeError(`${vectors} MSI vectors are not a power of two up to 32`);
    if (!isPowerOfTwo(maxTransfer) || maxTransfer < 4096 || maxTransfer > 4 * MIB)
      throw new RangeError(
        `An NVMe transfer limit of ${maxTransfer} is not a power of two from 4 KiB to 4 MiB`,
      );
    this.storage = typeof storage === 'number' ? new Uint8Array(size) : storage;
    this.irqCounts = [1, vectors, 0, 1, 1];
    this.#config = new ConfigSpace(HEADER, BAR_SIZE, vectors);
    this.#port = new HostPort(this.#config);
    const namespace = new Namespace(this.storage, Math.log2(blockSize));
    const identity = { serial: options.serial, model: options.model ?? 'vsmmu NVMe', firmware: FIRMWARE };
    const log2MaxPages = Math.log2(maxTransfer / 4096);
    this.#controller = new Controller({
      port: this.#port,
      namespace,
      identify: {
        controller: identifyController(identity, HEADER, log2MaxPages),
        namespace: identifyNamespace(identity, namespace),
        descriptors: identifyDescriptors(identity),
      },
      firmware: FIRMWARE,
      vectors,
      maxIoQueues: ioQueues,
      log2MaxPages,
      defer: options.defer,
    });
  }

  connect(bus: PciBus): void {
    this.#port.connect(bus);
  }

  regionRead(region: number, offset: number, into: Uint8Array): void {
    if (region === BAR0) this.#controller.read(offset, into);
    else if (region === CONFIG) this.#config.read(offset, into);
    else into.fill(0xff);
  }

  regionWrite(region: number, offset: number, from: Uint8Array): void {
    if (region === BAR0) this.#controller.write(offset, from);
    else if (region === CONFIG && this.#config.write(offset, from)) this.reset();
  }

  reset(): void {
    this.#controller.reset();
    this.#config.reset();
  }

  /**
   * Goes on with commands that a doorbell left over; harmless at any time.
   * @param budget at most this many commands and 4 KiB pages, about
   * @returns true if some still remain; `defer` was then called again
   */
  run(budget?: number): boolean {
    return this.#controller.run(budget);
  }

  /**
   * Makes the device do one transfer that nobody asked it for, as a broken or malicious one would: no queue, no Bus
   * Master Enable.
   * @param bytes what is written to, or filled from, the I/O virtual address
   */
  dma(write: boolean, iovaHi: number, iovaLo: number, bytes: Uint8Array): Outcome {
    return this.#port.rogue(write, iovaHi, iovaLo, bytes);
  }
}
