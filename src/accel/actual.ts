/** What exists on the host for one vSMMU. Only {@link import('./reconcile.ts')} changes it. */

import { HostError } from '../iommufd/errors.ts';
import type { FaultQueue } from '../iommufd/fault-queue.ts';
import type { FaultKind, HostInfo } from '../iommufd/host-info.ts';
import { Hwpt } from '../iommufd/hwpt.ts';
import type { Vdevice } from '../iommufd/vdevice.ts';
import type { Veventq } from '../iommufd/veventq.ts';
import type { VfioDevice } from '../iommufd/vfio-device.ts';
import type { Viommu } from '../iommufd/viommu.ts';
import type { AddressSpace, SpaceUser } from './address-space.ts';
import { ABORT, type DesiredQueue, type Target } from './desired.ts';
import { SeenCd } from './seen-cd.ts';
import { tripwire, type DueEvent } from './tripwire.ts';

/** A nested page table of the vIOMMU. Streams with the same target share one. */
export interface NestedTable {
  readonly target: Target;
  /** Under which it is found: the target's, and the FAULT_QUEUE that it was made with. */
  readonly key: string;
  readonly hwpt: Hwpt;
}

/** A bound device. */
export class ActualStream {
  readonly name: string;
  readonly vfio: VfioDevice;
  readonly host: HostInfo;
  vdevice: Vdevice | undefined;
  /** What it is attached to; undefined if it is detached, and all its DMA blocked. */
  table: NestedTable | undefined;
  /** The kernel notes a stream's vSID when it attaches a table: this is the one it noted, under which events come. */
  notedVsid: number | undefined;
  /** The guest said that its CDs may have changed (4.3.1), and the host has not dropped them: due at the CMD_SYNC. */
  cdsDue = false;
  /** Its CD when the host last dropped it. */
  readonly cd = new SeenCd();
  /** Its context descriptors may be cached from before: they must go before it translates. */
  flush = true;
  /**
   * What its tripwire stands for. It outlives the tripwire until the host's queue was seen empty, for the records
   * that are still in there.
   */
  due: DueEvent | undefined;

  constructor(name: string, vfio: VfioDevice, host: HostInfo) {
    this.name = name;
    this.vfio = vfio;
    this.host = host;
  }
}

/** The vEVENTQ, and the guest queue that it was made for. */
export interface ActualQueue {
  readonly veventq: Veventq;
  readonly wanted: DesiredQueue;
}

/** Who moves the records of the vEVENTQ. */
export interface QueueReader {
  open(veventq: Veventq): void;
  /** Stops reading; counts what is left as discarded. The descriptor is closed afterwards. */
  close(): void;
  /** So many devices have their events in the vEVENTQ. */
  share(devices: number): void;
}

/** A FAULT_QUEUE, and the guest's queue that it was made for. */
export interface ActualFaultQueue {
  readonly queue: FaultQueue;
  readonly wanted: string;
}

/** Who moves the faults of one kind to the guest, and its answers back. */
export interface FaultReader {
  open(queue: FaultQueue): void;
  /** Stops reading, and ends what waits for an answer. The descriptor is closed afterwards. */
  close(): void;
  /** The host has ended all faults of a device, because its page table was replaced: answers to them are none. */
  forget(deviceId: number): void;
}

/** What a failure concerns: what all streams need, one of the shared parts, or `device` and its name. */
export type Concern = 'foundation' | 'veventq' | 'faults' | 'flush' | 'teardown' | `device ${string}`;

export class Actual implements SpaceUser {
  readonly space: AddressSpace;
  readonly reader: QueueReader;
  readonly streams = new Map<string, ActualStream>();
  /** The stage 2 that all streams share. */
  parent: Hwpt | undefined;
  viommu: Viommu | undefined;
  readonly tables = new Map<string, NestedTable>();
  queue: ActualQueue | undefined;
  readonly faultQueues = new Map<FaultKind, ActualFaultQueue>();
  /** FAULT_QUEUEs that are closed, and go when no page table uses them any more. */
  readonly leavingFaultQueues: FaultQueue[] = [];
  /** Who reads the FAULT_QUEUE of each kind. */
  readonly faultReaders = new Map<FaultKind, FaultReader>();
  /** Erratum REPEAT_TLBI_CFGI of the physical SMMU: every invalidation has to be issued twice. */
  repeatTlbiCfgi = false;
  /** Stale stage-1 translations or CDs may be cached: all must go before any stream translates. */
  flushAll = false;
  /**
   * Why the last flush ran out of time. While this is set no flush is tried: each may take a second, and a guest could
   * ask for one with every register write (docs/decisions/0003-retries.md).
   */
  timedOut: HostError | undefined;
  /** Objects that nothing uses any more and that could not be destroyed yet. */
  readonly retired: { destroy(): void }[] = [];
  /** What the last reconcile could not do, by {@link Concern}. */
  readonly failures = new Map<Concern, HostError>();
  /** Called when streams have to leave a tripwire whose page of zeros goes away. */
  tripwireMoved: () => void = () => {};
  readonly #byVsid = new Map<number, ActualStream>();

  readonly name: string;

  constructor(space: AddressSpace, reader: QueueReader, name = 'vsmmu') {
    this.name = name;
    this.space = space;
    this.reader = reader;
  }

  /** The stream with a vDEVICE under this StreamID. */
  streamOf(vsid: number): ActualStream | undefined {
    return this.#byVsid.get(vsid);
  }

  /** Gives a stream a vDEVICE, or takes it away. */
  setVdevice(stream: ActualStream, vdevice: Vdevice | undefined): void {
    if (stream.vdevice !== undefined) this.#byVsid.delete(stream.vdevice.vsid);
    if (vdevice !== undefined) this.#byVsid.set(vdevice.vsid, stream);
    stream.vdevice = vdevice;
  }

  /** The FAULT_QUEUE for the faults of a target, if it has some that wait. */
  faultQueueOf({ faults }: Target): FaultQueue | undefined {
    return faults === undefined ? undefined : this.faultQueues.get(faults)?.queue;
  }

  /** A device has another page table, or none: the kernel has answered all that it waited for. */
  forgetFaults({ vfio }: ActualStream): void {
    for (const reader of this.faultReaders.values()) reader.forget(vfio.devid);
  }

  /** The kernel tells nobody which SMMU a device is behind, but a nested table can only be made for one behind this. */
  wouldTake(deviceId: number): boolean {
    const { viommu } = this;
    if (viommu === undefined) return false;
    try {
      Hwpt.allocNested(this.space.iommufd, deviceId, viommu.id, ABORT.ste).destroy();
      return true;
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      return false;
    }
  }

  usesTripwire(gpa: number): boolean {
    const { key } = tripwire(gpa);
    for (const { table } of this.streams.values()) if (table?.target.key === key) return true;
    return false;
  }

  /** Nothing is left of this vSMMU but its bound devices. */
  get bare(): boolean {
    return (
      this.queue === undefined &&
      this.faultQueues.size === 0 &&
      this.leavingFaultQueues.length === 0 &&
      this.tables.size === 0 &&
      this.viommu === undefined &&
      this.parent === undefined &&
      this.retired.length === 0
    );
  }

  /** `/dev/iommu` is closed, and with it everything is gone. */
  forget(): void {
    this.viommu?.release();
    this.queue = undefined;
    this.faultQueues.clear();
    this.leavingFaultQueues.length = 0;
    this.tables.clear();
    this.viommu = undefined;
    this.parent = undefined;
    this.retired.length = 0;
    this.flushAll = false;
    this.timedOut = undefined;
  }
}
