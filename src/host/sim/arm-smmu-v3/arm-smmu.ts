/**
 * One physical SMMU and the kernel's driver for it. The SMMU is the device model of smmu/ over host memory; the driver
 * owns its stream table and queues there, and does to it what Linux's arm-smmu-v3 does.
 */

import { hiOfNumber, loOfNumber } from '../../../bits/u64.ts';
import type { Errno } from '../../../iommufd/kernel.ts';
import type { IdRegisters } from '../../../smmu/identification.ts';
import type { InterruptLine } from '../../../smmu/ports.ts';
import { Smmu } from '../../../smmu/smmu.ts';
import { OUTCOME, type Outcome } from '../../../smmu/transaction.ts';
import {
  CFGI_ALL_RANGE,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  COMMAND,
  COMMAND_WORDS,
  OPCODE,
} from '../../../spec/commands.ts';
import {
  CR0,
  CR1,
  CR2,
  GERROR,
  IDR0,
  IDR1,
  IDR3,
  IRQ_CTRL,
  OFFSET,
  STRTAB_BASE_CFG,
} from '../../../spec/registers.ts';
import { hex32 } from '../../../bits/u64.ts';
import type { HostMemory } from '../host-memory.ts';
import type { KernelLog } from '../kernel-log.ts';
import { CommandSubmission } from './command-submission.ts';
import { EventDrain } from './event-drain.ts';
import type { Master } from './master.ts';
import { PriDrain } from './pri-drain.ts';
import { StreamTable } from './stream-table.ts';
import { Tags } from './tags.ts';

/** Inner shareable, write-back: what Linux sets for queues and tables. */
const CR1_VALUE =
  CR1.TABLE_SH.put(3) |
  CR1.TABLE_OC.put(1) |
  CR1.TABLE_IC.put(1) |
  CR1.QUEUE_SH.put(3) |
  CR1.QUEUE_OC.put(1) |
  CR1.QUEUE_IC.put(1);

const GERROR_TEXT = [
  [GERROR.EVENTQ_ABT_ERR, 'EVTQ write aborted -- events may have been lost'],
  [GERROR.PRIQ_ABT_ERR, 'PRIQ write aborted -- events may have been lost'],
  [GERROR.MSI_GERROR_ABT_ERR, 'GERROR MSI write aborted'],
  [GERROR.MSI_EVENTQ_ABT_ERR, 'EVTQ MSI write aborted'],
  [GERROR.MSI_CMDQ_ABT_ERR, 'CMDQ MSI write aborted'],
  [GERROR.SFM_ERR, 'device has entered Service Failure Mode!'],
] as const;

export interface ArmSmmuOptions {
  /** As in the host's log: `3e000000.smmuv3`. */
  readonly name: string;
  readonly ids: IdRegisters;
  readonly host: HostMemory;
  readonly log: KernelLog;
  readonly now: () => number;
  readonly log2TlbEntries?: number | undefined;
  /** Not Linux 7.3: page requests go to FAULT_QUEUEs. */
  readonly handOverPageRequests: boolean;
}

export class ArmSmmu {
  readonly name: string;
  readonly ids: IdRegisters;
  readonly host: HostMemory;
  readonly model: Smmu;
  readonly commands: CommandSubmission;
  readonly events: EventDrain;
  /** Undefined without IDR0.PRI. */
  readonly #pri: PriDrain | undefined;
  readonly vmids = new Tags(1);
  readonly asids = new Tags(1);
  /** For tests: interrupts wait until this is false again and {@link handleInterrupts} is called. */
  holdInterrupts = false;
  readonly #streams: StreamTable;
  readonly #masters = new Map<number, Master>();
  readonly #log: KernelLog;
  readonly #stalled = new Map<number, (outcome: Outcome) => void>();
  /** Who waits for the answer to a page request, by StreamID and PRGIndex. */
  readonly #requests = new Map<string, (response: number) => void>();
  readonly #resumed: (() => void)[] = [];
  #eventPending = false;
  #priPending = false;
  #errorPending = false;

  constructor(options: ArmSmmuOptions) {
    this.name = options.name;
    this.ids = options.ids;
    this.host = options.host;
    this.#log = options.log;
    this.model = new Smmu({
      ids: options.ids,
      memory: options.host.memory,
      interrupts: {
        raise: (line) => this.#raise(line),
        writeMsi: (hi, lo, data) => options.host.memory.store32(hi, lo, data) === 0,
      },
      stalls: { resolved: (stag, _, { outcome, stag: again }) => this.#resolved(stag, outcome, again) },
      responses: { respond: (sid, _ssv, _ssid, group, response) => this.#answered(sid, group, response) },
      log2TlbEntries: options.log2TlbEntries,
    });
    const { ids } = options;
    this.#streams = new StreamTable(
      options.host,
      IDR1.SIDSIZE.of(ids.IDR1),
      IDR0.ST_LEVEL.of(ids.IDR0) === 1,
    );
    this.commands = new CommandSubmission(this.model, options.host, (line) => this.print(line));
    this.events = new EventDrain({
      smmu: this.model,
      memory: options.host,
      log: options.log,
      prefix: this.#prefix,
      now: options.now,
      master: (sid) => this.#masters.get(sid),
      submit: (words, count) => this.submit(words, count),
    });
    if (IDR0.PRI.of(ids.IDR0) === 1)
      this.#pri = new PriDrain({
        smmu: this.model,
        memory: options.host,
        print: (line) => this.print(line),
        master: (sid) => this.#masters.get(sid),
        submit: (words, count) => this.submit(words, count),
        handOver: options.handOverPageRequests,
      });
    this.#start();
  }

  /** IDR0.S1P and S2P: both stages at once. */
  get canNest(): boolean {
    return IDR0.S1P.of(this.ids.IDR0) === 1 && IDR0.S2P.of(this.ids.IDR0) === 1;
  }

  get hasStage1(): boolean {
    return IDR0.S1P.of(this.ids.IDR0) === 1;
  }

  get hasAts(): boolean {
    return IDR0.ATS.of(this.ids.IDR0) === 1;
  }

  get ssidBits(): number {
    return IDR1.SSIDSIZE.of(this.ids.IDR1);
  }

  get hasFwb(): boolean {
    return IDR3.FWB.of(this.ids.IDR3) === 1;
  }

  get #prefix(): string {
    return `arm-smmu-v3 ${this.name}: `;
  }

  print(line: string): void {
    this.#log.print(this.#prefix + line);
  }

  /** Whether a device with this StreamID can be behind this SMMU. */
  canHold(sid: number): boolean {
    return this.#streams.holds(sid) && !this.#masters.has(sid);
  }

  /** Makes a device known; its DMA is blocked until it is attached. */
  addMaster(master: Master): void {
    for (const sid of master.sids) this.#masters.set(sid, master);
    master.attachBlocked();
  }

  removeMaster(master: Master): void {
    master.attachBlocked();
    for (const sid of master.sids) this.#masters.delete(sid);
  }

  /** Replaces the STEs of a device, and makes sure that the SMMU uses the new ones when this returns. */
  writeSte(sids: readonly number[], ste: Uint32Array): void {
    for (const sid of sids) {
      this.#streams.write(sid, ste);
      const command = new Uint32Array(COMMAND_WORDS);
      COMMAND.Opcode.set(command, OPCODE.CMD_CFGI_STE);
      CMD_CFGI_STE.StreamID.set(command, sid);
      CMD_CFGI_STE.Leaf.set(command, 1);
      this.submit(command, 1);
    }
  }

  /** Carries out at most 63 commands and waits for them. @returns 0 or ETIMEDOUT. */
  submit(words: Uint32Array, count: number, from = 0): Errno {
    return this.commands.submit(words, count, from);
  }

  /** Calls back, from {@link handleInterrupts}, when the stalled transaction of this STAG is resumed or ended. */
  whenResumed(stag: number, callback: (outcome: Outcome) => void): void {
    this.#stalled.set(stag, callback);
  }

  /** Calls back, from {@link handleInterrupts}, with the answer to a page request that is about to be sent. */
  whenAnswered(sid: number, group: number, callback: (response: number) => void): void {
    this.#requests.set(`${sid} ${group}`, callback);
  }

  /** Does what pending interrupts ask for. Called when no other work of this SMMU is under way. */
  handleInterrupts(): void {
    while (
      this.#resumed.length > 0 ||
      ((this.#eventPending || this.#priPending || this.#errorPending) && !this.holdInterrupts)
    ) {
      this.#resumed.shift()?.();
      if (this.holdInterrupts) continue;
      if (this.#errorPending) {
        this.#errorPending = false;
        this.#handleGlobalError();
      }
      if (this.#eventPending) {
        this.#eventPending = false;
        this.events.run();
      }
      if (this.#priPending) {
        this.#priPending = false;
        this.#pri?.run();
      }
    }
  }

  /** A stalled transaction was tried again or ended; it may have stalled again, under another STAG. */
  #resolved(stag: number, outcome: Outcome, again: number): void {
    const callback = this.#stalled.get(stag);
    this.#stalled.delete(stag);
    if (callback === undefined) return;
    if (outcome === OUTCOME.Stalled) this.#stalled.set(again, callback);
    else this.#resumed.push(() => callback(outcome));
  }

  #answered(sid: number, group: number, response: number): void {
    const key = `${sid} ${group}`;
    const callback = this.#requests.get(key);
    this.#requests.delete(key);
    if (callback !== undefined) this.#resumed.push(() => callback(response));
  }

  #raise(line: InterruptLine): void {
    if (line === 'eventq') this.#eventPending = true;
    else if (line === 'priq') this.#priPending = true;
    else if (line === 'gerror') this.#errorPending = true;
  }

  #handleGlobalError(): void {
    const gerror = this.model.read(OFFSET.GERROR, 4);
    const active = gerror ^ this.model.read(OFFSET.GERRORN, 4);
    if (active === 0) return;
    this.print(`unexpected global error reported (${hex32(active, 8)}), this could be serious`);
    for (const [field, text] of GERROR_TEXT) if (field.of(active) === 1) this.print(text);
    this.model.write(OFFSET.GERRORN, 4, 0, gerror);
  }

  /** Enables the SMMU, in the driver's order. */
  #start(): void {
    const { model } = this;
    const write = (offset: number, value: number): void => model.write(offset, 4, 0, value);
    write(OFFSET.CR0, 0);
    write(OFFSET.CR1, CR1_VALUE);
    write(OFFSET.CR2, CR2.RECINVSID.put(1) | CR2.PTM.put(1));
    model.write(OFFSET.STRTAB_BASE, 8, hiOfNumber(this.#streams.base), loOfNumber(this.#streams.base));
    write(
      OFFSET.STRTAB_BASE_CFG,
      STRTAB_BASE_CFG.LOG2SIZE.put(this.#streams.log2Size) |
        STRTAB_BASE_CFG.SPLIT.put(this.#streams.split) |
        STRTAB_BASE_CFG.FMT.put(this.#streams.format),
    );
    this.commands.setUp();
    let enables = CR0.CMDQEN.inPlace;
    write(OFFSET.CR0, enables);
    const commands = new Uint32Array(2 * COMMAND_WORDS);
    COMMAND.Opcode.set(commands, OPCODE.CMD_CFGI_STE_RANGE);
    CMD_CFGI_STE_RANGE.Range.set(commands, CFGI_ALL_RANGE);
    COMMAND.Opcode.set(commands, OPCODE.CMD_TLBI_NSNH_ALL, COMMAND_WORDS);
    this.submit(commands, 2);
    this.events.setUp();
    enables |= CR0.EVENTQEN.inPlace;
    write(OFFSET.CR0, enables);
    if (this.#pri !== undefined) {
      this.#pri.setUp();
      enables |= CR0.PRIQEN.inPlace;
      write(OFFSET.CR0, enables);
    }
    if (this.hasAts) enables |= CR0.ATSCHK.inPlace;
    write(OFFSET.CR0, enables);
    const priq = this.#pri === undefined ? 0 : IRQ_CTRL.PRIQ_IRQEN.inPlace;
    write(OFFSET.IRQ_CTRL, IRQ_CTRL.GERROR_IRQEN.inPlace | IRQ_CTRL.EVENTQ_IRQEN.inPlace | priq);
    write(OFFSET.CR0, enables | CR0.SMMUEN.inPlace);
  }
}
