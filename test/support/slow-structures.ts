/** STEs and CDs of the slow walker: where they are, and which are ILLEGAL. */

import { Stop, flag, get, type SlowIds, type SlowMachine, type SlowRequest } from './slow-machine.ts';
import { s1Level, s2Level, worldOf, type SlowWorld } from './slow-levels.ts';
import { slowStage2 } from './slow-tables.ts';

export function fetchSte(machine: SlowMachine, sid: bigint): bigint[] {
  if (sid >> machine.log2size !== 0n) throw new Stop(2);
  let at: bigint;
  if (machine.split === undefined) at = (machine.strtabBase & -(64n << machine.log2size)) + 64n * sid;
  else {
    const { split } = machine;
    const size = machine.log2size > split ? 8n << (machine.log2size - split) : 8n;
    const l1 = (machine.strtabBase & -(size > 64n ? size : 64n)) + 8n * (sid >> split);
    const word = machine.read(l1);
    if (word === undefined) throw new Stop(3, { fetch: l1 });
    const span = get(word, 4, 0);
    if (span === 0n || span > 11n || span > split + 1n) throw new Stop(2);
    const index = sid & ((1n << split) - 1n);
    if (index >= 1n << (span - 1n)) throw new Stop(2);
    at = ((get(word, 55, 6) << 6n) & -(64n << (span - 1n))) + 64n * index;
  }
  const ste = readWords(machine, at, 3);
  if (steBad(machine.ids, ste)) throw new Stop(4);
  return ste;
}

function readWords(machine: SlowMachine, at: bigint, event: number): bigint[] {
  const words: bigint[] = [];
  for (let i = 0n; i < 8n; i++) {
    const word = machine.read(at + 8n * i);
    if (word === undefined) throw new Stop(event, { fetch: at });
    words.push(word);
  }
  return words;
}

function steBad(ids: SlowIds, ste: bigint[]): boolean {
  if (!flag(ste[0], 0)) return true;
  const config = get(ste[0], 3, 1);
  if (config < 4n) return false;
  const s1 = flag(ste[0], 1);
  const s2 = flag(ste[0], 2);
  const split = get(ste[1], 29, 28) === 2n;
  const s2s = flag(ste[2], 57);
  if (ids.ats && config !== 4n && split && (config !== 7n || s2s || !ids.splitAts)) return true;
  if (ids.ats && s2 && get(ste[1], 29, 28) === 1n && s2s) return true;
  const el2 = ids.hyp && config === 5n && get(ste[1], 31, 30) !== 0n;
  if (el2 && flag(ste[1], 30)) return true;
  if (config !== 4n && !el2 && !ids.vmid16 && get(ste[2], 15, 8) !== 0n) return true;
  if (s1) {
    if (flag(ste[1], 27) && ids.stallModel !== 0) return true;
    if (ids.ssidsize > 0) {
      const max = get(ste[0], 63, 59);
      const fmt = get(ste[0], 5, 4);
      if (max > BigInt(ids.ssidsize)) return true;
      if (max > 0n && !ids.cd2l && (fmt === 1n || fmt === 2n)) return true;
    }
    if (!s2 && (get(ste[0], 55, 6) << 6n) >> BigInt(ids.oas) !== 0n) return true;
  }
  if (s2) {
    if (flag(ste[2], 57) ? ids.stallModel === 1 : ids.stallModel === 2) return true;
    if (!flag(ste[2], 51)) return true;
    if ((flag(ste[2], 56) || flag(ste[2], 55)) && ids.httu === 0) return true;
    if (flag(ste[2], 55) && ids.httu === 1) return true;
    if (flag(ste[2], 59) && !flag(ste[2], 56) && ids.httu === 3) return true;
    const level = s2Level(ids, ste);
    if (level === undefined) return true;
    if (level.base >> BigInt(level.outputBits) !== 0n) return true;
    if (level.granule !== 16 && !level.ds && level.base >> 48n !== 0n) return true;
    const t0sz = Number(get(ste[2], 37, 32));
    const least = level.granule === 16 || level.ds ? 12 : 16;
    if (t0sz < least || t0sz < 64 - ids.oas) return true;
    if (t0sz > (ids.stt ? (level.granule === 16 ? 47 : 48) : 39)) return true;
    if (level.granule === 12 && level.start === 0 && ids.oas < 44) return true;
    if (level.granule === 14 && level.start === 1 && ids.oas < 42) return true;
    if (level.granule === 16 && level.start === 1 && ids.oas < 44) return true;
    const entries = level.inputBits - (level.granule + (3 - level.start) * (level.granule - 3));
    if (entries < 1 || entries > level.granule - 3 + 4) return true;
    if (badEndian(ids, flag(ste[2], 52))) return true;
  }
  return false;
}

const badEndian = (ids: SlowIds, big: boolean): boolean =>
  (ids.ttendian === 2 && big) || (ids.ttendian === 3 && !big);

export function cdIndex(ids: SlowIds, ste: bigint[], request: SlowRequest): bigint | undefined {
  if (!flag(ste[0], 1)) {
    if (request.ssv) throw new Stop(8);
    return undefined;
  }
  const max = ids.ssidsize === 0 ? 0n : get(ste[0], 63, 59);
  if (max === 0n) {
    if (request.ssv) throw new Stop(8);
    return 0n;
  }
  const dss = get(ste[1], 1, 0);
  if (request.ssv) {
    if (request.ssid >= 1n << max) throw new Stop(8);
    if (request.ssid === 0n && dss === 2n) throw new Stop(6);
    return request.ssid;
  }
  if (dss === 1n) return undefined;
  if (dss === 2n) return 0n;
  throw new Stop(6);
}

export function fetchCd(machine: SlowMachine, ste: bigint[], stage2: boolean, index: bigint): bigint[] {
  const through = (at: bigint): bigint =>
    stage2 ? slowStage2(machine, ste, at, 'r', false, 0n).address : at;
  const max = machine.ids.ssidsize === 0 ? 0n : get(ste[0], 63, 59);
  const fmt = get(ste[0], 5, 4);
  const pointer = get(ste[0], 55, 6) << 6n;
  let at: bigint;
  if (max === 0n || fmt === 0n || fmt === 3n) at = (pointer & -(64n << max)) + 64n * index;
  else {
    const split = fmt === 1n ? 6n : 10n;
    const size = max > split ? 8n << (max - split) : 8n;
    const l1 = through((pointer & -(size > 64n ? size : 64n)) + 8n * (index >> split));
    const word = machine.read(l1);
    if (word === undefined) throw new Stop(9, { fetch: l1 });
    if (!flag(word, 0)) throw new Stop(8);
    const l2 = (get(word, 55, 12) << 12n) & -(64n << split);
    if (!stage2 && l2 >> BigInt(machine.ids.oas) !== 0n) throw new Stop(8);
    at = l2 + 64n * (index & ((1n << split) - 1n));
  }
  const cd = readWords(machine, through(at), 9);
  if (cdBad(machine.ids, ste, cd, worldOf(machine, ste))) throw new Stop(0x0a);
  return cd;
}

function cdBad(ids: SlowIds, ste: bigint[], cd: bigint[], world: SlowWorld): boolean {
  if (!flag(cd[0], 31)) return true;
  if (ids.termModel && !flag(cd[0], 46)) return true;
  const s = flag(cd[0], 44);
  if (s ? flag(ste[1], 27) || ids.stallModel === 1 : ids.stallModel === 2) return true;
  // Plain EL2 has one half, which is always on.
  const epd = world === 'EL2' ? [false, true] : [flag(cd[0], 14), flag(cd[0], 30)];
  if (!(epd[0] && epd[1]) && badEndian(ids, flag(cd[0], 15))) return true;
  if (!flag(cd[0], 41)) return true;
  if ((flag(cd[0], 43) || flag(cd[0], 42)) && ids.httu === 0) return true;
  if (flag(cd[0], 42) && ids.httu === 1) return true;
  if (flag(cd[1], 3) && !flag(cd[0], 43) && ids.httu === 3) return true;
  if (world !== 'EL2' && !ids.asid16 && get(cd[0], 63, 56) !== 0n) return true;
  return [false, true].some((upper) => {
    if (epd[upper ? 1 : 0]) return false;
    const level = s1Level(ids, cd, upper);
    if (level === undefined) return true;
    const txsz = 64 - level.inputBits;
    const least = ids.vax52 && (level.granule === 16 || level.ds) ? 12 : 16;
    const most = ids.stt ? (level.granule === 16 ? 47 : 48) : 39;
    if (txsz < least || txsz > most) return true;
    if (level.base >> BigInt(level.outputBits) !== 0n) return true;
    return level.granule !== 16 && !level.ds && level.base >> 48n !== 0n;
  });
}
