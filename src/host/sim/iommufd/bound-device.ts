/** A device that VFIO has bound to an iommufd context, and what it is attached to. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import { EVENT_RECORD } from '../../../spec/events.ts';
import { PRI_ENTRY } from '../../../spec/queues.ts';
import { CMD_RESUME, COMMAND, COMMAND_WORDS, OPCODE } from '../../../spec/commands.ts';
import {
  iommu_hwpt_pgfault,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMU_PGFAULT_PERM_EXEC,
  IOMMU_PGFAULT_PERM_PRIV,
  IOMMU_PGFAULT_PERM_READ,
  IOMMU_PGFAULT_PERM_WRITE,
} from '../../../iommufd/uapi/page-fault.ts';
import { join } from '../../../bits/u64.ts';
import type { Master } from '../arm-smmu-v3/master.ts';
import type { FaultQueue } from './fault-queue.ts';
import { type Hwpt, HwptPaging, pagingOf } from './hwpt.ts';
import { Ioas, type IovaRange } from './ioas.ts';
import { KernelObject, type ObjectTable } from './objects.ts';
import { Vdevice } from './viommu.ts';

/** Where the SMMU driver lets software place the MSI doorbell. */
export const SW_MSI_WINDOW: IovaRange = { start: 0x0800_0000n, last: 0x080f_ffffn };

/** Devices that the hardware cannot keep apart: they share one page table. */
export class IommuGroup {
  readonly devices = new Set<BoundDevice>();
}

export interface BoundDeviceOptions {
  readonly master: Master;
  readonly group: IommuGroup;
  readonly objects: ObjectTable;
  /** Told which paging HWPT translates the device's MSIs from now on. */
  readonly msiDomainChanged: (hwpt: HwptPaging) => void;
}

export class BoundDevice extends KernelObject {
  override readonly type = 'device';
  readonly master: Master;
  readonly group: IommuGroup;
  vdevice: Vdevice | undefined;
  hwpt: Hwpt | undefined;
  readonly #objects: ObjectTable;
  readonly #msiDomainChanged: (hwpt: HwptPaging) => void;

  constructor(options: BoundDeviceOptions) {
    super();
    this.master = options.master;
    this.group = options.group;
    this.#objects = options.objects;
    this.#msiDomainChanged = options.msiDomainChanged;
    this.group.devices.add(this);
    // Held by VFIO from bind to close.
    this.users = 1;
  }

  override destroy(): void {}

  /** Attaches, or replaces what is attached; after an error everything is as before. @returns 0 or an errno. */
  attach(target: Hwpt | Ioas): Errno {
    return target instanceof Ioas ? this.#attachIoas(target) : this.#attachHwpt(target);
  }

  /** Ends the attachment, if there is one; DMA is then blocked. */
  detach(): void {
    const old = this.hwpt;
    if (old === undefined) return;
    this.#setFaults(undefined, old);
    this.master.attachBlocked();
    this.hwpt = undefined;
    this.users -= 1;
    pagingOf(old).ioas.unreserve(this);
    this.#drop(old);
  }

  /** VFIO closes the device: its vDEVICE goes, and leaves its id behind for ever. */
  unbind(): void {
    this.detach();
    if (this.vdevice !== undefined) this.#objects.bury(this.vdevice);
    this.group.devices.delete(this);
    this.users -= 1;
    this.#objects.destroy(this);
  }

  /** The HWPT of another device of the group, which this one has to share. */
  get #groupHwpt(): Hwpt | undefined {
    for (const device of this.group.devices)
      if (device !== this && device.hwpt !== undefined) return device.hwpt;
    return undefined;
  }

  #attachIoas(ioas: Ioas): Errno {
    for (const object of this.#objects.all()) {
      if (!(object instanceof HwptPaging) || !object.auto || object.ioas !== ioas) continue;
      const errno = this.#attachHwpt(object);
      // One of another SMMU does not fit; the next may.
      if (errno !== ERRNO.EINVAL) return errno;
    }
    const hwpt = HwptPaging.create(ioas, this.master.smmu, { auto: true });
    if (typeof hwpt === 'number') return hwpt;
    this.#objects.add(hwpt);
    const errno = this.#attachHwpt(hwpt);
    if (errno !== 0) this.#objects.destroy(hwpt);
    return errno;
  }

  #attachHwpt(hwpt: Hwpt): Errno {
    const old = this.hwpt;
    if (old === hwpt) return 0;
    const shared = this.#groupHwpt;
    if (old === undefined && shared !== undefined && shared !== hwpt) return ERRNO.EINVAL;
    const { ioas } = pagingOf(hwpt);
    const oldIoas = old === undefined ? undefined : pagingOf(old).ioas;
    if (ioas !== oldIoas) {
      const errno = ioas.reserve(SW_MSI_WINDOW, this);
      if (errno !== 0) return errno;
    }
    const errno = hwpt.attach(this);
    if (errno !== 0) {
      if (ioas !== oldIoas) ioas.unreserve(this);
      return errno;
    }
    if (oldIoas !== undefined && oldIoas !== ioas) oldIoas.unreserve(this);
    hwpt.users += 1;
    this.hwpt = hwpt;
    this.#setFaults(hwpt.fault, old);
    this.#msiDomainChanged(pagingOf(hwpt));
    if (old === undefined) this.users += 1;
    else this.#drop(old);
    return 0;
  }

  #drop(hwpt: Hwpt): void {
    hwpt.users -= 1;
    if (hwpt instanceof HwptPaging && hwpt.auto && hwpt.users === 0) this.#objects.destroy(hwpt);
  }

  /** Sends stalled faults to a queue; what the device has in the old one, even if it is the same, is ended by an abort. */
  #setFaults(queue: FaultQueue | undefined, old: Hwpt | undefined): void {
    old?.fault?.drop(this);
    this.master.faults = queue === undefined ? undefined : (record) => this.#reportFault(queue, record);
    this.master.pageRequests =
      queue === undefined
        ? undefined
        : (entries, answer) => {
            const records = entries.map((entry) => this.#pageRequest(entry));
            queue.report({ records, owner: this, answer });
            return true;
          };
  }

  /** A record for an entry of the physical PRI queue. */
  #pageRequest(entry: Uint32Array): Uint8Array {
    const pasidValid = PRI_ENTRY.SSV.get(entry) === 1;
    const bit = (field: { get(words: Uint32Array): number }, flag: number): number =>
      field.get(entry) === 1 ? flag : 0;
    return iommu_hwpt_pgfault.encode({
      flags:
        bit(PRI_ENTRY.Last, IOMMU_PGFAULT_FLAGS_LAST_PAGE) |
        (pasidValid ? IOMMU_PGFAULT_FLAGS_PASID_VALID : 0),
      dev_id: this.id,
      pasid: pasidValid ? PRI_ENTRY.SubstreamID.get(entry) : 0,
      grpid: PRI_ENTRY.PRGIndex.get(entry),
      perm:
        bit(PRI_ENTRY.R, IOMMU_PGFAULT_PERM_READ) |
        bit(PRI_ENTRY.W, IOMMU_PGFAULT_PERM_WRITE) |
        bit(PRI_ENTRY.X, IOMMU_PGFAULT_PERM_EXEC) |
        bit(PRI_ENTRY.Priv, IOMMU_PGFAULT_PERM_PRIV),
      addr: join(PRI_ENTRY.Addr.getHi(entry), PRI_ENTRY.Addr.getLo(entry)),
    });
  }

  #reportFault(queue: FaultQueue, record: Uint32Array): boolean {
    const sid = EVENT_RECORD.StreamID.get(record);
    const stag = EVENT_RECORD.STAG.get(record);
    const read = EVENT_RECORD.RnW.get(record) === 1;
    const instruction = EVENT_RECORD.InD.get(record) === 1;
    const pasidValid = EVENT_RECORD.SSV.get(record) === 1;
    const fault = iommu_hwpt_pgfault.encode({
      flags: IOMMU_PGFAULT_FLAGS_LAST_PAGE | (pasidValid ? IOMMU_PGFAULT_FLAGS_PASID_VALID : 0),
      dev_id: this.id,
      pasid: pasidValid ? EVENT_RECORD.SubstreamID.get(record) : 0,
      grpid: stag,
      perm:
        (read ? IOMMU_PGFAULT_PERM_READ : IOMMU_PGFAULT_PERM_WRITE) |
        (instruction ? IOMMU_PGFAULT_PERM_EXEC : 0) |
        (EVENT_RECORD.PnU.get(record) === 1 ? IOMMU_PGFAULT_PERM_PRIV : 0),
      addr: join(EVENT_RECORD.InputAddr.getHi(record), EVENT_RECORD.InputAddr.getLo(record)),
    });
    queue.report({
      records: [fault],
      owner: this,
      answer: (success) => {
        const command = new Uint32Array(COMMAND_WORDS);
        COMMAND.Opcode.set(command, OPCODE.CMD_RESUME);
        CMD_RESUME.StreamID.set(command, sid);
        CMD_RESUME.STAG.set(command, stag);
        if (success) CMD_RESUME.Ac.set(command, 1);
        else CMD_RESUME.Ab.set(command, 1);
        this.master.smmu.submit(command, 1);
      },
    });
    return true;
  }
}
