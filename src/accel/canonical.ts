/**
 * A guest's invalidation commands in the form that the host's kernel takes. It refuses a command for any bit that it
 * does not know, also where the architecture says that the bit is ignored; so everything is rebuilt from its fields.
 * What is changed only ever invalidates more.
 */

import {
  ATC_INV_SIZE_ALL,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  COMMAND,
  COMMAND_WORDS,
  OPCODE,
} from '../spec/commands.ts';
import type { Field, Span } from '../bits/field.ts';

/** What the guest was told that it may use and the host can do. */
export interface CommandLimits {
  /** IDR3.RIL */
  readonly ril: boolean;
  /** IDR5.DS */
  readonly ds: boolean;
  /** IDR0.ASID16 */
  readonly asid16: boolean;
  /** IDR0.ATS */
  readonly ats: boolean;
  /** IDR1.SSIDSIZE is not 0. */
  readonly substreams: boolean;
}

/** Kinds of command that recovery tells apart. */
export const COMMAND_KIND = { None: 0, Tlbi: 1, Cfgi: 2, Atc: 3 } as const;
export type CommandKind = (typeof COMMAND_KIND)[keyof typeof COMMAND_KIND];

/** @returns the kind of a command; None for all that never goes to the host. */
export function commandKind(words: Uint32Array, at: number): CommandKind {
  switch (COMMAND.Opcode.get(words, at)) {
    case OPCODE.CMD_TLBI_NSNH_ALL:
    case OPCODE.CMD_TLBI_NH_ALL:
    case OPCODE.CMD_TLBI_NH_ASID:
    case OPCODE.CMD_TLBI_NH_VA:
    case OPCODE.CMD_TLBI_NH_VAA:
      return COMMAND_KIND.Tlbi;
    case OPCODE.CMD_CFGI_CD:
    case OPCODE.CMD_CFGI_CD_ALL:
      return COMMAND_KIND.Cfgi;
    case OPCODE.CMD_ATC_INV:
      return COMMAND_KIND.Atc;
    default:
      return COMMAND_KIND.None;
  }
}

/** StreamID of a CFGI or ATC_INV command. */
export const commandSid = (words: Uint32Array, at: number): number => CMD_CFGI_CD.StreamID.get(words, at);

/**
 * Writes the canonical form of a command at `to[toAt]`.
 * @returns false if there is nothing to do for it, and nothing was written that counts.
 */
export function canonicalise(
  from: Uint32Array,
  at: number,
  to: Uint32Array,
  toAt: number,
  limits: CommandLimits,
): boolean {
  to.fill(0, toAt, toAt + COMMAND_WORDS);
  const opcode = COMMAND.Opcode.get(from, at);
  COMMAND.Opcode.set(to, opcode, toAt);
  switch (opcode) {
    case OPCODE.CMD_TLBI_NSNH_ALL:
    case OPCODE.CMD_TLBI_NH_ALL:
      return true;
    case OPCODE.CMD_TLBI_NH_ASID:
      copyAsid(from, at, to, toAt, limits);
      return true;
    case OPCODE.CMD_TLBI_NH_VA:
      copyAsid(from, at, to, toAt, limits);
      copyRange(from, at, to, toAt, limits);
      return true;
    case OPCODE.CMD_TLBI_NH_VAA:
      copyRange(from, at, to, toAt, limits);
      return true;
    case OPCODE.CMD_CFGI_CD:
      copy(CMD_CFGI_CD.StreamID, from, at, to, toAt);
      copy(CMD_CFGI_CD.Leaf, from, at, to, toAt);
      // 4.3.3: it has no SSV, and without substreams there is only index 0.
      if (limits.substreams) copy(CMD_CFGI_CD.SubstreamID, from, at, to, toAt);
      return true;
    case OPCODE.CMD_CFGI_CD_ALL:
      copy(CMD_CFGI_CD_ALL.StreamID, from, at, to, toAt);
      return true;
    case OPCODE.CMD_ATC_INV:
      if (!limits.ats) return false;
      copyAtcInv(from, at, to, toAt, limits);
      return true;
    default:
      return false;
  }
}

function copy(field: Field, from: Uint32Array, at: number, to: Uint32Array, toAt: number): void {
  field.set(to, field.get(from, at), toAt);
}

function copySpan(span: Span, from: Uint32Array, at: number, to: Uint32Array, toAt: number): void {
  span.set(to, span.getHi(from, at), span.getLo(from, at), toAt);
}

/** The VMID stays 0: the kernel puts that of the vIOMMU. */
function copyAsid(from: Uint32Array, at: number, to: Uint32Array, toAt: number, limits: CommandLimits): void {
  const asid = CMD_TLBI_NH_ASID.ASID.get(from, at);
  CMD_TLBI_NH_ASID.ASID.set(to, limits.asid16 ? asid : asid & 0xff, toAt);
}

const TG_16K = 2;

function copyRange(
  from: Uint32Array,
  at: number,
  to: Uint32Array,
  toAt: number,
  limits: CommandLimits,
): void {
  copy(CMD_TLBI_NH_VA.Leaf, from, at, to, toAt);
  copySpan(CMD_TLBI_NH_VA.Address, from, at, to, toAt);
  // 4.4.1.1: all range fields are RES0 without RIL, and NUM, SCALE and TTL are without TG.
  const tg = limits.ril ? CMD_TLBI_NH_VA.TG.get(from, at) : 0;
  if (tg === 0) return;
  const num = CMD_TLBI_NH_VA.NUM.get(from, at);
  const scale = limits.ds ? CMD_TLBI_NH_VA.SCALE.get(from, at) : CMD_TLBI_NH_VA.SCALE.get(from, at) & 0x1f;
  let ttl = CMD_TLBI_NH_VA.TTL.get(from, at);
  // 4.4.1.1: level 1 has no blocks of 16 KiB pages without DS; the hint counts as none.
  if (tg === TG_16K && ttl === 1 && !limits.ds) ttl = 0;
  // One page without a hint is what TG=0 says, and the kernel takes it only so.
  if (num === 0 && scale === 0 && ttl === 0) return;
  CMD_TLBI_NH_VA.TG.set(to, tg, toAt);
  CMD_TLBI_NH_VA.NUM.set(to, num, toAt);
  CMD_TLBI_NH_VA.SCALE.set(to, scale, toAt);
  CMD_TLBI_NH_VA.TTL.set(to, ttl, toAt);
}

function copyAtcInv(
  from: Uint32Array,
  at: number,
  to: Uint32Array,
  toAt: number,
  limits: CommandLimits,
): void {
  copy(CMD_ATC_INV.StreamID, from, at, to, toAt);
  CMD_ATC_INV.Size.set(to, Math.min(CMD_ATC_INV.Size.get(from, at), ATC_INV_SIZE_ALL), toAt);
  copySpan(CMD_ATC_INV.Address, from, at, to, toAt);
  // 4.5.1: SubstreamID and Global count only with SSV, and SSV only with substreams.
  if (!limits.substreams || CMD_ATC_INV.SSV.get(from, at) === 0) return;
  CMD_ATC_INV.SSV.set(to, 1, toAt);
  copy(CMD_ATC_INV.SubstreamID, from, at, to, toAt);
  copy(CMD_ATC_INV.Global, from, at, to, toAt);
}
