import { describe, expect, it } from 'vitest';
import { command, tlbiAsid } from '../../src/guest/commands.ts';
import { GUEST_DEFAULT, identify, type IdRegisters, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { OPCODE } from '../../src/spec/commands.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { BUFFERS, DeviceBench, DOORBELL, RAM, RAM_SIZE, takeEvents } from './device-bench.ts';

const NIC = { sid: 8, name: '0000:00:01.0' };
const AT = BigInt(BUFFERS);

const DEVICES: readonly (readonly [string, IdRegisters])[] = [
  ['the guest-facing SMMU', GUEST_DEFAULT],
  ['QEMU’s SMMU', QEMU_LIKE],
  ['one without range invalidation', identify(GUEST_DEFAULT, { RIL: 0 })],
  ['one with messages', identify(GUEST_DEFAULT, { MSI: 1 })],
  ['one with a linear stream table', identify(GUEST_DEFAULT, { SIDSIZE: 6, ST_LEVEL: 0 })],
  ['one with SubstreamIDs', identify(GUEST_DEFAULT, { SSIDSIZE: 16, CD2L: 1 })],
  ['one with ATS', identify(GUEST_DEFAULT, { ATS: 1 })],
];

describe.each(DEVICES)('on %s, the driver', (_, ids) => {
  it('probes, maps, unmaps and hears of a fault without a warning', () => {
    const bench = new DeviceBench(ids);
    const { guest } = bench;
    guest.probe();
    guest.addDevice(NIC);
    expect(bench.dma(8, 0x1000n)).toBe('Abort');
    const domain = guest.attach(8);
    domain.map(0xffff_8000n, BUFFERS, 0x4000);
    expect(bench.dma(8, 0xffff_9234n, { write: true })).toBe(AT + 0x1234n);
    expect(guest.events).toEqual([]);

    expect(bench.dma(8, 0xdead_beef_000n)).toBe('Abort');
    expect(takeEvents(guest)).toEqual(['F_TRANSLATION sid 8 iova 0xdeadbeef000']);

    domain.unmap(0xffff_8000n, 0x4000);
    expect(bench.dma(8, 0xffff_9234n, { write: true })).toBe('Abort');
    expect(takeEvents(guest)).toEqual(['F_TRANSLATION sid 8 iova 0xffff9234']);
    guest.removeDevice(8);
    expect(bench.dma(8, 0xffff_9234n)).toBe('Abort');
    expect(guest.events).toEqual([]);
    guest.shutdown();
    expect(bench.dma(8, AT)).toBe(AT);
    expect(guest.warnings).toEqual([]);
    expect(guest.spurious).toBe(0);
  });
});

describe('with each granule, the device translates what the driver maps', () => {
  const ids = identify(GUEST_DEFAULT, { GRAN16K: 1, HTTU: 2 });
  it.each([12, 14, 16] as const)('2^%i', (granule) => {
    const bench = new DeviceBench(ids);
    const { guest } = bench;
    guest.probe();
    guest.addDevice(NIC);
    const domain = guest.createDomain({ granule });
    guest.attach(8, domain);
    const page = 2 ** granule;
    // Every leaf size, at addresses near both ends of the IOVA range.
    for (const size of domain.tables.leafSizes) {
      for (const iova of [0n, (1n << 48n) - BigInt(size)]) {
        const pa = 2 ** 40;
        domain.map(iova, pa, size, { read: true });
        for (const offset of [0, page - 1, size - 1])
          expect(bench.dma(8, iova + BigInt(offset))).toBe(BigInt(pa + offset));
        expect(bench.dma(8, iova, { write: true })).toBe('Abort');
        expect(takeEvents(guest)).toEqual([`F_PERMISSION sid 8 iova 0x${iova.toString(16)}`]);
        domain.unmap(iova, size);
        expect(bench.dma(8, iova)).toBe('Abort');
        expect(takeEvents(guest)).toHaveLength(1);
      }
    }
    expect(guest.warnings).toEqual([]);
  });

  it('and lets it set dirty state if the domain says so', () => {
    const bench = new DeviceBench(ids);
    bench.guest.probe();
    bench.guest.addDevice(NIC);
    const domain = bench.guest.createDomain({ dirtyTracking: true });
    bench.guest.attach(8, domain);
    domain.map(0x1000n, BUFFERS, 0x1000);
    expect(bench.dma(8, 0x1000n, { write: true })).toBe(AT);
    expect(bench.guest.warnings).toEqual([]);
  });
});

describe('what the driver does to a stream', () => {
  function attached(): DeviceBench {
    const bench = new DeviceBench();
    bench.guest.probe();
    bench.guest.addDevice(NIC);
    return bench;
  }

  it('identity passes everything', () => {
    const bench = attached();
    bench.guest.attachIdentity(8);
    expect(bench.dma(8, AT + 5n)).toBe(AT + 5n);
    bench.guest.detach(8);
    expect(bench.dma(8, AT + 5n)).toBe('Abort');
    expect(bench.guest.events).toEqual([]);
  });

  it('a switch of domains changes where DMA goes', () => {
    const bench = attached();
    const one = bench.guest.createDomain();
    const two = bench.guest.createDomain();
    one.map(0x1000n, BUFFERS, 0x1000);
    two.map(0x1000n, BUFFERS + 0x5000, 0x1000);
    for (let round = 0; round < 3; round++) {
      bench.guest.attach(8, one);
      expect(bench.dma(8, 0x1000n)).toBe(AT);
      bench.guest.attach(8, two);
      expect(bench.dma(8, 0x1000n)).toBe(AT + 0x5000n);
      bench.guest.attachIdentity(8);
      expect(bench.dma(8, 0x1000n)).toBe(0x1000n);
    }
    expect(bench.guest.warnings).toEqual([]);
  });

  it('DMA in the middle of a switch is C_BAD_CD, never the old or new place of the other domain', () => {
    const bench = attached();
    bench.guest.attach(8, bench.guest.createDomain());
    const seen = new Set<string>();
    const target = bench.guest.createDomain();
    target.map(0x1000n, BUFFERS, 0x1000);
    const write = bench.smmu.write.bind(bench.smmu);
    bench.smmu.write = (...args): void => {
      write(...args);
      if (args[0] === OFFSET.CMDQ_PROD) seen.add(String(bench.dma(8, 0x1000n)));
    };
    bench.guest.attach(8, target);
    expect([...seen]).toEqual(['Abort', String(AT)]);
    // The first look, after V=0 and its CFGI_CD, found the CD invalid.
    expect(takeEvents(bench.guest)[0]).toMatch(/^C_BAD_CD sid 8/);
  });

  it('an unknown stream is the driver’s C_BAD_STREAMID without a client', () => {
    const bench = attached();
    expect(bench.dma(0x900, 0n)).toBe('Abort');
    const [event] = bench.guest.events;
    expect([event.name, event.sid, event.client]).toEqual(['C_BAD_STREAMID', 0x900, undefined]);
    expect(bench.guest.dmesg.at(-1)).toMatch(
      /event: C_BAD_STREAMID client: \(unassigned sid\) sid: 0x900 ssid: 0x0$/,
    );
  });

  it('reserved regions work from SMMUEN on, and on through the device’s first domain', () => {
    const region = { base: BUFFERS, size: 0x10_0000, sids: [8] };
    const bench = new DeviceBench(GUEST_DEFAULT, { reservedRegions: [region] });
    bench.guest.probe();
    expect(bench.dma(8, AT + 0x123n)).toBe(AT + 0x123n);
    bench.guest.addDevice(NIC);
    expect(bench.dma(8, AT + 0x123n)).toBe(AT + 0x123n);
    bench.guest.attach(8);
    expect(bench.dma(8, AT + 0x123n)).toBe(AT + 0x123n);
    expect(bench.dma(8, 0x1000n)).toBe('Abort');
    expect(bench.guest.warnings).toEqual([]);
  });

  it('SubstreamIDs have address spaces of their own', () => {
    const bench = new DeviceBench(identify(GUEST_DEFAULT, { SSIDSIZE: 16, CD2L: 1 }));
    const { guest } = bench;
    guest.probe();
    const gpu = guest.addDevice({ ...NIC, ssidBits: 16 });
    guest.attach(8).map(0x1000n, BUFFERS, 0x1000);
    for (const ssid of [1, 1023, 1024, 0xffff]) {
      const domain = guest.createDomain();
      domain.map(0x1000n, BUFFERS + ssid * 0x100 * 16, 0x1000);
      expect(bench.dma(8, 0x1000n, { ssid })).toBe('Abort');
      gpu.attachPasid(ssid, domain);
      expect(bench.dma(8, 0x1000n, { ssid })).toBe(AT + BigInt(ssid * 0x1000));
    }
    expect(bench.dma(8, 0x1000n)).toBe(AT);
    gpu.detachPasid(1023);
    expect(bench.dma(8, 0x1000n, { ssid: 1023 })).toBe('Abort');
    expect(bench.dma(8, 0x1000n, { ssid: 1024 })).toBe(AT + 0x400000n);
    expect(guest.warnings).toEqual([]);
    const names = new Set(guest.events.map(({ name }) => name));
    expect([...names].sort()).toEqual(['C_BAD_CD', 'C_BAD_SUBSTREAMID']);
  });
});

describe('kernels that follow one another', () => {
  it('kdump: no events, and no overflow or error for what was dropped', () => {
    const bench = new DeviceBench();
    bench.guest.probe({ kdump: true });
    bench.guest.addDevice(NIC);
    bench.guest.attach(8);
    for (let i = 0; i < 1000; i++) expect(bench.dma(8, BigInt(i) * 0x1000n)).toBe('Abort');
    expect(bench.guest.events).toEqual([]);
    expect(bench.guest.warnings).toEqual([]);
    expect(bench.raised).toEqual([]);
  });

  it('kexec: the next kernel starts clean, with another queue size', () => {
    const bench = new DeviceBench();
    bench.guest.probe({ eventqLog2: 2 });
    bench.guest.addDevice(NIC);
    bench.guest.attach(8).map(0x1000n, BUFFERS, 0x1000);
    expect(bench.dma(8, 0x1000n)).toBe(AT);
    bench.guest.shutdown();
    bench.guest.probe({ eventqLog2: 7 });
    expect(bench.smmu.eventqLog2Size).toBe(7);
    // The new kernel has not met the device yet, and has no second-level table for it.
    expect(bench.dma(8, 0x1000n)).toBe('Abort');
    bench.guest.addDevice(NIC);
    bench.guest.attach(8);
    expect(bench.dma(8, 0x1000n)).toBe('Abort');
    expect(takeEvents(bench.guest)).toEqual([
      'C_BAD_STREAMID sid 8 iova 0x0',
      'F_TRANSLATION sid 8 iova 0x1000',
    ]);
    expect(bench.guest.warnings).toEqual([]);
  });

  it('crash: the next kernel finds SMMUEN=1, aborts what still comes, and warns', () => {
    const bench = new DeviceBench();
    const { guest } = bench;
    guest.probe();
    guest.addDevice(NIC);
    guest.attach(8).map(0x1000n, BUFFERS, 0x1000);
    guest.forget();
    const crash = bench.newKernel({ ram: { base: RAM + RAM_SIZE / 4, size: RAM_SIZE / 4 } });
    const during: unknown[] = [];
    const write = bench.smmu.write.bind(bench.smmu);
    bench.smmu.write = (...args): void => {
      write(...args);
      if (args[0] === OFFSET.CR0) during.push(bench.dma(8, 0x1000n));
    };
    crash.probe({ kdump: true });
    // CR0 := 0 first; the guest’s tables are not used again, and nothing bypasses.
    expect(during).toEqual(['Abort', 'Abort', 'Abort', 'Abort']);
    expect(crash.warnings).toEqual(['SMMU currently enabled! Resetting...']);
    expect(bench.smmu.gbpaAbort).toBe(true);
    crash.shutdown();
    expect(bench.dma(8, AT)).toBe('Abort');
  });

  it('system reset: the next kernel finds a cold SMMU', () => {
    const bench = new DeviceBench();
    bench.guest.probe();
    bench.guest.addDevice(NIC);
    bench.guest.attach(8);
    bench.dma(8, 0x1000n);
    bench.smmu.reset();
    bench.guest.forget();
    expect(bench.dma(8, AT)).toBe(AT);
    bench.guest.probe();
    bench.guest.addDevice(NIC);
    bench.guest.attach(8);
    bench.dma(8, 0x2000n);
    expect(takeEvents(bench.guest)).toEqual([
      'F_TRANSLATION sid 8 iova 0x1000',
      'F_TRANSLATION sid 8 iova 0x2000',
    ]);
    expect(bench.guest.warnings).toEqual([]);
  });
});

describe('the queues of the device', () => {
  function attached(ids = GUEST_DEFAULT, eventqLog2 = 3): DeviceBench {
    const bench = new DeviceBench(ids, { doorbell: { address: DOORBELL, eventq: 1, gerror: 2, priq: 3 } });
    bench.guest.probe({ eventqLog2 });
    bench.guest.addDevice(NIC);
    bench.guest.attach(8);
    return bench;
  }

  it('an event queue overflows, says so once, and goes on', () => {
    const bench = attached();
    bench.unwired = true;
    for (let i = 0; i < 20; i++) bench.dma(8, BigInt(i) * 0x1000n);
    bench.unwired = false;
    bench.guest.handleInterrupt('eventq');
    expect(takeEvents(bench.guest)).toHaveLength(8);
    expect(bench.guest.warnings).toEqual(['EVTQ overflow detected -- events lost']);
    bench.dma(8, 0x7000n);
    expect(takeEvents(bench.guest)).toEqual(['F_TRANSLATION sid 8 iova 0x7000']);
    // A second overflow is seen too: the flag toggles back.
    bench.unwired = true;
    for (let i = 0; i < 20; i++) bench.dma(8, BigInt(i) * 0x1000n);
    bench.unwired = false;
    bench.guest.handleInterrupt('eventq');
    expect(bench.guest.overflows).toBe(2);
    expect(bench.raised.filter((line) => line === 'gerror')).toEqual([]);
  });

  it('one interrupt comes for a queue that became non-empty, wired or as a message', () => {
    for (const ids of [GUEST_DEFAULT, identify(GUEST_DEFAULT, { MSI: 1 })]) {
      const bench = attached(ids);
      for (let i = 0; i < 3; i++) bench.dma(8, BigInt(i));
      expect(takeEvents(bench.guest)).toHaveLength(3);
      expect(bench.guest.warnings).toEqual([]);
    }
  });

  it('an illegal command is skipped by the driver, and those around it are done', () => {
    const bench = attached();
    const domain = bench.guest.createDomain();
    bench.guest.attach(8, domain);
    domain.map(0x1000n, BUFFERS, 0x1000);
    expect(bench.dma(8, 0x1000n)).toBe(AT);
    bench.guest.commands.issueAndSync(
      command(OPCODE.CMD_TLBI_EL3_ALL),
      tlbiAsid(OPCODE.CMD_TLBI_NH_ASID, domain.asid),
    );
    expect(bench.guest.warnings.slice(0, 3)).toEqual([
      'unexpected global error reported (0x00000001), this could be serious',
      expect.stringMatching(/^CMDQ error \(cons 0x010000[0-9a-f]{2}\): Illegal command$/),
      'skipping command in error state:',
    ]);
    expect(bench.guest.commands.skipped.map((words) => words[0])).toEqual([OPCODE.CMD_TLBI_EL3_ALL]);
    expect(bench.dma(8, 0x1000n)).toBe(AT);
  });

  it('many illegal commands, many errors, one CMD_SYNC at the end', () => {
    const bench = attached();
    const bad = Array.from({ length: 50 }, () => command(0xfe));
    bench.guest.commands.issueAndSync(...bad);
    expect(bench.guest.commands.skipped).toHaveLength(50);
  });

  it('an event queue out of memory is an error of the device, and the driver acknowledges it', () => {
    const bench = attached();
    const cr0 = bench.smmu.read(OFFSET.CR0, 4);
    bench.smmu.write(OFFSET.CR0, 4, 0, cr0 & ~4);
    bench.smmu.write(OFFSET.EVENTQ_BASE, 8, 0, 0x9000_0003);
    bench.smmu.write(OFFSET.CR0, 4, 0, cr0);
    bench.dma(8, 0x1000n);
    expect(bench.guest.warnings).toEqual([
      'unexpected global error reported (0x00000004), this could be serious',
      'EVTQ write aborted -- events may have been lost',
    ]);
    expect(bench.guest.events).toEqual([]);
  });

  it('survive more commands than one doorbell carries out', () => {
    const bench = attached(identify(GUEST_DEFAULT, { RIL: 0, CMDQS: 12 }), 8);
    const domain = bench.guest.createDomain({ lazy: false });
    bench.guest.attach(8, domain);
    domain.map(0x1000n, BUFFERS, 511 * 0x1000);
    expect(bench.dma(8, 0x5000n)).toBe(AT + 0x4000n);
    const nothing = Array.from({ length: 3000 }, () => tlbiAsid(OPCODE.CMD_TLBI_NH_ASID, 99));
    bench.guest.commands.issueTogether([nothing]);
    domain.unmap(0x1000n, 511 * 0x1000);
    expect(bench.dma(8, 0x5000n)).toBe('Abort');
    expect(bench.guest.warnings).toEqual([]);
  });

  it('a switched-off command queue is a time-out, not a hang', () => {
    const bench = attached();
    const cr0 = bench.smmu.read(OFFSET.CR0, 4);
    bench.smmu.write(OFFSET.CR0, 4, 0, cr0 & ~8);
    expect(() => bench.guest.detach(8)).toThrow(expect.objectContaining({ code: 'GUEST_SYNC_TIMEOUT' }));
    expect(bench.guest.warnings).toHaveLength(1);
  });
});

describe('a device that stalls', () => {
  const ids = identify(GUEST_DEFAULT, { STALL_MODEL: 0, TERM_MODEL: 1, STALL_MAX: 8 });

  it.each([
    ['retry', AT],
    ['abort', 'Abort'],
  ] as const)('waits for the driver’s %s', (answer, end) => {
    const bench: DeviceBench = new DeviceBench(ids, {
      onStall: (event) => {
        if (answer === 'retry') bench.guest.attach(8).map(event.iova, BUFFERS, 0x1000);
        return answer;
      },
    });
    bench.guest.probe();
    bench.guest.addDevice({ ...NIC, canStall: true });
    bench.guest.attach(8);
    expect(bench.dma(8, 0x1000n, { mayStall: true })).toBe('Stalled');
    expect(bench.resolved).toEqual([end]);
    expect(bench.guest.events.map(({ stall }) => stall)).toEqual([true]);
    expect(bench.guest.warnings).toEqual([]);
  });
});
