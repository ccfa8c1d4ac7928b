/** What stands in the way of one device, as far as it shows without asking the kernel. */

import { isBridge, type HostDevice, type HostGroup } from '../../host/linux/discovery-device.ts';
import { reason, type Reason } from './reason.ts';

const VFIO_DRIVER = 'vfio-pci';

/** @param vfioPci whether the driver vfio-pci is there. */
export function deviceReasons(device: HostDevice, vfioPci: boolean): Reason[] {
  const { pci, group } = device;
  if (pci === undefined) return [reason('NOT_PCI', 'It is not a PCI device; only those can be plugged.')];
  if (isBridge(pci.classCode)) return [reason('BRIDGE', 'It is a bridge, which stays with the host.')];
  if (group === undefined)
    return [reason('NO_GROUP', 'It is in no IOMMU group: its DMA does not pass the SMMU.')];
  const bound =
    device.driver === VFIO_DRIVER ? fileReasons(device) : [notBound(device.name, device.driver, vfioPci)];
  return [...groupReasons(group, vfioPci), ...bound];
}

/** What else is worth knowing of a device that can be used. */
export function deviceNotes({ group }: HostDevice): string[] {
  const others = (group?.others ?? []).filter(({ bridge }) => !bridge).map(({ name }) => name);
  if (others.length === 0) return [];
  return [`Group ${group?.id} holds ${others.join(', ')} too; only one device of a group can be plugged.`];
}

function groupReasons({ id, others, firmwareRanges }: HostGroup, vfioPci: boolean): Reason[] {
  const reasons: Reason[] = [];
  if (firmwareRanges.length > 0)
    reasons.push(
      reason(
        'FIRMWARE_MAPPING',
        `Firmware wants ${firmwareRanges.join(', ')} mapped one to one for it, which Linux lets no user change.`,
      ),
    );
  const held = others.filter(
    ({ driver, bridge }) => !bridge && driver !== undefined && !driver.startsWith('vfio'),
  );
  if (held.length > 0)
    reasons.push(
      reason(
        'GROUP_SHARED',
        `The host uses other devices of its IOMMU group ${id}, which moves as a whole: ${held
          .map(({ name, driver }) => `${name} by ${driver}`)
          .join(', ')}.`,
        ...bindCommands(
          held.map(({ name }) => name),
          vfioPci,
        ),
      ),
    );
  return reasons;
}

function notBound(name: string, driver: string | undefined, vfioPci: boolean): Reason {
  const who =
    driver === undefined
      ? 'No driver has it.'
      : `The host uses it by the driver ${driver}; what depends on it there will lose it.`;
  return reason(
    'NOT_BOUND',
    `${who} It has to be bound to ${VFIO_DRIVER}.`,
    ...bindCommands([name], vfioPci, driver !== undefined),
  );
}

function bindCommands(names: readonly string[], vfioPci: boolean, bound = true): string[] {
  return [
    ...(vfioPci ? [] : [`modprobe ${VFIO_DRIVER}`]),
    ...names.flatMap((name) => {
      const folder = `/sys/bus/pci/devices/${name}`;
      return [
        `echo ${VFIO_DRIVER} > ${folder}/driver_override`,
        ...(bound ? [`echo ${name} > ${folder}/driver/unbind`] : []),
        `echo ${name} > /sys/bus/pci/drivers_probe`,
      ];
    }),
  ];
}

function fileReasons({ vfio }: HostDevice): Reason[] {
  if (vfio?.number === undefined)
    return [
      reason(
        'KERNEL_WITHOUT_VFIO_CDEV',
        'The kernel makes no VFIO device file for it: it is built without CONFIG_VFIO_DEVICE_CDEV.',
      ),
    ];
  if (vfio.access === 'absent')
    return [
      reason(
        'NO_VFIO_FILE',
        `There is no ${vfio.path}: a container has to be given it.`,
        'mkdir -p /dev/vfio/devices',
        `mknod ${vfio.path} c ${vfio.number.replace(':', ' ')}`,
      ),
    ];
  if (vfio.access === 'refused')
    return [
      reason(
        'VFIO_REFUSED',
        `This user may not open ${vfio.path} for reading and writing.`,
        `setfacl -m u:USER:rw ${vfio.path}`,
      ),
    ];
  return [];
}
