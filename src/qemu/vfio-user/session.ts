/**
 * The server's side of one vfio-user connection, without its socket: bytes and descriptors in, bytes and descriptors
 * out. Whatever the peer sends, the session answers or says that the connection has to end; it closes every descriptor
 * that it was given, exactly once.
 */

import { ERRNO } from '../../sys/errno.ts';
import type { DeviceLink, Errno, VfioUserDevice } from './device.ts';
import { Interrupts } from './interrupts.ts';
import {
  FLAG,
  HEADER,
  HEADER_SIZE,
  MAX_FDS,
  MAX_MESSAGE,
  MESSAGES,
  messageName,
  type MessageType,
  VERSION,
} from './messages.ts';
import type { Request } from './request.ts';
import { RequestHandlers } from './request-handlers.ts';
import { OutgoingRequests } from './outgoing-requests.ts';
import { type ClientLimits, negotiate } from './version.ts';
import { hex, type Violation } from './violation.ts';

/** What a session does to the world. */
export interface SessionPort {
  /** Sends a message. Its bytes and descriptors stay the session's and are valid during the call. */
  send(message: Uint8Array, fds: readonly number[]): void;
  close(fd: number): void;
  /** Adds 1 to an eventfd. */
  signal(fd: number): void;
}

/** A peer that goes on and on is counted, not printed. */
const MAX_REPORTS = 32;
const NO_FDS: readonly number[] = [];

export class VfioUserSession implements DeviceLink {
  readonly #device: VfioUserDevice;
  readonly #port: SessionPort;
  readonly #report: (violation: Violation) => void;
  readonly #interrupts: Interrupts;
  readonly #requests: OutgoingRequests;
  readonly #handlers: RequestHandlers;

  /** The message that is coming in: `#have` bytes of `#size`, which is 0 until its header is complete. */
  readonly #in = new Uint8Array(MAX_MESSAGE);
  readonly #inView = new DataView(this.#in.buffer);
  #have = 0;
  #size = 0;
  readonly #fds: number[] = [];

  readonly #out = new Uint8Array(MAX_MESSAGE);
  readonly #outView = new DataView(this.#out.buffer);

  /** What the client can take; undefined before the handshake. */
  #limits: ClientLimits | undefined;
  #broken = false;
  #ended = false;
  #violations = 0;

  constructor(device: VfioUserDevice, port: SessionPort, report: (violation: Violation) => void) {
    this.#device = device;
    this.#port = port;
    this.#report = report;
    this.#interrupts = new Interrupts(device.irqs, port);
    this.#requests = new OutgoingRequests((message) => port.send(message, NO_FDS));
    this.#handlers = new RequestHandlers(device, this.#interrupts, (...problem) => this.#reject(...problem));
  }

  /** How often the peer broke the protocol. */
  get violations(): number {
    return this.#violations;
  }

  /** Bytes until the next boundary: give no more at a time, so that descriptors arrive with their own header. */
  get wanted(): number {
    return (this.#size === 0 ? HEADER_SIZE : this.#size) - this.#have;
  }

  /**
   * Takes bytes of the stream, in pieces of any size, and the descriptors that came with the first of them. The
   * descriptors belong to the session from now on.
   * @returns false if the connection has to end; the caller then calls {@link end}.
   */
  receive(bytes: Uint8Array, fds: readonly number[]): boolean {
    this.#attach(fds);
    let at = 0;
    while (at < bytes.length && !this.#broken) {
      const piece = bytes.subarray(at, at + this.wanted);
      this.#in.set(piece, this.#have);
      this.#have += piece.length;
      at += piece.length;
      if (this.#size === 0 && this.#have === HEADER_SIZE) this.#readSize();
      if (this.#have === this.#size) this.#take();
    }
    return !this.#broken;
  }

  /** Descriptors belong to the message whose header they come with. */
  #attach(fds: readonly number[]): void {
    if (fds.length === 0) return;
    const count = this.#fds.length + fds.length;
    if (!this.#broken && this.#have < HEADER_SIZE && count <= MAX_FDS) {
      this.#fds.push(...fds);
      return;
    }
    for (const fd of fds) this.#port.close(fd);
    const expected = this.#have < HEADER_SIZE ? `at most ${MAX_FDS}` : 'none after the header';
    // Without them their message would mean something else.
    this.#fail('header', 'number of descriptors', String(count), expected);
  }

  #readSize(): void {
    const size = HEADER.size.get(this.#inView);
    const type = HEADER.flags.get(this.#inView) & FLAG.TypeMask;
    if (size < HEADER_SIZE || size > MAX_MESSAGE)
      this.#fail('header', 'size', String(size), `${HEADER_SIZE}..${MAX_MESSAGE}`);
    else if (type !== FLAG.Command && type !== FLAG.Reply)
      this.#fail('header', 'type', String(type), '0 (command) or 1 (reply)');
    else this.#size = size;
  }

  /** Acts on the complete message. */
  #take(): void {
    const payload = this.#in.subarray(HEADER_SIZE, this.#size);
    const flags = HEADER.flags.get(this.#inView);
    this.#have = 0;
    this.#size = 0;
    if ((flags & FLAG.TypeMask) === FLAG.Reply) this.#takeReply(flags, payload);
    else this.#takeCommand(flags, payload);
    for (const fd of this.#fds.splice(0)) this.#port.close(fd);
  }

  #takeReply(flags: number, payload: Uint8Array): void {
    const id = HEADER.id.get(this.#inView);
    const command = HEADER.command.get(this.#inView);
    const error = (flags & FLAG.Error) === 0 ? undefined : HEADER.error.get(this.#inView);
    const problem = this.#requests.answer(id, command, error, payload);
    if (problem !== undefined)
      this.#reject(`reply to ${messageName(command)}`, problem.field, problem.got, problem.expected);
  }

  #takeCommand(flags: number, payload: Uint8Array): void {
    const id = HEADER.id.get(this.#inView);
    const command = HEADER.command.get(this.#inView);
    if (this.#limits === undefined && command !== VERSION.command) {
      this.#fail('header', 'command', messageName(command), 'VERSION first');
      return;
    }
    const request: Request = {
      payload,
      view: new DataView(payload.buffer, payload.byteOffset, payload.length),
      fds: this.#fds,
      out: this.#out.subarray(HEADER_SIZE),
      outView: new DataView(this.#out.buffer, HEADER_SIZE),
      replySize: 0,
      sendFds: [],
    };
    let errno = this.#check(command, flags, payload);
    const isHandshake = command === VERSION.command && errno === 0;
    if (isHandshake) errno = this.#version(request);
    else if (errno === 0) errno = this.#handlers.handle(command, request);
    if ((flags & FLAG.NoReply) === 0) this.#reply(id, command, errno, request);
    if (isHandshake && errno === 0) this.#device.connected(this);
  }

  /** What can be said of a command from its table entry alone. */
  #check(command: number, flags: number, payload: Uint8Array): Errno {
    const name = messageName(command);
    const type: MessageType | undefined = MESSAGES.get(command);
    if (type?.from !== 'client')
      return this.#reject('header', 'command', name, 'one that clients send', ERRNO.ENOSYS);
    if ((flags & ~FLAG.NoReply) !== 0)
      return this.#reject(name, 'flags', hex(flags), '0, or 0x10 (No_reply)');
    const size = HEADER_SIZE + payload.length;
    const least = HEADER_SIZE + type.size;
    if (size < least || (size > least && type.tail === undefined))
      return this.#reject(
        name,
        'size',
        String(size),
        `${type.tail === undefined ? '' : 'at least '}${least}`,
      );
    if (this.#fds.length > type.maxFds)
      return this.#reject(name, 'number of descriptors', String(this.#fds.length), `at most ${type.maxFds}`);
    return 0;
  }

  #version(request: Request): Errno {
    if (this.#limits !== undefined)
      return this.#reject(VERSION.name, 'command', 'a second VERSION', 'one a connection');
    const result = negotiate(request.payload);
    if ('field' in result) {
      // A server that cannot agree answers and ends the connection.
      this.#fail(VERSION.name, result.field, result.got, result.expected);
      return ERRNO.EINVAL;
    }
    this.#limits = result.limits;
    request.out.set(result.reply);
    request.replySize = result.reply.length;
    return 0;
  }

  #reply(id: number, command: number, errno: Errno, { replySize, sendFds }: Request): void {
    const view = this.#outView;
    // An error is told by the header alone.
    const size = HEADER_SIZE + (errno === 0 ? replySize : 0);
    HEADER.id.set(view, id);
    HEADER.command.set(view, command);
    HEADER.size.set(view, size);
    HEADER.flags.set(view, errno === 0 ? FLAG.Reply : FLAG.Reply | FLAG.Error);
    HEADER.error.set(view, errno);
    this.#port.send(this.#out.subarray(0, size), errno === 0 ? sendFds : NO_FDS);
  }

  #reject(message: string, field: string, got: string, expected: string, errno: Errno = ERRNO.EINVAL): Errno {
    this.#violations++;
    if (this.#violations <= MAX_REPORTS) this.#report({ message, field, got, expected, fatal: this.#broken });
    return errno;
  }

  #fail(message: string, field: string, got: string, expected: string): void {
    this.#broken = true;
    this.#reject(message, field, got, expected);
  }

  /** The connection is over: takes all memory and every interrupt away from the device. Ending twice is harmless. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#broken = true;
    for (const fd of this.#fds.splice(0)) this.#port.close(fd);
    this.#interrupts.releaseAll();
    this.#handlers.unmapAll();
    this.#requests.abandon();
    if (this.#limits !== undefined) this.#device.disconnected();
  }

  dmaWrite(address: number, data: Uint8Array, done?: (errno: Errno) => void): Errno {
    const errno = this.#mayRequest(data.length);
    return errno === 0 ? this.#requests.write(address, data, done) : errno;
  }

  dmaRead(address: number, count: number, done: (errno: Errno, data: Uint8Array) => void): Errno {
    const errno = this.#mayRequest(count);
    return errno === 0 ? this.#requests.read(address, count, done) : errno;
  }

  #mayRequest(count: number): Errno {
    if (this.#broken || this.#limits === undefined) return ERRNO.ENOTCONN;
    return count > 0 && count <= this.#limits.maxData ? 0 : ERRNO.EMSGSIZE;
  }

  interrupt(index: number, vector: number): boolean {
    return this.#interrupts.raise(index, vector);
  }
}
