/** The objects of `/dev/iommu` on a strict host, and the rules of its ioctls. */

import { ERRNO } from '../../../src/iommufd/uapi/errno.ts';
import { iommu_hw_info_arm_smmuv3 } from '../../../src/iommufd/uapi/hw-info.ts';
import * as iommufd from '../../../src/iommufd/uapi/iommufd.ts';
import type { Ioctl, Members } from '../../../src/iommufd/uapi/struct.ts';
import { type Kind, Nested, type StrictDevice, type Thing } from './things.ts';

/** What the objects need of their host. */
interface Surroundings {
  readonly devices: ReadonlyMap<string, StrictDevice>;
  readonly info: readonly number[];
  readonly infoFlags: number;
  readonly capabilities: bigint;
  readonly invalidated: string[];
  /** Notes that a rule was broken. @returns the errno */
  complain(text: string, errno: number): number;
  newFd(file: Thing): number;
  memoryAt(address: bigint): Uint8Array | undefined;
}

export class StrictIommufd {
  /** By id. */
  readonly things = new Map<number, Thing>();
  readonly #host: Surroundings;
  readonly #iovas = new Map<bigint, bigint>();

  constructor(host: Surroundings) {
    this.#host = host;
  }

  /** @returns the smallest id that is free */
  add(thing: Thing): number {
    let id = 1;
    while (this.things.has(id)) id++;
    this.things.set(id, thing);
    return id;
  }

  /** @returns 0 or an errno */
  ioctl(request: number, arg: Uint8Array): number {
    const get = <M extends Members>(ioctl: Ioctl<M>) => ioctl.decode(arg);
    switch (request) {
      case iommufd.IOMMU_DESTROY.request:
        return this.#destroy(get(iommufd.IOMMU_DESTROY).id);
      case iommufd.IOMMU_IOAS_ALLOC.request:
        iommufd.IOMMU_IOAS_ALLOC.set(arg, 'out_ioas_id', this.add({ kind: 'ioas', on: undefined, smmu: -1 }));
        return 0;
      case iommufd.IOMMU_IOAS_MAP.request: {
        const { iova, length, user_va } = get(iommufd.IOMMU_IOAS_MAP);
        if (this.#host.memoryAt(user_va) === undefined)
          return this.#host.complain('map of memory that has no address', ERRNO.EFAULT);
        this.#iovas.set(iova, length);
        return 0;
      }
      case iommufd.IOMMU_IOAS_UNMAP.request:
        return this.#iovas.delete(get(iommufd.IOMMU_IOAS_UNMAP).iova) ? 0 : ERRNO.ENOENT;
      case iommufd.IOMMU_GET_HW_INFO.request:
        return this.#hwInfo(arg);
      case iommufd.IOMMU_HWPT_ALLOC.request:
        return this.#hwptAlloc(arg);
      case iommufd.IOMMU_VIOMMU_ALLOC.request: {
        const { dev_id, hwpt_id } = get(iommufd.IOMMU_VIOMMU_ALLOC);
        const parent = this.#find(hwpt_id, 'parent');
        const device = this.#find(dev_id, 'device');
        if (parent === undefined || device === undefined) return ERRNO.ENOENT;
        if (parent.smmu !== device.smmu) return ERRNO.EINVAL;
        const id = this.add({ kind: 'viommu', on: parent, smmu: device.smmu });
        iommufd.IOMMU_VIOMMU_ALLOC.set(arg, 'out_viommu_id', id);
        return 0;
      }
      case iommufd.IOMMU_VDEVICE_ALLOC.request:
        return this.#vdeviceAlloc(arg);
      case iommufd.IOMMU_VEVENTQ_ALLOC.request: {
        const { viommu_id, veventq_depth } = get(iommufd.IOMMU_VEVENTQ_ALLOC);
        const viommu = this.#find(viommu_id, 'viommu');
        if (veventq_depth < 1 || veventq_depth > 1 << 19) return ERRNO.EINVAL;
        if (viommu === undefined) return ERRNO.ENOENT;
        for (const { kind, on } of this.things.values())
          if (kind === 'veventq' && on === viommu) return ERRNO.EEXIST;
        const thing: Thing = { kind: 'veventq', on: viommu, smmu: viommu.smmu, open: true };
        iommufd.IOMMU_VEVENTQ_ALLOC.set(arg, 'out_veventq_id', this.add(thing));
        iommufd.IOMMU_VEVENTQ_ALLOC.set(arg, 'out_veventq_fd', this.#host.newFd(thing));
        return 0;
      }
      case iommufd.IOMMU_HWPT_INVALIDATE.request:
        return this.#invalidate(arg);
      default:
        return this.#host.complain(`unexpected ioctl 0x${request.toString(16)}`, ERRNO.ENOTTY);
    }
  }

  #find(id: number, kind: Kind): Thing | undefined {
    const thing = this.things.get(id);
    return thing?.kind === kind ? thing : undefined;
  }

  #destroy(id: number): number {
    const thing = this.things.get(id);
    if (thing === undefined)
      return this.#host.complain(`DESTROY of id ${id}, which does not exist`, ERRNO.ENOENT);
    const used =
      thing.open === true ||
      thing.kind === 'device' ||
      [...this.things.values()].some(({ on }) => on === thing) ||
      [...this.#host.devices.values()].some(({ attached }) => attached === thing);
    if (used) return this.#host.complain(`DESTROY of a ${thing.kind} that is in use`, ERRNO.EBUSY);
    this.things.delete(id);
    return 0;
  }

  #hwInfo(arg: Uint8Array): number {
    const ioctl = iommufd.IOMMU_GET_HW_INFO;
    const { dev_id, data_uptr } = ioctl.decode(arg);
    if (this.#find(dev_id, 'device') === undefined) return ERRNO.ENOENT;
    const [IIDR, AIDR] = this.#host.info.slice(6);
    const info = { flags: this.#host.infoFlags, idr: this.#host.info.slice(0, 6), iidr: IIDR, aidr: AIDR };
    this.#host.memoryAt(data_uptr)!.set(iommu_hw_info_arm_smmuv3.encode(info));
    ioctl.set(arg, 'out_data_type', 2);
    ioctl.set(arg, 'out_capabilities', this.#host.capabilities);
    return 0;
  }

  #hwptAlloc(arg: Uint8Array): number {
    const ioctl = iommufd.IOMMU_HWPT_ALLOC;
    const { flags, dev_id, pt_id, data_uptr } = ioctl.decode(arg);
    const device = this.#find(dev_id, 'device');
    if (device === undefined) return ERRNO.ENOENT;
    const under = this.things.get(pt_id);
    if (under?.kind === 'ioas' && flags === iommufd.IOMMU_HWPT_ALLOC_NEST_PARENT) {
      ioctl.set(arg, 'out_hwpt_id', this.add({ kind: 'parent', on: under, smmu: device.smmu }));
      return 0;
    }
    if (under?.kind !== 'viommu' || under.smmu !== device.smmu) return ERRNO.EINVAL;
    const ste = new Uint32Array(this.#host.memoryAt(data_uptr)!.slice(0, 16).buffer);
    const illegal = (ste[1] & ~0xf80f_ffff) | (ste[2] & ~0x3800_00ff) | ste[3];
    if (illegal !== 0 || ![0, 4, 5].includes((ste[0] >>> 1) & 7)) return ERRNO.EIO;
    const nested = new Nested(under, device.smmu, ste);
    ioctl.set(arg, 'out_hwpt_id', this.add(nested));
    return 0;
  }

  #vdeviceAlloc(arg: Uint8Array): number {
    const ioctl = iommufd.IOMMU_VDEVICE_ALLOC;
    const { viommu_id, dev_id, virt_id } = ioctl.decode(arg);
    const viommu = this.#find(viommu_id, 'viommu');
    const bound = this.#find(dev_id, 'device');
    if (viommu === undefined || bound === undefined) return ERRNO.ENOENT;
    if (viommu.smmu !== bound.smmu) return ERRNO.EINVAL;
    for (const { kind, device, on, vsid } of this.things.values())
      if (kind === 'vdevice' && (device === bound.device || (on === viommu && vsid === Number(virt_id))))
        return ERRNO.EEXIST;
    const vdevice = {
      kind: 'vdevice',
      on: viommu,
      smmu: bound.smmu,
      vsid: Number(virt_id),
      device: bound.device!,
    } as const;
    ioctl.set(arg, 'out_vdevice_id', this.add(vdevice));
    return 0;
  }

  #invalidate(arg: Uint8Array): number {
    const ioctl = iommufd.IOMMU_HWPT_INVALIDATE;
    const { hwpt_id, data_uptr, entry_num, entry_len } = ioctl.decode(arg);
    if (entry_num === 0 || entry_len !== 16)
      return this.#host.complain('INVALIDATE of nothing', ERRNO.EINVAL);
    const viommu = this.#find(hwpt_id, 'viommu');
    if (viommu === undefined) return ERRNO.ENOENT;
    const bytes = this.#host.memoryAt(data_uptr)!;
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, entry_num * 4);
    const names: string[] = [];
    for (let i = 0; i < entry_num; i++) {
      const opcode = words[4 * i] & 0xff;
      const sid = words[4 * i + 1];
      const bySid = opcode === 5 || opcode === 6 || opcode === 0x40;
      const known = [...this.things.values()].some(({ on, vsid }) => on === viommu && vsid === sid);
      if (![0x30, 0x10, 0x11, 0x12, 0x13, 5, 6, 0x40].includes(opcode) || (bySid && !known)) {
        ioctl.set(arg, 'entry_num', i);
        return this.#host.complain(`INVALIDATE of opcode ${opcode}, StreamID ${sid}`, ERRNO.EIO);
      }
      names.push(bySid ? `${opcode.toString(16)}:${sid}` : opcode.toString(16));
    }
    this.#host.invalidated.push(...names);
    return 0;
  }
}
