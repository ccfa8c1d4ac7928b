/** One accepted connection: moves bytes and descriptors between its socket and its session. */

import { ERRNO, errnoName } from '../../sys/errno.ts';
import { POLLOUT } from '../../sys/linux.ts';
import { MESSAGE_MAX } from '../../sys/message-arena.ts';
import type { Received, Syscalls } from '../../sys/syscalls.ts';
import type { PollLoop, Watched } from '../poll-loop.ts';
import type { VfioUserDevice } from './device.ts';
import { type SessionPort, VfioUserSession } from './session.ts';
import { violationText } from './violation.ts';

/** Messages that one connection may handle before others get their turn. */
const SLICE = 64;
/** With so many bytes unsent, a peer has stopped to read; it gets no more answers until it goes on. */
const MAX_UNSENT = 1 << 20;

/** 1, as an eventfd wants it. */
const ONE = new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]);

interface Unsent {
  bytes: Uint8Array;
  fds: readonly number[];
}

export class Connection {
  readonly #sys: Syscalls;
  readonly #fd: number;
  readonly #session: VfioUserSession;
  readonly #watched: Watched;
  readonly #log: (text: string) => void;
  readonly #closed: () => void;
  readonly #into = new Uint8Array(MESSAGE_MAX);
  readonly #received: Received = { fds: [], truncated: false };
  #unsent: Unsent[] = [];
  #unsentBytes = 0;
  #open = true;

  /** @param fd becomes the connection's. @param closed called once, after everything has been given back. */
  constructor(
    sys: Syscalls,
    loop: PollLoop,
    fd: number,
    device: VfioUserDevice,
    log: (text: string) => void,
    closed: () => void,
  ) {
    this.#sys = sys;
    this.#fd = fd;
    this.#log = log;
    this.#closed = closed;
    const port: SessionPort = {
      send: (message, fds) => this.#send(message, fds),
      close: (descriptor) => void sys.close(descriptor),
      // EAGAIN: its value is at the maximum, so nobody has waited for it for a long time.
      signal: (descriptor) => void sys.write(descriptor, ONE),
    };
    this.#session = new VfioUserSession(device, port, (violation) => log(violationText(violation)));
    this.#watched = loop.watch(fd, { readable: true }, (revents) => this.#ready(revents));
  }

  #ready(revents: number): void {
    if ((revents & POLLOUT) !== 0) this.#flush();
    if ((revents & ~POLLOUT) !== 0) this.turn();
  }

  /** Handles what the peer has sent, a bounded number of messages of it. */
  turn(): void {
    try {
      for (let i = 0; i < 2 * SLICE && this.#open && this.#unsentBytes < MAX_UNSENT; i++)
        if (!this.#receive()) return;
    } catch (error) {
      // The device is ours and should not throw. If it does, this connection ends and the others go on.
      this.#log(error instanceof Error ? (error.stack ?? error.message) : String(error));
      this.close();
    }
  }

  /** Receives one piece, up to a header or a payload. @returns false if there is no more now. */
  #receive(): boolean {
    const into = this.#into.subarray(0, Math.min(this.#session.wanted, MESSAGE_MAX));
    const length = this.#sys.recvmsg(this.#fd, into, this.#received);
    if (length === -ERRNO.EINTR) return true;
    if (length === -ERRNO.EAGAIN) return false;
    if (length < 0 && length !== -ERRNO.ECONNRESET) this.#log(`recvmsg failed (${errnoName(length)})`);
    const goesOn = this.#session.receive(into.subarray(0, Math.max(length, 0)), this.#received.fds);
    if (this.#received.truncated)
      this.#log('no room for the descriptors of a message: too many are open here');
    if (length > 0 && goesOn && !this.#received.truncated) return true;
    this.close();
    return false;
  }

  #send(message: Uint8Array, fds: readonly number[]): void {
    if (!this.#open) return;
    let sent = 0;
    if (this.#unsent.length === 0) {
      sent = this.#sys.sendmsg(this.#fd, message, fds);
      if (sent === message.length) return;
      // A broken pipe shows as the end of the stream too, after what the peer sent before.
      if (sent < 0 && sent !== -ERRNO.EAGAIN && sent !== -ERRNO.EINTR) return;
    }
    const rest: Unsent =
      sent > 0 ? { bytes: message.slice(sent), fds: [] } : { bytes: message.slice(), fds: [...fds] };
    this.#unsent.push(rest);
    this.#unsentBytes += rest.bytes.length;
    this.#watchAgain();
  }

  #flush(): void {
    while (this.#unsent.length > 0) {
      const next = this.#unsent[0];
      const sent = this.#sys.sendmsg(this.#fd, next.bytes, next.fds);
      if (sent === -ERRNO.EAGAIN || sent === -ERRNO.EINTR) break;
      if (sent < 0) {
        this.close();
        return;
      }
      this.#unsentBytes -= sent;
      if (sent === next.bytes.length) this.#unsent.shift();
      else this.#unsent[0] = { bytes: next.bytes.subarray(sent), fds: [] };
    }
    this.#watchAgain();
  }

  #watchAgain(): void {
    this.#watched.want({ readable: this.#unsentBytes < MAX_UNSENT, writable: this.#unsent.length > 0 });
  }

  /** Ends the connection: the session gives everything back, the socket is closed. Closing twice is harmless. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#watched.stop();
    this.#session.end();
    this.#sys.close(this.#fd);
    this.#closed();
  }
}
