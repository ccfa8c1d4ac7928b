/**
 * A host of nothing but rules: ids, references, EBUSY, EEXIST, ENOENT, who is attached to what and under which StreamID.
 * It does no DMA. It is written from the kernel's reference rules alone, so that reconcile is checked against two
 * independent readings of them; and any call can be made to fail.
 */

import type { Kernel, UserMemory, Watch } from '../../src/iommufd/kernel.ts';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import * as iommufd from '../../src/iommufd/uapi/iommufd.ts';
import { iommu_hw_info_arm_smmuv3 } from '../../src/iommufd/uapi/hw-info.ts';
import * as vfio from '../../src/iommufd/uapi/vfio.ts';
import type { Ioctl, Members } from '../../src/iommufd/uapi/struct.ts';

type Kind = 'ioas' | 'parent' | 'viommu' | 'nested' | 'vdevice' | 'veventq' | 'device';

interface Thing {
  readonly kind: Kind;
  /** What this holds a reference on. */
  readonly on: Thing | undefined;
  readonly smmu: number;
  /** vDEVICE: StreamID. */
  readonly vsid?: number;
  readonly device?: Device;
  /** Nested: whether its Config is stage 1. */
  readonly translates?: boolean;
  /** vEVENTQ: its descriptor is open. */
  open?: boolean;
}

class Device {
  readonly path: string;
  readonly smmu: number;
  id = 0;
  attached: Thing | undefined;
  /** StreamID that the kernel noted at the last nested attach. */
  noted: number | undefined;
  /** What it was attached to, in order: 'none', 'abort', 'bypass', 'translate <S1ContextPtr>'. */
  readonly history: string[] = [];

  constructor(path: string, smmu: number) {
    this.path = path;
    this.smmu = smmu;
  }
}

const NAMES = new Map<number, string>(
  [...iommufd.IOMMUFD_IOCTLS, ...vfio.VFIO_IOCTLS].map(({ request, ioctl }) => [request, ioctl]),
);

/** IDR0..IDR5 of the physical SMMUs, IIDR, AIDR. */
const SMMU_INFO = [0x0d44_101b, 0x0273_0010, 0, 0x1414, 0, 0x75, 0, 1];

export class StrictHost implements Kernel {
  readonly devices = new Map<string, Device>();
  /** ioctls, opens and closes since it was last emptied, by name. */
  calls: string[] = [];
  /** Asked before every ioctl and open: an errno makes it fail. */
  failing: (name: string, nth: number) => number = () => 0;
  /** Commands of every HWPT_INVALIDATE that succeeded, as `opcode:sid`. */
  readonly invalidated: string[] = [];
  /** Things that broke a rule: none, in a test that passes. */
  readonly complaints: string[] = [];
  readonly info = [...SMMU_INFO];
  /** Bit 3: no ATS. */
  capabilities = 8n;
  infoFlags = 0;
  readonly #things = new Map<number, Thing>();
  readonly #fds = new Map<number, 'iommu' | Device | Thing>();
  readonly #memory = new Map<bigint, Uint8Array>();
  readonly #watched = new Set<number>();
  readonly #iovas = new Map<bigint, bigint>();
  #nextAddress = 0x10_0000n;
  #made = 0;

  /** @param smmus number of the physical SMMU of each device vfio0, vfio1... */
  constructor(smmus: readonly number[] = [0, 0, 1]) {
    smmus.forEach((smmu, i) => {
      const path = `/dev/vfio/devices/vfio${i}`;
      this.devices.set(path, new Device(path, smmu));
    });
  }

  /** Objects and descriptors that exist, by kind. */
  get objects(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { kind } of this.#things.values()) counts[kind] = (counts[kind] ?? 0) + 1;
    if (this.#fds.size > 0) counts['fd'] = this.#fds.size;
    if (this.#memory.size > 0) counts['memory'] = this.#memory.size;
    return counts;
  }

  device(index: number): Device {
    return this.devices.get(`/dev/vfio/devices/vfio${index}`)!;
  }

  /** What a device is attached to now. */
  attached(index: number): string {
    return describe(this.device(index).attached);
  }

  /** Takes the names of the calls since the last time. */
  takeCalls(): string[] {
    return this.calls.splice(0);
  }

  open(path: string): number {
    const errno = this.#call(`open ${path}`);
    if (errno !== 0) return -errno;
    const device = this.devices.get(path);
    if (device !== undefined && [...this.#fds.values()].includes(device)) return -ERRNO.EBUSY;
    if (path !== '/dev/iommu' && device === undefined) return -ERRNO.ENOENT;
    return this.#newFd(device ?? 'iommu');
  }

  close(fd: number): number {
    const file = this.#fds.get(fd);
    this.calls.push('close');
    if (file === undefined) return this.#complain('close of a closed descriptor', ERRNO.EBADF);
    this.#fds.delete(fd);
    if (this.#watched.has(fd)) this.complaints.push('a watched descriptor was closed');
    if (file instanceof Device) this.#unbind(file);
    else if (file !== 'iommu') file.open = false;
    if (this.#fds.size === 0) this.#things.clear();
    return 0;
  }

  ioctl(_fd: number, request: number, arg: Uint8Array): number {
    const name = NAMES.get(request) ?? `0x${request.toString(16)}`;
    const errno = this.#call(name);
    if (errno !== 0) return errno;
    const file = this.#fds.get(_fd);
    if (file === undefined) return this.#complain(`${name} on a closed descriptor`, ERRNO.EBADF);
    if (file instanceof Device) return this.#vfio(file, request, arg);
    return this.#iommufd(request, arg);
  }

  read(fd: number): number {
    return this.#fds.has(fd) ? 0 : -this.#complain('read of a closed descriptor', ERRNO.EBADF);
  }
  write(fd: number): number {
    return -this.#complain('write', this.#fds.has(fd) ? ERRNO.EINVAL : ERRNO.EBADF);
  }
  pread(): number {
    return 0;
  }
  pwrite(): number {
    return 0;
  }
  eventfd(): number {
    return this.#newFd('iommu');
  }
  onReadable(fd: number): Watch {
    if (!this.#fds.has(fd)) this.#complain('watch of a closed descriptor', 0);
    this.#watched.add(fd);
    return { stop: () => this.#watched.delete(fd) };
  }
  userMemory(bytes: Uint8Array): UserMemory {
    const address = this.#nextAddress;
    this.#nextAddress += BigInt(bytes.length + 0xffff) & ~0xfffn;
    this.#memory.set(address, bytes);
    return { address, bytes, release: () => this.#memory.delete(address) };
  }

  #call(name: string): number {
    this.calls.push(name);
    return this.failing(name, ++this.#made);
  }

  #complain(text: string, errno: number): number {
    this.complaints.push(text);
    return errno;
  }

  #newFd(file: 'iommu' | Device | Thing): number {
    let fd = 3;
    while (this.#fds.has(fd)) fd++;
    this.#fds.set(fd, file);
    return fd;
  }

  #add(thing: Thing): number {
    let id = 1;
    while (this.#things.has(id)) id++;
    this.#things.set(id, thing);
    return id;
  }

  #iommufd(request: number, arg: Uint8Array): number {
    const get = <M extends Members>(ioctl: Ioctl<M>) => ioctl.decode(arg);
    switch (request) {
      case iommufd.IOMMU_DESTROY.request:
        return this.#destroy(get(iommufd.IOMMU_DESTROY).id);
      case iommufd.IOMMU_IOAS_ALLOC.request:
        iommufd.IOMMU_IOAS_ALLOC.set(
          arg,
          'out_ioas_id',
          this.#add({ kind: 'ioas', on: undefined, smmu: -1 }),
        );
        return 0;
      case iommufd.IOMMU_IOAS_MAP.request: {
        const { iova, length, user_va } = get(iommufd.IOMMU_IOAS_MAP);
        if (!this.#memory.has(user_va))
          return this.#complain('map of memory that has no address', ERRNO.EFAULT);
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
        const id = this.#add({ kind: 'viommu', on: parent, smmu: device.smmu });
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
        for (const { kind, on } of this.#things.values())
          if (kind === 'veventq' && on === viommu) return ERRNO.EEXIST;
        const thing: Thing = { kind: 'veventq', on: viommu, smmu: viommu.smmu, open: true };
        iommufd.IOMMU_VEVENTQ_ALLOC.set(arg, 'out_veventq_id', this.#add(thing));
        iommufd.IOMMU_VEVENTQ_ALLOC.set(arg, 'out_veventq_fd', this.#newFd(thing));
        return 0;
      }
      case iommufd.IOMMU_HWPT_INVALIDATE.request:
        return this.#invalidate(arg);
      default:
        return this.#complain(`unexpected ioctl 0x${request.toString(16)}`, ERRNO.ENOTTY);
    }
  }

  #find(id: number, kind: Kind): Thing | undefined {
    const thing = this.#things.get(id);
    return thing?.kind === kind ? thing : undefined;
  }

  #destroy(id: number): number {
    const thing = this.#things.get(id);
    if (thing === undefined) return this.#complain(`DESTROY of id ${id}, which does not exist`, ERRNO.ENOENT);
    const used =
      thing.open === true ||
      thing.kind === 'device' ||
      [...this.#things.values()].some(({ on }) => on === thing) ||
      [...this.devices.values()].some(({ attached }) => attached === thing);
    if (used) return this.#complain(`DESTROY of a ${thing.kind} that is in use`, ERRNO.EBUSY);
    this.#things.delete(id);
    return 0;
  }

  #hwInfo(arg: Uint8Array): number {
    const ioctl = iommufd.IOMMU_GET_HW_INFO;
    const { dev_id, data_uptr } = ioctl.decode(arg);
    if (this.#find(dev_id, 'device') === undefined) return ERRNO.ENOENT;
    const [IIDR, AIDR] = this.info.slice(6);
    const info = { flags: this.infoFlags, idr: this.info.slice(0, 6), iidr: IIDR, aidr: AIDR };
    this.#memory.get(data_uptr)!.set(iommu_hw_info_arm_smmuv3.encode(info));
    ioctl.set(arg, 'out_data_type', 2);
    ioctl.set(arg, 'out_capabilities', this.capabilities);
    return 0;
  }

  #hwptAlloc(arg: Uint8Array): number {
    const ioctl = iommufd.IOMMU_HWPT_ALLOC;
    const { flags, dev_id, pt_id, data_uptr } = ioctl.decode(arg);
    const device = this.#find(dev_id, 'device');
    if (device === undefined) return ERRNO.ENOENT;
    const under = this.#things.get(pt_id);
    if (under?.kind === 'ioas' && flags === iommufd.IOMMU_HWPT_ALLOC_NEST_PARENT) {
      ioctl.set(arg, 'out_hwpt_id', this.#add({ kind: 'parent', on: under, smmu: device.smmu }));
      return 0;
    }
    if (under?.kind !== 'viommu' || under.smmu !== device.smmu) return ERRNO.EINVAL;
    const ste = new Uint32Array(this.#memory.get(data_uptr)!.slice(0, 16).buffer);
    const illegal = (ste[1] & ~0xf80f_ffff) | (ste[2] & ~0x3800_00ff) | ste[3];
    if (illegal !== 0 || ![0, 4, 5].includes((ste[0] >>> 1) & 7)) return ERRNO.EIO;
    const nested = new Nested(under, device.smmu, ste);
    ioctl.set(arg, 'out_hwpt_id', this.#add(nested));
    return 0;
  }

  #vdeviceAlloc(arg: Uint8Array): number {
    const ioctl = iommufd.IOMMU_VDEVICE_ALLOC;
    const { viommu_id, dev_id, virt_id } = ioctl.decode(arg);
    const viommu = this.#find(viommu_id, 'viommu');
    const bound = this.#find(dev_id, 'device');
    if (viommu === undefined || bound === undefined) return ERRNO.ENOENT;
    if (viommu.smmu !== bound.smmu) return ERRNO.EINVAL;
    for (const { kind, device, on, vsid } of this.#things.values())
      if (kind === 'vdevice' && (device === bound.device || (on === viommu && vsid === Number(virt_id))))
        return ERRNO.EEXIST;
    const vdevice = {
      kind: 'vdevice',
      on: viommu,
      smmu: bound.smmu,
      vsid: Number(virt_id),
      device: bound.device!,
    } as const;
    ioctl.set(arg, 'out_vdevice_id', this.#add(vdevice));
    return 0;
  }

  #invalidate(arg: Uint8Array): number {
    const ioctl = iommufd.IOMMU_HWPT_INVALIDATE;
    const { hwpt_id, data_uptr, entry_num, entry_len } = ioctl.decode(arg);
    if (entry_num === 0 || entry_len !== 16) return this.#complain('INVALIDATE of nothing', ERRNO.EINVAL);
    const viommu = this.#find(hwpt_id, 'viommu');
    if (viommu === undefined) return ERRNO.ENOENT;
    const bytes = this.#memory.get(data_uptr)!;
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, entry_num * 4);
    const names: string[] = [];
    for (let i = 0; i < entry_num; i++) {
      const opcode = words[4 * i] & 0xff;
      const sid = words[4 * i + 1];
      const bySid = opcode === 5 || opcode === 6 || opcode === 0x40;
      const known = [...this.#things.values()].some(({ on, vsid }) => on === viommu && vsid === sid);
      if (![0x30, 0x10, 0x11, 0x12, 0x13, 5, 6, 0x40].includes(opcode) || (bySid && !known)) {
        ioctl.set(arg, 'entry_num', i);
        return this.#complain(`INVALIDATE of opcode ${opcode}, StreamID ${sid}`, ERRNO.EIO);
      }
      names.push(bySid ? `${opcode.toString(16)}:${sid}` : opcode.toString(16));
    }
    this.invalidated.push(...names);
    return 0;
  }

  #vfio(device: Device, request: number, arg: Uint8Array): number {
    switch (request) {
      case vfio.VFIO_DEVICE_BIND_IOMMUFD.request:
        if (device.id !== 0) return ERRNO.EINVAL;
        device.id = this.#add({ kind: 'device', on: undefined, smmu: device.smmu, device });
        vfio.VFIO_DEVICE_BIND_IOMMUFD.set(arg, 'out_devid', device.id);
        return 0;
      case vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT.request:
        return this.#attach(device, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT.decode(arg).pt_id);
      case vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT.request:
        this.#note(device, undefined);
        return 0;
      default:
        return 0;
    }
  }

  #attach(device: Device, id: number): number {
    const table = this.#things.get(id);
    if (table === undefined) return this.#complain('ATTACH of nothing', ERRNO.ENOENT);
    if (table === device.attached) return this.#complain('ATTACH of the same table', 0);
    if (table.kind !== 'nested' || table.smmu !== device.smmu) return ERRNO.EINVAL;
    const vdevice = [...this.#things.values()].find(
      (thing) => thing.kind === 'vdevice' && thing.device === device,
    );
    if (table.translates === true && vdevice === undefined)
      return this.#complain('ATTACH of a translating table without a vDEVICE', ERRNO.ENOENT);
    this.#note(device, table);
    device.noted = vdevice?.vsid;
    return 0;
  }

  #note(device: Device, table: Thing | undefined): void {
    device.attached = table;
    device.noted = undefined;
    device.history.push(describe(table));
  }

  #unbind(device: Device): void {
    for (const [id, thing] of this.#things) {
      if (thing.device !== device) continue;
      if (thing.kind === 'vdevice') this.complaints.push('a vDEVICE outlived its device');
      this.#things.delete(id);
    }
    device.id = 0;
    if (device.attached !== undefined) this.complaints.push('a device was closed while attached');
    device.attached = undefined;
  }
}

class Nested implements Thing {
  readonly kind = 'nested';
  readonly on: Thing;
  readonly smmu: number;
  readonly translates: boolean;
  readonly ste: Uint32Array;

  constructor(on: Thing, smmu: number, ste: Uint32Array) {
    this.on = on;
    this.smmu = smmu;
    this.ste = ste;
    this.translates = ((ste[0] >>> 1) & 7) === 5;
  }
}

function describe(table: Thing | undefined): string {
  if (!(table instanceof Nested)) return table === undefined ? 'none' : table.kind;
  if (table.translates) return `translate ${(table.ste[0] & ~0x3f).toString(16)}`;
  return ((table.ste[0] >>> 1) & 7) === 4 ? 'bypass' : 'abort';
}
