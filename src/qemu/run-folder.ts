import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { UNIX_PATH_MAX } from '../sys/unix-address.ts';
import { QemuError } from './errors.ts';

/** A private folder (mode 0700) for the sockets and files of one run. It goes away with {@link RunFolder.remove}. */
export class RunFolder {
  readonly path: string;
  readonly #removeAtExit = (): void => {
    this.remove();
  };

  constructor(parent: string = tmpdir()) {
    // mkdtemp makes it 0700, whatever the umask is.
    this.path = mkdtempSync(join(parent, 'vsmmu-'));
    process.on('exit', this.#removeAtExit);
  }

  /** The path of a file in this folder. */
  file(name: string): string {
    return join(this.path, name);
  }

  /**
   * The path of a socket in this folder.
   * @throws {QemuError} SOCKET if the path is longer than a socket address can carry.
   */
  socket(name: string): string {
    const path = this.file(name);
    if (Buffer.byteLength(path) > UNIX_PATH_MAX) {
      throw new QemuError(
        'SOCKET',
        `The path ${path} is too long for a socket.`,
        'Set TMPDIR to a folder with a shorter path.',
      );
    }
    return path;
  }

  remove(): void {
    process.off('exit', this.#removeAtExit);
    rmSync(this.path, { recursive: true, force: true });
  }
}
