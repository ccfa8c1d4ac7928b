/** The PCI Express capability of an emulated endpoint, version 2; QEMU and Linux expect one behind a root port. */

import { CAPABILITY, type PciConfig } from './pci-config.ts';

const SIZE = 0x3c;
const FLAGS = 0x02;
const DEVICE_CAPABILITIES = 0x04;
const DEVICE_CONTROL = 0x08;
const LINK_CAPABILITIES = 0x0c;
const LINK_STATUS = 0x12;

/** Version 2, endpoint, interrupt message 0. */
const ENDPOINT = 0x0002;
/** Function-level reset, role-based error reporting. */
const CAPABILITIES = (1 << 28) | (1 << 15);
/** Error reporting enables, maximum payload and read request size. */
const CONTROL_WRITABLE = 0x70ef;
/** One lane at 2.5 GT/s. */
const LINK = 0x0011;

/** Adds the capability. @returns its offset. */
export function addExpressCapability(config: PciConfig): number {
  const offset = config.addCapability(CAPABILITY.PciExpress, SIZE);
  config.set16(offset + FLAGS, ENDPOINT);
  config.set32(offset + DEVICE_CAPABILITIES, CAPABILITIES);
  config.allowWrites(offset + DEVICE_CONTROL, 2, CONTROL_WRITABLE);
  config.set32(offset + LINK_CAPABILITIES, LINK);
  config.set16(offset + LINK_STATUS, LINK);
  return offset;
}
