import { describe, expect, it } from 'vitest';
import { type PassthroughPort, VfioPassthrough } from '../../src/qemu/vfio-passthrough.ts';
import { type DeviceLink } from '../../src/qemu/vfio-user/device.ts';
import { pack } from '../support/vfio-user.ts';

const MSI = 0x50;
const EXPRESS = 0x70;
const MSIX = 0xb0;

/** A device with a ROM, INTx, MSI (4 vectors, 64 bits), PCI Express, MSI-X, and BAR 0 of 16 KiB. */
class FakeVfio implements PassthroughPort {
  readonly config = new Uint8Array(0x1000);
  readonly bar = new Uint8Array(0x4000);
  readonly log: string[] = [];
  /** What a read or write of the device gives; a count is the default. */
  result: number | undefined;
  target: number | undefined = 0x0802_0040;

  constructor(control = 0x0084) {
    this.config.set(pack([2, 0x1234], [2, 0x4e56]), 0);
    this.config.set(pack([4, 4]), 0x10);
    this.config.set(pack([4, 0xf000_0001]), 0x30);
    this.config[0x34] = MSI;
    this.config[0x3d] = 1;
    this.config.set(pack([1, 0x05], [1, MSIX], [2, control]), MSI);
    this.config.set(pack([1, 0x11], [1, EXPRESS], [2, 7]), MSIX);
    this.config.set(pack([1, 0x10], [1, 0], [2, 2]), EXPRESS);
  }

  regionSize(region: number): number {
    return [0x4000, 0, 0, 0, 0, 0, 0x1_0000, 0x1000, 0x2_0000][region] ?? 0;
  }

  read(region: number, offset: number, into: Uint8Array): number {
    if (region !== 7 || into.length < 0x1000) this.log.push(`read ${region} ${offset} ${into.length}`);
    into.set((region === 7 ? this.config : this.bar).subarray(offset, offset + into.length));
    return this.result ?? into.length;
  }

  write(region: number, offset: number, from: Uint8Array): number {
    this.log.push(`write ${region} ${offset} ${from.length}`);
    (region === 7 ? this.config : this.bar).set(from, offset);
    return this.result ?? from.length;
  }

  msiChanged(vectors: number): void {
    this.log.push(`msi ${vectors}`);
  }

  translate(addressHi: number, addressLo: number): number | undefined {
    this.log.push(`translate ${addressHi.toString(16)} ${addressLo.toString(16)}`);
    return this.target;
  }

  reset(): void {
    this.log.push('reset');
  }

  connection(connected: boolean): void {
    this.log.push(`connected ${connected}`);
  }
}

function bench(port = new FakeVfio()): {
  port: FakeVfio;
  device: VfioPassthrough;
  writes: string[];
  read: (offset: number, size: number) => Uint8Array;
  write: (offset: number, size: number, value: number) => number;
  answer: (errno: number) => void;
} {
  const device = new VfioPassthrough('nic0', port);
  const writes: string[] = [];
  let done: ((errno: number) => void) | undefined;
  const link: DeviceLink = {
    dmaWrite: (address, data, then) => {
      writes.push(`${address.toString(16)}: ${[...data].join()}`);
      done = then;
      return 0;
    },
    dmaRead: () => 0,
    interrupt: () => false,
  };
  device.connected(link);
  port.log.length = 0;
  return {
    port,
    device,
    writes,
    read: (offset, size) => {
      const into = new Uint8Array(size);
      device.regionRead(7, offset, into);
      return into;
    },
    write: (offset, size, value) => device.regionWrite(7, offset, pack([size, value])),
    answer: (errno) => done?.(errno),
  };
}

/** The guest's driver turns MSIs on, as Linux does. */
function enableMsi({ write }: ReturnType<typeof bench>, log2Vectors = 0): void {
  write(MSI + 4, 4, 0xffff_f040);
  write(MSI + 8, 4, 0x12);
  write(MSI + 12, 2, 80);
  write(MSI + 2, 2, 1 | (log2Vectors << 4));
}

describe('a passed-through device', () => {
  it('shows the guest no ROM, no INTx and no MSI-X', () => {
    const { read, device } = bench();
    expect(read(0x30, 4)).toEqual(new Uint8Array(4));
    expect(read(0x3d, 1)[0]).toBe(0);
    expect([read(0x34, 1)[0], read(MSI + 1, 1)[0], read(EXPRESS + 1, 1)[0]]).toEqual([MSI, EXPRESS, 0]);
    expect(device.irqs.map(({ count }) => count)).toEqual([0, 4, 0, 0, 0]);
    expect(device.regions.map(({ size }) => size)).toEqual([0x4000, 0, 0, 0, 0, 0, 0, 0x1000, 0]);
  });

  it('shows the rest as it is, in accesses of any size', () => {
    const { read, port } = bench();
    expect(read(0, 4)).toEqual(pack([2, 0x1234], [2, 0x4e56]));
    const whole = read(0, 0x1000);
    expect(whole[0x3d]).toBe(0);
    expect(whole.subarray(MSI, MSI + 4)).toEqual(pack([1, 5], [1, EXPRESS], [2, 0x84]));
    expect(whole.subarray(EXPRESS, EXPRESS + 4)).toEqual(pack([1, 0x10], [1, 0], [2, 2]));
    port.config[EXPRESS + 8] = 0x55;
    expect(read(EXPRESS + 7, 3)).toEqual(Uint8Array.of(0, 0x55, 0));
  });

  it.each([
    ['that ends in itself', 0x40, pack([1, 0x09], [1, 0x40])],
    ['that leads into the header', 0x40, pack([1, 0x09], [1, 0x10])],
    ['whose MSI capability does not fit', 0xf8, pack([1, 0x05], [1, 0], [2, 0x0180])],
    ['of one that is missing', 0, new Uint8Array(1)],
  ])('survives a list of capabilities %s', (_, first, bytes) => {
    const port = new FakeVfio();
    port.config[0x34] = first;
    if (first !== 0) port.config.set(bytes, first);
    const { device, read } = bench(port);
    expect(device.irqs[1].count).toBe(0);
    read(0, 0x1000);
    device.interrupt(0);
  });

  it('gets every access to a BAR in sizes and at offsets that a CPU has', () => {
    const { device, port } = bench();
    port.bar.set([1, 2, 3, 4, 5, 6, 7, 8, 9], 3);
    const into = new Uint8Array(9);
    expect(device.regionRead(0, 3, into)).toBe(0);
    expect([...into]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    device.regionWrite(0, 0x1000, new Uint8Array(8));
    expect(port.log).toEqual(['read 0 3 1', 'read 0 4 4', 'read 0 8 4', 'write 0 4096 8']);
  });

  it('that refuses an access gives its errno, and EIO for half an access', () => {
    const { device, port, write } = bench();
    port.result = -5;
    expect(device.regionRead(0, 0, new Uint8Array(4))).toBe(5);
    expect(device.regionRead(7, 0, new Uint8Array(4))).toBe(5);
    expect(write(4, 2, 6)).toBe(5);
    port.result = 1;
    expect(device.regionWrite(0, 0, new Uint8Array(4))).toBe(5);
    expect(device.regionRead(7, 0, new Uint8Array(4))).toBe(5);
  });

  it('sees what is written to its configuration space, its MSIs too', () => {
    const { port, write } = bench();
    write(4, 2, 6);
    write(MSI + 2, 2, 1);
    expect([port.config[4], port.config[MSI + 2]]).toEqual([6, 1]);
  });

  it('leaves memory alone: that is the business of the host', () => {
    const { device, port } = bench();
    expect(device.dmaMap()).toBe(0);
    device.dmaUnmap();
    expect(port.log).toEqual([]);
  });
});

describe('an MSI of a passed-through device', () => {
  it('does not go out while they are off, nor for a vector that is not on', () => {
    const all = bench();
    all.device.interrupt(0);
    enableMsi(all, 1);
    all.device.interrupt(2);
    expect(all.writes).toEqual([]);
    expect(all.device.lostInterrupts).toBe(0);
  });

  it("is a write to the address that the guest's SMMU makes of the guest's", () => {
    const all = bench();
    enableMsi(all, 2);
    all.port.log.length = 0;
    all.device.interrupt(3);
    expect(all.port.log).toEqual(['translate 12 fffff040']);
    expect(all.writes).toEqual(['8020040: 83,0,0,0']);
  });

  it('that faults, or that QEMU refuses, is counted', () => {
    const all = bench();
    enableMsi(all);
    all.port.target = undefined;
    all.device.interrupt(0);
    expect([all.writes.length, all.device.lostInterrupts]).toEqual([0, 1]);
    all.port.target = 0x0802_0040;
    all.device.interrupt(0);
    all.answer(14);
    expect(all.device.lostInterrupts).toBe(2);
    all.device.disconnected();
    all.device.interrupt(0);
    expect(all.writes).toHaveLength(1);
  });

  it('tells the machine when they go on and off, and only then', () => {
    const all = bench();
    const changes = (): string[] => all.port.log.filter((line) => line.startsWith('msi'));
    enableMsi(all, 1);
    all.write(MSI + 12, 2, 81);
    all.write(4, 2, 6);
    expect(changes()).toEqual(['msi 2']);
    all.write(MSI + 2, 2, 0);
    all.write(MSI + 2, 2, 0x71);
    expect(changes()).toEqual(['msi 2', 'msi 0', 'msi 4']);
    all.device.reset();
    expect(all.port.log.slice(-2)).toEqual(['msi 0', 'reset']);
    enableMsi(all);
    all.device.disconnected();
    expect(all.port.log.slice(-2)).toEqual(['msi 0', 'connected false']);
  });

  it('that is masked waits until it is not', () => {
    const all = bench(new FakeVfio(0x0184));
    enableMsi(all, 2);
    all.write(MSI + 16, 4, 0b10);
    all.device.interrupt(1);
    all.device.interrupt(1);
    expect(all.writes).toEqual([]);
    expect(all.read(MSI + 20, 4)).toEqual(pack([4, 0b10]));
    all.write(MSI + 16, 4, 0);
    expect(all.writes).toEqual(['8020040: 81,0,0,0']);
    expect(all.read(MSI + 20, 4)).toEqual(pack([4, 0]));
  });

  it('reads back as the guest wrote it, and is gone after a reset', () => {
    const all = bench();
    enableMsi(all);
    expect(all.read(MSI + 4, 10)).toEqual(pack([4, 0xffff_f040], [4, 0x12], [2, 80]));
    all.device.reset();
    expect(all.read(MSI + 2, 12)).toEqual(pack([2, 0x84], [4, 0], [4, 0], [2, 0]));
  });
});
