/**
 * What a contract case needs of a machine besides the Kernel port: both hosts can give it. User memory of a whole number
 * of pages begins at a page, and nothing is mapped behind the end of any.
 */

import type { Fd, Kernel } from '../../src/iommufd/kernel.ts';

export interface Rig {
  readonly kernel: Kernel;
  /** Devices with registers like iommu-testdev's in BAR0: two behind one SMMU, a third behind another. */
  readonly devices: readonly { readonly path: string; readonly address: string }[];
  /** Which of the devices, by index, has INTx, and from 4 to 16 MSI vectors. */
  readonly interrupting: number;
  /** Memory for a guest: zeros, from the beginning of a page. */
  ram(size: number): Uint8Array;
  /** Lets what the kernel put off happen: interrupts, wake-ups. */
  settle(): void;
  /** poll(2) with a timeout of 0. */
  poll(fd: Fd): number;
  /** read(2) to an address. @returns bytes, or a negative errno. */
  readTo(fd: Fd, address: bigint, count: number): number;
  /** lseek(2) to the start. @returns the position, or a negative errno. */
  lseek(fd: Fd): number;
  /** fcntl: F_GETFD and F_GETFL. */
  flags(fd: Fd): { readonly closeOnExec: boolean; readonly status: number };
  /** Physical address of a byte of pinned user memory. */
  physicalAddress(bytes: Uint8Array, offset: number): bigint;
}

/** An address that no process has. */
export const BAD_POINTER = 0x10n;

export type MakeRig = () => Rig;
