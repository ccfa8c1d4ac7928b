/** Stalled transactions of a device, from the physical SMMU to the guest's driver and back. */

import { describe, expect, it } from 'vitest';
import { SERVER_SMMU, LAB_SMMU } from '../../src/host/sim/profiles.ts';
import type { GuestDomain } from '../../src/guest/domain.ts';
import { command, resume } from '../../src/guest/commands.ts';
import type { GuestEvent } from '../../src/guest/event.ts';
import { describeCall } from '../../src/accel/call-sentences.ts';
import type { SmmuProperties } from '../../src/accel/properties.ts';
import type { HostError } from '../../src/iommufd/errors.ts';
import type { FaultKind } from '../../src/iommufd/host-info.ts';
import { metricsOf } from '../../src/machine/metrics.ts';
import { Machine } from '../../src/machine/machine.ts';
import { parseSnapshot, restoreSnapshot, takeSnapshot } from '../../src/machine/snapshot.ts';
import { CMD_RESUME, OPCODE } from '../../src/spec/commands.ts';
import { toPrometheus } from '../../src/trace/prometheus.ts';
import { TraceRing } from '../../src/trace/trace-ring.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import {
  BenchHost,
  BenchMachine,
  BUFFERS,
  GUEST_IDS,
  RAM,
  type BenchHostOptions,
} from '../support/bench-machine.ts';

const PAGE = 0x8000_0000n;
const WRITTEN = 0xabcd_0123;

interface Rig {
  readonly machine: BenchMachine;
  readonly stalls: GuestEvent[];
  /** What the driver does with each stalled transaction. */
  answer: (event: GuestEvent) => 'retry' | 'abort' | 'later';
}

const STALLING: BenchHostOptions = { ids: SERVER_SMMU, device: { stalls: true } };

function make(
  properties: SmmuProperties = { stall: 'on' },
  host: BenchHostOptions = STALLING,
  faultsOf: (path: string) => FaultKind | undefined = () => 'stall',
  trace?: TraceRing,
): Rig {
  const stalls: GuestEvent[] = [];
  const rig: Rig = {
    stalls,
    answer: () => 'later',
    machine: new BenchMachine(
      new BenchHost(host),
      {
        onEvent: (event) => {
          if (!event.stall) return;
          stalls.push(event);
        },
        onStall: (event) => rig.answer(event),
      },
      false,
      trace,
      { properties, faultsOf },
    ),
  };
  return rig;
}

/** A driver, a device in a domain of its own, and nothing mapped. */
function running(rig: Rig, eventqLog2 = 4): GuestDomain {
  rig.machine.plug();
  rig.machine.guest.probe({ cmdqLog2: 8, eventqLog2 });
  return rig.machine.attach();
}

const inRam = (machine: BenchMachine, gpa: number): number =>
  new DataView(machine.host.ram.buffer).getUint32(gpa - RAM, true);
const stallsOf = (machine: BenchMachine) => machine.machine.state.faults[0];
const resumed = (machine: BenchMachine) => machine.host.testers[0].resumed;

describe('a device that faults at a page that is not there', () => {
  it('waits, the guest maps the page, and the transaction completes', () => {
    const rig = make();
    const { machine } = rig;
    const domain = running(rig);
    rig.answer = () => {
      domain.map(PAGE, BUFFERS, 0x1000);
      return 'retry';
    };
    expect(machine.dma(PAGE + 0x24n)).toBe(OUTCOME.Stalled);
    expect(resumed(machine)).toEqual([OUTCOME.Ok]);
    expect(inRam(machine, BUFFERS + 0x24)).toBe(WRITTEN);
    expect(rig.stalls).toMatchObject([
      { name: 'F_TRANSLATION', sid: 8, stall: true, iova: PAGE + 0x24n, read: false, ssv: false, stage: 1 },
    ]);
    expect(stallsOf(machine)).toMatchObject({
      outstanding: 0,
      counters: { read: 1, delivered: 1, retried: 1 },
    });
    expect(machine.guest.warnings).toEqual([]);
    machine.expectSettled();
    machine.close();
  });

  it('is aborted if the guest says so', () => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    rig.answer = () => 'abort';
    expect(machine.dma(PAGE)).toBe(OUTCOME.Stalled);
    expect(resumed(machine)).toEqual([OUTCOME.Abort]);
    expect(stallsOf(machine).counters).toMatchObject({ read: 1, aborted: 1, refused: 0 });
    machine.close();
  });

  it('has the event that it would have on a real SMMU: which fault, who, and how', () => {
    const rig = make();
    const { machine } = rig;
    const domain = running(rig);
    domain.map(PAGE, BUFFERS, 0x1000, { read: true });
    machine.dma(PAGE);
    machine.host.testers[0].dmaRead(PAGE + 0x1000n, new Uint8Array(4));
    machine.dma(1n << 60n);
    machine.settle();
    expect(rig.stalls.map(({ name, read, iova }) => ({ name, read, iova }))).toEqual([
      { name: 'F_PERMISSION', read: false, iova: PAGE },
      { name: 'F_TRANSLATION', read: true, iova: PAGE + 0x1000n },
      { name: 'F_TRANSLATION', read: false, iova: 1n << 60n },
    ]);
    // Names are unique with their StreamID until they are answered.
    expect(new Set(rig.stalls.map(({ stag }) => stag)).size).toBe(3);
  });

  it('stalls anew if it is tried again and nothing has changed', () => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    let left = 3;
    rig.answer = () => (left-- > 0 ? 'retry' : 'abort');
    machine.dma(PAGE);
    expect(rig.stalls).toHaveLength(4);
    expect(resumed(machine)).toEqual([OUTCOME.Abort]);
  });
});

describe('a guest that answers as it likes', () => {
  it('another StreamID, another STAG, and a second answer do nothing (4.7.1)', () => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    machine.plug(1);
    machine.attach(1);
    machine.dma(PAGE);
    const [{ sid, stag }] = rig.stalls;
    const { commands } = machine.guest;
    commands.issueAndSync(resume(9, stag, 'retry'));
    commands.issueAndSync(resume(sid, (stag + 1) & 0xffff, 'retry'));
    commands.issueAndSync(resume(sid, 0xffff, 'abort'));
    commands.issueAndSync(resume(0xffff_ffff, stag, 'abort'));
    machine.settle();
    expect(resumed(machine)).toEqual([]);
    expect(stallsOf(machine)).toMatchObject({ outstanding: 1, counters: { unknown: 4 } });
    commands.issueAndSync(resume(sid, stag, 'abort'));
    commands.issueAndSync(resume(sid, stag, 'retry'));
    machine.settle();
    expect(resumed(machine)).toEqual([OUTCOME.Abort]);
    expect(stallsOf(machine)).toMatchObject({ outstanding: 0, counters: { unknown: 5, refused: 0 } });
    expect(machine.guest.warnings).toEqual([]);
  });

  it('CMD_STALL_TERM aborts what its stream has stalled, and no other', () => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    machine.plug(1);
    machine.attach(1);
    machine.dma(PAGE);
    machine.dma(PAGE + 0x1000n);
    machine.dma(PAGE, 1);
    const term = command(OPCODE.CMD_STALL_TERM);
    CMD_RESUME.StreamID.set(term, 8);
    machine.guest.commands.issueAndSync(term);
    machine.settle();
    expect(resumed(machine)).toEqual([OUTCOME.Abort, OUTCOME.Abort]);
    expect(machine.host.testers[1].resumed).toEqual([]);
    expect(stallsOf(machine)).toMatchObject({ outstanding: 1, counters: { aborted: 2 } });
  });

  it('one that never answers has no more than the hardware can stall, and the device goes back all the same', () => {
    const rig = make();
    const { machine } = rig;
    running(rig, 10);
    for (let i = 0; i < 100; i++) machine.dma(PAGE + BigInt(i) * 0x1000n);
    // IDR5.STALL_MAX of the host's SMMU: more are terminated there.
    expect(stallsOf(machine).outstanding).toBe(64);
    machine.unplug();
    expect(stallsOf(machine)).toMatchObject({ id: undefined, outstanding: 0 });
    expect(resumed(machine)).toEqual(Array.from({ length: 64 }, () => OUTCOME.Abort));
    machine.close();
  });
});

describe('a stall record that finds no room', () => {
  it('waits until the guest has made some: none is lost, and there is no overflow', () => {
    const rig = make();
    const { machine } = rig;
    running(rig, 1);
    machine.interruptsOff = true;
    for (let i = 0; i < 5; i++) machine.dma(PAGE + BigInt(i) * 0x1000n);
    expect(stallsOf(machine)).toMatchObject({ outstanding: 2, paused: true });
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    expect(rig.stalls.map(({ iova }) => iova)).toEqual(
      [0, 1, 2, 3, 4].map((i) => PAGE + BigInt(i) * 0x1000n),
    );
    expect(machine.guest.overflows).toBe(0);
    expect(stallsOf(machine)).toMatchObject({ outstanding: 5, paused: false });
  });
});

describe('what waits is answered when nobody could answer it any more', () => {
  it.each<[string, (machine: BenchMachine) => void]>([
    ['the device is unplugged', (machine) => machine.unplug()],
    ['the machine is reset', (machine) => machine.reset()],
    ['the driver shuts down: SMMUEN=0', (machine) => machine.guest.shutdown()],
    ['the event queue is turned off', (machine) => machine.guest.setEventQueueEnabled(false)],
    ['the event queue moves', (machine) => machine.guest.rebaseEventQueue(3)],
    ['the stream is aborted', (machine) => machine.guest.detach(8)],
    // The host ends what waits whenever it replaces a page table.
    ['the stream gets another domain', (machine) => machine.guest.attachIdentity(8)],
  ])('%s', (_, act) => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    machine.dma(PAGE);
    machine.dma(PAGE + 0x1000n);
    expect(stallsOf(machine).outstanding).toBe(2);
    act(machine);
    machine.settle();
    expect(resumed(machine)).toEqual([OUTCOME.Abort, OUTCOME.Abort]);
    const { outstanding, counters } = stallsOf(machine);
    expect(outstanding).toBe(0);
    expect(counters.ended + counters.forgotten).toBe(2);
    machine.expectSettled();
    machine.close();
  });

  it('a snapshot has it tried again: what is not mapped stalls anew, under another name', () => {
    const rig = make();
    const { machine } = rig;
    const domain = running(rig);
    machine.dma(PAGE);
    machine.dma(PAGE + 0x1000n);
    domain.map(PAGE, BUFFERS, 0x1000);
    takeSnapshot(machine.machine);
    expect(stallsOf(machine)).toMatchObject({ outstanding: 0, counters: { released: 2 } });
    machine.settle();
    expect(resumed(machine)).toEqual([OUTCOME.Ok]);
    expect(rig.stalls).toHaveLength(3);
    expect(rig.stalls[2]).toMatchObject({ iova: PAGE + 0x1000n });
    expect(rig.stalls[2].stag).not.toBe(rig.stalls[1].stag);
  });

  it('an invalidation before its record is there: the transaction is tried again, and no record tells of before', () => {
    const rig = make();
    const { machine } = rig;
    const domain = running(rig, 1);
    domain.map(PAGE - 0x1000n, BUFFERS, 0x1000);
    machine.interruptsOff = true;
    // The queue has room for two; the third stays in the host.
    for (let i = 0; i < 3; i++) machine.dma(PAGE + BigInt(i) * 0x1000n);
    domain.map(PAGE + 0x2000n, BUFFERS + 0x1000, 0x1000);
    domain.unmap(PAGE - 0x1000n, 0x1000);
    machine.interruptsOff = false;
    machine.guest.handleInterrupt('eventq');
    machine.settle();
    expect(rig.stalls.map(({ iova }) => iova)).toEqual([PAGE, PAGE + 0x1000n]);
    expect(resumed(machine)).toEqual([OUTCOME.Ok]);
    expect(inRam(machine, BUFFERS + 0x1000)).toBe(WRITTEN);
    expect(stallsOf(machine)).toMatchObject({ outstanding: 2, counters: { released: 1 } });
  });
});

describe('the FAULT_QUEUE', () => {
  it('is there exactly while stalls are offered, a vIOMMU exists and EVENTQEN=1, in any order', () => {
    const rig = make();
    const { machine } = rig;
    const there = (): boolean => {
      machine.expectSettled();
      return (machine.host.objects().fault ?? 0) === 1;
    };
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    expect(there()).toBe(false);
    machine.plug();
    expect(there()).toBe(true);
    machine.attach();
    machine.guest.setEventQueueEnabled(false);
    expect(there()).toBe(false);
    machine.plug(1);
    machine.attach(1);
    expect(there()).toBe(false);
    machine.guest.setEventQueueEnabled(true);
    expect(there()).toBe(true);
    machine.unplug();
    expect(there()).toBe(true);
    machine.unplug(1);
    expect(there()).toBe(false);
    machine.plug();
    expect(there()).toBe(true);
    machine.reset();
    expect(there()).toBe(false);
    machine.close();
  });

  it('can be refused: streams translate all the same, the host ends what would wait, and it is tried again', () => {
    const rig = make();
    const { machine } = rig;
    machine.host.sim.faults.add({ ioctl: 'IOMMU_FAULT_QUEUE_ALLOC', errno: 'ENOMEM', times: 100 });
    const domain = running(rig);
    expect([...machine.machine.state.failures.keys()]).toEqual(['faults']);
    domain.map(PAGE, BUFFERS, 0x1000);
    expect(machine.dma(PAGE)).toBe(OUTCOME.Ok);
    expect(machine.dma(PAGE + 0x1000n)).toBe(OUTCOME.Stalled);
    expect(resumed(machine)).toEqual([OUTCOME.Abort]);
    machine.host.sim.faults.clear();
    machine.machine.accelerator.retry();
    machine.expectSettled();
    machine.dma(PAGE + 0x1000n);
    expect(rig.stalls).toHaveLength(1);
  });
});

describe('a snapshot of a guest with stalls', () => {
  /** Another machine over the same guest memory. */
  function elsewhere(from: BenchMachine, options: BenchHostOptions): { host: BenchHost; machine: Machine } {
    const host = new BenchHost(options);
    const machine = new Machine({
      kernel: host.sim,
      memory: from.machine.memory,
      ids: GUEST_IDS,
      properties: { stall: 'auto' },
      faultsOf: () => 'stall',
      scheduler: host.scheduler,
      interrupts: { raise() {}, writeMsi: () => true },
    });
    machine.mapRam(RAM, from.host.ram);
    return { host, machine };
  }

  it('goes on on a host that has them, where the device stalls and is answered', () => {
    const rig = make();
    running(rig);
    rig.machine.dma(PAGE);
    const snapshot = takeSnapshot(rig.machine.machine);
    rig.machine.interruptsOff = true;
    const { host, machine } = elsewhere(rig.machine, STALLING);
    restoreSnapshot(machine, snapshot);
    expect(host.testers[0].dmaWrite32(PAGE, 1)).toBe(OUTCOME.Stalled);
    host.scheduler.run();
    expect(machine.state.faults[0]).toMatchObject({ outstanding: 1, counters: { delivered: 1 } });
  });

  it('has names that no later one has: an answer to what waited before reaches nothing else, however often it moves', () => {
    const rig = make();
    running(rig);
    rig.machine.dma(PAGE);
    rig.machine.dma(PAGE + 0x1000n);
    const old = rig.stalls.map(({ stag }) => stag);
    rig.machine.interruptsOff = true;
    let from = rig.machine.machine;
    for (let move = 0; move < 3; move++) {
      const snapshot = parseSnapshot(JSON.parse(JSON.stringify(takeSnapshot(from))));
      from.unplug('nic0');
      const { host, machine } = elsewhere(rig.machine, STALLING);
      restoreSnapshot(machine, snapshot);
      expect(host.testers[0].dmaWrite32(PAGE, 1)).toBe(OUTCOME.Stalled);
      host.scheduler.run();
      for (const stag of old) machine.accelerator.stallCommands.resume(8, stag, false, true);
      expect(machine.state.faults[0]).toMatchObject({
        outstanding: 1,
        counters: { delivered: 1, unknown: 2 },
      });
      from = machine;
    }
  });

  it.each([
    ['that is none', [4096]],
    ['twice', [1, 1]],
  ])('with a STAG %s is refused', (_, stags) => {
    const rig = make();
    running(rig);
    const snapshot = takeSnapshot(rig.machine.machine);
    expect(() => parseSnapshot({ ...snapshot, stags })).toThrow('stags');
    expect(parseSnapshot({ ...snapshot, stags: undefined }).stags).toEqual([]);
  });

  it('is refused on a host that has none', () => {
    const rig = make();
    running(rig);
    const snapshot = takeSnapshot(rig.machine.machine);
    const { host, machine } = elsewhere(rig.machine, { ids: LAB_SMMU });
    expect(() => restoreSnapshot(machine, snapshot)).toThrow('IDR0.STALL_MODEL=0 must be 1');
    expect(host.objects()).toEqual({});
  });
});

describe('what people see', () => {
  it('counters, by what became of each', () => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    expect(metricsOf(machine.machine).map(({ name }) => name)).toContain('vsmmu_faults_outstanding');
    machine.dma(PAGE);
    machine.dma(PAGE);
    machine.guest.commands.issueAndSync(resume(8, rig.stalls[0].stag, 'abort'));
    machine.guest.commands.issueAndSync(resume(8, rig.stalls[0].stag, 'abort'));
    const text = toPrometheus(metricsOf(machine.machine));
    expect(text).toContain('vsmmu_faults_outstanding{kind="stall"} 1');
    expect(text).toContain('vsmmu_fault_groups_read_total{kind="stall"} 2');
    expect(text).toContain('vsmmu_fault_groups_ended_total{kind="stall",ending="aborted"} 1');
    expect(text).toContain('vsmmu_fault_answers_unknown_total{kind="stall"} 1');
  });

  it('a trace of each fault and each answer', () => {
    const trace = new TraceRing(() => 0);
    const rig = make(undefined, undefined, undefined, trace);
    running(rig);
    rig.answer = () => 'abort';
    rig.machine.dma(PAGE);
    const seen = [...trace.entries].map(({ event }) => event).filter((name) => name.startsWith('vsmmu_'));
    expect(seen).toContain('vsmmu_iommu_fault_queue_alloc');
    expect(seen.filter((name) => name.startsWith('vsmmu_fault'))).toEqual([
      'vsmmu_fault',
      'vsmmu_fault_answer',
    ]);
  });

  it('sentences for the calls', () => {
    const rig = make();
    const sentences: string[] = [];
    const { caller } = rig.machine.machine.space;
    running(rig);
    caller.observer = (call) => sentences.push(describeCall(call));
    rig.machine.guest.setEventQueueEnabled(false);
    caller.observer = (call) => sentences.push(describeCall(call));
    rig.machine.guest.setEventQueueEnabled(true);
    expect(sentences.join('\n')).toMatch(
      /Makes a FAULT_QUEUE, in which faults of devices wait for the guest's answer, as object \d+\./,
    );
    expect(sentences.join('\n')).toMatch(
      /from what the guest says of the stream, its faults to wait in FAULT_QUEUE \d+, as object \d+\./,
    );
  });
});

describe('stalls are not offered', () => {
  it('by default, and cost no call', () => {
    const rig = make({});
    const { machine } = rig;
    running(rig);
    expect(machine.guest.features.stalls).toBe(false);
    expect(machine.host.objects().fault).toBeUndefined();
    expect(machine.host.ioctls).not.toContain(0x3b8e);
  });

  it('and a guest that sets CD.S all the same hears of it: C_BAD_CD, and nothing waits for ever', () => {
    const rig = make({});
    const { machine } = rig;
    const domain = running(rig);
    expect(domain).toBeDefined();
    setCdStall(machine);
    expect(machine.dma(PAGE)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual(['C_BAD_CD sid 8 iova 0x0']);
  });

  it('to a device that may not stall beside one that may: its CD.S is C_BAD_CD too', () => {
    const rig = make({ stall: 'auto' }, STALLING, (path) => (path.endsWith('0') ? 'stall' : undefined));
    const { machine } = rig;
    running(rig);
    machine.plug(1);
    // The driver of this bench believes that it may.
    machine.attach(1);
    expect(machine.guest.features.stalls).toBe(true);
    expect(machine.dma(PAGE, 1)).toBe(OUTCOME.Abort);
    expect(machine.takeEvents()).toEqual(['C_BAD_CD sid 9 iova 0x0']);
    expect(machine.dma(PAGE, 0)).toBe(OUTCOME.Stalled);
    machine.expectSettled();
  });

  it.each<[string, SmmuProperties, BenchHostOptions, FaultKind | undefined, string]>([
    ['an SMMU without stalls', { stall: 'on' }, { ids: LAB_SMMU }, 'stall', 'IDR0.STALL_MODEL=1'],
    ['a device that is not marked', { stall: 'on' }, STALLING, undefined, 'does not let this device stall'],
    ['a device with page requests', { stall: 'on' }, STALLING, 'page-request', 'does not let this device'],
    ['no page requests', { pri: 'on', ats: 'on' }, { ...STALLING, device: { ats: true } }, 'stall', 'pri=on'],
  ])('%s is refused, with what to do', (_, properties, host, faults, text) => {
    const { machine } = make(properties, host, () => faults);
    let error: HostError | undefined;
    try {
      machine.plug();
    } catch (caught) {
      error = caught as HostError;
    }
    expect(error?.message).toContain(text);
    expect(error?.hint).toBeTruthy();
    machine.plugged.clear();
    machine.expectSettled();
    // A device that is plugged when the guest knows the ID registers is refused likewise.
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    expect(() => machine.plug()).toThrow(text);
  });

  it.each<[string, BenchHostOptions, FaultKind | undefined, boolean]>([
    ['a host that has them', STALLING, 'stall', true],
    ['an SMMU without', { ids: LAB_SMMU }, 'stall', false],
    ['a device without', STALLING, undefined, false],
  ])('stall=auto is what %s says', (_, host, faults, expected) => {
    const rig = make({ stall: 'auto' }, host, () => faults);
    running(rig);
    expect(rig.machine.guest.features.stalls).toBe(expected);
    expect(rig.machine.guest.warnings).toEqual([]);
    rig.machine.expectSettled();
  });
});

/** Sets S in the CD of device 0 by hand, and tells the SMMU. */
function setCdStall(machine: BenchMachine): void {
  const view = new DataView(machine.host.ram.buffer);
  const state = machine.machine.smmu;
  const ste = new Uint32Array(16);
  state.lookupSte(8, ste);
  const cd = (ste[0] & ~0x3f) - RAM;
  view.setUint32(cd + 4, view.getUint32(cd + 4, true) | (1 << 12), true);
  const cfgi = command(OPCODE.CMD_CFGI_CD_ALL);
  cfgi[1] = 8;
  machine.guest.commands.issueAndSync(cfgi);
}
