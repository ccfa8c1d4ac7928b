/** ATS by the slow walker (3.9.1.2, 3.9.1.3, 13.7.1). */

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
import { slowStage2, stage1For, stage2For, type Access, type Translated } from './slow-tables.ts';

/** STE.EATS as it acts. */
function effectiveEats({ ids, atschk }: SlowMachine, ste: bigint[]): bigint {
  const EATS = get(ste[1], 29, 28);
  if (!ids.ats || get(ste[0], 3, 1) === 4n || EATS === 3n) return 0n;
  return EATS === 2n && !atschk ? 0n : EATS;
}

const head = (type: bigint, { sid, ssv, ssid }: SlowRequest): bigint =>
  type | (sid << 32n) | (ssv ? (1n << 11n) | (ssid << 12n) : 0n);

/** Answers a Translation Request. */
export function slowRequest(machine: SlowMachine, request: SlowRequest): SlowResult {
  const { ids } = machine;
  const { address, noWrite } = request;
  const exe = request.ssv && request.instruction;
  let privileged = request.ssv && request.privileged;
  let instruction = exe;
  const none: SlowResult = { outcome: 'ok', pa: 0n, grant: '--- 12', events: [] };
  try {
    const ste = fetchSte(machine, request.sid);
    if (get(ste[0], 3, 1) < 4n) return { outcome: 'ur', pa: 0n, events: [] };
    const EATS = effectiveEats(machine, ste);
    if (EATS === 0n) {
      const asked = 1n | (1n << 31n) | (noWrite ? 0n : 1n << 30n);
      const more = (exe ? 1n << 29n : 0n) | (privileged ? 1n << 28n : 0n);
      return { outcome: 'ur', pa: 0n, events: [[head(5n, request), asked | more, address & -4096n, 0n]] };
    }
    const PRIVCFG = ids.permsOvr ? get(ste[1], 49, 48) : 0n;
    const INSTCFG = ids.permsOvr ? get(ste[1], 51, 50) : 0n;
    if (PRIVCFG >= 2n) privileged = PRIVCFG === 3n;
    if (INSTCFG >= 2n) instruction = INSTCFG === 3n;
    const index = cdIndex(ids, ste, request);
    const stage2 = flag(ste[0], 2);
    const cd = index === undefined ? undefined : fetchCd(machine, ste, stage2, index);
    // What R stands for in the answer.
    const reading: Access = INSTCFG === 3n ? 'x' : 'r';
    const wanted: Access[] = noWrite ? [reading] : [reading, 'w'];
    if (cd === undefined && address >> BigInt(ids.oas) !== 0n) return none;
    const identity: Translated = { address, rights: { r: true, w: true, x: false }, log2Size: ids.oas };
    let final = identity;
    if (cd !== undefined) final = stage1For(machine, ste, cd, stage2, address, { any: wanted, privileged });
    if (stage2) {
      const first = final;
      const any = cd === undefined ? wanted : wanted.filter((access) => first.rights[access]);
      const second = stage2For(machine, ste, first.address, { any, privileged }, 2n);
      const both = (access: Access): boolean =>
        second.rights[access] && (cd === undefined || first.rights[access]);
      final = {
        // 13.6.3: split-stage answers with the IPA.
        address: EATS === 2n ? first.address : second.address,
        rights: { r: both('r'), w: both('w'), x: both('x') },
        log2Size: Math.min(first.log2Size, second.log2Size),
      };
    }
    const { r, w, x } = final.rights;
    const execute = exe && (INSTCFG === 3n ? x : INSTCFG === 2n ? r : r && x);
    const read = INSTCFG === 3n && (cd !== undefined || stage2) ? x : r;
    const grant = `${read ? 'r' : '-'}${w ? 'w' : '-'}${execute ? 'x' : '-'} ${final.log2Size}`;
    return { outcome: 'ok', pa: final.address, grant, events: [] };
  } catch (stop) {
    if (!(stop instanceof Stop)) throw stop;
    if (stop.type >= T.TRANSLATION) return none;
    const recorded = machine.recCfgAts && (stop.type !== 2 || machine.recinvsid);
    const record = recordOf(stop, { ...request, write: false }, privileged, instruction);
    return { outcome: 'ca', pa: 0n, events: recorded ? [record] : [] };
  }
}

/** A transaction that carries an address from ATS; it counts as one without a PASID. */
export function slowTranslated(machine: SlowMachine, given: SlowRequest): SlowResult {
  const { ids } = machine;
  const request = { ...given, ssv: false, privileged: false, instruction: false };
  const { address } = request;
  const abort = (event?: bigint[]): SlowResult => ({
    outcome: 'abort',
    pa: 0n,
    events: event === undefined ? [] : [event],
  });
  const pass = (): SlowResult =>
    address >> BigInt(ids.oas) === 0n ? { outcome: 'ok', pa: address, events: [] } : abort();
  if (!ids.ats) return abort();
  if (!machine.atschk) return pass();
  let ste: bigint[] = [];
  let privileged = false;
  let instruction = false;
  try {
    ste = fetchSte(machine, request.sid);
    if (get(ste[0], 3, 1) < 4n) return abort();
    const EATS = effectiveEats(machine, ste);
    if (EATS === 0n) return abort([head(7n, request), request.write ? 0n : 1n << 35n, address, 0n]);
    cdIndex(ids, ste, request);
    if (EATS === 1n) return pass();
    if (ids.permsOvr) {
      privileged = get(ste[1], 49, 48) === 3n;
      instruction = get(ste[1], 51, 50) === 3n && !request.write;
    }
    if (address >> BigInt(ids.oas) !== 0n) throw new Stop(T.ADDR_SIZE, { always: true });
    const kind = request.write ? 'w' : instruction ? 'x' : 'r';
    const { address: pa } = slowStage2(machine, ste, address, kind, privileged, 2n);
    return { outcome: 'ok', pa, events: [] };
  } catch (stop) {
    if (!(stop instanceof Stop)) throw stop;
    const recorded =
      stop.type < T.EABT ? machine.recCfgAts : stop.type === T.EABT || stop.always || flag(ste[2], 58);
    return abort(recorded ? recordOf(stop, request, privileged, instruction) : undefined);
  }
}
