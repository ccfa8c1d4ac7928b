import { EVENT_CLASS, EVENT_RECORD, EVENT_TYPE, EVENT_WORDS } from '../spec/events.ts';
import type { Fault } from './fault.ts';
import type { Transaction } from './transaction.ts';

// Numbers of this module cost nothing where they are used; properties of imported objects are loaded every time.
const SSV = EVENT_RECORD.SSV.inPlace;
const SSID_SHIFT = EVENT_RECORD.SubstreamID.shift;
const SSID_MASK = EVENT_RECORD.SubstreamID.inPlace;
const C_BAD_SUBSTREAMID = EVENT_TYPE.C_BAD_SUBSTREAMID;
const F_STE_FETCH = EVENT_TYPE.F_STE_FETCH;
const F_CD_FETCH = EVENT_TYPE.F_CD_FETCH;
const F_WALK_EABT = EVENT_TYPE.F_WALK_EABT;
const F_PERMISSION = EVENT_TYPE.F_PERMISSION;
const TT = EVENT_CLASS.TT;
/** These are all in one word. */
const ACCESS_WORD = EVENT_RECORD.RnW.word;
const RNW = EVENT_RECORD.RnW.inPlace;
const PNU = EVENT_RECORD.PnU.inPlace;
const IND = EVENT_RECORD.InD.inPlace;
const S2 = EVENT_RECORD.S2.inPlace;
const CLASS_SHIFT = EVENT_RECORD.CLASS.shift;
const TTRNW = EVENT_RECORD.TTRnW.inPlace;
const IPA_WORD = EVENT_RECORD.IPA.word;
const IPA_LO = EVENT_RECORD.IPA.loMask;
const IPA_HI = EVENT_RECORD.IPA.hiMask;

/** Builds the record of one event (7.3) in words that are reused. Bits that a record does not define stay 0. */
export class EventRecord {
  readonly words = new Uint32Array(EVENT_WORDS);

  /** What every record begins with. A SubstreamID that was not given is 0. */
  #begin(type: number, transaction: Transaction): void {
    const words = this.words;
    words[0] = type;
    words[1] = transaction.sid;
    words[2] = 0;
    words[3] = 0;
    words[4] = 0;
    words[5] = 0;
    words[6] = 0;
    words[7] = 0;
    if (!transaction.ssv) return;
    // 7.3.9: the SubstreamID of C_BAD_SUBSTREAMID needs no SSV to be valid, and has none.
    words[0] = type | (type === C_BAD_SUBSTREAMID ? 0 : SSV) | ((transaction.ssid << SSID_SHIFT) & SSID_MASK);
  }

  /** A configuration error or the abort of a configuration fetch. */
  configuration(type: number, transaction: Transaction, fault: Fault): void {
    this.#begin(type, transaction);
    if (type === F_STE_FETCH || type === F_CD_FETCH)
      EVENT_RECORD.FetchAddr.set(this.words, fault.fetchHi, fault.fetchLo);
  }

  /**
   * F_WALK_EABT and the four translation-related faults.
   * @param privileged PnU and InD after STE overrides
   */
  translation(
    type: number,
    transaction: Transaction,
    fault: Fault,
    privileged: boolean,
    instruction: boolean,
  ): void {
    this.#begin(type, transaction);
    const words = this.words;
    // 7.3.13: attributes of the input transaction for every CLASS, and its address with the tag.
    let access = fault.cls << CLASS_SHIFT;
    if (!transaction.write) access |= instruction ? RNW | IND : RNW;
    if (privileged) access |= PNU;
    words[4] = transaction.addrLo;
    words[5] = transaction.addrHi;
    if (fault.s2) {
      access |= S2;
      if (type !== F_WALK_EABT) {
        words[IPA_WORD] = fault.ipaLo & IPA_LO;
        words[IPA_WORD + 1] = fault.ipaHi & IPA_HI;
        if (type === F_PERMISSION && fault.cls === TT && !fault.descriptorWrite) access |= TTRNW;
      }
    }
    words[ACCESS_WORD] = access;
    if (type === F_WALK_EABT) EVENT_RECORD.FetchAddr.set(words, fault.fetchHi, fault.fetchLo);
  }

  /** Makes a translation-related record that of a stalled transaction. */
  stalled(stag: number): void {
    EVENT_RECORD.Stall.set(this.words, 1);
    EVENT_RECORD.STAG.set(this.words, stag);
  }

  /** An ATS Translation Request that the stream may not make (7.3.6): what was asked for, before STE overrides. */
  badAtsRequest(transaction: Transaction): void {
    this.#begin(EVENT_TYPE.F_BAD_ATS_TREQ, transaction);
    const words = this.words;
    EVENT_RECORD.Span.set(words, 1);
    EVENT_RECORD.ReqR.set(words, 1);
    if (!transaction.noWrite) EVENT_RECORD.ReqW.set(words, 1);
    // 13.7: only a PASID can ask for these.
    if (transaction.ssv && transaction.instruction) EVENT_RECORD.ReqX.set(words, 1);
    if (transaction.ssv && transaction.privileged) EVENT_RECORD.ReqP.set(words, 1);
    words[4] = transaction.addrLo & ~0xfff;
    words[5] = transaction.addrHi;
  }

  /** A translated transaction that the stream may not make (7.3.8). */
  translatedForbidden(transaction: Transaction): void {
    this.#begin(EVENT_TYPE.F_TRANSL_FORBIDDEN, transaction);
    if (!transaction.write) EVENT_RECORD.RnW.set(this.words, 1);
    this.words[4] = transaction.addrLo;
    this.words[5] = transaction.addrHi;
  }
}
