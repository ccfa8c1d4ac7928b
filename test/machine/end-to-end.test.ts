import { describe, expect, it } from 'vitest';
import { command } from '../../src/guest/commands.ts';
import { OPCODE } from '../../src/spec/commands.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { BenchHost, BenchMachine, BUFFERS, RAM } from '../support/bench-machine.ts';

const make = (): BenchMachine => new BenchMachine(new BenchHost());
/** The guest's driver, with an event queue of 2^`eventqLog2`. */
const probe = (machine: BenchMachine, eventqLog2 = 4): void =>
  machine.guest.probe({ cmdqLog2: 8, eventqLog2 });

/** What the guest has at an address of its RAM. */
const inRam = ({ host }: BenchMachine, gpa: number): number =>
  new DataView(host.ram.buffer).getUint32(gpa - RAM, true);
const WRITTEN = 0xabcd_0123;

describe('a fault of a device reaches the driver', () => {
  it.each([
    ['plugged before the driver', ['plug', 'probe']],
    ['plugged after the driver', ['probe', 'plug']],
    ['plugged again', ['probe', 'plug', 'unplug', 'plug']],
    ['plugged before a reset', ['plug', 'probe', 'reset', 'probe']],
    ['whose guest went through a kexec', ['probe', 'plug', 'shutdown', 'probe']],
    ['whose guest crashed', ['plug', 'probe', 'crash', 'probe']],
  ])('%s', (_, steps) => {
    const machine = make();
    for (const step of steps) {
      if (step === 'plug') machine.plug();
      else if (step === 'unplug') machine.unplug();
      else if (step === 'reset') machine.reset();
      else if (step === 'shutdown') machine.guest.shutdown();
      else if (step === 'crash') machine.guest.forget();
      else probe(machine);
    }
    const domain = machine.attach();
    domain.map(0x8000_0000n, BUFFERS, 0x2000);
    expect(machine.dma(0x8000_1004n)).toBe(OUTCOME.Ok);
    expect(inRam(machine, BUFFERS + 0x1004)).toBe(WRITTEN);
    expect(machine.takeEvents()).toEqual([]);

    expect(machine.dma(0xdead_beef_000n)).toBe(OUTCOME.Abort);
    expect(machine.guest.dmesg.slice(-2).map((line) => line.slice(line.indexOf(': ') + 2))).toEqual([
      'event: F_TRANSLATION client: 0000:00:01.0 sid: 0x8 ssid: 0x0 iova: 0xdeadbeef000 ipa: 0x0',
      'unpriv data write s1 "Input address caused fault" stag: 0x0',
    ]);
    expect(machine.takeEvents()).toEqual(['F_TRANSLATION sid 8 iova 0xdeadbeef000']);
    const crashed = steps.includes('crash');
    expect(machine.guest.warnings).toEqual(crashed ? ['SMMU currently enabled! Resetting...'] : []);
    machine.expectSettled();
    machine.close();
  });

  it('as the kind of fault that it is', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    const domain = machine.attach();
    domain.map(0x1000n, BUFFERS, 0x1000, { read: true });
    machine.dma(0x1000n);
    machine.dma(1n << 60n);
    expect(machine.takeEvents()).toEqual([
      'F_PERMISSION sid 8 iova 0x1000',
      'F_TRANSLATION sid 8 iova 0x1000000000000000',
    ]);
    // Between two domains the CD is invalid, and says so.
    const write = machine.machine.smmu.write.bind(machine.machine.smmu);
    let doorbells = 0;
    machine.machine.smmu.write = (...args): void => {
      write(...args);
      if (args[0] === OFFSET.CMDQ_PROD && ++doorbells === 1) machine.dmaOnly(0x1000n);
    };
    machine.guest.attach(8, machine.guest.createDomain());
    machine.settle();
    expect(machine.takeEvents()).toEqual(['C_BAD_CD sid 8 iova 0x0']);
    expect(machine.guest.warnings).toEqual([]);
  });

  it('under its own name, even if it is the first that could be of a tripwire', () => {
    const machine = make();
    machine.plug();
    // SMMUEN=1 without an STE: the stream is on a tripwire, and makes no DMA there.
    probe(machine);
    machine.attach();
    const ste = new Uint32Array(16);
    machine.machine.smmu.lookupSte(8, ste);
    const cd = new DataView(machine.host.ram.buffer, (ste[0] & ~0x3f) - RAM, 64);
    // CD.V
    cd.setUint32(0, cd.getUint32(0, true) & ~(1 << 31), true);
    const cfgi = command(OPCODE.CMD_CFGI_CD_ALL);
    cfgi[1] = 8;
    machine.guest.commands.issueAndSync(cfgi);
    machine.dma(0x5000n);
    expect(machine.takeEvents()).toEqual(['C_BAD_CD sid 8 iova 0x0']);
  });

  it('with two devices, each under its own StreamID', () => {
    const machine = make();
    probe(machine);
    machine.plug(1);
    machine.plug(0);
    machine.attach(0);
    machine.attach(1).map(0x5000n, BUFFERS, 0x1000);
    expect(machine.dma(0x5000n, 0)).toBe(OUTCOME.Abort);
    expect(machine.dma(0x5000n, 1)).toBe(OUTCOME.Ok);
    expect(machine.dma(0x6000n, 1)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual([
      'F_TRANSLATION sid 8 iova 0x5000',
      'F_TRANSLATION sid 9 iova 0x6000',
    ]);
    machine.unplug(0);
    expect(machine.dma(0x7000n, 1)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual(['F_TRANSLATION sid 9 iova 0x7000']);
    expect(machine.guest.warnings).toEqual([]);
    machine.close();
  });
});

describe('a fault does not reach', () => {
  it('a kdump kernel, which has the event queue off; and nothing is an error', () => {
    const machine = make();
    machine.plug();
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4, kdump: true });
    machine.attach();
    expect(machine.machine.state.veventq).toBeUndefined();
    for (let i = 0; i < 50; i++) machine.dma(BigInt(i) * 0x1000n);
    expect(machine.takeEvents()).toEqual([]);
    expect(machine.guest.warnings).toEqual([]);
    machine.expectSettled();
  });

  it('the driver that comes after a reset, if it happened before', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach();
    for (let i = 0; i < 10; i++) machine.dmaOnly(BigInt(i) * 0x1000n);
    // Ten records wait in the host's queue, and nobody has looked.
    machine.reset();
    probe(machine);
    machine.settle();
    machine.attach();
    machine.settle();
    expect(machine.takeEvents()).toEqual([]);
    expect(machine.dma(0xabc000n)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual(['F_TRANSLATION sid 8 iova 0xabc000']);
    expect(machine.guest.warnings).toEqual([]);
    machine.expectSettled();
  });

  it('a guest whose device was taken away meanwhile', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach();
    for (let i = 0; i < 10; i++) machine.dmaOnly(BigInt(i) * 0x1000n);
    machine.unplug();
    machine.settle();
    machine.guest.removeDevice(8);
    expect(machine.guest.warnings).toEqual([]);
    machine.expectSettled();
    machine.close();
  });
});

describe('more faults than the driver reads', () => {
  it('wait in the host’s queue, and follow in order when it does', () => {
    const machine = make();
    machine.plug();
    probe(machine, 4);
    machine.attach();
    machine.interruptsOff = true;
    // 16 fill the guest's queue; as many wait in the host's.
    for (let i = 0; i < 32; i++) machine.dma(BigInt(i) * 0x1000n);
    expect(machine.machine.state.veventq).toMatchObject({ depth: 16, paused: true });
    expect(machine.machine.state.events.lostInHost).toBe(0);
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    expect(machine.guest.events.map(({ iova }) => iova)).toEqual(
      Array.from({ length: 32 }, (_, i) => BigInt(i) * 0x1000n),
    );
    expect(machine.guest.overflows).toBe(0);
    expect(machine.guest.warnings).toEqual([]);
  });

  it('are lost beyond both queues, which the driver is told once for each time', () => {
    const machine = make();
    machine.plug();
    probe(machine, 3);
    machine.attach();
    for (let round = 1; round <= 2; round++) {
      machine.interruptsOff = true;
      for (let i = 0; i < 40; i++) machine.dma(BigInt(i) * 0x1000n);
      machine.interruptsOff = false;
      machine.guest.handleInterrupt('eventq');
      machine.settle();
      expect(machine.guest.events.length).toBe(16);
      expect(machine.guest.overflows).toBe(round);
      const { delivered, lostInHost } = machine.machine.state.events;
      expect([delivered, lostInHost]).toEqual([16 * round, 24 * round]);
      machine.guest.events.length = 0;
    }
    expect(machine.guest.warnings).toEqual([
      'EVTQ overflow detected -- events lost',
      'EVTQ overflow detected -- events lost',
    ]);
    expect(machine.dma(0x7777000n)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual(['F_TRANSLATION sid 8 iova 0x7777000']);
  });

  it('are not lost when the queue grows: the new one starts empty, with the new depth', () => {
    const machine = make();
    machine.plug();
    probe(machine, 3);
    machine.attach();
    machine.guest.rebaseEventQueue(6);
    expect(machine.machine.state.veventq).toMatchObject({ depth: 64 });
    machine.interruptsOff = true;
    for (let i = 0; i < 100; i++) machine.dma(BigInt(i) * 0x1000n);
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    expect(machine.guest.events).toHaveLength(100);
    expect(machine.guest.warnings).toEqual([]);
  });
});

describe('the vEVENTQ', () => {
  it('follows the queue from firmware to kernel to kernel', () => {
    const machine = make();
    const depth = (): number | undefined => machine.machine.state.veventq?.depth;
    machine.plug();
    expect(depth()).toBeUndefined();
    // Firmware has a small queue, and lets go of the SMMU when it hands over.
    probe(machine, 2);
    expect(depth()).toBe(4);
    machine.guest.shutdown();
    expect(depth()).toBeUndefined();
    probe(machine, 7);
    expect(depth()).toBe(128);
    machine.reset();
    expect(depth()).toBeUndefined();
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 5, kdump: true });
    expect(depth()).toBeUndefined();
    machine.guest.setEventQueueEnabled(true);
    expect(depth()).toBe(32);
    machine.expectSettled();
    machine.close();
  });
});

describe('translations', () => {
  it('end for the device when the driver’s unmap returns', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    const domain = machine.attach();
    for (let i = 0; i < 20; i++) {
      const iova = 0x1_0000_0000n + BigInt(i) * 0x1000n;
      domain.map(iova, BUFFERS, 0x1000);
      expect(machine.dma(iova)).toBe(OUTCOME.Ok);
      domain.unmap(iova, 0x1000);
      expect(machine.dma(iova)).toBe(OUTCOME.Abort);
      domain.map(iova, BUFFERS + 0x2000, 0x1000);
      expect(machine.dma(iova)).toBe(OUTCOME.Ok);
    }
    expect(inRam(machine, BUFFERS + 0x2000)).toBe(WRITTEN);
    expect(machine.guest.warnings).toEqual([]);
  });

  it('of a lazy domain end with its flush', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.guest.addDevice({ sid: 8, name: 'nic' });
    const domain = machine.guest.createDomain({ lazy: true });
    machine.guest.attach(8, domain);
    domain.map(0x1000n, BUFFERS, 0x1000);
    expect(machine.dma(0x1000n)).toBe(OUTCOME.Ok);
    domain.unmap(0x1000n, 0x1000);
    domain.flush();
    expect(machine.dma(0x1000n)).toBe(OUTCOME.Abort);
  });

  it('follow the device from domain to domain, to identity and to nothing', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    const one = machine.attach();
    one.map(0x1000n, BUFFERS, 0x1000);
    const two = machine.guest.createDomain();
    two.map(0x1000n, BUFFERS + 0x1000, 0x1000);
    const at = (offset: number): boolean => {
      new DataView(machine.host.ram.buffer).setUint32(BUFFERS - RAM + offset, 0, true);
      return machine.dma(0x1000n) === OUTCOME.Ok && inRam(machine, BUFFERS + offset) === WRITTEN;
    };
    expect(at(0)).toBe(true);
    machine.guest.attach(8, two);
    expect(at(0x1000)).toBe(true);
    machine.guest.attachIdentity(8);
    expect(machine.dma(BigInt(BUFFERS))).toBe(OUTCOME.Ok);
    expect(machine.dma(0x1000n)).toBe(OUTCOME.Abort);
    machine.guest.detach(8);
    expect(machine.dma(BigInt(BUFFERS))).toBe(OUTCOME.Abort);
    machine.guest.attach(8, one);
    expect(at(0)).toBe(true);
    expect(machine.takeEvents()).toEqual([]);
    expect(machine.guest.warnings).toEqual([]);
    machine.expectSettled();
  });

  it('of one guest are nothing to the next', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(0x1000n, BUFFERS, 0x1000);
    expect(machine.dma(0x1000n)).toBe(OUTCOME.Ok);
    machine.guest.shutdown();
    probe(machine);
    // All abort, until the new kernel attaches.
    expect(machine.dma(0x1000n)).toBe(OUTCOME.Abort);
    machine.attach();
    expect(machine.dma(0x1000n)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual([
      'C_BAD_STREAMID sid 8 iova 0x0',
      'F_TRANSLATION sid 8 iova 0x1000',
    ]);
  });

  it('are not there between CR0 := 0 and SMMUEN in a kernel after a crash: nothing gets through', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(0x1000n, BUFFERS, 0x1000);
    machine.guest.forget();
    const through: boolean[] = [];
    const write = machine.machine.smmu.write.bind(machine.machine.smmu);
    machine.machine.smmu.write = (...args): void => {
      write(...args);
      if (args[0] === OFFSET.CR0 || args[0] === OFFSET.GBPA)
        through.push(
          machine.dmaOnly(BigInt(BUFFERS)) || (args[0] === OFFSET.CR0 && machine.dmaOnly(0x1000n)),
        );
    };
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4, kdump: true });
    expect(through).not.toContain(true);
    expect(through.length).toBeGreaterThan(3);
  });
});

describe('what goes wrong', () => {
  it('in a command of the guest is its own error, and its devices go on', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(0x1000n, BUFFERS, 0x1000);
    machine.guest.commands.issueAndSync(command(OPCODE.CMD_TLBI_EL3_ALL), command(OPCODE.CMD_TLBI_NSNH_ALL));
    expect(machine.guest.commands.skipped).toHaveLength(1);
    expect(machine.guest.warnings).toContain('skipping command in error state:');
    expect(machine.dma(0x1000n)).toBe(OUTCOME.Ok);
    machine.expectSettled();
  });

  it.each(['EIO', 'ETIMEDOUT'] as const)(
    'in an invalidation on the host (%s) leaves no translation',
    (errno) => {
      const machine = make();
      machine.plug();
      probe(machine);
      const domain = machine.attach();
      domain.map(0x1000n, BUFFERS, 0x1000);
      expect(machine.dma(0x1000n)).toBe(OUTCOME.Ok);
      machine.host.sim.faults.add({ ioctl: 'IOMMU_HWPT_INVALIDATE', errno, times: 3 });
      domain.unmap(0x1000n, 0x1000);
      expect(machine.dma(0x1000n)).toBe(OUTCOME.Abort);
      machine.host.sim.faults.clear();
      machine.machine.accelerator.retry();
      domain.map(0x2000n, BUFFERS, 0x1000);
      expect(machine.dma(0x2000n)).toBe(OUTCOME.Ok);
      // The host's trouble is not the guest's.
      expect(machine.guest.warnings).toEqual([]);
      machine.expectSettled();
    },
  );

  it('in the allocation of the vEVENTQ is tried again at the next occasion', () => {
    const machine = make();
    machine.plug();
    machine.host.sim.faults.add({ ioctl: 'IOMMU_VEVENTQ_ALLOC', errno: 'ENOMEM' });
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    machine.attach();
    machine.dma(0x1000n);
    expect(machine.takeEvents()).toEqual(['F_TRANSLATION sid 8 iova 0x1000']);
    machine.expectSettled();
  });
});

describe('unplugging', () => {
  it('takes everything down, whatever the guest is doing', () => {
    for (const before of ['cold', 'probed', 'attached', 'faulting', 'kdump'] as const) {
      const machine = make();
      machine.plug();
      if (before !== 'cold') machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4, kdump: before === 'kdump' });
      if (before === 'attached' || before === 'faulting') machine.attach();
      if (before === 'faulting') for (let i = 0; i < 100; i++) machine.dmaOnly(BigInt(i) * 0x1000n);
      machine.unplug();
      expect(machine.host.objects()).toEqual({});
      expect(machine.host.sim.openFiles).toBe(0);
      machine.settle();
      machine.expectSettled();
    }
  });

  it('blocks the device: nothing that it does reaches the guest’s memory or queue', () => {
    const machine = make();
    machine.plug();
    probe(machine);
    machine.attach().map(0x1000n, BUFFERS, 0x1000);
    machine.unplug();
    expect(machine.dma(0x1000n)).not.toBe(OUTCOME.Ok);
    expect(machine.dma(BigInt(BUFFERS))).not.toBe(OUTCOME.Ok);
    expect(machine.takeEvents()).toEqual([]);
  });
});
