import { writeFile } from 'node:fs/promises';

import { QemuError } from '../qemu/errors.ts';
import { GuestShell, type ReadyReport, type ShellResult } from '../qemu/guest-shell.ts';
import { KernelLog } from '../qemu/kernel-log.ts';
import { probeQemu, type QemuProgram } from '../qemu/program.ts';
import { QemuProcess } from '../qemu/qemu-process.ts';
import type { RunFolder } from '../qemu/run-folder.ts';
import { SocketListener } from '../qemu/socket-listener.ts';
import { withTimeLimit } from '../qemu/time-limit.ts';
import { DEFAULT_LAB_MACHINE, labArguments, type LabMachineOptions, type Share } from './lab-machine.ts';

export interface LabGuestOptions {
  readonly qemu: QemuProgram;
  /** UEFI for arm64. */
  readonly firmware: string;
  readonly kernel: string;
  readonly initramfs: Uint8Array;
  /** Folders that programs in the lab find below /lab. */
  readonly shares?: readonly Share[];
  /** For sockets and files; must outlive the guest. */
  readonly folder: RunFolder;
  readonly machine?: Partial<LabMachineOptions>;
  /** More words for the kernel command line. */
  readonly append?: string;
  readonly timeoutMs?: number;
}

/** The lab, running: a Linux that is a host for VMMs, and takes commands. */
export class LabGuest {
  readonly log: KernelLog;
  readonly #shell: GuestShell;
  readonly #process: QemuProcess;
  readonly #ready: ReadyReport;

  private constructor(process: QemuProcess, log: KernelLog, shell: GuestShell, ready: ReadyReport) {
    this.#process = process;
    this.log = log;
    this.#shell = shell;
    this.#ready = ready;
  }

  /**
   * Boots the lab, until its init takes commands.
   * @throws {QemuError} QEMU_UNUSABLE, QEMU_EXITED, TIMEOUT or GUEST_PANIC; nothing is left running then.
   */
  static async boot(options: LabGuestOptions): Promise<LabGuest> {
    const { folder, qemu, timeoutMs = 120_000 } = options;
    const initrd = folder.file('initramfs');
    await writeFile(initrd, options.initramfs);
    const { canExitWithParent } = await probeQemu(qemu);
    const channels = { console: folder.socket('console'), commands: folder.socket('commands') };
    const listeners = [
      await SocketListener.listen(channels.console),
      await SocketListener.listen(channels.commands),
    ] as const;
    const child = new QemuProcess(
      qemu,
      labArguments(
        { ...DEFAULT_LAB_MACHINE, ...options.machine },
        {
          firmware: options.firmware,
          kernel: options.kernel,
          initrd,
          append: options.append,
          shares: options.shares ?? [],
          channels,
          exitWithParent: canExitWithParent,
        },
      ),
    );
    const ended = child.endReason();
    try {
      const sockets = await Promise.race([
        Promise.all(listeners.map(({ connection }) => connection)),
        ended.then((error) => {
          throw error;
        }),
      ]);
      const log = new KernelLog(sockets[0]);
      const shell = new GuestShell(sockets[1], log);
      void ended.then((error) => {
        const why = log.position === 0 ? '' : `\nThe last lines of its console:\n${log.tail()}`;
        const full = new QemuError(error.code, `${error.message}${why}`, error.hint);
        log.end(full);
        shell.end(full);
      });
      return new LabGuest(child, log, shell, await shell.ready(1, timeoutMs));
    } catch (error) {
      for (const listener of listeners) listener.close();
      await child.kill();
      throw error;
    }
  }

  /** Seconds from the kernel's start to its first command, and its version. */
  get ready(): ReadyReport {
    return this.#ready;
  }

  /**
   * Runs a script with busybox's shell, as root; scripts given meanwhile wait their turn.
   * @throws {QemuError} TIMEOUT, PROTOCOL if it prints more than `maxOutputBytes`, or why the guest ended.
   */
  async run(script: string, timeoutMs = 60_000, maxOutputBytes = 4 << 20): Promise<ShellResult> {
    return this.#shell.run(script, timeoutMs, maxOutputBytes);
  }

  /** As {@link run}, for scripts that have to succeed. @throws {QemuError} REFUSED with the output if one does not. */
  async check(script: string, timeoutMs = 60_000): Promise<string> {
    return this.#shell.check(script, timeoutMs);
  }

  /**
   * Gives a PCI function to VFIO.
   * @returns its device file, "/dev/vfio/devices/vfio0".
   * @throws {QemuError} REFUSED if it cannot be bound.
   */
  async bindToVfio(address: string): Promise<string> {
    return this.check(
      [
        `cd /sys/bus/pci/devices/${address} || exit 1`,
        `[ -e driver ] && echo ${address} > driver/unbind`,
        'echo vfio-pci > driver_override',
        `echo ${address} > /sys/bus/pci/drivers_probe`,
        'for file in vfio-dev/*; do [ -e "$file" ] && echo "/dev/vfio/devices/${file##*/}" && exit; done',
        'exit 1',
      ].join('\n'),
    );
  }

  /** Powers it off in its own way if it does that within `graceMs`, or else ends QEMU. Safe to call twice. */
  async close(graceMs = 3_000): Promise<void> {
    this.#shell.leave('poweroff -f');
    try {
      await withTimeLimit(this.#process.exited, graceMs, () => 'The lab did not power off');
    } catch {
      await this.#process.kill();
    }
  }
}
