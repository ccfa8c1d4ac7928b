/** Several watchers of one descriptor on one libuv handle: libuv takes each descriptor only once a loop. */

import type { Fd, Stop } from './syscalls.ts';

/** What koffi's wrapper of uv_poll gives. */
interface PollHandle {
  close(): void;
}

interface Watched {
  readonly handle: PollHandle;
  /** Replaced, never changed: a callback may stop others, or begin to watch. */
  watchers: readonly Watcher[];
}

interface Watcher {
  readonly ready: () => void;
  stopped: boolean;
}

export class ReadableWatches {
  readonly #poll: (fd: Fd, ready: () => void) => PollHandle;
  readonly #watched = new Map<Fd, Watched>();

  /** @param poll begins a watch in Node's event loop; it must not be asked for a descriptor that epoll refuses. */
  constructor(poll: (fd: Fd, ready: () => void) => PollHandle) {
    this.#poll = poll;
  }

  watch(fd: Fd, ready: () => void): Stop {
    const watcher: Watcher = { ready, stopped: false };
    let watched = this.#watched.get(fd);
    if (watched === undefined) {
      watched = { handle: this.#poll(fd, () => this.#turn(fd)), watchers: [] };
      this.#watched.set(fd, watched);
    }
    watched.watchers = [...watched.watchers, watcher];
    return { stop: () => this.#stop(fd, watcher) };
  }

  #turn(fd: Fd): void {
    for (const watcher of this.#watched.get(fd)?.watchers ?? []) {
      if (watcher.stopped) continue;
      try {
        watcher.ready();
      } catch (error) {
        // koffi would swallow it, and never call again. It belongs to whoever handles uncaught exceptions.
        setImmediate(() => {
          throw error;
        });
      }
    }
  }

  #stop(fd: Fd, watcher: Watcher): void {
    if (watcher.stopped) return;
    watcher.stopped = true;
    const watched = this.#watched.get(fd)!;
    watched.watchers = watched.watchers.filter((other) => other !== watcher);
    if (watched.watchers.length > 0) return;
    this.#watched.delete(fd);
    watched.handle.close();
  }
}
