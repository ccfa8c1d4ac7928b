import type { Socket } from 'node:net';

import { QemuError } from './errors.ts';
import { LineChannel } from './line-channel.ts';
import { withTimeLimit } from './time-limit.ts';

/** A message that QEMU sends by itself. */
export interface QmpEvent {
  event: string;
  data: Record<string, unknown>;
}

interface Pending {
  command: string;
  resolve: (value: unknown) => void;
  reject: (error: QemuError) => void;
}

type Json = Record<string, unknown>;

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Commands without an answer beyond this number mean that the caller forgot to wait. */
const MAX_PENDING = 256;

/**
 * A QMP client. Commands are answered in any order; events go to listeners. Nothing here blocks: QEMU answers no QMP
 * command while a vCPU waits for us to serve a register access.
 */
export class Qmp {
  readonly #channel: LineChannel;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeting: Promise<void>;
  #greeted: (() => void) | undefined;
  #nextId = 1;

  constructor(socket: Socket) {
    this.#greeting = new Promise((resolve) => {
      this.#greeted = resolve;
    });
    this.#channel = new LineChannel(socket, 'QMP', (line) => {
      this.#receive(line);
    });
    void this.#channel.closed.then((error) => {
      for (const pending of this.#pending.values()) pending.reject(error);
      this.#pending.clear();
    });
  }

  /** Why the connection ended; never rejects. */
  get closed(): Promise<QemuError> {
    return this.#channel.closed;
  }

  /**
   * Waits for QEMU's greeting and leaves capability negotiation; call once, before anything else.
   * @throws {QemuError} TIMEOUT, CLOSED or PROTOCOL.
   */
  async negotiate(timeoutMs = 30_000): Promise<void> {
    const failed = this.closed.then((error) => {
      throw error;
    });
    await withTimeLimit(Promise.race([this.#greeting, failed]), timeoutMs, () => 'QEMU sent no QMP greeting');
    await this.execute('qmp_capabilities', undefined, timeoutMs);
  }

  /**
   * Runs one command and gives what it returns.
   * @throws {QemuError} REFUSED with QEMU's own words, TIMEOUT, CLOSED or PROTOCOL.
   */
  async execute(command: string, args?: Json, timeoutMs = 30_000): Promise<unknown> {
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => {
      if (this.#channel.error !== undefined) reject(this.#channel.error);
      else if (this.#pending.size >= MAX_PENDING) {
        reject(new QemuError('PROTOCOL', `QMP: ${MAX_PENDING} commands are already waiting for an answer.`));
      } else this.#pending.set(id, { command, resolve, reject });
    });
    this.#channel.send(JSON.stringify({ execute: command, ...(args && { arguments: args }), id }));
    try {
      return await withTimeLimit(answer, timeoutMs, () => `QEMU did not answer the QMP command ${command}`);
    } finally {
      this.#pending.delete(id);
    }
  }

  /** Calls `listener` for each event from now on; returns what ends that. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /**
   * The next event of that name for which `accept` holds. Only events that arrive after this call count, so call it
   * before the command that causes the event.
   * @throws {QemuError} TIMEOUT or CLOSED.
   */
  async waitForEvent(
    name: string,
    timeoutMs = 30_000,
    accept: (data: Json) => boolean = () => true,
  ): Promise<QmpEvent> {
    let stop: () => void = () => {};
    const arrived = new Promise<QmpEvent>((resolve) => {
      stop = this.onEvent((event) => {
        if (event.event === name && accept(event.data)) resolve(event);
      });
    });
    const failed = this.closed.then((error) => {
      throw error;
    });
    try {
      return await withTimeLimit(
        Promise.race([arrived, failed]),
        timeoutMs,
        () => `QEMU did not report ${name}`,
      );
    } finally {
      stop();
    }
  }

  close(): void {
    this.#channel.close();
  }

  #receive(line: string): void {
    if (line === '') return;
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      throw new QemuError('PROTOCOL', `QMP: this is not JSON: ${line.slice(0, 80)}`);
    }
    if (!isObject(message))
      throw new QemuError('PROTOCOL', `QMP: this is not an object: ${line.slice(0, 80)}`);
    if ('QMP' in message) {
      this.#greeted?.();
    } else if (typeof message['event'] === 'string') {
      const data = isObject(message['data']) ? message['data'] : {};
      for (const listener of this.#listeners) listener({ event: message['event'], data });
    } else {
      this.#answer(message);
    }
  }

  #answer(message: Json): void {
    const id = message['id'];
    const error = message['error'];
    if (typeof id !== 'number') {
      // QEMU answers without an id when it could not read the command at all.
      const words =
        isObject(error) && typeof error['desc'] === 'string' ? error['desc'] : 'an answer without id';
      throw new QemuError('PROTOCOL', `QMP: ${words}`);
    }
    // An answer to a command that timed out finds nobody; that is no reason to end the connection.
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    if (isObject(error)) {
      pending.reject(new QemuError('REFUSED', `QEMU refused ${pending.command}: ${String(error['desc'])}`));
    } else if ('return' in message) {
      pending.resolve(message['return']);
    } else {
      pending.reject(new QemuError('PROTOCOL', `QMP: the answer to ${pending.command} has no "return".`));
    }
  }
}
