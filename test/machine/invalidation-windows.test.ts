/** What a guest's CMD_SYNC promises, whatever the host does with the invalidations before it. */

import { describe, expect, it } from 'vitest';
import { command, sync } from '../../src/guest/commands.ts';
import { LAB_SMMU } from '../../src/host/sim/profiles.ts';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import { IOMMU_HWPT_INVALIDATE } from '../../src/iommufd/uapi/iommufd.ts';
import type { MachineOptions } from '../../src/machine/machine.ts';
import { identify } from '../../src/smmu/identification.ts';
import { COMMANDS_PER_DOORBELL } from '../../src/smmu/register-effects.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { CMD_TLBI_NH_VA, COMMAND, OPCODE } from '../../src/spec/commands.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { BenchHost, BenchMachine, BUFFERS, GUEST_IDS, sidOf } from '../support/bench-machine.ts';

const GOOD = 0x1000_0000n;
const CMDQ_ERR = 1;
const CERROR_ATC_INV_SYNC = 3;
/** A command queue of the test's own. */
const QUEUE = BUFFERS + 0x8_0000;

function running(more: Partial<MachineOptions> = {}): BenchMachine {
  const machine = new BenchMachine(new BenchHost(), {}, false, undefined, more);
  machine.plug();
  machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
  machine.attach().map(GOOD, BUFFERS, 0x1000);
  expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
  return machine;
}
const invalidations = ({ host }: BenchMachine): number =>
  host.ioctls.filter((request) => request === IOMMU_HWPT_INVALIDATE.request).length;
const physical = ({ host }: BenchMachine) => host.sim.device('/dev/vfio/devices/vfio0')!.smmu;

/** One page of ASID 1, of which every domain of these tests is the only one. */
function pageOf(iova: bigint): Uint32Array {
  const words = command(OPCODE.CMD_TLBI_NH_VA);
  CMD_TLBI_NH_VA.ASID.set(words, 1);
  CMD_TLBI_NH_VA.Leaf.set(words, 1);
  CMD_TLBI_NH_VA.Address.set(words, Number(iova >> 32n), Number(iova & 0xffff_ffffn));
  return words;
}

/** Takes a page out of the guest's table without a word to the SMMU, and gives back what to do about it. */
function unmapSilently(machine: BenchMachine): Uint32Array {
  const { commands } = machine.guest;
  const issue = commands.issueAndSync.bind(commands);
  commands.issueAndSync = () => {};
  machine.attach().unmap(GOOD, 0x1000);
  commands.issueAndSync = issue;
  expect(machine.dma(GOOD), 'the hardware still has it cached').toBe(OUTCOME.Ok);
  return pageOf(GOOD);
}

/** Puts commands into a queue of their own, and rings its doorbell once. */
function ring({ machine: { memory, smmu } }: BenchMachine, commands: readonly Uint32Array[]): void {
  const cr0 = smmu.read(OFFSET.CR0, 4);
  smmu.write(OFFSET.CR0, 4, 0, cr0 & ~8);
  smmu.write(OFFSET.CMDQ_BASE, 8, 0, QUEUE + 13);
  smmu.write(OFFSET.CMDQ_PROD, 4, 0, 0);
  smmu.write(OFFSET.CMDQ_CONS, 4, 0, 0);
  for (const [i, words] of commands.entries()) memory.storeWords(0, QUEUE + 16 * i, words, 4);
  smmu.write(OFFSET.CR0, 4, 0, cr0);
  smmu.write(OFFSET.CMDQ_PROD, 4, 0, commands.length);
}
const cons = ({ machine: { smmu } }: BenchMachine): number => smmu.read(OFFSET.CMDQ_CONS, 4);
const errors = ({ machine: { smmu } }: BenchMachine): number =>
  smmu.read(OFFSET.GERROR, 4) ^ smmu.read(OFFSET.GERRORN, 4);

/** Spoils entry `k` of the first call with more entries than that: the kernel then stops there, as at any bad entry. */
function spoil({ host: { sim } }: BenchMachine, k: number): void {
  const memory = new Map<bigint, Uint8Array>();
  const userMemory = sim.userMemory.bind(sim);
  sim.userMemory = (bytes) => {
    const made = userMemory(bytes);
    memory.set(made.address, bytes);
    return made;
  };
  const ioctl = sim.ioctl.bind(sim);
  let spoiled = false;
  sim.ioctl = (fd, request, arg) => {
    if (request !== IOMMU_HWPT_INVALIDATE.request || spoiled) return ioctl(fd, request, arg);
    const { data_uptr, entry_num } = IOMMU_HWPT_INVALIDATE.decode(arg);
    if (entry_num <= k) return ioctl(fd, request, arg);
    spoiled = true;
    const bytes = memory.get(data_uptr)!;
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, entry_num * 4);
    COMMAND.Opcode.set(words, OPCODE.CMD_CFGI_STE, 4 * k);
    return ioctl(fd, request, arg);
  };
}

/**
 * Has the physical command queue run out of time for batches of the guest's invalidations; the kernel's own, which it
 * makes of an attach, are none of ours.
 * @param due asked for each batch. @returns what ends it.
 */
function timeOut(machine: BenchMachine, due: () => boolean): () => void {
  const queue = physical(machine).commands;
  const { sim } = machine.host;
  const submit = queue.submit.bind(queue);
  const ioctl = sim.ioctl.bind(sim);
  let ours = false;
  sim.ioctl = (fd, request, arg) => {
    ours = request === IOMMU_HWPT_INVALIDATE.request;
    return ioctl(fd, request, arg);
  };
  queue.submit = (...args) => (ours && due() ? ERRNO.ETIMEDOUT : submit(...args));
  return () => {
    sim.ioctl = ioctl;
    queue.submit = submit;
  };
}

describe('a window', () => {
  it('gap 11: of as many commands as a doorbell carries out is one call', () => {
    const machine = running();
    const page = unmapSilently(machine);
    const filler = Array.from({ length: COMMANDS_PER_DOORBELL - 2 }, (_, i) =>
      pageOf(0x9000_0000n + BigInt(i) * 0x1000n),
    );
    machine.host.ioctls = [];
    ring(machine, [page, ...filler, sync()]);
    expect(cons(machine)).toBe(COMMANDS_PER_DOORBELL);
    expect(invalidations(machine)).toBe(1);
    expect(machine.dma(GOOD)).toBe(OUTCOME.Abort);
    machine.close();
  });
  it('gap 11: several of them in one doorbell are one call each, in order', () => {
    const machine = running();
    machine.host.ioctls = [];
    ring(machine, [pageOf(GOOD), sync(), pageOf(GOOD), pageOf(GOOD), sync(), sync()]);
    expect(invalidations(machine)).toBe(2);
    machine.close();
  });
});

describe('gap 13 and 15: nothing stale is used behind a CMD_SYNC', () => {
  it.each([0, 1, 61, 62, 63, 64, 65, 126, 127, 199])(
    'although the kernel met a bad entry %i of 200, with the real one before or behind it',
    (k) => {
      for (const at of [0, 62, 63, 100, 199]) {
        if (at === k) continue;
        const host = new BenchHost();
        const machine = new BenchMachine(host);
        spoil(machine, Math.max(k, 2));
        machine.plug();
        machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
        machine.attach().map(GOOD, BUFFERS, 0x1000);
        machine.dma(GOOD);
        const page = unmapSilently(machine);
        const commands = Array.from({ length: 200 }, (_, i) => pageOf(0x9000_0000n + BigInt(i) * 0x1000n));
        commands[at] = page;
        ring(machine, [...commands, sync()]);
        expect(machine.machine.state.invalidations.failed).toBe(1);
        expect(cons(machine)).toBe(201);
        expect(machine.dma(GOOD), `page at ${at}`).toBe(OUTCOME.Abort);
        expect(errors(machine)).toBe(0);
        machine.takeEvents();
        machine.expectSettled();
        machine.close();
      }
    },
  );
  it('although the physical command queue runs out of time, at any batch and any number of times', () => {
    for (const first of [1, 2, 3, 4])
      for (const times of [1, 2, 4, 5, 8, 1000]) {
        const machine = running();
        const page = unmapSilently(machine);
        let submissions = 0;
        const restore = timeOut(machine, () => ++submissions >= first && submissions < first + times);
        const filler = Array.from({ length: 199 }, (_, i) => pageOf(0x9000_0000n + BigInt(i) * 0x1000n));
        ring(machine, [...filler, page, sync()]);
        expect(cons(machine)).toBe(201);
        expect(machine.dma(GOOD), `${times} from ${first}`).toBe(OUTCOME.Abort);
        // A second of waiting each: a handful, whatever happens.
        expect(submissions).toBeLessThanOrEqual(16);
        restore();
        machine.machine.accelerator.retry();
        machine.attach().map(GOOD, BUFFERS, 0x1000);
        expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
        machine.takeEvents();
        machine.expectSettled();
        machine.close();
      }
  });
});

describe('a CMD_SYNC that signals', () => {
  const MESSAGE = BUFFERS + 0x9000;
  const message = (): Uint32Array => sync(MESSAGE);
  const messages = identify(GUEST_IDS, { MSI: 1 });
  const armed = ({ machine: { memory } }: BenchMachine): void => void memory.store32(0, MESSAGE, 0x5555_5555);
  const signalled = ({ machine: { memory } }: BenchMachine): boolean => {
    memory.load32(0, MESSAGE);
    return memory.lo !== 0x5555_5555;
  };

  it.each(['EIO', 'ETIMEDOUT', 'ENOMEM'] as const)(
    'while the host refuses everything (%s) does so when the streams are aborted, not before',
    (errno) => {
      const machine = running({ ids: messages });
      const page = unmapSilently(machine);
      machine.host.sim.faults.add({ ioctl: 'IOMMU_HWPT_INVALIDATE', errno, times: 1000 });
      armed(machine);
      const early: boolean[] = [];
      const ioctl = machine.host.sim.ioctl.bind(machine.host.sim);
      machine.host.sim.ioctl = (...args) => {
        early.push(signalled(machine));
        return ioctl(...args);
      };
      ring(machine, [page, message()]);
      expect(early.length).toBeGreaterThan(0);
      expect(early).not.toContain(true);
      expect(signalled(machine)).toBe(true);
      expect(machine.dma(GOOD)).toBe(OUTCOME.Abort);
      expect(machine.machine.state.devices).toMatchObject([{ attached: 'abort', wanted: 'translate' }]);
      machine.host.sim.faults.clear();
      machine.close();
    },
  );
});

describe('gap 13: an endpoint that does not answer an ATC_INV', () => {
  const host = (): BenchHost => new BenchHost({ ids: identify(LAB_SMMU, { ATS: 1 }), device: { ats: true } });
  function withAts(): BenchMachine {
    const ids = identify(GUEST_IDS, { ATS: 1 });
    const machine = new BenchMachine(host(), {}, false, undefined, { ids });
    machine.plug();
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    machine.guest.addDevice({
      sid: sidOf(0),
      name: '0000:00:01.0',
      ats: { enable() {}, disable() {} },
    });
    machine.guest.attach(sidOf(0)).map(GOOD, BUFFERS, 0x1000);
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    return machine;
  }
  /** The endpoint answers none of the next ATC_INVs. @returns how many were asked of it. */
  function deaf(machine: BenchMachine): () => number {
    const queue = physical(machine).commands;
    const submit = queue.submit.bind(queue);
    let asked = 0;
    queue.submit = (...args) => {
      const [words, count, from = 0] = args;
      for (let i = 0; i < count; i++)
        if (COMMAND.Opcode.get(words, from + 4 * i) === OPCODE.CMD_ATC_INV) {
          asked += 1;
          return ERRNO.ETIMEDOUT;
        }
      return submit(...args);
    };
    return () => asked;
  }

  it('is CERROR_ATC_INV_SYNC at the CMD_SYNC, without its signal; the next one is fine, and the driver goes on', () => {
    const machine = withAts();
    machine.interruptsOff = true;
    const asked = deaf(machine);
    const atcInv = Uint32Array.of(0x40, sidOf(0), 0x34, 0);
    ring(machine, [pageOf(GOOD), atcInv, sync(), sync()]);
    expect(cons(machine)).toBe((CERROR_ATC_INV_SYNC << 24) | 2);
    expect(errors(machine)).toBe(CMDQ_ERR);
    expect(asked()).toBe(2);
    expect(machine.machine.state.invalidations).toMatchObject({ atcTimeouts: 1, resynced: 0, abandoned: 0 });
    // Translations go on: only the guest knows what to do with the device.
    expect(machine.dma(GOOD)).toBe(OUTCOME.Ok);
    const { smmu } = machine.machine;
    smmu.write(OFFSET.GERRORN, 4, 0, smmu.read(OFFSET.GERROR, 4));
    expect([cons(machine) & 0xfffff, errors(machine)]).toEqual([4, 0]);
    machine.close();
  });
  it('as the driver sees it: it prints the error, and the unmap is complete', () => {
    const machine = withAts();
    deaf(machine);
    machine.guest.attach(sidOf(0)).unmap(GOOD, 0x1000);
    expect(machine.guest.dmesg.join('\n')).toMatch(
      /CMDQ error \(cons 0x03[0-9a-f]{6}\): ATC invalidate timeout/,
    );
    expect(machine.dma(GOOD)).toBe(OUTCOME.Abort);
    expect(errors(machine)).toBe(0);
    machine.close();
  });
});

describe('a guest that floods the queue', () => {
  it('gap 12: gets a bounded number of host calls per doorbell; the rest follows in turns of the scheduler', () => {
    const machine = running();
    const pairs = Array.from({ length: 4000 }, (_, i) => (i % 2 === 0 ? pageOf(GOOD) : sync()));
    machine.host.ioctls = [];
    ring(machine, pairs);
    expect(cons(machine)).toBe(COMMANDS_PER_DOORBELL);
    expect(machine.host.ioctls.length).toBe(COMMANDS_PER_DOORBELL / 2);
    // Ringing again and again does no more: the turn is asked for already.
    for (let i = 0; i < 10; i++) machine.machine.smmu.write(OFFSET.CMDQ_PROD, 4, 0, 4000);
    expect(cons(machine)).toBe(COMMANDS_PER_DOORBELL);
    const most: number[] = [];
    let before = machine.host.ioctls.length;
    const { scheduler } = machine.host;
    const look = (): void => {
      most.push(machine.host.ioctls.length - before);
      before = machine.host.ioctls.length;
      if (cons(machine) !== 4000) scheduler.post(look);
    };
    scheduler.post(look);
    machine.settle();
    expect(Math.max(...most)).toBeLessThanOrEqual(COMMANDS_PER_DOORBELL / 2);
    expect(cons(machine)).toBe(4000);
    machine.close();
  });
  it('with CFGI_STE and CFGI_ALL that change nothing costs the host nothing', () => {
    const machine = running();
    machine.host.ioctls = [];
    ring(
      machine,
      Array.from({ length: 1000 }, (_, i) =>
        i % 2 === 0 ? Uint32Array.of(3, sidOf(0), 1, 0) : Uint32Array.of(4, 0, 31, 0),
      ),
    );
    expect(cons(machine)).toBe(1000);
    expect(machine.host.ioctls).toEqual([]);
    machine.close();
  });
});
