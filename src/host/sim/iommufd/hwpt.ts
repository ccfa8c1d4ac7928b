/** Hardware page tables: what a device can be attached to. */

import type { Errno } from '../../../iommufd/kernel.ts';
import type { ArmSmmu } from '../arm-smmu-v3/arm-smmu.ts';
import { type PagingDomain, Stage1Domain, Stage2Domain } from '../arm-smmu-v3/domain.ts';
import type { GuestSte } from '../arm-smmu-v3/ste.ts';
import type { BoundDevice } from './bound-device.ts';
import type { FaultQueue } from './fault-queue.ts';
import type { Ioas } from './ioas.ts';
import { KernelObject } from './objects.ts';
import type { Viommu } from './viommu.ts';

/** Made from an IOAS. */
export class HwptPaging extends KernelObject {
  override readonly type = 'hwpt_paging';
  readonly ioas: Ioas;
  readonly domain: PagingDomain;
  readonly nestParent: boolean;
  /** Made by attaching an IOAS; goes away with its last device. */
  readonly auto: boolean;
  readonly fault: FaultQueue | undefined;

  /** For {@link HwptPaging.create}: the domain already shows the IOAS. */
  constructor(
    ioas: Ioas,
    domain: PagingDomain,
    nestParent: boolean,
    auto: boolean,
    fault: FaultQueue | undefined,
  ) {
    super();
    this.ioas = ioas;
    this.domain = domain;
    this.nestParent = nestParent;
    this.auto = auto;
    this.fault = fault;
    ioas.users += 1;
    if (fault !== undefined) fault.users += 1;
  }

  /** @returns the HWPT, its domain showing what the IOAS maps; or EADDRINUSE, EFAULT. */
  static create(
    ioas: Ioas,
    smmu: ArmSmmu,
    options: {
      readonly nestParent?: boolean;
      readonly auto?: boolean;
      readonly fault?: FaultQueue | undefined;
    },
  ): HwptPaging | Errno {
    // Without stage 1 the kernel has only stage 2 to give.
    const domain =
      options.nestParent === true || !smmu.hasStage1 ? new Stage2Domain(smmu) : new Stage1Domain(smmu);
    const errno = ioas.addDomain(domain);
    if (errno !== 0) {
      domain.free();
      return errno;
    }
    return new HwptPaging(ioas, domain, options.nestParent === true, options.auto === true, options.fault);
  }

  override destroy(): void {
    this.ioas.removeDomain(this.domain);
    this.domain.free();
    this.ioas.users -= 1;
    if (this.fault !== undefined) this.fault.users -= 1;
  }

  attach(device: BoundDevice): Errno {
    return device.master.attachPaging(this.domain);
  }
}

/** Made from a vIOMMU: a guest's STE over the vIOMMU's stage 2. */
export class HwptNested extends KernelObject {
  override readonly type = 'hwpt_nested';
  readonly viommu: Viommu;
  readonly words: GuestSte;
  readonly fault: FaultQueue | undefined;

  constructor(viommu: Viommu, words: GuestSte, fault: FaultQueue | undefined) {
    super();
    this.viommu = viommu;
    this.words = words;
    this.fault = fault;
    viommu.users += 1;
    if (fault !== undefined) fault.users += 1;
  }

  override destroy(): void {
    this.viommu.users -= 1;
    if (this.fault !== undefined) this.fault.users -= 1;
  }

  attach(device: BoundDevice): Errno {
    return device.master.attachNested({
      words: this.words,
      parent: this.viommu.stage2,
      vmaster: () => this.viommu.vmaster(device),
    });
  }
}

export type Hwpt = HwptPaging | HwptNested;

/** The paging HWPT that maps IPAs, or IOVAs, for devices attached to this one. */
export const pagingOf = (hwpt: Hwpt): HwptPaging => (hwpt instanceof HwptPaging ? hwpt : hwpt.viommu.parent);
