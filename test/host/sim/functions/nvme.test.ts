import { describe, expect, it } from 'vitest';
import { NvmeFunction, type NvmeOptions } from '../../../../src/host/sim/functions/nvme.ts';
import { OUTCOME } from '../../../../src/smmu/transaction.ts';
import { DATA, Driver } from './nvme-driver.ts';

const MIB = 1 << 20;

/** A driver for a device of 4 MiB, whose leftover work is run only when a test says so. */
function driverFor(options: Partial<NvmeOptions> = {}): Driver {
  return new Driver(
    new NvmeFunction({ serial: 'TEST1', storage: 4 * MIB, defer: () => undefined, ...options }),
  );
}

/** Enabled, with I/O queue pair 1. */
function ready(options: Partial<NvmeOptions> = {}): Driver {
  const driver = driverFor(options);
  driver.enablePci();
  expect(driver.enable()).toBe(1);
  driver.createIo();
  return driver;
}

/** Reproducible pseudo-random 32-bit numbers (xorshift). */
function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function fillRandom(bytes: Uint8Array, seed: number): void {
  const random = randomFrom(seed);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random();
}

/** Byte by byte; `toEqual` takes seconds for what is large. */
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

const DATA_TRANSFER_ERROR = 0x04;
const INVALID_FIELD = 0x02;
const INVALID_PRP_OFFSET = 0x13;
const READ = { opcode: 2, nsid: 1 };

describe('a controller that cannot start', () => {
  it.each([
    ['an admin submission queue of one entry', (d: Driver) => d.write32(0x24, 31 << 16)],
    ['an admin completion queue of one entry', (d: Driver) => d.write32(0x24, 31)],
  ])('%s sets CFS and not RDY', (_, spoil) => {
    const driver = driverFor();
    driver.enablePci();
    driver.enable();
    driver.write32(0x14, 0x46_0000);
    spoil(driver);
    driver.write32(0x14, 0x46_0001);
    expect(driver.read32(0x1c)).toBe(2);
  });

  it.each([
    ['a page size above MPSMAX', 0x46_0000 | (5 << 7)],
    ['another command set', 0x46_0000 | (6 << 4)],
    ['another arbitration mechanism', 0x46_0000 | (1 << 11)],
  ])('%s sets CFS and not RDY', (_, cc) => {
    const driver = driverFor();
    driver.enablePci();
    driver.enable();
    driver.write32(0x14, 0);
    driver.write32(0x14, cc | 1);
    expect(driver.read32(0x1c)).toBe(2);
    driver.write32(0x14, 0);
    expect(driver.read32(0x1c)).toBe(0);
  });

  it('ignores accesses that are not aligned words or double words', () => {
    const driver = driverFor();
    for (const [offset, size] of [
      [0x24, 1],
      [0x24, 2],
      [0x26, 4],
      [0x25, 8],
    ])
      driver.device.regionWrite(0, offset, new Uint8Array(size).fill(0xff));
    expect(driver.read32(0x24)).toBe(0);
    expect(driver.read32(0x28)).toBe(0);
  });

  it('does not let AQA, ASQ and ACQ change while it is enabled', () => {
    const driver = ready();
    driver.write32(0x24, 0);
    driver.write64(0x28, 0n);
    expect(driver.read32(0x24)).toBe(0x001f_001f);
    expect(driver.read32(0x28)).toBe(driver.bus.base);
  });

  it('does no DMA and raises no interrupt without Bus Master Enable', () => {
    const driver = ready();
    driver.writeConfig(4, 2, 2);
    driver.bus.transfers = 0;
    driver.bus.interrupts.length = 0;
    driver.put(1, { ...READ, prp1: driver.bus.iova(DATA) });
    driver.ring(1);
    expect(driver.bus.transfers).toBe(0);
    expect(driver.bus.interrupts).toEqual([]);
    expect(driver.read32(0x1c)).toBe(3);
  });
});

describe('admin commands that are refused', () => {
  const cases: [string, Parameters<Driver['submit']>[1], number][] = [
    ['an unknown opcode', { opcode: 0x7f }, 0x01],
    ['Keep Alive', { opcode: 0x18 }, 0x01],
    ['Format NVM', { opcode: 0x80, nsid: 1 }, 0x01],
    ['a fused command', { opcode: 6, cdw10: 1, flags: 1 }, INVALID_FIELD],
    ['SGLs', { opcode: 6, cdw10: 1, flags: 0x40 }, INVALID_FIELD],
    ['Identify with an unknown CNS', { opcode: 6, cdw10: 6 }, INVALID_FIELD],
    ['Identify of namespace 2', { opcode: 6, cdw10: 0, nsid: 2 }, 0x0b],
    ['Identify of all namespaces', { opcode: 6, cdw10: 0, nsid: 0xffff_ffff }, 0x0b],
    ['descriptors of namespace 0', { opcode: 6, cdw10: 3, nsid: 0 }, 0x0b],
    ['a list of namespaces above FFFFFFFEh', { opcode: 6, cdw10: 2, nsid: 0xffff_fffe }, 0x0b],
    ['an unknown log page', { opcode: 2, cdw10: 0x05 | (127 << 16) }, 0x109],
    ['a log page offset that is not a dword', { opcode: 2, cdw10: 2, cdw12: 2 }, INVALID_FIELD],
    ['a log page offset beyond the page', { opcode: 2, cdw10: 2, cdw12: 516 }, INVALID_FIELD],
    ['a log page longer than MDTS', { opcode: 2, cdw10: 2, cdw11: 0xffff }, INVALID_FIELD],
    ['an unknown feature to get', { opcode: 0x0a, cdw10: 0x7f }, INVALID_FIELD],
    ['an unknown feature to set', { opcode: 9, cdw10: 0x7f }, INVALID_FIELD],
    ['the keep alive timer', { opcode: 9, cdw10: 0x0f, cdw11: 1000 }, INVALID_FIELD],
    ['a feature to save', { opcode: 9, cdw10: (1 << 31) | 6, cdw11: 1 }, 0x10d],
    ['a power state that is not there', { opcode: 9, cdw10: 2, cdw11: 1 }, INVALID_FIELD],
    ['65536 queues', { opcode: 9, cdw10: 7, cdw11: 0xffff }, INVALID_FIELD],
    ['an interrupt vector that is not there', { opcode: 9, cdw10: 9, cdw11: 1 }, INVALID_FIELD],
    ['completion queue 0', { opcode: 5, cdw10: 31 << 16, cdw11: 1 }, 0x101],
    ['completion queue 9 of 8', { opcode: 5, cdw10: (31 << 16) | 9, cdw11: 1 }, 0x101],
    ['a completion queue of one entry', { opcode: 5, cdw10: 1, cdw11: 1 }, 0x102],
    ['a completion queue above MQES', { opcode: 5, cdw10: (1024 << 16) | 1, cdw11: 1 }, 0x102],
    ['a scattered completion queue', { opcode: 5, cdw10: (31 << 16) | 1, cdw11: 0 }, INVALID_FIELD],
    ['a misaligned completion queue', { opcode: 5, prp1: 64n, cdw10: (31 << 16) | 1, cdw11: 1 }, 0x13],
    ['a vector that is not there', { opcode: 5, cdw10: (31 << 16) | 1, cdw11: (1 << 16) | 3 }, 0x108],
    ['a submission queue to CQ 0', { opcode: 1, cdw10: (31 << 16) | 1, cdw11: 1 }, 0x101],
    ['a submission queue to no CQ', { opcode: 1, cdw10: (31 << 16) | 1, cdw11: (1 << 16) | 1 }, 0x100],
    ['submission queue 0', { opcode: 1, cdw10: 31 << 16, cdw11: (1 << 16) | 1 }, 0x101],
    ['deletion of submission queue 0', { opcode: 0, cdw10: 0 }, 0x101],
    ['deletion of a submission queue that is not there', { opcode: 0, cdw10: 3 }, 0x101],
    ['deletion of completion queue 0', { opcode: 4, cdw10: 0 }, 0x101],
    ['deletion of a completion queue that is not there', { opcode: 4, cdw10: 0xffff }, 0x101],
  ];

  it.each(cases)('%s', (_, command, status) => {
    const driver = driverFor();
    driver.enablePci();
    driver.enable();
    const completion = driver.submit(0, { prp1: driver.bus.iova(DATA), ...command });
    expect(completion.status.toString(16)).toBe(status.toString(16));
    expect(completion.dnr).toBe(true);
    expect(driver.read32(0x1c)).toBe(1);
  });

  it('queues that exist already', () => {
    const driver = ready();
    const cdw10 = (31 << 16) | 1;
    expect(driver.submit(0, { opcode: 5, cdw10, cdw11: 1 }).status).toBe(0x101);
    expect(driver.submit(0, { opcode: 1, cdw10, cdw11: (1 << 16) | 1 }).status).toBe(0x101);
  });

  it('queues when CC says another entry size', () => {
    const driver = driverFor();
    driver.enablePci();
    driver.enable();
    driver.write32(0x14, 1);
    const base = { prp1: driver.bus.iova(DATA), cdw10: (31 << 16) | 1 };
    expect(driver.submit(0, { opcode: 5, ...base, cdw11: 1 }).status).toBe(0x102);
  });

  it('deletion of a completion queue that is in use', () => {
    const driver = ready();
    expect(driver.submit(0, { opcode: 4, cdw10: 1 }).status).toBe(0x10c);
    expect(driver.submit(0, { opcode: 0, cdw10: 1 }).status).toBe(0);
    expect(driver.submit(0, { opcode: 4, cdw10: 1 }).status).toBe(0);
  });

  it('a number of queues once there are some', () => {
    expect(ready().submit(0, { opcode: 9, cdw10: 7, cdw11: 0x0001_0001 }).status).toBe(0x0c);
  });

  it('a fifth Asynchronous Event Request, while four are held', () => {
    const driver = ready();
    for (let i = 0; i < 4; i++) driver.put(0, { opcode: 0x0c });
    driver.ring(0);
    expect(driver.take(0)).toEqual([]);
    expect(driver.submit(0, { opcode: 0x0c }).status).toBe(0x105);
  });
});

describe('I/O commands that are refused', () => {
  const at = { prp1: BigInt(0xffc0_0000 + DATA) };
  const blocks = (4 * MIB) / 512;
  const cases: [string, Parameters<Driver['submit']>[1], number][] = [
    ['an unknown opcode', { opcode: 0x7f, nsid: 1 }, 0x01],
    ['Compare', { opcode: 5, nsid: 1 }, 0x01],
    ['namespace 0', { ...READ, nsid: 0 }, 0x0b],
    ['a Read of all namespaces', { ...READ, nsid: 0xffff_ffff }, 0x0b],
    ['a Flush of namespace 2', { opcode: 0, nsid: 2 }, 0x0b],
    ['a fused command', { ...READ, flags: 2 }, INVALID_FIELD],
    ['SGLs', { ...READ, flags: 0x80 }, INVALID_FIELD],
    ['the block after the last', { ...READ, cdw10: blocks }, 0x80],
    ['a range that passes the last block', { ...READ, cdw10: blocks - 1, cdw12: 1 }, 0x80],
    ['an LBA whose upper half is not zero', { ...READ, cdw10: 0, cdw11: 1 }, 0x80],
    ['an LBA that wraps', { ...READ, cdw10: 0xffff_ffff, cdw11: 0xffff_ffff, cdw12: 7 }, 0x80],
    ['a Write beyond the end', { opcode: 1, nsid: 1, cdw10: blocks }, 0x80],
    ['Write Zeroes beyond the end', { opcode: 8, nsid: 1, cdw10: blocks - 1, cdw12: 1 }, 0x80],
    ['more than MDTS', { ...READ, cdw12: 1024 }, INVALID_FIELD],
    ['a PRP that is not a dword', { ...READ, prp1: at.prp1 + 2n }, INVALID_PRP_OFFSET],
    ['a second PRP with an offset', { ...READ, prp2: at.prp1 + 8n, cdw12: 15 }, INVALID_PRP_OFFSET],
    ['a PRP list that is not a qword', { ...READ, prp2: at.prp1 + 4n, cdw12: 31 }, INVALID_PRP_OFFSET],
  ];

  it.each(cases)('%s', (_, command, status) => {
    const driver = ready();
    const completion = driver.submit(1, { ...at, ...command });
    expect(completion.status.toString(16)).toBe(status.toString(16));
    expect(completion.dnr).toBe(true);
  });

  it('a PRP list with an entry that is no page, before any byte moves', () => {
    const driver = ready();
    driver.device.storage.fill(0x55);
    driver.bus.view.setBigUint64(0x1c_0000, driver.bus.iova(DATA + 4096), true);
    driver.bus.view.setBigUint64(0x1c_0008, driver.bus.iova(DATA + 8192 + 512), true);
    const command = { ...READ, ...at, prp2: driver.bus.iova(0x1c_0000), cdw12: 23 };
    expect(driver.submit(1, command).status).toBe(INVALID_PRP_OFFSET);
    expect(driver.bus.bytes.subarray(DATA, DATA + 8192).every((byte) => byte === 0)).toBe(true);
  });

  it('a PRP list that chains into itself', () => {
    const driver = ready({ maxTransfer: 4 * MIB });
    // The last slot of the page points at itself: not the start of a page.
    const slot = 0x1c_0ff8;
    driver.bus.view.setBigUint64(slot, driver.bus.iova(slot), true);
    const command = { ...READ, ...at, prp2: driver.bus.iova(slot), cdw12: 31 };
    expect(driver.submit(1, command).status).toBe(INVALID_PRP_OFFSET);
    // A page that chains to its own start brings 511 pages a turn, and so comes to an end.
    driver.putList(
      0x1c_0000,
      Array.from({ length: 512 }, () => driver.bus.iova(DATA)),
    );
    driver.bus.view.setBigUint64(0x1c_0ff8, driver.bus.iova(0x1c_0000), true);
    const long = { ...READ, ...at, prp2: driver.bus.iova(0x1c_0000), cdw12: 8191 };
    expect(driver.submit(1, long).status).toBe(0);
  });
});

describe('DMA that aborts', () => {
  it('in the data of a Read is a Data Transfer Error that may be retried', () => {
    const driver = ready();
    driver.bus.missing.add(DATA / 4096);
    const completion = driver.transfer(false, 0, DATA, 4096);
    expect(completion).toMatchObject({ status: DATA_TRANSFER_ERROR, dnr: false });
    driver.bus.missing.clear();
    expect(driver.transfer(false, 0, DATA, 4096).status).toBe(0);
  });

  it('in the middle of a Write is a Data Transfer Error', () => {
    const driver = ready();
    driver.bus.missing.add(DATA / 4096 + 2);
    expect(driver.transfer(true, 0, DATA, 16384).status).toBe(DATA_TRANSFER_ERROR);
  });

  it('in a PRP list is a Data Transfer Error', () => {
    const driver = ready();
    driver.bus.missing.add(0x1c0);
    expect(driver.transfer(true, 0, DATA, 16384).status).toBe(DATA_TRANSFER_ERROR);
  });

  it('in the data of Identify is a Data Transfer Error', () => {
    const driver = ready();
    expect(driver.submit(0, { opcode: 6, cdw10: 1, prp1: 0x1000n }).status).toBe(DATA_TRANSFER_ERROR);
  });

  it('in a submission queue is fatal until the controller is reset', () => {
    const driver = ready();
    driver.bus.missing.add(driver.pairs[1].sq / 4096);
    driver.put(1, { ...READ, prp1: driver.bus.iova(DATA) });
    driver.ring(1);
    expect(driver.read32(0x1c)).toBe(3);
    expect(driver.take(1)).toEqual([]);
    driver.put(0, { opcode: 6, cdw10: 1, prp1: driver.bus.iova(DATA) });
    driver.ring(0);
    expect(driver.take(0)).toEqual([]);
    driver.bus.missing.clear();
    driver.write32(0x14, 0);
    expect(driver.read32(0x1c)).toBe(0);
    expect(driver.enable()).toBe(1);
    driver.createIo();
    expect(driver.transfer(false, 0, DATA, 4096).status).toBe(0);
  });

  it('in a completion queue is fatal', () => {
    const driver = ready();
    driver.bus.missing.add(driver.pairs[1].cq / 4096);
    driver.put(1, { ...READ, prp1: driver.bus.iova(DATA) });
    driver.ring(1);
    expect(driver.read32(0x1c)).toBe(3);
  });

  it('is what dma() reports, and does whatever the registers say', () => {
    const driver = driverFor();
    const bytes = Uint8Array.of(1, 2, 3, 4);
    expect(driver.device.dma(true, 0, 0x1000, bytes)).toBe(OUTCOME.Abort);
    expect(driver.device.dma(true, 0, driver.bus.base, bytes)).toBe(OUTCOME.Ok);
    const back = new Uint8Array(4);
    expect(driver.device.dma(false, 0, driver.bus.base, back)).toBe(OUTCOME.Ok);
    expect(back).toEqual(bytes);
  });
});

describe('doorbells that make no sense', () => {
  it.each([
    ['a tail beyond the queue', 0x1008, 64, 0x01_0100],
    ['a head beyond the queue', 0x100c, 64, 0x01_0100],
    ['a head beyond what was posted', 0x100c, 5, 0x01_0100],
    ['a queue that is not there', 0x1010, 1, 0x01_0000],
    ['a completion queue that is not there', 0x1014, 1, 0x01_0000],
    ['the last dword of the BAR', 0x3ffc, 1, 0x01_0000],
  ])('%s is an error event, once until its log is read', (_, offset, value, expected) => {
    const driver = ready();
    driver.put(0, { opcode: 0x0c });
    driver.put(0, { opcode: 0x0c });
    driver.ring(0);
    driver.write32(offset, value);
    expect(driver.take(0)).toMatchObject([{ status: 0, result: expected }]);
    driver.write32(offset, value);
    expect(driver.take(0)).toEqual([]);
    driver.put(0, { opcode: 2, cdw10: 1 | (15 << 16), prp1: driver.bus.iova(DATA) });
    driver.ring(0);
    expect(driver.take(0)).toHaveLength(2);
    expect(driver.bus.view.getUint32(DATA, true)).toBe(2);
    expect(driver.bus.view.getUint16(DATA + 8, true)).toBe(0xffff);
    expect(driver.transfer(false, 0, DATA, 512).status).toBe(0);
  });

  it('are ignored while the controller is not ready', () => {
    const driver = driverFor();
    driver.enablePci();
    driver.write32(0x1000, 1);
    expect(driver.bus.transfers).toBe(0);
  });
});

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

describe('data', () => {
  it.each([
    ['one block', 0, 512],
    ['one page', 0, 4096],
    ['one page across two', 512, 4096],
    ['two pages', 0, 8192],
    ['three pages and a bit, across 4 GiB', 0x20_0000 - 4096, 12_288 + 512],
    ['512 KiB from the middle of a page', 2048, 524_288],
  ])('%s comes back as it was written', (_, shift, bytes) => {
    const driver = ready();
    const offset = DATA + shift;
    fillRandom(driver.bus.bytes.subarray(offset, offset + bytes), bytes);
    const sent = driver.bus.bytes.slice(offset, offset + bytes);
    expect(driver.transfer(true, 100, offset, bytes).status).toBe(0);
    expect(same(driver.device.storage.subarray(51_200, 51_200 + bytes), sent)).toBe(true);
    driver.bus.bytes.fill(0, offset, offset + bytes);
    expect(driver.transfer(false, 100, offset, bytes).status).toBe(0);
    expect(same(driver.bus.bytes.subarray(offset, offset + bytes), sent)).toBe(true);
  });

  it.each([
    ['fill their page', 0x1c_0000, 4 * MIB],
    ['start near the end of their page', 0x1c_0ff0, 65_536],
    ['start in the last slot of their page', 0x1c_0ff8, 65_536],
    ['end exactly with their page', 0x1c_0f88, 65_536],
  ])('lists that %s are followed', (_, listAt, bytes) => {
    const driver = ready({ maxTransfer: 4 * MIB });
    fillRandom(driver.bus.bytes.subarray(DATA, DATA + bytes), 7);
    expect(driver.transfer(true, 0, DATA, bytes, listAt).status).toBe(0);
    const sent = driver.bus.bytes.subarray(DATA, DATA + bytes);
    expect(same(driver.device.storage.subarray(0, bytes), sent)).toBe(true);
  });

  it('may lie in pages of any order, with 64 KiB pages too', () => {
    const driver = driverFor();
    driver.enablePci();
    expect(driver.enable(32, 4)).toBe(1);
    driver.createIo();
    fillRandom(driver.device.storage, 3);
    const pages = [DATA + 0x3_0000, DATA + 0x1_0000, DATA + 0x5_0000];
    driver.bus.view.setBigUint64(0x1c_0000, driver.bus.iova(pages[1]), true);
    driver.bus.view.setBigUint64(0x1c_0008, driver.bus.iova(pages[2]), true);
    const command = { ...READ, prp1: driver.bus.iova(pages[0]), prp2: driver.bus.iova(0x1c_0000) };
    expect(driver.submit(1, { ...command, cdw12: 383 }).status).toBe(0);
    pages.forEach((page, i) => {
      const expected = driver.device.storage.subarray(i * 65_536, (i + 1) * 65_536);
      expect(same(driver.bus.bytes.subarray(page, page + 65_536), expected)).toBe(true);
    });
  });

  it('is zero after Write Zeroes and after deallocation, and only there', () => {
    const driver = ready();
    driver.device.storage.fill(0xff);
    expect(driver.submit(1, { opcode: 8, nsid: 1, cdw10: 1, cdw12: 1 }).status).toBe(0);
    const range = (i: number, lba: number, count: number): void => {
      driver.bus.view.setUint32(DATA + i * 16 + 4, count, true);
      driver.bus.view.setUint32(DATA + i * 16 + 8, lba, true);
    };
    range(0, 10, 2);
    range(1, 8191, 1);
    const dsm = { opcode: 9, nsid: 1, prp1: driver.bus.iova(DATA), cdw10: 1 };
    expect(driver.submit(1, { ...dsm, cdw11: 4 }).status).toBe(0);
    const zero = Array.from({ length: 8192 }, (_, lba) => lba).filter(
      (lba) => driver.device.storage[lba * 512] === 0 && driver.device.storage[lba * 512 + 511] === 0,
    );
    expect(zero).toEqual([1, 2, 10, 11, 8191]);
    range(1, 8191, 2);
    expect(driver.submit(1, { ...dsm, cdw11: 4 }).status).toBe(0x80);
    range(1, 0, 8192);
    expect(driver.submit(1, dsm).status).toBe(0);
    expect(driver.device.storage[0]).toBe(0xff);
    expect(driver.submit(1, { opcode: 0, nsid: 0xffff_ffff }).status).toBe(0);
  });
});

describe('queues', () => {
  it('wrap, with the phase tag changing each time', () => {
    const driver = driverFor();
    driver.enablePci();
    driver.enable();
    driver.createIo(1, 5);
    for (let i = 0; i < 23; i++) {
      const completion = driver.submit(1, { ...READ, prp1: driver.bus.iova(DATA), cdw10: i });
      expect(completion).toMatchObject({ status: 0, sqId: 1, sqHead: (i + 1) % 5 });
    }
  });

  it('that complete to a full queue wait, and go on when its head moves', () => {
    const driver = driverFor();
    driver.enablePci();
    driver.enable();
    driver.createIo(1, 4);
    driver.createIo(2, 32);
    // A second submission queue of 32 entries to the completion queue of 4.
    driver.submit(0, { opcode: 0, cdw10: 2 });
    const sq = { opcode: 1, prp1: driver.bus.iova(driver.pairs[2].sq), cdw10: (31 << 16) | 2 };
    expect(driver.submit(0, { ...sq, cdw11: (1 << 16) | 1 }).status).toBe(0);
    driver.pairs[2].cq = driver.pairs[1].cq;
    for (let i = 0; i < 10; i++) driver.put(2, { ...READ, prp1: driver.bus.iova(DATA) });
    driver.ring(2);
    const counts: number[] = [];
    for (let n = driver.take(1).length; n > 0; n = driver.take(1).length) counts.push(n);
    expect(counts).toEqual([3, 3, 3, 1]);
    expect(driver.read32(0x1c)).toBe(1);
  });

  it('are served in turn', () => {
    const driver = driverFor();
    driver.enablePci();
    driver.enable();
    driver.createIo(1);
    driver.createIo(2);
    for (let i = 0; i < 40; i++) driver.put(1, { opcode: 0, nsid: 1 });
    // Both rings are heard before any work, if the first one is rung from inside an interrupt.
    driver.put(2, { opcode: 0, nsid: 1 });
    let once = true;
    driver.bus.onInterrupt = () => {
      if (once) driver.ring(1);
      once = false;
    };
    driver.ring(2);
    expect(driver.take(1)).toHaveLength(40);
    expect(driver.take(2)).toHaveLength(1);
  });

  it('do bounded work per doorbell and put the rest off', () => {
    let deferred = 0;
    const driver = ready({ maxTransfer: 4 * MIB, defer: () => (deferred += 1) });
    const pages = Array.from({ length: 1023 }, () => driver.bus.iova(DATA));
    driver.putList(0x1c_0000, pages);
    const command = { ...READ, prp1: driver.bus.iova(DATA), prp2: driver.bus.iova(0x1c_0000) };
    for (let i = 0; i < 3; i++) driver.put(1, { ...command, cdw12: 8191 });
    driver.ring(1);
    expect(driver.take(1, 9, false)).toHaveLength(1);
    expect(deferred).toBe(1);
    expect(driver.device.run()).toBe(true);
    expect(deferred).toBe(2);
    expect(driver.device.run()).toBe(false);
    expect(driver.take(1)).toHaveLength(2);
    expect(driver.device.run()).toBe(false);
  });

  it('forget what was deferred when the controller is reset', () => {
    let deferred = 0;
    const driver = ready({ defer: () => (deferred += 1) });
    driver.createIo(2, 1024);
    for (let i = 0; i < 1000; i++) driver.put(2, { opcode: 0, nsid: 1 });
    driver.ring(2);
    expect(deferred).toBe(1);
    driver.write32(0x14, 0);
    driver.bus.transfers = 0;
    expect(driver.device.run()).toBe(false);
    expect(driver.bus.transfers).toBe(0);
  });

  it('do not complete a command that a reset from inside its own DMA ended', () => {
    const driver = ready();
    driver.put(1, { ...READ, prp1: driver.bus.iova(DATA) });
    const write = driver.bus.write.bind(driver.bus);
    driver.bus.write = (hi, lo, from) => {
      driver.write32(0x14, 0);
      return write(hi, lo, from);
    };
    driver.ring(1);
    expect(driver.take(1)).toEqual([]);
    expect(driver.read32(0x1c)).toBe(0);
  });
});

describe('interrupts', () => {
  const flush = { opcode: 0, nsid: 1 };

  it('come once per batch by MSI', () => {
    const driver = ready();
    driver.bus.interrupts.length = 0;
    for (let i = 0; i < 5; i++) driver.put(1, flush);
    driver.ring(1);
    expect(driver.bus.interrupts).toEqual(['msi0']);
    driver.take(1);
    expect(driver.bus.interrupts).toEqual(['msi0']);
  });

  it('do not come from a queue that has none', () => {
    const driver = driverFor();
    driver.enablePci();
    driver.enable();
    driver.createIo(1, 64, false);
    driver.bus.interrupts.length = 0;
    driver.submit(1, flush);
    expect(driver.bus.interrupts).toEqual([]);
  });

  it('wait while their vector is masked', () => {
    const driver = ready();
    driver.write32(0x0c, 1);
    expect(driver.read32(0x10)).toBe(1);
    driver.bus.interrupts.length = 0;
    driver.put(1, flush);
    driver.ring(1);
    expect(driver.bus.interrupts).toEqual([]);
    driver.write32(0x10, 1);
    expect(driver.bus.interrupts).toEqual(['msi0']);
  });

  it('share the vectors that software gave', () => {
    const driver = driverFor({ vectors: 4 });
    driver.enablePci();
    driver.writeConfig(driver.capability(0x05) + 2, 2, (1 << 4) | 1);
    driver.enable();
    driver.createIo(1);
    driver.submit(0, { opcode: 0, cdw10: 1 });
    driver.submit(0, { opcode: 4, cdw10: 1 });
    const prp1 = driver.bus.iova(driver.pairs[1].cq);
    driver.submit(0, { opcode: 5, prp1, cdw10: (63 << 16) | 1, cdw11: (3 << 16) | 3 });
    const sq = driver.bus.iova(driver.pairs[1].sq);
    driver.submit(0, { opcode: 1, prp1: sq, cdw10: (63 << 16) | 1, cdw11: (1 << 16) | 1 });
    Object.assign(driver.pairs[1], { tail: 0, head: 0, phase: 1 });
    driver.bus.interrupts.length = 0;
    driver.submit(1, flush);
    expect(driver.bus.interrupts).toEqual(['msi1']);
  });

  it('hold the pin until the queue is empty', () => {
    const driver = driverFor();
    driver.enablePci(true);
    driver.enable();
    driver.createIo();
    driver.bus.interrupts.length = 0;
    driver.put(1, flush);
    driver.put(1, flush);
    driver.ring(1);
    expect(driver.bus.interrupts).toEqual(['intx0']);
    expect(driver.config(6, 2) & 8).toBe(8);
    driver.take(1, 1);
    expect(driver.config(6, 2) & 8).toBe(8);
    driver.take(1);
    expect(driver.config(6, 2) & 8).toBe(0);
    driver.writeConfig(4, 2, 0x0406);
    driver.submit(1, flush);
    expect(driver.bus.interrupts).toEqual(['intx0']);
  });

  it('may ring from inside their handler without end or recursion', () => {
    let deferred = 0;
    const driver = ready({ defer: () => (deferred += 1) });
    let depth = 0;
    let deepest = 0;
    driver.bus.onInterrupt = () => {
      depth += 1;
      deepest = Math.max(deepest, depth);
      driver.take(1);
      driver.put(1, flush);
      driver.ring(1);
      depth -= 1;
    };
    driver.put(1, flush);
    driver.ring(1);
    expect(deepest).toBe(1);
    expect(deferred).toBe(1);
  });
});

describe('resets', () => {
  it('of the controller keep the admin queue registers, of the function nothing', () => {
    const driver = ready();
    driver.write32(0x0c, 1);
    driver.write32(0x14, 0);
    expect([0x24, 0x28, 0x0c].map((at) => driver.read32(at))).toEqual([0x001f_001f, driver.bus.base, 0]);
    driver.device.reset();
    expect([0x14, 0x1c, 0x24, 0x28].map((at) => driver.read32(at))).toEqual([0, 0, 0, 0]);
    expect(driver.config(4, 2)).toBe(0);
    driver.enablePci();
    driver.enable();
    driver.createIo();
    expect(driver.transfer(false, 0, DATA, 4096).status).toBe(0);
  });

  it('keep what is stored', () => {
    const driver = ready();
    driver.bus.bytes.fill(0x5a, DATA, DATA + 512);
    driver.transfer(true, 9, DATA, 512);
    driver.device.reset();
    expect(driver.device.storage[9 * 512]).toBe(0x5a);
  });

  it('can be asked for by the PCI Express capability', () => {
    const driver = ready();
    const control = driver.capability(0x10) + 8;
    driver.writeConfig(control, 2, 0x8000);
    expect(driver.read32(0x1c)).toBe(0);
    expect(driver.config(4, 2)).toBe(0);
    expect(driver.config(control, 2) & 0x8000).toBe(0);
  });

  it('follow a shutdown, which stops the controller', () => {
    const driver = ready();
    driver.write32(0x14, 0x46_4001);
    expect(driver.read32(0x1c)).toBe(0x9);
    driver.put(1, { ...READ, prp1: driver.bus.iova(DATA) });
    driver.ring(1);
    expect(driver.take(1)).toEqual([]);
    driver.write32(0x14, 0);
    expect(driver.read32(0x1c)).toBe(0);
    expect(driver.enable()).toBe(1);
  });
});

describe('anything at all', () => {
  const INTERESTING = [
    0, 1, 2, 63, 64, 0xfff, 0x1000, 0xffff, 0x46_0001, 0x46_0000, 0x8000_0000, 0xffff_ffff,
  ];

  it('in registers, doorbells and configuration space neither throws nor runs away', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = randomFrom(seed * 7919);
      const driver = ready({ ioQueues: 2, storage: MIB });
      for (let i = 0; i < 200; i++) {
        const bytes = new Uint8Array([1, 2, 4, 8][random() & 3]);
        const value = (random() & 1) === 0 ? random() : INTERESTING[random() % INTERESTING.length];
        for (let b = 0; b < bytes.length; b++) bytes[b] = value >>> ((b & 3) * 8);
        const pick = random() % 10;
        if (pick < 4) driver.device.regionWrite(0, random() % 0x40, bytes);
        else if (pick < 8) driver.device.regionWrite(0, 0x1000 + (random() % 64) * 4, bytes);
        else if (pick < 9) driver.device.regionWrite(7, random() % 0x100, bytes);
        else driver.device.regionRead(random() % 9, random() % 0x1040, bytes);
        driver.bus.transfers = 0;
        driver.device.run();
        expect(driver.bus.transfers).toBeLessThan(5000);
      }
      driver.device.reset();
      driver.enablePci();
      expect(driver.enable()).toBe(1);
      driver.createIo();
      expect(driver.transfer(false, 0, DATA, 4096).status).toBe(0);
    }
  });

  it('in queues and PRP lists is answered or ends in CFS', () => {
    const random = randomFrom(20_260_101);
    for (let round = 0; round < 400; round++) {
      const driver = ready({ ioQueues: 2, storage: MIB });
      if (round % 4 === 0) driver.bus.missing.add(random() % 2048);
      fillRandom(driver.bus.bytes.subarray(DATA, DATA + 8192), round + 1);
      const qid = random() & 1;
      const n = 8;
      for (let i = 0; i < n; i++) {
        const any = (): number =>
          (random() & 1) === 0 ? random() : INTERESTING[random() % INTERESTING.length];
        const address = (): bigint =>
          (random() & 3) === 0 ? BigInt(random()) << 13n : driver.bus.iova(DATA + (random() % 1024) * 4096);
        driver.put(qid, {
          opcode: random() % 16,
          nsid: (random() & 3) === 0 ? any() : 1,
          prp1: address(),
          prp2: address(),
          cdw10: any(),
          cdw11: (random() & 1) === 0 ? any() : 0,
          cdw12: any() & 0xffff,
          flags: (random() & 7) === 0 ? random() & 0xff : 0,
        });
      }
      driver.ring(qid);
      while (driver.device.run());
      const answered = driver.take(qid, n, false).length;
      const held = 4;
      if (driver.read32(0x1c) === 1) expect(answered).toBeGreaterThanOrEqual(qid === 0 ? n - held : n);
      else expect(driver.read32(0x1c)).toBe(3);
      expect(driver.device.storage.length).toBe(MIB);
    }
  });
});
