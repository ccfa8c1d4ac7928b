import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';

import { QemuError } from './errors.ts';
import { MARKER } from './initramfs.ts';
import type { KernelLog } from './kernel-log.ts';
import { withTimeLimit } from './time-limit.ts';

export interface ShellResult {
  /** Exit status of the script. */
  status: number;
  /** What it wrote to both its outputs. */
  output: string;
}

export interface ReadyReport {
  /** Seconds since the kernel started, when init was ready. */
  uptimeS: number;
  /** `uname -r`. */
  kernel: string;
}

/** A script that the guest is busy with; it stays here after its promise failed, until the guest says that it ended. */
interface Running {
  id: string;
  begun: boolean;
  maxOutputBytes: number;
  output: Buffer[];
  outputBytes: number;
  resolve: (result: ShellResult) => void;
  reject: (error: QemuError) => void;
}

interface Waiting {
  boot: number;
  resolve: (report: ReadyReport) => void;
  reject: (error: QemuError) => void;
}

/** A line that does not end is handed on in pieces of this size. */
const MAX_LINE_BYTES = 64 << 10;

const READY = new RegExp(`^${MARKER} ready (\\d+(?:\\.\\d+)?) (\\S+)$`);

/** Runs shell scripts in a guest that was started with our initramfs, one after the other. */
export class GuestShell {
  readonly #socket: Socket;
  readonly #log: KernelLog;
  #partial: Buffer[] = [];
  #partialBytes = 0;
  #running: Running | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #end: QemuError | undefined;
  #boots = 0;
  #report: ReadyReport | undefined;
  readonly #waiting = new Set<Waiting>();

  /** @param log the same guest's console, for the messages of errors. */
  constructor(socket: Socket, log: KernelLog) {
    this.#socket = socket;
    this.#log = log;
    socket.on('data', (bytes: Buffer) => {
      this.#receive(bytes);
    });
    // Whoever started QEMU knows better why it ended.
    socket.on('error', () => {});
  }

  /** How often init has said that it is ready: 1 after the first boot, 2 after a reboot. */
  get boots(): number {
    return this.#boots;
  }

  /**
   * Waits until init has been ready for the `boot`th time (counted from 1).
   * @throws {QemuError} TIMEOUT or why the guest ended, with the console's last lines.
   */
  async ready(boot = 1, timeoutMs = 60_000): Promise<ReadyReport> {
    if (this.#boots >= boot && this.#report !== undefined) return this.#report;
    if (this.#end !== undefined) throw this.#end;
    let waiting: Waiting | undefined;
    const reported = new Promise<ReadyReport>((resolve, reject) => {
      waiting = { boot, resolve, reject };
      this.#waiting.add(waiting);
    });
    try {
      return await withTimeLimit(reported, timeoutMs, () =>
        this.#complaint("The guest's init did not get ready"),
      );
    } finally {
      if (waiting !== undefined) this.#waiting.delete(waiting);
    }
  }

  /**
   * Runs a script with busybox's shell; scripts given meanwhile wait their turn.
   * After a failure the guest may still be busy with the script; others are refused until it ends, or until a reboot.
   * @throws {QemuError} TIMEOUT, PROTOCOL if it prints more than `maxOutputBytes`, or why the guest ended.
   */
  async run(script: string, timeoutMs = 60_000, maxOutputBytes = 1 << 20): Promise<ShellResult> {
    const mine = this.#queue.then(() => this.#run(script, timeoutMs, maxOutputBytes));
    this.#queue = mine.catch(() => {});
    return mine;
  }

  /**
   * As {@link run}, for scripts that have to succeed; gives the output without white space at its end.
   * @throws {QemuError} REFUSED with the output if the status is not 0.
   */
  async check(script: string, timeoutMs = 60_000): Promise<string> {
    const { status, output } = await this.run(script, timeoutMs);
    if (status !== 0) {
      throw new QemuError('REFUSED', `In the guest, "${script}" ended with status ${status}:\n${output}`);
    }
    return output.trimEnd();
  }

  /** Starts a script whose end cannot be seen, because the guest ends with it: `reboot -f`, `poweroff -f`. */
  leave(script: string): void {
    this.#send('leave', script);
  }

  /** The guest is gone; whoever waits gets this error. */
  end(error: QemuError): void {
    this.#end ??= error;
    this.#running?.reject(error);
    this.#running = undefined;
    for (const waiting of this.#waiting) waiting.reject(error);
    this.#waiting.clear();
  }

  #complaint(what: string): string {
    return `${what}; the last lines of its console:\n${this.#log.tail()}\n`;
  }

  #send(id: string, script: string): void {
    this.#socket.write(`${id} ${Buffer.from(script).toString('base64')}\n`);
  }

  async #run(script: string, timeoutMs: number, maxOutputBytes: number): Promise<ShellResult> {
    if (this.#end !== undefined) throw this.#end;
    if (this.#running !== undefined) {
      throw new QemuError('TIMEOUT', 'The guest is still busy with a script that failed before.');
    }
    // A script cannot know this number, so it cannot print its own end.
    const id = randomBytes(8).toString('hex');
    const result = new Promise<ShellResult>((resolve, reject) => {
      this.#running = { id, begun: false, maxOutputBytes, output: [], outputBytes: 0, resolve, reject };
    });
    this.#send(id, script);
    return withTimeLimit(result, timeoutMs, () => this.#complaint(`In the guest, "${script}" did not end`));
  }

  #receive(bytes: Buffer): void {
    let from = 0;
    for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, from)) {
      this.#line(this.#takePartial(bytes.subarray(from, end + 1)));
      from = end + 1;
    }
    if (from === bytes.length) return;
    this.#partial.push(Buffer.from(bytes.subarray(from)));
    this.#partialBytes += bytes.length - from;
    if (this.#partialBytes > MAX_LINE_BYTES) this.#output(this.#takePartial(Buffer.alloc(0)));
  }

  #takePartial(rest: Buffer): Buffer {
    const whole = Buffer.concat([...this.#partial, rest]);
    this.#partial = [];
    this.#partialBytes = 0;
    return whole;
  }

  /** @param bytes a line with its end. */
  #line(bytes: Buffer): void {
    if (bytes.length < 256) {
      const text = bytes.toString('latin1').trimEnd();
      const ready = READY.exec(text);
      if (ready !== null) {
        this.#ready({ uptimeS: Number(ready[1]), kernel: ready[2] ?? '' });
        return;
      }
      const running = this.#running;
      if (running !== undefined && !running.begun) {
        running.begun = text === `${MARKER} begin ${running.id}`;
        return;
      }
      const end = `${MARKER} end ${running?.id} `;
      if (running !== undefined && text.startsWith(end)) {
        this.#running = undefined;
        // The end of line in front of the marker is init's, not the script's.
        const output = Buffer.concat(running.output).toString('utf8').replace(/\n$/, '');
        running.resolve({ status: Number(text.slice(end.length)), output });
        return;
      }
    }
    this.#output(bytes);
  }

  #output(bytes: Buffer): void {
    const running = this.#running;
    if (running === undefined || !running.begun) return;
    running.outputBytes += bytes.length;
    if (running.outputBytes <= running.maxOutputBytes + 1) {
      running.output.push(bytes);
      return;
    }
    running.output = [];
    running.reject(
      new QemuError(
        'PROTOCOL',
        `The guest printed more than ${running.maxOutputBytes} bytes; write it to a file.`,
      ),
    );
  }

  #ready(report: ReadyReport): void {
    this.#boots++;
    this.#report = report;
    this.#running?.reject(new QemuError('CLOSED', 'The guest rebooted while a script ran.'));
    this.#running = undefined;
    for (const waiting of this.#waiting) {
      if (waiting.boot > this.#boots) continue;
      this.#waiting.delete(waiting);
      waiting.resolve(report);
    }
  }
}
