/** What stands behind a simulated VFIO device: a PCI function that does DMA through the simulated physical SMMU. */

import type { Outcome } from '../../smmu/transaction.ts';

/** The function's way to the rest of the machine. */
export interface PciBus {
  /**
   * Reads memory at an I/O virtual address, split at translation boundaries, in order. Stops at the first piece that
   * does not translate or meets no memory; what came before it has been copied.
   */
  read(iovaHi: number, iovaLo: number, into: Uint8Array): Outcome;
  /** Writes memory, likewise. */
  write(iovaHi: number, iovaLo: number, from: Uint8Array): Outcome;
  /** Signals an interrupt vector: the eventfd that VFIO_DEVICE_SET_IRQS gave for it, if any. */
  interrupt(index: 'intx' | 'msi' | 'msix', vector: number): void;
}

/** One PCI function. VFIO numbers its regions: BAR0..BAR5 are 0..5, ROM is 6, configuration space is 7. */
export interface PciFunction {
  /** Shown by lspci: 'nvme', 'dma-tester'. */
  readonly kind: string;
  /** Size in bytes of each VFIO region 0..8; 0 if absent. */
  readonly regionSizes: readonly number[];
  /** Number of vectors of INTx, MSI, MSI-X, ERR, REQ. */
  readonly irqCounts: readonly number[];
  /** Called once, before anything else. */
  connect(bus: PciBus): void;
  /** Offsets and lengths are inside the region; lengths are 1, 2, 4 or 8 for a BAR. */
  regionRead(region: number, offset: number, into: Uint8Array): void;
  regionWrite(region: number, offset: number, from: Uint8Array): void;
  /** A transfer that had stalled has ended, having gone on as if it had not. */
  dmaResumed?(outcome: Outcome): void;
  /** Function-level reset: back to the state after power-on; no DMA or interrupt comes out until it is driven again. */
  reset(): void;
}
