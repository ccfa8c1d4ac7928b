/**
 * One thread's loop over its descriptors: waits in `ppoll`, calls whoever watches what is ready, then gives deferred
 * work its turn. Nothing else blocks, so a VMM that waits for our answer never waits for its own.
 */

import { ERRNO, errnoName } from '../sys/errno.ts';
import { POLLIN, POLLOUT } from '../sys/linux.ts';
import { POLLFD_SIZE, type Syscalls } from '../sys/syscalls.ts';

/** Work that its owner put off. The loop looks at descriptors between slices of it, and waits only when it is idle. */
export interface Tasks {
  readonly idle: boolean;
  /** Runs at most `limit` of them. */
  run(limit: number): unknown;
}

const NO_TASKS: Tasks = { idle: true, run() {} };

/** Tasks between two looks at the descriptors. */
const SLICE = 64;

/** A worker that another thread terminates notices when `ppoll` returns. */
const LONGEST_WAIT_MS = 1000;

/** A descriptor that the loop looks at. */
export interface Watched {
  /** What to wait for; the end of a stream and errors are always told. */
  want(interest: Interest): void;
  /** Looks no more. Stopping twice is harmless; the descriptor stays open. */
  stop(): void;
}

export interface Interest {
  readonly readable?: boolean;
  readonly writable?: boolean;
}

interface Entry {
  readonly fd: number;
  events: number;
  /** `revents` are poll's bits. */
  readonly ready: (revents: number) => void;
  stopped: boolean;
}

export class PollLoop {
  readonly #sys: Syscalls;
  readonly #tasks: Tasks;
  #entries: readonly Entry[] = [];
  #pollfds = new Uint8Array(0);
  #view = new DataView(this.#pollfds.buffer);
  #changed = false;
  #stopped = false;
  /** In no order: there are few. */
  readonly #timers: { readonly due: number; readonly task: () => void }[] = [];

  constructor(sys: Syscalls, tasks: Tasks = NO_TASKS) {
    this.#sys = sys;
    this.#tasks = tasks;
  }

  /** Calls `ready` in each turn in which the descriptor is ready; those watched first come first. */
  watch(fd: number, interest: Interest, ready: (revents: number) => void): Watched {
    const entry: Entry = { fd, events: eventsOf(interest), ready, stopped: false };
    this.#entries = [...this.#entries, entry];
    this.#changed = true;
    return {
      want: (next) => {
        const events = eventsOf(next);
        if (entry.events === events) return;
        entry.events = events;
        this.#changed = true;
      },
      stop: () => {
        if (entry.stopped) return;
        entry.stopped = true;
        this.#entries = this.#entries.filter((other) => other !== entry);
        this.#changed = true;
      },
    };
  }

  /** Runs a task in a turn after this many milliseconds. */
  after(milliseconds: number, task: () => void): void {
    this.#timers.push({ due: performance.now() + milliseconds, task });
  }

  /**
   * One turn: waits at most `timeoutMs` (below 0: for ever) for a descriptor, until the next timer, or not at all while
   * tasks remain; calls those that watch what is ready; runs what is due, and a slice of the tasks.
   */
  turn(timeoutMs: number): void {
    if (this.#changed) this.#rebuild();
    const entries = this.#entries;
    const ready = this.#sys.ppoll(
      this.#pollfds,
      entries.length,
      this.#tasks.idle ? this.#untilTimer(timeoutMs) : 0,
    );
    if (ready < 0 && ready !== -ERRNO.EINTR) throw new Error(`ppoll failed (${errnoName(ready)})`);
    if (ready > 0) {
      // A callback may stop others, or begin to watch: what it changes counts from the next turn on.
      const found = entries.map((_, i) => this.#view.getUint16(i * POLLFD_SIZE + 6, true));
      for (const [i, entry] of entries.entries()) if (found[i] !== 0 && !entry.stopped) entry.ready(found[i]);
    }
    if (this.#timers.length > 0) this.#runTimers();
    if (!this.#tasks.idle) this.#tasks.run(SLICE);
  }

  /** The time to wait, cut short by the first timer. */
  #untilTimer(timeoutMs: number): number {
    if (this.#timers.length === 0) return timeoutMs;
    const next = Math.max(0, Math.ceil(Math.min(...this.#timers.map(({ due }) => due)) - performance.now()));
    return timeoutMs < 0 ? next : Math.min(timeoutMs, next);
  }

  #runTimers(): void {
    const now = performance.now();
    const due = this.#timers.filter((timer) => timer.due <= now);
    for (const timer of due) this.#timers.splice(this.#timers.indexOf(timer), 1);
    for (const { task } of due) task();
  }

  /** Turns until {@link stop}. */
  run(): void {
    this.#stopped = false;
    while (!this.#stopped) this.turn(LONGEST_WAIT_MS);
  }

  /** Ends {@link run} after the turn that is going on. */
  stop(): void {
    this.#stopped = true;
  }

  #rebuild(): void {
    this.#pollfds = new Uint8Array(this.#entries.length * POLLFD_SIZE);
    this.#view = new DataView(this.#pollfds.buffer);
    for (const [i, entry] of this.#entries.entries()) {
      this.#view.setInt32(i * POLLFD_SIZE, entry.fd, true);
      this.#view.setInt16(i * POLLFD_SIZE + 4, entry.events, true);
    }
    this.#changed = false;
  }
}

const eventsOf = (interest: Interest): number =>
  (interest.readable === true ? POLLIN : 0) | (interest.writable === true ? POLLOUT : 0);
