import { type PluggedDevice, rootPortId, vfioUserProperties } from './command-line.ts';
import { QemuError } from './errors.ts';
import type { GuestShell } from './guest-shell.ts';
import { programHiddenBus } from './hidden-bus.ts';
import type { KernelLog } from './kernel-log.ts';
import type { QemuExit, QemuProcess } from './qemu-process.ts';
import type { Qmp } from './qmp.ts';
import type { Qtest } from './qtest.ts';
import { withTimeLimit } from './time-limit.ts';

export interface GuestParts {
  process: QemuProcess;
  log: KernelLog;
  shell: GuestShell;
  qmp: Qmp;
  qtest: Qtest;
  hasSmmu: boolean;
}

/** A running Linux in a QEMU. All methods are asynchronous: never wait for one on the thread that serves the SMMU. */
export class Guest {
  readonly log: KernelLog;
  readonly shell: GuestShell;
  readonly qmp: Qmp;
  readonly qtest: Qtest;
  readonly #process: QemuProcess;
  /** Resets so far. */
  #resets = 0;

  constructor(parts: GuestParts) {
    this.log = parts.log;
    this.shell = parts.shell;
    this.qmp = parts.qmp;
    this.qtest = parts.qtest;
    this.#process = parts.process;
    this.qmp.onEvent(({ event }) => {
      if (event !== 'RESET') return;
      this.#resets++;
      // The guest's CPUs run again already; it takes them far longer to get to the SMMU than us to map it.
      if (parts.hasSmmu) programHiddenBus(this.qtest).catch(() => {});
    });
    void this.#process.endReason().then((error) => {
      this.log.end(error);
      this.shell.end(error);
      this.qmp.close();
      this.qtest.close();
    });
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  get resets(): number {
    return this.#resets;
  }

  /** Settles when QEMU has ended; never rejects. */
  get exited(): Promise<QemuExit> {
    return this.#process.exited;
  }

  /**
   * Plugs a device into an empty root port of the running machine. When this returns QEMU has the device; the guest
   * finds it a moment later. The device's server must listen already.
   * @throws {QemuError} REFUSED, for instance if the port is taken, also by a device that is still being removed.
   */
  async plug({ id, port, socket }: PluggedDevice): Promise<void> {
    await this.qmp.execute('device_add', vfioUserProperties(id, rootPortId(port), socket));
  }

  /**
   * Asks the guest to give a device back, as if its button had been pressed, and waits until it is gone. Linux waits
   * five seconds for a second press before it starts.
   * @throws {QemuError} REFUSED if there is no such device, TIMEOUT if the guest keeps it.
   */
  async unplug(id: string, timeoutMs = 30_000): Promise<void> {
    const gone = this.qmp.waitForEvent('DEVICE_DELETED', timeoutMs, (data) => data['device'] === id);
    const refused = this.qmp.execute('device_del', { id });
    // Whichever fails first is thrown; the other must not become an unhandled rejection.
    await Promise.all([gone, refused]);
  }

  /**
   * Waits until QEMU has ended, because the guest powers off or was told to.
   * @throws {QemuError} TIMEOUT.
   */
  async waitForExit(timeoutMs = 30_000): Promise<QemuExit> {
    return withTimeLimit(
      this.exited,
      timeoutMs,
      () => `The guest did not power off; its last lines:\n${this.log.tail()}\n`,
    );
  }

  /** Powers the guest off in its own way if it does that within `graceMs`, or else ends QEMU. */
  async powerOff(graceMs = 5_000): Promise<void> {
    this.shell.leave('poweroff -f');
    try {
      await this.waitForExit(graceMs);
    } catch (error) {
      if (!(error instanceof QemuError)) throw error;
      await this.close();
    }
  }

  /** Ends QEMU now. Safe to call twice. */
  async close(): Promise<void> {
    await this.#process.kill();
  }
}
