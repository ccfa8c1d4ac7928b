import { type ChildProcess, spawn } from 'node:child_process';

import { QemuError } from './errors.ts';
import type { QemuProgram } from './program.ts';

/** What is kept of QEMU's own messages. */
const KEEP_CHARACTERS = 16 << 10;

/** How it ended: with a status, or by a signal. */
export interface QemuExit {
  status: number | null;
  signal: NodeJS.Signals | null;
}

/** A running QEMU. It does not outlive this process. */
export class QemuProcess {
  readonly #child: ChildProcess;
  readonly #exited: Promise<QemuExit>;
  #messages = '';
  #startError: Error | undefined;

  constructor(program: QemuProgram, args: readonly string[]) {
    const child = spawn(program.file, [...program.leadingArguments, ...args], {
      env: { ...process.env, ...program.environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#messages = (this.#messages + text).slice(-KEEP_CHARACTERS);
      });
    }
    // QEMU can be told to end with us, but only since 10.2, and never knows when we crash before that.
    const kill = (): void => {
      child.kill('SIGKILL');
    };
    process.on('exit', kill);
    this.#exited = new Promise((resolve) => {
      // 'close' comes after the last message; it also comes if QEMU could not be started.
      child.on('close', (status, signal) => {
        process.off('exit', kill);
        resolve({ status, signal });
      });
      child.on('error', (error) => {
        this.#startError = error;
      });
    });
  }

  /** Settles when QEMU has ended; never rejects. */
  get exited(): Promise<QemuExit> {
    return this.#exited;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** QEMU's own messages, the last of them. */
  get messages(): string {
    return this.#messages.trim();
  }

  /** Why it ended, for those who still needed it. */
  async endReason(): Promise<QemuError> {
    const { status, signal } = await this.exited;
    if (this.#startError !== undefined) {
      return new QemuError('QEMU_UNUSABLE', `QEMU cannot be started: ${this.#startError.message}.`);
    }
    const how = signal === null ? `with status ${status}` : `by ${signal}`;
    const words = this.messages === '' ? '' : `:\n${this.messages}`;
    return new QemuError('QEMU_EXITED', `QEMU ended ${how}${words}`);
  }

  /** Ends it now, without asking the guest. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited;
  }
}
