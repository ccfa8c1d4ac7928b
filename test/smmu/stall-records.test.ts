import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { OUTCOME, Transaction, Translation } from '../../src/smmu/transaction.ts';
import { type Command, Device, NSNH_ALL, RAM, SYNC, record } from '../support/smmu-device.ts';

const STALLS = identify(QEMU_LIKE, { STALL_MODEL: 0, STALL_MAX: 2 });
const STRTAB = RAM + 0x3_0000;
const CD = RAM + 0x3_1000;
const TABLE = RAM + 0x3_2000;
const CONS = 0x1_00ac;
const PROD = 0x1_00a8;

/** A device whose StreamID 0 stalls on a stage 1 fault, and has an empty table; its event queue has two entries. */
class StallingDevice extends Device {
  readonly resolved: [number, number][] = [];
  readonly result = new Translation();

  constructor() {
    super(STALLS, {
      stalls: { resolved: (stag, _transaction, result) => void this.resolved.push([stag, result.outcome]) },
    });
    const at = (address: number): number => (address - RAM) / 4;
    // Config=0b101, V; S1ContextPtr.
    this.ram[at(STRTAB)] = CD | (5 << 1) | 1;
    // T0SZ=25, EPD1, V; IPS=44 bits, AA64, S, R, A.
    this.ram[at(CD)] = (25 | (1 << 30) | (1 << 31)) >>> 0;
    this.ram[at(CD) + 1] = 4 | (1 << 9) | (1 << 12) | (1 << 13) | (1 << 14);
    this.ram[at(CD) + 2] = TABLE;
    this.write64(0x80, 0, STRTAB);
    this.write(0x88, 0);
    this.start(0b1101, 4, 1);
  }

  fault(): number {
    const transaction = new Transaction();
    transaction.addrLo = 0x1000;
    transaction.mayStall = true;
    return this.smmu.translate(transaction, this.result);
  }
}

describe('the record of a stalled transaction', () => {
  it('is written at once where there is room, with Stall and STAG', () => {
    const device = new StallingDevice();
    expect(device.fault()).toBe(OUTCOME.Stalled);
    expect([device.event(0) & 0xff, device.event(0, 2) >>> 31, device.event(0, 2) & 0xffff]).toEqual([
      0x10,
      1,
      device.result.stag,
    ]);
  });

  it('is kept while the queue is full, without overflow, and written when there is room', () => {
    const device = new StallingDevice();
    device.smmu.recordEvent(record(1));
    device.smmu.recordEvent(record(2));
    expect(device.fault()).toBe(OUTCOME.Stalled);
    expect(device.read(PROD)).toBe(2);
    device.write(CONS, 1);
    expect(device.read(PROD)).toBe(3);
    expect(device.event(0, 2) >>> 31).toBe(1);
  });

  it('is kept while the queue is disabled, and written when it is enabled', () => {
    const device = new StallingDevice();
    device.write(0x20, 0b1001);
    expect(device.fault()).toBe(OUTCOME.Stalled);
    expect(device.read(PROD)).toBe(0);
    device.write(0x20, 0b1101);
    expect(device.read(PROD)).toBe(1);
  });

  it('is kept while an abort is unacknowledged', () => {
    const device = new StallingDevice();
    device.write(0x20, 0b1001);
    device.write64(0xa0, 0, 0x9000_0001);
    device.write(0x20, 0b1101);
    expect(device.fault()).toBe(OUTCOME.Stalled);
    expect(device.errors).toBe(4);
    device.write(0x20, 0b1001);
    device.write64(0xa0, 0, (RAM + 0x2_0000) | 1);
    device.write(0x20, 0b1101);
    expect(device.read(PROD)).toBe(0);
    device.write(0x64, 4);
    expect(device.read(PROD)).toBe(1);
  });
});

describe('the kept record of a stalled transaction, once something was invalidated (4.7.3)', () => {
  const TLBI_CFGI: [Command, Command][] = [
    [NSNH_ALL, SYNC],
    [[0x03, 0, 1, 0], SYNC],
  ];

  /** A device with a stalled transaction whose record is kept, for the queue is full. */
  function kept(): StallingDevice {
    const device = new StallingDevice();
    device.smmu.recordEvent(record(1));
    device.smmu.recordEvent(record(2));
    expect(device.fault()).toBe(OUTCOME.Stalled);
    return device;
  }
  const word = (address: number): number => (address - RAM) / 4;
  /** Makes room for both records. */
  const drain = (device: StallingDevice): void => device.write(CONS, 2);

  it.each(TLBI_CFGI)(
    'is never written: the transaction is tried again, and here it ends well',
    (...commands) => {
      const device = kept();
      // A block of 1 GiB: AF, unprivileged, writable.
      device.ram[word(TABLE)] = 0x4000_0000 | (1 << 10) | (1 << 6) | 1;
      device.submit(...commands);
      expect(device.resolved).toEqual([]);
      drain(device);
      expect(device.resolved).toEqual([[0, OUTCOME.Ok]]);
      expect(device.read(PROD)).toBe(2);
    },
  );

  it('is replaced by what the new configuration makes of it', () => {
    const device = kept();
    device.ram[word(STRTAB)] = 0;
    device.submit([0x03, 0, 1, 0], SYNC);
    drain(device);
    expect(device.resolved).toEqual([[0, OUTCOME.Abort]]);
    expect(device.read(PROD)).toBe(3);
    expect(device.event(0)).toBe(0x04);
  });

  it('is replaced by a new one if the transaction stalls again', () => {
    const device = kept();
    device.submit(NSNH_ALL, SYNC);
    drain(device);
    expect(device.resolved).toEqual([[0, OUTCOME.Stalled]]);
    expect(device.read(PROD)).toBe(3);
    expect(device.event(0, 2) >>> 31).toBe(1);
    drain(device);
    expect(device.read(PROD)).toBe(3);
  });

  it('is written all the same if nothing was invalidated', () => {
    const device = kept();
    device.ram[word(TABLE)] = 0x4000_0000 | (1 << 10) | (1 << 6) | 1;
    device.submit(SYNC);
    drain(device);
    expect(device.resolved).toEqual([]);
    expect(device.event(0) & 0xff).toBe(0x10);
  });

  it('does not concern transactions whose record was written before', () => {
    const device = new StallingDevice();
    device.fault();
    device.submit(NSNH_ALL, SYNC);
    drain(device);
    expect(device.resolved).toEqual([]);
    expect(device.read(PROD)).toBe(1);
  });
});

describe('commands for stalled transactions', () => {
  it('CMD_RESUME answers the one that it names, and no other', () => {
    const device = new StallingDevice();
    device.fault();
    const stag = device.result.stag;
    device.submit([0x44 | (1 << 13), 1, stag, 0], [0x44 | (1 << 13), 0, stag ^ 1, 0]);
    expect(device.resolved).toEqual([]);
    device.submit([0x44 | (1 << 13), 0, stag, 0]);
    expect(device.resolved).toEqual([[stag, OUTCOME.Abort]]);
    device.submit([0x44 | (1 << 13), 0, stag, 0]);
    expect(device.resolved).toHaveLength(1);
    expect(device.errors).toBe(0);
  });

  it('CMD_RESUME with Ac=1 tries again', () => {
    const device = new StallingDevice();
    device.fault();
    const stag = device.result.stag;
    device.submit([0x44 | (1 << 12), 0, stag, 0]);
    expect(device.resolved).toEqual([[stag, OUTCOME.Stalled]]);
    expect(device.read(PROD)).toBe(2);
  });

  it('CMD_STALL_TERM aborts all of a StreamID, and so does SMMUEN=0', () => {
    const device = new StallingDevice();
    device.fault();
    device.fault();
    device.submit([0x45, 1, 0, 0]);
    expect(device.resolved).toEqual([]);
    device.submit([0x45, 0, 0, 0]);
    expect(device.resolved.map(([, outcome]) => outcome)).toEqual([OUTCOME.Abort, OUTCOME.Abort]);
    device.write(CONS, 2);
    expect(device.fault()).toBe(OUTCOME.Stalled);
    device.write(0x20, 0b1100);
    expect(device.resolved).toHaveLength(3);
  });
});
