/**
 * The stored registers: two pages of 32-bit words, with what software may change in each worked out once from the
 * register table and the ID registers. What a write sets off is the device's business, not this file's.
 */

import { Span } from '../bits/field.ts';
import {
  CR0,
  GBPA,
  IRQ_CTRL,
  OFFSET,
  PAGE_SIZE,
  REGISTERS,
  type RegisterSpec,
  type WriteRule,
} from '../spec/registers.ts';
import { hasFeature, type IdRegisters } from './identification.ts';
import { PerIdentification } from './per-identification.ts';

/** Words kept of each page: no register that the model has lies above 0xfff. */
const PAGE_WORDS = 0x400;

/** Word index of a register of page 0 in {@link RegisterFile.page0}; of page 1 in {@link RegisterFile.page1}. */
export const wordOf = (offset: number): number => (offset % PAGE_SIZE) >>> 2;

// Numbers of this module cost nothing where they are used; properties of imported objects are loaded every time.
const EVENTQ_PROD = OFFSET.EVENTQ_PROD % PAGE_SIZE;
const EVENTQ_CONS = OFFSET.EVENTQ_CONS % PAGE_SIZE;
const PRIQ_PROD = OFFSET.PRIQ_PROD % PAGE_SIZE;
const PRIQ_CONS = OFFSET.PRIQ_CONS % PAGE_SIZE;
const PAGE_1 = PAGE_SIZE;

const CR0_WORD = wordOf(OFFSET.CR0);
const IRQ_CTRL_WORD = wordOf(OFFSET.IRQ_CTRL);
const QUEUE_ENABLES = CR0.CMDQEN.inPlace | CR0.EVENTQEN.inPlace | CR0.PRIQEN.inPlace;

/** The word and bits that must be 0, there and in the ACK register behind it, for a write to be taken. */
const GUARDS: Readonly<Partial<Record<WriteRule, readonly [word: number, bits: number]>>> = {
  SMMUEN: [CR0_WORD, CR0.SMMUEN.inPlace],
  CMDQEN: [CR0_WORD, CR0.CMDQEN.inPlace],
  EVENTQEN: [CR0_WORD, CR0.EVENTQEN.inPlace],
  PRIQEN: [CR0_WORD, CR0.PRIQEN.inPlace],
  DPT_WALK_EN: [CR0_WORD, CR0.DPT_WALK_EN.inPlace],
  QUEUES: [CR0_WORD, QUEUE_ENABLES],
  GERROR_IRQEN: [IRQ_CTRL_WORD, IRQ_CTRL.GERROR_IRQEN.inPlace],
  EVENTQ_IRQEN: [IRQ_CTRL_WORD, IRQ_CTRL.EVENTQ_IRQEN.inPlace],
  PRIQ_IRQEN: [IRQ_CTRL_WORD, IRQ_CTRL.PRIQ_IRQEN.inPlace],
};

/** The reset value of GBPA is IMPLEMENTATION DEFINED (6.3.14): pass, with the incoming shareability, as QEMU has it. */
export const GBPA_RESET = GBPA.SHCFG.put(1);

/** CoreSight bytes at 0xfd0..0xffc; software has no use for them, so they are what QEMU's device shows. */
const ID_BLOCK = [0x04, 0, 0, 0, 0x84, 0xb4, 0xf0, 0x10, 0x0d, 0xf0, 0x05, 0xb1];

/** The bits of one 32-bit half of a register that exist with these ID registers. */
export function implementedBits(spec: RegisterSpec, half: 0 | 1, ids: IdRegisters, rule?: WriteRule): number {
  if (spec.needs !== undefined && !spec.needs.every((feature) => hasFeature(ids, feature))) return 0;
  let mask = 0;
  for (const [name, field] of Object.entries(spec.fields)) {
    const needs = spec.fieldNeeds?.[name];
    if (needs !== undefined && !needs.every((feature) => hasFeature(ids, feature))) continue;
    if (rule !== undefined && (spec.fieldWrite?.[name] ?? spec.write) !== rule) continue;
    if (field instanceof Span) mask |= half === 0 ? field.loMask : field.hiMask;
    else if (field.word === half) mask |= field.inPlace;
  }
  return mask >>> 0;
}

/** A register and what is in it; `hi` counts only for those of 64 bits. */
export interface RegisterValue {
  readonly spec: RegisterSpec;
  readonly hi: number;
  readonly lo: number;
}

/**
 * Index of the word at an offset of the interface, -1 if nothing can be there. Page 0 shows the four registers of
 * page 1 too, which 6.2 allows.
 */
function indexOf(offset: number): number {
  if (offset >= PAGE_1) {
    const word = (offset - PAGE_1) >>> 2;
    return word < PAGE_WORDS ? PAGE_WORDS + word : -1;
  }
  const word = offset >>> 2;
  switch (offset) {
    case EVENTQ_PROD:
    case EVENTQ_CONS:
    case PRIQ_PROD:
    case PRIQ_CONS:
      return PAGE_WORDS + word;
    default:
      return word < PAGE_WORDS ? word : -1;
  }
}

/** What software may change, word by word: it depends on the ID registers alone. */
class RegisterRules {
  readonly reset = new Uint32Array(2 * PAGE_WORDS);
  /** Bits that a write may change while the guard is open; a second set with a guard of its own for CR1. */
  readonly mask = new Uint32Array(2 * PAGE_WORDS);
  readonly guardWord = new Uint8Array(2 * PAGE_WORDS);
  readonly guardBits = new Uint32Array(2 * PAGE_WORDS);
  readonly mask2 = new Uint32Array(2 * PAGE_WORDS);
  readonly guardBits2 = new Uint32Array(2 * PAGE_WORDS);
  /** Words that take a write only with bit UPDATE set. */
  readonly needsUpdate = new Uint8Array(2 * PAGE_WORDS);

  constructor(ids: IdRegisters) {
    for (const spec of REGISTERS) {
      const at = indexOf(spec.offset);
      this.#prepare(spec, at, 0, ids);
      if (spec.width === 64) this.#prepare(spec, at + 1, 1, ids);
    }
    this.reset.set([ids.IDR0, ids.IDR1, ids.IDR2, ids.IDR3, ids.IDR4, ids.IDR5, ids.IIDR, ids.AIDR]);
    this.reset.set(ID_BLOCK, wordOf(OFFSET.PIDR4));
    this.reset[wordOf(OFFSET.GBPA)] = GBPA_RESET;
  }

  #prepare(spec: RegisterSpec, at: number, half: 0 | 1, ids: IdRegisters): void {
    // The preset features are not modelled, so `preset` never applies; an absent rule leaves the word read-only.
    const guard = GUARDS[spec.write];
    if (guard === undefined && spec.write !== 'RW' && spec.write !== 'UPDATE') return;
    this.mask[at] = implementedBits(spec, half, ids, spec.write);
    this.guardWord[at] = guard?.[0] ?? 0;
    this.guardBits[at] = guard?.[1] ?? 0;
    if (spec.write === 'UPDATE') this.needsUpdate[at] = 1;
    if (spec.fieldWrite === undefined) return;
    this.mask2[at] = implementedBits(spec, half, ids, 'QUEUES');
    this.guardBits2[at] = QUEUE_ENABLES;
  }
}

const RULES = new PerIdentification((ids) => new RegisterRules(ids));

export class RegisterFile {
  /** Page 0 and page 1, word by word. */
  readonly page0: Uint32Array;
  readonly page1: Uint32Array;
  readonly #words = new Uint32Array(2 * PAGE_WORDS);
  readonly #reset: Uint32Array;
  readonly #mask: Uint32Array;
  readonly #guardWord: Uint8Array;
  readonly #guardBits: Uint32Array;
  readonly #mask2: Uint32Array;
  readonly #guardBits2: Uint32Array;
  readonly #needsUpdate: Uint8Array;

  constructor(ids: IdRegisters) {
    this.page0 = this.#words.subarray(0, PAGE_WORDS);
    this.page1 = this.#words.subarray(PAGE_WORDS);
    const rules = RULES.of(ids);
    this.#reset = rules.reset;
    this.#mask = rules.mask;
    this.#guardWord = rules.guardWord;
    this.#guardBits = rules.guardBits;
    this.#mask2 = rules.mask2;
    this.#guardBits2 = rules.guardBits2;
    this.#needsUpdate = rules.needsUpdate;
    this.reset();
  }

  /** Puts every register in the state after reset; what the architecture leaves UNKNOWN is 0. */
  reset(): void {
    this.#words.set(this.#reset);
  }

  /** Sets the register at an offset, whatever software may do. */
  restore(offset: number, hi: number, lo: number, width: 32 | 64): void {
    const at = indexOf(offset);
    this.#words[at] = lo;
    if (width === 64) this.#words[at + 1] = hi;
  }

  /** The 32-bit word at an aligned offset of the interface; 0 where nothing is. */
  load(offset: number): number {
    const at = indexOf(offset);
    return at < 0 ? 0 : this.#words[at];
  }

  /**
   * Stores what software may change of the word at an aligned offset.
   * @returns false if the write was ignored as a whole: no such register, read-only, guarded, or no UPDATE.
   */
  store(offset: number, value: number): boolean {
    const at = indexOf(offset);
    if (at < 0) return false;
    const words = this.#words;
    let mask = 0;
    const guard = this.#guardWord[at];
    // 6.3: "only when X is 0" means X and its acknowledged copy; the ACK register follows the one that it acknowledges.
    if (((words[guard] | words[guard + 1]) & this.#guardBits[at]) === 0) mask = this.#mask[at];
    if (this.#mask2[at] !== 0 && ((words[CR0_WORD] | words[CR0_WORD + 1]) & this.#guardBits2[at]) === 0)
      mask |= this.#mask2[at];
    if (mask === 0) return false;
    if (this.#needsUpdate[at] !== 0) {
      // 6.3.14.1: a write without UPDATE is ignored; ours takes effect at once, so UPDATE never reads 1.
      if (value >>> GBPA.UPDATE.shift === 0) return false;
      value &= ~GBPA.UPDATE.inPlace;
    }
    words[at] = (words[at] & ~mask) | (value & mask);
    return true;
  }
}
