import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { EVENT } from '../../src/smmu/ports.ts';
import { Device, EVENTQ, NOWHERE, RAM, record } from '../support/smmu-device.ts';

const EVENTQ_ABT = 1 << 2;
const PROD = 0x1_00a8;
const CONS = 0x1_00ac;
const MSI = identify(QEMU_LIKE, { MSI: 1 });

describe('a record', () => {
  it('is dropped without a trace while the queue is disabled', () => {
    const device = new Device().start(0b1000);
    device.write(0x50, 5);
    expect(device.smmu.recordEvent(record(1))).toBe(EVENT.Disabled);
    device.smmu.eventsLost();
    expect([device.read(PROD), device.errors, device.interrupts]).toEqual([0, 0, []]);
    device.write(0x20, 0b1100);
    expect([device.read(PROD), device.interrupts]).toEqual([0, []]);
  });

  it('is in memory, with all its words, before PROD shows it, and PROD before the interrupt', () => {
    const device = new Device().start();
    device.write(0x50, 4);
    const seen: number[] = [];
    device.onInterrupt = () => void seen.push(device.read(PROD), device.event(0, 1));
    const words = Uint32Array.of(0x10, 42, 1, 2, 3, 4, 5, 6);
    expect(device.smmu.recordEvent(words)).toBe(EVENT.Queued);
    expect(seen).toEqual([1, 42]);
    expect([0, 1, 2, 3, 4, 5, 6, 7].map((i) => device.event(0, i))).toEqual([0x10, 42, 1, 2, 3, 4, 5, 6]);
  });

  it('raises an interrupt only if the queue was empty', () => {
    const device = new Device().start();
    device.write(0x50, 4);
    device.smmu.recordEvent(record(1));
    device.smmu.recordEvent(record(2));
    expect(device.interrupts).toEqual(['eventq']);
    device.write(CONS, 1);
    device.smmu.recordEvent(record(3));
    expect(device.interrupts).toEqual(['eventq']);
    device.write(CONS, 3);
    device.smmu.recordEvent(record(4));
    expect(device.interrupts).toEqual(['eventq', 'eventq']);
  });

  it('that came before the interrupt was enabled stays silent', () => {
    const device = new Device().start();
    device.smmu.recordEvent(record(1));
    device.write(0x50, 4);
    device.smmu.recordEvent(record(2));
    expect(device.interrupts).toEqual([]);
  });
});

describe('overflow', () => {
  it('toggles OVFLG once until it is acknowledged, and is no global error', () => {
    const device = new Device().start(0b1100, 4, 2);
    device.write(0x50, 5);
    for (let i = 0; i < 4; i++) device.smmu.recordEvent(record(i));
    expect(device.smmu.recordEvent(record(4))).toBe(EVENT.Full);
    expect(device.read(PROD)).toBe(4);
    device.smmu.eventsLost();
    expect(device.read(PROD)).toBe(0x8000_0004);
    device.smmu.eventsLost();
    expect([device.read(PROD), device.errors]).toEqual([0x8000_0004, 0]);
    expect(device.interrupts).toEqual(['eventq']);
    // Acknowledged together with the records; the next overflow toggles back.
    device.write(CONS, 0x8000_0004);
    for (let i = 0; i < 4; i++) expect(device.smmu.recordEvent(record(i))).toBe(EVENT.Queued);
    expect(device.read(PROD)).toBe(0x8000_0000);
    expect(device.smmu.recordEvent(record(9))).toBe(EVENT.Full);
    device.smmu.eventsLost();
    expect(device.read(PROD)).toBe(0);
  });

  it('does not stop delivery once there is room, even unacknowledged', () => {
    const device = new Device().start(0b1100, 4, 1);
    device.smmu.recordEvent(record(1));
    device.smmu.recordEvent(record(2));
    device.smmu.eventsLost();
    device.write(CONS, 1);
    expect(device.smmu.recordEvent(record(3))).toBe(EVENT.Queued);
    expect(device.read(PROD)).toBe(0x8000_0003);
    expect(device.event(0, 1)).toBe(3);
  });
});

describe('an aborted write', () => {
  it('activates EVENTQ_ABT_ERR, does not move PROD and raises no queue interrupt', () => {
    const device = new Device();
    device.write64(0xa0, 0, NOWHERE | 4);
    device.write(0x20, 4);
    device.write(0x50, 5);
    expect(device.smmu.recordEvent(record(1))).toBe(EVENT.Aborted);
    expect([device.read(PROD), device.errors, device.interrupts]).toEqual([0, EVENTQ_ABT, ['gerror']]);
  });

  it('stops all writing until it is acknowledged, without overflow', () => {
    const device = new Device();
    device.write64(0xa0, 0, NOWHERE | 4);
    device.write(0x20, 4);
    device.smmu.recordEvent(record(1));
    device.write(0x20, 0);
    device.write64(0xa0, 0, EVENTQ | 4);
    device.write(0x20, 4);
    expect(device.smmu.recordEvent(record(2))).toBe(EVENT.Aborted);
    expect([device.smmu.eventQueueSpace(), device.read(PROD)]).toEqual([0, 0]);
    device.backend.length = 0;
    device.write(0x64, EVENTQ_ABT);
    expect(device.backend).toEqual(['eventq']);
    expect(device.smmu.recordEvent(record(3))).toBe(EVENT.Queued);
    expect(device.event(0, 1)).toBe(3);
  });

  it('toggles again when it happens again after the acknowledgement', () => {
    const device = new Device();
    device.write64(0xa0, 0, NOWHERE | 4);
    device.write(0x20, 4);
    for (let i = 0; i < 3; i++) {
      device.smmu.recordEvent(record(1));
      device.smmu.recordEvent(record(1));
      expect(device.errors).toBe(EVENTQ_ABT);
      device.write(0x64, device.read(0x60));
      expect(device.errors).toBe(0);
    }
  });
});

describe('the queue', () => {
  it.each([0, 1, 2, 5])('of 2^%d records wraps', (log2) => {
    const device = new Device().start(0b1100, 4, log2);
    const size = 2 ** log2;
    for (let i = 0; i < 5 * size; i++) {
      expect(device.smmu.eventQueueSpace()).toBe(size);
      expect(device.smmu.recordEvent(record(i))).toBe(EVENT.Queued);
      expect(device.event(i % size, 1)).toBe(i);
      device.write(CONS, device.read(PROD));
    }
    expect(device.errors).toBe(0);
  });

  it('counts as full while its pointers are inconsistent', () => {
    const device = new Device().start(0b1100, 4, 3);
    device.write(CONS, 5);
    expect(device.smmu.eventQueueSpace()).toBe(0);
    expect(device.smmu.recordEvent(record(1))).toBe(EVENT.Full);
    device.write(CONS, 0xf_fff0);
    expect(device.smmu.eventQueueSpace()).toBe(8);
  });

  it('aligns its base down to its size', () => {
    const device = new Device();
    device.write64(0xa0, 0, (EVENTQ + 0xe0) | 3);
    device.write(0x20, 4);
    device.smmu.recordEvent(record(77));
    expect(device.event(0, 1)).toBe(77);
  });

  it('may have the largest size there is', () => {
    const device = new Device();
    device.write64(0xa0, 0, EVENTQ | 19);
    expect(device.smmu.eventqLog2Size).toBe(19);
    device.write(0x20, 4);
    device.smmu.recordEvent(record(1));
    // 2^19 records of 32 bytes are aligned to 16 MiB.
    expect(device.ram[1]).toBe(1);
  });
});

describe('the backend', () => {
  it('hears of room once, and only after someone met a full queue', () => {
    const device = new Device().start(0b1100, 4, 1);
    device.backend.length = 0;
    device.smmu.recordEvent(record(1));
    device.write(CONS, 1);
    expect(device.backend).toEqual([]);
    device.smmu.recordEvent(record(1));
    device.smmu.recordEvent(record(1));
    expect(device.smmu.recordEvent(record(1))).toBe(EVENT.Full);
    device.write(CONS, 1);
    expect(device.backend).toEqual([]);
    device.write(CONS, 2);
    expect(device.backend).toEqual(['eventq']);
    device.write(CONS, 3);
    expect(device.backend).toEqual(['eventq']);
  });

  it('hears of room after it asked for it', () => {
    const device = new Device().start(0b1100, 4, 0);
    device.backend.length = 0;
    device.smmu.recordEvent(record(1));
    expect(device.smmu.eventQueueSpace()).toBe(0);
    device.write(CONS, 1);
    expect(device.backend).toEqual(['eventq']);
  });
});

describe('MSIs', () => {
  it('are written besides the wired pulse, with the data and address of EVENTQ_IRQ_CFG', () => {
    const device = new Device(MSI).start();
    device.write64(0xb0, 0x00ff_f001, RAM + 0x40);
    device.write(0xb8, 0xabcd);
    device.write(0x50, 4);
    device.smmu.recordEvent(record(1));
    expect(device.interrupts).toEqual(['eventq', `msi 1:${(RAM + 0x40).toString(16)} abcd`]);
  });

  it('are not sent with an address of zero, or without IDR0.MSI', () => {
    for (const ids of [MSI, QEMU_LIKE]) {
      const device = new Device(ids).start();
      if (ids === QEMU_LIKE) device.write64(0xb0, 0, RAM);
      device.write(0x50, 4);
      device.smmu.recordEvent(record(1));
      expect(device.interrupts).toEqual(['eventq']);
    }
  });

  it('that abort are an error, and the record stays', () => {
    const device = new Device(MSI).start();
    device.write64(0xb0, 0, RAM);
    device.write(0x50, 5);
    device.msiAborts = true;
    expect(device.smmu.recordEvent(record(1))).toBe(EVENT.Queued);
    expect([device.errors, device.read(PROD)]).toEqual([1 << 5, 1]);
    expect(device.interrupts).toEqual(['eventq', 'gerror']);
    // Later ones are sent all the same.
    device.msiAborts = false;
    device.write(CONS, 1);
    device.smmu.recordEvent(record(1));
    expect(device.interrupts).toHaveLength(4);
  });
});
