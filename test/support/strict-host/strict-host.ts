/**
 * A host of nothing but rules: ids, references, EBUSY, EEXIST, ENOENT, who is attached to what and under which StreamID.
 * It does no DMA. It is written from the kernel's reference rules alone, so that reconcile is checked against two
 * independent readings of them; and any call can be made to fail.
 */

import type { Kernel, UserMemory, Watch } from '../../../src/iommufd/kernel.ts';
import { ERRNO } from '../../../src/iommufd/uapi/errno.ts';
import * as iommufd from '../../../src/iommufd/uapi/iommufd.ts';
import * as vfio from '../../../src/iommufd/uapi/vfio.ts';
import { StrictIommufd } from './strict-iommufd.ts';
import { StrictDevice, type Thing, describe } from './things.ts';

const NAMES = new Map<number, string>(
  [...iommufd.IOMMUFD_IOCTLS, ...vfio.VFIO_IOCTLS].map(({ request, ioctl }) => [request, ioctl]),
);

/** IDR0..IDR5 of the physical SMMUs, IIDR, AIDR. */
const SMMU_INFO = [0x0d44_101b, 0x0273_0010, 0, 0x1414, 0, 0x75, 0, 1];

export class StrictHost implements Kernel {
  readonly devices = new Map<string, StrictDevice>();
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
  readonly #iommufd = new StrictIommufd(this);
  readonly #fds = new Map<number, 'iommu' | StrictDevice | Thing>();
  readonly #memory = new Map<bigint, Uint8Array>();
  readonly #watched = new Set<number>();
  #nextAddress = 0x10_0000n;
  #made = 0;

  /** @param smmus number of the physical SMMU of each device vfio0, vfio1... */
  constructor(smmus: readonly number[] = [0, 0, 1]) {
    smmus.forEach((smmu, i) => {
      const path = `/dev/vfio/devices/vfio${i}`;
      this.devices.set(path, new StrictDevice(path, smmu));
    });
  }

  /** Objects and descriptors that exist, by kind. */
  get objects(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { kind } of this.#iommufd.things.values()) counts[kind] = (counts[kind] ?? 0) + 1;
    if (this.#fds.size > 0) counts['fd'] = this.#fds.size;
    if (this.#memory.size > 0) counts['memory'] = this.#memory.size;
    return counts;
  }

  device(index: number): StrictDevice {
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
    return this.newFd(device ?? 'iommu');
  }

  close(fd: number): number {
    const file = this.#fds.get(fd);
    this.calls.push('close');
    if (file === undefined) return this.complain('close of a closed descriptor', ERRNO.EBADF);
    this.#fds.delete(fd);
    if (this.#watched.has(fd)) this.complaints.push('a watched descriptor was closed');
    if (file instanceof StrictDevice) this.#unbind(file);
    else if (file !== 'iommu') file.open = false;
    if (this.#fds.size === 0) this.#iommufd.things.clear();
    return 0;
  }

  ioctl(_fd: number, request: number, arg: Uint8Array): number {
    const name = NAMES.get(request) ?? `0x${request.toString(16)}`;
    const errno = this.#call(name);
    if (errno !== 0) return errno;
    const file = this.#fds.get(_fd);
    if (file === undefined) return this.complain(`${name} on a closed descriptor`, ERRNO.EBADF);
    if (file instanceof StrictDevice) return this.#vfio(file, request, arg);
    return this.#iommufd.ioctl(request, arg);
  }

  read(fd: number): number {
    return this.#fds.has(fd) ? 0 : -this.complain('read of a closed descriptor', ERRNO.EBADF);
  }
  write(fd: number): number {
    return -this.complain('write', this.#fds.has(fd) ? ERRNO.EINVAL : ERRNO.EBADF);
  }
  pread(): number {
    return 0;
  }
  pwrite(): number {
    return 0;
  }
  eventfd(): number {
    return this.newFd('iommu');
  }
  onReadable(fd: number): Watch {
    if (!this.#fds.has(fd)) this.complain('watch of a closed descriptor', 0);
    this.#watched.add(fd);
    return { stop: () => this.#watched.delete(fd) };
  }
  userMemory(bytes: Uint8Array): UserMemory {
    const address = this.#nextAddress;
    this.#nextAddress += BigInt(bytes.length + 0xffff) & ~0xfffn;
    this.#memory.set(address, bytes);
    return { address, bytes, release: () => this.#memory.delete(address) };
  }

  /** What an address of {@link userMemory} stands for. */
  memoryAt(address: bigint): Uint8Array | undefined {
    return this.#memory.get(address);
  }

  #call(name: string): number {
    this.calls.push(name);
    return this.failing(name, ++this.#made);
  }

  /** Notes that a rule was broken. @returns the errno */
  complain(text: string, errno: number): number {
    this.complaints.push(text);
    return errno;
  }

  /** The smallest descriptor that is free. */
  newFd(file: 'iommu' | StrictDevice | Thing): number {
    let fd = 3;
    while (this.#fds.has(fd)) fd++;
    this.#fds.set(fd, file);
    return fd;
  }

  #vfio(device: StrictDevice, request: number, arg: Uint8Array): number {
    switch (request) {
      case vfio.VFIO_DEVICE_BIND_IOMMUFD.request:
        if (device.id !== 0) return ERRNO.EINVAL;
        device.id = this.#iommufd.add({ kind: 'device', on: undefined, smmu: device.smmu, device });
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

  #attach(device: StrictDevice, id: number): number {
    const table = this.#iommufd.things.get(id);
    if (table === undefined) return this.complain('ATTACH of nothing', ERRNO.ENOENT);
    if (table === device.attached) return this.complain('ATTACH of the same table', 0);
    if (table.kind !== 'nested' || table.smmu !== device.smmu) return ERRNO.EINVAL;
    const vdevice = [...this.#iommufd.things.values()].find(
      (thing) => thing.kind === 'vdevice' && thing.device === device,
    );
    if (table.translates === true && vdevice === undefined)
      return this.complain('ATTACH of a translating table without a vDEVICE', ERRNO.ENOENT);
    this.#note(device, table);
    device.noted = vdevice?.vsid;
    return 0;
  }

  #note(device: StrictDevice, table: Thing | undefined): void {
    device.attached = table;
    device.noted = undefined;
    device.history.push(describe(table));
  }

  #unbind(device: StrictDevice): void {
    for (const [id, thing] of this.#iommufd.things) {
      if (thing.device !== device) continue;
      if (thing.kind === 'vdevice') this.complaints.push('a vDEVICE outlived its device');
      this.#iommufd.things.delete(id);
    }
    device.id = 0;
    if (device.attached !== undefined) this.complaints.push('a device was closed while attached');
    device.attached = undefined;
  }
}
