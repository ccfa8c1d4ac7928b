/** This machine as a scenario's host: its `/dev/iommu`, and VFIO devices that can be made to do DMA. */

import { setTimeout as sleep } from 'node:timers/promises';
import { fitToHost } from '../accel/compatibility.ts';
import { Edu } from '../host/linux/endpoints/edu.ts';
import { endpointKind, type Endpoint, type EndpointKind } from '../host/linux/endpoints/endpoint.ts';
import { IommuTestdev } from '../host/linux/endpoints/iommu-testdev.ts';
import type { HostFiles } from '../host/linux/host-files.ts';
import { inquire } from '../host/linux/inquiry.ts';
import type { FaultKind, HostInfo } from '../iommufd/host-info.ts';
import type { Kernel } from '../iommufd/kernel.ts';
import type { VfioDevice } from '../iommufd/vfio-device.ts';
import { GUEST_DEFAULT, type IdRegisters } from '../smmu/identification.ts';
import { ObjectLedger } from './object-ledger.ts';
import { probeHost, type DeviceReport } from './probe/probe.ts';
import type { Reason } from './probe/reason.ts';
import type { DmaOutcome, DmaRequest, ScenarioHost } from './scenario-host.ts';
import type { Scheduler } from './scheduler.ts';

/** A kernel that gives memory for guests and can let go of everything: LinuxKernel. */
export interface OwningKernel extends Kernel {
  guestRam(size: number): Uint8Array;
  release(): void;
}

/** Which device of this machine stands for a device of the scenario. */
export interface Assignment {
  readonly name: string;
  /** `/dev/vfio/devices/vfio0` */
  readonly path: string;
  /** How it is made to do DMA; by its PCI id if not given. */
  readonly kind?: EndpointKind;
}

/** This machine cannot do it. */
export class HostUnusable extends Error {
  override readonly name = 'HostUnusable';
  readonly code = 'UNSUPPORTED_HERE';
  readonly reasons: readonly Reason[];

  constructor(reasons: readonly Reason[]) {
    const lines = reasons.flatMap(({ text, commands }) => [
      `  ${text}`,
      ...commands.map((c) => `    # ${c}`),
    ]);
    super(['This machine cannot be the host:', ...lines, '"vsmmu probe" says more.'].join('\n'));
    this.reasons = reasons;
  }
}

interface Chosen {
  readonly name: string;
  readonly path: string;
  /** PCI address. */
  readonly address: string;
  readonly kind: EndpointKind | undefined;
  readonly info: HostInfo;
  /** Page requests are denied by Linux 7.3, so these are stalls or nothing. */
  readonly faults: FaultKind | undefined;
}

export interface LinuxHostOptions {
  readonly kernel: OwningKernel;
  readonly files: HostFiles;
  /** Names in the scenario, all of which need a device. */
  readonly devices: readonly string[];
  readonly assignments: readonly Assignment[];
}

/** Between two looks at descriptors and deferred work. */
const POLL_MS = 5;
/** A fault of a device shows after some milliseconds: an interrupt, the kernel's thread, our loop. */
const FAULT_MS = 100;

export class LinuxHost implements ScenarioHost {
  readonly description: string;
  /** Test devices report a larger transfer that fails as one fault for each word. */
  readonly largestDma = 4;
  readonly patienceMs = 3000;
  readonly #kernel: OwningKernel;
  #ledger: ObjectLedger;
  readonly #devices: ReadonlyMap<string, Chosen>;

  private constructor(kernel: OwningKernel, devices: readonly Chosen[], release: string | undefined) {
    this.#kernel = kernel;
    this.#ledger = new ObjectLedger(kernel);
    this.#devices = new Map(devices.map((device) => [device.name, device]));
    const list = devices.map(({ name, address, kind }) => `${name} is ${address} (${kind ?? 'no DMA'})`);
    this.description = `this machine, Linux ${release ?? '(unknown)'}: ${list.join(', ')}`;
  }

  /**
   * Finds a device for each name: the assigned ones, then test devices that can be used, those first that do most. Each
   * is asked whether it will do.
   * @throws HostUnusable with the reasons.
   */
  static open({ kernel, files, devices, assignments }: LinuxHostOptions): LinuxHost {
    const given = new Map(assignments.map((assignment) => [assignment.name, assignment]));
    const all = devices.every((name) => given.has(name));
    const paths = new Set(assignments.map(({ path }) => path));
    // Nobody asked for devices that are not named.
    const only = all ? (path: string) => paths.has(path) : () => true;
    const report = probeHost({ files, kernel, ids: GUEST_DEFAULT, only });
    if (report.reasons.length > 0) throw new HostUnusable(report.reasons);
    const found = report.smmus.flatMap((smmu) => smmu.devices);
    const spare = found.filter(
      (device) =>
        device.usable === 'yes' && !paths.has(device.vfio?.path ?? '') && kindOf(device) !== undefined,
    );
    spare.sort((a, b) => PREFERENCE.indexOf(kindOf(a)!) - PREFERENCE.indexOf(kindOf(b)!));
    const chosen = devices.map((name) => {
      const assignment = given.get(name);
      const device = assignment === undefined ? spare.shift() : named(found, assignment.path);
      if (device === undefined) throw new HostUnusable([noTestDevice(name)]);
      return choose(kernel, name, device, assignment?.kind);
    });
    return new LinuxHost(kernel, chosen, report.kernel.release);
  }

  get kernel(): Kernel {
    return this.#ledger;
  }

  fit(ids: IdRegisters): IdRegisters {
    let fitted = ids;
    for (const { info } of this.#devices.values()) fitted = fitToHost(fitted, info).ids;
    return fitted;
  }

  ram(size: number): Uint8Array {
    return this.#kernel.guestRam(size);
  }

  pathOf(name: string): string {
    return this.#device(name).path;
  }

  faultsOf(path: string): FaultKind | undefined {
    return [...this.#devices.values()].find((device) => device.path === path)?.faults;
  }

  async dma({ device, vfio, ...transfer }: DmaRequest): Promise<DmaOutcome> {
    const { kind } = this.#device(device);
    if (vfio === undefined) throw new RangeError(`${device} is not plugged, so nothing can drive it`);
    if (kind === undefined)
      throw new RangeError(`Nothing is known of how to make ${device} do DMA; iommu-testdev and edu can`);
    return (await endpointOf(kind, vfio).transfer(transfer)) ? 'ok' : 'abort';
  }

  async settle(scheduler: Scheduler, stirred: boolean): Promise<boolean> {
    const deadline = performance.now() + (stirred ? FAULT_MS : 0);
    let idle: boolean;
    do {
      idle = scheduler.run();
      await sleep(POLL_MS);
    } while (performance.now() < deadline);
    return idle && scheduler.run();
  }

  objects(): Record<string, number> {
    return this.#ledger.counts();
  }

  /** What comes afterwards finds the devices as at first. */
  close(): void {
    this.#kernel.release();
    this.#ledger = new ObjectLedger(this.#kernel);
  }

  #device(name: string): Chosen {
    const device = this.#devices.get(name);
    if (device === undefined) throw new RangeError(`The host has no device "${name}"`);
    return device;
  }
}

/** edu reads and writes, iommu-testdev only writes. */
const PREFERENCE: readonly EndpointKind[] = ['edu', 'iommu-testdev'];

const kindOf = (device: DeviceReport): EndpointKind | undefined => endpointKind(device.pci?.id ?? '');

const endpointOf = (kind: EndpointKind, vfio: VfioDevice): Endpoint =>
  kind === 'edu' ? new Edu(vfio) : new IommuTestdev(vfio);

function named(found: readonly DeviceReport[], path: string): DeviceReport {
  const device = found.find(({ vfio }) => vfio?.path === path);
  if (device === undefined)
    throw new HostUnusable([
      {
        code: 'NO_VFIO_FILE',
        text: `No device behind an SMMUv3 of this machine has the file ${path}.`,
        commands: ['vsmmu probe'],
      },
    ]);
  return device;
}

function choose(kernel: Kernel, name: string, device: DeviceReport, kind: EndpointKind | undefined): Chosen {
  const path = device.vfio?.path ?? '';
  if (device.usable !== 'yes')
    throw new HostUnusable(
      device.reasons.map((reason) => ({ ...reason, text: `${name} (${device.name}): ${reason.text}` })),
    );
  const { info, refused } = inquire(kernel, path);
  if (info === undefined) throw refused ?? new Error(`${path} says nothing of its SMMU`);
  const faults = device.properties?.stall === true ? 'stall' : undefined;
  return { name, path, address: device.name, kind: kind ?? kindOf(device), info, faults };
}

const noTestDevice = (name: string): Reason => ({
  code: 'NO_TEST_DEVICE',
  text: `There is no test device left for ${name}: an unused iommu-testdev or edu of QEMU, bound to vfio-pci. Another device can be named.`,
  commands: [`vsmmu run --host linux --device ${name}=/dev/vfio/devices/vfioN`],
});
