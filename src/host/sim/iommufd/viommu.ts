/** A vIOMMU: a guest's share of one physical SMMU, over one stage 2; and its vDEVICEs. */

import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import type { Errno } from '../../../iommufd/kernel.ts';
import { IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 } from '../../../iommufd/uapi/iommufd.ts';
import { EVENT_RECORD, EVENT_SIZE, EVENT_WORDS } from '../../../spec/events.ts';
import type { ArmSmmu } from '../arm-smmu-v3/arm-smmu.ts';
import type { Stage2Domain } from '../arm-smmu-v3/domain.ts';
import type { KernelVersion } from '../kernel-versions.ts';
import { allowedBits, type GuestCommandContext, runGuestCommands } from '../arm-smmu-v3/guest-commands.ts';
import type { Vmaster } from '../arm-smmu-v3/master.ts';
import type { BoundDevice } from './bound-device.ts';
import type { HwptPaging } from './hwpt.ts';
import { KernelObject } from './objects.ts';
import type { Veventq } from './veventq.ts';

export class Viommu extends KernelObject {
  override readonly type = 'viommu';
  readonly parent: HwptPaging;
  readonly stage2: Stage2Domain;
  /** By virt_id, all 64 bits. */
  readonly vdevices = new Map<bigint, Vdevice>();
  /** By type. */
  readonly veventqs = new Map<number, Veventq>();
  readonly #commands: GuestCommandContext;

  constructor(parent: HwptPaging, stage2: Stage2Domain, version: KernelVersion) {
    super();
    this.parent = parent;
    this.stage2 = stage2;
    parent.users += 1;
    this.#commands = {
      smmu: stage2.smmu,
      allowed: version.checksCommands ? allowedBits(stage2.smmu) : undefined,
      vmid: stage2.vmid,
      physicalSid: (vsid) => this.vdevices.get(BigInt(vsid))?.device.master.sids[0],
    };
  }

  override destroy(): void {
    this.parent.users -= 1;
  }

  get smmu(): ArmSmmu {
    return this.stage2.smmu;
  }

  /** The way of a device's events to this vIOMMU as it is now; undefined if the device has no vDEVICE here. */
  vmaster(device: BoundDevice): Vmaster | undefined {
    for (const [virtId, vdevice] of this.vdevices)
      if (vdevice.device === device) return new GuestEvents(this, Number(virtId & 0xffff_ffffn));
    return undefined;
  }

  /** Carries out `count` raw SMMUv3 commands, which are changed. @returns how many count as done, and 0 or an errno. */
  invalidate(words: Uint32Array, count: number): { readonly done: number; readonly errno: Errno } {
    return runGuestCommands(this.#commands, words, count);
  }
}

/** Reports events under the virtual StreamID that the device had when it was attached. */
class GuestEvents implements Vmaster {
  readonly #viommu: Viommu;
  readonly #vsid: number;

  constructor(viommu: Viommu, vsid: number) {
    this.#viommu = viommu;
    this.#vsid = vsid;
  }

  report(record: Uint32Array): boolean {
    const queue = this.#viommu.veventqs.get(IOMMU_VEVENTQ_TYPE_ARM_SMMUV3);
    if (queue === undefined) return false;
    const words = record.slice(0, EVENT_WORDS);
    EVENT_RECORD.StreamID.set(words, this.#vsid);
    const bytes = new Uint8Array(EVENT_SIZE);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < EVENT_WORDS; i++) view.setUint32(i * 4, words[i], true);
    queue.report(bytes);
    return true;
  }
}

export class Vdevice extends KernelObject {
  override readonly type = 'vdevice';
  readonly viommu: Viommu;
  readonly device: BoundDevice;
  readonly virtId: bigint;

  private constructor(viommu: Viommu, device: BoundDevice, virtId: bigint) {
    super();
    this.viommu = viommu;
    this.device = device;
    this.virtId = virtId;
    viommu.users += 1;
    viommu.vdevices.set(virtId, this);
    device.vdevice = this;
  }

  /** @returns the vDEVICE, or EINVAL, EEXIST, EOPNOTSUPP in the kernel's order of checks. */
  static create(viommu: Viommu, device: BoundDevice, virtId: bigint): Vdevice | Errno {
    if (device.master.smmu !== viommu.smmu) return ERRNO.EINVAL;
    if (device.vdevice !== undefined || viommu.vdevices.has(virtId)) return ERRNO.EEXIST;
    if (device.master.sids.length !== 1) return ERRNO.EOPNOTSUPP;
    return new Vdevice(viommu, device, virtId);
  }

  override destroy(): void {
    this.device.vdevice = undefined;
    this.viommu.vdevices.delete(this.virtId);
    this.viommu.users -= 1;
  }
}
