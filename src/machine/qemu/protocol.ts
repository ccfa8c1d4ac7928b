/** What the thread that owns the machine is started with, what it can be asked, and what it tells. */

import type { MessagePort } from 'node:worker_threads';
import type { SmmuProperties } from '../../accel/properties.ts';
import type { Metric } from '../../trace/prometheus.ts';
import type { TraceEntry } from '../../trace/trace-ring.ts';
import type { EmbeddedSmmu, HostDevice } from '../embedded-host.ts';
import type { EventAccount } from '../event-account.ts';
import type { RunEvent } from '../report.ts';

export interface WorkerStart {
  readonly port: MessagePort;
  /** Eventfd that wakes the thread's loop. */
  readonly wakeFd: number;
  /** Where QEMU finds the SMMU. */
  readonly smmuSocket: string;
  readonly host: { readonly devices: readonly HostDevice[]; readonly smmu: EmbeddedSmmu };
  /** What the guest's SMMU is asked to be. */
  readonly properties?: SmmuProperties | undefined;
  /** Take down what happens. */
  readonly trace?: boolean | undefined;
}

/** What the machine shows of its inside. */
export interface Observation {
  readonly entries: readonly TraceEntry[];
  readonly metrics: readonly Metric[];
  readonly events: EventAccount;
}

/** A device on its way into the guest. */
export interface PlugArgument {
  readonly name: string;
  readonly sid: number;
  /** Where QEMU will find it. */
  readonly socket: string;
}

export interface DmaArgument {
  readonly name: string;
  readonly write: boolean;
  readonly iova: bigint;
  readonly bytes: number;
}

/** What is in force now, for expectations. */
export interface Snapshot {
  readonly eventqen: boolean;
  readonly viommu: number | undefined;
  readonly veventq: { readonly id: number; readonly depth: number } | undefined;
  readonly attached: Readonly<Record<string, string>>;
  readonly objects: Readonly<Record<string, number>>;
  /** Calls to the host so far. */
  readonly ioctls: number;
  /** Properties of the SMMU as the guest sees them. */
  readonly smmu: Readonly<Record<string, string | number>>;
  /** Commands, translations of interrupts and the like that went wrong on our side. */
  readonly problems: readonly string[];
}

/** The calls, by name. */
export interface WorkerCalls {
  /** Takes the device from the host, puts it behind the SMMU, and listens at the socket. */
  plug(argument: PlugArgument): void;
  /** Gives the device back and stops listening. */
  unplug(name: string): void;
  /** @returns whether the DMA went through. */
  dma(argument: DmaArgument): boolean;
  snapshot(): Snapshot;
  observe(): Observation;
  /** Gives everything back and ends the thread. */
  stop(): void;
}

/** What the thread tells without being asked. */
export type WorkerEvent = RunEvent;
