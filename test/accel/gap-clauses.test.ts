/** Gaps of QEMU whose text has several clauses: those that the first test of docs/qemu-gaps.md does not reach. */

import { describe, expect, it } from 'vitest';
import { Accelerator } from '../../src/accel/accelerator.ts';
import { AddressSpace } from '../../src/accel/address-space.ts';
import { canonicalise } from '../../src/accel/canonical.ts';
import { EventBridge } from '../../src/accel/event-bridge.ts';
import { Identity } from '../../src/accel/properties.ts';
import type { HostInfo } from '../../src/iommufd/host-info.ts';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import { LAB_SMMU } from '../../src/host/sim/profiles.ts';
import { Machine } from '../../src/machine/machine.ts';
import { Memory } from '../../src/memory/memory.ts';
import { GUEST_DEFAULT, identify } from '../../src/smmu/identification.ts';
import { EVENT, INVALIDATE, type EventStatus } from '../../src/smmu/ports.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { Bench, GUEST_IDS } from '../support/accelerated.ts';
import { BenchHost, BenchMachine, BUFFERS, RAM, sidOf } from '../support/bench-machine.ts';
import { ScriptedGuest, s1Ste } from '../support/scripted-guest.ts';
import { bytes, event, lost, VeventqKernel } from '../support/veventq-kernel.ts';

const GOOD = 0x1000_0000n;
const NOWHERE = 0x2000_0000n;
const OVFLG = 0x8000_0000;
const LAST = 0x7fff_ffff;

function running(eventqLog2 = 4): BenchMachine {
  const machine = new BenchMachine(new BenchHost());
  machine.plug();
  machine.guest.probe({ cmdqLog2: 8, eventqLog2 });
  machine.attach().map(GOOD, BUFFERS, 0x1000);
  machine.settle();
  return machine;
}
function faults(machine: BenchMachine, count: number): void {
  for (let i = 0; i < count; i++) machine.dmaOnly(NOWHERE + BigInt(i) * 0x1000n);
  machine.settle();
}

describe('the bridge', () => {
  function bridge(answers: EventStatus[] = []) {
    const log: (number | 'LOST')[] = [];
    const kernel = new VeventqKernel();
    const made = new EventBridge({
      recordEvent: (words) => {
        const answer = answers.shift() ?? EVENT.Queued;
        if (answer === EVENT.Queued) log.push(words[4]);
        return answer;
      },
      eventQueueSpace: () => 1000,
      eventsLost: () => void log.push('LOST'),
    });
    made.open(kernel.veventq());
    const turn = (...records: number[][]): void => {
      kernel.reads.push(bytes(...records));
      kernel.callback?.();
    };
    return { log, kernel, made, turn };
  }

  it('gap 1: has nothing of a closed queue for the next one, not even what it had read already', () => {
    const { log, kernel, made, turn } = bridge([EVENT.Queued, EVENT.Full]);
    turn(event(0), event(1), event(2));
    expect(log).toEqual([0]);
    made.close();
    made.open(kernel.veventq());
    made.resume();
    turn(event(0, 9));
    expect(log.filter((entry) => entry !== 'LOST')).toEqual([0, 0]);
    expect(made.counters).toMatchObject({ delivered: 2, discarded: 2, lostInHost: 0 });
  });
  it('gap 7: a loss across the wrap of the numbers is as long as it was', () => {
    const { made, turn } = bridge();
    turn(event(LAST - 1));
    const before = made.counters.lostInHost;
    // LAST, 0, 1 and 2 are missing.
    turn(event(3));
    expect(made.counters.lostInHost - before).toBe(4);
    turn(event(LAST - 2));
    const then = made.counters.lostInHost;
    turn(lost(5));
    expect(made.counters.lostInHost - then).toBe(8);
  });
  it('gap 7: also when the queue is closed before anybody read it', () => {
    const { kernel, made, turn } = bridge();
    turn(event(LAST - 1));
    const before = made.counters.lostInHost;
    kernel.reads.push(bytes(event(1), lost(4)));
    made.close();
    expect(made.counters.lostInHost - before).toBe(2 + 3);
    expect(made.counters.discarded).toBe(1);
  });
});

describe('a quiet guest', () => {
  it('gap 3: gets its vEVENTQ by the clock, when the host has memory again', () => {
    const host = new BenchHost();
    const due: { milliseconds: number; task: () => void }[] = [];
    const machine = new Machine({
      kernel: host.sim,
      memory: new Memory(),
      ids: GUEST_IDS,
      interrupts: { raise() {}, writeMsi: () => true },
      scheduler: host.scheduler,
      later: (milliseconds, task) => due.push({ milliseconds, task }),
    });
    machine.addRam(RAM, host.ram);
    machine.plug('nic0', '/dev/vfio/devices/vfio0', 8);
    host.sim.faults.add({ ioctl: 'IOMMU_VEVENTQ_ALLOC', errno: 'ENOMEM', times: 4 });
    machine.smmu.write(OFFSET.EVENTQ_BASE, 8, 0, RAM + 4);
    machine.smmu.write(OFFSET.CR0, 4, 0, 4);
    expect(machine.state.queue.change).toBe('refused');
    const waits: number[] = [];
    for (let next = due.shift(); next !== undefined; next = due.shift()) {
      waits.push(next.milliseconds);
      next.task();
    }
    expect(waits).toEqual([10, 20, 40, 80]);
    expect(machine.state.veventq).toMatchObject({ depth: 16 });
    expect(machine.state.failures.size).toBe(0);
    machine.unplug('nic0');
  });
});

describe('a guest that does not read its queue', () => {
  const registers = ({ machine: { smmu } }: BenchMachine) => ({
    prod: smmu.page1[0xa8 >>> 2],
    cons: smmu.page1[0xac >>> 2],
    errors: smmu.read(OFFSET.GERROR, 4) ^ smmu.read(OFFSET.GERRORN, 4),
  });

  it('gap 5: has no abort of its queue while it is full, with the host holding the rest', () => {
    const machine = running();
    machine.interruptsOff = true;
    faults(machine, 16);
    faults(machine, 16);
    expect(registers(machine)).toEqual({ prod: 16, cons: 0, errors: 0 });
    expect(machine.machine.smmu.recordEvent(new Uint32Array(8))).toBe(EVENT.Full);
    expect(registers(machine)).toEqual({ prod: 16, cons: 0, errors: 0 });
    machine.close();
  });
  it('gap 5: keeps OVFLG while records follow', () => {
    const machine = running();
    machine.interruptsOff = true;
    faults(machine, 16);
    faults(machine, 17);
    machine.machine.smmu.write(0x1_00ac, 4, 0, 8);
    machine.settle();
    // The LOST record is behind those that the host kept: 8 of 16 came, and all is as before.
    machine.machine.smmu.write(0x1_00ac, 4, 0, 16);
    machine.settle();
    const { prod } = registers(machine);
    machine.machine.smmu.write(0x1_00ac, 4, 0, prod & 0x1f);
    machine.settle();
    expect(registers(machine).prod & OVFLG).not.toBe(0);
    faults(machine, 3);
    expect(registers(machine).prod & OVFLG).not.toBe(0);
    expect(registers(machine).prod & 0x1f).not.toBe(prod & 0x1f);
    machine.close();
  });
  it('gap 6: sees a second overflow as a change of OVFLG after it has acknowledged the first, and none before', () => {
    const { smmu } = running().machine;
    const prod = (): number => smmu.page1[0xa8 >>> 2] & OVFLG;
    const acknowledge = (): void => smmu.write(0x1_00ac, 4, 0, prod());
    expect(prod()).toBe(0);
    smmu.eventsLost();
    expect(prod()).not.toBe(0);
    smmu.eventsLost();
    smmu.eventsLost();
    expect(prod()).not.toBe(0);
    acknowledge();
    smmu.eventsLost();
    expect(prod()).toBe(0);
    smmu.eventsLost();
    expect(prod()).toBe(0);
    acknowledge();
    smmu.eventsLost();
    expect(prod()).not.toBe(0);
  });
  it('gap 6: has every event that its queue refused counted, and the abort is the only error', () => {
    const machine = running();
    // RAM ends under the queue.
    machine.machine.smmu.write(OFFSET.CR0, 4, 0, 9);
    machine.machine.smmu.write(OFFSET.EVENTQ_BASE, 8, 2, 4);
    machine.machine.smmu.write(OFFSET.CR0, 4, 0, 13);
    machine.interruptsOff = true;
    faults(machine, 1);
    expect(registers(machine).errors).toBe(4);
    expect(machine.machine.state.events).toMatchObject({ delivered: 0, refused: 1, lostInHost: 0 });
    machine.close();
  });
  it('gap 10: is interrupted once for a batch, and again only when it has read all of it', () => {
    const machine = running(7);
    const raised: string[] = [];
    const { smmu } = machine.machine;
    const handle = machine.guest.handleInterrupt.bind(machine.guest);
    machine.guest.handleInterrupt = (line) => void raised.push(line);
    faults(machine, 100);
    expect(raised).toEqual(['eventq']);
    machine.guest.handleInterrupt = (line) => {
      raised.push(line);
      handle(line);
    };
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    expect(machine.takeEvents()).toHaveLength(100);
    expect(smmu.eventQueueSpace()).toBe(128);
    faults(machine, 1);
    expect(raised).toEqual(['eventq', 'eventq', 'eventq']);
    machine.close();
  });
});

describe('invalidations', () => {
  it('gap 13: an ATC_INV that was not answered in the first piece of a long batch is not forgotten by the second', () => {
    const made = new Bench({ ids: { ...GUEST_IDS, IDR0: GUEST_IDS.IDR0 | (1 << 10) } });
    made.host.info[0] |= 1 << 10;
    made.host.capabilities = 0n;
    made.guest.stes.set(
      8,
      s1Ste(0x5000).map((word, i) => (i === 2 ? word | (1 << 28) : word)),
    );
    made.guest.setSmmuen(true);
    made.plug();
    let calls = 0;
    // The batch, the ATC_INV again; what is in between, and the second piece, are fine.
    made.host.failing = (name) =>
      name === 'IOMMU_HWPT_INVALIDATE' && [1, 3].includes(++calls) ? ERRNO.ETIMEDOUT : 0;
    const commands = Array.from({ length: 1100 }, () => [0x12, 0x5_0000, 0x1000_0001, 0]);
    commands[0] = [0x40, 8, 0x34, 0];
    const status = made.accelerator.invalidate({
      words: Uint32Array.from(commands.flat()),
      count: commands.length,
    });
    expect(calls).toBe(4);
    expect(status).toBe(INVALIDATE.AtcInvTimeout);
  });
  it('gap 14: an ATC_INV for a device without ATS does not go to the host, and is counted as skipped', () => {
    const made = new Bench({ ids: { ...GUEST_IDS, IDR0: GUEST_IDS.IDR0 | (1 << 10) } });
    made.host.info[0] |= 1 << 10;
    const ste = s1Ste(0x5000).map((word, i) => (i === 2 ? word | (1 << 28) : word));
    made.guest.stes.set(8, ste).set(9, ste);
    made.guest.setSmmuen(true);
    made.host.capabilities = 0n;
    made.plug(0);
    made.host.capabilities = 8n;
    made.plug(1);
    made.host.invalidated.length = 0;
    const words = Uint32Array.of(0x40, 8, 0x34, 0, 0x40, 9, 0x34, 0);
    expect(made.accelerator.invalidate({ words, count: 2 })).toBe(INVALIDATE.Complete);
    expect(made.host.invalidated).toEqual(['40:8']);
    expect(made.accelerator.state.invalidations).toMatchObject({ sent: 1, skipped: 1 });
  });
  it('gap 14: a level 1 hint for 16 KiB pages is dropped without DS, where the kernel refuses it', () => {
    const to = new Uint32Array(4);
    const limits = { ril: true, ds: false, asid16: true, ats: false, substreams: false };
    expect(canonicalise(Uint32Array.of(0x1012, 0x5_0000, 0x900, 1), 0, to, 0, limits)).toBe(true);
    expect([...to]).toEqual([0x1012, 0x5_0000, 0x800, 1]);
  });
  it('gap 26: the flush after a reset finds no stream that could fill the caches again', () => {
    const machine = running();
    const { sim } = machine.host;
    const ioctl = sim.ioctl.bind(sim);
    const flushing: boolean[] = [];
    sim.ioctl = (fd, request, arg) => {
      if (request === 0x3b8d) flushing.push(machine.dmaOnly(GOOD));
      return ioctl(fd, request, arg);
    };
    machine.reset();
    expect(flushing).toEqual([false]);
    machine.close();
  });
});

describe('streams', () => {
  it('gap 18: SMMUEN=1 reads STEs anew: what was cached before SMMUEN=0 does not count', () => {
    const bench = new Bench();
    bench.guest.stes.set(8, s1Ste(0x5000));
    bench.guest.setSmmuen(true);
    bench.plug();
    bench.guest.setSmmuen(false);
    // No CFGI: 6.3.9.6, nothing is cached over SMMUEN=0.
    bench.guest.stes.set(8, s1Ste(0x9000));
    bench.guest.setSmmuen(true);
    expect(bench.host.attached(0)).toBe('translate 9000');
    bench.expectSettled(1);
  });
  it('gap 20: a device without a place on a bus reaches nothing while SMMUEN=1, and what GBPA says before', () => {
    const bench = new Bench();
    bench.accelerator.plug({ name: 'd0', path: '/dev/vfio/devices/vfio0' });
    expect(bench.host.device(0).history).toEqual(['bypass']);
    bench.guest.setSmmuen(true);
    expect(bench.host.attached(0)).toBe('abort');
    bench.accelerator.plug({ name: 'd1', path: '/dev/vfio/devices/vfio1' });
    expect(bench.host.device(1).history).toEqual(['abort']);
    bench.guest.stes.set(9, s1Ste(0x9000));
    bench.accelerator.setSid('d1', 9);
    expect(bench.host.device(1).history).toEqual(['abort', 'translate 9000']);
  });
  it('gap 23: a device whose old vDEVICE stays does not translate under the new number, with events under the old', () => {
    const bench = new Bench();
    bench.guest.stes.set(8, s1Ste(0x5000)).set(16, s1Ste(0x9000));
    bench.guest.setSmmuen(true);
    bench.plug();
    bench.host.failing = (name) => (name === 'IOMMU_DESTROY' ? ERRNO.EBUSY : 0);
    bench.accelerator.setSid('d0', 16);
    expect(bench.host.attached(0)).toBe('abort');
    expect(bench.accelerator.state.failures.get('device d0')).toMatchObject({ code: 'EBUSY' });
    bench.host.failing = () => 0;
    bench.accelerator.retry();
    expect([bench.host.attached(0), bench.host.device(0).noted]).toEqual(['translate 9000', 16]);
    bench.expectSettled(1);
  });
  it('gap 4: what a guest changes from inside a reconcile is not forgotten', () => {
    const bench = new Bench();
    bench.guest.stes.set(8, s1Ste(0x5000));
    bench.guest.setSmmuen(true);
    bench.plug();
    const record = bench.guest.recordEvent.bind(bench.guest);
    // It has an event the moment its queue is opened, and answers in the same breath.
    bench.guest.recordEvent = (words) => {
      bench.guest.setSte(8, s1Ste(0x9000));
      return record(words);
    };
    bench.accelerator.restoreEvents([new Uint32Array(8)]);
    bench.guest.setEventqen(true);
    expect(bench.guest.events).toHaveLength(1);
    expect(bench.host.attached(0)).toBe('translate 9000');
    bench.expectSettled(1);
  });
  it('gap 22: the refusal names the virtual SMMU that the device belongs to', () => {
    const bench = new Bench({ smmus: [0, 0, 1, 1] });
    const space: AddressSpace = bench.space;
    const other = new Accelerator({ space, ids: GUEST_IDS, name: 'smmu-b' });
    other.connect(new ScriptedGuest(other));
    bench.plug(0);
    other.plug({ name: 'd2', path: '/dev/vfio/devices/vfio2', sid: 8 });
    const before = bench.host.objects;
    expect(() => bench.plug(3)).toThrow(
      expect.objectContaining({
        code: 'EINVAL',
        hint: expect.stringContaining('"smmu-b"') as unknown,
      }) as Error,
    );
    expect(bench.host.objects).toEqual(before);
    other.plug({ name: 'd3', path: '/dev/vfio/devices/vfio3', sid: 9 });
    expect(other.state.devices.map(({ attached }) => attached)).toEqual(['bypass', 'bypass']);
  });
});

describe('what the guest is told', () => {
  const SERVER: HostInfo = {
    idr: [0x0dcc_3fdb, (20 << 6) | 22 | (19 << 16) | (19 << 21), 0, 0x1414, 0, 0x75],
    IIDR: 0,
    AIDR: 1,
    ats: true,
    maxPasidLog2: 0,
    repeatTlbiCfgi: false,
  };
  const AUTO = { ril: 'auto', ats: 'auto', oas: 'auto', ssidsize: 'auto' } as const;
  function auto(floor = {}): Machine {
    const host = new BenchHost();
    const machine = new Machine({
      kernel: host.sim,
      memory: new Memory(),
      ids: GUEST_DEFAULT,
      properties: AUTO,
      floor,
      interrupts: { raise() {}, writeMsi: () => true },
      scheduler: host.scheduler,
    });
    machine.addRam(RAM, host.ram);
    return machine;
  }

  /** Where each of the properties that are `auto` has its value from. */
  const sources = ({ identity }: Machine): string[] =>
    identity.resolved.properties
      .filter(({ property }) => !/stall|pri/.test(property))
      .map(({ from }) => from);

  it.each<[string, (machine: Machine) => unknown]>([
    ['a read of an ID register', ({ smmu }) => smmu.read(0, 4)],
    ['a read of another register', ({ smmu }) => smmu.read(OFFSET.CR0, 4)],
    ['a write', ({ smmu }) => smmu.write(OFFSET.GBPA, 4, 0, 0)],
  ])('gap 29: is frozen by %s: a device that comes then changes nothing', (_what, look) => {
    const machine = auto();
    look(machine);
    const told = [0, 4, 0xc, 0x14].map((offset) => machine.smmu.read(offset, 4));
    machine.plug('nic0', '/dev/vfio/devices/vfio0', sidOf(0));
    expect([0, 4, 0xc, 0x14].map((offset) => machine.smmu.read(offset, 4))).toEqual(told);
    expect(sources(machine)).toEqual(new Array(4).fill('floor'));
    machine.unplug('nic0');
  });
  it('gap 29: then a device on a lesser host is refused with every difference, and one on such a host is not', () => {
    const machine = auto({ ats: 'on', oas: 48, ssidsize: 8 });
    machine.smmu.read(0, 4);
    const { ids } = machine.smmu;
    let error: unknown;
    try {
      machine.plug('nic0', '/dev/vfio/devices/vfio0', sidOf(0));
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: 'EOPNOTSUPP', operation: 'plug' });
    for (const difference of [
      'IDR0.ATS=1 must be 0',
      'IDR1.SSIDSIZE=8 must be 0',
      'IDR5.OAS=5 (48 bits) must be 4',
    ])
      expect(String(error)).toContain(difference);
    expect(machine.state).toMatchObject({ devices: [], viommu: undefined });
    expect(machine.smmu.ids).toEqual(ids);
    const modest = auto({ oas: 40 });
    modest.smmu.read(0, 4);
    modest.plug('nic0', '/dev/vfio/devices/vfio0', sidOf(0));
    expect(modest.smmu.read(0x14, 4) & 7).toBe(2);
    modest.unplug('nic0');
  });
  it('gap 29: an access that no register can have tells nothing, and freezes nothing', () => {
    const machine = auto();
    machine.smmu.read(2, 4);
    machine.smmu.write(OFFSET.CR0, 2, 0, 1);
    machine.plug('nic0', '/dev/vfio/devices/vfio0', sidOf(0));
    expect(sources(machine)).toEqual(new Array(4).fill('host'));
    expect(machine.smmu.read(0xc, 4) & (1 << 10)).not.toBe(0);
    machine.unplug('nic0');
  });
  it('gap 30: what was taken from the host counts for invalidations too: ATC_INV goes to it', () => {
    const host = new BenchHost({ ids: identify(LAB_SMMU, { ATS: 1 }), device: { ats: true } });
    const machine = new BenchMachine(host, {}, false, undefined, { properties: { ats: 'auto' } });
    machine.plug();
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    machine.guest.addDevice({ sid: sidOf(0), name: '0000:00:01.0', ats: { enable() {}, disable() {} } });
    const domain = machine.guest.attach(sidOf(0));
    domain.map(GOOD, BUFFERS, 0x1000);
    const { commands } = host.sim.device('/dev/vfio/devices/vfio0')!.smmu;
    const submit = commands.submit.bind(commands);
    const opcodes: number[] = [];
    commands.submit = (...args) => {
      const [words, count, from = 0] = args;
      for (let i = 0; i < count; i++) opcodes.push(words[from + 4 * i] & 0xff);
      return submit(...args);
    };
    domain.unmap(GOOD, 0x1000);
    expect(opcodes).toEqual([0x12, 0x40]);
    machine.close();
  });
  it('gap 30: ATS is there only if the device and its root complex have it too', () => {
    const identity = new Identity(GUEST_DEFAULT, AUTO);
    const without = identity.fit({ ...SERVER, ats: false });
    expect(without.properties.find(({ property }) => property === 'ats')?.value).toBe('off');
    expect(identity.fit(SERVER).properties.find(({ property }) => property === 'ats')?.value).toBe('on');
  });
});
