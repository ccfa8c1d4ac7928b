import { describe, expect, it } from 'vitest';
import { DATA } from './nvme-driver.ts';
import { driverFor, ready } from './ready-controller.ts';

describe('identification', () => {
  it('is an NVMe function with a 64-bit BAR, INTA, MSI and PCI Express', () => {
    const driver = driverFor({ vectors: 4 });
    expect(driver.config(0x08, 4) >>> 8).toBe(0x01_0802);
    driver.writeConfig(0x10, 4, 0xffff_ffff);
    driver.writeConfig(0x14, 4, 0xffff_ffff);
    expect(driver.config(0x10, 4)).toBe(0xffff_c004);
    expect(driver.config(0x14, 4)).toBe(0xffff_ffff);
    expect(driver.config(0x3d, 1)).toBe(1);
    driver.writeConfig(0x30, 4, 0xffff_ffff);
    expect(driver.config(0x30, 4)).toBe(0);
    expect(driver.config(driver.capability(0x05) + 2, 2)).toBe(0x0084);
    expect(driver.config(driver.capability(0x10) + 2, 2) & 0xff).toBe(0x02);
    expect(driver.capability(0x11)).toBe(0);
    expect(driver.device.irqCounts).toEqual([1, 4, 0, 1, 1]);
    expect(driver.device.regionSizes[7]).toBe(4096);
  });

  it('says 1.4, 1024 entries, contiguous queues, the NVM command set and pages up to 64 KiB', () => {
    const driver = driverFor();
    expect(driver.read32(0x00)).toBe(0x1401_03ff);
    expect(driver.read32(0x04)).toBe(0x0040_0020);
    expect(driver.read32(0x08)).toBe(0x0001_0400);
    const byte = new Uint8Array(1);
    driver.device.regionRead(0, 0x0a, byte);
    expect(byte[0]).toBe(1);
  });

  it('has a serial number, a model, and a SUBNQN that two devices do not share', () => {
    const names = ['ONE', 'TWO'].map((serial) => {
      const driver = driverFor({ serial });
      driver.enablePci();
      driver.enable();
      expect(driver.submit(0, { opcode: 6, cdw10: 1, prp1: driver.bus.iova(DATA) }).status).toBe(0);
      const text = (at: number, size: number): string =>
        String.fromCharCode(...driver.bus.bytes.subarray(DATA + at, DATA + at + size));
      expect(text(4, 20)).toBe(serial.padEnd(20));
      expect(text(24, 40)).toBe('vsmmu NVMe'.padEnd(40));
      expect(driver.bus.bytes[DATA + 77]).toBe(7);
      expect(driver.bus.view.getUint32(DATA + 516, true)).toBe(1);
      return text(768, 256).replace(/\0+$/, '');
    });
    for (const name of names)
      expect(name).toMatch(/^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    expect(names[0]).not.toBe(names[1]);
  });

  it.each([
    [512, 9, 8192],
    [4096, 12, 1024],
  ] as const)('has one namespace of 4 MiB in blocks of %i bytes', (blockSize, lbads, nsze) => {
    const driver = driverFor({ blockSize });
    driver.enablePci();
    driver.enable();
    const prp1 = driver.bus.iova(DATA);
    driver.submit(0, { opcode: 6, cdw10: 0, nsid: 1, prp1 });
    expect(driver.bus.view.getBigUint64(DATA, true)).toBe(BigInt(nsze));
    expect(driver.bus.bytes[DATA + 130]).toBe(lbads);
    driver.submit(0, { opcode: 6, cdw10: 2, nsid: 0, prp1 });
    expect([...driver.bus.bytes.subarray(DATA, DATA + 8)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
    driver.submit(0, { opcode: 6, cdw10: 2, nsid: 1, prp1 });
    expect(driver.bus.bytes[DATA]).toBe(0);
    driver.submit(0, { opcode: 6, cdw10: 3, nsid: 1, prp1 });
    expect([...driver.bus.bytes.subarray(DATA, DATA + 4)]).toEqual([2, 16, 0, 0]);
    expect([...driver.bus.bytes.subarray(DATA + 20, DATA + 24)]).toEqual([3, 16, 0, 0]);
  });

  it.each([
    ['no serial number', { serial: '' }],
    ['a serial number of 21 characters', { serial: 'x'.repeat(21) }],
    ['a storage of half a block', { storage: 256 }],
    ['no I/O queue', { ioQueues: 0 }],
    ['three vectors', { vectors: 3 }],
    ['transfers of 2 KiB', { maxTransfer: 2048 }],
  ])('cannot have %s', (_, options) => {
    expect(() => driverFor(options)).toThrow(RangeError);
  });
});

describe('features and logs', () => {
  it('says how many queues there may be, whatever is asked', () => {
    const driver = driverFor({ ioQueues: 4 });
    driver.enablePci();
    driver.enable();
    expect(driver.submit(0, { opcode: 9, cdw10: 7, cdw11: 0x0000_0000 }).result).toBe(0x0003_0003);
    expect(driver.submit(0, { opcode: 0x0a, cdw10: 7 }).result).toBe(0x0003_0003);
  });

  it('keeps a feature until the controller is reset', () => {
    const driver = ready();
    expect(driver.submit(0, { opcode: 0x0a, cdw10: 6 }).result).toBe(1);
    driver.submit(0, { opcode: 9, cdw10: 6, cdw11: 0 });
    driver.submit(0, { opcode: 9, cdw10: 4, cdw11: 400 });
    driver.submit(0, { opcode: 9, cdw10: 9, cdw11: 1 << 16 });
    expect(driver.submit(0, { opcode: 0x0a, cdw10: 6 }).result).toBe(0);
    expect(driver.submit(0, { opcode: 0x0a, cdw10: 4 }).result).toBe(400);
    expect(driver.submit(0, { opcode: 0x0a, cdw10: 9 }).result).toBe(1 << 16);
    driver.write32(0x14, 0);
    driver.enable();
    expect(driver.submit(0, { opcode: 0x0a, cdw10: 6 }).result).toBe(1);
    expect(driver.submit(0, { opcode: 0x0a, cdw10: 4 }).result).toBe(343);
    expect(driver.submit(0, { opcode: 0x0a, cdw10: 9 }).result).toBe(0);
  });

  it('counts commands and errors in the SMART log, and gives part of it', () => {
    const driver = ready();
    driver.transfer(true, 0, DATA, 4096);
    driver.transfer(false, 0, DATA, 4096);
    driver.transfer(false, 0, DATA, 4096);
    driver.submit(1, { opcode: 0x7f, nsid: 1 });
    const page = { opcode: 2, nsid: 0xffff_ffff, prp1: driver.bus.iova(DATA) };
    expect(driver.submit(0, { ...page, cdw10: 2 | (127 << 16) }).status).toBe(0);
    expect(driver.bus.view.getUint16(DATA + 1, true)).toBe(300);
    expect([64, 80, 176].map((at) => driver.bus.view.getUint32(DATA + at, true))).toEqual([2, 1, 1]);
    driver.bus.bytes.fill(0xaa, DATA, DATA + 64);
    expect(driver.submit(0, { ...page, cdw10: 2 | (15 << 16), cdw12: 504 }).status).toBe(0);
    expect([...driver.bus.bytes.subarray(DATA + 6, DATA + 10)]).toEqual([0, 0, 0xaa, 0xaa]);
  });

  it('names the firmware in slot 1 and no changed namespace', () => {
    const driver = ready();
    const prp1 = driver.bus.iova(DATA);
    driver.submit(0, { opcode: 2, cdw10: 3 | (127 << 16), prp1 });
    expect(String.fromCharCode(...driver.bus.bytes.subarray(DATA + 8, DATA + 16))).toBe('1.0     ');
    expect(driver.submit(0, { opcode: 2, cdw10: 4 | (1023 << 16), prp1 }).status).toBe(0);
    expect(driver.bus.bytes[DATA]).toBe(0);
  });

  it('aborts a held event request, and says when there was nothing to abort', () => {
    const driver = ready();
    const cid = driver.put(0, { opcode: 0x0c });
    driver.ring(0);
    driver.put(0, { opcode: 8, cdw10: (cid << 16) >>> 0 });
    driver.ring(0);
    const done = driver.take(0);
    expect(done.find((completion) => completion.cid === cid)?.status).toBe(0x07);
    expect(done.find((completion) => completion.cid !== cid)).toMatchObject({ status: 0, result: 0 });
    expect(driver.submit(0, { opcode: 8, cdw10: (cid << 16) >>> 0 })).toMatchObject({ status: 0, result: 1 });
  });
});
