/** Invalidation commands of a guest: what the kernel lets through, and what it makes of them. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import {
  ATC_INV_SIZE_ALL,
  CMD_ATC_INV,
  CMD_TLBI_NH_VA,
  COMMAND,
  COMMAND_WORDS,
  OPCODE,
  TLBI_TG,
} from '../../../spec/commands.ts';
import { IDR0, IDR1, IDR3, IDR5 } from '../../../spec/registers.ts';
import type { ArmSmmu } from './arm-smmu.ts';
import { MAX_BATCH } from './command-submission.ts';

/** The bits of each 32-bit word that a guest may set. */
type Allowed = readonly [lo0: number, hi0: number, lo1: number, hi1: number];

const OPCODE_BITS = COMMAND.Opcode.inPlace;
const { VMID, ASID, NUM, SCALE, Leaf, TTL, TG } = CMD_TLBI_NH_VA;
const SID_BITS = CMD_ATC_INV.StreamID.inPlace;
const ADDRESS_LO = CMD_TLBI_NH_VA.Address.loMask;
const ADDRESS_HI = CMD_TLBI_NH_VA.Address.hiMask;
/** SCALE[5] exists only with IDR5.DS. */
const SCALE_WITHOUT_DS = SCALE.put(0x1f);
/** Without IDR0.ASID16 the upper half of ASID is not there. */
const ASID8 = ASID.put(0xff);

/** The bits that this SMMU's kernel accepts for each opcode; an opcode that is not here is refused. */
export function allowedBits(smmu: ArmSmmu): ReadonlyMap<number, Allowed> {
  const { ids } = smmu;
  const ril = IDR3.RIL.of(ids.IDR3) === 1;
  const scale = IDR5.DS.of(ids.IDR5) === 1 ? SCALE.inPlace : SCALE_WITHOUT_DS;
  const range0 = ril ? NUM.inPlace | scale : 0;
  const range1 = Leaf.inPlace | ADDRESS_LO | (ril ? TTL.inPlace | TG.inPlace : 0);
  const asid = IDR0.ASID16.of(ids.IDR0) === 1 ? ASID.inPlace : ASID8;
  const substreams = IDR1.SSIDSIZE.of(ids.IDR1) > 0;
  const ssid = substreams ? CMD_ATC_INV.SubstreamID.inPlace : 0;
  const allowed = new Map<number, Allowed>([
    [OPCODE.CMD_TLBI_NSNH_ALL, [OPCODE_BITS, 0, 0, 0]],
    [OPCODE.CMD_TLBI_NH_ALL, [OPCODE_BITS, VMID.inPlace, 0, 0]],
    [OPCODE.CMD_TLBI_NH_ASID, [OPCODE_BITS, VMID.inPlace | asid, 0, 0]],
    [OPCODE.CMD_TLBI_NH_VA, [OPCODE_BITS | range0, VMID.inPlace | asid, range1, ADDRESS_HI]],
    [OPCODE.CMD_TLBI_NH_VAA, [OPCODE_BITS | range0, VMID.inPlace, range1, ADDRESS_HI]],
    [OPCODE.CMD_CFGI_CD, [OPCODE_BITS | ssid, SID_BITS, Leaf.inPlace, 0]],
    [OPCODE.CMD_CFGI_CD_ALL, [OPCODE_BITS, SID_BITS, 0, 0]],
  ]);
  if (smmu.hasAts) {
    const pasid = substreams ? CMD_ATC_INV.SSV.inPlace | ssid | CMD_ATC_INV.Global.inPlace : 0;
    allowed.set(OPCODE.CMD_ATC_INV, [
      OPCODE_BITS | pasid,
      SID_BITS,
      CMD_ATC_INV.Size.inPlace | ADDRESS_LO,
      ADDRESS_HI,
    ]);
  }
  return allowed;
}

export interface GuestCommandContext {
  readonly smmu: ArmSmmu;
  /** {@link allowedBits}; undefined in a kernel that looks at nothing but the opcode. */
  readonly allowed: ReadonlyMap<number, Allowed> | undefined;
  /** VMID of the parent's stage 2; it replaces whatever the guest says. */
  readonly vmid: number;
  /** The physical StreamID behind a guest's, if it has a vDEVICE. */
  physicalSid(vsid: number): number | undefined;
}

/** Turns the command at `words[at]` into the physical one, in place. @returns 0 or EIO. */
function convert(context: GuestCommandContext, words: Uint32Array, at: number): Errno {
  const opcode = COMMAND.Opcode.get(words, at);
  if (context.allowed !== undefined && !isAllowed(context.smmu, context.allowed, words, at)) return ERRNO.EIO;
  switch (opcode) {
    case OPCODE.CMD_TLBI_NSNH_ALL:
      words.fill(0, at, at + COMMAND_WORDS);
      COMMAND.Opcode.set(words, OPCODE.CMD_TLBI_NH_ALL, at);
      VMID.set(words, context.vmid, at);
      return 0;
    case OPCODE.CMD_TLBI_NH_VA:
    case OPCODE.CMD_TLBI_NH_VAA:
    case OPCODE.CMD_TLBI_NH_ALL:
    case OPCODE.CMD_TLBI_NH_ASID:
      VMID.set(words, context.vmid, at);
      return 0;
    case OPCODE.CMD_ATC_INV:
    case OPCODE.CMD_CFGI_CD:
    case OPCODE.CMD_CFGI_CD_ALL: {
      const sid = context.physicalSid(CMD_ATC_INV.StreamID.get(words, at));
      if (sid === undefined) return ERRNO.EIO;
      CMD_ATC_INV.StreamID.set(words, sid, at);
      return 0;
    }
    default:
      return ERRNO.EIO;
  }
}

/** Whether the command at `words[at]` has only bits that mean something, and values that do. */
function isAllowed(
  smmu: ArmSmmu,
  allowed: ReadonlyMap<number, Allowed>,
  words: Uint32Array,
  at: number,
): boolean {
  const opcode = COMMAND.Opcode.get(words, at);
  const bits = allowed.get(opcode);
  if (bits === undefined) return false;
  for (let i = 0; i < COMMAND_WORDS; i++) if ((words[at + i] & ~bits[i]) !== 0) return false;
  if (opcode === OPCODE.CMD_TLBI_NH_VA || opcode === OPCODE.CMD_TLBI_NH_VAA)
    return rangeIsSane(smmu, words, at);
  return opcode !== OPCODE.CMD_ATC_INV || CMD_ATC_INV.Size.get(words, at) <= ATC_INV_SIZE_ALL;
}

/** 4.4.1.1: combinations of TG, TTL, NUM and SCALE that mean something. */
function rangeIsSane(smmu: ArmSmmu, words: Uint32Array, at: number): boolean {
  const granule = TG.get(words, at);
  const level = TTL.get(words, at);
  const empty = level === 0 && NUM.get(words, at) === 0 && SCALE.get(words, at) === 0;
  if (granule === TLBI_TG.None) return empty;
  if (empty) return false;
  return !(granule === TLBI_TG.Granule16K && level === 1 && IDR5.DS.of(smmu.ids.IDR5) === 0);
}

/**
 * Carries out a guest's commands in order, 63 to a CMD_SYNC. On an error, those of the last incomplete batch that came
 * before the bad one were checked but not issued, though `done` counts them.
 * @param words `count` commands; they are changed.
 */
export function runGuestCommands(
  context: GuestCommandContext,
  words: Uint32Array,
  count: number,
): { readonly done: number; readonly errno: Errno } {
  let first = 0;
  for (let i = 0; i < count; i++) {
    const errno = convert(context, words, i * COMMAND_WORDS);
    if (errno !== 0) return { done: i, errno };
    const next = i + 1;
    if (next < count && next - first < MAX_BATCH) continue;
    const failed = context.smmu.submit(words, next - first, first * COMMAND_WORDS);
    if (failed !== 0) return { done: i, errno: failed };
    first = next;
  }
  return { done: count, errno: 0 };
}
