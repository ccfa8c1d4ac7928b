/** The command queue from the driver's side: issuing, completion by CMD_SYNC, and what to do about a command error. */

import { hex32, hex64 } from '../bits/u64.ts';
import { CERROR, COMMAND_SIZE, COMMAND_WORDS, OPCODE } from '../spec/commands.ts';
import { CMDQ_CONS, OFFSET } from '../spec/registers.ts';
import { type Command, command, sync } from './commands.ts';
import { GuestDriverError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import type { KernelLog } from './kernel-log.ts';
import { advance, distance, indexOf, pointerOf } from './queue-pointer.ts';
import type { RegisterPort } from './register-port.ts';

/** Commands that Linux collects before it writes PROD. */
export const BATCH_ENTRIES = 64;

export interface CommandQueueParts {
  readonly port: RegisterPort;
  readonly ram: GuestRam;
  readonly log: KernelLog;
}

/** All commands of one driver go through here. It may be called again from an interrupt that a register access lets in. */
export class CommandQueue {
  readonly #port: RegisterPort;
  readonly #ram: GuestRam;
  readonly #log: KernelLog;
  /** Address of the ring. */
  readonly base: number;
  readonly log2Size: number;
  /** CMD_SYNC completes by a write to its own slot, not by being consumed. */
  readonly msiPoll: boolean;
  #prod = 0;
  #cons = 0;
  /** Commands that the driver overwrote because the device refused them: their work was never done. */
  readonly skipped: Command[] = [];

  constructor(parts: CommandQueueParts, base: number, log2Size: number, msiPoll: boolean) {
    this.#port = parts.port;
    this.#ram = parts.ram;
    this.#log = parts.log;
    this.base = base;
    this.log2Size = log2Size;
    this.msiPoll = msiPoll;
  }

  /** What the next command's PROD is, with its wrap flag. */
  get prod(): number {
    return this.#prod;
  }

  /** Issues commands and waits for nothing. @throws GuestDriverError GUEST_CMDQ_TIMEOUT. */
  issue(...commands: readonly Command[]): void {
    this.#issue(commands, false);
  }

  /**
   * Issues commands with a CMD_SYNC behind them, and returns when that has completed. More than a batch goes in
   * pieces, with one CMD_SYNC at the end.
   * @throws GuestDriverError GUEST_CMDQ_TIMEOUT or GUEST_SYNC_TIMEOUT.
   */
  issueAndSync(...commands: readonly Command[]): void {
    let from = 0;
    for (; commands.length - from > BATCH_ENTRIES; from += BATCH_ENTRIES)
      this.#issue(commands.slice(from, from + BATCH_ENTRIES), false);
    this.#issue(commands.slice(from), true);
  }

  /**
   * Writes several lists, each with its CMD_SYNC, and only then PROD, as when many CPUs append at once; returns when
   * all have completed. Together they must fit the queue.
   * @throws GuestDriverError GUEST_CMDQ_TIMEOUT or GUEST_SYNC_TIMEOUT.
   */
  issueTogether(lists: readonly (readonly Command[])[]): void {
    const n = lists.reduce((sum, list) => sum + list.length + 1, 0);
    this.#waitForSpace(n);
    const syncs: number[] = [];
    for (const list of lists) {
      for (const words of list) this.#put(words);
      syncs.push(this.#putSync());
    }
    this.#port.write(OFFSET.CMDQ_PROD, this.#prod);
    for (const pointer of syncs) this.#waitForSync(pointer);
  }

  #issue(commands: readonly Command[], withSync: boolean): void {
    this.#waitForSpace(commands.length + (withSync ? 1 : 0));
    for (const words of commands) this.#put(words);
    const pointer = withSync ? this.#putSync() : 0;
    this.#port.write(OFFSET.CMDQ_PROD, this.#prod);
    if (withSync) this.#waitForSync(pointer);
  }

  #slot(pointer: number): number {
    return this.base + indexOf(pointer, this.log2Size) * COMMAND_SIZE;
  }

  #put(words: Command): void {
    this.#ram.storeWords(this.#slot(this.#prod), words, COMMAND_WORDS);
    this.#prod = advance(this.#prod, 1, this.log2Size);
  }

  #putSync(): number {
    const pointer = this.#prod;
    this.#put(sync(this.msiPoll ? this.#slot(pointer) : undefined));
    return pointer;
  }

  #waitForSpace(n: number): void {
    const hasSpace = (): boolean => distance(this.#prod, this.#cons, this.log2Size) + n <= 2 ** this.log2Size;
    if (hasSpace()) return;
    const found = this.#port.poll(() => {
      this.#readCons();
      return hasSpace();
    });
    if (!found) {
      this.#log.warn('CMDQ timeout');
      throw new GuestDriverError('GUEST_CMDQ_TIMEOUT', 'The command queue stayed full');
    }
  }

  /** Takes CMDQ_CONS over, if it is where it can be: between its last value and PROD. */
  #readCons(): void {
    const cons = pointerOf(this.#port.read(OFFSET.CMDQ_CONS), this.log2Size);
    const waiting = distance(this.#prod, this.#cons, this.log2Size);
    if (distance(cons, this.#cons, this.log2Size) <= waiting) this.#cons = cons;
    else
      this.#log.suspect(
        `CMDQ_CONS went from ${hex32(this.#cons)} to ${hex32(cons)} with PROD at ${hex32(this.#prod)}`,
      );
  }

  #waitForSync(pointer: number): void {
    const log2Size = this.log2Size;
    // The distance to PROD shrinks as CONS advances: the SYNC is consumed once fewer entries than its own are left.
    const consumed = (): boolean =>
      distance(this.#prod, this.#cons, log2Size) < distance(this.#prod, pointer, log2Size);
    const done = this.#port.poll(() => {
      if (this.msiPoll) return this.#ram.load32(this.#slot(pointer)) === 0;
      this.#readCons();
      return consumed();
    });
    if (done) {
      // Nothing before a completed SYNC is unconsumed, so CONS need not be read to know that there is room.
      if (!consumed()) this.#cons = advance(pointer, 1, log2Size);
      return;
    }
    const hwProd = this.#port.read(OFFSET.CMDQ_PROD);
    const hwCons = this.#port.read(OFFSET.CMDQ_CONS);
    this.#log.warn(
      `CMD_SYNC timeout at ${hex32(pointer, 8)} [hwprod ${hex32(hwProd, 8)}, hwcons ${hex32(hwCons, 8)}]`,
    );
    throw new GuestDriverError(
      'GUEST_SYNC_TIMEOUT',
      `The CMD_SYNC at ${hex32(pointer)} did not complete: CMDQ_CONS is ${hex32(hwCons)}`,
    );
  }

  /**
   * Answers GERROR.CMDQ_ERR, before GERRORN acknowledges it: an illegal command is overwritten by a CMD_SYNC, so that
   * what it asked for is lost; anything else is only tried again.
   */
  handleError(): void {
    const cons = this.#port.read(OFFSET.CMDQ_CONS);
    const code = CMDQ_CONS.ERR.of(cons);
    this.#log.warn(`CMDQ error (cons ${hex32(cons, 8)}): ${CERROR_TEXT[code] ?? 'Unknown'}`);
    if (code === CERROR.ABT) this.#log.warn('retrying command fetch');
    if (code === CERROR.ABT || code === CERROR.NONE || code === CERROR.ATC_INV_SYNC) return;

    const slot = this.#slot(pointerOf(cons, this.log2Size));
    const words = command(OPCODE.CMD_SYNC);
    this.#ram.loadWords(slot, words, COMMAND_WORDS);
    this.#log.warn('skipping command in error state:');
    for (let i = 0; i < COMMAND_WORDS; i += 2) this.#log.warn(`\t${hex64(words[i + 1], words[i], 16)}`);
    this.skipped.push(words);
    this.#ram.storeWords(slot, sync(), COMMAND_WORDS);
  }
}

const CERROR_TEXT: readonly string[] = [
  'No error',
  'Illegal command',
  'Abort on command fetch',
  'ATC invalidate timeout',
];
