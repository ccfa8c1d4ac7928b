/**
 * From a host's FAULT_QUEUE to the guest's PRI queue, and back: CMD_PRI_RESP answers a group, or the PRI queue by itself
 * where it takes no request (8.1, 8.2). Linux 7.3 denies the page requests behind an SMMUv3, so only another host has any.
 */

import type { FaultQueue } from '../iommufd/fault-queue.ts';
import { PAGE_REQUEST, PageRequest, type PageRequestStatus } from '../smmu/page-request.ts';
import type { PageResponsePort, Trace } from '../smmu/ports.ts';
import { PRI_RESP } from '../spec/commands.ts';
import type { FaultReader } from './actual.ts';
import { type Ending, FaultPipe } from './fault-pipe.ts';

/** What the bridge needs of the guest's SMMU, and of the accelerator. */
export interface PageRequestSink {
  pageRequest(request: PageRequest): PageRequestStatus;
  /** StreamID of a device, or -1 if it has none. */
  sidOf(deviceId: number): number;
}

/** Requests of one read: a group is never split, so this is also the largest group. */
export const READ_REQUESTS = 256;
/** Groups that wait at once; more are left in the host. */
export const GROUPS_MAX = 4096;
/** PRGIndex has nine bits. */
const GROUPS_PER_STREAM = 512;

/** A group that waits for the guest's answer. */
interface Waiting {
  readonly cookie: number;
  readonly deviceId: number;
}

export class PageRequestBridge implements FaultReader, PageResponsePort {
  readonly #sink: PageRequestSink;
  readonly #pipe: FaultPipe;
  readonly #request = new PageRequest();
  /** By StreamID and PRGIndex. */
  readonly #waiting = new Map<number, Waiting>();
  /** The group of which requests are being delivered, as a key of #waiting; -1 if the next request begins one. */
  #current = -1;

  constructor(sink: PageRequestSink, trace?: Trace) {
    this.#sink = sink;
    this.#pipe = new FaultPipe(READ_REQUESTS, () => this.#turn(), trace);
  }

  get counters(): FaultPipe['counters'] {
    return this.#pipe.counters;
  }

  /** Waits for answers. */
  get paused(): boolean {
    return this.#pipe.paused;
  }

  /** Groups that wait for an answer. */
  get outstanding(): number {
    return this.#waiting.size;
  }

  open(queue: FaultQueue): void {
    this.#current = -1;
    this.#pipe.open(queue);
  }

  close(): void {
    this.#endAll('ended');
    this.#pipe.close();
  }

  forget(deviceId: number): void {
    this.#pipe.forget(deviceId);
    for (const [key, group] of this.#waiting) {
      if (group.deviceId !== deviceId) continue;
      this.#waiting.delete(key);
      this.counters.forgotten++;
    }
    this.#resumeReading();
  }

  /** For a snapshot: the devices ask again. */
  releaseAll(): void {
    this.#endAll('released');
    this.#resumeReading();
  }

  /** 4.5.2: an answer to a group that does not wait does nothing. The PASID is not needed to know which it is. */
  respond(sid: number, _ssv: boolean, _ssid: number, prgIndex: number, response: number): void {
    const key = keyOf(sid, prgIndex);
    const group = this.#waiting.get(key);
    if (group === undefined) {
      this.counters.unknown++;
      return;
    }
    this.#end(key, group, response === PRI_RESP.Success ? 'retried' : 'aborted');
    this.#resumeReading();
  }

  #end(key: number, { cookie }: Waiting, ending: Ending): void {
    this.#waiting.delete(key);
    this.#pipe.answer(cookie, ending);
  }

  #endAll(ending: Ending): void {
    for (const [key, group] of this.#waiting) this.#end(key, group, ending);
  }

  #resumeReading(): void {
    if (this.#waiting.size < GROUPS_MAX) this.#pipe.resume();
  }

  /** One turn of the event loop: one read. A full PRI queue is no reason to wait: it answers by itself (8.1). */
  #turn(): void {
    const pipe = this.#pipe;
    // One read may bring as many groups as requests.
    if (this.#waiting.size + READ_REQUESTS > GROUPS_MAX) {
      pipe.pause();
      return;
    }
    pipe.fill(READ_REQUESTS);
    this.#current = -1;
    while (pipe.next()) this.#take();
  }

  /** Hands on the request that was read last, unless its group has its answer already. */
  #take(): void {
    const pipe = this.#pipe;
    const sid = this.#sink.sidOf(pipe.deviceId);
    const key = sid < 0 ? REFUSED : this.#current === -1 ? this.#begin(sid) : this.#current;
    this.#current = pipe.last ? -1 : key;
    if (key === REFUSED) {
      if (pipe.last) pipe.answer(pipe.cookie, 'ended');
      return;
    }
    if (this.#waiting.get(key)?.cookie !== pipe.cookie) return;
    const status = this.#sink.pageRequest(this.#fill(sid));
    if (status === PAGE_REQUEST.Queued) this.counters.delivered++;
    else this.counters.discarded++;
    if (status !== PAGE_REQUEST.Unsupported || !pipe.last) return;
    const group = this.#waiting.get(key);
    if (group !== undefined) this.#end(key, group, 'ended');
  }

  /** @returns the key of the new group; REFUSED if the device has one under way by this index, or it is no index. */
  #begin(sid: number): number {
    const { cookie, deviceId, group } = this.#pipe;
    const key = keyOf(sid, group);
    if (group >= GROUPS_PER_STREAM || this.#waiting.has(key)) return REFUSED;
    this.#waiting.set(key, { cookie, deviceId });
    return key;
  }

  #fill(sid: number): PageRequest {
    const pipe = this.#pipe;
    const request = this.#request;
    request.sid = sid;
    request.ssv = pipe.hasPasid;
    request.ssid = pipe.hasPasid ? pipe.pasid : 0;
    request.addrHi = pipe.addrHi;
    request.addrLo = (pipe.addrLo & ~0xfff) >>> 0;
    request.prgIndex = pipe.group;
    request.last = pipe.last;
    request.read = pipe.read;
    request.write = pipe.write;
    request.execute = pipe.execute;
    request.privileged = pipe.privileged;
    return request;
  }
}

/** Of a group that is ended without the guest hearing of it. */
const REFUSED = -2;

const keyOf = (sid: number, prgIndex: number): number => sid * GROUPS_PER_STREAM + prgIndex;
