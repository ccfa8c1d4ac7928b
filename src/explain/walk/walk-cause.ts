/** The one field that stopped a transaction: from the event, and from the last thing that the walk read. */

import { hex32 } from '../../bits/u64.ts';
import { type CdField, illegalCdField } from '../../smmu/cd-legality.ts';
import { type SteField, illegalSteField } from '../../smmu/ste-legality.ts';
import { effectiveSplit } from '../../smmu/stream-table.ts';
import { KIND, OUTCOME } from '../../smmu/transaction.ts';
import { CD } from '../../spec/cd.ts';
import { EVENT_TYPE } from '../../spec/events.ts';
import { CR0, GBPA, STRTAB_BASE_CFG } from '../../spec/registers.ts';
import { STE, STE_CONFIG, STE_EATS } from '../../spec/ste.ts';
import { L1CD, L1STD } from '../../spec/stream-table.ts';
import { beyondOutput, inStructure, noMemory, plain, register } from './cause.ts';
import { illegalCdReason, illegalSteReason } from './illegal-fields.ts';
import type { SeenWalk } from './seen-walk.ts';
import { translationCause } from './translation-cause.ts';
import type { WalkCause } from './walk.ts';
import type { SeenFault } from './walk-record.ts';

/** What stopped the transaction; undefined if nothing did. */
export function walkCause(walk: SeenWalk): WalkCause | undefined {
  const { outcome, record, features } = walk;
  const { fault } = record;
  if (!walk.smmuEnabled) return causeWhileOff(walk);
  if (fault === undefined) {
    if (walk.transaction.kind === KIND.AtsTranslated && !features.ATS) return noAts();
    // 5.2 Config: the only abort without an event.
    const ste = record.wordsOf('STE');
    if (outcome === OUTCOME.Ok || ste === undefined || (STE.Config.get(ste.words) & 4) !== 0)
      return outcome === OUTCOME.Ok ? undefined : beyondOutput(walk);
    return inStructure(
      ste,
      'Config',
      STE.Config,
      `Config=${STE.Config.get(ste.words)} aborts all traffic of the stream, without an event`,
    );
  }
  switch (fault.type) {
    case EVENT_TYPE.C_BAD_STREAMID:
      return badStreamId(walk);
    case EVENT_TYPE.F_STE_FETCH:
      return steFetch(walk, fault);
    case EVENT_TYPE.C_BAD_STE: {
      const ste = record.wordsOf('STE')!;
      const field = illegalSteField(ste.words, features) as SteField;
      return inStructure(ste, field, STE[field], illegalSteReason(field, ste.words, features));
    }
    case EVENT_TYPE.C_BAD_SUBSTREAMID:
      return badSubstreamId(walk);
    case EVENT_TYPE.F_STREAM_DISABLED: {
      const ste = record.wordsOf('STE')!;
      const S1DSS = STE.S1DSS.get(ste.words);
      return inStructure(
        ste,
        'S1DSS',
        STE.S1DSS,
        // 3.9.1.3: a translated transaction counts as one without.
        walk.transaction.ssv && walk.transaction.kind !== KIND.AtsTranslated
          ? `S1DSS=${S1DSS} keeps SubstreamID 0 for traffic without a SubstreamID`
          : `S1DSS=${S1DSS} terminates traffic without a SubstreamID`,
      );
    }
    case EVENT_TYPE.F_CD_FETCH:
      return cdFetch(walk, fault);
    case EVENT_TYPE.C_BAD_CD: {
      const cd = record.wordsOf('CD')!;
      const field = illegalCdField(cd.words, walk.ste!, walk.world, features) as CdField;
      return inStructure(cd, field, CD[field], illegalCdReason(field, cd.words, features));
    }
    case EVENT_TYPE.F_BAD_ATS_TREQ:
    case EVENT_TYPE.F_TRANSL_FORBIDDEN:
      return atsForbidden(walk);
    default:
      return translationCause(walk, fault);
  }
}

const noAts = (): WalkCause => plain('IDR0.ATS', 'IDR0', 'ATS=0: the SMMU has no ATS');

/** Why the device may not use ATS: the effective EATS is 0 (5.2 EATS). */
function atsForbidden(walk: SeenWalk): WalkCause {
  if (!walk.features.ATS) return noAts();
  const ste = walk.record.wordsOf('STE')!;
  if (STE.Config.get(ste.words) === STE_CONFIG.Bypass)
    return inStructure(ste, 'Config', STE.Config, 'Config=4: a stream that bypasses has no ATS');
  const EATS = STE.EATS.get(ste.words);
  if (EATS === STE_EATS.SplitStage)
    return register('CR0.ATSCHK', CR0.ATSCHK, 0, 'ATSCHK=0: without it EATS=2 (split-stage ATS) acts as 0');
  const text =
    EATS === STE_EATS.Dpt
      ? 'EATS=3 needs a device permission table, and acts as 0 without one (IDR3.DPT=0)'
      : 'EATS=0 does not let the device use ATS';
  return inStructure(ste, 'EATS', STE.EATS, text);
}

function causeWhileOff(walk: SeenWalk): WalkCause | undefined {
  const { outcome, record } = walk;
  if (outcome === OUTCOME.Ok) return undefined;
  if (record.fault !== undefined)
    return register('CR0.SMMUEN', CR0.SMMUEN, 0, 'SMMUEN=0: there is no ATS while the SMMU is off');
  if (GBPA.ABORT.of(walk.register('GBPA')) === 1)
    return register('GBPA.ABORT', GBPA.ABORT, 1, 'ABORT=1: while the SMMU is off all traffic is aborted');
  return beyondOutput(walk);
}

function badStreamId(walk: SeenWalk): WalkCause {
  const { sid } = walk.transaction;
  const cfg = walk.register('STRTAB_BASE_CFG');
  const l1 = walk.record.wordsOf('L1STD');
  if (l1 !== undefined) {
    const Span = L1STD.Span.get(l1.words);
    const SPLIT = effectiveSplit(STRTAB_BASE_CFG.SPLIT.of(cfg));
    const text =
      Span === 0
        ? 'Span=0: no STEs are below this L1STD'
        : Span > SPLIT + 1
          ? `Span=${Span} is more than SPLIT=${SPLIT} allows`
          : `Span=${Span}: only the first ${2 ** (Span - 1)} StreamIDs below this L1STD have an STE`;
    return inStructure(l1, 'Span', L1STD.Span, text);
  }
  const LOG2SIZE = STRTAB_BASE_CFG.LOG2SIZE.of(cfg);
  if (walk.features.SIDSIZE < LOG2SIZE)
    return plain(
      'IDR1.SIDSIZE',
      'IDR1',
      `StreamIDs have ${walk.features.SIDSIZE} bits, which ${hex32(sid)} exceeds`,
    );
  return register(
    'STRTAB_BASE_CFG.LOG2SIZE',
    STRTAB_BASE_CFG.LOG2SIZE,
    LOG2SIZE,
    `LOG2SIZE=${LOG2SIZE}: the stream table ends before StreamID ${hex32(sid)}`,
  );
}

function steFetch(walk: SeenWalk, fault: SeenFault): WalkCause {
  const l1 = walk.record.wordsOf('L1STD');
  if (l1 !== undefined)
    return inStructure(l1, 'L2Ptr', L1STD.L2Ptr, `${noMemory(fault)}, where L2Ptr says that the STE is`);
  return plain(
    'STRTAB_BASE.ADDR',
    'STRTAB_BASE',
    `${noMemory(fault)}, where STRTAB_BASE says that the stream table is`,
  );
}

function badSubstreamId(walk: SeenWalk): WalkCause {
  const ste = walk.record.wordsOf('STE')!;
  const l1 = walk.record.wordsOf('L1CD');
  const { ssid } = walk.transaction;
  if (l1 !== undefined)
    return L1CD.V.get(l1.words) === 0
      ? inStructure(l1, 'V', L1CD.V, `V=0: there is no CD of SubstreamID ${hex32(ssid)}`)
      : inStructure(l1, 'L2Ptr', L1CD.L2Ptr, 'L2Ptr is beyond any physical address');
  const config = STE.Config.get(ste.words);
  if ((config & 1) === 0)
    return inStructure(
      ste,
      'Config',
      STE.Config,
      `Config=${config} has no stage 1, so that a SubstreamID means nothing`,
    );
  if (walk.features.SSIDSIZE === 0)
    return plain('IDR1.SSIDSIZE', 'IDR1', 'SSIDSIZE=0: the SMMU has no SubstreamIDs');
  const S1CDMax = STE.S1CDMax.get(ste.words);
  return inStructure(
    ste,
    'S1CDMax',
    STE.S1CDMax,
    S1CDMax === 0
      ? 'S1CDMax=0: the stream has no substreams'
      : `S1CDMax=${S1CDMax}: SubstreamIDs end before ${hex32(ssid)}`,
  );
}

function cdFetch(walk: SeenWalk, fault: SeenFault): WalkCause {
  const l1 = walk.record.wordsOf('L1CD');
  if (l1 !== undefined)
    return inStructure(l1, 'L2Ptr', L1CD.L2Ptr, `${noMemory(fault)}, where L2Ptr says that the CD is`);
  return inStructure(
    walk.record.wordsOf('STE')!,
    'S1ContextPtr',
    STE.S1ContextPtr,
    `${noMemory(fault)}, where S1ContextPtr says that the CD is`,
  );
}
