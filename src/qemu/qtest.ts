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
    const answer = new Promise<string[]>((resolve, reject) => {
      if (this.#channel.error !== undefined) reject(this.#channel.error);
      else if (/[\r\n]/.test(line)) reject(new QemuError('PROTOCOL', 'qtest: a command is one line.'));
      else if (this.#pending.length >= MAX_PENDING) {
        reject(
          new QemuError('PROTOCOL', `qtest: ${MAX_PENDING} commands are already waiting for an answer.`),
        );
      } else {
        this.#pending.push({ line, resolve, reject });
        this.#channel.send(line);
      }
    });
    // After a time-out the command stays in line: its answer still comes, and must not go to the next one.
    return withTimeLimit(answer, timeoutMs, () => `QEMU did not answer the qtest command "${line}"`);
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
