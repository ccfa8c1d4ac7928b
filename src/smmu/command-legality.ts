/**
 * Which commands exist with given ID registers, what makes one ILLEGAL, and which of its bits mean something (IHI 0070
 * 4.1.5, 4.1.6, 4.4.1.1 and the table of 7.1). ILLEGAL comes before IGNORED (4.1.3).
 */

import { Span } from '../bits/field.ts';
import {
  ATC_INV_SIZE_ALL,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_PRI_RESP,
  CMD_SYNC,
  COMMAND,
  COMMAND_WORDS,
  COMMANDS,
  OPCODE,
  TLBI_RANGE,
  TLBI_TG,
} from '../spec/commands.ts';
import { IDR0, IDR1, IDR3, IDR5 } from '../spec/registers.ts';
import type { IdRegisters } from './identification.ts';
import { PerIdentification } from './per-identification.ts';

/** What the command queue does with a command. */
export const ACTION = {
  Illegal: 0,
  /** Consumed without effect. */
  Nothing: 1,
  CfgiSte: 2,
  CfgiSteRange: 3,
  /** CFGI_CD*, TLBI_*: to the translator, and to the backend at the next CMD_SYNC. */
  Invalidate: 4,
  AtcInv: 5,
  PriResp: 6,
  Resume: 7,
  StallTerm: 8,
  Sync: 9,
} as const;
export type Action = (typeof ACTION)[keyof typeof ACTION];

/** Commands with an SSec bit: it must be 0 on the Non-secure queue (4.1.6). */
const HAS_SSEC = new Set<number>([
  OPCODE.CMD_PREFETCH_CONFIG,
  OPCODE.CMD_PREFETCH_ADDR,
  OPCODE.CMD_CFGI_STE,
  OPCODE.CMD_CFGI_STE_RANGE,
  OPCODE.CMD_CFGI_CD,
  OPCODE.CMD_CFGI_CD_ALL,
  OPCODE.CMD_RESUME,
  OPCODE.CMD_STALL_TERM,
]);

const HAS_RANGE = new Set<number>([
  OPCODE.CMD_TLBI_NH_VA,
  OPCODE.CMD_TLBI_NH_VAA,
  OPCODE.CMD_TLBI_EL2_VA,
  OPCODE.CMD_TLBI_EL2_VAA,
  OPCODE.CMD_TLBI_S2_IPA,
]);

/** The check that an opcode needs besides its forbidden bits. */
const CHECK = { None: 0, Range: 1, AtcSize: 2, PriResponse: 3 } as const;

const SSEC = CMD_CFGI_CD.SSec.inPlace;
const RANGE_WORD_0 = TLBI_RANGE.NUM.inPlace | TLBI_RANGE.SCALE.inPlace;
const RANGE_WORD_2 = TLBI_RANGE.TTL128.inPlace | TLBI_RANGE.TTL.inPlace | TLBI_RANGE.TG.inPlace;
const TG_IN_PLACE = TLBI_RANGE.TG.inPlace;
const TG_16K = TLBI_RANGE.TG.put(TLBI_TG.Granule16K);
const TTL_IN_PLACE = TLBI_RANGE.TTL.inPlace;
const UNCHECKED = CHECK.None;
const ILLEGAL = ACTION.Illegal;

export class CommandLegality {
  readonly #action = new Uint8Array(256);
  readonly #check = new Uint8Array(256);
  /** Bits of the first word that together make a command ILLEGAL; for most opcodes none do. */
  readonly #forbidden = new Int32Array(256);
  readonly #forbiddenMask = new Int32Array(256);
  /** Four words an opcode: the bits that have a meaning. */
  readonly #defined = new Uint32Array(256 * COMMAND_WORDS);
  readonly #ril: boolean;
  readonly #ds: boolean;
  readonly #substreams: boolean;

  constructor(ids: IdRegisters) {
    this.#ril = IDR3.RIL.of(ids.IDR3) === 1;
    this.#ds = IDR5.DS.of(ids.IDR5) === 1;
    this.#substreams = IDR1.SSIDSIZE.of(ids.IDR1) > 0;
    for (const [opcode, action] of actions(ids)) {
      this.#action[opcode] = action;
      this.#check[opcode] = checkOf(opcode, this.#ril);
      // 4.7.3: CS=0b11 is reserved.
      const forbidden = HAS_SSEC.has(opcode) ? SSEC : opcode === OPCODE.CMD_SYNC ? CMD_SYNC.CS.inPlace : 0;
      this.#forbiddenMask[opcode] = forbidden;
      // Never equal to what a mask of 0 leaves.
      this.#forbidden[opcode] = forbidden === 0 ? -1 : forbidden;
    }
    for (const { opcode, fields } of COMMANDS) {
      const at = opcode * COMMAND_WORDS;
      this.#defined[at] = COMMAND.Opcode.inPlace;
      for (const field of Object.values(fields)) {
        if (field instanceof Span) {
          this.#defined[at + field.word] |= field.loMask;
          this.#defined[at + field.word + 1] |= field.hiMask;
        } else this.#defined[at + field.word] |= field.inPlace;
      }
      this.#narrow(at, fields, ids);
    }
  }

  /** Takes away bits that mean nothing with these ID registers. */
  #narrow(at: number, fields: object, ids: IdRegisters): void {
    // 4.1.7: an out-of-range SubstreamID may act as one in range; ours keeps its low bits.
    if ('SubstreamID' in fields) {
      const unused = ~(2 ** IDR1.SSIDSIZE.of(ids.IDR1) - 1);
      this.#defined[at] &= ~CMD_CFGI_CD.SubstreamID.put(unused);
      // 4.5.1: without PASIDs, SSV=1 may act as SSV=0.
      if (!this.#substreams) this.#defined[at] &= ~CMD_ATC_INV.SSV.inPlace;
    }
    // 4.4.2: the VMID is RES0 without stage 2.
    if ('VMID' in fields && IDR0.S2P.of(ids.IDR0) === 0) this.#defined[at + 1] &= 0xffff_0000;
    if ('NUM' in fields && !this.#ril) {
      this.#defined[at] &= ~RANGE_WORD_0;
      this.#defined[at + 2] &= ~RANGE_WORD_2;
    }
  }

  /** Decides what becomes of the command at `words[at]`; fields of a range that TG makes RES0 are cleared. */
  judge(words: Uint32Array, at: number): Action {
    const opcode = words[at] & 0xff;
    if ((words[at] & this.#forbiddenMask[opcode]) === this.#forbidden[opcode]) return ILLEGAL;
    if (this.#check[opcode] !== UNCHECKED && !this.#passes(words, at, this.#check[opcode])) return ILLEGAL;
    return this.#action[opcode] as Action;
  }

  /** Clears every bit that has no meaning, so that nobody behind the command queue has to know what is RES0. */
  strip(words: Uint32Array, at: number): void {
    const defined = this.#defined;
    const from = (words[at] & 0xff) * COMMAND_WORDS;
    words[at] &= defined[from];
    words[at + 1] &= defined[from + 1];
    words[at + 2] &= defined[from + 2];
    words[at + 3] &= defined[from + 3];
  }

  #passes(words: Uint32Array, at: number, check: number): boolean {
    switch (check) {
      case CHECK.Range:
        return this.#admitRange(words, at);
      case CHECK.AtcSize:
        // 4.5.1: a larger Size may be ILLEGAL, or an UNKNOWN span.
        return CMD_ATC_INV.Size.get(words, at) <= ATC_INV_SIZE_ALL;
      case CHECK.PriResponse:
        return CMD_PRI_RESP.Resp.get(words, at) !== 3;
      default:
        return true;
    }
  }

  /** 4.4.1.1; @returns false if the encoding is reserved. Fields that TG makes RES0 are cleared. */
  #admitRange(words: Uint32Array, at: number): boolean {
    const tg = words[at + 2] & TG_IN_PLACE;
    if (tg === 0) {
      words[at] &= ~RANGE_WORD_0;
      words[at + 2] &= ~RANGE_WORD_2;
      return true;
    }
    // A level 1 block of 16 KiB granule exists with IDR5.DS only; without it the hint counts as absent.
    if (tg === TG_16K && TLBI_RANGE.TTL.get(words, at) === 1 && !this.#ds) TLBI_RANGE.TTL.set(words, 0, at);
    return (words[at] & RANGE_WORD_0) !== 0 || (words[at + 2] & TTL_IN_PLACE) !== 0;
  }
}

/** The one for these ID registers; it never changes. */
export const commandLegality = new PerIdentification((ids) => new CommandLegality(ids));

/** Opcodes that exist, by the features that they need; all others are ILLEGAL. */
function actions(ids: IdRegisters): Map<number, Action> {
  const table = new Map<number, Action>();
  const add = (action: Action, ...opcodes: number[]): void => {
    for (const opcode of opcodes) table.set(opcode, action);
  };
  add(ACTION.Nothing, OPCODE.CMD_PREFETCH_CONFIG, OPCODE.CMD_PREFETCH_ADDR);
  add(ACTION.CfgiSte, OPCODE.CMD_CFGI_STE);
  add(ACTION.CfgiSteRange, OPCODE.CMD_CFGI_STE_RANGE);
  add(ACTION.Invalidate, OPCODE.CMD_TLBI_NSNH_ALL);
  add(ACTION.Sync, OPCODE.CMD_SYNC);
  if (IDR0.S1P.of(ids.IDR0) === 1) {
    add(ACTION.Invalidate, OPCODE.CMD_CFGI_CD, OPCODE.CMD_CFGI_CD_ALL);
    add(ACTION.Invalidate, OPCODE.CMD_TLBI_NH_ALL, OPCODE.CMD_TLBI_NH_ASID);
    add(ACTION.Invalidate, OPCODE.CMD_TLBI_NH_VA, OPCODE.CMD_TLBI_NH_VAA);
  }
  if (IDR0.S2P.of(ids.IDR0) === 1) add(ACTION.Invalidate, OPCODE.CMD_TLBI_S12_VMALL, OPCODE.CMD_TLBI_S2_IPA);
  if (IDR0.HYP.of(ids.IDR0) === 1) {
    add(ACTION.Invalidate, OPCODE.CMD_TLBI_EL2_ALL, OPCODE.CMD_TLBI_EL2_ASID);
    add(ACTION.Invalidate, OPCODE.CMD_TLBI_EL2_VA, OPCODE.CMD_TLBI_EL2_VAA);
  }
  if (IDR0.ATS.of(ids.IDR0) === 1) add(ACTION.AtcInv, OPCODE.CMD_ATC_INV);
  if (IDR0.PRI.of(ids.IDR0) === 1) add(ACTION.PriResp, OPCODE.CMD_PRI_RESP);
  // 4.7.1: ILLEGAL only where the SMMU never stalls.
  if (IDR0.STALL_MODEL.of(ids.IDR0) !== 1) {
    add(ACTION.Resume, OPCODE.CMD_RESUME);
    add(ACTION.StallTerm, OPCODE.CMD_STALL_TERM);
  }
  return table;
}

function checkOf(opcode: number, ril: boolean): number {
  if (HAS_RANGE.has(opcode)) return ril ? CHECK.Range : CHECK.None;
  if (opcode === OPCODE.CMD_ATC_INV) return CHECK.AtcSize;
  if (opcode === OPCODE.CMD_PRI_RESP) return CHECK.PriResponse;
  return CHECK.None;
}
