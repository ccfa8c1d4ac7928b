import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE, type IdRegisters } from '../../src/smmu/identification.ts';
import { implementedBits } from '../../src/smmu/register-file.ts';
import { REGISTERS, type RegisterSpec, type WriteRule } from '../../src/spec/registers.ts';
import { Device, EVENTQ, NOWHERE } from '../support/smmu-device.ts';

/** All that the model can have besides. */
const FULL: IdRegisters = identify(QEMU_LIKE, {
  ATS: 1,
  PRI: 1,
  PRIQS: 8,
  MSI: 1,
  HYP: 1,
  ATSRECERR: 1,
  SSIDSIZE: 20,
  STALL_MODEL: 0,
  STALL_MAX: 16,
});

const word = fc.integer({ min: 0, max: 0xffff_ffff });
const halves = (spec: RegisterSpec): (0 | 1)[] => (spec.width === 64 ? [0, 1] : [0]);
const bySet: [string, IdRegisters][] = [
  ['few features', QEMU_LIKE],
  ['all features', FULL],
];

/** What opens each guard: nothing enabled. What closes it: this register and value. */
const CLOSED: Partial<Record<WriteRule, [number, number]>> = {
  SMMUEN: [0x20, 1],
  PRIQEN: [0x20, 2],
  EVENTQEN: [0x20, 4],
  CMDQEN: [0x20, 8],
  GERROR_IRQEN: [0x50, 1],
  PRIQ_IRQEN: [0x50, 2],
  EVENTQ_IRQEN: [0x50, 4],
};

describe('accesses that no register has', () => {
  it.each([
    [0x20, 1],
    [0x20, 2],
    [0x20, 16],
    [0x20, 0],
    [0x22, 4],
    [0x24, 8],
    [0x1_fffc, 8],
    [0x2_0000, 4],
    [-4, 4],
    [0.5, 4],
    [Number.NaN, 4],
    [Infinity, 8],
    [2 ** 40, 4],
  ])('offset %d, size %d reads zero and writes nothing', (offset, size) => {
    const device = new Device();
    const before = Array.from(device.smmu.registers);
    device.smmu.write(offset, size, 0xffff_ffff, 0xffff_ffff);
    expect(device.smmu.read(offset, size)).toBe(0);
    expect(device.smmu.readHi).toBe(0);
    expect(Array.from(device.smmu.registers)).toEqual(before);
  });

  it('reads zero and ignores writes at every offset that the table does not name', () => {
    const device = new Device(FULL);
    const named = new Set<number>([0xa8, 0xac, 0xc8, 0xcc]);
    for (const spec of REGISTERS) for (const half of halves(spec)) named.add(spec.offset + 4 * half);
    for (let offset = 0; offset < 0x2_0000; offset += 4) {
      if (named.has(offset)) continue;
      device.write(offset, 0xffff_ffff);
      if (device.read(offset) !== 0) expect.fail(`offset ${offset.toString(16)}`);
    }
    expect(device.read(0x8000)).toBe(0);
  });
});

describe.each(bySet)('with %s', (_title, ids) => {
  it('never changes a read-only register', () => {
    fc.assert(
      fc.property(word, word, (hi, lo) => {
        const device = new Device(ids);
        for (const spec of REGISTERS.filter(({ write }) => write === 'RO'))
          for (const half of halves(spec)) {
            const before = device.read(spec.offset + 4 * half);
            device.write(spec.offset + 4 * half, lo);
            device.write64((spec.offset + 4 * half) & ~7, hi & ~0x8000_0000, 0);
            // The neighbours of CR0ACK and IRQ_CTRLACK are theirs to follow.
            device.write(0x20, 0);
            device.write(0x50, 0);
            device.write(0x64, 0);
            expect(device.read(spec.offset + 4 * half)).toBe(before);
          }
      }),
      { numRuns: 50 },
    );
  });

  it('keeps reserved bits zero and stores all others', () => {
    for (const spec of REGISTERS) {
      if (spec.write === 'RO') continue;
      for (const half of halves(spec)) {
        const offset = spec.offset + 4 * half;
        const device = new Device(ids);
        device.write(offset, 0xffff_ffff);
        let expected = implementedBits(spec, half, ids);
        if (spec.write === 'UPDATE') expected = (expected & 0x7fff_ffff) >>> 0;
        // SMMU-owned indices keep one bit of a queue of one entry, and its wrap flag.
        if (['CMDQ_CONS', 'EVENTQ_PROD', 'PRIQ_PROD'].includes(spec.name))
          expected = (expected & 0xfff0_0001) >>> 0;
        expect(device.read(offset), spec.name).toBe(expected);
        device.write(offset, spec.write === 'UPDATE' ? 0x8000_0000 : 0);
        expect(device.read(offset), spec.name).toBe(0);
      }
    }
  });

  it('ignores writes to a guarded register while what it belongs to is enabled', () => {
    fc.assert(
      fc.property(word, word, (before, after) => {
        for (const spec of REGISTERS) {
          const closed = CLOSED[spec.write];
          if (closed === undefined) continue;
          for (const half of halves(spec)) {
            const device = new Device(ids);
            // Queues lie outside RAM, and the command queue is empty when it is enabled.
            device.write(0x94, 0x1);
            device.write(0xa4, 0x1);
            const offset = spec.offset + 4 * half;
            device.write(offset, before);
            const stored = device.read(offset);
            device.write(0x98, device.read(0x9c));
            device.write(closed[0], closed[1]);
            if (device.read(closed[0]) === 0) continue; // The enable bit itself is RES0.
            device.write(offset, after);
            const own = implementedBits(spec, half, ids, spec.write);
            expect(device.read(offset) & own, spec.name).toBe(stored & own);
            device.write(closed[0], 0);
            device.write(offset, after);
            expect(device.read(offset) & own, spec.name).toBe(
              after & own & (spec.name === 'CMDQ_CONS' || spec.name.endsWith('PROD') ? 0xfff0_0001 : ~0),
            );
          }
        }
      }),
      { numRuns: 20 },
    );
  });
});

describe('reset values', () => {
  it('are those of the architecture', () => {
    const device = new Device(FULL);
    for (const { name, offset, reset } of REGISTERS)
      if (reset === 'zero') expect(device.read(offset), name).toBe(0);
  });

  it('show the ID registers', () => {
    const device = new Device();
    expect([0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x1c].map((offset) => device.read(offset))).toEqual([
      0x0d44_101b, 0x0273_0010, 0, 0x1414, 0, 0x74, 0, 1,
    ]);
    expect([0xff0, 0xff4, 0xff8, 0xffc].map((offset) => device.read(offset))).toEqual([
      0x0d, 0xf0, 0x05, 0xb1,
    ]);
  });

  it('come back after reset(), and the backend hears of it', () => {
    const device = new Device().start(0b1101);
    device.submit([0xff, 0, 0, 0]);
    device.smmu.recordEvent(Uint32Array.of(0x10, 1, 0, 0, 0, 0, 0, 0));
    device.write(0x50, 5);
    device.backend.length = 0;
    device.smmu.reset();
    const fresh = new Device();
    expect(device.smmu.registers).toEqual(fresh.smmu.registers);
    expect(device.smmu.page1).toEqual(fresh.smmu.page1);
    expect(device.backend).toEqual(['streams 0..65535', 'eventq']);
    expect(device.read(0x44)).toBe(0x1000);
  });
});

describe('CR0', () => {
  it.each([
    [QEMU_LIKE, 0xd],
    [identify(QEMU_LIKE, { ATS: 1 }), 0x1d],
    [identify(QEMU_LIKE, { ATS: 1, PRI: 1 }), 0x1f],
  ])('acknowledges what is implemented and nothing else (%#)', (ids, bits) => {
    const device = new Device(ids);
    device.write(0x94, 0xff_ffff);
    device.write(0x20, 0xffff_ffff);
    expect(device.read(0x20)).toBe(bits);
    expect(device.read(0x24)).toBe(bits);
  });

  it('tells the backend about SMMUEN and EVENTQEN, once for each change', () => {
    const device = new Device().start(0);
    device.backend.length = 0;
    device.write(0x20, 8);
    expect(device.backend).toEqual([]);
    device.write(0x20, 0xc);
    expect(device.backend).toEqual(['eventq']);
    device.write(0x20, 0xd);
    expect(device.backend).toEqual(['eventq', 'streams 0..65535']);
    device.write(0x20, 0xd);
    expect(device.backend).toHaveLength(2);
    // A crash kernel turns the event queue off and the SMMU on in one write.
    device.write(0x20, 0xc);
    device.backend.length = 0;
    device.write(0x20, 0x9);
    expect(device.backend).toEqual(['streams 0..65535', 'eventq']);
  });
});

describe('GBPA', () => {
  it('ignores a write without UPDATE', () => {
    const device = new Device();
    device.write(0x44, 0x0010_0000);
    expect(device.read(0x44)).toBe(0x1000);
    expect(device.backend).toEqual([]);
  });

  it('takes a write with UPDATE at once, and then reads UPDATE as 0', () => {
    const device = new Device();
    device.write(0x44, 0x8010_0000);
    expect(device.read(0x44)).toBe(0x0010_0000);
    expect(device.smmu.gbpaAbort).toBe(true);
    expect(device.backend).toEqual(['streams 0..65535']);
  });

  it('says nothing to the backend while SMMUEN=1, for it is not in use', () => {
    const device = new Device();
    device.write(0x20, 1);
    device.backend.length = 0;
    device.write(0x44, 0x8010_0000);
    expect(device.backend).toEqual([]);
    device.write(0x20, 0);
    expect(device.backend).toEqual(['streams 0..65535']);
  });
});

describe('CR1', () => {
  it.each([1, 4, 8])('splits its guard between tables and queues (CR0=%d)', (cr0) => {
    const device = new Device();
    device.write(0x28, 0xd75);
    device.write(0x94, 0x1);
    device.write(0x20, cr0);
    device.write(0x28, 0);
    expect(device.read(0x28)).toBe(cr0 === 1 ? 0xd40 : 0x035);
  });
});

describe('64-bit registers', () => {
  it('can be written as two halves, in either order, or at once', () => {
    const device = new Device();
    device.write(0x84, 0x4000_0000);
    device.write(0x80, 0x4122_0000);
    expect(device.smmu.read(0x80, 8)).toBe(0x4122_0000);
    expect(device.smmu.readHi).toBe(0x4000_0000);
    device.write64(0x80, 0x4000_0012, 0x4123_0000);
    expect(device.read(0x80)).toBe(0x4123_0000);
    expect(device.read(0x84)).toBe(0x4000_0012);
  });

  it('tell the backend once that the event queue moved', () => {
    const device = new Device();
    device.write64(0xa0, 0, EVENTQ | 5);
    expect(device.backend).toEqual(['eventq']);
    expect(device.smmu.eventqLog2Size).toBe(5);
  });

  it('cover two 32-bit registers in one access', () => {
    const device = new Device().start(0);
    device.write64(0x98, 3, 5);
    expect([device.read(0x98), device.read(0x9c)]).toEqual([5, 3]);
    expect(device.smmu.read(0x98, 8)).toBe(5);
    expect(device.smmu.readHi).toBe(3);
  });
});

describe('page 1', () => {
  it('shows PROD and CONS of the event queue in page 0 too', () => {
    const device = new Device().start(0);
    device.write(0x1_00a8, 0x8000_0007);
    device.write(0x1_00ac, 0x8000_0003);
    expect([device.read(0xa8), device.read(0xac)]).toEqual([0x8000_0007, 0x8000_0003]);
    device.write(0xac, 5);
    expect(device.read(0x1_00ac)).toBe(5);
  });

  it('has nothing else: CR0 is not there', () => {
    const device = new Device();
    device.write(0x1_0020, 1);
    expect(device.read(0x1_0020)).toBe(0);
    expect(device.read(0x20)).toBe(0);
  });
});

describe('indices', () => {
  it('that the SMMU owns read as zero above the wrap flag, those of software as stored', () => {
    const device = new Device().start(0, 4, 3);
    device.write(0x98, 0xf_ffff);
    device.write(0x9c, 0xf_ffff);
    device.write(0x1_00a8, 0x800f_ffff);
    device.write(0x1_00ac, 0x800f_ffff);
    expect(device.read(0x98)).toBe(0xf_ffff);
    expect(device.read(0x9c)).toBe(0x1f);
    expect(device.read(0x1_00a8)).toBe(0x8000_000f);
    expect(device.read(0x1_00ac)).toBe(0x800f_ffff);
  });

  it('that the SMMU owns are cut when their queue shrinks', () => {
    const device = new Device().start(0, 4, 3);
    device.write(0x9c, 0x1b);
    device.write(0x1_00a8, 0x8000_000d);
    device.write64(0x90, 0, 2);
    device.write64(0xa0, 0, 1);
    expect(device.read(0x9c)).toBe(0x3);
    expect(device.read(0x1_00a8)).toBe(0x8000_0001);
  });

  it('use a size capped by IDR1, while BASE reads back what was written', () => {
    const device = new Device(identify(QEMU_LIKE, { EVENTQS: 4, CMDQS: 4 }));
    device.write64(0xa0, 0, EVENTQ | 19);
    expect(device.smmu.eventqLog2Size).toBe(4);
    expect(device.read(0xa0)).toBe(EVENTQ | 19);
    device.write64(0x90, 0, NOWHERE | 31);
    device.write(0x9c, 0xf_ffff);
    expect(device.read(0x9c)).toBe(0x1f);
  });
});

describe('the PRI queue registers', () => {
  it('are RES0 without IDR0.PRI', () => {
    const device = new Device(identify(QEMU_LIKE, { MSI: 1 }));
    for (const offset of [0xc0, 0xc4, 0xd0, 0xd4, 0xd8, 0xdc, 0x1_00c8, 0x1_00cc]) {
      device.write(offset, 0xffff_ffff);
      expect(device.read(offset)).toBe(0);
    }
  });

  it('keep LO of PRIQ_IRQ_CFG2 without MSIs', () => {
    const device = new Device(identify(QEMU_LIKE, { ATS: 1, PRI: 1, PRIQS: 4 }));
    device.write(0xdc, 0xffff_ffff);
    expect(device.read(0xdc)).toBe(0x8000_0000);
    device.write(0xd0, 0xffff_ffff);
    expect(device.read(0xd0)).toBe(0);
  });
});
