/** An SMMU with some RAM around it, whose ports write down what was asked of them. */

import { Memory } from '../../src/memory/memory.ts';
import { QEMU_LIKE, type IdRegisters } from '../../src/smmu/identification.ts';
import { INVALIDATE, type CommandBatch, type InvalidateStatus } from '../../src/smmu/ports.ts';
import { Smmu, type SmmuOptions } from '../../src/smmu/smmu.ts';

/** Guest RAM starts here. */
export const RAM = 0x4000_0000;
export const CMDQ = RAM + 0x1_0000;
export const EVENTQ = RAM + 0x2_0000;
/** An address where there is nothing. */
export const NOWHERE = 0x9000_0000;

/** One command as four words: the low and high halves of its two 64-bit words. */
export type Command = readonly [number, number, number, number];
export const SYNC: Command = [0x46, 0, 0, 0];
export const NSNH_ALL: Command = [0x30, 0, 0, 0];

export class Device {
  readonly memory = new Memory();
  readonly ram = new Uint32Array(0x1_0000);
  /** Interrupts in order: the name of the line, or `msi <address> <data>`. */
  readonly interrupts: string[] = [];
  /** Calls of the backend in order. */
  readonly backend: string[] = [];
  /** The opcodes of each batch. */
  readonly batches: number[][] = [];
  readonly traced: [string, ...number[]][] = [];
  readonly smmu: Smmu;
  msiAborts = false;
  invalidateStatus: InvalidateStatus = INVALIDATE.Complete;
  /** Called after each interrupt, as a guest inside our process would be. */
  onInterrupt: (line: string) => void = () => {};

  constructor(ids: IdRegisters = QEMU_LIKE, options: Partial<SmmuOptions> = {}) {
    this.memory.addRam(0, RAM, new Uint8Array(this.ram.buffer));
    this.smmu = new Smmu({
      ids,
      memory: this.memory,
      // Small, as thousands of these are made.
      log2TlbEntries: 8,
      interrupts: {
        raise: (line) => {
          this.interrupts.push(line);
          this.onInterrupt(line);
        },
        writeMsi: (hi, lo, data) => {
          if (this.msiAborts) return false;
          this.interrupts.push(`msi ${hi.toString(16)}:${lo.toString(16)} ${data.toString(16)}`);
          return true;
        },
      },
      backend: {
        streamsChanged: (first, last) => void this.backend.push(`streams ${first}..${last}`),
        invalidate: (batch: CommandBatch) => {
          const opcodes: number[] = [];
          for (let i = 0; i < batch.count; i++) opcodes.push(batch.words[i * 4] & 0xff);
          this.batches.push(opcodes);
          this.backend.push(`invalidate ${opcodes.map((opcode) => opcode.toString(16)).join(' ')}`);
          return this.invalidateStatus;
        },
        eventQueueChanged: () => void this.backend.push('eventq'),
      },
      trace: (event, ...values) => void this.traced.push([event, ...values]),
      ...options,
    });
  }

  write(offset: number, value: number): void {
    this.smmu.write(offset, 4, 0, value);
  }

  write64(offset: number, hi: number, lo: number): void {
    this.smmu.write(offset, 8, hi, lo);
  }

  read(offset: number): number {
    return this.smmu.read(offset, 4);
  }

  /** Active errors: GERROR against GERRORN. */
  get errors(): number {
    return (this.read(0x60) ^ this.read(0x64)) >>> 0;
  }

  /** CERROR code of CMDQ_CONS. */
  get cerror(): number {
    return (this.read(0x9c) >>> 24) & 0x7f;
  }

  get cons(): number {
    return this.read(0x9c) & 0xf_ffff;
  }

  /** Sets both queues up and enables what `cr0` says. */
  start(cr0 = 0b1100, log2Commands = 4, log2Events = 3): this {
    this.write64(0x90, 0, CMDQ | log2Commands);
    this.write64(0xa0, 0, EVENTQ | log2Events);
    this.write(0x20, cr0);
    return this;
  }

  /** Puts a command into slot `slot` of the command queue. */
  put(slot: number, command: Command): void {
    this.ram.set(command, (CMDQ - RAM) / 4 + slot * 4);
  }

  /** Puts commands behind CMDQ_PROD and rings. */
  submit(...commands: Command[]): void {
    const log2 = this.smmu.registers[0x90 >>> 2] & 31;
    let prod = this.read(0x98);
    for (const command of commands) {
      this.put(prod & (2 ** log2 - 1), command);
      prod = (prod + 1) & (2 ** (log2 + 1) - 1);
    }
    this.write(0x98, prod);
  }

  /** Word `i` of event record `slot`. */
  event(slot: number, i = 0): number {
    return this.ram[(EVENTQ - RAM) / 4 + slot * 8 + i];
  }
}

/** An event record that is told apart by its StreamID. */
export const record = (sid: number, type = 0x10): Uint32Array =>
  Uint32Array.of(type, sid, 0, 0, 0x1000, 0, 0, 0);
