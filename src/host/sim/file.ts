/** Open files of the simulated kernel, their descriptors, and who waits for them to become readable. */

import type { Errno, Fd, Watch } from '../../iommufd/kernel.ts';
import { ERRNO } from '../../iommufd/uapi/errno.ts';
import type { UserSink } from './user-space.ts';

/** poll(2) events. */
export const POLLIN = 0x1;
export const POLLOUT = 0x4;
export const POLLNVAL = 0x20;

/** What an open file answers if it has nothing better. Counts and addresses are the caller's: any value may come. */
export abstract class OpenFile {
  /** Set by the descriptor table: wakes whoever waits for this file. */
  wake: () => void = () => {};

  ioctl(_request: number, _arg: Uint8Array): Errno {
    return ERRNO.ENOTTY;
  }

  /** @returns bytes, or a negative errno. */
  read(_into: UserSink, _count: number): number {
    return -ERRNO.EINVAL;
  }

  write(_from: Uint8Array): number {
    return -ERRNO.EINVAL;
  }

  pread(_into: Uint8Array, _offset: number): number {
    return -ERRNO.ESPIPE;
  }

  pwrite(_from: Uint8Array, _offset: number): number {
    return -ERRNO.ESPIPE;
  }

  /** Pending events of {@link POLLIN} and {@link POLLOUT}. */
  poll(): number {
    return 0;
  }

  /** The last descriptor is gone. */
  abstract release(): void;
}

/** First descriptor after standard input, output and error. */
const FIRST_FD = 3;

interface ActiveWatch extends Watch {
  readonly file: OpenFile;
  readonly callback: () => void;
  posted: boolean;
  stopped: boolean;
}

export class FileTable {
  readonly #files: (OpenFile | undefined)[] = [];
  readonly #watches = new Set<ActiveWatch>();
  readonly #schedule: (task: () => void) => void;
  readonly #limit: number;

  /** @param limit number of descriptors, as RLIMIT_NOFILE. */
  constructor(schedule: (task: () => void) => void, limit: number) {
    this.#schedule = schedule;
    this.#limit = limit;
  }

  /** Number of open descriptors. */
  get size(): number {
    return this.#files.filter((file) => file !== undefined).length;
  }

  /** Gives the file the lowest free descriptor. @returns it, or -EMFILE. */
  open(file: OpenFile): Fd {
    let fd = FIRST_FD;
    while (this.#files[fd] !== undefined) fd += 1;
    if (fd >= this.#limit) return -ERRNO.EMFILE;
    this.#files[fd] = file;
    file.wake = () => this.#wake(file);
    return fd;
  }

  get(fd: Fd): OpenFile | undefined {
    return this.#files[fd];
  }

  /** Closes the descriptor. @returns 0 or EBADF. */
  close(fd: Fd): Errno {
    const file = this.#files[fd];
    if (file === undefined) return ERRNO.EBADF;
    this.#files[fd] = undefined;
    for (const watch of this.#watches) if (watch.file === file) watch.stop();
    file.wake = () => {};
    file.release();
    return 0;
  }

  /** Level-triggered: posts the callback whenever the file is readable and the callback is not already posted. */
  watch(fd: Fd, callback: () => void): Watch {
    const file = this.#files[fd];
    if (file === undefined) return { stop() {} };
    const watch: ActiveWatch = {
      file,
      callback,
      posted: false,
      stopped: false,
      stop: () => {
        watch.stopped = true;
        this.#watches.delete(watch);
      },
    };
    this.#watches.add(watch);
    this.#post(watch);
    return watch;
  }

  #wake(file: OpenFile): void {
    for (const watch of this.#watches) if (watch.file === file) this.#post(watch);
  }

  #post(watch: ActiveWatch): void {
    if (watch.posted || (watch.file.poll() & POLLIN) === 0) return;
    watch.posted = true;
    this.#schedule(() => {
      watch.posted = false;
      if (watch.stopped || (watch.file.poll() & POLLIN) === 0) return;
      watch.callback();
      if (!watch.stopped) this.#post(watch);
    });
  }
}
