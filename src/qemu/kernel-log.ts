import type { Socket } from 'node:net';

import { QemuError } from './errors.ts';
import { withTimeLimit } from './time-limit.ts';

/** What is kept of a guest's console; older lines are dropped. */
const KEEP_LINES = 20_000;

/** A line that does not end is cut here. */
const MAX_LINE = 4096;

interface Waiter {
  pattern: RegExp;
  resolve: (line: string) => void;
  reject: (error: QemuError) => void;
}

export interface WaitOptions {
  timeoutMs?: number;
  /** Only lines from this position on, as {@link KernelLog.position} gave it; 0, the beginning, unless told. */
  from?: number;
}

/** What the guest's kernel prints on its console, line by line. The guest may print anything: all is bounded. */
export class KernelLog {
  #lines: string[] = [];
  #dropped = 0;
  #pending = '';
  readonly #waiters = new Set<Waiter>();
  readonly #listeners = new Set<(line: string) => void>();
  #end: QemuError | undefined;

  constructor(socket?: Socket) {
    if (socket === undefined) return;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      this.append(text);
    });
    // Whoever started QEMU knows better why it ended; the message is theirs.
    socket.on('error', () => {});
  }

  /** Number of whole lines so far, dropped ones included. */
  get position(): number {
    return this.#dropped + this.#lines.length;
  }

  /** The lines from a position on, without those dropped. */
  lines(from = 0): string[] {
    return this.#lines.slice(Math.max(0, from - this.#dropped));
  }

  /** The last lines, for a message. */
  tail(count = 20): string {
    return [...this.#lines.slice(-count), ...(this.#pending === '' ? [] : [this.#pending])].join('\n');
  }

  /** Calls `listener` for each line from now on; returns what ends that. */
  onLine(listener: (line: string) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /**
   * The first line that matches, already printed or still to come.
   * @throws {QemuError} TIMEOUT, GUEST_PANIC, or the reason why the guest ended; the message has the last lines.
   */
  async waitFor(pattern: RegExp, { timeoutMs = 30_000, from = 0 }: WaitOptions = {}): Promise<string> {
    const plain = new RegExp(pattern.source, pattern.flags.replaceAll(/[gy]/g, ''));
    const found = this.lines(from).find((line) => plain.test(line));
    if (found !== undefined) return found;
    if (this.#end !== undefined) throw this.#end;
    let waiter: Waiter | undefined;
    const arrived = new Promise<string>((resolve, reject) => {
      waiter = { pattern: plain, resolve, reject };
      this.#waiters.add(waiter);
    });
    try {
      return await withTimeLimit(
        arrived,
        timeoutMs,
        () => `The guest did not print ${String(plain)}; its last lines:\n${this.tail()}\n`,
      );
    } finally {
      if (waiter !== undefined) this.#waiters.delete(waiter);
    }
  }

  /** Takes text as it arrives. */
  append(text: string): void {
    this.#pending += text;
    const parts = this.#pending.split('\n');
    this.#pending = (parts.pop() ?? '').slice(0, MAX_LINE);
    for (const part of parts) this.#line(part.slice(0, MAX_LINE).replace(/\r+$/, ''));
  }

  /** No more lines will come; whoever waits gets this error. */
  end(error: QemuError): void {
    this.#end ??= error;
    for (const waiter of this.#waiters) waiter.reject(error);
    this.#waiters.clear();
  }

  #line(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > KEEP_LINES) {
      const excess = KEEP_LINES >>> 2;
      this.#lines = this.#lines.slice(excess);
      this.#dropped += excess;
    }
    for (const listener of this.#listeners) listener(line);
    for (const waiter of this.#waiters) {
      if (!waiter.pattern.test(line)) continue;
      this.#waiters.delete(waiter);
      waiter.resolve(line);
    }
    if (/Kernel panic - not syncing/.test(line)) {
      const panic = new QemuError('GUEST_PANIC', `The guest's kernel panicked:\n${this.tail()}`);
      for (const waiter of this.#waiters) waiter.reject(panic);
      this.#waiters.clear();
    }
  }
}
