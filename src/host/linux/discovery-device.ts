/** A device behind an IOMMU. */

import type { Access, HostFiles } from './host-files.ts';
import { mayStall } from './stall-mark.ts';

export interface HostDevice {
  /** PCI address `0000:01:00.0`, or the name of a device on another bus. */
  readonly name: string;
  readonly pci: PciFacts | undefined;
  /** The driver that it is bound to. */
  readonly driver: string | undefined;
  /** What the host cannot keep apart: undefined if the device is in no group. */
  readonly group: HostGroup | undefined;
  /** Its VFIO device; undefined unless a VFIO driver has it. */
  readonly vfio: VfioFacts | undefined;
  /** It is marked as a device that may stall. */
  readonly stallMark: boolean;
}

export interface PciFacts {
  /** Vendor and device, `1b36:0010`. */
  readonly id: string;
  /** Class code, 24 bits: base class, subclass, interface. */
  readonly classCode: number;
}

export interface HostGroup {
  readonly id: number;
  /** The other devices in it. */
  readonly others: readonly {
    readonly name: string;
    readonly driver: string | undefined;
    readonly bridge: boolean;
  }[];
  /** Ranges that firmware wants mapped one to one at all times, `0x8000000-0x80fffff`. */
  readonly firmwareRanges: readonly string[];
}

export interface VfioFacts {
  /** `/dev/vfio/devices/vfio0` */
  readonly path: string;
  /** The number that the kernel gave its character device, `511:0`; undefined if it makes none. */
  readonly number: string | undefined;
  readonly access: Access;
}

const GROUPS = '/sys/kernel/iommu_groups';

/** @param path its folder, or a link to it. */
export function readDevice(files: HostFiles, name: string, path: string): HostDevice {
  return {
    name,
    pci: pciFacts(files, path),
    driver: files.target(`${path}/driver`),
    group: groupOf(files, name, path),
    vfio: vfioOf(files, path),
    stallMark: mayStall(files, name),
  };
}

function pciFacts(files: HostFiles, path: string): PciFacts | undefined {
  const [vendor, device, classCode] = ['vendor', 'device', 'class'].map((file) =>
    files.text(`${path}/${file}`),
  );
  if (vendor === undefined || device === undefined || classCode === undefined) return undefined;
  return { id: `${vendor.slice(2)}:${device.slice(2)}`, classCode: Number(classCode) };
}

/** Bridges have class 06 and cannot be assigned, nor do they keep others in their group from it. */
export const isBridge = (classCode: number | undefined): boolean => (classCode ?? 0) >>> 16 === 0x06;

function groupOf(files: HostFiles, name: string, path: string): HostGroup | undefined {
  const id = files.target(`${path}/iommu_group`);
  if (id === undefined) return undefined;
  const others = files
    .names(`${GROUPS}/${id}/devices`)
    .filter((other) => other !== name)
    .map((other) => {
      const at = `${GROUPS}/${id}/devices/${other}`;
      return {
        name: other,
        driver: files.target(`${at}/driver`),
        bridge: isBridge(pciFacts(files, at)?.classCode),
      };
    });
  const firmwareRanges = (files.text(`${GROUPS}/${id}/reserved_regions`) ?? '')
    .split('\n')
    .map((line) => line.split(/\s+/))
    // "direct-relaxable" gives way to a guest, and "msi" is the host's own.
    .filter(([, , type]) => type === 'direct')
    .map(([first, last]) => `0x${BigInt(first).toString(16)}-0x${BigInt(last).toString(16)}`);
  return { id: Number(id), others, firmwareRanges };
}

function vfioOf(files: HostFiles, path: string): VfioFacts | undefined {
  const [name] = files.names(`${path}/vfio-dev`);
  if (name === undefined) return undefined;
  const node = `/dev/vfio/devices/${name}`;
  return { path: node, number: files.text(`${path}/vfio-dev/${name}/dev`), access: files.access(node) };
}
