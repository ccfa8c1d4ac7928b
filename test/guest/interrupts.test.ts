import { describe, expect, it } from 'vitest';
import type { ReferenceGuestOptions } from '../../src/guest/reference-guest.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { bench, type Bench, RECORDED_IDS } from './scripted-smmu.ts';

const LOG2 = 3;
const OVFLG = 0x8000_0000;

/** Probed with an event queue of 8 records and a device 0000:00:01.0 at StreamID 8. */
function probed(options: Partial<ReferenceGuestOptions> = {}, ids = {}): Bench {
  const made = bench(ids, options);
  made.guest.probe({ cmdqLog2: 7, eventqLog2: LOG2 });
  made.guest.addDevice({ sid: 8, name: '0000:00:01.0' });
  made.smmu.takeOpcodes();
  made.smmu.accesses = [];
  return made;
}

/** Puts records of four 64-bit words into the queue, and PROD behind them; no interrupt. */
function produce({ smmu, memory }: Bench, ...records: bigint[][]): void {
  const base = (smmu.values.get(OFFSET.EVENTQ_BASE)! & ~0x1f) >>> 0;
  let prod = smmu.values.get(OFFSET.EVENTQ_PROD) ?? 0;
  for (const record of records) {
    for (const [i, dword] of record.entries())
      memory.store64(
        0,
        base + (prod & (2 ** LOG2 - 1)) * 32 + i * 8,
        Number(dword >> 32n),
        Number(dword & 0xffff_ffffn),
      );
    prod = (prod & OVFLG) | ((prod + 1) & (2 ** (LOG2 + 1) - 1));
  }
  smmu.values.set(OFFSET.EVENTQ_PROD, prod >>> 0);
}

/** As a Linux 7.3 guest printed it. */
const RECORDED = [0x0000_0008_0000_0010n, 0x0000_0208_0000_0000n, 0x0000_0dea_dbee_f000n, 0n];
const translationFault = (iova: bigint): bigint[] => [RECORDED[0], RECORDED[1], iova, 0n];

describe('an event', () => {
  it('is printed as Linux 7.3 prints it', () => {
    const made = probed();
    const from = made.guest.dmesg.length;
    produce(made, RECORDED);
    made.guest.handleInterrupt('eventq');
    const prefix = 'arm-smmu-v3 3e000000.smmuv3: ';
    expect(made.guest.dmesg.slice(from)).toEqual(
      [
        'event 0x10 received:',
        '\t0x0000000800000010',
        '\t0x0000020800000000',
        '\t0x00000deadbeef000',
        '\t0x0000000000000000',
        'event: F_TRANSLATION client: 0000:00:01.0 sid: 0x8 ssid: 0x0 iova: 0xdeadbeef000 ipa: 0x0',
        'unpriv data read s1 "Input address caused fault" stag: 0x0',
      ].map((line) => prefix + line),
    );
    expect(made.guest.warnings).toEqual([]);
  });

  it('is kept in words', () => {
    const made = probed();
    produce(made, RECORDED);
    made.guest.handleInterrupt('eventq');
    expect(made.guest.events).toMatchObject([
      {
        name: 'F_TRANSLATION',
        sid: 8,
        ssid: 0,
        ssv: false,
        read: true,
        privileged: false,
        instruction: false,
        stage: 1,
        stall: false,
        iova: 0xdead_beef_000n,
        client: '0000:00:01.0',
      },
    ]);
  });

  it.each([
    [
      'with a SubstreamID, a stage 2 walk and a stall',
      [0x0000_0009_0000_5813n, 0x0000_0186_8000_0007n, 0xffff_8000_0000_1000n, 0x1234_5000n],
      'event: F_PERMISSION client: (unassigned sid) sid: 0x9 ssid: 0x5 iova: 0xffff800000001000 ipa: 0x12345000',
      'priv inst write s2 "Stage 1 translation table fetch" ttd_write stall stag: 0x7',
    ],
    [
      'of a fetch',
      [0x0000_0008_0000_0009n, 0n, 0n, 0x4_0000_1238n],
      'event: F_CD_FETCH client: 0000:00:01.0 sid: 0x8 ssid: 0x0 fetch_addr: 0x400001238',
    ],
    [
      'of a configuration',
      [0x0000_0900_0000_0002n, 0n, 0n, 0n],
      'event: C_BAD_STREAMID client: (unassigned sid) sid: 0x900 ssid: 0x0',
    ],
    [
      'that Linux has no name for',
      [0x0000_0008_0000_000bn, 0n, 0n, 0n],
      'event: UNKNOWN client: 0000:00:01.0 sid: 0x8 ssid: 0x0',
    ],
  ])('%s is printed so', (_, record, ...lines) => {
    const made = probed();
    produce(made, record);
    made.guest.handleInterrupt('eventq');
    const printed = made.guest.dmesg.slice(-lines.length).map((line) => line.slice(line.indexOf(': ') + 2));
    expect(printed).toEqual(lines);
    expect(made.guest.warnings).toEqual([]);
  });

  it('of no number in the architecture is a warning', () => {
    const made = probed();
    produce(made, [0x0000_0008_0000_0099n, 0n, 0n, 0n]);
    made.guest.handleInterrupt('eventq');
    expect(made.guest.warnings).toEqual(['event 0x99 is not known']);
  });

  it('is not printed more than 10 times in 5 seconds, but always kept', () => {
    let now = 0;
    const made = probed({ now: () => now });
    const printed = (): number => made.guest.dmesg.filter((line) => line.includes('received:')).length;
    for (let i = 0; i < 12; i++) {
      produce(made, RECORDED);
      made.guest.handleInterrupt('eventq');
      now += 100;
    }
    expect(printed()).toBe(10);
    now = 5000;
    produce(made, RECORDED);
    made.guest.handleInterrupt('eventq');
    expect(printed()).toBe(11);
    expect(made.guest.events).toHaveLength(13);
  });

  it('of a storm does not fill memory with lines', () => {
    const made = probed({ onEvent: () => void (made.guest.events.length = 0) });
    for (let i = 0; i < 5000; i++) {
      produce(made, translationFault(BigInt(i)));
      made.guest.handleInterrupt('eventq');
    }
    expect(made.guest.dmesg.length).toBeLessThan(20_001);
    expect(made.guest.dmesg.at(-2)).toMatch(/iova: 0x1387 ipa: 0x0$/);
  });

  it('that stalls is answered only for a device that can stall', () => {
    const ids = { IDR0: (RECORDED_IDS.IDR0 & ~(3 << 24)) >>> 0 };
    const answers: string[] = [];
    const made = probed({ onStall: (event) => (answers.push(event.name), 'retry') }, ids);
    made.guest.addDevice({ sid: 9, name: 'soc', canStall: true });
    const stalled = (sid: bigint): bigint[] => [(sid << 32n) | 0x10n, 0x208_8000_0007n, 0n, 0n];
    produce(made, stalled(8n), stalled(9n));
    made.smmu.commands.splice(0);
    made.guest.handleInterrupt('eventq');
    expect(answers).toEqual(['F_TRANSLATION']);
    expect(made.smmu.commands.map((words) => [...words])).toEqual([[0x1044, 9, 7, 0]]);
    expect(made.guest.events).toHaveLength(2);
  });
});

describe('the event queue', () => {
  it('is read as Linux was recorded to read it: PROD, CONS per record, PROD again', () => {
    const made = probed();
    produce(made, translationFault(0x1000n), translationFault(0x2000n));
    made.guest.handleInterrupt('eventq');
    expect(made.smmu.accesses).toEqual(['r 0x100a8', 'w 0x100ac=0x1', 'w 0x100ac=0x2', 'r 0x100a8']);
    expect(made.guest.events.map(({ iova }) => iova)).toEqual([0x1000n, 0x2000n]);
  });

  it('is read round its end', () => {
    const made = probed();
    for (let i = 0; i < 20; i++) {
      produce(made, translationFault(BigInt(2 * i)), translationFault(BigInt(2 * i + 1)));
      made.guest.handleInterrupt('eventq');
    }
    expect(made.guest.events.map(({ iova }) => iova)).toEqual(
      Array.from({ length: 40 }, (_, i) => BigInt(i)),
    );
    expect(made.smmu.values.get(OFFSET.EVENTQ_CONS)).toBe(40 % 16);
  });

  it('is read on if more came meanwhile', () => {
    const made = probed();
    produce(made, translationFault(1n));
    made.smmu.onWrite = (offset, value) => {
      if (offset === OFFSET.EVENTQ_CONS && value === 1) produce(made, translationFault(2n));
      return false;
    };
    made.guest.handleInterrupt('eventq');
    expect(made.guest.events).toHaveLength(2);
  });

  it('is acknowledged with OVACKFLG after an overflow, once it is empty', () => {
    const made = probed();
    produce(made, ...Array.from({ length: 8 }, (_, i) => translationFault(BigInt(i))));
    made.smmu.values.set(OFFSET.EVENTQ_PROD, (OVFLG | 8) >>> 0);
    made.guest.handleInterrupt('eventq');
    expect(made.guest.overflows).toBe(1);
    expect(made.guest.warnings).toEqual(['EVTQ overflow detected -- events lost']);
    expect(made.guest.events).toHaveLength(8);
    expect(made.smmu.accesses.slice(-2)).toEqual(['r 0x100a8', 'w 0x100ac=0x80000008']);
    // CONS keeps the acknowledgement, and the same flag is no new overflow.
    produce(made, translationFault(9n));
    made.guest.handleInterrupt('eventq');
    expect(made.guest.overflows).toBe(1);
    expect(made.smmu.values.get(OFFSET.EVENTQ_CONS)).toBe(0x8000_0009);
    // The flag toggles back: a second overflow.
    made.smmu.values.set(OFFSET.EVENTQ_PROD, 9);
    made.guest.handleInterrupt('eventq');
    expect(made.guest.overflows).toBe(2);
    expect(made.smmu.values.get(OFFSET.EVENTQ_CONS)).toBe(9);
  });

  it('is not read past its end if PROD makes no sense, which is a warning', () => {
    const made = probed();
    made.smmu.values.set(OFFSET.EVENTQ_PROD, 9);
    made.guest.handleInterrupt('eventq');
    expect(made.guest.events).toEqual([]);
    expect(made.guest.warnings).toEqual(['EVTQ PROD is 0x9 with CONS at 0x0']);
  });

  it('that never runs empty does not keep the guest for ever', () => {
    const made = probed();
    const { smmu } = made;
    smmu.onRead = (offset) =>
      offset === OFFSET.EVENTQ_PROD ? ((smmu.values.get(OFFSET.EVENTQ_CONS) ?? 0) + 8) & 15 : undefined;
    made.guest.handleInterrupt('eventq');
    expect(made.guest.events.length).toBeLessThan(1000);
    expect(made.guest.warnings.at(-1)).toBe('EVTQ does not run empty');
  });

  it('can be empty when its interrupt comes, without a warning', () => {
    const { guest } = probed();
    guest.handleInterrupt('eventq');
    expect(guest.spurious).toBe(1);
    expect(guest.warnings).toEqual([]);
  });
});

describe('an interrupt', () => {
  it('that comes in the middle of an access waits until that returns', () => {
    const made = probed();
    produce(made, translationFault(1n));
    let during = -1;
    made.smmu.onWrite = (offset) => {
      if (offset === OFFSET.CMDQ_PROD && during < 0) {
        made.guest.handleInterrupt('eventq');
        during = made.guest.events.length;
      }
      return false;
    };
    made.guest.attach(8);
    expect(during).toBe(0);
    expect(made.guest.events).toHaveLength(1);
  });

  it('that comes while the driver polls waits until the machine has run', () => {
    let during = -1;
    const made: Bench = probed({
      relax: () => {
        if (during >= 0) return;
        produce(made, translationFault(1n));
        made.guest.handleInterrupt('eventq');
        during = made.guest.events.length;
      },
    });
    made.smmu.onWrite = (offset) => offset === OFFSET.CMDQ_PROD;
    expect(() => made.guest.detach(8)).not.toThrow();
    expect(() => made.guest.attach(8)).toThrow(expect.objectContaining({ code: 'GUEST_SYNC_TIMEOUT' }));
    expect(during).toBe(0);
    expect(made.guest.events).toHaveLength(1);
  });

  it('before the driver listens stays pending until it does', () => {
    const made = bench();
    made.guest.handleInterrupt('gerror');
    expect(made.smmu.accesses).toEqual([]);
    made.guest.probe();
    expect(made.smmu.accesses).toContain('r 0x60');
    expect(made.guest.spurious).toBe(1);
  });

  it('of CMD_SYNC is nobody’s', () => {
    const made = probed();
    made.guest.handleInterrupt('sync');
    expect(made.smmu.accesses).toEqual([]);
  });

  it('as a message is told by its data', () => {
    const doorbell = { address: 0x809_0040, eventq: 5, gerror: 6, priq: 7 };
    const made = probed({ doorbell }, { IDR0: RECORDED_IDS.IDR0 | (1 << 13) });
    produce(made, RECORDED);
    made.guest.handleMessage(5);
    expect(made.guest.events).toHaveLength(1);
    made.guest.handleMessage(6);
    expect(made.smmu.accesses).toContain('r 0x60');
    made.guest.handleMessage(99);
    expect(made.guest.warnings).toEqual(['message 99 at the doorbell is no vector of the SMMU']);
  });

  it('that its own handling raises again and again comes to an end', () => {
    const made = probed();
    made.smmu.onRead = (offset) => {
      if (offset === OFFSET.EVENTQ_PROD) made.guest.handleInterrupt('eventq');
      return undefined;
    };
    made.guest.handleInterrupt('eventq');
    expect(made.guest.warnings).toEqual(['interrupts do not end']);
  });
});

describe('a global error', () => {
  it.each([
    ['an aborted event', 1 << 2, 'EVTQ write aborted -- events may have been lost'],
    ['an aborted page request', 1 << 3, 'PRIQ write aborted -- events may have been lost'],
    ['an aborted CMD_SYNC message', 1 << 4, 'CMDQ MSI write aborted'],
    ['an aborted event message', 1 << 5, 'EVTQ MSI write aborted'],
    ['an aborted page request message', 1 << 6, 'PRIQ MSI write aborted'],
    ['an aborted error message', 1 << 7, 'GERROR MSI write aborted'],
  ])('of %s is a warning, and acknowledged', (_, bit, text) => {
    const made = probed();
    made.smmu.values.set(OFFSET.GERROR, bit);
    made.guest.handleInterrupt('gerror');
    expect(made.guest.warnings).toEqual([
      `unexpected global error reported (0x${bit.toString(16).padStart(8, '0')}), this could be serious`,
      text,
    ]);
    expect(made.smmu.accesses).toEqual(['r 0x60', 'r 0x64', `w 0x64=0x${bit.toString(16)}`]);
  });

  it('that is acknowledged already is none', () => {
    const made = probed();
    made.smmu.values.set(OFFSET.GERROR, 4);
    made.smmu.values.set(OFFSET.GERRORN, 4);
    made.guest.handleInterrupt('gerror');
    expect(made.guest.warnings).toEqual([]);
    expect(made.smmu.accesses).toEqual(['r 0x60', 'r 0x64']);
  });

  it('of service failure switches the SMMU off', () => {
    const made = probed();
    made.smmu.values.set(OFFSET.GERROR, 1 << 8);
    made.guest.handleInterrupt('gerror');
    expect(made.guest.warnings[1]).toBe('device has entered Service Failure Mode!');
    expect(made.smmu.values.get(OFFSET.CR0)).toBe(0);
  });
});

describe('a command error', () => {
  /** The command at `cons` is refused with `code`; the first GERRORN write acknowledges it. */
  function refused(made: Bench, cons: number, code: number): void {
    made.smmu.values.set(OFFSET.CMDQ_CONS, (code << 24) | cons);
    made.smmu.values.set(OFFSET.GERROR, 1);
    made.guest.handleInterrupt('gerror');
  }

  it('for an illegal command overwrites it by a CMD_SYNC before the acknowledgement', () => {
    const made = probed();
    const base = (made.smmu.values.get(OFFSET.CMDQ_BASE)! & ~0x1f) >>> 0;
    made.memory.store64(0, base + 0x20, 0x1234, 0xff);
    made.memory.store64(0, base + 0x28, 0, 0x5000);
    let overwritten = 0;
    made.smmu.onWrite = (offset) => {
      if (offset === OFFSET.GERRORN) {
        made.memory.load64(0, base + 0x20);
        overwritten = made.memory.lo;
      }
      return false;
    };
    refused(made, 2, 1);
    expect(overwritten).toBe(0x0fc0_2046);
    expect(made.guest.warnings).toEqual([
      'unexpected global error reported (0x00000001), this could be serious',
      'CMDQ error (cons 0x01000002): Illegal command',
      'skipping command in error state:',
      '\t0x00001234000000ff',
      '\t0x0000000000005000',
    ]);
    expect(made.guest.commands.skipped.map((words) => [...words])).toEqual([[0xff, 0x1234, 0x5000, 0]]);
  });

  it.each([
    [0, 'No error', []],
    [2, 'Abort on command fetch', ['retrying command fetch']],
    [3, 'ATC invalidate timeout', []],
  ])('with code %i is only acknowledged', (code, name, more) => {
    const made = probed();
    const base = (made.smmu.values.get(OFFSET.CMDQ_BASE)! & ~0x1f) >>> 0;
    made.memory.store64(0, base, 0, 0x77);
    refused(made, 0, code);
    expect(made.guest.warnings.slice(1)).toEqual([`CMDQ error (cons 0x0${code}000000): ${name}`, ...more]);
    made.memory.load64(0, base);
    expect(made.memory.lo).toBe(0x77);
    expect(made.smmu.accesses.at(-1)).toBe('w 0x64=0x1');
  });

  it('with a code that nobody knows is handled as an illegal command', () => {
    const made = probed();
    refused(made, 0, 9);
    expect(made.guest.warnings[1]).toBe('CMDQ error (cons 0x09000000): Unknown');
    expect(made.guest.commands.skipped).toHaveLength(1);
  });
});

describe('a page request', () => {
  it('is refused if it is the last of its group', () => {
    const ids = { IDR0: (RECORDED_IDS.IDR0 | (1 << 10) | (1 << 16)) >>> 0, IDR1: 0x0273_4010 };
    const made = probed({}, ids);
    const base = (made.smmu.values.get(OFFSET.PRIQ_BASE)! & ~0x1f) >>> 0;
    // SID 8, PASID 5, read, last; group 3, address 0x7000.
    made.memory.store64(0, base, 0xd000_0005, 8);
    made.memory.store64(0, base + 8, 0, 0x7003);
    made.smmu.values.set(OFFSET.PRIQ_PROD, 1);
    made.smmu.commands.splice(0);
    made.guest.handleInterrupt('priq');
    expect(made.guest.warnings).toEqual([
      'unexpected PRI request received:',
      '\tsid 0x00000008.0x00005: [3L] unprivileged R access at iova 0x0000000000007000',
    ]);
    expect(made.smmu.commands.map((words) => [...words])).toEqual([[0x5841, 8, 3, 0]]);
    expect(made.smmu.values.get(OFFSET.PRIQ_CONS)).toBe(1);
  });
});

describe('the event queue by hand', () => {
  it('goes off and on through CR0 with its acknowledgement', () => {
    const made = probed();
    made.guest.setEventQueueEnabled(false);
    made.guest.setEventQueueEnabled(true);
    expect(made.smmu.accesses).toEqual(['w 0x20=0x9', 'r 0x24', 'w 0x20=0xd', 'r 0x24']);
  });

  it('moves to another size only while it is off', () => {
    const made = probed();
    made.guest.rebaseEventQueue(5);
    expect(made.smmu.accesses).toEqual([
      'w 0x20=0x9',
      'r 0x24',
      expect.stringMatching(/^w64 0xa0=0x40000000:0x4[0-9a-f]+5$/),
      'w 0x100a8=0x0',
      'w 0x100ac=0x0',
      'w 0x20=0xd',
      'r 0x24',
    ]);
    expect(made.guest.eventQueueLog2).toBe(5);
  });
});
