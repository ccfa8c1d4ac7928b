import { LAYOUT } from './device-tree.ts';

/** A function that lives in another process, plugged into a root port. */
export interface PluggedDevice {
  /** QEMU's id, unique in the machine. */
  id: string;
  /** The socket on which its vfio-user server listens already. */
  socket: string;
  /** Which root port it sits in, from 0; its StreamID follows from that (see {@link streamIdOfPort}). */
  port: number;
}

export interface MachineOptions {
  /** Size of the guest's RAM. */
  memoryMiB: number;
  /** Number of CPUs. */
  smp: number;
  cpu: string;
  /** Number of empty root ports for devices, 1 to {@link MAX_ROOT_PORTS}. */
  rootPorts: number;
}

export const DEFAULT_MACHINE: MachineOptions = { memoryMiB: 512, smp: 1, cpu: 'cortex-a57', rootPorts: 4 };

/** Slot 0 of bus 0 is QEMU's host bridge, the last one our expander bridge. */
export const MAX_ROOT_PORTS = 30;

/** QEMU connects to these; they listen before it starts. */
export interface Channels {
  /** The kernel's console, ttyAMA0. */
  console: string;
  /** Where the guest's init takes commands, ttyAMA1. */
  commands: string;
  qmp: string;
  qtest: string;
}

export interface BootOptions {
  kernel: string;
  initrd?: string | undefined;
  /** Kernel command line. */
  append: string;
  dtb: string;
  /** The vfio-user socket of the SMMU; without one the machine has no SMMU. */
  smmuSocket?: string | undefined;
  /** Devices that are there at power-on. */
  devices: readonly PluggedDevice[];
  channels: Channels;
  /** Make QEMU end when the process that started it ends. */
  exitWithParent: boolean;
}

/** QEMU's id of a root port. */
export const rootPortId = (port: number): string => `port${port}`;

/**
 * StreamID of function 0 in a root port. Linux numbers buses in the order in which it finds the ports, one bus each,
 * and `iommu-map` makes the requester ID the StreamID.
 */
export const streamIdOfPort = (port: number): number => (LAYOUT.firstTranslatedBus + port) << 8;

/** What Linux calls function 0 in a root port: "0000:01:00.0". */
export const pciAddressOfPort = (port: number): string =>
  `0000:${(LAYOUT.firstTranslatedBus + port).toString(16).padStart(2, '0')}:00.0`;

/**
 * The machine without anything plugged in; what QEMU's device tree depends on.
 * RAM is a shared memfd, so that the DMA_MAP messages carry a descriptor that we can map.
 */
export function machineArguments(options: MachineOptions): string[] {
  const size = `${options.memoryMiB}M`;
  const pairs = [
    ['-M', 'virt,gic-version=3,msi=gicv2m,memory-backend=ram'],
    ['-cpu', options.cpu],
    ['-accel', 'tcg'],
    ['-smp', String(options.smp)],
    ['-m', size],
    ['-object', `memory-backend-memfd,id=ram,size=${size},share=on`],
    ['-display', 'none'],
    ['-monitor', 'none'],
  ];
  return [...pairs.flat(), '-nodefaults', '-no-user-config'];
}

/** Arguments that make QEMU write its own device tree for that machine to `file` and end. */
export function dumpArguments(options: MachineOptions, file: string): string[] {
  const args = machineArguments(options);
  args[1] = `${args[1]},dumpdtb=${file}`;
  // The second UART is in the tree only if something is connected to it.
  return [...args, '-serial', 'null', '-serial', 'null'];
}

/** The properties of a vfio-user function, as -device and device_add take them. */
export function vfioUserProperties(id: string, bus: string, socket: string): Record<string, unknown> {
  return { driver: 'vfio-user-pci', id, bus, addr: '0', socket: { type: 'unix', path: socket } };
}

/** In values of QEMU's key=value options a comma is written twice. */
const escaped = (value: string): string => value.replaceAll(',', ',,');

const client = (id: string, path: string): string[] => ['-chardev', `socket,id=${id},path=${escaped(path)}`];

/** The whole command line, without the program. The machine starts stopped (-S). */
export function bootArguments(machine: MachineOptions, boot: BootOptions): string[] {
  const args = machineArguments(machine);
  args.push('-S');
  if (boot.exitWithParent) args.push('-run-with', 'exit-with-parent=on');
  args.push(...client('console', boot.channels.console), '-serial', 'chardev:console');
  args.push(...client('commands', boot.channels.commands), '-serial', 'chardev:commands');
  args.push(...client('qmp', boot.channels.qmp), '-mon', 'chardev=qmp,mode=control');
  args.push(...client('qtest', boot.channels.qtest), '-qtest', 'chardev:qtest', '-qtest-log', '/dev/null');
  args.push('-kernel', boot.kernel, '-dtb', boot.dtb, '-append', boot.append);
  if (boot.initrd !== undefined) args.push('-initrd', boot.initrd);

  for (let port = 0; port < machine.rootPorts; port++) {
    const slot = port + 1;
    args.push(
      '-device',
      `pcie-root-port,id=${rootPortId(port)},bus=pcie.0,addr=${slot},chassis=${slot},slot=${slot}`,
    );
  }
  if (boot.smmuSocket !== undefined) {
    // An expander bridge takes root ports only, so the SMMU's function is on the bus behind one of those.
    args.push('-device', `pxb-pcie,id=hidden,bus=pcie.0,bus_nr=${LAYOUT.hiddenBus},addr=0x1f`);
    args.push('-device', 'pcie-root-port,id=smmuport,bus=hidden,addr=0,chassis=128,slot=128,io-reserve=0');
    args.push('-device', JSON.stringify(vfioUserProperties('smmu', 'smmuport', boot.smmuSocket)));
  }
  for (const { id, port, socket } of boot.devices) {
    args.push('-device', JSON.stringify(vfioUserProperties(id, rootPortId(port), socket)));
  }
  return args;
}

/**
 * The kernel command line: the console, what the machine needs, and what the user adds.
 * @param quiet only warnings and worse on the console; the kernel's log has everything all the same. Saves 0.5 s.
 */
export function kernelCommandLine(quiet: boolean, more = ''): string {
  const words = [
    'console=ttyAMA0',
    // Linux uses the GICv2m frame under a GICv3 only if there are no LPIs.
    'irqchip.gicv3_nolpi=1',
    // Linux 7 puts an empty root port to sleep, and QEMU's cannot wake it: a second hot-plug would go unnoticed.
    'pcie_port_pm=off',
    'panic=-1',
  ];
  if (quiet) words.push('quiet');
  if (more !== '') words.push(more);
  return words.join(' ');
}
