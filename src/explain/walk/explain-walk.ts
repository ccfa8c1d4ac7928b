/** The way of one transaction through an SMMU in sentences. The walk is the device's own, observed. */

import { hex32, hex64 } from '../../bits/u64.ts';
import type { Smmu } from '../../smmu/smmu.ts';
import { KIND, OUTCOME, type Outcome, type Transaction, Translation } from '../../smmu/transaction.ts';
import { CD } from '../../spec/cd.ts';
import { EVENT_TYPE, EVENTS } from '../../spec/events.ts';
import { CR0, CR2 } from '../../spec/registers.ts';
import { STE } from '../../spec/ste.ts';
import { sentence, sizeOf } from '../explanation.ts';
import { SeenWalk } from './seen-walk.ts';
import type { WalkExplanation } from './walk.ts';
import { walkCause } from './walk-cause.ts';
import { WalkRecord } from './walk-record.ts';
import { walkSteps } from './walk-steps.ts';

const OUTCOMES: Readonly<Record<Outcome, WalkExplanation['outcome']>> = {
  [OUTCOME.Ok]: 'ok',
  [OUTCOME.Abort]: 'abort',
  [OUTCOME.RazWi]: 'raz-wi',
  // An observed walk does not stall.
  [OUTCOME.Stalled]: 'abort',
  [OUTCOME.AtsUr]: 'unsupported-request',
  [OUTCOME.AtsCa]: 'completer-abort',
};

const NAMES = new Map(EVENTS.map(({ type, name }) => [type, name]));

/** Who does what: 'an unprivileged read of IOVA 0x1000 by StreamID 0x1'. */
function subject({
  sid,
  ssv,
  ssid,
  addrHi,
  addrLo,
  write,
  privileged,
  instruction,
  kind,
}: Transaction): string {
  const access = write ? 'write' : instruction ? 'instruction fetch' : 'read';
  const who = `StreamID ${hex32(sid)}${ssv ? `, SubstreamID ${hex32(ssid)}` : ''}`;
  const address = hex64(addrHi, addrLo);
  if (kind === KIND.AtsRequest) return `an ATS Translation Request for ${address} by ${who}`;
  const how = privileged ? 'a privileged' : 'an unprivileged';
  const translated = kind === KIND.AtsTranslated ? 'translated ' : '';
  return `${how} ${translated}${access} of ${kind === KIND.AtsTranslated ? 'address' : 'IOVA'} ${address} by ${who}`;
}

/** Whether the event is recorded, and if not why (7.2.1, 5.5, 6.3.12). */
function recording(walk: SeenWalk): { readonly recorded: boolean; readonly why: string } {
  const { fault } = walk.record;
  if (fault === undefined) return { recorded: false, why: '' };
  const { type, s2 } = fault;
  const silent = (why: string): { recorded: false; why: string } => ({ recorded: false, why });
  const cr2 = walk.register('CR2');
  const ats = walk.transaction.kind !== KIND.Untranslated;
  const own = type === EVENT_TYPE.F_BAD_ATS_TREQ || type === EVENT_TYPE.F_TRANSL_FORBIDDEN;
  // 3.9.1.3: what stage 2 says about a translated transaction is recorded as for any other.
  const walked = walk.transaction.kind === KIND.AtsTranslated && type === EVENT_TYPE.F_WALK_EABT;
  if (ats && !own && !walked && type < EVENT_TYPE.F_TRANSLATION && CR2.REC_CFG_ATS.of(cr2) === 0)
    return silent('CR2.REC_CFG_ATS=0');
  if (walk.transaction.kind === KIND.AtsRequest && !own && type >= EVENT_TYPE.F_TRANSLATION)
    return silent('it is only missing from the answer');
  if (type === EVENT_TYPE.C_BAD_STREAMID && CR2.RECINVSID.of(cr2) === 0) return silent('CR2.RECINVSID=0');
  const quiet = type >= EVENT_TYPE.F_TRANSLATION && walk.record.steps.some(({ kind }) => kind === 'stage');
  if (quiet && s2 && STE.S2R.get(walk.ste!) === 0 && STE.S2S.get(walk.ste!) === 0) return silent('STE.S2R=0');
  if (quiet && !s2 && walk.cd !== undefined && CD.R.get(walk.cd) === 0 && CD.S.get(walk.cd) === 0)
    return silent('CD.R=0');
  if (CR0.EVENTQEN.of(walk.register('CR0')) === 0) return silent('CR0.EVENTQEN=0');
  return { recorded: true, why: '' };
}

/** Its event stalls transactions of devices that may stall (5.5). */
function stalls(walk: SeenWalk): boolean {
  const { fault } = walk.record;
  if (fault === undefined || fault.type < EVENT_TYPE.F_TRANSLATION || walk.outcome === OUTCOME.Ok)
    return false;
  return fault.s2 ? STE.S2S.get(walk.ste!) === 1 : walk.cd !== undefined && CD.S.get(walk.cd) === 1;
}

function end(walk: SeenWalk, event: string | undefined): string {
  const { result, outcome, transaction } = walk;
  const told = recording(walk);
  const named =
    event === undefined
      ? ''
      : told.recorded
        ? ` and recorded as ${event}`
        : `; ${event} is not recorded (${told.why})`;
  switch (outcome) {
    case OUTCOME.Ok: {
      const pa = hex64(result.paHi, result.paLo);
      if (transaction.kind === KIND.AtsRequest)
        return event === undefined
          ? `is answered with ${pa} (${sizeOf(result.log2Size)}), ${grants(walk)}.`
          : `is answered with nothing: ${event} is not recorded (${told.why}).`;
      if (!walk.smmuEnabled) return `passes untranslated to ${pa}: the SMMU is off.`;
      return `is translated to ${pa}.`;
    }
    case OUTCOME.RazWi:
      return `${transaction.write ? 'has no effect' : 'reads zero'} (CD.A=0)${named}.`;
    case OUTCOME.AtsUr:
      return `is answered with Unsupported Request${named}.`;
    case OUTCOME.AtsCa:
      return `is answered with Completer Abort${named}.`;
    default:
      if (event === undefined) return 'is aborted without an event.';
      return `is aborted${named}.${stalls(walk) ? ' A device that may stall would wait for CMD_RESUME instead.' : ''}`;
  }
}

const grants = ({ result }: SeenWalk): string => {
  const what = [
    ...(result.readable ? ['read'] : []),
    ...(result.writable ? ['write'] : []),
    ...(result.executable ? ['execute'] : []),
  ];
  return what.length === 0 ? 'granting nothing' : `granting ${what.join(', ')}`;
};

/** An SMMU, or what stands in for one. */
export type ObservableSmmu = Pick<Smmu, 'ids' | 'registers' | 'observe'>;

/**
 * Explains what a transaction would meet now, with the tables as they are in memory: past all caches, without an event
 * and without a trace in memory.
 */
export function explainWalk(smmu: ObservableSmmu, transaction: Transaction): WalkExplanation {
  const record = new WalkRecord();
  const result = new Translation();
  const outcome = smmu.observe(transaction, result, record);
  const walk = new SeenWalk(smmu, transaction, result, outcome, record);
  const event = record.fault === undefined ? undefined : NAMES.get(record.fault.type);
  const cause = walkCause(walk);
  const { sid, ssv, ssid, addrHi, addrLo, write, instruction, privileged } = transaction;
  return {
    sid,
    ...(ssv && { ssid }),
    iova: hex64(addrHi, addrLo),
    access: write ? 'write' : instruction ? 'execute' : 'read',
    privileged,
    outcome: OUTCOMES[outcome],
    ...(outcome === OUTCOME.Ok && {
      pa: hex64(result.paHi, result.paLo),
      log2Size: result.log2Size,
    }),
    ...(event !== undefined && { event, recorded: recording(walk).recorded }),
    summary: `${sentence(subject(transaction))} ${end(walk, event)}`,
    ...(cause !== undefined && { cause }),
    steps: walkSteps(walk),
  };
}
