import { describe, expect, it } from 'vitest';
import { QEMU_LIKE } from '../../src/smmu/identification.ts';
import { INVALIDATE } from '../../src/smmu/ports.ts';
import { CMDQ, Device, NOWHERE, NSNH_ALL, RAM, SYNC } from '../support/smmu-device.ts';

const ILL = 1;
const ABT = 2;
const CMDQ_ERR = 1;

describe('an error', () => {
  it('stops the queue at the command, which is fetched again once it is acknowledged', () => {
    const device = new Device().start(0b1100, 4);
    device.write(0x50, 1);
    device.submit(NSNH_ALL, [0xff, 0, 0, 0], NSNH_ALL, SYNC);
    expect([device.cons, device.cerror, device.errors]).toEqual([1, ILL, CMDQ_ERR]);
    expect(device.interrupts).toEqual(['gerror']);
    expect(device.batches).toEqual([]);
    // A doorbell does not restart it.
    device.submit(NSNH_ALL, SYNC);
    expect(device.cons).toBe(1);
    // The guest mends the slot, as Linux does, and acknowledges: no doorbell is needed.
    device.put(1, [0x46 | (2 << 12), 0, 0, 0]);
    device.write(0x64, device.read(0x60));
    expect([device.cons, device.errors]).toEqual([6, 0]);
    expect(device.batches).toEqual([[0x30], [0x30], [0x30]]);
    expect(device.interrupts).toEqual(['gerror']);
  });

  it('comes again if the command was not mended', () => {
    const device = new Device().start();
    device.write(0x50, 1);
    device.submit([0xff, 0, 0, 0]);
    for (let i = 1; i < 5; i++) {
      device.write(0x64, device.read(0x60));
      expect([device.cons, device.cerror, device.errors, device.interrupts.length]).toEqual([
        0,
        ILL,
        CMDQ_ERR,
        i + 1,
      ]);
    }
  });

  it('is not acknowledged by disabling the queue', () => {
    const device = new Device().start();
    device.submit([0xff, 0, 0, 0]);
    device.write(0x20, 0b0100);
    expect(device.errors).toBe(CMDQ_ERR);
    device.put(0, SYNC);
    device.write(0x20, 0b1100);
    expect(device.cons).toBe(0);
    device.write(0x64, device.read(0x60));
    expect(device.cons).toBe(1);
  });

  it('ABT: the fetch aborts, and CONS does not move', () => {
    const device = new Device();
    device.write64(0x90, 0, NOWHERE | 4);
    device.write(0x98, 3);
    device.write(0x20, 8);
    expect([device.cons, device.cerror, device.errors]).toEqual([0, ABT, CMDQ_ERR]);
  });

  it('ABT when the queue leaves memory in the middle', () => {
    const device = new Device();
    device.write64(0x90, 0, RAM + 0x4_0000 - 0x1000 + 9);
    device.write(0x20, 8);
    // 2^9 commands are 8 KiB, aligned down, so the last fit and all are there; a queue behind them is not.
    device.write(0x20, 0);
    device.write64(0x90, 0, (RAM + 0x4_0000) | 4);
    device.write(0x98, 1);
    device.write(0x20, 8);
    expect(device.cerror).toBe(ABT);
  });
});

describe('the queue', () => {
  it('does nothing while disabled, and starts when enabled', () => {
    const device = new Device().start(0b0100);
    device.submit(NSNH_ALL, SYNC);
    expect(device.cons).toBe(0);
    device.write(0x20, 0b1100);
    expect(device.cons).toBe(2);
  });

  it.each([0, 1, 2, 4, 6])('of 2^%d commands wraps', (log2) => {
    const device = new Device().start(0b1100, log2);
    for (let i = 0; i < 5 * 2 ** log2; i++) device.submit(i % 2 === 0 ? NSNH_ALL : SYNC);
    expect(device.cons).toBe((5 * 2 ** log2) & (2 ** (log2 + 1) - 1));
    expect(device.cons).toBe(device.read(0x98));
    expect(device.errors).toBe(0);
  });

  it('takes a full queue in one go', () => {
    const device = new Device().start(0b0100, 4);
    for (let slot = 0; slot < 16; slot++) device.put(slot, SYNC);
    device.write(0x98, 0x10);
    device.write(0x20, 0b1100);
    expect(device.cons).toBe(0x10);
  });

  it('does nothing while its pointers are inconsistent', () => {
    const device = new Device().start(0b1100, 4);
    device.write(0x98, 0x11);
    expect([device.cons, device.errors]).toEqual([0, 0]);
    device.write(0x98, 0x1f);
    expect([device.cons, device.errors]).toEqual([0, 0]);
    device.put(0, SYNC);
    device.write(0x98, 1);
    expect(device.cons).toBe(1);
  });

  it('ignores bits of PROD above the wrap flag', () => {
    const device = new Device().start(0b1100, 4);
    device.put(0, SYNC);
    device.write(0x98, 0xf_ffe1);
    expect([device.cons, device.errors]).toEqual([1, 0]);
  });

  it('aligns its base down to its size, and to 32 bytes at least', () => {
    const device = new Device();
    device.put(0, SYNC);
    device.write64(0x90, 0, (CMDQ + 0x60) | 4);
    device.write(0x98, 1);
    device.write(0x20, 8);
    expect(device.cons).toBe(1);
  });

  it('truncates its base to the output address size', () => {
    const device = new Device();
    device.put(0, SYNC);
    device.write64(0x90, 0x00ff_f000, CMDQ | 4);
    device.write(0x98, 1);
    device.write(0x20, 8);
    expect([device.cons, device.errors]).toEqual([1, 0]);
  });
});

describe('bounded work', () => {
  it('runs a thousand commands for a doorbell and defers the rest', () => {
    let deferrals = 0;
    const device = new Device(QEMU_LIKE, { defer: () => void deferrals++ });
    device.write64(0x90, 0, CMDQ | 12);
    for (let slot = 0; slot < 4096; slot++) device.put(slot, SYNC);
    device.write(0x20, 8);
    device.write(0x98, 0x1000);
    expect([device.cons, deferrals]).toEqual([1024, 1]);
    // More doorbells do not pile up work, nor requests.
    device.write(0x98, 0x1000);
    device.write(0x98, 0x1000);
    expect([device.cons, deferrals]).toEqual([1024, 1]);
    expect(device.smmu.run()).toBe(true);
    expect(device.cons).toBe(2048);
    expect(device.smmu.run(10)).toBe(true);
    expect(device.cons).toBe(2058);
    expect(device.smmu.run(100_000)).toBe(false);
    expect(device.cons).toBe(0x1000);
    expect(device.smmu.run()).toBe(false);
    device.submit(SYNC);
    expect([device.cons, deferrals]).toEqual([0x1001, 1]);
  });

  it('stops deferred work when the queue is disabled', () => {
    const device = new Device(QEMU_LIKE, { defer: () => {} });
    device.write64(0x90, 0, CMDQ | 12);
    for (let slot = 0; slot < 4096; slot++) device.put(slot, SYNC);
    device.write(0x98, 0x1000);
    device.write(0x20, 8);
    device.write(0x20, 0);
    expect(device.smmu.run()).toBe(false);
    expect(device.cons).toBe(1024);
    device.write(0x20, 8);
    expect(device.cons).toBe(2048);
  });

  it('lets a guest that answers inside the interrupt go on, without recursion', () => {
    const device = new Device().start(0b1100, 4);
    let left = 100;
    device.onInterrupt = (line) => {
      if (line === 'sync' && left-- > 0) device.submit([0x46 | (1 << 12), 0, 0, 0]);
    };
    device.submit([0x46 | (1 << 12), 0, 0, 0]);
    expect(device.interrupts).toHaveLength(101);
    expect(device.cons).toBe(101 & 31);
  });

  it('leaves a device alone that was reset from inside a command', () => {
    const device: Device = new Device(QEMU_LIKE, {
      backend: {
        streamsChanged(first) {
          if (first === 9) device.smmu.reset();
        },
        eventQueueChanged() {},
        invalidate: () => INVALIDATE.Complete,
      },
    }).start(0b1101, 4);
    device.submit(SYNC, [0x03, 9, 1, 0], [0x46 | (1 << 12), 0, 0, 0]);
    expect([device.cons, device.read(0x98), device.read(0x20), device.interrupts]).toEqual([0, 0, 0, []]);
  });

  it('lets a guest that acknowledges inside the interrupt go on', () => {
    const device = new Device().start(0b1100, 4);
    device.write(0x50, 1);
    device.onInterrupt = () => {
      device.put(device.cons & 15, SYNC);
      device.write(0x64, device.read(0x60));
    };
    device.submit([0xff, 0, 0, 0], [0xfe, 0, 0, 0], NSNH_ALL, SYNC);
    expect([device.cons, device.errors, device.interrupts.length]).toEqual([4, 0, 2]);
  });
});

describe('the trace', () => {
  it('names commands as QEMU does', () => {
    const device = new Device().start(0b1101);
    device.traced.length = 0;
    device.submit([0x03, 9, 1, 0], [0xff, 0, 0, 0]);
    const names = device.traced.map(([name]) => name);
    expect(device.traced).toContainEqual(['smmuv3_cmdq_opcode', 3]);
    expect(device.traced).toContainEqual(['smmuv3_cmdq_cfgi_ste', 9]);
    expect(names).toContain('smmuv3_cmdq_consume_error');
    expect(names).toContain('smmuv3_write_gerror');
  });
});
