import { describe, expect, it } from 'vitest';
import { TearFreeMemory } from '../../src/memory/memory.ts';
import { GuestRam } from '../../src/qemu/guest-ram.ts';
import { SmmuFunction } from '../../src/qemu/smmu-function.ts';
import { SmmuInterrupts, type SmmuWiring } from '../../src/qemu/smmu-interrupts.ts';
import { VfioUserSession } from '../../src/qemu/vfio-user/session.ts';
import {
  answers,
  concat,
  dmaMap,
  getIrqInfo,
  getRegionInfo,
  message,
  pack,
  regionRead,
  regionWrite,
  reset,
  setIrqs,
  version,
} from '../support/vfio-user.ts';
import type { Answer } from '../support/vfio-user.ts';

const DOORBELL: SmmuWiring = {
  kind: 'doorbell',
  address: 0x0802_0040,
  intids: { eventq: 140, priq: 141, sync: 142, gerror: 143 },
};

/** The function in a session, over registers that record accesses. */
function bench(wiring = DOORBELL): {
  ask: (bytes: Uint8Array, fds?: readonly number[]) => Answer;
  sent: () => Answer[];
  session: VfioUserSession;
  log: string[];
  signals: number[];
  interrupts: SmmuInterrupts;
  memory: TearFreeMemory;
} {
  const log: string[] = [];
  const signals: number[] = [];
  const memory = new TearFreeMemory();
  const interrupts = new SmmuInterrupts(wiring, memory);
  const device = new SmmuFunction({
    name: 'smmu',
    registers: {
      readHi: 0x5566_7788,
      read: (offset, size) => {
        log.push(`read ${offset.toString(16)} ${size}`);
        return 0x1122_3344;
      },
      write: (offset, size, hi, lo) =>
        log.push(`write ${offset.toString(16)} ${size} ${hi.toString(16)} ${lo.toString(16)}`),
    },
    interrupts,
    ram: new GuestRam(undefined as never, memory, () => {}),
    reset: () => log.push('reset'),
    connection: (connected) => log.push(`connected ${connected}`),
  });
  let stream: Uint8Array[] = [];
  const port = {
    send: (bytes: Uint8Array) => void stream.push(bytes.slice()),
    close: () => {},
    signal: (fd: number) => void signals.push(fd),
  };
  const session = new VfioUserSession(device, port, () => {});
  const sent = (): Answer[] => {
    const all = answers(concat(...stream));
    stream = [];
    return all;
  };
  const ask = (bytes: Uint8Array, fds: readonly number[] = []): Answer => {
    session.receive(bytes, fds);
    return sent()[0];
  };
  ask(version());
  return { ask, sent, session, log, signals, interrupts, memory };
}

describe("the SMMU's function", () => {
  it.each([1, 2, 3, 5, 6, 7, 9, 16, 64, 4096])('reads zeros in an access of %i bytes', (size) => {
    const { ask, log } = bench();
    const reply = ask(regionRead(0, 0x20, size));
    expect(reply.error).toBe(0);
    expect(reply.payload.subarray(16)).toEqual(new Uint8Array(size));
    expect(ask(regionWrite(0, 0x20, Array<number>(size).fill(0xff))).error).toBe(0);
    expect(log).toEqual(['connected true']);
  });

  it.each([
    [4, 0x21],
    [4, 0x22],
    [8, 0x24],
    [8, 0x81],
  ])('ignores an access of %i bytes at %i, which is not aligned', (size, offset) => {
    const { ask, log } = bench();
    expect(ask(regionRead(0, offset, size)).payload.subarray(16)).toEqual(new Uint8Array(size));
    ask(regionWrite(0, offset, Array<number>(size).fill(0xff)));
    expect(log).toEqual(['connected true']);
  });

  it('passes accesses of 4 and 8 bytes on, as one', () => {
    const { ask, log } = bench();
    expect(ask(regionRead(0, 0x1_00a8, 4)).payload.subarray(16)).toEqual(pack([4, 0x1122_3344]));
    expect(ask(regionRead(0, 0x80, 8)).payload.subarray(16)).toEqual(
      pack([4, 0x1122_3344], [4, 0x5566_7788]),
    );
    ask(regionWrite(0, 0x20, [1, 2, 3, 0xf4]));
    ask(regionWrite(0, 0x80, [1, 2, 3, 4, 5, 6, 7, 0xf8]));
    ask(regionWrite(0, 0x1_fff8, [0, 0, 0, 0, 0, 0, 0, 0]));
    expect(log.slice(1)).toEqual([
      'read 100a8 4',
      'read 80 8',
      'write 20 4 0 f4030201',
      'write 80 8 f8070605 4030201',
      'write 1fff8 8 0 0',
    ]);
  });

  it('has two 64 KiB pages of registers, a configuration space, INTx and nothing else', () => {
    const { ask } = bench();
    const sizes = Array.from({ length: 9 }, (_, index) => {
      const { payload } = ask(getRegionInfo(index));
      return new DataView(payload.buffer).getUint32(16, true);
    });
    expect(sizes).toEqual([0x2_0000, 0, 0, 0, 0, 0, 0, 0x1000, 0]);
    const counts = Array.from({ length: 5 }, (_, index) => {
      const { payload } = ask(getIrqInfo(index));
      return new DataView(payload.buffer).getUint32(12, true);
    });
    expect(counts).toEqual([1, 0, 0, 0, 0]);
  });

  it('is found by QEMU as an endpoint with a BAR of 128 KiB', () => {
    const { ask } = bench();
    const { payload } = ask(regionRead(7, 0, 4096));
    const config = new DataView(payload.buffer, payload.byteOffset + 16);
    expect(config.getUint8(0x0e)).toBe(0);
    expect(config.getUint8(0x0b)).toBe(0x08);
    expect(config.getUint8(0x34)).toBe(0x40);
    expect(config.getUint8(0x40)).toBe(0x10);
    ask(regionWrite(7, 0x10, [0xff, 0xff, 0xff, 0xff]));
    expect(ask(regionRead(7, 0x10, 4)).payload.subarray(16)).toEqual(pack([4, 0xfffe_0000]));
  });

  it('is reset with the machine, and loses its base address', () => {
    const { ask, log } = bench();
    ask(regionWrite(7, 0x10, [0, 0, 0, 0x3e]));
    ask(reset());
    expect(log).toEqual(['connected true', 'reset']);
    expect(ask(regionRead(7, 0x10, 4)).payload.subarray(16)).toEqual(pack([4, 0]));
  });

  it('accepts memory that cannot be reached', () => {
    const { ask, session, log } = bench();
    expect(ask(dmaMap(0x4000_0000, 0x1000)).error).toBe(0);
    session.end();
    expect(log).toEqual(['connected true', 'connected false']);
  });
});

describe("the SMMU's interrupts", () => {
  it('are lost, and counted, while nobody is connected', () => {
    const memory = new TearFreeMemory();
    for (const wiring of [DOORBELL, { kind: 'intx' } as const]) {
      const interrupts = new SmmuInterrupts(wiring, memory);
      interrupts.raise('eventq');
      expect(interrupts.lost).toBe(1);
      expect(interrupts.writeMsi(0, 0x0802_0040, 1)).toBe(false);
      expect(interrupts.lost).toBe(2);
    }
  });

  it('write the number of the interrupt to the doorbell', () => {
    const { interrupts, sent } = bench();
    for (const line of ['eventq', 'priq', 'sync', 'gerror'] as const) interrupts.raise(line);
    expect(sent().map(({ command, payload }) => [command, payload])).toEqual(
      [140, 141, 142, 143].map((intid) => [12, pack([8, 0x0802_0040], [8, 4], [4, intid])]),
    );
  });

  it('that QEMU refuses are counted', () => {
    const { interrupts, session } = bench();
    interrupts.raise('eventq');
    session.receive(message(12, undefined, { id: 0, flags: 0x21, error: 14 }), []);
    expect(interrupts.lost).toBe(1);
  });

  it('as messages go to memory if it is there, and to QEMU if not', () => {
    const { interrupts, memory, sent } = bench();
    memory.addRam(0, 0x4000_0000, new Uint8Array(0x1000));
    expect(interrupts.writeMsi(0, 0x4000_0010, 0xdead_beef)).toBe(true);
    memory.load32(0, 0x4000_0010);
    expect(memory.lo).toBe(0xdead_beef);
    expect(sent()).toEqual([]);
    expect(interrupts.writeMsi(0x12, 0x0802_0040, 0xffff_fffe)).toBe(true);
    expect(sent()[0].payload).toEqual(pack([8, 0x12_0802_0040], [8, 4], [4, 0xffff_fffe]));
  });

  it('as INTx are signalled once, and again when the handler has looked', () => {
    const { interrupts, ask, signals } = bench({ kind: 'intx' });
    interrupts.raise('eventq');
    expect(interrupts.lost).toBe(1);
    ask(setIrqs(0x24, 0, 0, 1), [9]);
    interrupts.raise('eventq');
    interrupts.raise('gerror');
    expect(signals).toEqual([9]);
    ask(setIrqs(0x11, 0, 0, 1));
    expect(signals).toEqual([9, 9]);
  });
});
