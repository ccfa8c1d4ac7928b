/**
 * The lab's machine: an Arm server in QEMU with two SMMUv3s that have both stages, and test endpoints behind them. Its
 * Linux is the host on which vsmmu runs, so nothing in here is ours but the kernel's configuration.
 */

/** A PCI function of the lab that does DMA when told. */
export interface Endpoint {
  /** As Linux calls it. */
  readonly address: string;
  /** iommu-testdev writes through the SMMU; edu reads and writes, and has one MSI; the USB host has 16. */
  readonly model: 'iommu-testdev' | 'edu' | 'nec-usb-xhci';
}

/** The second SMMU's first bus, on which only root ports can be, and the one behind its root port. */
const SECOND_BUS = 0x20;
const BEHIND_PORT = SECOND_BUS + 1;

/** The last one is behind the second SMMU. */
export const ENDPOINTS: readonly Endpoint[] = [
  { address: '0000:00:04.0', model: 'iommu-testdev' },
  { address: '0000:00:05.0', model: 'iommu-testdev' },
  { address: '0000:00:06.0', model: 'edu' },
  { address: '0000:00:07.0', model: 'nec-usb-xhci' },
  { address: '0000:21:00.0', model: 'iommu-testdev' },
];

/** A folder of this machine that the lab's init finds below /lab. */
export interface Share {
  /** Letters and digits. */
  readonly name: string;
  readonly path: string;
  /** False lets programs in the lab write into it; true unless told. */
  readonly readOnly?: boolean;
}

export interface LabMachineOptions {
  memoryMiB: number;
  smp: number;
  /** Starts the kernel at EL2, so that it has KVM. Slower. */
  virtualization: boolean;
  /** More of QEMU's `-device`, each on a bus that it names. */
  devices: readonly string[];
}

export const DEFAULT_LAB_MACHINE: LabMachineOptions = {
  memoryMiB: 1024,
  smp: 2,
  virtualization: false,
  devices: [],
};

/** What is not a part of the machine, but of one run of it. */
export interface LabBootOptions {
  /** UEFI for arm64. */
  readonly firmware: string;
  readonly kernel: string;
  readonly initrd: string;
  /** More words for the kernel command line. */
  readonly append?: string | undefined;
  readonly shares: readonly Share[];
  /** UNIX sockets that listen already. */
  readonly channels: { readonly console: string; readonly commands: string };
  /** Makes QEMU end when the process that started it ends. */
  readonly exitWithParent: boolean;
}

/** In values of QEMU's key=value options a comma is written twice. */
const escaped = (value: string): string => value.replaceAll(',', ',,');

function endpointArguments({ address, model }: Endpoint): string[] {
  const [, bus, slot] = /^[0-9a-f]{4}:([0-9a-f]{2}):([0-9a-f]{2})\.0$/.exec(address) ?? [];
  const on = Number.parseInt(bus, 16) === BEHIND_PORT ? 'port0' : 'pcie.0';
  return ['-device', `${model},bus=${on},addr=0x${slot}${PROPERTIES[model]}`];
}

const PROPERTIES: Record<Endpoint['model'], string> = {
  'iommu-testdev': '',
  // 28 address bits unless told otherwise.
  edu: ',dma_mask=0xffffffffffff',
  'nec-usb-xhci': ',msi=on,msix=off',
};

/** What the machine is made of; its ACPI tables follow from this. */
export function labMachineArguments(options: LabMachineOptions): string[] {
  const virtualization = options.virtualization ? 'on' : 'off';
  return [
    ['-M', `virt,gic-version=3,its=on,virtualization=${virtualization}`],
    // Extensions that only cost an emulated CPU time; 52-bit addresses among them.
    ['-cpu', 'max,pauth=off,sve=off,sme=off,lpa2=off'],
    ['-accel', 'tcg,thread=multi'],
    ['-smp', String(options.smp)],
    ['-m', `${options.memoryMiB}M`],
    ['-nodefaults', '-no-user-config', '-no-reboot'],
    ['-display', 'none', '-monitor', 'none'],
    ['-device', `pxb-pcie,id=pcie.second,bus=pcie.0,bus_nr=${SECOND_BUS}`],
    ['-device', 'pcie-root-port,id=port0,bus=pcie.second,addr=0x0,chassis=1'],
    // Without "nested" they have stage 1 only.
    ['-device', 'arm-smmuv3,primary-bus=pcie.0,id=smmu0,stage=nested'],
    ['-device', 'arm-smmuv3,primary-bus=pcie.second,id=smmu1,stage=nested'],
    ...ENDPOINTS.map(endpointArguments),
    ...options.devices.map((device) => ['-device', device]),
  ].flat();
}

/** The whole command line, without the program. */
export function labArguments(machine: LabMachineOptions, boot: LabBootOptions): string[] {
  const args = labMachineArguments(machine);
  if (boot.exitWithParent) args.push('-run-with', 'exit-with-parent=on');
  args.push('-bios', boot.firmware, '-kernel', boot.kernel, '-initrd', boot.initrd);
  args.push('-append', ['console=ttyAMA0', 'panic=-1', 'quiet', boot.append ?? ''].join(' ').trim());
  args.push('-chardev', `socket,id=console,path=${escaped(boot.channels.console)}`);
  args.push('-serial', 'chardev:console');
  // Messages of the kernel go to the serial line, so they cannot get in between.
  args.push('-chardev', `socket,id=commands,path=${escaped(boot.channels.commands)}`);
  args.push(
    '-device',
    'virtio-serial-pci,bus=pcie.0',
    '-device',
    'virtserialport,chardev=commands,name=commands',
  );
  for (const { name, path, readOnly = true } of boot.shares) {
    args.push(
      '-fsdev',
      `local,id=${name},path=${escaped(path)},security_model=none,readonly=${readOnly ? 'on' : 'off'}`,
    );
    args.push('-device', `virtio-9p-pci,bus=pcie.0,fsdev=${name},mount_tag=${name}`);
  }
  return args;
}
