import { readFile, writeFile } from 'node:fs/promises';

import {
  bootArguments,
  type Channels,
  DEFAULT_MACHINE,
  dumpArguments,
  kernelCommandLine,
  type MachineOptions,
  MAX_ROOT_PORTS,
  type PluggedDevice,
} from './command-line.ts';
import { addSmmu, disableUnusedDevices, hideSmmuFunction, type InterruptKind } from './device-tree.ts';
import { QemuError } from './errors.ts';
import { readFdt, writeFdt } from './fdt.ts';
import { Guest } from './guest.ts';
import { GuestShell } from './guest-shell.ts';
import { programHiddenBus } from './hidden-bus.ts';
import { buildInitramfs } from './initramfs.ts';
import { KernelLog } from './kernel-log.ts';
import { probeQemu, type QemuProgram } from './program.ts';
import { QemuProcess } from './qemu-process.ts';
import { Qmp } from './qmp.ts';
import { Qtest } from './qtest.ts';
import type { RunFolder } from './run-folder.ts';
import { SocketListener } from './socket-listener.ts';

export interface LaunchOptions {
  qemu: QemuProgram;
  /** An arm64 kernel image. */
  kernel: string;
  /** A static arm64 busybox, for our initramfs; or else `initrd`. */
  busybox?: string;
  /** An initramfs instead of ours; {@link Guest.shell} is of no use then. */
  initrd?: string;
  /** More words for the kernel command line. */
  append?: string;
  /** Only warnings and worse on the console. */
  quiet?: boolean;
  /** For sockets and files; must outlive the guest. */
  folder: RunFolder;
  machine?: Partial<MachineOptions>;
  /** Where the SMMU's vfio-user server listens; without one the guest has no SMMU. */
  smmu?: {
    socket: string;
    interrupts?: InterruptKind;
    /** False leaves it out of the device tree: it is there, but the guest does not know, so DMA passes as GBPA says. */
    visible?: boolean;
  };
  /** Devices that are there at power-on; their servers listen already. */
  devices?: readonly PluggedDevice[];
}

const START_LIMIT_MS = 30_000;

/** QEMU's own device tree for that machine. */
async function dumpDeviceTree(qemu: QemuProgram, machine: MachineOptions, file: string): Promise<Uint8Array> {
  const dump = new QemuProcess(qemu, dumpArguments(machine, file));
  const { status } = await dump.exited;
  if (status !== 0) throw await dump.endReason();
  return readFile(file);
}

/** Rejects when QEMU ends; never settles otherwise. */
const untilExit = async (qemu: QemuProcess): Promise<never> => {
  throw await qemu.endReason();
};

/**
 * Starts a guest. When this returns, the SMMU's registers are mapped and the guest's CPUs run; the guest has not booted
 * yet. The SMMU's server answers register accesses all the while, so it must live on another thread than the caller.
 * @throws {QemuError} if QEMU does not start; nothing is left running then.
 */
export async function launchGuest(options: LaunchOptions): Promise<Guest> {
  const { qemu, folder, smmu, devices = [] } = options;
  const machine = { ...DEFAULT_MACHINE, ...options.machine };
  if (machine.rootPorts < 1 || machine.rootPorts > MAX_ROOT_PORTS) {
    throw new QemuError('QEMU_UNUSABLE', `rootPorts is ${machine.rootPorts}, not 1 to ${MAX_ROOT_PORTS}.`);
  }
  const initrd = options.initrd ?? folder.file('initramfs');
  if (options.initrd === undefined) {
    if (options.busybox === undefined)
      throw new QemuError('QEMU_UNUSABLE', 'Neither busybox nor initrd is given.');
    await writeFile(initrd, buildInitramfs(await readFile(options.busybox)));
  }

  const [facts, qemuTree] = await Promise.all([
    probeQemu(qemu),
    dumpDeviceTree(qemu, machine, folder.file('qemu.dtb')),
  ]);
  const tree = readFdt(qemuTree);
  if (smmu !== undefined) {
    hideSmmuFunction(tree);
    if (smmu.visible ?? true) addSmmu(tree, { interrupts: smmu.interrupts ?? 'wired' });
  }
  disableUnusedDevices(tree);
  const dtb = folder.file('guest.dtb');
  await writeFile(dtb, writeFdt(tree));

  const channels: Channels = {
    console: folder.socket('console'),
    commands: folder.socket('commands'),
    qmp: folder.socket('qmp'),
    qtest: folder.socket('qtest'),
  };
  const listeners = await Promise.all(
    [channels.console, channels.commands, channels.qmp, channels.qtest].map((path) =>
      SocketListener.listen(path),
    ),
  );
  let qemuProcess: QemuProcess | undefined;
  try {
    qemuProcess = new QemuProcess(
      qemu,
      bootArguments(machine, {
        kernel: options.kernel,
        initrd,
        append: kernelCommandLine(options.quiet ?? true, options.append),
        dtb,
        smmuSocket: smmu?.socket,
        devices,
        channels,
        exitWithParent: facts.canExitWithParent,
      }),
    );
    const sockets = await Promise.race([
      Promise.all(listeners.map((listener) => listener.connection)),
      untilExit(qemuProcess),
    ]);
    const [consoleSocket, commandSocket, qmpSocket, qtestSocket] = sockets;
    if (!consoleSocket || !commandSocket || !qmpSocket || !qtestSocket)
      throw new Error('four sockets, by construction');
    const log = new KernelLog(consoleSocket);
    const shell = new GuestShell(commandSocket, log);
    const qmp = new Qmp(qmpSocket);
    const qtest = new Qtest(qtestSocket);
    const guest = new Guest({ process: qemuProcess, log, shell, qmp, qtest, hasSmmu: smmu !== undefined });
    const start = async (): Promise<void> => {
      await qmp.negotiate(START_LIMIT_MS);
      if (smmu !== undefined) await programHiddenBus(qtest);
      await qmp.execute('cont');
    };
    await Promise.race([start(), untilExit(qemuProcess)]);
    return guest;
  } catch (error) {
    for (const listener of listeners) listener.close();
    const running = qemuProcess;
    await running?.kill();
    // "The connection is closed" is true, but QEMU's last words say why.
    if (running !== undefined && error instanceof QemuError && error.code === 'CLOSED')
      throw await running.endReason();
    throw error;
  }
}
