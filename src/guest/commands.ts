/** The commands that the driver issues, as Linux fills them: four 32-bit words each. */

import { hiOf, hiOfNumber, loOf, loOfNumber } from '../bits/u64.ts';
import {
  ATC_INV_SIZE_ALL,
  CFGI_ALL_RANGE,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PREFETCH_CONFIG,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_SYNC,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  COMMAND,
  COMMAND_WORDS,
  OPCODE,
  SYNC_CS,
} from '../spec/commands.ts';
import { SHAREABILITY } from '../spec/cd.ts';

export type Command = Uint32Array;

/** A command without parameters, such as TLBI_NSNH_ALL. */
export function command(opcode: number): Command {
  const words = new Uint32Array(COMMAND_WORDS);
  COMMAND.Opcode.set(words, opcode);
  return words;
}

export function prefetchConfig(sid: number): Command {
  const words = command(OPCODE.CMD_PREFETCH_CONFIG);
  CMD_PREFETCH_CONFIG.StreamID.set(words, sid);
  return words;
}

export function cfgiSte(sid: number): Command {
  const words = command(OPCODE.CMD_CFGI_STE);
  CMD_CFGI_STE.StreamID.set(words, sid);
  CMD_CFGI_STE.Leaf.set(words, 1);
  return words;
}

/** @param log2 of how many StreamIDs around this one, 1..32. */
export function cfgiSteRange(sid: number, log2: number): Command {
  const words = command(OPCODE.CMD_CFGI_STE_RANGE);
  CMD_CFGI_STE_RANGE.StreamID.set(words, sid);
  CMD_CFGI_STE_RANGE.Range.set(words, log2 - 1);
  return words;
}

export function cfgiAll(): Command {
  const words = command(OPCODE.CMD_CFGI_STE_RANGE);
  CMD_CFGI_STE_RANGE.Range.set(words, CFGI_ALL_RANGE);
  return words;
}

export function cfgiCd(sid: number, ssid: number, leaf: boolean): Command {
  const words = command(OPCODE.CMD_CFGI_CD);
  CMD_CFGI_CD.StreamID.set(words, sid);
  CMD_CFGI_CD.SubstreamID.set(words, ssid);
  CMD_CFGI_CD.Leaf.set(words, leaf ? 1 : 0);
  return words;
}

export function cfgiCdAll(sid: number): Command {
  const words = command(OPCODE.CMD_CFGI_CD_ALL);
  CMD_CFGI_CD_ALL.StreamID.set(words, sid);
  return words;
}

/** @param opcode TLBI_NH_ASID or TLBI_EL2_ASID. */
export function tlbiAsid(opcode: number, asid: number): Command {
  const words = command(opcode);
  CMD_TLBI_NH_ASID.ASID.set(words, asid);
  return words;
}

export interface TlbiRange {
  /** Encodings of the range fields (4.4.1.1); TG 0 names one address. */
  readonly num: number;
  readonly scale: number;
  readonly ttl: number;
  readonly tg: number;
}
const ONE_ADDRESS: TlbiRange = { num: 0, scale: 0, ttl: 0, tg: 0 };

/** @param opcode TLBI_NH_VA or TLBI_EL2_VA; TLBI_NH_VAA with ASID 0. */
export function tlbiVa(
  opcode: number,
  asid: number,
  iova: bigint,
  leaf: boolean,
  range: TlbiRange = ONE_ADDRESS,
): Command {
  const words = command(opcode);
  CMD_TLBI_NH_VA.ASID.set(words, asid);
  CMD_TLBI_NH_VA.Address.set(words, hiOf(iova), loOf(iova));
  CMD_TLBI_NH_VA.Leaf.set(words, leaf ? 1 : 0);
  CMD_TLBI_NH_VA.NUM.set(words, range.num);
  CMD_TLBI_NH_VA.SCALE.set(words, range.scale);
  CMD_TLBI_NH_VA.TTL.set(words, range.ttl);
  CMD_TLBI_NH_VA.TG.set(words, range.tg);
  return words;
}

/** ATC_INV of everything that a device may have cached for one address space. */
export function atcInvAll(sid: number, ssid: number): Command {
  const words = command(OPCODE.CMD_ATC_INV);
  CMD_ATC_INV.StreamID.set(words, sid);
  CMD_ATC_INV.SubstreamID.set(words, ssid);
  CMD_ATC_INV.SSV.set(words, ssid === 0 ? 0 : 1);
  CMD_ATC_INV.Size.set(words, ATC_INV_SIZE_ALL);
  return words;
}

/** ATC_INV of the smallest aligned power of two of 4 KiB pages that covers [iova, iova + size). */
export function atcInv(sid: number, ssid: number, iova: bigint, size: bigint): Command {
  const first = iova >> 12n;
  const last = (iova + size - 1n) >> 12n;
  let log2Span = 0;
  for (let differing = first ^ last; differing !== 0n; differing >>= 1n) log2Span += 1;
  const start = ((first >> BigInt(log2Span)) << BigInt(log2Span)) << 12n;
  const words = atcInvAll(sid, ssid);
  CMD_ATC_INV.Size.set(words, log2Span);
  CMD_ATC_INV.Address.set(words, hiOf(start), loOf(start));
  return words;
}

/** Answers a page request. `resp` is one of PRI_RESP. */
export function priResp(sid: number, ssid: number, ssv: boolean, group: number, resp: number): Command {
  const words = command(OPCODE.CMD_PRI_RESP);
  CMD_PRI_RESP.StreamID.set(words, sid);
  CMD_PRI_RESP.SubstreamID.set(words, ssid);
  CMD_PRI_RESP.SSV.set(words, ssv ? 1 : 0);
  CMD_PRI_RESP.PRGIndex.set(words, group);
  CMD_PRI_RESP.Resp.set(words, resp);
  return words;
}

/** Answers a stalled transaction. */
export function resume(sid: number, stag: number, answer: 'retry' | 'abort'): Command {
  const words = command(OPCODE.CMD_RESUME);
  CMD_RESUME.StreamID.set(words, sid);
  CMD_RESUME.STAG.set(words, stag);
  CMD_RESUME.Ac.set(words, answer === 'retry' ? 1 : 0);
  CMD_RESUME.Ab.set(words, answer === 'abort' ? 1 : 0);
  return words;
}

/** Memory attributes of the completion write: Inner Shareable, Normal write-back. */
const MSI_WRITE_BACK = 0xf;

/** @param msiAddress where the device writes 0 when it is done; undefined for a SYNC that is polled for in CONS. */
export function sync(msiAddress?: number): Command {
  const words = command(OPCODE.CMD_SYNC);
  CMD_SYNC.MSH.set(words, SHAREABILITY.Inner);
  CMD_SYNC.MSIAttr.set(words, MSI_WRITE_BACK);
  if (msiAddress === undefined) CMD_SYNC.CS.set(words, SYNC_CS.SEV);
  else {
    CMD_SYNC.CS.set(words, SYNC_CS.IRQ);
    CMD_SYNC.MSIAddress.set(words, hiOfNumber(msiAddress), loOfNumber(msiAddress));
  }
  return words;
}
