import type { Socket } from 'node:net';

import { QemuError } from './errors.ts';

/**
 * Lines of text over a socket, as QMP and qtest speak them. The peer is not trusted: a line that does not end within
 * `maxLineBytes` closes the connection.
 */
export class LineChannel {
  readonly #socket: Socket;
  readonly #name: string;
  readonly #maxLineBytes: number;
  readonly #closed: Promise<QemuError>;
  #pending = '';
  #error: QemuError | undefined;
  #settleClosed: (error: QemuError) => void = () => {};

  /**
   * @param name what the peer is, for messages: "QMP".
   * @param onLine one line without its end; if it throws, the connection is closed with that as the reason.
   */
  constructor(socket: Socket, name: string, onLine: (line: string) => void, maxLineBytes = 1 << 20) {
    this.#socket = socket;
    this.#name = name;
    this.#maxLineBytes = maxLineBytes;
    this.#closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      this.#receive(text, onLine);
    });
    socket.on('error', (error) => {
      this.#end(new QemuError('CLOSED', `The ${name} connection failed: ${error.message}.`));
    });
    socket.on('close', () => {
      this.#end(new QemuError('CLOSED', `The ${name} connection is closed.`));
    });
  }

  /** Why the connection ended; settles once, never rejects. */
  get closed(): Promise<QemuError> {
    return this.#closed;
  }

  /** The reason, if the connection has ended. */
  get error(): QemuError | undefined {
    return this.#error;
  }

  /** Sends one line. After the end of the connection this does nothing. */
  send(line: string): void {
    if (this.#error === undefined) this.#socket.write(`${line}\n`);
  }

  /** Ends the connection; lines that have arrived and were not handled are dropped. */
  close(error: QemuError = new QemuError('CLOSED', `The ${this.#name} connection was closed.`)): void {
    this.#end(error);
  }

  #receive(text: string, onLine: (line: string) => void): void {
    if (this.#error !== undefined) return;
    this.#pending += text;
    let from = 0;
    for (let end = this.#pending.indexOf('\n'); end >= 0; end = this.#pending.indexOf('\n', from)) {
      const line = this.#pending.slice(from, end).replace(/\r$/, '');
      from = end + 1;
      try {
        onLine(line);
      } catch (error) {
        this.#end(
          error instanceof QemuError ? error : new QemuError('PROTOCOL', `${this.#name}: ${String(error)}`),
        );
        return;
      }
      if (this.#error !== undefined) return;
    }
    this.#pending = this.#pending.slice(from);
    if (this.#pending.length > this.#maxLineBytes) {
      this.#end(
        new QemuError('PROTOCOL', `${this.#name} sent a line of more than ${this.#maxLineBytes} characters.`),
      );
    }
  }

  #end(error: QemuError): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#pending = '';
    this.#socket.destroy();
    this.#settleClosed(error);
  }
}
