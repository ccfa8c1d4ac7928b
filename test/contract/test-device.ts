/** A driver for the DMA test endpoint, through its VFIO descriptor. */

import type { Fd, Kernel } from '../../src/iommufd/kernel.ts';

/** BAR0 and configuration space in the descriptor. */
const BAR0 = 0;
const CONFIG = 7 * 2 ** 40;
const PCI_COMMAND = CONFIG + 4;
const MEMORY_AND_MASTER = 0x6;

/** Registers of iommu-testdev. */
const REG = {
  Trigger: 0x00,
  IovaLo: 0x04,
  IovaHi: 0x08,
  Length: 0x0c,
  Result: 0x10,
  Doorbell: 0x14,
  Attributes: 0x18,
  PhysicalLo: 0x1c,
  PhysicalHi: 0x20,
} as const;
/** Non-secure, valid. */
const ATTRIBUTES = 0xa;

export const TX_FAIL = 0xdead_0002;

const NAMES: Record<number, string> = {
  0: '0(ok)',
  0xdead_0001: '0xdead0001(BAD_LEN)',
  [TX_FAIL]: '0xdead0002(TX_FAIL)',
  0xdead_0003: '0xdead0003(RD_FAIL)',
  0xdead_0004: '0xdead0004(MISMATCH)',
};

export const resultText = (result: number): string => NAMES[result] ?? `0x${result.toString(16)}`;

export class TestDevice {
  readonly #kernel: Kernel;
  readonly fd: Fd;

  constructor(kernel: Kernel, fd: Fd) {
    this.#kernel = kernel;
    this.fd = fd;
  }

  /** Lets the device answer and do DMA. */
  enable(): void {
    this.#kernel.pwrite(this.fd, Uint8Array.of(MEMORY_AND_MASTER, 0), PCI_COMMAND);
  }

  write32(offset: number, value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    this.#kernel.pwrite(this.fd, bytes, BAR0 + offset);
  }

  read32(offset: number): number {
    const bytes = new Uint8Array(4);
    this.#kernel.pread(this.fd, bytes, BAR0 + offset);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  /** Writes the pattern 0x12345678 to an IOVA, and compares what is then at a physical address. @returns the result register. */
  dma(iova: bigint, physical: bigint): number {
    this.write32(REG.IovaLo, Number(iova & 0xffff_ffffn));
    this.write32(REG.IovaHi, Number(iova >> 32n));
    this.write32(REG.Length, 4);
    this.write32(REG.Attributes, ATTRIBUTES);
    this.write32(REG.PhysicalLo, Number(physical & 0xffff_ffffn));
    this.write32(REG.PhysicalHi, Number(physical >> 32n));
    this.write32(REG.Doorbell, 1);
    this.read32(REG.Trigger);
    return this.read32(REG.Result);
  }
}
