/** What the kernel or the hardware refuses, from the first call that failed and what the SMMU says of itself. */

import { fitToHost } from '../../accel/compatibility.ts';
import type { Inquiry } from '../../host/linux/inquiry.ts';
import type { HostError } from '../../iommufd/errors.ts';
import type { HostInfo } from '../../iommufd/host-info.ts';
import type { IdRegisters } from '../../smmu/identification.ts';
import { IDR0, IDR3, IIDR } from '../../spec/registers.ts';
import { reason, type Reason } from './reason.ts';

/** @param ids what a guest is told of its SMMU. */
export function hardwareReasons({ info, refused }: Inquiry, ids: IdRegisters, path: string): Reason[] {
  if (refused !== undefined) return [refusal(refused, info, path)];
  const problems = info === undefined ? [] : fitToHost(ids, info).problems;
  return problems.map((text) => reason('INCOMPATIBLE', text));
}

function refusal(error: HostError, info: HostInfo | undefined, path: string): Reason {
  switch (`${error.operation} ${error.code}`) {
    case 'VFIO_DEVICE_BIND_IOMMUFD EPERM':
      return reason(
        'UNSAFE_INTERRUPTS',
        "The host cannot isolate its interrupts from other devices'. If the guest is trusted, that may be allowed.",
        'echo 1 > /sys/module/iommufd/parameters/allow_unsafe_interrupts',
      );
    case 'VFIO_DEVICE_BIND_IOMMUFD EBUSY':
    case 'VFIO_DEVICE_BIND_IOMMUFD EINVAL':
      return reason(
        'IN_USE',
        `It cannot be bound to an iommufd (${error.code}): another process uses it, or another device of its group.`,
        `fuser -v ${path}`,
      );
    case 'IOMMU_HWPT_ALLOC EOPNOTSUPP':
    case 'IOMMU_VIOMMU_ALLOC EOPNOTSUPP':
      return nestingRefused(info);
    case 'IOMMU_VDEVICE_ALLOC EOPNOTSUPP':
      return reason('STREAM_IDS', 'It does not have exactly one StreamID on the physical SMMU.');
    case 'IOMMU_VIOMMU_ALLOC ENOTTY':
    case 'IOMMU_VDEVICE_ALLOC ENOTTY':
    case 'IOMMU_VEVENTQ_ALLOC ENOTTY':
      return reason(
        'OLD_KERNEL',
        `This kernel does not know ${error.operation}: Linux 6.15 or later is needed.`,
      );
    case 'IOMMU_GET_HW_INFO EOPNOTSUPP':
      return reason(
        'KERNEL_WITHOUT_NESTING',
        'The kernel says nothing of the SMMU behind it: it is built without CONFIG_ARM_SMMU_V3_IOMMUFD, or older than Linux 6.13.',
      );
    default:
      return reason(
        'HOST_REFUSED',
        error.hint === undefined ? error.message : `${error.message} ${error.hint}`,
      );
  }
}

/** The kernel has one errno for all of it; the ID registers tell the reasons apart. */
function nestingRefused(info: HostInfo | undefined): Reason {
  if (info !== undefined) {
    const [idr0, , , idr3] = info.idr;
    if (IDR0.S1P.of(idr0) === 0)
      return reason('NO_STAGE_1', 'The physical SMMU has no stage 1 (IDR0.S1P=0), so it cannot nest.');
    if (IDR0.S2P.of(idr0) === 0)
      return reason('NO_STAGE_2', 'The physical SMMU has no stage 2 (IDR0.S2P=0), so it cannot nest.');
    const erratum = nestingErratum(info.IIDR);
    if (erratum !== undefined)
      return reason('NESTING_ERRATUM', `Linux does not nest on ${erratum}, because of its errata.`);
    if (IDR3.FWB.of(idr3) === 0)
      return reason(
        'NOT_COHERENT',
        'A guest could make its DMA incoherent: the physical SMMU has no forced write-back (IDR3.FWB=0), and firmware does not say that the device always snoops (CANWBS, in the IORT node of its root complex). Only newer firmware can say so.',
      );
  }
  return reason(
    'KERNEL_WITHOUT_NESTING',
    'The kernel offers no nesting on this SMMU: it is built without CONFIG_ARM_SMMU_V3_IOMMUFD, or is older than Linux 6.13.',
  );
}

const ARM = 0x43b;
const MMU_600 = 0x483;
const MMU_700 = 0x487;

/** The parts on which Linux 7.3 leaves nesting out. */
function nestingErratum(iidr: number): string | undefined {
  if (IIDR.Implementer.of(iidr) !== ARM) return undefined;
  const variant = IIDR.Variant.of(iidr);
  const revision = IIDR.Revision.of(iidr);
  const name = `r${variant}p${revision}`;
  switch (IIDR.ProductID.of(iidr)) {
    case MMU_600:
      return variant < 2 ? `MMU-600 ${name}` : undefined;
    case MMU_700:
      return variant < 1 || revision < 1 ? `MMU-700 ${name}` : undefined;
    default:
      return undefined;
  }
}
