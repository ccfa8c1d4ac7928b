import { describe, expect, it } from 'vitest';
import { DATA, Driver } from './nvme-driver.ts';
import { MIB, driverFor, ready, READ, INVALID_FIELD } from './ready-controller.ts';

const INVALID_PRP_OFFSET = 0x13;

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
