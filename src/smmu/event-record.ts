import { EVENT_CLASS, EVENT_RECORD, EVENT_TYPE, EVENT_WORDS } from '../spec/events.ts';
import type { Fault } from './fault.ts';
import type { Transaction } from './transaction.ts';

/** Builds the record of one event (7.3) in words that are reused. Bits that a record does not define stay 0. */
export class EventRecord {
  readonly words = new Uint32Array(EVENT_WORDS);

  /** What every record begins with. A SubstreamID that was not given is 0. */
  #begin(type: number, transaction: Transaction): void {
    const words = this.words;
    words.fill(0);
    words[0] = EVENT_RECORD.EventID.put(type);
    words[1] = transaction.sid;
    if (!transaction.ssv) return;
    // 7.3.9: the SubstreamID of C_BAD_SUBSTREAMID needs no SSV to be valid, and has none.
    if (type !== EVENT_TYPE.C_BAD_SUBSTREAMID) EVENT_RECORD.SSV.set(words, 1);
    EVENT_RECORD.SubstreamID.set(words, transaction.ssid);
  }

  /** A configuration error or the abort of a configuration fetch. */
  configuration(type: number, transaction: Transaction, fault: Fault): void {
    this.#begin(type, transaction);
    if (type === EVENT_TYPE.F_STE_FETCH || type === EVENT_TYPE.F_CD_FETCH)
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
    this.#access(transaction, privileged, instruction);
    EVENT_RECORD.CLASS.set(words, fault.cls);
    if (type === EVENT_TYPE.F_WALK_EABT) {
      if (fault.s2) EVENT_RECORD.S2.set(words, 1);
      EVENT_RECORD.FetchAddr.set(words, fault.fetchHi, fault.fetchLo);
      return;
    }
    if (!fault.s2) return;
    EVENT_RECORD.S2.set(words, 1);
    EVENT_RECORD.IPA.set(words, fault.ipaHi, fault.ipaLo);
    if (type === EVENT_TYPE.F_PERMISSION && fault.cls === EVENT_CLASS.TT && !fault.descriptorWrite)
      EVENT_RECORD.TTRnW.set(words, 1);
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
    if (transaction.instruction) EVENT_RECORD.ReqX.set(words, 1);
    if (transaction.privileged) EVENT_RECORD.ReqP.set(words, 1);
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

  /** 7.3.13: attributes of the input transaction for every CLASS, and its address with the tag. */
  #access(transaction: Transaction, privileged: boolean, instruction: boolean): void {
    const words = this.words;
    if (!transaction.write) EVENT_RECORD.RnW.set(words, 1);
    if (privileged) EVENT_RECORD.PnU.set(words, 1);
    if (instruction && !transaction.write) EVENT_RECORD.InD.set(words, 1);
    words[4] = transaction.addrLo;
    words[5] = transaction.addrHi;
  }
}
