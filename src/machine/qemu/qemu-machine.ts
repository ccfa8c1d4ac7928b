/**
 * A machine whose guest runs in QEMU. It lives in a thread of its own that sits in a poll loop: QEMU's CPUs wait for
 * each register access, so nothing here ever waits for QEMU.
 */

import type { ReconcileReport } from '../../accel/report.ts';
import { HostError } from '../../iommufd/errors.ts';
import { ERRNO } from '../../iommufd/uapi/errno.ts';
import { TearFreeMemory } from '../../memory/memory.ts';
import { LAYOUT, SMMU_INTID } from '../../qemu/device-tree.ts';
import { GuestRam } from '../../qemu/guest-ram.ts';
import { PollLoop } from '../../qemu/poll-loop.ts';
import { SmmuFunction } from '../../qemu/smmu-function.ts';
import { SmmuInterrupts } from '../../qemu/smmu-interrupts.ts';
import { VfioUserServer } from '../../qemu/vfio-user/server.ts';
import { GUEST_DEFAULT } from '../../smmu/identification.ts';
import type { Syscalls } from '../../sys/syscalls.ts';
import { EmbeddedHost } from '../embedded-host.ts';
import { TraceRing } from '../../trace/trace-ring.ts';
import { Machine } from '../machine.ts';
import { eventAccount } from '../event-account.ts';
import { metricsOf } from '../metrics.ts';
import { reportOperations, type RunEvent } from '../report.ts';
import { Scheduler } from '../scheduler.ts';
import type { DmaArgument, Observation, PlugArgument, Snapshot, WorkerStart } from './protocol.ts';
import { QemuSlot } from './qemu-slot.ts';

export interface QemuMachineOptions {
  readonly sys: Syscalls;
  readonly start: Pick<WorkerStart, 'smmuSocket' | 'host' | 'properties' | 'trace'>;
  readonly report: (event: RunEvent) => void;
}

const NS_PER_MS = 1_000_000;

/** The SMMU's wired outputs: the interrupts that our device tree names, raised by writes to the GICv2m frame. */
const WIRING = { kind: 'doorbell', address: LAYOUT.v2mSetSpi, intids: SMMU_INTID } as const;

export class QemuMachine {
  readonly loop: PollLoop;
  readonly #sys: Syscalls;
  readonly #report: (event: RunEvent) => void;
  readonly #scheduler = new Scheduler();
  readonly #host: EmbeddedHost;
  readonly #machine: Machine;
  readonly #ram: GuestRam;
  readonly #interrupts: SmmuInterrupts;
  readonly #server: VfioUserServer;
  readonly #slots = new Map<string, QemuSlot>();
  readonly #problems: string[] = [];
  readonly #trace: TraceRing | undefined;
  #attached = '';
  #ioctls = 0;

  /** Listens for QEMU at the SMMU's socket. @throws QemuError if there can be no socket. */
  constructor({ sys, start, report }: QemuMachineOptions) {
    this.#sys = sys;
    this.#report = report;
    this.loop = new PollLoop(sys, this.#scheduler);
    this.#host = new EmbeddedHost({
      ...start.host,
      scheduler: this.#scheduler,
      log: (text) => report({ kind: 'host', text }),
      now: () => performance.now(),
    });
    const memory = new TearFreeMemory();
    this.#interrupts = new SmmuInterrupts(WIRING, memory);
    if (start.trace === true) this.#trace = new TraceRing(() => performance.now() * NS_PER_MS);
    this.#machine = new Machine({
      kernel: this.#host.kernel,
      faultsOf: (path) => this.#host.faultsOf(path),
      memory,
      ids: GUEST_DEFAULT,
      ...(start.properties !== undefined && { properties: start.properties }),
      ...(this.#trace !== undefined && { trace: this.#trace }),
      interrupts: this.#interrupts,
      scheduler: this.#scheduler,
      observer: (reconcile) => this.#reconciled(reconcile),
      removed: (name) => {
        this.#problem(`${name}: the host took the device away.`);
        this.unplug(name);
      },
      later: (milliseconds, task) => this.loop.after(milliseconds, task),
    });
    this.#ram = new GuestRam(sys, memory, (text) => this.#problem(text), {
      added: (address, bytes) => this.#mapRam(address, bytes),
      removing: (address) => this.#unmapRam(address),
    });
    this.#server = new VfioUserServer({
      sys,
      loop: this.loop,
      path: start.smmuSocket,
      device: new SmmuFunction({
        name: 'smmu',
        registers: this.#machine.smmu,
        interrupts: this.#interrupts,
        ram: this.#ram,
        reset: () => this.#reset(),
      }),
      log: (text) => this.#problem(text),
    });
  }

  /** @throws HostError, QemuError. Nothing is left of the attempt then. */
  plug({ name, sid, socket }: PlugArgument): void {
    if (this.#slots.has(name)) throw new Error(`A device "${name}" is plugged already`);
    const slot: QemuSlot = new QemuSlot({
      sys: this.#sys,
      loop: this.loop,
      kernel: this.#host.kernel,
      machine: this.#machine,
      name,
      path: this.#host.pathOf(name),
      sid,
      socket,
      gone: () =>
        this.#scheduler.post(() => {
          if (this.#slots.get(name) === slot) this.unplug(name);
        }),
      log: (text) => this.#problem(text),
    });
    this.#slots.set(name, slot);
  }

  unplug(name: string): void {
    this.#slots.get(name)?.close();
    this.#slots.delete(name);
  }

  dma({ name, write, iova, bytes }: DmaArgument): boolean {
    return this.#host.dma({ device: name, write, iova, bytes: new Uint8Array(bytes) }) === 'ok';
  }

  snapshot(): Snapshot {
    const { eventqEnabled, viommu, veventq, devices } = this.#machine.state;
    const lost = [...this.#slots].filter(([, slot]) => slot.lostInterrupts > 0);
    return {
      eventqen: eventqEnabled,
      viommu,
      veventq: veventq && { id: veventq.id, depth: veventq.depth },
      attached: Object.fromEntries(devices.map(({ name, attached }) => [name, attached])),
      objects: this.#host.objects(),
      ioctls: this.#ioctls,
      smmu: Object.fromEntries(
        this.#machine.identity.resolved.properties.map(({ property, value }) => [property, value]),
      ),
      problems: [
        ...this.#problems,
        ...lost.map(([name, slot]) => `${name}: ${slot.lostInterrupts} interrupts did not reach the guest.`),
      ],
    };
  }

  observe(): Observation {
    return {
      entries: this.#trace?.entries ?? [],
      metrics: metricsOf(this.#machine),
      events: eventAccount(this.#machine),
    };
  }

  /** Ends all service; the loop ends after the turn that is going on. */
  close(): void {
    for (const name of this.#slots.keys()) this.unplug(name);
    this.#server.close();
    this.loop.stop();
  }

  #problem(text: string): void {
    this.#problems.push(text);
    this.#report({ kind: 'note', text });
  }

  #reset(): void {
    for (const [name, error] of this.#machine.reset()) this.#problem(`${name}: ${error.message}`);
  }

  #mapRam(address: number, bytes: Uint8Array): number {
    try {
      this.#machine.mapRam(address, bytes);
      return 0;
    } catch (error) {
      if (!(error instanceof HostError || error instanceof RangeError)) throw error;
      this.#problem(error.message);
      return ERRNO.EINVAL;
    }
  }

  #unmapRam(address: number): void {
    try {
      this.#machine.unmapRam(address);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#problem(error.message);
    }
  }

  /** Tells of what changed; a booting guest causes hundreds of reconciles that change nothing to speak of. */
  #reconciled({ operations, queue, eventqEnabled, viommu, veventq }: ReconcileReport): void {
    this.#ioctls += operations.length;
    reportOperations(this.#report, operations);
    const attached = Object.fromEntries(this.#machine.state.devices.map((d) => [d.name, d.attached]));
    const summary = JSON.stringify([attached, eventqEnabled, viommu, veventq]);
    if (summary === this.#attached) return;
    this.#attached = summary;
    this.#report({
      kind: 'state',
      eventqen: eventqEnabled,
      viommu: viommu ?? null,
      veventq: veventq ?? null,
      ...queue,
      attached,
    });
  }
}
