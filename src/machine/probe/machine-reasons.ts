/** What stands in the way of every device of a machine. */

import { isAtLeast } from '../../host/linux/discovery-kernel.ts';
import type { Discovery, IommuKind } from '../../host/linux/discovery.ts';
import { IOMMUFD_PATH } from '../../iommufd/iommufd.ts';
import { reason, type Reason } from './reason.ts';

/** Memory of a guest of `vsmmu run`, all of which is pinned. */
export const GUEST_RAM_SIZE = 0x1000_0000;

/** vEVENTQs came with 6.15; everything else that is used was there by then. */
const NEEDS_LINUX = [6, 15] as const;

const KIND_NAMES: Readonly<Record<IommuKind, string>> = {
  'arm-smmu-v3': 'an Arm SMMUv3',
  'arm-smmu': 'an Arm SMMU of version 1 or 2',
  'intel-vt-d': 'Intel VT-d',
  'amd-vi': 'AMD-Vi',
  'virtio-iommu': 'a virtio-iommu',
  other: 'of another kind',
};

export function machineReasons(found: Discovery): Reason[] {
  const { architecture } = found.kernel;
  // What else is missing there would not help.
  if (architecture !== undefined && architecture !== 'aarch64')
    return [reason('NOT_ARM64', `Only arm64 machines have an Arm SMMUv3; this one is ${architecture}.`)];
  return [...iommuReasons(found), ...kernelReasons(found), ...iommufdReasons(found), ...memoryReasons(found)];
}

function iommuReasons({ iommus, kernel }: Discovery): Reason[] {
  if (iommus.some(({ kind }) => kind === 'arm-smmu-v3')) return [];
  if (iommus.length > 0) {
    const list = iommus.map(({ name, kind }) => `${name} is ${KIND_NAMES[kind]}`);
    const more = list.length > 3 ? `, and ${list.length - 3} more` : '';
    return [reason('NO_SMMUV3', `This machine has no Arm SMMUv3: ${list.slice(0, 3).join(', ')}${more}.`)];
  }
  const why =
    kernel.options?.ARM_SMMU_V3 === 'n'
      ? 'The kernel is built without CONFIG_ARM_SMMU_V3.'
      : 'Firmware describes none, or the kernel was told not to use it. A virtual machine has one only if its VMM offers it.';
  return [reason('NO_IOMMU', `/sys/class/iommu is empty: this machine shows no IOMMU. ${why}`)];
}

function kernelReasons({ kernel: { release, options } }: Discovery): Reason[] {
  const reasons: Reason[] = [];
  if (!isAtLeast(release, ...NEEDS_LINUX))
    reasons.push(
      reason(
        'OLD_KERNEL',
        `Linux ${release} is too old: event queues for guests came with Linux ${NEEDS_LINUX.join('.')}.`,
      ),
    );
  if (options?.IOMMUFD === 'n')
    reasons.push(reason('KERNEL_WITHOUT_IOMMUFD', 'The kernel is built without CONFIG_IOMMUFD.'));
  else if (options?.ARM_SMMU_V3_IOMMUFD === 'n' && options.ARM_SMMU_V3 !== 'n')
    reasons.push(reason('KERNEL_WITHOUT_NESTING', 'The kernel is built without CONFIG_ARM_SMMU_V3_IOMMUFD.'));
  if (options?.VFIO_PCI === 'n')
    reasons.push(reason('KERNEL_WITHOUT_VFIO_CDEV', 'The kernel is built without CONFIG_VFIO_PCI.'));
  else if (options?.VFIO_DEVICE_CDEV === 'n' && options.IOMMUFD !== 'n')
    reasons.push(reason('KERNEL_WITHOUT_VFIO_CDEV', 'The kernel is built without CONFIG_VFIO_DEVICE_CDEV.'));
  return reasons;
}

function iommufdReasons({ iommufd: { access, number }, kernel: { options } }: Discovery): Reason[] {
  if (access === 'granted') return [];
  if (access === 'refused')
    return [
      reason(
        'IOMMUFD_REFUSED',
        `This user may not open ${IOMMUFD_PATH} for reading and writing.`,
        `setfacl -m u:USER:rw ${IOMMUFD_PATH}`,
      ),
    ];
  if (number !== undefined)
    return [
      reason(
        'NO_IOMMUFD_FILE',
        `The kernel has iommufd, but there is no ${IOMMUFD_PATH}: a container has to be given it.`,
        `mknod ${IOMMUFD_PATH} c ${number.replace(':', ' ')}`,
      ),
    ];
  // That it is not built in has been said.
  if (options?.IOMMUFD === 'n') return [];
  const why =
    options === undefined
      ? 'the module iommufd is not loaded, or the kernel has none (CONFIG_IOMMUFD, Linux 6.2)'
      : 'the module iommufd is not loaded';
  return [reason('NO_IOMMUFD_FILE', `There is no ${IOMMUFD_PATH}: ${why}.`, 'modprobe iommufd')];
}

function memoryReasons({ kernel: { lockedMemory } }: Discovery): Reason[] {
  const { limit, exempt } = lockedMemory;
  if (exempt || limit === undefined || limit >= GUEST_RAM_SIZE) return [];
  const mib = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`;
  return [
    reason(
      'LOCKED_MEMORY',
      `This process may lock ${mib(limit)}; all memory of a guest is locked, ${mib(GUEST_RAM_SIZE)} for \`vsmmu run\`.`,
      'prlimit --memlock=unlimited --pid SHELL_PID',
    ),
  ];
}
