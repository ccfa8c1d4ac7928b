/** What the SMMU needs from its surroundings. It declares these ports; accel/, host/sim/ and machine/ implement them. */

import type { Transaction, Translation } from './transaction.ts';

/** The four causes of an SMMU interrupt (IHI 0070 3.18). */
export type InterruptLine = 'eventq' | 'gerror' | 'priq' | 'sync';

/** Where interrupts go. Each call is one edge; what caused it (record and PROD, GERROR, CONS) is visible before it. */
export interface InterruptPort {
  /** Pulses a wired output. */
  raise(line: InterruptLine): void;
  /**
   * Performs the 32-bit write of a message-signalled interrupt; the address is word aligned and truncated to OAS.
   * @returns false if the write aborted, which the device reports as GERROR.MSI_*_ABT_ERR.
   */
  writeMsi(hi: number, lo: number, data: number): boolean;
}

/** What became of a batch of invalidations. */
export const INVALIDATE = {
  /** Nothing that the batch names can be used any more, by anyone. */
  Complete: 0,
  /** As Complete, but an endpoint did not answer an ATC_INV: the CMD_SYNC raises CERROR_ATC_INV_SYNC (4.7.3). */
  AtcInvTimeout: 1,
} as const;
export type InvalidateStatus = (typeof INVALIDATE)[keyof typeof INVALIDATE];

/**
 * The invalidation commands consumed since the last CMD_SYNC, in order: four 32-bit words a command. The device owns
 * and reuses the buffer, so a backend copies what it keeps.
 */
export interface CommandBatch {
  readonly words: Uint32Array;
  /** Number of commands. */
  readonly count: number;
}

/** Who really moves the DMA of some streams: the accelerator. A device without one translates everything itself. */
export interface StreamBackend {
  /**
   * The configuration of StreamIDs first..last (inclusive) may have changed: CFGI_STE*, CFGI_ALL, SMMUEN, GBPA,
   * stream-table registers, reset. When this returns, these streams use what the guest's memory and registers now
   * say, or are aborted if that could not be done. It does not throw.
   * @returns whether something is left for {@link invalidate} at the next CMD_SYNC, even if no command comes before it:
   *   CFGI_STE drops the CDs too (4.3.1).
   */
  streamsChanged(firstSid: number, lastSid: number): boolean | void;
  /**
   * Carries out TLBI_*, CFGI_CD* and ATC_INV commands at a CMD_SYNC (or when the batch is full), and what is left of
   * {@link streamsChanged}. The batch may be empty then. It does not throw:
   * if the host refuses, the backend makes sure by other means that no stale translation survives.
   */
  invalidate(batch: CommandBatch): InvalidateStatus;
  /**
   * CR0.EVENTQEN or EVENTQ_BASE, or CR0.PRIQEN or PRIQ_BASE, changed; or there is room for events again after somebody met a queue that took no record (the
   * guest moved EVENTQ_CONS, or acknowledged EVENTQ_ABT_ERR). It does not throw.
   */
  eventQueueChanged(): void;
}

/**
 * Where answers to page requests go: the endpoints that sent them. They come from CMD_PRI_RESP (4.5.2), and from the
 * SMMU itself where the PRI queue takes no request (8.1, 8.2). Ignored without one.
 */
export interface PageResponsePort {
  /** @param response a value of PRI_RESP in spec/commands.ts. */
  respond(sid: number, ssv: boolean, ssid: number, prgIndex: number, response: number): void;
}

/** Who learns what became of transactions that were stalled: the endpoints that wait (3.12.2). */
export interface StallPort {
  /** Both objects are reused after the call. The outcome may be `Stalled` again, under another STAG. */
  resolved(stag: number, transaction: Transaction, result: Translation): void;
}

/**
 * Who holds stalled transactions besides the device itself: the accelerator, whose transactions wait on the host. A
 * pair of StreamID and STAG that it does not know is none of its own, and ignored (4.7.1). It does not throw.
 */
export interface StallCommandPort {
  /** CMD_RESUME. @param abort CMD_RESUME.Ab, which counts only without `retry`. */
  resume(sid: number, stag: number, retry: boolean, abort: boolean): void;
  /** CMD_STALL_TERM: aborts everything of a StreamID that is stalled now (4.7.2). */
  terminateStalls(sid: number): void;
}

/** A backend for devices that have none of their streams elsewhere. */
export const NO_BACKEND: StreamBackend = {
  streamsChanged() {},
  invalidate: () => INVALIDATE.Complete,
  eventQueueChanged() {},
};

/** What {@link import('./smmu.ts').Smmu.recordEvent} did with a record (7.2.1). */
export const EVENT = {
  /** Written and published. */
  Queued: 0,
  /** The queue is full: the record was not written. The caller may keep it and try again, or count it as lost. */
  Full: 1,
  /** EVENTQEN=0: dropped. */
  Disabled: 2,
  /** EVENTQ_ABT_ERR is active, or this write aborted: dropped. */
  Aborted: 3,
} as const;
export type EventStatus = (typeof EVENT)[keyof typeof EVENT];

/** What the device says about its own work, for people. Names are QEMU's trace events where these exist. */
export type Trace = (event: string, ...values: number[]) => void;
