/**
 * Whether Linux lets a device stall: only then does its SMMU driver resume what stalls. It follows the firmware's
 * property dma-can-stall, or a list of its own, and tells neither in any call.
 */

import type { HostFiles } from './host-files.ts';

/** Accelerators of HiSilicon that look like PCI and are not: the kernel marks them where ACPI cannot. */
const MARKED_BY_KERNEL = new Set(['a250', 'a251', 'a255', 'a256', 'a258', 'a259']);
const MARKED_REVISIONS = new Set(['0x21', '0x30']);
const HUAWEI = '0x19e5';

/** @param name PCI address, or the name of a platform device. */
export function mayStall(files: HostFiles, name: string): boolean {
  return ['pci', 'platform'].some((bus) => {
    const path = `/sys/bus/${bus}/devices/${name}`;
    const node = files.names(`${path}/of_node`);
    if (node.length > 0) return node.includes('dma-can-stall');
    return (
      files.text(`${path}/vendor`) === HUAWEI &&
      MARKED_BY_KERNEL.has((files.text(`${path}/device`) ?? '').slice(2)) &&
      MARKED_REVISIONS.has(files.text(`${path}/revision`) ?? '')
    );
  });
}
