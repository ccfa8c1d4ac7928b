/** The kernel's side of the physical command queue: commands, then CMD_SYNC, then wait. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import {
  CERROR,
  CMD_SYNC,
  COMMAND,
  COMMAND_SIZE,
  COMMAND_WORDS,
  OPCODE,
  SYNC_CS,
} from '../../../spec/commands.ts';
import { CMDQ_BASE, CMDQ_CONS, GERROR, IDR1, OFFSET } from '../../../spec/registers.ts';
import { hex32, hex64, hiOfNumber, loOfNumber } from '../../../bits/u64.ts';
import type { Smmu } from '../../../smmu/smmu.ts';
import type { HostMemory } from '../host-memory.ts';

/** 256 entries, if the SMMU has as many. */
const MAX_LOG2_SIZE = 8;
/** Most commands before a CMD_SYNC, as Linux batches them: 64 with it. */
export const MAX_BATCH = 63;

const ERROR_TEXT: Record<number, string> = {
  [CERROR.NONE]: 'No error',
  [CERROR.ILL]: 'Illegal command',
  [CERROR.ABT]: 'Abort on command fetch',
  [CERROR.ATC_INV_SYNC]: 'ATC invalidate timeout',
};

export class CommandSubmission {
  /** For tests: this many of the next batches time out, and none of their commands is carried out. */
  timeouts = 0;
  /** Commands issued since the start, without CMD_SYNCs. */
  issued = 0;
  readonly log2Size: number;
  readonly #smmu: Smmu;
  readonly #memory: HostMemory;
  readonly #print: (line: string) => void;
  readonly #base: number;
  /** Index and wrap bit. */
  #prod = 0;

  constructor(smmu: Smmu, memory: HostMemory, print: (line: string) => void) {
    this.#smmu = smmu;
    this.#memory = memory;
    this.#print = print;
    this.log2Size = Math.min(IDR1.CMDQS.of(smmu.ids.IDR1), MAX_LOG2_SIZE);
    this.#base = memory.allocate(Math.max(64, COMMAND_SIZE * 2 ** this.log2Size));
  }

  /** Writes the queue's registers; CMDQEN is 0. */
  setUp(): void {
    const base = CMDQ_BASE.LOG2SIZE.put(this.log2Size);
    this.#smmu.write(OFFSET.CMDQ_BASE, 8, hiOfNumber(this.#base), loOfNumber(this.#base) | base);
    this.#smmu.write(OFFSET.CMDQ_PROD, 4, 0, 0);
    this.#smmu.write(OFFSET.CMDQ_CONS, 4, 0, 0);
    this.#prod = 0;
  }

  /**
   * Carries out `count` commands, at most {@link MAX_BATCH} and less than the queue's size, and waits for them.
   * @param words four a command, from `words[from]`.
   * @returns 0, or ETIMEDOUT if the SMMU did not complete them.
   */
  submit(words: Uint32Array, count: number, from = 0): Errno {
    const sync = new Uint32Array(COMMAND_WORDS);
    COMMAND.Opcode.set(sync, OPCODE.CMD_SYNC);
    CMD_SYNC.CS.set(sync, SYNC_CS.SEV);
    if (this.timeouts > 0) {
      this.timeouts -= 1;
      this.#printTimeout();
      return ERRNO.ETIMEDOUT;
    }
    for (let i = 0; i < count; i++) this.#append(words, from + i * COMMAND_WORDS);
    this.#append(sync, 0);
    this.issued += count;
    this.#smmu.write(OFFSET.CMDQ_PROD, 4, 0, this.#prod);
    return this.#wait(sync);
  }

  /** Runs the SMMU until it has consumed everything, skipping commands that it refuses, as the kernel does. */
  #wait(sync: Uint32Array): Errno {
    // Every turn consumes a command or skips one, so twice the queue is more than enough.
    for (let turn = 0; turn < 2 ** (this.log2Size + 1); turn++) {
      while (this.#smmu.run());
      const cons = this.#smmu.read(OFFSET.CMDQ_CONS, 4);
      if (CMDQ_CONS.RD.of(cons) === this.#prod) return 0;
      if (!this.#skipRefused(cons, sync)) break;
    }
    this.#printTimeout();
    return ERRNO.ETIMEDOUT;
  }

  /** @returns false if the SMMU has stopped without an error that can be skipped. */
  #skipRefused(cons: number, sync: Uint32Array): boolean {
    const active = this.#smmu.read(OFFSET.GERROR, 4) ^ this.#smmu.read(OFFSET.GERRORN, 4);
    if (GERROR.CMDQ_ERR.of(active) === 0) return false;
    const error = CMDQ_CONS.ERR.of(cons);
    this.#print(`unexpected global error reported (${hex32(active, 8)}), this could be serious`);
    this.#print(`CMDQ error (cons ${hex32(cons, 8)}): ${ERROR_TEXT[error] ?? 'Unknown'}`);
    if (error === CERROR.ILL) this.#replace(CMDQ_CONS.RD.of(cons) % 2 ** this.log2Size, sync);
    else if (error !== CERROR.ATC_INV_SYNC) return false;
    this.#smmu.write(OFFSET.GERRORN, 4, 0, this.#smmu.read(OFFSET.GERROR, 4));
    return true;
  }

  /** Overwrites a refused command, after showing it. */
  #replace(index: number, sync: Uint32Array): void {
    const slot = this.#base + index * COMMAND_SIZE;
    const refused = new Uint32Array(COMMAND_WORDS);
    this.#memory.memory.loadWords(hiOfNumber(slot), loOfNumber(slot), refused, COMMAND_WORDS);
    this.#print('skipping command in error state:');
    for (let i = 0; i < COMMAND_WORDS; i += 2) this.#print(`\t${hex64(refused[i + 1], refused[i], 16)}`);
    this.#store(index, sync, 0);
  }

  #append(words: Uint32Array, at: number): void {
    this.#store(this.#prod % 2 ** this.log2Size, words, at);
    this.#prod = (this.#prod + 1) % 2 ** (this.log2Size + 1);
  }

  #store(index: number, words: Uint32Array, at: number): void {
    const slot = this.#base + index * COMMAND_SIZE;
    this.#memory.store64(slot, words[at + 1], words[at]);
    this.#memory.store64(slot + 8, words[at + 3], words[at + 2]);
  }

  #printTimeout(): void {
    const cons = this.#smmu.read(OFFSET.CMDQ_CONS, 4);
    this.#print(
      `CMD_SYNC timeout at ${hex32(this.#prod, 8)} [hwprod ${hex32(this.#prod, 8)}, hwcons ${hex32(cons, 8)}]`,
    );
  }
}
