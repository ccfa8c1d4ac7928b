import { describe, expect, it } from 'vitest';
import { OUTCOME } from '../../../../../src/smmu/transaction.ts';
import { DATA } from './nvme-driver.ts';
import { MIB, driverFor, ready, READ, DATA_TRANSFER_ERROR } from './ready-controller.ts';
import { fillRandom, randomFrom } from '../../../../support/xorshift.ts';

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
