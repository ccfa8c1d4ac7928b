/** Asynchronous events (NVMe 1.4, 5.2) and the Error Information log (5.14.1.1). */

import { HELD, STATUS } from './command.ts';

/** Asynchronous Event Requests that may be outstanding. */
export const MAX_EVENT_REQUESTS = 4;

/** Entries of the Error Information log, and bytes of one. */
export const ERROR_LOG_ENTRIES = 8;
export const ERROR_LOG_ENTRY_SIZE = 64;

/** Error status events: what was wrong with a doorbell. */
export const DOORBELL_ERROR = { InvalidRegister: 0x00, InvalidValue: 0x01 } as const;

const ERROR_LOG_PAGE = 1;
const NO_COMMAND = 0xffff;

export class Events {
  /** Command identifiers of outstanding requests, oldest first. */
  readonly #requests: number[] = [];
  /** Requests that an Abort command ended and that were not completed yet. */
  readonly #aborted: number[] = [];
  /** Dword 0 of an event that has not been reported; -1 if there is none. One type exists, so one suffices. */
  #pending = -1;
  /** An error event was reported and its log page not read since (5.2: further ones are held back). */
  #masked = false;
  readonly #log = new DataView(new ArrayBuffer(ERROR_LOG_ENTRIES * ERROR_LOG_ENTRY_SIZE));
  /** Errors since power-on. */
  errors = 0;

  /** Admits an Asynchronous Event Request. @returns HELD, or the status that refuses it */
  request(cid: number): number {
    if (this.#requests.length + this.#aborted.length >= MAX_EVENT_REQUESTS)
      return STATUS.AsyncEventLimitExceeded;
    this.#requests.push(cid);
    return HELD;
  }

  /** Ends an outstanding request. @returns false if there is none with this identifier */
  abort(cid: number): boolean {
    const at = this.#requests.indexOf(cid);
    if (at < 0) return false;
    this.#requests.splice(at, 1);
    this.#aborted.push(cid);
    return true;
  }

  /** Notes that software wrote nonsense to a doorbell. */
  doorbellError(info: (typeof DOORBELL_ERROR)[keyof typeof DOORBELL_ERROR]): void {
    this.log(NO_COMMAND, NO_COMMAND, 0, 0);
    this.#pending = (ERROR_LOG_PAGE << 16) | (info << 8);
  }

  /** Adds an entry to the Error Information log. */
  log(sqid: number, cid: number, status: number, lba: number): void {
    this.errors += 1;
    const bytes = new Uint8Array(this.#log.buffer);
    bytes.copyWithin(ERROR_LOG_ENTRY_SIZE, 0, (ERROR_LOG_ENTRIES - 1) * ERROR_LOG_ENTRY_SIZE);
    bytes.fill(0, 0, ERROR_LOG_ENTRY_SIZE);
    this.#log.setUint32(0, this.errors >>> 0, true);
    this.#log.setUint32(4, Math.floor(this.errors / 0x1_0000_0000), true);
    this.#log.setUint16(8, sqid, true);
    this.#log.setUint16(10, cid, true);
    this.#log.setUint16(12, (status << 1) & 0xffff, true);
    // The location of the parameter in error is not said.
    this.#log.setUint16(14, 0xffff, true);
    this.#log.setUint32(16, lba, true);
  }

  /** Bytes of the Error Information log, newest entry first. */
  get errorLog(): Uint8Array {
    return new Uint8Array(this.#log.buffer);
  }

  /** Software read a log page without asking to retain the event. */
  logPageRead(page: number): void {
    if (page === ERROR_LOG_PAGE) this.#masked = false;
  }

  /** A request can be completed now. */
  get ready(): boolean {
    return this.#aborted.length > 0 || (this.#pending >= 0 && !this.#masked && this.#requests.length > 0);
  }

  /** Status and dword 0 of the completion that {@link take} began. */
  status: number = STATUS.Success;
  result = 0;

  /** Takes a request to complete; only if {@link ready}. @returns its command identifier */
  take(): number {
    const aborted = this.#aborted.shift();
    if (aborted !== undefined) {
      this.status = STATUS.AbortRequested;
      this.result = 0;
      return aborted;
    }
    this.status = STATUS.Success;
    this.result = this.#pending;
    this.#pending = -1;
    this.#masked = true;
    return this.#requests.shift()!;
  }

  /** Controller reset: requests and events are gone, the log stays. */
  reset(): void {
    this.#requests.length = 0;
    this.#aborted.length = 0;
    this.#pending = -1;
    this.#masked = false;
  }
}
