/** Translation of ordinary transactions by the slow walker. */

import { slowRequest, slowTranslated } from './slow-ats.ts';
import {
  T,
  Stop,
  flag,
  get,
  recordOf,
  type SlowMachine,
  type SlowRequest,
  type SlowResult,
} from './slow-machine.ts';
import { cdIndex, fetchCd, fetchSte } from './slow-structures.ts';
import { slowStage2, stage1For } from './slow-tables.ts';

/** What an SMMU makes of a transaction. */
export function slowTranslate(machine: SlowMachine, request: SlowRequest): SlowResult {
  if (request.kind === 'ats-request') return slowRequest(machine, request);
  if (request.kind === 'ats-translated') return slowTranslated(machine, request);
  return ordinary(machine, request);
}

function ordinary(machine: SlowMachine, request: SlowRequest): SlowResult {
  let ste: bigint[] = [];
  let cd: bigint[] = [];
  let privileged = request.privileged;
  let instruction = request.instruction && !request.write;
  const { ids } = machine;
  try {
    ste = fetchSte(machine, request.sid);
    if (ids.permsOvr) {
      const PRIVCFG = get(ste[1], 49, 48);
      const INSTCFG = get(ste[1], 51, 50);
      if (PRIVCFG >= 2n) privileged = PRIVCFG === 3n;
      if (INSTCFG >= 2n) instruction = INSTCFG === 3n && !request.write;
    }
    const config = get(ste[0], 3, 1);
    if (config < 4n) return { outcome: 'abort', pa: 0n, events: [] };
    const stage2 = flag(ste[0], 2);
    const index = cdIndex(ids, ste, request);
    const kind = request.write ? 'w' : instruction ? 'x' : 'r';
    const second = (ipa: bigint): bigint =>
      stage2 ? slowStage2(machine, ste, ipa, kind, privileged, 2n).address : ipa;
    if (index === undefined) {
      if (request.address >> BigInt(ids.oas) !== 0n) throw new Stop(T.ADDR_SIZE, { always: true });
      return { outcome: 'ok', pa: second(request.address), events: [] };
    }
    cd = fetchCd(machine, ste, stage2, index);
    const ipa = stage1For(machine, ste, cd, stage2, request.address, { any: [kind], privileged }).address;
    return { outcome: 'ok', pa: second(ipa), events: [] };
  } catch (stop) {
    if (!(stop instanceof Stop)) throw stop;
    let recorded = stop.type !== 2 || machine.recinvsid;
    let outcome: SlowResult['outcome'] = 'abort';
    if (stop.type >= T.TRANSLATION && !stop.always) {
      // S forces the record; these devices do not stall.
      recorded = stop.s2 ? flag(ste[2], 58) || flag(ste[2], 57) : flag(cd[0], 45) || flag(cd[0], 44);
      if (!stop.s2 && !flag(cd[0], 46)) outcome = 'razwi';
    }
    return { outcome, pa: 0n, events: recorded ? [recordOf(stop, request, privileged, instruction)] : [] };
  }
}
