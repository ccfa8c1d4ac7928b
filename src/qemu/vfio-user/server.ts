/** A UNIX socket at which one VMM at a time finds a device. */

import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { ERRNO, errnoName } from '../../sys/errno.ts';
import type { Syscalls } from '../../sys/syscalls.ts';
import { UNIX_PATH_MAX, unixAddress } from '../../sys/unix-address.ts';
import { QemuError } from '../errors.ts';
import type { PollLoop, Watched } from '../poll-loop.ts';
import { Connection } from './connection.ts';
import type { VfioUserDevice } from './device.ts';

export interface ServerOptions {
  readonly sys: Syscalls;
  readonly loop: PollLoop;
  /** At most 107 bytes. Its folder has to be one that others cannot write to. */
  readonly path: string;
  readonly device: VfioUserDevice;
  /** What a peer does wrong, in sentences. */
  readonly log: (text: string) => void;
}

export class VfioUserServer {
  readonly #options: ServerOptions;
  readonly #listener: number;
  readonly #watched: Watched;
  #client: Connection | undefined;
  #open = true;

  /**
   * Listens. The socket is there, for its owner only, when this returns; a VMM can connect before the loop turns.
   * @throws {QemuError} SOCKET if the path is too long, is something else than a stale socket, or somebody listens.
   */
  constructor(options: ServerOptions) {
    this.#options = options;
    const { sys, loop, path } = options;
    const address = unixAddress(path);
    if (address === undefined)
      throw new QemuError(
        'SOCKET',
        `${path} cannot be the path of a socket: it has to have 1 to ${UNIX_PATH_MAX} bytes.`,
        'Use a folder with a shorter name, such as one under /tmp.',
      );
    this.#listener = sys.socket();
    if (this.#listener < 0) throw refused('A socket cannot be made', this.#listener);
    try {
      this.#bind(address);
      // Nobody can connect before `listen`, so nobody does while the mode is still that of the umask.
      chmodSync(path, 0o600);
      const errno = sys.listen(this.#listener, 1);
      if (errno < 0) throw refused(`Nobody can listen at ${path}`, errno);
    } catch (error) {
      sys.close(this.#listener);
      throw error;
    }
    this.#watched = loop.watch(this.#listener, { readable: true }, () => this.#accept());
  }

  /** True while a VMM is connected. */
  get connected(): boolean {
    return this.#client !== undefined;
  }

  #bind(address: Uint8Array): void {
    const { sys, path } = this.#options;
    let errno = sys.bind(this.#listener, address);
    if (errno === -ERRNO.EADDRINUSE) {
      this.#removeStale(address);
      errno = sys.bind(this.#listener, address);
    }
    if (errno < 0) throw refused(`There can be no socket at ${path}`, errno);
  }

  /** Removes a socket at which nobody listens, and nothing else. */
  #removeStale(address: Uint8Array): void {
    const { sys, path } = this.#options;
    // A connection to what is not a socket is refused as well.
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true)
      throw new QemuError('SOCKET', `${path} is there and is not a socket.`, 'Give another path.');
    const probe = sys.socket();
    if (probe < 0) throw refused('A socket cannot be made', probe);
    const errno = sys.connect(probe, address);
    sys.close(probe);
    if (errno !== -ERRNO.ECONNREFUSED)
      throw new QemuError(
        'SOCKET',
        `Somebody else listens at ${path}${errno < 0 ? ` (${errnoName(errno)})` : ''}.`,
        'End that process, or give another path.',
      );
    unlinkSync(path);
  }

  #accept(): void {
    const { sys, loop, device, log } = this.#options;
    const fd = sys.accept4(this.#listener);
    if (fd === -ERRNO.EAGAIN || fd === -ERRNO.EINTR) return;
    if (fd < 0) {
      // The listener stays readable, so looking at it again would be a busy loop.
      log(`${device.name}: accept4 failed (${errnoName(fd)}); no more connections`);
      this.#watched.stop();
      return;
    }
    // A VMM that ended and its successor can both show up in one turn.
    this.#client?.turn();
    if (this.#client !== undefined) {
      sys.close(fd);
      log(`${device.name}: a second client was refused while one is connected`);
      return;
    }
    const prefixed = (text: string): void => log(`${device.name}: ${text}`);
    this.#client = new Connection(sys, loop, fd, device, prefixed, () => (this.#client = undefined));
  }

  /** Ends the connection, stops listening and removes the socket. Closing twice is harmless. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#client?.close();
    this.#watched.stop();
    this.#options.sys.close(this.#listener);
    try {
      unlinkSync(this.#options.path);
    } catch {
      // Somebody removed it, or its folder.
    }
  }
}

const refused = (text: string, errno: number): QemuError =>
  new QemuError('SOCKET', `${text} (${errnoName(errno)}).`);
