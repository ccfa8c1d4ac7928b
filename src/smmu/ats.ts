/** ATS: Translation Requests and translated transactions (3.9.1, 13.6, 13.7). */

import { EVENT_CLASS, EVENT_TYPE } from '../spec/events.ts';
import { CR0, CR2, OFFSET } from '../spec/registers.ts';
import { STE_CONFIG, STE_EATS, STE_INSTCFG, STE_PRIVCFG, STE_WORDS } from '../spec/ste.ts';
import { selectCd } from './cd-lookup.ts';
import type { EventRecord } from './event-record.ts';
import type { Fault } from './fault.ts';
import type { Features } from './features.ts';
import { PERM } from './permissions.ts';
import { PATH, type StreamContext } from './stream-context.ts';
import { ATS_DENIED, ATS_UNSUPPORTED, type StreamContexts } from './stream-contexts.ts';
import { copyTransaction } from './stalls.ts';
import { OUTCOME, type Outcome, Transaction, type Translation } from './transaction.ts';
import type { Stage1Walk } from './walk-stage1.ts';
import { type Stage2Walk, beyond } from './walk-stage2.ts';

const CR0_WORD = OFFSET.CR0 >>> 2;
const CR2_WORD = OFFSET.CR2 >>> 2;

/** What the translator shares with ATS. */
export interface AtsParts {
  readonly features: Features;
  readonly registers: Uint32Array;
  readonly contexts: StreamContexts;
  readonly stage1: Stage1Walk;
  readonly stage2: Stage2Walk;
  readonly fault: Fault;
  readonly event: EventRecord;
  /** Records `event`. */
  send(): void;
}

/** R, W and X of PERM bits for one privilege level. */
const READ = 1;
const WRITE = 2;
const EXECUTE = 4;

export class Ats {
  /** Look only: names every fault in the result, also those that nobody hears of. */
  dry = false;
  readonly #parts: AtsParts;
  readonly #selection = { index: 0 };
  readonly #ste = new Uint32Array(STE_WORDS);
  /** The translated transaction at hand, as one without a PASID. */
  readonly #plain = new Transaction();
  /** PnU and InD of the request at hand. */
  #privileged = false;
  #instruction = false;

  constructor(parts: AtsParts) {
    this.#parts = parts;
  }

  /** Answers a Translation Request. SMMUEN=1. */
  request(transaction: Transaction, result: Translation): Outcome {
    const { contexts } = this.#parts;
    grant(result, 0, transaction, 0);
    result.log2Size = 12;
    // 13.7: without a PASID there is no Priv and no Exe.
    this.#privileged = transaction.ssv && transaction.privileged;
    this.#instruction = transaction.ssv && transaction.instruction;
    const status = contexts.find(transaction);
    if (status === ATS_UNSUPPORTED) return OUTCOME.AtsUr;
    if (status === ATS_DENIED) return this.denyRequest(transaction, result);
    // Records of what fails before there is an STE have no PnU and no InD.
    const context = status === 0 ? contexts.current : contexts.partial;
    if (context.PRIVCFG >= STE_PRIVCFG.Unprivileged)
      this.#privileged = context.PRIVCFG === STE_PRIVCFG.Privileged;
    if (context.INSTCFG >= STE_INSTCFG.Data) this.#instruction = context.INSTCFG === STE_INSTCFG.Instruction;
    if (status !== 0) return this.#refuse(status, transaction, result);
    if (context.path === PATH.Abort) return OUTCOME.AtsUr;
    if (contexts.effectiveEATS(context) === STE_EATS.Disabled) return this.denyRequest(transaction, result);
    return this.#translateRequest(transaction, context, this.#privileged, result);
  }

  #translateRequest(
    transaction: Transaction,
    context: StreamContext,
    privileged: boolean,
    result: Translation,
  ): Outcome {
    const { features, stage1, stage2, contexts } = this.#parts;
    const { addrHi, addrLo } = transaction;
    const shift = privileged ? 3 : 0;
    // Everything that could be granted (13.7.1): X alone grants nothing, unless all reads are instruction fetches. The
    // walk stops only where nothing is, and marks dirty only what may be written.
    const read = context.INSTCFG === STE_INSTCFG.Instruction ? EXECUTE : READ;
    const need = (read | (transaction.noWrite ? 0 : WRITE)) << shift;
    if (context.path === PATH.Bypass || context.path === PATH.Stage2) {
      if (beyond(addrHi, addrLo, features.oasBits))
        return this.#refuse(EVENT_TYPE.F_ADDR_SIZE, transaction, result);
      result.paHi = addrHi;
      result.paLo = addrLo;
      result.log2Size = features.oasBits;
      // 13.6.4: stage 1 skipped and no stage 2: everything, at the same address.
      if (context.path === PATH.Bypass) {
        grant(result, READ | WRITE, transaction, 0);
        return OUTCOME.Ok;
      }
      const status = stage2.walk(context.s2, addrHi, addrLo, need, EVENT_CLASS.IN);
      if (status !== 0) return this.#refuse(status, transaction, result);
      result.log2Size = stage2.log2Size;
      // 13.6.5: split-stage answers with the IPA, here the input itself.
      if (contexts.effectiveEATS(context) !== STE_EATS.SplitStage) {
        result.paHi = stage2.paHi;
        result.paLo = stage2.paLo >>> 0;
      }
      grant(result, stage2.permissions >>> shift, transaction, context.INSTCFG);
      return OUTCOME.Ok;
    }
    const upper = (addrHi & 0x0080_0000) !== 0;
    const half = upper ? context.s1.upper : context.s1.lower;
    const vaHi = half.TBI ? (upper ? addrHi | 0xff00_0000 : addrHi & 0x00ff_ffff) >>> 0 : addrHi;
    const nested = context.path === PATH.Nested;
    const s2 = nested ? context.s2 : undefined;
    const status = stage1.walk(context.s1, half, upper, s2, vaHi, addrLo, need);
    if (status !== 0) return this.#refuse(status, transaction, result);
    let permissions = stage1.permissions >>> shift;
    result.paHi = stage1.outHi;
    result.paLo = stage1.outLo >>> 0;
    result.log2Size = stage1.log2Size;
    if (nested) {
      // 3.13.7: stage 2 is made dirty only where stage 1 lets writes through.
      const wanted = need & (permissions << shift);
      const second = stage2.walk(context.s2, stage1.outHi, stage1.outLo, wanted, EVENT_CLASS.IN);
      if (second !== 0) return this.#refuse(second, transaction, result);
      permissions &= stage2.permissions >>> shift;
      result.log2Size = Math.min(result.log2Size, stage2.log2Size);
      if (contexts.effectiveEATS(context) !== STE_EATS.SplitStage) {
        result.paHi = stage2.paHi;
        result.paLo = stage2.paLo >>> 0;
      }
    }
    grant(result, permissions, transaction, context.INSTCFG);
    return OUTCOME.Ok;
  }

  /** 3.9.1.2: a fault of the page grants nothing, silently; a configuration error is a Completer Abort. */
  #refuse(type: number, transaction: Transaction, result: Translation): Outcome {
    grant(result, 0, transaction, 0);
    result.log2Size = 12;
    if (this.dry) result.event = type;
    if (type >= EVENT_TYPE.F_TRANSLATION) return OUTCOME.Ok;
    this.#recordConfiguration(type, transaction, result, true);
    return OUTCOME.AtsCa;
  }

  /** Records a configuration error of ATS, which software hears of only if it asked to (CR2.REC_CFG_ATS). */
  #recordConfiguration(type: number, transaction: Transaction, result: Translation, request: boolean): void {
    const { features, registers, event, fault } = this.#parts;
    if (this.dry) result.event = type;
    if (!features.ATSRECERR || CR2.REC_CFG_ATS.get(registers, CR2_WORD) === 0) return;
    // 3.9.1.3: RECINVSID does not count for translated transactions.
    if (type === EVENT_TYPE.C_BAD_STREAMID && request && CR2.RECINVSID.get(registers, CR2_WORD) === 0) return;
    result.event = type;
    if (type === EVENT_TYPE.F_WALK_EABT)
      event.translation(type, transaction, fault, this.#privileged, this.#instruction);
    else event.configuration(type, transaction, fault);
    this.#parts.send();
  }

  /** The stream may not use ATS at all. */
  denyRequest(transaction: Transaction, result: Translation): Outcome {
    result.event = EVENT_TYPE.F_BAD_ATS_TREQ;
    this.#parts.event.badAtsRequest(transaction);
    this.#parts.send();
    return OUTCOME.AtsUr;
  }

  /** 3.9.1.3: without IDR3.PASIDTT a translated transaction counts as one without a PASID, with all that comes with it. */
  #withoutPasid(given: Transaction): Transaction {
    const plain = this.#plain;
    copyTransaction(given, plain);
    plain.ssv = plain.privileged = plain.instruction = false;
    return plain;
  }

  /** A transaction that carries an address which ATS gave out. SMMUEN=1. */
  translated(given: Transaction, result: Translation): Outcome {
    const { features, registers, contexts, stage2, fault, event } = this.#parts;
    // 5.2 EATS: an SMMU without ATS passes no translated traffic; no device behind it can have got an address.
    if (!features.ATS) return OUTCOME.Abort;
    const transaction = this.#withoutPasid(given);
    const { addrHi, addrLo } = transaction;
    result.paHi = addrHi;
    result.paLo = addrLo;
    result.log2Size = 12;
    if (CR0.ATSCHK.get(registers, CR0_WORD) === 0)
      return beyond(addrHi, addrLo, features.oasBits) ? OUTCOME.Abort : OUTCOME.Ok;
    // Read fresh: the CD plays no part, so the cached contexts do not fit.
    const context = contexts.partial;
    const ste = this.#ste;
    let status = contexts.fetchSte(transaction.sid, ste);
    if (status === 0) {
      context.setSte(ste, features);
      if ((context.config & 4) === 0) return OUTCOME.Abort;
      const EATS = contexts.effectiveEATS(context);
      if (context.config === STE_CONFIG.Bypass || EATS === STE_EATS.Disabled)
        return this.forbidTranslated(transaction, result);
      status = selectCd(ste, features, false, 0, this.#selection);
      if (status === 0 && EATS === STE_EATS.Full)
        return beyond(addrHi, addrLo, features.oasBits) ? OUTCOME.Abort : OUTCOME.Ok;
    }
    if (status !== 0) {
      this.#recordConfiguration(status, transaction, result, false);
      return OUTCOME.Abort;
    }
    // Split stage: the address is an IPA.
    const privileged = context.PRIVCFG === STE_PRIVCFG.Privileged;
    const instruction = context.INSTCFG === STE_INSTCFG.Instruction && !transaction.write;
    const need = (transaction.write ? WRITE : instruction ? EXECUTE : READ) << (privileged ? 3 : 0);
    let record = true;
    if (beyond(addrHi, addrLo, features.oasBits)) {
      status = EVENT_TYPE.F_ADDR_SIZE;
      fault.stage1();
    } else {
      status = stage2.translate(context.s2, addrHi, addrLo, need, EVENT_CLASS.IN);
      if (status === 0) {
        result.paHi = stage2.paHi;
        result.paLo = stage2.paLo >>> 0;
        result.log2Size = stage2.log2Size;
        return OUTCOME.Ok;
      }
      record = context.s2.R || status === EVENT_TYPE.F_WALK_EABT;
    }
    result.event = status;
    if (record) {
      event.translation(status, transaction, fault, privileged, instruction);
      this.#parts.send();
    }
    return OUTCOME.Abort;
  }

  /** The stream may not send translated transactions. */
  forbidTranslated(transaction: Transaction, result: Translation): Outcome {
    result.event = EVENT_TYPE.F_TRANSL_FORBIDDEN;
    this.#parts.event.translatedForbidden(this.#withoutPasid(transaction));
    this.#parts.send();
    return OUTCOME.Abort;
  }
}

/**
 * What a completion grants (13.7.1).
 * @param permissions R, W and X at the privilege that counts
 */
function grant(result: Translation, permissions: number, transaction: Transaction, INSTCFG: number): void {
  const executable = (permissions & PERM.UX) !== 0;
  const readable = (permissions & PERM.UR) !== 0;
  const wanted = transaction.ssv && transaction.instruction;
  result.writable = (permissions & PERM.UW) !== 0;
  if (INSTCFG === STE_INSTCFG.Instruction) {
    result.readable = executable;
    result.executable = wanted && executable;
  } else {
    result.readable = readable;
    // Granting X implies granting R: what may only be executed gives nothing.
    result.executable = wanted && readable && (executable || INSTCFG === STE_INSTCFG.Data);
  }
}
