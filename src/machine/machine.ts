/**
 * One guest's share of the hardware: RAM, an SMMU with an accelerator behind it, and slots for devices. It does not
 * know what runs in the guest, nor whether the host is embedded.
 */

import { Accelerator, type AcceleratorState, type PlugRequest } from '../accel/accelerator.ts';
import { Identity, type SmmuProperties } from '../accel/properties.ts';
import { AddressSpace } from '../accel/address-space.ts';
import type { ReconcileReport } from '../accel/report.ts';
import { hiOfNumber, loOfNumber } from '../bits/u64.ts';
import { HostError } from '../iommufd/errors.ts';
import type { FaultKind } from '../iommufd/host-info.ts';
import type { Kernel } from '../iommufd/kernel.ts';
import type { VfioDevice } from '../iommufd/vfio-device.ts';
import type { Memory } from '../memory/memory.ts';
import type { IdRegisters } from '../smmu/identification.ts';
import type { InterruptPort } from '../smmu/ports.ts';
import { Smmu } from '../smmu/smmu.ts';
import type { TraceRing } from '../trace/trace-ring.ts';
import { traceReconcile } from './reconcile-trace.ts';
import { watchRemoval, type RemovalWatch } from './removal.ts';
import type { Scheduler } from './scheduler.ts';

export interface MachineOptions {
  readonly kernel: Kernel;
  readonly memory: Memory;
  /** What the guest is told as far as {@link properties} and the host do not say otherwise. */
  readonly ids: IdRegisters;
  /** What its owner asks for; `auto` follows the host of the first device, until the guest looks. */
  readonly properties?: SmmuProperties;
  /** What `auto` is if the guest looks before there is a device. */
  readonly floor?: SmmuProperties;
  readonly interrupts: InterruptPort;
  readonly scheduler: Scheduler;
  /** Told of every reconcile. */
  readonly observer?: (report: ReconcileReport) => void;
  /** Takes down what the device does and what is asked of the host. */
  readonly trace?: TraceRing;
  /** What to call this virtual SMMU, when there are several. */
  readonly name?: string;
  /** Guest RAM of another machine that is the same guest's: one machine for each virtual SMMU. */
  readonly space?: AddressSpace;
  /**
   * Told that the host wants a device back; it is unplugged when this returns. Without it nobody listens, and the host
   * waits for an unplug.
   */
  readonly removed?: (name: string) => void;
  /** Runs a task after some milliseconds; without it what the host refuses is tried again only at the next change. */
  readonly later?: (milliseconds: number, task: () => void) => void;
  /** As in AcceleratorOptions: which faults of the device of a VFIO file wait for an answer that the host takes. */
  readonly faultsOf?: ((path: string) => FaultKind | undefined) | undefined;
  /** As in SmmuOptions. */
  readonly log2TlbEntries?: number;
}

/** Milliseconds before the first retry of what the host refused; then twice as long each time, up to the longest. */
const FIRST_RETRY_MS = 10;
const LONGEST_RETRY_MS = 10_000;

export class Machine {
  readonly memory: Memory;
  readonly smmu: Smmu;
  readonly accelerator: Accelerator;
  /** What the guest is told, and why. */
  readonly identity: Identity;
  /** Guest RAM on the host. */
  readonly space: AddressSpace;
  readonly #kernel: Kernel;
  readonly #removed: ((name: string) => void) | undefined;
  readonly #removals = new Map<string, RemovalWatch>();

  constructor(options: MachineOptions) {
    const { kernel, memory, ids, interrupts, scheduler, observer, trace, later, name } = options;
    this.memory = memory;
    this.identity = new Identity(ids, options.properties, options.floor);
    this.space = options.space ?? new AddressSpace(kernel);
    this.#kernel = kernel;
    this.#removed = options.removed;
    this.accelerator = new Accelerator({
      space: this.space,
      ids: this.identity,
      faultsOf: options.faultsOf,
      trace: trace?.record,
      ...(name !== undefined && { name }),
      ...((observer !== undefined || trace !== undefined) && {
        observer: (report: ReconcileReport) => {
          if (trace !== undefined) traceReconcile(trace, report);
          observer?.(report);
        },
      }),
      ...(later !== undefined && {
        retryLater: (attempt: number) =>
          later(Math.min(FIRST_RETRY_MS * 2 ** (attempt - 1), LONGEST_RETRY_MS), () =>
            this.accelerator.retry(),
          ),
      }),
    });
    this.smmu = new Smmu({
      ids: this.identity.resolved.ids,
      memory,
      interrupts,
      backend: this.accelerator,
      stallCommands: this.accelerator.stallCommands,
      responses: this.accelerator.pageResponses,
      defer: () => scheduler.post(this.#goOn),
      settled: () => this.identity.settle(),
      ...(trace !== undefined && { trace: trace.record }),
      log2TlbEntries: options.log2TlbEntries,
    });
    this.identity.changed = (changed) => this.smmu.identify(changed);
    this.accelerator.connect(this.smmu);
    this.#scheduler = scheduler;
  }

  readonly #scheduler: Scheduler;
  /** Carries on with commands that one doorbell left over, a bounded number at a time. */
  readonly #goOn = (): void => {
    if (this.smmu.run()) this.#scheduler.post(this.#goOn);
  };

  /**
   * Adds guest RAM, for the SMMU and for DMA. Address and length are multiples of 4 KiB.
   * @throws RangeError if it overlaps other RAM or the host's MSI window. @throws HostError if the host cannot map it.
   */
  addRam(gpa: number, bytes: Uint8Array): void {
    this.memory.addRam(hiOfNumber(gpa), loOfNumber(gpa), bytes);
    try {
      this.accelerator.addRam(gpa, bytes);
    } catch (error) {
      this.memory.remove(hiOfNumber(gpa), loOfNumber(gpa), bytes.length);
      throw error;
    }
  }

  /**
   * As {@link addRam}, for RAM that its owner has entered in {@link memory} already.
   * @throws RangeError, HostError likewise.
   */
  mapRam(gpa: number, bytes: Uint8Array, writable = true): void {
    this.accelerator.addRam(gpa, bytes, writable);
  }

  /** Ends what {@link mapRam} began: no device reaches this RAM any more. @throws HostError; it is then still mapped. */
  unmapRam(gpa: number): void {
    this.space.removeRam(gpa);
  }

  /**
   * Plugs a host device, cold or hot.
   * @param path its VFIO device file.
   * @param sid the StreamID that the guest sees.
   * @throws HostError if it cannot be served; nothing is left of the attempt.
   */
  plug(name: string, path: string, sid: number): VfioDevice {
    return this.plugRestored({ name, path, sid });
  }

  /** As {@link plug}, with what a snapshot knows of the device. @throws HostError likewise. */
  plugRestored(request: PlugRequest): VfioDevice {
    const device = this.accelerator.plug(request);
    const { name } = request;
    const removed = this.#removed;
    if (removed === undefined) return device;
    const asked = (): void => {
      removed(name);
      this.unplug(name);
    };
    const watch = watchRemoval(this.#kernel, device, asked);
    if (watch !== undefined) this.#removals.set(name, watch);
    return device;
  }

  /** Gives a device back to the host. */
  unplug(name: string): void {
    this.#removals.get(name)?.stop();
    this.#removals.delete(name);
    this.accelerator.unplug(name);
  }

  /**
   * System reset: the SMMU and the devices are as after power-on, and no translation of before is left.
   * @returns why devices could not be reset, by name; empty if all were.
   */
  reset(): ReadonlyMap<string, HostError> {
    // Devices first: a reset SMMU lets DMA bypass it, and one that still runs would write where the old guest's tables
    // no longer lead.
    const failures = new Map<string, HostError>();
    for (const { name } of this.state.devices) {
      try {
        this.accelerator.device(name)?.reset();
      } catch (error) {
        if (!(error instanceof HostError)) throw error;
        failures.set(name, error);
      }
    }
    this.smmu.reset();
    this.accelerator.reset();
    return failures;
  }

  get state(): AcceleratorState {
    return this.accelerator.state;
  }
}
