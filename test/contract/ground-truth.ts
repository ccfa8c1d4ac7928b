/**
 * The program whose run on Linux 7.3.4 gave linux-7.3.jsonl, step by step. It only calls the kernel and writes down
 * what came back; ids and descriptors are the kernel's own.
 */

import type { Fd } from '../../src/iommufd/kernel.ts';
import { errnoName } from '../../src/iommufd/uapi/errno.ts';
import { iommu_hw_info_arm_smmuv3 } from '../../src/iommufd/uapi/hw-info.ts';
import * as uapi from '../../src/iommufd/uapi/iommufd.ts';
import type { Ioctl, Members, Values } from '../../src/iommufd/uapi/struct.ts';
import * as vfio from '../../src/iommufd/uapi/vfio.ts';
import { bytesOf, Client, words64, type Answer } from './client.ts';
import { Guest, GUEST, IPA_HOLE, RAM_BASE, STE } from './guest.ts';
import { BAD_POINTER, type Rig } from './rig.ts';
import { resultText, TestDevice } from './test-device.ts';

export interface Step {
  readonly result: string;
  readonly detail: string;
  /** Lines that a read gave. */
  readonly records?: readonly string[];
}

/** 16 MiB. */
const MEASURED_RAM = 0x100_0000;
const VSID = 0x1234n;
/** SID of the first device, which the second gets as its virtual one. */
const SID_A = 0x20n;

export class GroundTruth {
  readonly steps: Step[] = [];
  readonly #rig: Rig;
  readonly #client: Client;
  readonly #guest: Guest;
  readonly #memory;
  #iommufd: Fd = -1;
  #a!: TestDevice;
  #b!: TestDevice;
  #devA = 0;
  #devB = 0;
  #ioas = 0;
  #parent = 0;
  #plain = 0;
  #viommu = 0;
  #s1 = 0;
  #abort = 0;
  #bypass = 0;
  #invalid = 0;
  #vdevA = 0;
  #vdevB = 0;
  #veventq = 0;
  #eventFd: Fd = -1;

  constructor(rig: Rig) {
    this.#rig = rig;
    this.#client = new Client(rig.kernel);
    this.#guest = new Guest(rig.ram(MEASURED_RAM));
    this.#memory = rig.kernel.userMemory(this.#guest.ram);
  }

  /** Runs everything. */
  run(): readonly Step[] {
    this.#bind();
    this.#parents();
    this.#viommus();
    this.#nestedValidation();
    this.#attachWithoutVdevice();
    this.#vdevices();
    this.#veventqs();
    this.#emptyQueue();
    this.#faults();
    this.#overflow();
    this.#badCd();
    this.#invalidationEffect();
    this.#invalidationCommands();
    this.#transitions();
    this.#destroyOrder();
    this.#teardown();
    return this.steps;
  }

  #step(result: string, detail = '', records?: readonly string[]): void {
    this.steps.push(records === undefined ? { result, detail } : { result, detail, records });
  }

  #call<M extends Members>(ioctl: Ioctl<M>, values: Partial<Values<M>>, size?: number): Answer<M> {
    return this.#client.ioctl(this.#iommufd, ioctl, values, size);
  }

  /** A step that is one ioctl; `detail` is shown if it succeeds. */
  #try<M extends Members>(
    ioctl: Ioctl<M>,
    values: Partial<Values<M>>,
    detail: (out: Values<M>) => string = () => '',
  ): Values<M> {
    const { result, out } = this.#call(ioctl, values);
    this.#step(result, result === 'OK' ? detail(out) : '');
    return out;
  }

  #destroy(id: number): string {
    return this.#call(uapi.IOMMU_DESTROY, { id }).result;
  }

  #tryDestroy(id: number): void {
    this.#step(this.#destroy(id));
  }

  #attach(device: TestDevice, id: number): string {
    return this.#client.ioctl(device.fd, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id: id }).result;
  }

  #tryAttach(id: number, device = this.#a): void {
    this.#step(this.#attach(device, id));
  }

  #tryDetach(device: TestDevice): void {
    this.#step(this.#client.ioctl(device.fd, vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT).result);
  }

  /** One DMA write of the pattern; data page 0 is where it is expected unless said otherwise. */
  #dma(
    iova: bigint,
    { device = this.#a, page = GUEST.D0 }: { device?: TestDevice; page?: number } = {},
  ): void {
    for (const data of [GUEST.D0, GUEST.D1]) this.#guest.store(data, 0n);
    const result = device.dma(iova, this.#rig.physicalAddress(this.#guest.ram, page - RAM_BASE));
    this.#rig.settle();
    const hex = (ipa: number): string => this.#guest.load32(ipa).toString(16).padStart(8, '0');
    this.#step('OK', `testdev result=${resultText(result)} D0=${hex(GUEST.D0)} D1=${hex(GUEST.D1)}`);
  }

  /** Faults that are not steps of their own. */
  #raise(...iovas: readonly bigint[]): void {
    for (const iova of iovas) this.#a.dma(iova, 0n);
    this.#rig.settle();
  }

  #poll(): void {
    const events = this.#rig.poll(this.#eventFd);
    this.#step('OK', `revents=${events === 0 ? '0' : `0x${events.toString(16)}`}`);
  }

  /** A step that reads the vEVENTQ; counts below 8 and failures say -1 as the C library does. */
  #read(count: number): void {
    const into = new Uint8Array(count);
    const got = this.#rig.kernel.read(this.#eventFd, into);
    if (got < 0) this.#step(errnoName(got), 'returned -1');
    else this.#step('OK', `returned ${got}`, veventLines(into.subarray(0, got)));
  }

  #bind(): void {
    const { kernel, devices } = this.#rig;
    this.#iommufd = kernel.open('/dev/iommu');
    this.#step(this.#iommufd < 0 ? errnoName(this.#iommufd) : 'OK');
    const [a, b] = devices.slice(0, 2).map(({ path, address }) => {
      const device = new TestDevice(kernel, kernel.open(path));
      const { result, out } = this.#client.ioctl(device.fd, vfio.VFIO_DEVICE_BIND_IOMMUFD, {
        iommufd: this.#iommufd,
      });
      this.#step(result, `${address} ${path} devid=${out.out_devid}`);
      device.enable();
      return { device, id: out.out_devid };
    });
    [this.#a, this.#devA, this.#b, this.#devB] = [a.device, a.id, b.device, b.id];
    const info = new Uint8Array(iommu_hw_info_arm_smmuv3.size);
    this.#client.withBytes(info, (data_uptr) =>
      this.#try(
        uapi.IOMMU_GET_HW_INFO,
        { dev_id: this.#devA, data_len: info.length, data_uptr },
        ({ out_data_type: type, data_len, out_capabilities: caps, out_max_pasid_log2: pasid }) => {
          const { flags, idr, iidr, aidr } = iommu_hw_info_arm_smmuv3.decode(info);
          const hex = (value: number): string => value.toString(16).padStart(8, '0');
          return (
            `type=${type} data_len=${data_len} caps=${caps.toString(16)} pasid=${pasid} flags=${flags} ` +
            `idr0-5=${idr.map(hex).join(' ')} iidr=${hex(iidr)} aidr=${hex(aidr)}`
          );
        },
      ),
    );
    this.#ioas = this.#try(uapi.IOMMU_IOAS_ALLOC, {}, (out) => `id=${out.out_ioas_id}`).out_ioas_id;
    this.#try(uapi.IOMMU_IOAS_MAP, {
      flags: 7,
      ioas_id: this.#ioas,
      user_va: this.#memory.address,
      length: BigInt(MEASURED_RAM),
      iova: BigInt(RAM_BASE),
    });
  }

  #parents(): void {
    const alloc = (flags: number): number =>
      this.#try(
        uapi.IOMMU_HWPT_ALLOC,
        { flags, dev_id: this.#devA, pt_id: this.#ioas },
        (out) => `id=${out.out_hwpt_id}`,
      ).out_hwpt_id;
    this.#parent = alloc(uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
    this.#client.withBytes(new Uint8Array(16 * 16), (allowed_iovas) =>
      this.#try(
        uapi.IOMMU_IOAS_IOVA_RANGES,
        { ioas_id: this.#ioas, num_iovas: 16, allowed_iovas },
        (out) => `n=${out.num_iovas} align=${out.out_iova_alignment.toString(16)}`,
      ),
    );
    this.#plain = alloc(0);
    alloc(uapi.IOMMU_HWPT_ALLOC_NEST_PARENT | uapi.IOMMU_HWPT_FAULT_ID_VALID);
    alloc(uapi.IOMMU_HWPT_ALLOC_NEST_PARENT | uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
    alloc(0x8000_0000);
  }

  #viommus(): void {
    const ioctl = uapi.IOMMU_VIOMMU_ALLOC;
    const good = { type: uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3, dev_id: this.#devA, hwpt_id: this.#parent };
    const alloc = (values: Partial<Values<typeof ioctl.members>>, show = false): number =>
      this.#try(ioctl, { ...good, ...values }, (out) => (show ? `id=${out.out_viommu_id}` : ''))
        .out_viommu_id;
    for (const type of [0, 99, 2]) alloc({ type });
    alloc({ flags: 1 });
    alloc({ dev_id: 0xdead });
    alloc({ hwpt_id: 0xdead });
    alloc({ hwpt_id: this.#ioas });
    alloc({ hwpt_id: this.#plain });
    this.#destroy(alloc({ __reserved: 1 }));
    this.#client.withBytes(new Uint8Array(8), (data_uptr) =>
      this.#destroy(alloc({ data_len: 8, data_uptr })),
    );
    const longer = ioctl.encode(good, ioctl.size + 8);
    longer[ioctl.size] = 1;
    this.#step(this.#client.raw(this.#iommufd, ioctl, longer).result);
    const zeroTail = this.#call(ioctl, good, ioctl.size + 8);
    this.#step(zeroTail.result);
    this.#destroy(zeroTail.out.out_viommu_id);
    // Expected to fail when the program was written, so its object stays.
    this.#step(this.#call(ioctl, good, 24).result);
    this.#viommu = alloc({}, true);
    this.#tryDestroy(alloc({}, true));
  }

  #nested(
    words: readonly bigint[],
    values: Partial<Values<typeof uapi.IOMMU_HWPT_ALLOC.members>> = {},
  ): { result: string; id: number } {
    const { result, out } = this.#client.withBytes(words64(...words), (data_uptr) =>
      this.#call(uapi.IOMMU_HWPT_ALLOC, {
        dev_id: this.#devA,
        pt_id: this.#viommu,
        data_type: uapi.IOMMU_HWPT_DATA_ARM_SMMUV3,
        data_len: words.length * 8,
        data_uptr,
        ...values,
      }),
    );
    return { result, id: out.out_hwpt_id };
  }

  #nestedValidation(): void {
    const keep = (words: readonly bigint[]): number => {
      const { result, id } = this.#nested(words);
      this.#step(result, result === 'OK' ? `id=${id}` : '');
      return id;
    };
    const check = (
      words: readonly bigint[],
      values?: Partial<Values<typeof uapi.IOMMU_HWPT_ALLOC.members>>,
    ): void => {
      const { result, id } = this.#nested(words, values);
      this.#step(result);
      if (result === 'OK') this.#destroy(id);
    };
    const [s10, s11] = STE.S1;
    this.#s1 = keep(STE.S1);
    this.#abort = keep(STE.Abort);
    this.#bypass = keep(STE.Bypass);
    this.#invalid = keep([0xffff_ffff_ffff_fffen, 0xffff_ffff_ffff_ffffn]);
    for (const config of [7n, 6n, 1n]) check([(s10 & ~0xen) | (config << 1n), s11]);
    check([s10 | (1n << 52n), s11]);
    for (const bit of [44n, 30n, 19n]) check([s10, s11 | (1n << bit)]);
    for (const eats of [1n, 2n]) check([s10, s11 | (eats << 28n)]);
    check([s10, s11 | (1n << 27n)]);
    check([s10 | (5n << 59n), s11]);
    check(STE.S1, { pt_id: this.#parent });
    check(STE.S1, { pt_id: this.#plain });
    check(STE.S1, { pt_id: 0xdead });
    check([s10]);
    check([s10, s11, 0n, 0n]);
    check([s10, s11, 0n, 1n]);
    check(STE.S1, { data_type: uapi.IOMMU_HWPT_DATA_VTD_S1 });
    check(STE.S1, { data_type: uapi.IOMMU_HWPT_DATA_NONE, data_len: 0, data_uptr: 0n });
    check(STE.S1, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
    check(STE.S1, { flags: uapi.IOMMU_HWPT_ALLOC_PASID });
    check(STE.S1, { data_uptr: BAD_POINTER });
  }

  #attachWithoutVdevice(): void {
    this.#tryAttach(this.#bypass);
    this.#dma(BigInt(GUEST.D0));
    this.#tryAttach(this.#abort);
    this.#dma(BigInt(GUEST.D0));
    this.#tryAttach(this.#s1);
    this.#tryAttach(this.#invalid);
  }

  #vdevices(): void {
    const alloc = (values: Partial<Values<typeof uapi.IOMMU_VDEVICE_ALLOC.members>>): number =>
      this.#try(
        uapi.IOMMU_VDEVICE_ALLOC,
        { viommu_id: this.#viommu, dev_id: this.#devA, virt_id: VSID, ...values },
        (out) => `id=${out.out_vdevice_id}`,
      ).out_vdevice_id;
    alloc({ viommu_id: 0xdead });
    alloc({ dev_id: 0xdead });
    this.#tryDestroy(alloc({ virt_id: 0x1234_5678_9abcn }));
    this.#vdevA = alloc({});
    alloc({ virt_id: 0x5678n });
    alloc({ dev_id: this.#devB });
    this.#vdevB = alloc({ dev_id: this.#devB, virt_id: SID_A });
  }

  #veventqs(): void {
    const good = { viommu_id: this.#viommu, type: uapi.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3, veventq_depth: 3 };
    const alloc = (
      values: Partial<Values<typeof uapi.IOMMU_VEVENTQ_ALLOC.members>>,
      more: (fd: Fd) => string = () => '',
    ): { id: number; fd: Fd } => {
      const out = this.#try(
        uapi.IOMMU_VEVENTQ_ALLOC,
        { ...good, ...values },
        ({ out_veventq_id: id, out_veventq_fd: fd }) =>
          // The measuring program had /dev/iommu as its first file, 3.
          `id=${id} fd=${fd - this.#iommufd + 3}${more(fd)}`,
      );
      return { id: out.out_veventq_id, fd: out.out_veventq_fd };
    };
    alloc({ type: 0 });
    alloc({ veventq_depth: 0 });
    alloc({ veventq_depth: 2 ** 19 + 1 });
    alloc({ flags: 1 });
    alloc({ viommu_id: 0xdead });
    alloc({ viommu_id: this.#s1 });
    const tegra = alloc({ type: 2 });
    this.#tryDestroy(tegra.id);
    this.#rig.kernel.close(tegra.fd);
    this.#tryDestroy(tegra.id);
    for (const values of [{ type: 99 }, { veventq_depth: 2 ** 19 }]) {
      const { id, fd } = alloc(values);
      this.#rig.kernel.close(fd);
      this.#destroy(id);
    }
    const queue = alloc({}, (fd) => {
      const { closeOnExec, status } = this.#rig.flags(fd);
      return ` cloexec=${closeOnExec ? 1 : 0} flags=0x${status.toString(16)}`;
    });
    [this.#veventq, this.#eventFd] = [queue.id, queue.fd];
    alloc({});
  }

  #emptyQueue(): void {
    const { kernel } = this.#rig;
    const failed = (errno: number): void => this.#step(errnoName(errno), 'ret -1');
    this.#poll();
    for (const count of [4096, 4, 0]) this.#readPlain(count);
    failed(this.#rig.kernel.write(this.#eventFd, new Uint8Array(8)));
    failed(kernel.pread(this.#eventFd, new Uint8Array(40), 0));
    failed(this.#rig.lseek(this.#eventFd));
    this.#step(errnoName(kernel.ioctl(this.#eventFd, uapi.IOMMU_DESTROY.request, new Uint8Array(8))));
    this.#tryAttach(this.#s1);
    this.#dma(0x1000_0000n);
    this.#dma(0x1000_6000n, { page: GUEST.D1 });
    this.#poll();
  }

  /** A read that is expected to bring no record. */
  #readPlain(count: number): void {
    this.#read(count);
  }

  #faults(): void {
    this.#dma(0x1000_1008n);
    // How long the interrupt took is no part of the contract.
    this.#step(this.#rig.poll(this.#eventFd) === 1 ? 'OK' : 'EAGAIN', '(time)');
    this.#poll();
    for (const count of [4, 8, 39, 40, 40]) this.#read(count);
    for (const iova of [
      0x1000_2000n,
      0x1000_3000n,
      0x1000_5000n,
      0x100_0000_0000n,
      0x5000_0000n,
      0x1000_4000n,
    ]) {
      this.#dma(iova);
      this.#read(4096);
    }
  }

  #overflow(): void {
    const pages = (first: bigint, count: number): bigint[] =>
      Array.from({ length: count }, (_, i) => first + BigInt(i) * 0x1000n);
    this.#raise(...pages(0x1010_0000n, 5));
    this.#poll();
    this.#read(4096);
    this.#raise(0x1011_0000n);
    this.#read(4096);
    this.#raise(...pages(0x1012_0000n, 5));
    this.#read(40);
    this.#raise(0x1013_0000n);
    this.#read(4096);
    this.#raise(...pages(0x1014_0000n, 4));
    this.#read(120);
    this.#poll();
    this.#read(7);
    this.#read(8);
    this.#poll();
    this.#raise(...pages(0x1015_0000n, 3));
    this.#read(100);
    this.#read(4096);
    this.#raise(...pages(0x1016_0000n, 4));
    const got = this.#client.withBytes(new Uint8Array(60), (address) =>
      this.#rig.readTo(this.#eventFd, address, 4096),
    );
    this.#step(got < 0 ? errnoName(got) : 'OK', `ret ${got}`);
    this.#read(4096);
  }

  #invalidate(commands: readonly (readonly [bigint, bigint])[], show = true): void {
    const values = { entry_len: 16, entry_num: commands.length };
    this.#invalidateBytes(bytesOf(commands.flat()), values, show ? commands[0] : undefined);
  }

  #invalidateBytes(
    bytes: Uint8Array,
    values: Partial<Values<typeof uapi.IOMMU_HWPT_INVALIDATE.members>>,
    shown?: readonly [bigint, bigint],
  ): void {
    const { result, out } = this.#client.withBytes(bytes, (data_uptr) =>
      this.#call(uapi.IOMMU_HWPT_INVALIDATE, {
        hwpt_id: this.#viommu,
        data_uptr,
        data_type: uapi.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
        entry_len: 16,
        entry_num: 1,
        ...values,
      }),
    );
    const hex = (word: bigint): string => word.toString(16).padStart(16, '0');
    const command = shown === undefined ? '' : `  cmd=${hex(shown[0])} ${hex(shown[1])}`;
    this.#step(result, `entry_num out=${out.entry_num}${command}`);
  }

  #badCd(): void {
    const cfgiCd = [(VSID << 32n) | 0x05n, 1n] as const;
    const cfgiCdAll = [(VSID << 32n) | 0x06n, 0n] as const;
    this.#guest.setCdValid(false);
    this.#dma(0x1000_0000n);
    this.#invalidate([cfgiCd]);
    this.#dma(0x1000_0000n);
    this.#read(4096);
    this.#guest.setCdValid(true);
    this.#invalidate([cfgiCdAll]);
    this.#dma(0x1000_0000n);
  }

  #invalidationEffect(): void {
    const tlbi = [(5n << 48n) | 0x12n, 0x1000_0001n] as const;
    this.#guest.map(0x1000_0000, BigInt(GUEST.D1));
    this.#dma(0x1000_0000n, { page: GUEST.D1 });
    this.#invalidate([tlbi]);
    this.#dma(0x1000_0000n, { page: GUEST.D1 });
    this.#guest.map(0x1000_0000, BigInt(GUEST.D0));
    this.#dma(0x1000_0000n);
    this.#invalidate([tlbi, [(VSID << 32n) | 0x03n, 1n], [0x30n, 0n]], false);
    this.#dma(0x1000_0000n);
    this.#invalidate([tlbi], false);
    this.#dma(0x1000_0000n);
  }

  #invalidationCommands(): void {
    const sid = VSID << 32n;
    const asid = 5n << 48n;
    const va = 0x1000_0000n;
    const commands: readonly (readonly [bigint, bigint])[] = [
      [0x30n, 0n],
      [0x10n, 0n],
      [(0xbeefn << 32n) | 0x10n, 0n],
      [asid | 0x11n, 0n],
      [asid | 0x12n, va],
      [0x13n, va | 1n],
      [asid | (3n << 12n) | 0x12n, va | (1n << 10n) | 1n],
      [asid | 0x12n, va | (1n << 10n) | 1n],
      [asid | (3n << 12n) | 0x12n, va | 1n],
      [asid | 0x12n, va | (1n << 10n) | (3n << 8n) | 1n],
      [sid | 0x05n, 1n],
      [(0x9999n << 32n) | 0x05n, 1n],
      [(SID_A << 32n) | 0x05n, 1n],
      [sid | 0x06n, 0n],
      [sid | (1n << 12n) | 0x05n, 1n],
      [sid | 0x03n, 1n],
      [sid | 0x04n, 31n],
      [0x46n, 0n],
      [sid | 0x44n, 0n],
      [sid | 0x01n, 0n],
      [0x20n, 0n],
      [0x28n, 0n],
      [0x2an, 0n],
      [sid | 0x40n, 52n],
      [0xffn, 0n],
      [0x30n, 1n],
      [(1n << 48n) | 0x10n, 0n],
      [(1n << 10n) | 0x12n, va],
    ];
    for (const command of commands) this.#invalidate([command]);
    this.#invalidationArguments();
    this.#invalidationArrays();
  }

  #invalidationArguments(): void {
    const one = words64(0x30n, 0n);
    const long = (last: bigint): Uint8Array => words64(0x30n, 0n, 0n, last);
    this.#invalidateBytes(one, { entry_num: 0 });
    this.#invalidateBytes(one, { entry_num: 0, data_uptr: 0n });
    this.#invalidateBytes(one, { entry_num: 0, data_type: 7 });
    this.#invalidateBytes(one, { data_type: 0 });
    this.#invalidateBytes(one, { data_uptr: 0n });
    this.#invalidateBytes(one, { data_uptr: BAD_POINTER });
    this.#invalidateBytes(one, { entry_len: 0 });
    this.#invalidateBytes(one, { entry_len: 8 });
    this.#invalidateBytes(long(0n), { entry_len: 32 });
    this.#invalidateBytes(long(1n), { entry_len: 32 });
    this.#invalidateBytes(one, { entry_len: 8192 });
    this.#invalidateBytes(one, { entry_num: 2 ** 19 + 1 });
  }

  #invalidationArrays(): void {
    const tlbi = [(5n << 48n) | 0x12n, 0x1000_0000n] as const;
    const illegal = [(VSID << 32n) | 0x03n, 1n] as const;
    const many = (count: number): (readonly [bigint, bigint])[] => Array.from({ length: count }, () => tlbi);
    for (const count of [1, 2, 62, 63, 64, 65, 200, 1000, 65_536]) this.#invalidate(many(count), false);
    for (const at of [0, 1, 62, 63, 64, 100, 199]) this.#invalidate(many(200).with(at, illegal), false);
    const one = words64(0x30n, 0n);
    for (const hwpt_id of [this.#s1, this.#parent, 0xdead]) this.#invalidateBytes(one, { hwpt_id });
    this.#invalidateBytes(one, { __reserved: 1 });
  }

  #transitions(): void {
    const s1 = 0x1000_0000n;
    this.#dma(s1);
    for (const id of [this.#abort, this.#invalid]) {
      this.#tryAttach(id);
      this.#dma(s1);
      this.#read(4096);
    }
    for (const id of [this.#bypass, this.#parent]) {
      this.#tryAttach(id);
      this.#dma(BigInt(GUEST.D0));
      this.#dma(IPA_HOLE);
      this.#read(4096);
    }
    this.#tryAttach(this.#s1);
    this.#dma(s1);
    this.#tryAttach(this.#s1, this.#b);
    this.#dma(s1, { device: this.#b });
    this.#dma(0x1000_1000n, { device: this.#b });
    this.#read(4096);
    this.#try(uapi.IOMMU_IOAS_UNMAP, { ioas_id: this.#ioas, iova: 0x4080_0000n, length: 0x1000n });
  }

  #destroyOrder(): void {
    for (const id of [this.#viommu, this.#parent, this.#ioas, this.#s1, this.#devA, this.#veventq])
      this.#tryDestroy(id);
    this.#tryDetach(this.#b);
    this.#tryDestroy(this.#vdevB);
    this.#tryDestroy(this.#vdevA);
    this.#dma(0x1000_0000n);
    this.#faultAndRead();
    this.#invalidate([[(VSID << 32n) | 0x05n, 1n]]);
    this.#vdevA = this.#try(
      uapi.IOMMU_VDEVICE_ALLOC,
      { viommu_id: this.#viommu, dev_id: this.#devA, virt_id: 0x4321n },
      (out) => `id=${out.out_vdevice_id}`,
    ).out_vdevice_id;
    this.#faultAndRead();
    this.#tryAttach(this.#s1);
    this.#faultAndRead();
    const first = this.#attach(this.#a, this.#bypass);
    this.#step(first === 'OK' ? this.#attach(this.#a, this.#s1) : first);
    this.#faultAndRead();
    // One more, to be read after the detach.
    this.#raise(0x1000_1000n);
    for (const id of [this.#abort, this.#bypass, this.#invalid]) this.#tryDestroy(id);
    this.#tryDetach(this.#a);
    this.#tryDetach(this.#a);
    this.#dma(0x1000_0000n);
    this.#read(40);
    this.#tryDestroy(this.#s1);
    this.#tryDestroy(this.#viommu);
    this.#tryDestroy(this.#vdevA);
    this.#tryDestroy(this.#vdevA);
    this.#tryDestroy(this.#viommu);
    this.#rig.kernel.close(this.#eventFd);
    this.#tryDestroy(this.#viommu);
    this.#allocQueue();
    this.#tryDestroy(this.#veventq);
    this.#allocQueue();
  }

  #faultAndRead(): void {
    this.#dma(0x1000_1000n);
    this.#read(4096);
  }

  #allocQueue(): void {
    const out = this.#try(
      uapi.IOMMU_VEVENTQ_ALLOC,
      { viommu_id: this.#viommu, type: 1, veventq_depth: 3 },
      ({ out_veventq_id }) => `id=${out_veventq_id}`,
    );
    this.#eventFd = out.out_veventq_fd;
  }

  #teardown(): void {
    const { kernel } = this.#rig;
    const vdevice = this.#try(
      uapi.IOMMU_VDEVICE_ALLOC,
      { viommu_id: this.#viommu, dev_id: this.#devA, virt_id: VSID },
      (out) => `id=${out.out_vdevice_id}`,
    ).out_vdevice_id;
    this.#step(errnoName(kernel.close(this.#a.fd)));
    this.#tryDestroy(vdevice);
    this.#tryDestroy(this.#viommu);
    this.#step(errnoName(kernel.close(this.#iommufd)));
    this.#poll();
    this.#read(4096);
  }
}

/** Records of a vEVENTQ in the measuring program's words. */
function veventLines(bytes: Uint8Array): readonly string[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const lines: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const flags = view.getUint32(at, true);
    const sequence = view.getUint32(at + 4, true);
    at += 8;
    if (flags === 1) {
      lines.push(`vevent hdr flags=0x1 seq=${sequence} (LOST_EVENTS, no data)`);
      continue;
    }
    const words = [0, 8, 16, 24].map((offset) => view.getBigUint64(at + offset, true));
    at += 32;
    const hex = (value: bigint): string => (value === 0n ? '0' : `0x${value.toString(16)}`);
    lines.push(
      `vevent hdr flags=${flags} seq=${sequence} ` +
        `evt=${words.map((word) => word.toString(16).padStart(16, '0')).join(' ')} ` +
        `[type=${(words[0] & 0xffn).toString(16).padStart(2, '0')} sid=${hex(words[0] >> 32n)} ` +
        `ssv=${(words[0] >> 11n) & 1n} stag/stall dw1=${hex(words[1])} rnw=${(words[1] >> 35n) & 1n} ` +
        `s2=${(words[1] >> 39n) & 1n} class=${(words[1] >> 40n) & 3n} addr=${hex(words[2])} ipa=${hex(words[3])}]`,
    );
  }
  return lines.length > 0 ? lines : undefined;
}
