/**
 * Calls from one thread into another that never returns to its event loop: it sits in a {@link PollLoop}. A message
 * port carries the call, an eventfd wakes the loop. Answers and events come back by the port alone.
 */

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import type { Syscalls } from '../sys/syscalls.ts';
import { QemuError } from './errors.ts';
import type { PollLoop, Watched } from './poll-loop.ts';

/** What can be called, by name. Arguments and results are copied; an error keeps its message, code and hint. */
export type Handlers = Readonly<Record<string, (argument: never) => unknown>>;

interface Call {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

interface Failure {
  readonly message: string;
  readonly code: unknown;
  readonly hint: unknown;
}

type Answer =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly failure: Failure }
  | { readonly event: unknown };

/** Added to an eventfd. */
const ONE = new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]);

interface Pending {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

/** An error that was thrown on the other side of a channel. */
export class RemoteError extends Error {
  override readonly name = 'RemoteError';
  /** That of the error there, if it had one. */
  readonly code: string | undefined;
  readonly hint: string | undefined;

  constructor({ message, code, hint }: Failure) {
    super(message);
    this.code = typeof code === 'string' ? code : undefined;
    this.hint = typeof hint === 'string' ? hint : undefined;
  }
}

/** The end that calls. It owns the eventfd, whose number the other end is told. */
export class CommandClient<H extends Handlers, E = unknown> {
  /** For {@link CommandServer}; stays open until {@link close}. */
  readonly wakeFd: number;
  readonly #sys: Syscalls;
  readonly #port: MessagePort;
  readonly #pending = new Map<number, Pending>();
  #nextId = 0;
  #ended: Error | undefined;

  /** @param onEvent gets what the other end emits, from this thread's event loop. */
  constructor(sys: Syscalls, port: MessagePort, onEvent: (event: E) => void = () => {}) {
    this.#sys = sys;
    this.#port = port;
    const fd = sys.eventfd();
    if (fd < 0) throw new QemuError('CLOSED', `An eventfd cannot be made (errno ${-fd}).`);
    this.wakeFd = fd;
    port.on('message', (answer: Answer) => {
      if ('event' in answer) onEvent(answer.event as E);
      else this.#settle(answer);
    });
  }

  #settle(answer: Exclude<Answer, { event: unknown }>): void {
    const pending = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if ('failure' in answer) pending?.reject(new RemoteError(answer.failure));
    else pending?.resolve(answer.result as never);
  }

  /**
   * Calls a handler of the other end. Calls are carried out in order.
   * @throws RemoteError if the handler throws; whatever {@link close} was given, once the channel has ended.
   */
  call<K extends keyof H & string>(
    name: K,
    argument: Parameters<H[K]>[0],
  ): Promise<Awaited<ReturnType<H[K]>>> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = this.#nextId++;
    const call: Call = { id, name, argument };
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#port.postMessage(call);
      this.#sys.write(this.wakeFd, ONE);
    });
  }

  /**
   * Ends the channel: what is pending fails with `reason`. Call it when the other thread has ended, not before, since
   * it gives the eventfd back. Closing twice is harmless.
   */
  close(reason: Error = new QemuError('CLOSED', 'The connection to the worker thread is closed.')): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
    this.#port.close();
    this.#sys.close(this.wakeFd);
  }
}

/** The end that is called, in the thread of the loop. */
export class CommandServer<H extends Handlers, E = unknown> {
  readonly #sys: Syscalls;
  readonly #port: MessagePort;
  readonly #wakeFd: number;
  readonly #handlers: H;
  readonly #watched: Watched;
  readonly #count = new Uint8Array(8);

  /** Calls that were made before this are carried out in the loop's first turn. */
  constructor(sys: Syscalls, loop: PollLoop, port: MessagePort, wakeFd: number, handlers: H) {
    this.#sys = sys;
    this.#port = port;
    this.#wakeFd = wakeFd;
    this.#handlers = handlers;
    this.#watched = loop.watch(wakeFd, { readable: true }, () => this.#drain());
  }

  #drain(): void {
    // First the eventfd, then the port: a call that comes in between wakes the next turn, for nothing at worst.
    this.#sys.read(this.#wakeFd, this.#count);
    for (;;) {
      const received: { message: Call } | undefined = receiveMessageOnPort(this.#port);
      if (received === undefined) return;
      this.#port.postMessage(this.#carryOut(received.message));
    }
  }

  #carryOut({ id, name, argument }: Call): Answer {
    const handler = Object.hasOwn(this.#handlers, name) ? this.#handlers[name] : undefined;
    try {
      if (handler === undefined) throw new QemuError('PROTOCOL', `There is no command ${name}.`);
      return { id, result: handler(argument as never) };
    } catch (error) {
      const { code, hint } = error as { code?: unknown; hint?: unknown };
      return { id, failure: { message: error instanceof Error ? error.message : String(error), code, hint } };
    }
  }

  /**
   * Tells the other end something. This is the way for everything that people shall see: what a worker writes to
   * stdout waits for an event loop that it does not have.
   */
  emit(event: E): void {
    this.#port.postMessage({ event } satisfies Answer);
  }

  /** Takes no more calls, so that the thread can end. */
  close(): void {
    this.#watched.stop();
    this.#port.close();
  }
}
