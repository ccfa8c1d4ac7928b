import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE, type IdRegisters } from '../../src/smmu/identification.ts';
import { INVALIDATE } from '../../src/smmu/ports.ts';
import { CMDQ, Device, NOWHERE, NSNH_ALL, RAM, SYNC, type Command } from '../support/smmu-device.ts';

const ILL = 1;
const ABT = 2;
const ATC_INV_SYNC = 3;
const CMDQ_ERR = 1;

const STAGE_1 = identify(QEMU_LIKE, { S2P: 0 });
const STAGE_2 = identify(QEMU_LIKE, { S1P: 0, HAD: 0 });
const HYP = identify(QEMU_LIKE, { HYP: 1 });
const ATS = identify(QEMU_LIKE, { ATS: 1 });
const PRI = identify(QEMU_LIKE, { ATS: 1, PRI: 1, PRIQS: 4 });
const STALLS = identify(QEMU_LIKE, { STALL_MODEL: 0, STALL_MAX: 8 });
const NO_RIL = identify(QEMU_LIKE, { RIL: 0 });
const MSI = identify(QEMU_LIKE, { MSI: 1 });
const EVERYTHING = identify(QEMU_LIKE, {
  HYP: 1,
  ATS: 1,
  PRI: 1,
  PRIQS: 4,
  STALL_MODEL: 0,
  STALL_MAX: 8,
  MSI: 1,
});

/** Opcodes that are legal with each set of features; every other of the 256 must be CERROR_ILL (4.1.1, 7.1). */
const BASE = [0x01, 0x02, 0x03, 0x04, 0x30, 0x46];
const S1 = [0x05, 0x06, 0x10, 0x11, 0x12, 0x13];
const S2 = [0x28, 0x2a];
const LEGAL: readonly (readonly [string, IdRegisters, readonly number[]])[] = [
  ['both stages', QEMU_LIKE, [...BASE, ...S1, ...S2]],
  ['stage 1 only', STAGE_1, [...BASE, ...S1]],
  ['stage 2 only', STAGE_2, [...BASE, ...S2]],
  ['HYP', HYP, [...BASE, ...S1, ...S2, 0x20, 0x21, 0x22, 0x23]],
  ['ATS', ATS, [...BASE, ...S1, ...S2, 0x40]],
  ['PRI', PRI, [...BASE, ...S1, ...S2, 0x40, 0x41]],
  ['stalls', STALLS, [...BASE, ...S1, ...S2, 0x44, 0x45]],
  [
    'stalls forced',
    identify(QEMU_LIKE, { STALL_MODEL: 2, STALL_MAX: 8 }),
    [...BASE, ...S1, ...S2, 0x44, 0x45],
  ],
  ['everything', EVERYTHING, [...BASE, ...S1, ...S2, 0x20, 0x21, 0x22, 0x23, 0x40, 0x41, 0x44, 0x45]],
];

/** Runs one command followed by a CMD_SYNC. @returns the CERROR code, 0 if both were consumed. */
function outcome(ids: IdRegisters, command: Command, cr0 = 0b1101): number {
  const device = new Device(ids).start(cr0);
  device.submit(command, SYNC);
  if ((device.errors & CMDQ_ERR) === 0) {
    expect(device.cons).toBe(2);
    return 0;
  }
  expect(device.cons).toBe(0);
  return device.cerror;
}

describe('legality of commands', () => {
  it.each(LEGAL)('with %s: exactly the opcodes that exist', (_title, ids, legal) => {
    const found: number[] = [];
    for (let opcode = 0; opcode < 256; opcode++) {
      const code = outcome(ids, [opcode, 0, 0, 0]);
      if (code === 0) found.push(opcode);
      else expect(code).toBe(ILL);
    }
    expect(found).toEqual([...legal].sort((a, b) => a - b));
  });

  it.each([0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x44, 0x45])('opcode %d with SSec=1 is illegal', (opcode) => {
    expect(outcome(EVERYTHING, [opcode | (1 << 10), 0, 0, 0])).toBe(ILL);
    expect(outcome(EVERYTHING, [opcode, 0, 0, 0])).toBe(0);
  });

  it.each([0x12, 0x13, 0x22, 0x23, 0x2a])(
    'opcode %d with a reserved range is illegal only with RIL',
    (op) => {
      const ids = identify(QEMU_LIKE, { HYP: 1 });
      const without = identify(QEMU_LIKE, { HYP: 1, RIL: 0 });
      for (const tg of [1, 2, 3]) {
        expect(outcome(ids, [op, 0, tg << 10, 0])).toBe(ILL);
        expect(outcome(without, [op, 0, tg << 10, 0])).toBe(0);
        expect(outcome(ids, [op | (1 << 12), 0, tg << 10, 0])).toBe(0);
        expect(outcome(ids, [op | (1 << 20), 0, tg << 10, 0])).toBe(0);
        expect(outcome(ids, [op | (1 << 25), 0, tg << 10, 0])).toBe(0);
        expect(outcome(ids, [op, 0, (tg << 10) | (2 << 8), 0])).toBe(0);
        // 4.4.1.1: level 1 of 16 KiB needs DS; without it TTL=1 is no hint.
        expect(outcome(ids, [op, 0, (tg << 10) | (1 << 8), 0])).toBe(tg === 2 ? ILL : 0);
      }
      expect(outcome(ids, [op, 0, 0, 0])).toBe(0);
      expect(outcome(ids, [op, 0, 3 << 8, 0])).toBe(0);
    },
  );

  it('takes level 1 of 16 KiB with DS', () => {
    const ids = identify(QEMU_LIKE, { DS: 1, VAX: 1, OAS: 6 });
    expect(outcome(ids, [0x12, 0, (2 << 10) | (1 << 8), 0])).toBe(0);
  });

  it('rejects CMD_SYNC with CS=3 and takes the others', () => {
    for (const cs of [0, 1, 2]) expect(outcome(QEMU_LIKE, [0x46 | (cs << 12), 0, 0, 0])).toBe(0);
    expect(outcome(QEMU_LIKE, [0x46 | (3 << 12), 0, 0, 0])).toBe(ILL);
  });

  it('rejects CMD_PRI_RESP with Resp=3', () => {
    for (const resp of [0, 1, 2]) expect(outcome(PRI, [0x41, 0, resp << 12, 0])).toBe(0);
    expect(outcome(PRI, [0x41, 0, 3 << 12, 0])).toBe(ILL);
  });

  it('rejects CMD_ATC_INV of more than the address space', () => {
    expect(outcome(ATS, [0x40, 0, 52, 0])).toBe(0);
    expect(outcome(ATS, [0x40, 0, 53, 0])).toBe(ILL);
  });

  it('puts ILLEGAL before IGNORED while SMMUEN=0', () => {
    expect(outcome(QEMU_LIKE, [0x40, 0, 0, 0], 0b1100)).toBe(ILL);
    expect(outcome(QEMU_LIKE, [0x41, 0, 0, 0], 0b1100)).toBe(ILL);
    expect(outcome(PRI, [0x41, 0, 3 << 12, 0], 0b1100)).toBe(ILL);
    expect(outcome(ATS, [0x40, 0, 53, 0], 0b1100)).toBe(ILL);
  });

  it('ignores reserved bits', () => {
    expect(outcome(QEMU_LIKE, [0x30 | 0xffff_ff00, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff])).toBe(0);
    expect(outcome(QEMU_LIKE, [0x46 | 0xc000, 0, 0, 0xff00_0000])).toBe(0);
  });
});

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
