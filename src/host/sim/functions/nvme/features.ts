/** Features (NVMe 1.4, 5.21): current values; nothing can be saved. */

import { STATUS } from './command.ts';
import { WARNING_TEMPERATURE } from './identity.ts';

export const FEATURE = {
  Arbitration: 0x01,
  PowerManagement: 0x02,
  TemperatureThreshold: 0x04,
  ErrorRecovery: 0x05,
  VolatileWriteCache: 0x06,
  NumberOfQueues: 0x07,
  InterruptCoalescing: 0x08,
  InterruptVectorConfiguration: 0x09,
  WriteAtomicity: 0x0a,
  AsyncEventConfiguration: 0x0b,
} as const;

/** Bits that Set Features keeps, for features that are one word without further rules. */
const KEPT = new Map<number, number>([
  [FEATURE.Arbitration, 0xffff_ff07],
  [FEATURE.PowerManagement, 0],
  [FEATURE.ErrorRecovery, 0x0000_ffff],
  [FEATURE.VolatileWriteCache, 1],
  [FEATURE.InterruptCoalescing, 0xffff],
  [FEATURE.WriteAtomicity, 1],
  [FEATURE.AsyncEventConfiguration, 0xff],
]);

const NO_COALESCING = 1 << 16;

export class Features {
  readonly #values = new Map<number, number>();
  /** Coalescing is off for these vectors. */
  readonly #noCoalescing: Uint8Array;
  /** Composite temperature thresholds: over, under. */
  readonly #temperature = new Uint16Array(2);
  readonly #maxIoQueues: number;
  /** Dword 0 of the completion. */
  result = 0;

  constructor(vectors: number, maxIoQueues: number) {
    this.#noCoalescing = new Uint8Array(vectors);
    this.#maxIoQueues = maxIoQueues;
    this.reset();
  }

  /** Controller reset: the defaults. */
  reset(): void {
    for (const id of KEPT.keys()) this.#values.set(id, 0);
    this.#values.set(FEATURE.VolatileWriteCache, 1);
    this.#temperature[0] = WARNING_TEMPERATURE;
    this.#temperature[1] = 0;
    this.#noCoalescing.fill(0);
  }

  /** @returns a status; the value is in {@link result} */
  get(id: number, cdw11: number): number {
    this.result = 0;
    const value = this.#values.get(id);
    if (value !== undefined) {
      this.result = value;
      return STATUS.Success;
    }
    switch (id) {
      case FEATURE.NumberOfQueues:
        this.result = this.#queues();
        return STATUS.Success;
      case FEATURE.TemperatureThreshold: {
        const which = (cdw11 >>> 20) & 3;
        if (which > 1 || ((cdw11 >>> 16) & 0xf) !== 0) return STATUS.InvalidField;
        this.result = this.#temperature[which]!;
        return STATUS.Success;
      }
      case FEATURE.InterruptVectorConfiguration: {
        const vector = cdw11 & 0xffff;
        if (vector >= this.#noCoalescing.length) return STATUS.InvalidField;
        this.result = vector | (this.#noCoalescing[vector] === 1 ? NO_COALESCING : 0);
        return STATUS.Success;
      }
      default:
        return STATUS.InvalidField;
    }
  }

  /** @returns a status; dword 0 of the completion is in {@link result} */
  set(id: number, cdw11: number): number {
    this.result = 0;
    const kept = KEPT.get(id);
    if (kept !== undefined) {
      // One power state; no deallocated or unwritten block error (DULBE).
      if (id === FEATURE.PowerManagement && (cdw11 & 0x1f) !== 0) return STATUS.InvalidField;
      if (id === FEATURE.ErrorRecovery && (cdw11 & (1 << 16)) !== 0) return STATUS.InvalidField;
      this.#values.set(id, (cdw11 & kept) >>> 0);
      return STATUS.Success;
    }
    switch (id) {
      case FEATURE.NumberOfQueues:
        if ((cdw11 & 0xffff) === 0xffff || cdw11 >>> 16 === 0xffff) return STATUS.InvalidField;
        this.result = this.#queues();
        return STATUS.Success;
      case FEATURE.TemperatureThreshold: {
        const which = (cdw11 >>> 20) & 3;
        const sensor = (cdw11 >>> 16) & 0xf;
        // Sensor 0 is the composite temperature, Fh is all.
        if (which > 1 || (sensor !== 0 && sensor !== 0xf)) return STATUS.InvalidField;
        this.#temperature[which] = cdw11 & 0xffff;
        return STATUS.Success;
      }
      case FEATURE.InterruptVectorConfiguration: {
        const vector = cdw11 & 0xffff;
        if (vector >= this.#noCoalescing.length) return STATUS.InvalidField;
        this.#noCoalescing[vector] = (cdw11 & NO_COALESCING) !== 0 ? 1 : 0;
        return STATUS.Success;
      }
      default:
        return STATUS.InvalidField;
    }
  }

  /** As many as exist, whatever was asked for: the controller may allocate more than that. */
  #queues(): number {
    return ((this.#maxIoQueues - 1) << 16) | (this.#maxIoQueues - 1);
  }
}
