import { describe, expect, it } from 'vitest';
import { DATA } from './nvme-driver.ts';
import { driverFor, ready, READ } from './ready-controller.ts';

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
