/** A vfio-user client on a real socket, in the thread of the server: it sends, the test turns the loop, it receives. */

import { ERRNO, errnoName } from '../../src/sys/errno.ts';
import { unixAddress } from '../../src/sys/unix-address.ts';
import { SYS } from './syscalls.ts';
import { type Answer, answers, concat, version } from './vfio-user.ts';

export class Client {
  readonly fd: number;

  constructor(path: string) {
    this.fd = SYS.socket();
    const errno = SYS.connect(this.fd, unixAddress(path)!);
    if (errno < 0) throw new Error(`connect: ${errnoName(errno)}`);
  }

  /** @returns bytes sent, or a negative errno. */
  send(bytes: Uint8Array, fds: readonly number[] = []): number {
    return SYS.sendmsg(this.fd, bytes, fds);
  }

  /** Every message that has come, or undefined at the end of the stream. Descriptors are closed. */
  receive(): Answer[] | undefined {
    const pieces: Uint8Array[] = [];
    const received = { fds: [], truncated: false };
    for (;;) {
      const into = new Uint8Array(65536);
      const length = SYS.recvmsg(this.fd, into, received);
      for (const fd of received.fds) SYS.close(fd);
      if (length === -ERRNO.EAGAIN) return answers(concat(...pieces));
      // ECONNRESET: the server closed before it had read everything.
      if (length <= 0) return pieces.length === 0 ? undefined : answers(concat(...pieces));
      pieces.push(into.subarray(0, length));
    }
  }

  handshake(turn: () => void): void {
    this.send(version());
    turn();
    turn();
    this.receive();
  }

  close(): void {
    SYS.close(this.fd);
  }
}
