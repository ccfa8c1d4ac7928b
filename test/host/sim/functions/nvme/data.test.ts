import { describe, expect, it } from 'vitest';
import { DATA } from './nvme-driver.ts';
import { MIB, driverFor, ready, READ } from './ready-controller.ts';
import { fillRandom } from '../../../../support/xorshift.ts';

/** Byte by byte; `toEqual` takes seconds for what is large. */
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

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
