import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { INVALIDATE } from '../../src/smmu/ports.ts';
import { CMDQ, Device, NSNH_ALL, RAM, SYNC, type Command } from '../support/smmu-device.ts';

const ATC_INV_SYNC = 3;
const CMDQ_ERR = 1;
const STAGE_1 = identify(QEMU_LIKE, { S2P: 0 });
const ATS = identify(QEMU_LIKE, { ATS: 1 });
const PRI = identify(QEMU_LIKE, { ATS: 1, PRI: 1, PRIQS: 4 });
const NO_RIL = identify(QEMU_LIKE, { RIL: 0 });
const MSI = identify(QEMU_LIKE, { MSI: 1 });

describe('invalidations', () => {
  it('are handed over together at the CMD_SYNC, with the device not yet past it', () => {
    const device = new Device().start(0b1101, 6);
    device.submit(NSNH_ALL, [0x10, 0, 0, 0], [0x05, 7, 0, 0]);
    expect(device.batches).toEqual([]);
    device.submit(SYNC);
    expect(device.batches).toEqual([[0x30, 0x10, 0x05]]);
    device.submit(SYNC);
    expect(device.batches).toHaveLength(1);
  });

  it('keep their order with changes of the stream table inside a window', () => {
    const device = new Device().start(0b1101, 6);
    device.backend.length = 0;
    device.submit(NSNH_ALL, [0x03, 9, 1, 0], [0x10, 0, 0, 0], [0x05, 9, 0, 0], [0x03, 8, 1, 0], SYNC);
    expect(device.backend).toEqual(['invalidate 30', 'streams 9..9', 'invalidate 10 5', 'streams 8..8']);
  });

  it('are handed over in pieces when a window is long', () => {
    const device = new Device();
    device.write64(0x90, 0, CMDQ | 12);
    device.write(0x20, 8);
    for (let slot = 0; slot < 2100; slot++) device.put(slot, NSNH_ALL);
    device.put(2100, SYNC);
    device.write(0x98, 2101);
    expect(device.batches.map((batch) => batch.length)).toEqual([1024, 1024, 52]);
    expect(device.cons).toBe(2101);
  });

  it('reach the backend without bits that mean nothing', () => {
    const words: number[][] = [];
    const device = new Device(NO_RIL, {
      backend: {
        streamsChanged() {},
        eventQueueChanged() {},
        invalidate(batch) {
          words.push(Array.from(batch.words.subarray(0, batch.count * 4)));
          return INVALIDATE.Complete;
        },
      },
    }).start(0b1101, 6);
    device.submit([0xffff_ff12, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff], SYNC);
    device.submit([0xffff_fb05, 0x1234, 0xffff_ffff, 0xffff_ffff], SYNC);
    // No range fields without RIL; no SubstreamID without SSIDSIZE.
    expect(words).toEqual([
      [0x12, 0xffff_ffff, 0xffff_f001, 0xffff_ffff],
      [0x05, 0x1234, 1, 0],
    ]);
  });

  it('have no VMID without stage 2, and no range fields with TG=0', () => {
    const words: number[][] = [];
    const device = new Device(STAGE_1, {
      backend: {
        streamsChanged() {},
        eventQueueChanged() {},
        invalidate(batch) {
          words.push(Array.from(batch.words.subarray(0, batch.count * 4)));
          return INVALIDATE.Complete;
        },
      },
    }).start(0b1101, 6);
    device.submit([0x12 | (3 << 12), 0x0007_0009, 0x1000 | (3 << 8) | 1, 2], SYNC);
    expect(words).toEqual([[0x12, 0x0007_0000, 0x1001, 2]]);
  });

  it('are kept over an error between them and their CMD_SYNC', () => {
    const device = new Device().start();
    device.submit(NSNH_ALL, [0xff, 0, 0, 0], SYNC);
    device.put(1, SYNC);
    device.write(0x64, 1);
    expect(device.batches).toEqual([[0x30]]);
  });

  it('are forgotten by a reset', () => {
    const device = new Device().start();
    device.submit(NSNH_ALL);
    device.smmu.reset();
    device.start();
    device.submit(SYNC);
    expect(device.batches).toEqual([]);
  });
});

describe('CFGI_STE', () => {
  it.each([
    [0, 5, '4..5'],
    [3, 0x1234, '4656..4671'],
    [7, 0x12ff, '4608..4863'],
    [15, 0x1234, '0..65535'],
    [30, 0x1234, '0..65535'],
    [31, 0xdead_beef, '0..65535'],
  ])('RANGE=%d of StreamID %d is %s', (range, sid, expected) => {
    const device = new Device().start(0b1101);
    device.backend.length = 0;
    device.submit([0x04, sid, range, 0]);
    expect(device.backend).toEqual([`streams ${expected}`]);
  });

  it('of a StreamID that cannot be has no effect and is no error', () => {
    const device = new Device().start(0b1101);
    device.backend.length = 0;
    device.submit([0x03, 0x1_0000, 1, 0], [0x04, 0x8000_0000, 3, 0], SYNC);
    expect(device.backend).toEqual([]);
    expect([device.cons, device.errors]).toEqual([3, 0]);
  });

  it('covers 32-bit StreamIDs', () => {
    const device = new Device(identify(QEMU_LIKE, { SIDSIZE: 32 })).start(0b1101);
    device.backend.length = 0;
    device.submit([0x03, 0xffff_ffff, 1, 0], [0x04, 0xffff_ffff, 30, 0], [0x04, 0, 31, 0]);
    expect(device.backend).toEqual([
      'streams 4294967295..4294967295',
      'streams 2147483648..4294967295',
      'streams 0..4294967295',
    ]);
  });
});

describe('CMD_ATC_INV', () => {
  it('is ignored while SMMUEN=0', () => {
    const device = new Device(ATS).start(0b1100);
    device.submit([0x40, 1, 52, 0], SYNC);
    expect([device.batches, device.cons]).toEqual([[], 2]);
  });

  it('that is not answered makes the CMD_SYNC fail, without a signal, once', () => {
    const device = new Device(ATS).start(0b1101);
    device.invalidateStatus = INVALIDATE.AtcInvTimeout;
    const sync: Command = [0x46 | (1 << 12), 0, 0, 0];
    device.submit([0x40, 1, 52, 0], sync);
    expect([device.cons, device.cerror, device.errors]).toEqual([1, ATC_INV_SYNC, CMDQ_ERR]);
    expect(device.interrupts).toEqual([]);
    device.write(0x64, 1);
    expect([device.cons, device.errors]).toEqual([2, 0]);
    expect(device.interrupts).toEqual(['sync']);
    expect(device.batches).toHaveLength(1);
  });

  it('is remembered if its piece of the window went before', () => {
    const device = new Device(ATS).start(0b1101);
    device.invalidateStatus = INVALIDATE.AtcInvTimeout;
    device.submit([0x40, 1, 52, 0], [0x03, 2, 1, 0]);
    expect(device.errors).toBe(0);
    device.submit(SYNC);
    expect([device.cons, device.cerror]).toEqual([2, ATC_INV_SYNC]);
  });
});

describe('CMD_PRI_RESP', () => {
  it('goes to its port, unless SMMUEN=0', () => {
    const answers: unknown[][] = [];
    const device = new Device(PRI, { responses: { respond: (...all) => void answers.push(all) } }).start(
      0b1100,
    );
    device.submit([0x41, 7, 5 | (2 << 12), 0]);
    expect(answers).toEqual([]);
    device.write(0x20, 0b1101);
    device.submit([0x41, 7, 5 | (2 << 12), 0]);
    expect(answers).toEqual([[7, false, 0, 5, 2]]);
    expect(device.cons).toBe(2);
  });
});

describe('CMD_SYNC', () => {
  const irq = (address = 0, data = 0): Command => [0x46 | (1 << 12), data, address, 0];

  it('pulses the wired output for CS=IRQ after CONS has passed it, whatever IRQ_CTRL says', () => {
    const device = new Device().start();
    const seen: number[] = [];
    device.onInterrupt = () => void seen.push(device.cons);
    device.submit(NSNH_ALL, irq(), SYNC);
    expect(device.interrupts).toEqual(['sync']);
    expect(seen).toEqual([2]);
  });

  it('ignores the address without IDR0.MSI', () => {
    const device = new Device().start();
    device.submit(irq(RAM, 0x55));
    expect(device.interrupts).toEqual(['sync']);
  });

  it('sends the MSI as well with IDR0.MSI and an address', () => {
    const device = new Device(MSI).start();
    device.submit(irq(RAM + 4, 0x1234_5678), irq(0, 5));
    expect(device.interrupts).toEqual(['sync', `msi 0:${(RAM + 4).toString(16)} 12345678`, 'sync']);
  });

  it('sends no MSI for CS=SEV or none', () => {
    const device = new Device(MSI).start();
    device.submit([0x46, 5, RAM, 0], [0x46 | (2 << 12), 5, RAM, 0]);
    expect(device.interrupts).toEqual([]);
  });

  it('truncates the MSI address to the output address size after the test for zero', () => {
    const device = new Device(MSI).start();
    device.submit([0x46 | (1 << 12), 9, 0x100, 0x00ff_f000]);
    expect(device.interrupts).toEqual(['sync', 'msi 0:100 9']);
  });

  it('is complete although its MSI aborts, which is an error of its own', () => {
    const device = new Device(MSI).start();
    device.msiAborts = true;
    device.write(0x50, 1);
    device.submit(irq(RAM), SYNC);
    expect([device.cons, device.errors]).toEqual([2, 1 << 4]);
    expect(device.interrupts).toEqual(['sync', 'gerror']);
  });
});
