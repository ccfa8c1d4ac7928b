/** A Linux in QEMU, the thread that has its SMMU, and both together: boot, plug, unplug, reboot, power off. */

import { once } from 'node:events';
import { MessageChannel, Worker } from 'node:worker_threads';
import { requireLab } from '../../lab/status.ts';
import { CommandClient, type Handlers } from '../../qemu/command-channel.ts';
import { type MachineOptions, pciAddressOfPort, streamIdOfPort } from '../../qemu/command-line.ts';
import type { Guest } from '../../qemu/guest.ts';
import { launchGuest } from '../../qemu/launch.ts';
import { RunFolder } from '../../qemu/run-folder.ts';
import { loadSyscalls } from '../../sys/koffi-syscalls.ts';
import type { Syscalls } from '../../sys/syscalls.ts';
import type { WorkerCalls, WorkerEvent, WorkerStart } from './protocol.ts';

export interface RealGuestOptions {
  /** What to use instead of what the lab has. */
  readonly qemu?: string | undefined;
  readonly kernel?: string | undefined;
  readonly busybox?: string | undefined;
  readonly initrd?: string | undefined;
  /** More words for the kernel's command line. */
  readonly append?: string | undefined;
  /** Memory, CPUs, root ports. */
  readonly machine?: Partial<MachineOptions>;
  /** False keeps the guest from knowing of the SMMU, to compare with: all DMA passes untranslated. */
  readonly smmuVisible?: boolean;
  readonly host: WorkerStart['host'];
  readonly properties?: WorkerStart['properties'];
  readonly trace?: WorkerStart['trace'];
  readonly onEvent: (event: WorkerEvent) => void;
  /** Told every line of the guest's console. */
  readonly onConsole?: (line: string) => void;
}

/** The calls, each with one argument, as the channel wants them. */
type Calls = WorkerCalls & Handlers;

export class RealGuest {
  readonly #options: RealGuestOptions;
  readonly #folder: RunFolder;
  readonly #worker: Worker;
  readonly #client: CommandClient<Calls, WorkerEvent>;
  readonly #cold: { id: string; socket: string; port: number }[] = [];
  #guest: Guest | undefined;
  #boots = 0;

  private constructor(options: RealGuestOptions, sys: Syscalls) {
    this.#options = options;
    this.#folder = new RunFolder();
    const { port1, port2 } = new MessageChannel();
    this.#client = new CommandClient(sys, port1, options.onEvent);
    const workerData: WorkerStart = {
      port: port2,
      wakeFd: this.#client.wakeFd,
      smmuSocket: this.#folder.socket('smmu'),
      host: options.host,
      properties: options.properties,
      trace: options.trace,
    };
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), { workerData, transferList: [port2] });
    this.#worker.on('error', (error) => this.#client.close(error));
  }

  /**
   * Starts the thread; the guest's CPUs do not run yet.
   * @throws UnsupportedHere or LabError, both with code UNSUPPORTED_HERE, where a real guest cannot be had.
   */
  static async create(options: RealGuestOptions): Promise<RealGuest> {
    // Asked for first, so that nothing has to be undone.
    await requireLab(options);
    const sys = await loadSyscalls();
    const guest = new RealGuest(options, sys);
    try {
      await guest.#client.call('snapshot', undefined);
    } catch (error) {
      await guest.close();
      throw error;
    }
    return guest;
  }

  get running(): boolean {
    return this.#guest !== undefined;
  }

  /** QEMU's process. */
  get pid(): number | undefined {
    return this.#guest?.pid;
  }

  get #booted(): Guest {
    if (this.#guest === undefined) throw new RangeError('The guest has not been booted');
    return this.#guest;
  }

  /** Boots, or boots again. @returns seconds from the kernel's start until its shell was ready, and its release. */
  async boot(): Promise<{ seconds: number; release: string }> {
    const { append, initrd, machine, onConsole, smmuVisible = true } = this.#options;
    const lab = await requireLab(this.#options);
    const guest = await launchGuest({
      qemu: lab.qemu,
      kernel: lab.kernel,
      ...(lab.busybox !== undefined && { busybox: lab.busybox }),
      ...(initrd !== undefined && { initrd }),
      ...(append !== undefined && { append }),
      folder: this.#folder,
      ...(machine !== undefined && { machine }),
      smmu: { socket: this.#folder.socket('smmu'), visible: smmuVisible },
      devices: this.#cold,
    });
    this.#guest = guest;
    if (onConsole !== undefined) guest.log.onLine(onConsole);
    return this.#ready();
  }

  /** Restarts the guest's kernel without a shutdown of its drivers. */
  async reboot(): Promise<{ seconds: number; release: string }> {
    this.#booted.shell.leave('reboot -f');
    return this.#ready();
  }

  async #ready(): Promise<{ seconds: number; release: string }> {
    this.#boots += 1;
    const { uptimeS, kernel } = await this.#booted.shell.ready(this.#boots);
    return { seconds: uptimeS, release: kernel };
  }

  /**
   * Plugs a device of the host into a root port; cold if the guest has not been booted.
   * @param port from 0. The guest sees the device at function 0 of the bus behind it.
   */
  async plug(name: string, port: number): Promise<void> {
    const socket = this.#folder.socket(name);
    await this.#client.call('plug', { name, sid: streamIdOfPort(port), socket });
    const device = { id: name, socket, port };
    if (this.#guest === undefined) this.#cold.push(device);
    else {
      try {
        await this.#guest.plug(device);
      } catch (error) {
        await this.#client.call('unplug', name);
        throw error;
      }
    }
  }

  /** Has the guest give a device back, and then gives it back to the host. */
  async unplug(name: string): Promise<void> {
    const cold = this.#cold.findIndex(({ id }) => id === name);
    if (cold >= 0) this.#cold.splice(cold, 1);
    if (this.#guest !== undefined) await this.#guest.unplug(name);
    await this.#client.call('unplug', name);
  }

  /** Has a device do one DMA on its own account. @returns whether it went through. */
  dma(name: string, write: boolean, iova: bigint, bytes: number): Promise<boolean> {
    return this.#client.call('dma', { name, write, iova, bytes });
  }

  snapshot(): Promise<ReturnType<WorkerCalls['snapshot']>> {
    return this.#client.call('snapshot', undefined);
  }

  /** What the machine shows of its inside. */
  observe(): Promise<ReturnType<WorkerCalls['observe']>> {
    return this.#client.call('observe', undefined);
  }

  /** Runs a shell script in the guest. */
  run(script: string, timeoutMs?: number): Promise<{ status: number; output: string }> {
    return this.#booted.shell.run(script, timeoutMs);
  }

  /** The guest kernel's log so far. */
  async dmesg(): Promise<string[]> {
    return (await this.#booted.shell.check('dmesg')).split('\n');
  }

  /** What Linux calls the function that {@link plug} put into a port. */
  static linuxName(port: number): string {
    return pciAddressOfPort(port);
  }

  /** Powers the guest off, ends the thread, removes all files. Safe to call twice. */
  async close(): Promise<void> {
    await this.#guest?.powerOff();
    this.#guest = undefined;
    const exited = this.#worker.threadId === -1 ? undefined : once(this.#worker, 'exit');
    try {
      await this.#client.call('stop', undefined);
      await exited;
    } catch {
      // It has ended by itself, or will not: either way this ends it.
      await this.#worker.terminate();
    }
    this.#client.close();
    this.#folder.remove();
  }
}
