/** A guest brought up on a rig as far as a case wants: each step is one call, kept for the next. */

import type { Fd } from '../../src/iommufd/kernel.ts';
import * as uapi from '../../src/iommufd/uapi/iommufd.ts';
import type { Ioctl, Members, Values } from '../../src/iommufd/uapi/struct.ts';
import * as vfio from '../../src/iommufd/uapi/vfio.ts';
import { Client, words64, type Answer } from './client.ts';
import { Guest, GUEST, RAM_BASE, RAM_SIZE, STE } from './guest.ts';
import type { Rig } from './rig.ts';
import { TestDevice } from './test-device.ts';

export interface Endpoint {
  readonly device: TestDevice;
  readonly id: number;
}

type HwptValues = Partial<Values<typeof uapi.IOMMU_HWPT_ALLOC.members>>;

export class Vm {
  readonly rig: Rig;
  readonly client: Client;
  readonly guest: Guest;
  readonly iommufd: Fd;
  readonly #memory;

  constructor(rig: Rig) {
    this.rig = rig;
    this.client = new Client(rig.kernel);
    this.guest = new Guest(rig.ram(RAM_SIZE));
    this.iommufd = rig.kernel.open('/dev/iommu');
    this.#memory = rig.kernel.userMemory(this.guest.ram);
  }

  ioctl<M extends Members>(ioctl: Ioctl<M>, values: Partial<Values<M>> = {}, size?: number): Answer<M> {
    return this.client.ioctl(this.iommufd, ioctl, values, size);
  }

  /** The ioctl's result alone. */
  result<M extends Members>(ioctl: Ioctl<M>, values: Partial<Values<M>> = {}): string {
    return this.ioctl(ioctl, values).result;
  }

  /** An ioctl that has to succeed. */
  must<M extends Members>(ioctl: Ioctl<M>, values: Partial<Values<M>> = {}): Values<M> {
    const { result, out } = this.ioctl(ioctl, values);
    if (result !== 'OK') throw new Error(`${ioctl.ioctl}: ${result}`);
    return out;
  }

  /** Opens and binds the rig's n-th device. */
  bind(n = 0): Endpoint {
    const device = new TestDevice(this.rig.kernel, this.rig.kernel.open(this.rig.devices[n].path));
    const { result, out } = this.client.ioctl(device.fd, vfio.VFIO_DEVICE_BIND_IOMMUFD, {
      iommufd: this.iommufd,
    });
    if (result !== 'OK') throw new Error(`bind: ${result}`);
    device.enable();
    return { device, id: out.out_devid };
  }

  ioas(): number {
    return this.must(uapi.IOMMU_IOAS_ALLOC).out_ioas_id;
  }

  /** Maps guest RAM, or part of it. */
  map(
    ioas_id: number,
    { iova = BigInt(RAM_BASE), length = BigInt(RAM_SIZE), offset = 0n, flags = 7 } = {},
  ): string {
    const user_va = this.#memory.address + offset;
    return this.result(uapi.IOMMU_IOAS_MAP, { flags, ioas_id, user_va, length, iova });
  }

  unmap(ioas_id: number, iova: bigint, length: bigint): Answer<typeof uapi.IOMMU_IOAS_UNMAP.members> {
    return this.ioctl(uapi.IOMMU_IOAS_UNMAP, { ioas_id, iova, length });
  }

  hwpt(dev_id: number, pt_id: number, flags = 0): number {
    return this.must(uapi.IOMMU_HWPT_ALLOC, { flags, dev_id, pt_id }).out_hwpt_id;
  }

  viommu(dev_id: number, hwpt_id: number): number {
    return this.must(uapi.IOMMU_VIOMMU_ALLOC, { type: 1, dev_id, hwpt_id }).out_viommu_id;
  }

  vdevice(viommu_id: number, dev_id: number, virt_id: bigint): number {
    return this.must(uapi.IOMMU_VDEVICE_ALLOC, { viommu_id, dev_id, virt_id }).out_vdevice_id;
  }

  /** Asks for a nested HWPT. */
  tryNested(
    viommu: number,
    device: number,
    words: readonly bigint[],
    values: HwptValues = {},
  ): { readonly result: string; readonly id: number } {
    const { result, out } = this.client.withBytes(words64(...words), (data_uptr) =>
      this.ioctl(uapi.IOMMU_HWPT_ALLOC, {
        dev_id: device,
        pt_id: viommu,
        data_type: uapi.IOMMU_HWPT_DATA_ARM_SMMUV3,
        data_len: words.length * 8,
        data_uptr,
        ...values,
      }),
    );
    return { result, id: out.out_hwpt_id };
  }

  nested(viommu: number, device: number, words: readonly bigint[]): number {
    const { result, id } = this.tryNested(viommu, device, words);
    if (result !== 'OK') throw new Error(`nested HWPT_ALLOC: ${result}`);
    return id;
  }

  veventq(viommu_id: number, veventq_depth: number): { readonly id: number; readonly fd: Fd } {
    const out = this.must(uapi.IOMMU_VEVENTQ_ALLOC, { viommu_id, type: 1, veventq_depth });
    return { id: out.out_veventq_id, fd: out.out_veventq_fd };
  }

  attach({ device }: Endpoint, pt_id: number): string {
    return this.client.ioctl(device.fd, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id }).result;
  }

  detach({ device }: Endpoint): string {
    return this.client.ioctl(device.fd, vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT).result;
  }

  destroy(id: number): string {
    return this.result(uapi.IOMMU_DESTROY, { id });
  }

  /** One DMA write of a word. @returns the value of the device's result register. */
  dma({ device }: Endpoint, iova: bigint): number {
    const result = device.dma(iova, 0n);
    this.rig.settle();
    return result;
  }

  /** Clears both data pages, does a DMA, and says where it went: 'D0', 'D1' or 'nowhere'. */
  dmaLands(endpoint: Endpoint, iova: bigint): string {
    const offset = Number(iova % 4096n);
    for (const page of [GUEST.D0, GUEST.D1]) this.guest.store(page, 0n);
    this.dma(endpoint, iova);
    if (this.guest.load32(GUEST.D0 + offset) === 0x1234_5678) return 'D0';
    return this.guest.load32(GUEST.D1 + offset) === 0x1234_5678 ? 'D1' : 'nowhere';
  }

  /** Sends raw commands. */
  invalidate(
    hwpt_id: number,
    commands: readonly (readonly [bigint, bigint])[],
    values: Partial<Values<typeof uapi.IOMMU_HWPT_INVALIDATE.members>> = {},
  ): { readonly result: string; readonly done: number } {
    const { result, out } = this.client.withBytes(words64(...commands.flat(), 0n), (data_uptr) =>
      this.ioctl(uapi.IOMMU_HWPT_INVALIDATE, {
        hwpt_id,
        data_uptr,
        data_type: 1,
        entry_len: 16,
        entry_num: commands.length,
        ...values,
      }),
    );
    return { result, done: out.entry_num };
  }

  /** Reads a vEVENTQ empty. @returns its records. */
  events(fd: Fd): VmEvent[] {
    this.rig.settle();
    const into = new Uint8Array(65_536);
    const got = this.rig.kernel.read(fd, into);
    if (got < 0) throw new Error(`read: ${got}`);
    return parseEvents(into.subarray(0, got));
  }
}

export interface VmEvent {
  readonly sequence: number;
  readonly lost: boolean;
  readonly type?: number;
  readonly sid?: number;
  readonly address?: bigint;
}

export function parseEvents(bytes: Uint8Array): VmEvent[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const events: VmEvent[] = [];
  for (let at = 0; at < bytes.length;) {
    const sequence = view.getUint32(at + 4, true);
    if (view.getUint32(at, true) === 1) {
      events.push({ sequence, lost: true });
      at += 8;
      continue;
    }
    events.push({
      sequence,
      lost: false,
      type: view.getUint8(at + 8),
      sid: view.getUint32(at + 12, true),
      address: view.getBigUint64(at + 24, true),
    });
    at += 40;
  }
  return events;
}

/** A guest with device A behind a vIOMMU, an event queue of 16 and a stage 1; attached to what `attach` says. */
export function nestedVm(rig: Rig, attach: 's1' | 'none' = 's1') {
  const vm = new Vm(rig);
  const a = vm.bind(0);
  const ioas = vm.ioas();
  vm.map(ioas);
  const parent = vm.hwpt(a.id, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
  const viommu = vm.viommu(a.id, parent);
  const vdevice = vm.vdevice(viommu, a.id, 0x1234n);
  const s1 = vm.nested(viommu, a.id, STE.S1);
  const queue = vm.veventq(viommu, 16);
  if (attach === 's1') vm.attach(a, s1);
  return { vm, a, ioas, parent, viommu, vdevice, s1, queue };
}
