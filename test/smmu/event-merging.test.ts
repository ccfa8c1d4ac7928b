import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { OUTCOME, Transaction, Translation } from '../../src/smmu/transaction.ts';
import { Device, EVENTQ, RAM, record } from '../support/smmu-device.ts';

const STRTAB = RAM + 0x3_0000;
const CD = RAM + 0x3_1000;
const TABLE = RAM + 0x3_2000;
const PROD = 0x1_00a8;
const CONS = 0x1_00ac;
const MEV = 1 << 19;

/** StreamIDs 0 and 1 with stage 1 and an empty table, StreamID 0 with MEV=1; StreamIDs 2 and 3 have no valid STE. */
class Faulting extends Device {
  readonly #result = new Translation();

  constructor(mergeEvents: boolean | undefined, fields = {}) {
    super(identify(QEMU_LIKE, fields), {
      ...(mergeEvents !== undefined && { mergeEvents }),
      stalls: { resolved() {} },
    });
    const at = (address: number): number => (address - RAM) / 4;
    for (const sid of [0, 1]) this.ram[at(STRTAB) + 16 * sid] = CD | (5 << 1) | 1;
    this.ram[at(STRTAB) + 2] = MEV;
    this.ram[at(CD)] = (25 | (1 << 30) | (1 << 31)) >>> 0;
    this.ram[at(CD) + 1] = 4 | (1 << 9) | (1 << 13) | (1 << 14);
    this.ram[at(CD) + 2] = TABLE;
    this.write64(0x80, 0, STRTAB);
    this.write(0x88, 2);
    this.start(0b1101, 4, 1);
    this.write(0x50, 4);
  }

  /** The CD has S=1. */
  stall(): this {
    this.ram[(CD - RAM) / 4 + 1] |= 1 << 12;
    return this;
  }

  fault(sid: number, addrLo = 0x1000, fields: Partial<Transaction> = {}): number {
    return this.smmu.translate(Object.assign(new Transaction(), { sid, addrLo, ...fields }), this.#result);
  }

  get records(): number {
    return this.read(PROD);
  }
}

describe('events are not merged', () => {
  it.each([
    ['unless the device is asked to', undefined, 0],
    ['where STE.MEV=0', true, 1],
  ] as const)('%s', (_what, mergeEvents, sid) => {
    const device = new Faulting(mergeEvents);
    device.fault(sid);
    device.fault(sid);
    expect(device.records).toBe(2);
  });

  it.each<[string, (device: Faulting) => void]>([
    ['the page', (device) => void device.fault(0, 0x2000)],
    ['the direction', (device) => void device.fault(0, 0x1000, { write: true })],
    ['the privilege', (device) => void device.fault(0, 0x1000, { privileged: true })],
    ['the upper half of the address', (device) => void device.fault(0, 0x1000, { addrHi: 1 })],
    ['the stream', (device) => void device.fault(1)],
  ])('if they differ in %s', (_what, other) => {
    const device = new Faulting(true);
    device.fault(0);
    other(device);
    expect(device.records).toBe(2);
  });

  it('if another record is between them', () => {
    const device = new Faulting(true);
    device.write(0x20, 0b1001);
    device.write64(0xa0, 0, EVENTQ | 3);
    device.write(0x20, 0b1101);
    device.fault(0);
    device.smmu.recordEvent(record(7));
    device.fault(0);
    expect(device.records).toBe(3);
  });

  it('with one that was read already', () => {
    const device = new Faulting(true);
    device.fault(0);
    device.write(CONS, 1);
    device.fault(0);
    expect(device.records).toBe(2);
  });

  it('with one of a queue that has gone', () => {
    const device = new Faulting(true);
    device.fault(0);
    device.write(0x20, 0b1001);
    device.write64(0xa0, 0, EVENTQ | 1);
    device.write(PROD, 1);
    device.write(0x20, 0b1101);
    device.fault(0);
    expect(device.records).toBe(2);
  });

  it('if they stall: each has its own STAG', () => {
    const device = new Faulting(true, { STALL_MODEL: 0, STALL_MAX: 4 }).stall();
    expect(device.fault(0, 0x1000, { mayStall: true })).toBe(OUTCOME.Stalled);
    expect(device.fault(0, 0x1000, { mayStall: true })).toBe(OUTCOME.Stalled);
    expect(device.records).toBe(2);
  });

  it('if the bridge records them', () => {
    const device = new Faulting(true);
    device.smmu.recordEvent(record(7));
    device.smmu.recordEvent(record(7));
    expect(device.records).toBe(2);
  });
});

describe('with mergeEvents one record stands for several events', () => {
  it('of a stream with MEV=1, whatever the low twelve bits of the address', () => {
    const device = new Faulting(true);
    for (const offset of [0x000, 0x004, 0xfff]) device.fault(0, 0x1000 + offset);
    expect(device.records).toBe(1);
    expect(device.event(0, 4)).toBe(0x1000);
    expect(device.interrupts).toEqual(['eventq']);
  });

  it('that come before any STE', () => {
    const device = new Faulting(true);
    device.fault(2);
    device.fault(2);
    expect(device.records).toBe(1);
    expect(device.event(0)).toBe(0x04);
  });

  it('so that a full queue loses nothing that it has as its last record', () => {
    const device = new Faulting(true);
    device.smmu.recordEvent(record(7));
    device.fault(0);
    device.fault(0);
    expect(device.records).toBe(2);
  });
});
