/** A guest that goes on with another machine, on another host: what a snapshot is for. */

import { expect } from 'vitest';
import { LAB_SMMU } from '../../src/host/sim/profiles.ts';
import { Machine } from '../../src/machine/machine.ts';
import { restoreSnapshot, type MachineSnapshot } from '../../src/machine/snapshot.ts';
import type { IdRegisters } from '../../src/smmu/identification.ts';
import type { Smmu } from '../../src/smmu/smmu.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { BenchHost, BenchMachine, BUFFERS, GUEST_IDS, RAM } from './bench-machine.ts';

/** A guest whose SMMU can be exchanged under it. */
export class Movable {
  readonly bench: BenchMachine;
  host: BenchHost;
  machine: Machine;
  #smmu: Smmu;

  constructor() {
    this.host = new BenchHost();
    const smmu = (): Smmu => this.#smmu;
    this.bench = new BenchMachine(this.host, {
      registers: {
        read: (offset, size) => smmu().read(offset, size),
        get readHi(): number {
          return smmu().readHi;
        },
        write: (offset, size, hi, lo) => smmu().write(offset, size, hi, lo),
      },
      relax: () => void this.host.scheduler.run(),
    });
    this.machine = this.bench.machine;
    this.#smmu = this.machine.smmu;
  }

  /** A machine on a host of its own, over the same guest memory. */
  elsewhere(ids = GUEST_IDS, hostIds: IdRegisters = LAB_SMMU): Machine {
    const host = new BenchHost({ ids: hostIds });
    const machine: Machine = new Machine({
      kernel: host.sim,
      memory: this.bench.machine.memory,
      ids,
      scheduler: host.scheduler,
      interrupts: {
        raise: (line) => {
          if (!this.bench.interruptsOff) host.scheduler.post(() => this.bench.guest.handleInterrupt(line));
        },
        writeMsi: () => true,
      },
    });
    machine.mapRam(RAM, this.bench.host.ram);
    this.nextHost = host;
    return machine;
  }
  /** The host of the machine that was made last. */
  nextHost: BenchHost | undefined;

  /** Stops the machine here and lets the guest go on with another one. */
  move(snapshot: MachineSnapshot, machine = this.elsewhere()): void {
    for (const { name } of this.machine.state.devices) this.machine.unplug(name);
    this.host.scheduler.run();
    expect(this.host.objects()).toEqual({});
    this.host = this.nextHost!;
    this.machine = machine;
    this.#smmu = machine.smmu;
    restoreSnapshot(machine, JSON.parse(JSON.stringify(snapshot)));
    this.settle();
  }
  settle(): void {
    expect(this.host.scheduler.run()).toBe(true);
  }
  dma(iova: bigint, index = 0): boolean {
    const outcome = this.host.testers[index].dmaWrite32(iova, 0x1234);
    this.settle();
    return outcome === OUTCOME.Ok;
  }
}

/** IOVA of the page that {@link running} maps. */
export const GOOD = 0x1000_0000n;

/** A machine whose guest drives one device, with a page mapped at the start of the buffers. */
export function running(eventqLog2 = 4): Movable {
  const movable = new Movable();
  const { bench } = movable;
  bench.plug(0);
  bench.guest.probe({ cmdqLog2: 8, eventqLog2 });
  bench.attach().map(GOOD, BUFFERS, 0x1000);
  movable.settle();
  return movable;
}
