import { LAYOUT } from './device-tree.ts';
import type { Qtest } from './qtest.ts';

/**
 * The SMMU's function is alone on a bus that the guest's PCI code never sees, so nobody programs its BAR. We do, in
 * place of firmware: after start and after every reset, before the guest looks for its SMMU.
 */

/** Configuration-space offsets of a type 1 header (bridge) and of a type 0 header. */
const COMMAND = 0x04;
const BAR0 = 0x10;
const BUS_NUMBERS = 0x18;
const MEMORY_WINDOW = 0x20;

/** COMMAND: memory space and bus master; without the latter our DMA_WRITEs, so interrupts, go nowhere. */
const ENABLE = 0x6;

const config = (bus: number, offset: number): number => LAYOUT.ecam + (bus << 20) + offset;

export interface ConfigWrite {
  address: number;
  size: 2 | 4;
  value: number;
}

/** The configuration writes that put the SMMU's BAR 0 at `LAYOUT.smmu`, in order. */
export function hiddenBusWrites(): ConfigWrite[] {
  const port = LAYOUT.hiddenBus;
  const bus = port + 1;
  // Base and limit in units of 1 MiB, in bits [15:4] and [31:20]; they are equal, so the window is 1 MiB.
  const window = (LAYOUT.smmu >>> 16) & 0xfff0;
  return [
    { address: config(port, BUS_NUMBERS), size: 4, value: (bus << 16) | (bus << 8) | port },
    { address: config(port, MEMORY_WINDOW), size: 4, value: ((window << 16) | window) >>> 0 },
    { address: config(port, COMMAND), size: 2, value: ENABLE },
    { address: config(bus, BAR0), size: 4, value: LAYOUT.smmu },
    { address: config(bus, COMMAND), size: 2, value: ENABLE },
  ];
}

/** Makes the SMMU's registers appear at `LAYOUT.smmu`. Safe to repeat. */
export async function programHiddenBus(qtest: Qtest): Promise<void> {
  await Promise.all(hiddenBusWrites().map(({ address, size, value }) => qtest.write(address, size, value)));
}
