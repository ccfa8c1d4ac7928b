import { describe, expect, it } from 'vitest';
import { HostError } from '../../src/iommufd/errors.ts';
import { getHostInfo } from '../../src/iommufd/host-info.ts';
import { Hwpt } from '../../src/iommufd/hwpt.ts';
import { Ioas } from '../../src/iommufd/ioas.ts';
import { Iommufd } from '../../src/iommufd/iommufd.ts';
import type { Kernel, UserMemory } from '../../src/iommufd/kernel.ts';
import { Vdevice } from '../../src/iommufd/vdevice.ts';
import { Veventq } from '../../src/iommufd/veventq.ts';
import { VfioDevice } from '../../src/iommufd/vfio-device.ts';
import { Viommu } from '../../src/iommufd/viommu.ts';

/** Notes every ioctl as little-endian 32-bit words, and answers from a script of errnos and outputs. */
class Recorder implements Kernel {
  readonly ioctls: { fd: number; request: string; words: string[] }[] = [];
  readonly closed: number[] = [];
  errno = 0;
  /** Word index -> value that the next ioctl writes back. */
  outputs: Record<number, number> = {};
  #fds = 3;
  #addresses = 0x7f00_0000_1000n;

  open(path: string): number {
    return path === '/missing' ? -2 : this.#fds++;
  }
  close(fd: number): number {
    this.closed.push(fd);
    return 0;
  }
  ioctl(fd: number, request: number, arg: Uint8Array): number {
    const view = new DataView(arg.buffer, arg.byteOffset, arg.byteLength);
    const words = Array.from({ length: arg.length / 4 }, (_, i) => view.getUint32(4 * i, true).toString(16));
    this.ioctls.push({ fd, request: request.toString(16), words });
    for (const [i, value] of Object.entries(this.outputs)) view.setUint32(4 * Number(i), value, true);
    return this.errno;
  }
  read(): number {
    return 0;
  }
  write(): number {
    return 0;
  }
  pread(): number {
    return 0;
  }
  pwrite(): number {
    return 0;
  }
  eventfd(): number {
    return this.#fds++;
  }
  onReadable(): { stop(): void } {
    return { stop() {} };
  }
  userMemory(bytes: Uint8Array): UserMemory {
    this.#addresses += 0x1_0000n;
    return { address: this.#addresses, bytes, release() {} };
  }
  get last(): string {
    const { fd, request, words } = this.ioctls.at(-1)!;
    return `${fd} ${request}: ${words.join(' ')}`;
  }
}

function setUp() {
  const kernel = new Recorder();
  return { kernel, iommufd: Iommufd.open(kernel) };
}

describe('arguments are byte for byte what include/uapi says', () => {
  it('IOAS', () => {
    const { kernel, iommufd } = setUp();
    kernel.outputs = { 2: 5 };
    const ioas = Ioas.alloc(iommufd);
    expect(kernel.last).toBe('3 3b81: c 0 0');
    expect(ioas.id).toBe(5);
    kernel.outputs = {};
    const memory = kernel.userMemory(new Uint8Array(0x3000));
    ioas.map(0x1_4000_0000n, memory);
    const address = Number(memory.address & 0xffff_ffffn).toString(16);
    expect(kernel.last).toBe(`3 3b85: 28 7 5 0 ${address} 7f00 3000 0 40000000 1`);
    ioas.map(0x4000_0000n, memory, false);
    expect(kernel.last).toBe(`3 3b85: 28 5 5 0 ${address} 7f00 3000 0 40000000 0`);
    ioas.unmap(0x4000_0000n, 0x3000n);
    expect(kernel.last).toBe('3 3b86: 18 5 40000000 0 3000 0');
    ioas.destroy();
    expect(kernel.last).toBe('3 3b80: 8 5');
  });
  it('HWPTs', () => {
    const { kernel, iommufd } = setUp();
    kernel.outputs = { 4: 6 };
    expect(Hwpt.allocNestParent(iommufd, 1, 5).id).toBe(6);
    expect(kernel.last).toBe('3 3b89: 30 1 1 5 0 0 0 0 0 0 0 0');
    Hwpt.allocNested(iommufd, 1, 7, [0x4000_000b, 0x1, 0x54, 0]);
    const pointer = Number(iommufd.scratch.address & 0xffff_ffffn).toString(16);
    expect(kernel.last).toBe(`3 3b89: 30 0 1 7 0 0 2 10 ${pointer} 7f00 0 0`);
    expect([...iommufd.scratch.bytes.subarray(0, 16)]).toEqual([
      0x0b, 0, 0, 0x40, 1, 0, 0, 0, 0x54, 0, 0, 0, 0, 0, 0, 0,
    ]);
  });
  it('vIOMMU, vDEVICE, vEVENTQ', () => {
    const { kernel, iommufd } = setUp();
    kernel.outputs = { 5: 7 };
    const viommu = Viommu.alloc(iommufd, 1, 6);
    expect(kernel.last).toBe('3 3b90: 28 0 1 1 6 0 0 0 0 0');
    kernel.outputs = { 3: 8 };
    const vdevice = Vdevice.alloc(iommufd, viommu.id, 1, 0xffff_ffff);
    expect(kernel.last).toBe('3 3b91: 18 7 1 0 ffffffff 0');
    expect(vdevice).toMatchObject({ id: 8, vsid: 0xffff_ffff });
    kernel.outputs = { 5: 9, 6: 12 };
    const veventq = Veventq.alloc(iommufd, viommu.id, 128);
    expect(kernel.last).toBe('3 3b93: 20 0 7 1 80 0 0 0');
    expect(veventq).toMatchObject({ id: 9, fd: 12, depth: 128 });
    kernel.outputs = {};
    veventq.destroy();
    expect(kernel.closed).toEqual([12]);
    expect(kernel.last).toBe('3 3b80: 8 9');
  });
  it('HWPT_INVALIDATE goes to the vIOMMU, and says where it stopped', () => {
    const { kernel, iommufd } = setUp();
    kernel.outputs = { 5: 7 };
    const viommu = Viommu.alloc(iommufd, 1, 6);
    kernel.outputs = {};
    expect(viommu.invalidate(3)).toBe(0);
    const words = kernel.ioctls.at(-1)!.words;
    expect(words).toEqual(['20', '7', words[2], '7f00', '1', '10', '3', '0']);
    kernel.errno = 5;
    kernel.outputs = { 6: 2 };
    expect(viommu.invalidate(3)).toBe(5);
    expect(viommu.failedAt).toBe(2);
    kernel.errno = 0;
    kernel.outputs = {};
    viommu.invalidate(4);
    expect(kernel.ioctls.at(-1)!.words[6]).toBe('4');
  });
  it('a VFIO device', () => {
    const { kernel, iommufd } = setUp();
    const device = VfioDevice.open(iommufd.caller, '/dev/vfio/devices/vfio0');
    expect(() => device.devid).toThrow('not bound');
    kernel.outputs = { 3: 1 };
    device.bind(iommufd);
    expect(kernel.last).toBe('4 3b76: 18 0 3 0 0 0');
    expect(device.devid).toBe(1);
    kernel.outputs = {};
    device.attach(6);
    expect(kernel.last).toBe('4 3b77: 10 0 6 0');
    device.detach();
    expect(kernel.last).toBe('4 3b78: c 0 0');
    device.setIrqs(2, 1, [20, -1]);
    expect(kernel.last).toBe('4 3b6e: 1c 24 2 1 2 14 ffffffff');
    device.setIrqs(2, 0, []);
    expect(kernel.last).toBe('4 3b6e: 14 21 2 0 0');
    device.reset();
    expect(kernel.last).toBe('4 3b6f: ');
    device.close();
    device.close();
    expect(kernel.closed).toEqual([4]);
  });
});

describe('what the host says of itself', () => {
  it('is decoded', () => {
    const { kernel, iommufd } = setUp();
    kernel.outputs = { 6: 2, 7: 5, 8: 8 };
    const { bytes } = iommufd.scratch;
    const view = new DataView(bytes.buffer);
    kernel.ioctl = ((ioctl) => (fd: number, request: number, arg: Uint8Array) => {
      const errno = ioctl(fd, request, arg);
      [1, 0, 0x0d44_101b, 0x0273_0010, 0, 0x1414, 0, 0x74, 0x43b, 1].forEach((word, i) =>
        view.setUint32(4 * i, word, true),
      );
      return errno;
    })(kernel.ioctl.bind(kernel));
    expect(getHostInfo(iommufd, 1)).toEqual({
      idr: [0x0d44_101b, 0x0273_0010, 0, 0x1414, 0, 0x74],
      IIDR: 0x43b,
      AIDR: 1,
      ats: false,
      maxPasidLog2: 5,
      repeatTlbiCfgi: true,
    });
  });
  it('an IOMMU that is not an SMMUv3 is refused with a reason', () => {
    const { kernel, iommufd } = setUp();
    kernel.outputs = { 6: 1 };
    expect(() => getHostInfo(iommufd, 1)).toThrow(/EOPNOTSUPP.*type 1, not an Arm SMMUv3/);
  });
});

describe('errors', () => {
  it('have a stable code, the operation, a sentence and a hint', () => {
    const { kernel, iommufd } = setUp();
    kernel.errno = 95;
    expect.assertions(2);
    try {
      Viommu.alloc(iommufd, 1, 6);
    } catch (error) {
      expect(error).toBeInstanceOf(HostError);
      expect(error).toMatchObject({
        code: 'EOPNOTSUPP',
        operation: 'IOMMU_VIOMMU_ALLOC',
        message:
          'IOMMU_VIOMMU_ALLOC failed (EOPNOTSUPP): the host SMMU does not offer nesting to this device.',
        hint: expect.stringMatching(/\.$/) as unknown,
      });
    }
  });
  it('without anything to add end there', () => {
    expect(HostError.of(4095, 'IOMMU_DESTROY').message).toBe('IOMMU_DESTROY failed (errno 4095).');
  });
  it('a file that is not there', () => {
    const { iommufd } = setUp();
    expect(() => VfioDevice.open(iommufd.caller, '/missing')).toThrow(
      'open failed (ENOENT): there is no such file',
    );
  });
});

describe('who watches', () => {
  it('sees every call with its arguments and what came back', () => {
    const { kernel, iommufd } = setUp();
    const calls: unknown[] = [];
    iommufd.caller.observer = (call) => calls.push(call);
    kernel.outputs = { 5: 7 };
    const viommu = Viommu.alloc(iommufd, 1, 6);
    kernel.outputs = {};
    kernel.errno = 16;
    expect(() => viommu.destroy()).toThrow('EBUSY');
    expect(calls).toEqual([
      {
        operation: 'IOMMU_VIOMMU_ALLOC',
        given: { type: 1, dev_id: 1, hwpt_id: 6 },
        returned: { out_viommu_id: 7 },
        errno: 0,
      },
      { operation: 'IOMMU_DESTROY', given: { id: 7 }, returned: {}, errno: 16 },
    ]);
  });
});
