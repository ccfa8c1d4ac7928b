/** The requests that we have sent to the VMM and that it has not answered. */

import { ERRNO } from '../../sys/errno.ts';
import type { Errno } from './device.ts';
import { DMA_ACCESS_SIZE, DMA_READ, DMA_WRITE, FLAG, HEADER, HEADER_SIZE, MAX_DATA } from './messages.ts';

/** More unanswered requests than this mean that the VMM does not answer at all. */
const MAX_REQUESTS = 4096;

type Done = (errno: Errno, data: Uint8Array) => void;

interface Request {
  readonly command: number;
  readonly address: number;
  readonly count: number;
  readonly done: Done | undefined;
}

const NOTHING = new Uint8Array(0);

export class OutgoingRequests {
  readonly #send: (message: Uint8Array) => void;
  readonly #pending = new Map<number, Request>();
  readonly #message = new Uint8Array(HEADER_SIZE + DMA_ACCESS_SIZE + MAX_DATA);
  readonly #view = new DataView(this.#message.buffer);
  #nextId = 0;

  constructor(send: (message: Uint8Array) => void) {
    this.#send = send;
  }

  get pending(): number {
    return this.#pending.size;
  }

  write(address: number, data: Uint8Array, done: Done | undefined): Errno {
    return this.#request({ command: DMA_WRITE.command, address, count: data.length, done }, data);
  }

  read(address: number, count: number, done: Done): Errno {
    return this.#request({ command: DMA_READ.command, address, count, done }, NOTHING);
  }

  #request(request: Request, data: Uint8Array): Errno {
    if (this.#pending.size >= MAX_REQUESTS) return ERRNO.ENOBUFS;
    // Ids are ours alone; there are sixteen times as many as requests, so a free one comes soon.
    while (this.#pending.has(this.#nextId)) this.#nextId = (this.#nextId + 1) & 0xffff;
    const id = this.#nextId;
    this.#nextId = (id + 1) & 0xffff;
    this.#pending.set(id, request);

    const size = HEADER_SIZE + DMA_ACCESS_SIZE + data.length;
    const view = this.#view;
    HEADER.id.set(view, id);
    HEADER.command.set(view, request.command);
    HEADER.size.set(view, size);
    HEADER.flags.set(view, FLAG.Command);
    HEADER.error.set(view, 0);
    DMA_WRITE.fields.address.set(view, request.address, HEADER_SIZE);
    DMA_WRITE.fields.count.set(view, request.count, HEADER_SIZE);
    this.#message.set(data, HEADER_SIZE + DMA_ACCESS_SIZE);
    this.#send(this.#message.subarray(0, size));
    return 0;
  }

  /**
   * Takes a reply.
   * @param payload what follows the header.
   * @returns what is wrong with it, or undefined; a reply that is wrong in itself fails its request with EPROTO.
   */
  answer(
    id: number,
    command: number,
    error: Errno | undefined,
    payload: Uint8Array,
  ): { field: string; got: string; expected: string } | undefined {
    const request = this.#pending.get(id);
    if (request === undefined)
      return { field: 'id', got: String(id), expected: 'the id of a request without a reply' };
    if (request.command !== command)
      return { field: 'command', got: String(command), expected: String(request.command) };
    this.#pending.delete(id);
    if (error !== undefined) {
      // The errno of a failed request is optional.
      request.done?.(error === 0 ? ERRNO.EIO : error, NOTHING);
      return undefined;
    }
    if (command === DMA_WRITE.command) {
      // QEMU answers with the header alone, the specification with address and count. Neither says more than "done".
      request.done?.(0, NOTHING);
      return undefined;
    }
    const expected = DMA_ACCESS_SIZE + request.count;
    if (payload.length !== expected) {
      request.done?.(ERRNO.EPROTO, NOTHING);
      return {
        field: 'size',
        got: String(HEADER_SIZE + payload.length),
        expected: String(HEADER_SIZE + expected),
      };
    }
    request.done?.(0, payload.subarray(DMA_ACCESS_SIZE));
    return undefined;
  }

  /** Fails whatever is unanswered. */
  abandon(): void {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    for (const request of all) request.done?.(ERRNO.ENOTCONN, NOTHING);
  }
}
