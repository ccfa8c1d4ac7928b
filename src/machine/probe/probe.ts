/** `vsmmu probe`: which devices of this machine can be behind an accelerated vSMMU, and why the others cannot. */

import { fitToHost } from '../../accel/compatibility.ts';
import { offersStalls } from '../../accel/recoverable-faults.ts';
import type { HostDevice } from '../../host/linux/discovery-device.ts';
import type { KernelFacts } from '../../host/linux/discovery-kernel.ts';
import { discover, type Discovery, type HostIommu, type IommuKind } from '../../host/linux/discovery.ts';
import type { HostFiles } from '../../host/linux/host-files.ts';
import { inquire, type Inquiry } from '../../host/linux/inquiry.ts';
import type { HostInfo } from '../../iommufd/host-info.ts';
import type { Kernel } from '../../iommufd/kernel.ts';
import type { IdRegisters } from '../../smmu/identification.ts';
import { IDR0, IDR1, IDR3, IDR5, OAS_BITS } from '../../spec/registers.ts';
import { deviceNotes, deviceReasons } from './device-reasons.ts';
import { hardwareReasons } from './hardware-reasons.ts';
import { machineReasons } from './machine-reasons.ts';
import type { Reason } from './reason.ts';

export interface ProbeOptions {
  readonly files: HostFiles;
  /** Through which devices are asked; a sentence if there is no way to, or if it is not wanted. */
  readonly kernel: Kernel | string;
  /** What a guest is told of its SMMU. */
  readonly ids: IdRegisters;
  /** Which devices may be asked, by their VFIO files; all if not given. */
  readonly only?: (path: string) => boolean;
}

/** `unknown`: nothing is known to stand in the way, but the device was not asked. */
export type Usable = 'yes' | 'no' | 'unknown';

/** Under the names of QEMU's `-device arm-smmuv3`: the most that a vSMMU may offer. */
export interface VsmmuProperties {
  readonly ats: boolean;
  readonly ril: boolean;
  /** Bits of SubstreamID. */
  readonly ssidsize: number;
  /** Bits of output address. */
  readonly oas: number;
  /** Faults of this device can wait for the guest. */
  readonly stall: boolean;
}

export interface DeviceReport extends Omit<HostDevice, 'vfio'> {
  readonly vfio: HostDevice['vfio'] | null;
  readonly usable: Usable;
  readonly properties: VsmmuProperties | null;
  /** Why not; what is wrong with the machine is said there. */
  readonly reasons: readonly Reason[];
  readonly notes: readonly string[];
}

export interface SmmuReport {
  readonly name: string;
  /** Raw ID registers as hexadecimal text, if a device could be asked. */
  readonly registers: Readonly<Record<string, string>> | null;
  readonly devices: readonly DeviceReport[];
}

export interface ProbeReport {
  /** The best of all devices. */
  readonly usable: Usable;
  readonly kernel: KernelFacts;
  readonly iommufd: Discovery['iommufd'];
  /** What stands in the way of every device. */
  readonly reasons: readonly Reason[];
  readonly smmus: readonly SmmuReport[];
  readonly otherIommus: readonly {
    readonly name: string;
    readonly kind: IommuKind;
    readonly devices: number;
  }[];
  /** Why devices were not asked, or null if those that may be were. */
  readonly notAsked: string | null;
}

/** Reads, and asks the devices that nothing stands in the way of. Nothing is changed; see {@link inquire}. */
export function probeHost({ files, kernel, ids, only = () => true }: ProbeOptions): ProbeReport {
  const found = discover(files);
  const reasons = machineReasons(found);
  // A limit that can be raised for the guest's process does not keep a device from answering.
  const hopeless = reasons.some(({ code }) => code !== 'LOCKED_MEMORY');
  const ask = typeof kernel === 'string' || hopeless ? undefined : kernel;
  const smmus = found.iommus
    .filter(({ kind }) => kind === 'arm-smmu-v3')
    .map((iommu) =>
      reportSmmu(iommu, {
        vfioPci: found.vfioPci,
        hearsStalls: found.kernel.options?.ARM_SMMU_V3_SVA !== 'n',
        blocked: reasons.length > 0,
        ask,
        only,
        ids,
      }),
    );
  const verdicts = smmus.flatMap(({ devices }) => devices.map(({ usable }) => usable));
  return {
    usable: (['yes', 'unknown'] as const).find((usable) => verdicts.includes(usable)) ?? 'no',
    kernel: found.kernel,
    iommufd: found.iommufd,
    reasons,
    smmus,
    otherIommus: found.iommus
      .filter(({ kind }) => kind !== 'arm-smmu-v3')
      .map(({ name, kind, devices }) => ({ name, kind, devices: devices.length })),
    notAsked: typeof kernel === 'string' ? kernel : null,
  };
}

interface Circumstances {
  readonly vfioPci: boolean;
  /** As far as is known, the kernel lets a page table with a FAULT_QUEUE be attached: CONFIG_ARM_SMMU_V3_SVA. */
  readonly hearsStalls: boolean;
  /** Something about the machine keeps every device from being used. */
  readonly blocked: boolean;
  readonly ask: Kernel | undefined;
  readonly only: (path: string) => boolean;
  readonly ids: IdRegisters;
}

function reportSmmu({ name, devices }: HostIommu, circumstances: Circumstances): SmmuReport {
  let registers: SmmuReport['registers'] = null;
  const reports = devices.map((device) => {
    const { report, info } = reportDevice(device, circumstances);
    if (info !== undefined) registers = registersOf(info);
    return report;
  });
  return { name, registers, devices: reports };
}

function reportDevice(
  device: HostDevice,
  { vfioPci, hearsStalls, blocked, ask, only, ids }: Circumstances,
): { readonly report: DeviceReport; readonly info: HostInfo | undefined } {
  const reasons = deviceReasons(device, vfioPci);
  const notes = reasons.length === 0 ? deviceNotes(device) : [];
  const path = device.vfio?.path ?? '';
  let answer: Inquiry | undefined;
  if (reasons.length === 0 && ask !== undefined && only(path)) {
    answer = inquire(ask, path);
    reasons.push(...hardwareReasons(answer, ids, path));
  }
  const info = answer?.info;
  const usable = reasons.length > 0 || blocked ? 'no' : answer === undefined ? 'unknown' : 'yes';
  if (usable === 'yes' && info !== undefined)
    for (const { field, from, to, why } of fitToHost(ids, info).lowered)
      notes.push(`A guest sees ${field}=${to} instead of ${from}: ${why}.`);
  const stalls = device.stallMark && info !== undefined && offersStalls(info.idr[0]);
  if (usable === 'yes' && stalls && !hearsStalls) notes.push(NO_SVA);
  return {
    report: {
      ...device,
      vfio: device.vfio ?? null,
      usable,
      properties: info === undefined ? null : propertiesOf(info, stalls && hearsStalls),
      reasons,
      notes,
    },
    info,
  };
}

const NO_SVA =
  'Its faults could wait for the guest, but this kernel is built without CONFIG_ARM_SMMU_V3_SVA.';

function propertiesOf({ idr, ats }: HostInfo, stall: boolean): VsmmuProperties {
  return {
    ats: ats && IDR0.ATS.of(idr[0]) === 1,
    ril: IDR3.RIL.of(idr[3]) === 1,
    ssidsize: IDR1.SSIDSIZE.of(idr[1]),
    oas: OAS_BITS[IDR5.OAS.of(idr[5])],
    stall,
  };
}

function registersOf({ idr, IIDR, AIDR }: HostInfo): Record<string, string> {
  const hex = (value: number): string => `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
  return {
    ...Object.fromEntries(idr.map((value, n) => [`IDR${n}`, hex(value)])),
    IIDR: hex(IIDR),
    AIDR: hex(AIDR),
  };
}
