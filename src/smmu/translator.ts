/** Placeholder until translation lands: SMMUEN=0 follows GBPA.ABORT, everything else is terminated. */

import type { Memory } from '../memory/memory.ts';
import { CR0, GBPA, OFFSET } from '../spec/registers.ts';
import type { IdRegisters } from './identification.ts';
import type { EventStatus, Trace } from './ports.ts';
import { OUTCOME, type Outcome, type Transaction, type Translation } from './transaction.ts';

export class Translator {
  readonly #registers: Uint32Array;

  constructor(
    _ids: IdRegisters,
    registers: Uint32Array,
    _memory: Memory,
    _record: (words: Uint32Array) => EventStatus,
    _trace?: Trace,
  ) {
    this.#registers = registers;
  }

  translate(transaction: Transaction, result: Translation): Outcome {
    const bypass =
      CR0.SMMUEN.get(this.#registers, OFFSET.CR0 >>> 2) === 0 &&
      GBPA.ABORT.get(this.#registers, OFFSET.GBPA >>> 2) === 0;
    result.paHi = transaction.addrHi;
    result.paLo = transaction.addrLo;
    result.log2Size = 12;
    result.event = 0;
    result.outcome = bypass ? OUTCOME.Ok : OUTCOME.Abort;
    return result.outcome;
  }

  lookupSte(_sid: number, _into: Uint32Array): number {
    return 2;
  }

  invalidate(_words: Uint32Array, _at: number): void {}

  reset(): void {}
}
