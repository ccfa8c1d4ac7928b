/**
 * A PCI function that does nothing but DMA, for tests: the registers of QEMU's iommu-testdev (write a pattern through
 * the SMMU, read it back by physical address), and a buffer of its own from and to which any transfer can be started.
 */

import { hiOf, loOf } from '../../../bits/u64.ts';
import { MEM_OK, type Memory } from '../../../memory/memory.ts';
import { OUTCOME, type Outcome } from '../../../smmu/transaction.ts';
import type { PciBus, PciFunction } from '../pci-function.ts';
import { ConfigSpace } from './config-space.ts';

/** Registers of BAR0, 32 bits each. */
export const DMA_TESTER = {
  /** Reading it carries out an armed transfer and returns the result. */
  Trigger: 0x00,
  IovaLo: 0x04,
  IovaHi: 0x08,
  /** Bytes; at most the size of the buffer. */
  Length: 0x0c,
  Result: 0x10,
  /** 1 arms a transfer. */
  Doorbell: 0x14,
  /** {@link ATTRIBUTES_VALID} has to be set. */
  Attributes: 0x18,
  /** Physical address for the read-back of a pattern; 0 is none. */
  PhysicalLo: 0x1c,
  PhysicalHi: 0x20,
  /** {@link OPERATION} */
  Operation: 0x24,
  /** Message vector to signal when a transfer has ended, plus 1; 0 is none. */
  Interrupt: 0x28,
  /** Start of the buffer. */
  Buffer: 0x1000,
} as const;

export const BUFFER_SIZE = 0x1000;
const BAR_SIZE = DMA_TESTER.Buffer + BUFFER_SIZE;
/** Attributes: bit 1 valid, bit 3 Non-secure. */
const ATTRIBUTES_VALID = 0x2;

export const OPERATION = {
  /** Fills the target with {@link PATTERN}. */
  Pattern: 0,
  /** Memory to buffer. */
  Read: 1,
  /** Buffer to memory. */
  Write: 2,
} as const;

export const PATTERN = 0x1234_5678;

/** Values of the Result register. */
export const RESULT = {
  Ok: 0,
  Idle: 0xffff_fffe,
  Busy: 0xffff_ffff,
  BadLength: 0xdead_0001,
  TransferFailed: 0xdead_0002,
  ReadBackFailed: 0xdead_0003,
  Mismatch: 0xdead_0004,
  BadAttributes: 0xdead_0006,
  NotArmed: 0xdead_0007,
} as const;

const CONFIG_REGION = 7;
const BAR0_REGION = 0;
const VECTORS = 4;
const HEADER = {
  vendorId: 0x1b36,
  deviceId: 0x0005,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
  // No class defined.
  classCode: 0xff_0000,
  revision: 0,
};

export class DmaTester implements PciFunction {
  readonly kind = 'dma-tester';
  readonly regionSizes = [BAR_SIZE, 0, 0, 0, 0, 0, 0, 4096, 0];
  readonly irqCounts = [1, VECTORS, 0, 0, 1];
  /** What reads bring in and writes send out. */
  readonly buffer = new Uint8Array(BUFFER_SIZE);
  /** How transfers ended that had stalled. */
  readonly resumed: Outcome[] = [];
  readonly #registers = new Uint32Array(DMA_TESTER.Buffer / 4);
  readonly #config = new ConfigSpace(HEADER, BAR_SIZE, VECTORS);
  readonly #physical: Memory | undefined;
  #bus: PciBus | undefined;

  /** @param physical memory for reading patterns back; without it a pattern is never compared. */
  constructor(physical?: Memory) {
    this.#physical = physical;
    this.#registers[DMA_TESTER.Result >>> 2] = RESULT.Idle;
  }

  connect(bus: PciBus): void {
    this.#bus = bus;
  }

  /** Starts a read now, whatever the registers say. @returns how it ended; on failure `into` may be partly filled. */
  dmaRead(iova: bigint, into: Uint8Array): Outcome {
    return this.#bus?.read(hiOf(iova), loOf(iova), into) ?? OUTCOME.Abort;
  }

  /** Starts a write now, whatever the registers say. */
  dmaWrite(iova: bigint, from: Uint8Array): Outcome {
    return this.#bus?.write(hiOf(iova), loOf(iova), from) ?? OUTCOME.Abort;
  }

  /** Writes one 32-bit word. */
  dmaWrite32(iova: bigint, value: number): Outcome {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    return this.dmaWrite(iova, bytes);
  }

  /** Sends a message interrupt. */
  interrupt(vector: number): void {
    this.#bus?.interrupt('msi', vector);
  }

  dmaResumed(outcome: Outcome): void {
    this.resumed.push(outcome);
  }

  regionRead(region: number, offset: number, into: Uint8Array): void {
    if (region === CONFIG_REGION) {
      this.#config.read(offset, into);
      return;
    }
    into.fill(0);
    if (region !== BAR0_REGION) return;
    if (offset >= DMA_TESTER.Buffer) {
      const at = offset - DMA_TESTER.Buffer;
      into.set(this.buffer.subarray(at, at + into.length));
      return;
    }
    if (offset === DMA_TESTER.Trigger) this.#run();
    const index = offset === DMA_TESTER.Trigger ? DMA_TESTER.Result : offset;
    const bytes = new Uint8Array(this.#registers.buffer, this.#registers.byteOffset);
    into.set(bytes.subarray(index, index + into.length));
  }

  regionWrite(region: number, offset: number, from: Uint8Array): void {
    if (region === CONFIG_REGION) {
      if (this.#config.write(offset, from)) this.reset();
      return;
    }
    if (region !== BAR0_REGION) return;
    if (offset >= DMA_TESTER.Buffer) {
      this.buffer.set(from, offset - DMA_TESTER.Buffer);
      return;
    }
    if (offset === DMA_TESTER.Result) return;
    const bytes = new Uint8Array(this.#registers.buffer, this.#registers.byteOffset);
    bytes.set(from, offset);
  }

  reset(): void {
    this.#registers.fill(0);
    this.#registers[DMA_TESTER.Result >>> 2] = RESULT.Idle;
    this.buffer.fill(0);
    this.#config.reset();
  }

  #register(offset: number): number {
    return this.#registers[offset >>> 2];
  }

  #run(): void {
    const armed = (this.#register(DMA_TESTER.Doorbell) & 1) !== 0;
    this.#registers[DMA_TESTER.Doorbell >>> 2] = 0;
    this.#registers[DMA_TESTER.Result >>> 2] = armed ? this.#transfer() : RESULT.NotArmed;
    const interrupt = this.#register(DMA_TESTER.Interrupt);
    if (armed && interrupt > 0) this.interrupt(interrupt - 1);
  }

  #transfer(): number {
    const length = this.#register(DMA_TESTER.Length);
    if (length === 0 || length > BUFFER_SIZE) return RESULT.BadLength;
    if ((this.#register(DMA_TESTER.Attributes) & ATTRIBUTES_VALID) === 0) return RESULT.BadAttributes;
    const bus = this.#bus;
    // Without Bus Master Enable nothing leaves the function.
    if (bus === undefined || !this.#config.busMaster) return RESULT.TransferFailed;
    const hi = this.#register(DMA_TESTER.IovaHi);
    const lo = this.#register(DMA_TESTER.IovaLo);
    const bytes = this.buffer.subarray(0, length);
    switch (this.#register(DMA_TESTER.Operation)) {
      case OPERATION.Read:
        return bus.read(hi, lo, bytes) === OUTCOME.Ok ? RESULT.Ok : RESULT.TransferFailed;
      case OPERATION.Write:
        return bus.write(hi, lo, bytes) === OUTCOME.Ok ? RESULT.Ok : RESULT.TransferFailed;
      default:
        return this.#pattern(bus, hi, lo, length);
    }
  }

  /** Fills the target with the pattern and, if told where it lies in memory, looks whether it got there. */
  #pattern(bus: PciBus, hi: number, lo: number, length: number): number {
    const bytes = pattern(length);
    if (bus.write(hi, lo, bytes) !== OUTCOME.Ok) return RESULT.TransferFailed;
    const physicalLo = this.#register(DMA_TESTER.PhysicalLo);
    const physicalHi = this.#register(DMA_TESTER.PhysicalHi);
    if (this.#physical === undefined || (physicalLo === 0 && physicalHi === 0)) return RESULT.Ok;
    const found = new Uint8Array(length);
    if (this.#physical.readBytes(physicalHi, physicalLo, found) !== MEM_OK) return RESULT.ReadBackFailed;
    return found.every((byte, i) => byte === bytes[i]) ? RESULT.Ok : RESULT.Mismatch;
  }
}

/** {@link PATTERN} over and over, little-endian. */
function pattern(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = PATTERN >>> ((i % 4) * 8);
  return bytes;
}
