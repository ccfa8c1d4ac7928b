/** Admin commands (NVMe 1.4, chapter 5). */

import { ADMIN, SQE, STATUS, WORD } from './command.ts';
import type { Events } from './events.ts';
import { FEATURE, type Features } from './features.ts';
import { IDENTIFY_SIZE } from './identity.ts';
import { logPage } from './log-pages.ts';
import type { Namespace } from './namespace.ts';
import { CompletionQueue, SubmissionQueue, type QueueSet } from './queues.ts';
import { CC, CQE_SHIFT, MAX_QUEUE_ENTRIES, SQE_SHIFT } from './registers.ts';
import type { Transfer } from './transfer.ts';

/** Identify, CNS values. */
const CNS = { Namespace: 0, Controller: 1, ActiveNamespaces: 2, Descriptors: 3 } as const;

/** The pages that Identify returns, made once. */
export interface IdentifyPages {
  readonly controller: Uint8Array;
  readonly namespace: Uint8Array;
  readonly descriptors: Uint8Array;
}

export interface AdminParts {
  readonly queues: QueueSet;
  readonly namespace: Namespace;
  readonly transfer: Transfer;
  readonly events: Events;
  readonly features: Features;
  readonly identify: IdentifyPages;
  readonly vectors: number;
  readonly firmware: string;
}

export class AdminCommands {
  readonly #parts: AdminParts;
  /** Dword 0 of the completion. */
  result = 0;

  constructor(parts: AdminParts) {
    this.#parts = parts;
  }

  /** Carries out a command. @param cc the CC register @returns a status, or HELD */
  execute(sqe: Uint32Array, cc: number): number {
    this.result = 0;
    switch (sqe[0] & 0xff) {
      case ADMIN.Identify:
        return this.#identify(sqe);
      case ADMIN.CreateIoCq:
        return this.#createCompletionQueue(sqe, cc);
      case ADMIN.CreateIoSq:
        return this.#createSubmissionQueue(sqe, cc);
      case ADMIN.DeleteIoCq:
        return this.#deleteCompletionQueue(sqe);
      case ADMIN.DeleteIoSq:
        return this.#deleteSubmissionQueue(sqe);
      case ADMIN.SetFeatures:
        return this.#setFeatures(sqe);
      case ADMIN.GetFeatures: {
        const features = this.#parts.features;
        const status = features.get(sqe[WORD.CDW10] & 0xff, sqe[WORD.CDW11]);
        this.result = features.result;
        return status;
      }
      case ADMIN.GetLogPage:
        return this.#getLogPage(sqe);
      case ADMIN.AsyncEventRequest:
        return this.#parts.events.request(SQE.CID.get(sqe));
      case ADMIN.Abort:
        return this.#abort(sqe);
      default:
        // Keep Alive among them: KAS is 0.
        return STATUS.InvalidOpcode;
    }
  }

  #identify(sqe: Uint32Array): number {
    const nsid = sqe[WORD.NSID];
    const pages = this.#parts.identify;
    switch (sqe[WORD.CDW10] & 0xff) {
      case CNS.Controller:
        return this.#send(sqe, pages.controller, IDENTIFY_SIZE);
      case CNS.Namespace:
        return nsid === 1 ? this.#send(sqe, pages.namespace, IDENTIFY_SIZE) : STATUS.InvalidNamespace;
      case CNS.Descriptors:
        return nsid === 1 ? this.#send(sqe, pages.descriptors, IDENTIFY_SIZE) : STATUS.InvalidNamespace;
      case CNS.ActiveNamespaces: {
        // 5.15.2.3: identifiers greater than NSID; the two highest cannot be exceeded.
        if (nsid >= 0xffff_fffe) return STATUS.InvalidNamespace;
        const list = new Uint8Array(IDENTIFY_SIZE);
        if (nsid < 1) list[0] = 1;
        return this.#send(sqe, list, IDENTIFY_SIZE);
      }
      default:
        return STATUS.InvalidField;
    }
  }

  #send(sqe: Uint32Array, bytes: Uint8Array, length: number): number {
    const status = this.#parts.transfer.gather(sqe, length);
    return status === STATUS.Success ? this.#parts.transfer.toHost(bytes, 0) : status;
  }

  /** The status that refuses a new queue, or Success. */
  #checkQueue(sqe: Uint32Array, entryShift: number, expectedShift: number): number {
    const size = (sqe[WORD.CDW10] >>> 16) + 1;
    if (size < 2 || size > MAX_QUEUE_ENTRIES || entryShift !== expectedShift) return STATUS.InvalidQueueSize;
    // CAP.CQR: physically contiguous.
    if ((sqe[WORD.CDW11] & 1) === 0) return STATUS.InvalidField;
    const pageMask = 2 ** this.#parts.transfer.pageShift - 1;
    return (sqe[WORD.PRP1] & pageMask) === 0 ? STATUS.Success : STATUS.InvalidPrpOffset;
  }

  #createCompletionQueue(sqe: Uint32Array, cc: number): number {
    const { queues, vectors } = this.#parts;
    const id = sqe[WORD.CDW10] & 0xffff;
    if (id === 0 || id > queues.maxIoQueues || queues.completion[id] !== undefined)
      return STATUS.InvalidQueueIdentifier;
    const status = this.#checkQueue(sqe, CC.IOCQES.of(cc), CQE_SHIFT);
    if (status !== STATUS.Success) return status;
    const vector = sqe[WORD.CDW11] >>> 16;
    if (vector >= vectors) return STATUS.InvalidInterruptVector;
    queues.completion[id] = new CompletionQueue(
      id,
      (sqe[WORD.CDW10] >>> 16) + 1,
      sqe[WORD.PRP1 + 1],
      sqe[WORD.PRP1],
      (sqe[WORD.CDW11] & 2) !== 0,
      vector,
    );
    return STATUS.Success;
  }

  #createSubmissionQueue(sqe: Uint32Array, cc: number): number {
    const { queues } = this.#parts;
    const id = sqe[WORD.CDW10] & 0xffff;
    if (id === 0 || id > queues.maxIoQueues || queues.submission[id] !== undefined)
      return STATUS.InvalidQueueIdentifier;
    const cqid = sqe[WORD.CDW11] >>> 16;
    if (cqid === 0 || cqid > queues.maxIoQueues) return STATUS.InvalidQueueIdentifier;
    const completions = queues.completion[cqid];
    if (completions === undefined) return STATUS.CompletionQueueInvalid;
    const status = this.#checkQueue(sqe, CC.IOSQES.of(cc), SQE_SHIFT);
    if (status !== STATUS.Success) return status;
    queues.addSubmission(
      new SubmissionQueue(id, (sqe[WORD.CDW10] >>> 16) + 1, sqe[WORD.PRP1 + 1], sqe[WORD.PRP1], completions),
    );
    return STATUS.Success;
  }

  #deleteCompletionQueue(sqe: Uint32Array): number {
    const { queues } = this.#parts;
    const id = sqe[WORD.CDW10] & 0xffff;
    const queue = id === 0 ? undefined : queues.completion[id];
    if (queue === undefined) return STATUS.InvalidQueueIdentifier;
    if (queue.users > 0) return STATUS.InvalidQueueDeletion;
    queues.completion[id] = undefined;
    return STATUS.Success;
  }

  /** Commands that were not fetched are dropped with the queue; fetched ones were completed at once. */
  #deleteSubmissionQueue(sqe: Uint32Array): number {
    const { queues } = this.#parts;
    const id = sqe[WORD.CDW10] & 0xffff;
    const queue = id === 0 ? undefined : queues.submission[id];
    if (queue === undefined) return STATUS.InvalidQueueIdentifier;
    queues.removeSubmission(queue);
    return STATUS.Success;
  }

  #setFeatures(sqe: Uint32Array): number {
    const { features, queues } = this.#parts;
    const id = sqe[WORD.CDW10] & 0xff;
    if (sqe[WORD.CDW10] >>> 31 === 1) return STATUS.FeatureNotSaveable;
    // 5.21.1.7: only between initialisation and the first I/O queue.
    if (id === FEATURE.NumberOfQueues && queues.anyIo) return STATUS.CommandSequenceError;
    const status = features.set(id, sqe[WORD.CDW11]);
    this.result = features.result;
    return status;
  }

  #getLogPage(sqe: Uint32Array): number {
    const { namespace, events, firmware, transfer } = this.#parts;
    const cdw10 = sqe[WORD.CDW10];
    const page = logPage(cdw10 & 0xff, namespace, events, firmware);
    if (page === undefined) return STATUS.InvalidLogPage;
    const dwords = (sqe[WORD.CDW11] & 0xffff) * 0x1_0000 + (cdw10 >>> 16) + 1;
    const offset = sqe[WORD.CDW12];
    if (sqe[WORD.CDW13] !== 0 || offset > page.length || (offset & 3) !== 0) return STATUS.InvalidField;
    if (dwords * 4 > transfer.maxBytes) return STATUS.InvalidField;
    // Beyond the page's end the host's buffer is left alone.
    const length = Math.min(dwords * 4, page.length - offset);
    if (length > 0) {
      const status = this.#send(sqe, page.subarray(offset), length);
      if (status !== STATUS.Success) return status;
    }
    // Retain Asynchronous Event.
    if ((cdw10 & (1 << 15)) === 0) events.logPageRead(cdw10 & 0xff);
    return STATUS.Success;
  }

  /** 5.1: commands are completed as they are fetched, so only an event request can be aborted. */
  #abort(sqe: Uint32Array): number {
    const cid = sqe[WORD.CDW10] >>> 16;
    this.result = (sqe[WORD.CDW10] & 0xffff) === 0 && this.#parts.events.abort(cid) ? 0 : 1;
    return STATUS.Success;
  }
}
