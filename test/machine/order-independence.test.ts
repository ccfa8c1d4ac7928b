import { describe, expect, it } from 'vitest';
import { CR0, EVENTQ_BASE, OFFSET } from '../../src/spec/registers.ts';
import { BenchHost, BenchMachine, RAM } from '../support/bench-machine.ts';

type Action = (machine: BenchMachine) => void;

const EVENTQEN = CR0.EVENTQEN.inPlace;

function setEventqen(machine: BenchMachine, on: boolean): void {
  const { smmu } = machine.machine;
  const cr0 = smmu.read(OFFSET.CR0, 4);
  smmu.write(OFFSET.CR0, 4, 0, on ? cr0 | EVENTQEN : cr0 & ~EVENTQEN);
}

/** Moves the event queue to the other place and size of two, with EVENTQEN=0 meanwhile as the architecture wants. */
function rebase(machine: BenchMachine): void {
  const { smmu } = machine.machine;
  const on = smmu.eventqEnabled;
  setEventqen(machine, false);
  const log2Size = smmu.read(OFFSET.EVENTQ_BASE, 4) & EVENTQ_BASE.LOG2SIZE.mask;
  smmu.write(OFFSET.EVENTQ_BASE, 8, 0, log2Size === 4 ? RAM + 0x2_0000 + 6 : RAM + 0x1_0000 + 4);
  if (on) setEventqen(machine, true);
}

/** By the guest's registers, with no driver: a step that makes no sense changes nothing. */
const BY_REGISTER: Readonly<Record<string, Action>> = {
  plug: (machine) => machine.plug(),
  'EVENTQEN=1': (machine) => setEventqen(machine, true),
  'EVENTQEN=0': (machine) => setEventqen(machine, false),
  unplug: (machine) => machine.unplug(),
  reset: (machine) => machine.reset(),
  're-base': rebase,
};

/** As before, with another device that may keep the vIOMMU. */
const BY_TWO: Readonly<Record<string, Action>> = {
  'plug a': (machine) => machine.plug(0),
  'plug b': (machine) => machine.plug(1),
  'EVENTQEN=1': (machine) => setEventqen(machine, true),
  'EVENTQEN=0': (machine) => setEventqen(machine, false),
  'unplug a': (machine) => machine.unplug(0),
  'unplug b': (machine) => machine.unplug(1),
  reset: (machine) => machine.reset(),
};

/** By a driver, which translates each device that it finds: SMMUEN=1, STEs of stage 1, and events read. */
const BY_DRIVER: Readonly<Record<string, Action>> = {
  plug: (machine) => {
    machine.plug();
    if (machine.guest.probed) machine.attach();
  },
  'EVENTQEN=1': (machine) => {
    if (machine.guest.probed) machine.guest.setEventQueueEnabled(true);
    else {
      machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
      if (machine.plugged.size > 0) machine.attach();
    }
  },
  'EVENTQEN=0': (machine) => {
    if (machine.guest.probed) machine.guest.setEventQueueEnabled(false);
  },
  unplug: (machine) => machine.unplug(),
  reset: (machine) => machine.reset(),
  're-base': (machine) => {
    if (machine.guest.probed) machine.guest.rebaseEventQueue(machine.guest.eventQueueLog2 === 4 ? 6 : 4);
  },
};

/**
 * Plays every sequence of `length` actions, and checks after each action: so every shorter sequence is checked too, once.
 * @returns how many were.
 */
function playAll(
  actions: Readonly<Record<string, Action>>,
  length: number,
  check: Action,
  make: () => BenchMachine = () => new BenchMachine(new BenchHost()),
): number {
  const names = Object.keys(actions);
  let machine = make();
  const registers = (): string => machine.machine.smmu.registers.subarray(0, OFFSET.IDR6 >>> 2).join();
  const cold = registers();
  let checked = 0;
  for (let number = 0; number < names.length ** length; number++) {
    const sequence: string[] = [];
    for (let rest = number, i = 0; i < length; i++, rest = Math.floor(rest / names.length))
      sequence.unshift(names[rest % names.length]);
    // A prefix was checked before, unless all that follows it is the first action.
    let known = length;
    while (known > 0 && sequence[known - 1] === names[0]) known -= 1;
    // A machine is used a hundred times, cold again each time: making one costs more than playing with it.
    if (number % 100 === 0) machine = make();
    for (const [i, name] of sequence.entries()) {
      try {
        actions[name](machine);
        if (i + 1 < known) continue;
        check(machine);
      } catch (error) {
        throw new Error(`after ${sequence.slice(0, i + 1).join(', ')}`, { cause: error });
      }
      checked += 1;
    }
    machine.close();
    machine.reset();
    expect(registers()).toBe(cold);
  }
  return checked;
}

/** Sequences of 1 to n of `actions` actions. */
const sequencesUpTo = (n: number, actions = 6): number => (actions ** (n + 1) - actions) / (actions - 1);

/** Machines in which one thing is forgotten, and how many actions show it. */
const MUTANTS: readonly (readonly [string, number, (machine: BenchMachine) => void])[] = [
  [
    'CR0.EVENTQEN and EVENTQ_BASE',
    2,
    ({ machine }) => {
      machine.accelerator.eventQueueChanged = (): void => {};
    },
  ],
  [
    'the device that goes',
    2,
    ({ machine }) => {
      machine.unplug = (): void => {};
    },
  ],
  [
    'to close what nobody reads',
    2,
    ({ host }) => {
      const close = host.sim.close.bind(host.sim);
      host.sim.close = (fd): number => (fd > 4 ? 0 : close(fd));
    },
  ],
];

describe('whatever the order', () => {
  it('of plug, EVENTQEN=1, EVENTQEN=0, unplug, reset and re-base, up to five of them, the vEVENTQ is right', () => {
    const checked = playAll(BY_REGISTER, 5, (machine) => machine.expectSettled());
    expect(checked).toBe(sequencesUpTo(5));
  });

  it('and with two devices, up to four of them', () => {
    const checked = playAll(BY_TWO, 4, (machine) => machine.expectSettled());
    expect(checked).toBe(sequencesUpTo(4, 7));
  });

  it.each(MUTANTS)('a machine that forgets %s is found out', (_, length, forget) => {
    const make = (): BenchMachine => {
      const machine = new BenchMachine(new BenchHost());
      forget(machine);
      return machine;
    };
    expect(() => playAll(BY_REGISTER, length, (machine) => machine.expectSettled(), make)).toThrow();
  });

  it('a driver gets the events of its devices exactly while it wants them', () => {
    let faults = 0;
    const checked = playAll(BY_DRIVER, 4, (machine) => {
      machine.expectSettled();
      const { guest } = machine;
      const events = guest.events.length;
      expect(events).toBe(0);
      if (machine.plugged.size > 0 && guest.probed) {
        faults += 1;
        machine.dma(0x1234_5000n);
        expect(machine.takeEvents()).toEqual(
          machine.machine.smmu.eventqEnabled ? ['F_TRANSLATION sid 8 iova 0x12345000'] : [],
        );
      }
      expect(guest.warnings).toEqual([]);
    });
    expect(checked).toBe(sequencesUpTo(4));
    expect(faults).toBeGreaterThan(200);
  });
});
