import type { Socket } from 'node:net';

import { QemuError } from './errors.ts';
import { LineChannel } from './line-channel.ts';
import { withTimeLimit } from './time-limit.ts';

interface Pending {
  line: string;
  resolve: (words: string[]) => void;
  reject: (error: QemuError) => void;
}

const MAX_PENDING = 256;

/** Bytes of an access, as qtest names it. */
const SUFFIX = { 1: 'b', 2: 'w', 4: 'l', 8: 'q' } as const;

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/**
 * A client of QEMU's qtest protocol: physical memory accesses as if a CPU made them, also while the guest is stopped.
 * Answers come in order. An access to a register of ours comes back to us as a request, so never wait for one of these
 * promises on the thread that serves registers.
 */
export class Qtest {
  readonly #channel: LineChannel;
  readonly #pending: Pending[] = [];

  constructor(socket: Socket) {
    this.#channel = new LineChannel(socket, 'qtest', (line) => {
      this.#receive(line);
    });
    void this.#channel.closed.then((error) => {
      for (const pending of this.#pending.splice(0)) pending.reject(error);
    });
  }

  /** Why the connection ended; never rejects. */
  get closed(): Promise<QemuError> {
    return this.#channel.closed;
  }

  /**
   * Sends one command and gives the words behind `OK`.
   * @throws {QemuError} REFUSED if QEMU answers with FAIL or ERR, TIMEOUT, CLOSED or PROTOCOL.
   */
  async command(line: string, timeoutMs = 30_000): Promise<string[]> {
    const [words = []] = await this.commands([line], timeoutMs);
    return words;
  }

  /**
   * Sends commands in one go, which takes a quarter of the time of sending one by one, and gives the words behind each `OK`.
   * QEMU carries out all of them, also those after one that it refuses.
   * @param lines up to 256 less those that still wait for an answer
   * @throws {QemuError} as {@link Qtest.command}, for the first that fails.
   */
  async commands(lines: readonly string[], timeoutMs = 30_000): Promise<string[][]> {
    if (lines.length === 0) return [];
    if (this.#channel.error !== undefined) throw this.#channel.error;
    if (lines.some((line) => /[\r\n]/.test(line)))
      throw new QemuError('PROTOCOL', 'qtest: a command is one line.');
    if (this.#pending.length + lines.length > MAX_PENDING) {
      throw new QemuError('PROTOCOL', `qtest: more than ${MAX_PENDING} commands would wait for an answer.`);
    }
    const answers = lines.map(
      async (line) =>
        new Promise<string[]>((resolve, reject) => {
          this.#pending.push({ line, resolve, reject });
        }),
    );
    this.#channel.send(lines.join('\n'));
    // After a time-out the commands stay in line: their answers still come, and must not go to the next ones.
    return withTimeLimit(
      Promise.all(answers),
      timeoutMs,
      () =>
        `QEMU did not answer the qtest command "${lines[0]}"${lines.length > 1 ? ' and those with it' : ''}`,
    );
  }

  /** Writes `size` bytes, little-endian as the guest is. */
  async write(address: number, size: 1 | 2 | 4 | 8, value: number | bigint): Promise<void> {
    await this.command(`write${SUFFIX[size]} ${hex(address)} ${hex(value)}`);
  }

  /** Reads `size` bytes as one number. */
  async read(address: number, size: 1 | 2 | 4 | 8): Promise<bigint> {
    const line = `read${SUFFIX[size]} ${hex(address)}`;
    const [value] = await this.command(line);
    if (value === undefined || !/^0x[0-9a-f]{1,16}$/i.test(value)) {
      throw new QemuError('PROTOCOL', `qtest: the answer to "${line}" is not a number.`);
    }
    return BigInt(value);
  }

  close(): void {
    this.#channel.close();
  }

  #receive(line: string): void {
    const words = line.split(' ').filter((word) => word !== '');
    const [kind, ...rest] = words;
    // Only after irq_intercept_*, which we do not send.
    if (kind === 'IRQ') return;
    if (kind !== 'OK' && kind !== 'FAIL' && kind !== 'ERR') {
      throw new QemuError('PROTOCOL', `qtest: this is not an answer: ${line.slice(0, 80)}`);
    }
    const pending = this.#pending.shift();
    if (pending === undefined)
      throw new QemuError('PROTOCOL', `qtest: an answer nobody asked for: ${line.slice(0, 80)}`);
    if (kind === 'OK') pending.resolve(rest);
    else
      pending.reject(
        new QemuError('REFUSED', `QEMU refused the qtest command "${pending.line}": ${rest.join(' ')}`),
      );
  }
}
