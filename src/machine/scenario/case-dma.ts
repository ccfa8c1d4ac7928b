/** The DMA of a case: what a device reads or writes, and whether guest memory agrees. */

import { hiOf, loOf } from '../../bits/u64.ts';
import type { Memory } from '../../memory/memory.ts';
import type { Machine } from '../machine.ts';
import type { Reporter } from '../report.ts';
import type { DmaRequest, ScenarioHost, Workspace } from '../scenario-host.ts';
import type { GuestDevices } from './guest-devices.ts';
import type { Step } from './steps.ts';

/** Of every case's machine. */
export const RAM = { base: 0x4000_0000, size: 0x1000_0000 };
/** For devices that have to be loaded and emptied by DMA: the last page of RAM, and where they find it if translated. */
const WORKSPACE = { gpa: RAM.base + RAM.size - 0x1000, iova: 0xf_ffff_f000n, size: 0x1000 };

export class CaseDma {
  readonly #report: Reporter;
  readonly #memory: Memory;
  readonly #devices: GuestDevices;
  #pattern = 0;

  constructor(report: Reporter, memory: Memory, devices: GuestDevices) {
    this.#report = report;
    this.#memory = memory;
    this.#devices = devices;
  }

  /** Has a device read or write, compares what came of it with memory, and reports both. */
  async play(
    { args, line }: Extract<Step, { action: 'dma' }>,
    machine: Machine,
    host: ScenarioHost,
    ram: Uint8Array,
  ): Promise<void> {
    const { device } = args;
    const size = Math.min(args.bytes, host.largestDma);
    const write = args.write !== undefined;
    const iova = args.write ?? args.read ?? 0n;
    let gpa = this.#guestAddress(device, iova, machine);
    const sent = this.#nextPattern(size);
    const bytes = write ? sent : new Uint8Array(size);
    // What is there before a write is neither what it sends nor zero, so that it shows whether anything arrived.
    const before = write ? sent.map((byte) => ~byte) : sent;
    if (gpa !== undefined) this.#memory.writeBytes(hiOf(gpa), loOf(gpa), before);

    const outcome = await host.dma({
      device,
      vfio: machine.accelerator.device(device),
      write,
      iova,
      bytes,
      workspace: () => this.#workspace(device, machine, ram),
      ram,
    } satisfies DmaRequest);
    const ok = outcome === 'ok';
    // The guest may have mapped it meanwhile, because it faulted. What was there before is of no interest then.
    gpa ??= ok ? this.#guestAddress(device, iova, machine) : undefined;
    const inRam = new Uint8Array(size);
    if (gpa !== undefined) this.#memory.readBytes(hiOf(gpa), loOf(gpa), inRam);
    const same = gpa === undefined || bytes.every((byte, i) => byte === inRam[i]);
    const untouched = gpa === undefined || before.every((byte, i) => byte === inRam[i]);
    const arrived =
      gpa === undefined ? 'done' : same ? 'done, and the data compares equal' : 'done, but the data differs';
    const wanting = outcome === 'wait' ? 'waits for the guest' : 'aborted';
    const aborted = untouched ? wanting : `${wanting}, but memory has changed`;
    this.#report({
      kind: 'dma',
      device,
      access: write ? 'write' : 'read',
      iova: `0x${iova.toString(16)}`,
      bytes: size,
      outcome,
      text: `${device} ${write ? 'writes' : 'reads'} ${size} bytes at 0x${iova.toString(16)}: ${ok ? arrived : aborted}.`,
    });
    if (args.expect !== undefined)
      this.#report({
        kind: 'expectation',
        line,
        ok: outcome === args.expect && (ok ? same : untouched),
        text: `the DMA was expected to end with ${args.expect}${(ok ? same : untouched) ? '' : `, and memory to have ${ok ? 'the same data' : 'what it had'}`}`,
      });
  }

  #nextPattern(size: number): Uint8Array {
    this.#pattern = (this.#pattern + 0x3b) & 0xff;
    return Uint8Array.from({ length: size }, (_, i) => this.#pattern + i);
  }

  /** Memory that a device reaches: mapped for it, where it has a domain, and at its own address otherwise. */
  #workspace(device: string, machine: Machine, ram: Uint8Array): Workspace {
    const at = WORKSPACE.gpa - RAM.base;
    const bytes = ram.subarray(at, at + WORKSPACE.size);
    const entry = this.#devices.domainOf(device);
    if (entry === undefined || attachment(machine, device) !== 'translate')
      return { iova: BigInt(WORKSPACE.gpa), bytes };
    if (!entry.workspace) entry.domain.map(WORKSPACE.iova, WORKSPACE.gpa, WORKSPACE.size);
    entry.workspace = true;
    return { iova: WORKSPACE.iova, bytes };
  }

  /** Where a DMA should end in guest memory, as far as the scenario knows. */
  #guestAddress(device: string, iova: bigint, machine: Machine): bigint | undefined {
    return (
      this.#devices.mapped(device, iova) ?? (attachment(machine, device) === 'bypass' ? iova : undefined)
    );
  }
}

const attachment = (machine: Machine, device: string): string | undefined =>
  machine.state.devices.find(({ name }) => name === device)?.attached;
