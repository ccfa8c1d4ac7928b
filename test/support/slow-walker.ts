/**
 * A second SMMU translation, slow and as plain as the architecture: bigint, recursion, no caches, nothing shared with the
 * device. Non-secure, SMMUEN=1, untranslated transactions, NS-EL1, VMSAv8-64, no stalls.
 */

export interface SlowIds {
  oas: number;
  httu: number;
  ssidsize: number;
  cd2l: boolean;
  xnx: boolean;
  fwb: boolean;
  stt: boolean;
  e0pd: boolean;
  epan: boolean;
  had: boolean;
  ds: boolean;
  vax52: boolean;
  permsOvr: boolean;
  termModel: boolean;
  /** IDR0.TTENDIAN. */
  ttendian: number;
}

export interface SlowRequest {
  sid: bigint;
  ssv: boolean;
  ssid: bigint;
  address: bigint;
  write: boolean;
  privileged: boolean;
  instruction: boolean;
}

export interface SlowMachine {
  ids: SlowIds;
  strtabBase: bigint;
  log2size: bigint;
  recinvsid: boolean;
  /** 64-bit word, or undefined if nothing answers. */
  read(at: bigint): bigint | undefined;
  write(at: bigint, value: bigint): void;
}

/** `events` are records of four 64-bit words, at most one. */
export interface SlowResult {
  outcome: 'ok' | 'abort' | 'razwi';
  pa: bigint;
  events: bigint[][];
}

const get = (value: bigint, hi: number, lo = hi): bigint =>
  (value >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n);
const flag = (value: bigint, bit: number): boolean => get(value, bit) === 1n;
const SIZES = [32, 36, 40, 42, 44, 48, 52, 52];
const swap = (value: bigint): bigint => {
  let out = 0n;
  for (let i = 0n; i < 8n; i++) out |= ((value >> (8n * i)) & 0xffn) << (56n - 8n * i);
  return out;
};

/** Thrown up to {@link slowTranslate}: what ends the transaction. */
class Stop extends Error {
  type: number;
  s2 = false;
  cls = 2n;
  ipa = 0n;
  fetch = 0n;
  ttWrite = false;
  constructor(type: number, more: Partial<Stop> = {}) {
    super(`event ${type}`);
    this.type = type;
    Object.assign(this, more);
  }
}

interface Level {
  base: bigint;
  granule: number;
  start: number;
  inputBits: number;
  outputBits: number;
  ds: boolean;
}

const T = { ADDR_SIZE: 0x11, ACCESS: 0x12, PERMISSION: 0x13, TRANSLATION: 0x10, EABT: 0x0b };

export function slowTranslate(machine: SlowMachine, request: SlowRequest): SlowResult {
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
    if (index === undefined) {
      if (request.address >> BigInt(ids.oas) !== 0n) throw new Stop(T.ADDR_SIZE, { name: 'always' });
      const pa = stage2 ? slowStage2(machine, ste, request.address, kind, privileged, 2n) : request.address;
      return { outcome: 'ok', pa, events: [] };
    }
    cd = fetchCd(machine, ste, stage2, index);
    const ipa = slowStage1(machine, ste, cd, stage2, request.address, kind, privileged);
    const pa = stage2 ? slowStage2(machine, ste, ipa, kind, privileged, 2n) : ipa;
    return { outcome: 'ok', pa, events: [] };
  } catch (stop) {
    if (!(stop instanceof Stop)) throw stop;
    return end(machine, request, stop, ste, cd, privileged, instruction);
  }
}

function end(
  machine: SlowMachine,
  request: SlowRequest,
  stop: Stop,
  ste: bigint[],
  cd: bigint[],
  privileged: boolean,
  instruction: boolean,
): SlowResult {
  const translation = stop.type >= T.TRANSLATION;
  let recorded = true;
  let outcome: SlowResult['outcome'] = 'abort';
  if (stop.type === 2) recorded = machine.recinvsid;
  if (translation && stop.name !== 'always') {
    recorded = stop.s2 ? flag(ste[2], 58) : flag(cd[0], 45);
    if (!stop.s2 && !flag(cd[0], 46)) outcome = 'razwi';
  }
  if (!recorded) return { outcome, pa: 0n, events: [] };
  let d0 = BigInt(stop.type) | (request.sid << 32n);
  if (request.ssv) d0 |= (request.ssid << 12n) | (stop.type === 8 ? 0n : 1n << 11n);
  let d1 = 0n;
  let d2 = 0n;
  let d3 = 0n;
  if (stop.type >= T.EABT) {
    d1 =
      (privileged ? 1n << 33n : 0n) |
      (instruction ? 1n << 34n : 0n) |
      (request.write ? 0n : 1n << 35n) |
      (stop.s2 ? 1n << 39n : 0n) |
      (stop.cls << 40n);
    d2 = request.address;
    if (stop.s2 && translation) d3 = stop.ipa & 0xff_ffff_ffff_f000n;
    if (stop.type === T.PERMISSION && stop.s2 && stop.cls === 1n && !stop.ttWrite) d1 |= 1n << 44n;
  }
  if (stop.type === 3 || stop.type === 9 || stop.type === T.EABT) d3 = stop.fetch & 0xff_ffff_ffff_fff8n;
  return { outcome, pa: 0n, events: [[d0, d1, d2, d3]] };
}

function fetchSte(machine: SlowMachine, sid: bigint): bigint[] {
  // Linear table only.
  if (sid >> machine.log2size !== 0n) throw new Stop(2);
  const base = machine.strtabBase & -(64n << machine.log2size);
  const ste = readWords(machine, base + 64n * sid, 3);
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

function s2Level(ids: SlowIds, ste: bigint[]): Level | undefined {
  const granule = [12, 16, 14, 0][Number(get(ste[2], 47, 46))];
  if (granule === 0) return undefined;
  const ds = ids.ds && flag(ste[3], 3) && granule !== 16;
  const sl0 = Number(get(ste[2], 39, 38)) + (ds && granule === 12 && flag(ste[3], 2) ? 4 : 0);
  const starts: Record<number, Record<number, number>> = {
    12: { 0: 2, 1: 1, 2: 0, ...(ids.stt ? { 3: 3 } : {}), ...(ds ? { 4: -1 } : {}) },
    14: { 0: 3, 1: 2, 2: 1, ...(ds ? { 3: 0 } : {}) },
    16: { 0: 3, 1: 2, 2: 1 },
  };
  const start = starts[granule][sl0];
  if (start === undefined) return undefined;
  return {
    base: ste[3] & 0xf_ffff_ffff_fff0n,
    granule,
    start,
    inputBits: 64 - Number(get(ste[2], 37, 32)),
    outputBits: Math.min(SIZES[Number(get(ste[2], 50, 48))], ids.oas),
    ds,
  };
}

function steBad(ids: SlowIds, ste: bigint[]): boolean {
  if (!flag(ste[0], 0)) return true;
  const config = get(ste[0], 3, 1);
  if (config < 4n) return false;
  const s1 = flag(ste[0], 1);
  const s2 = flag(ste[0], 2);
  if (s1) {
    if (flag(ste[1], 27)) return true;
    if (ids.ssidsize > 0) {
      const max = get(ste[0], 63, 59);
      const fmt = get(ste[0], 5, 4);
      if (max > BigInt(ids.ssidsize)) return true;
      if (max > 0n && !ids.cd2l && (fmt === 1n || fmt === 2n)) return true;
    }
    if (!s2 && (get(ste[0], 55, 6) << 6n) >> BigInt(ids.oas) !== 0n) return true;
  }
  if (s2) {
    if (flag(ste[2], 57)) return true;
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

function cdIndex(ids: SlowIds, ste: bigint[], request: SlowRequest): bigint | undefined {
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

function fetchCd(machine: SlowMachine, ste: bigint[], stage2: boolean, index: bigint): bigint[] {
  const through = (at: bigint): bigint => (stage2 ? slowStage2(machine, ste, at, 'r', false, 0n) : at);
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
  if (cdBad(machine.ids, cd)) throw new Stop(0x0a);
  return cd;
}

function s1Level(ids: SlowIds, cd: bigint[], upper: boolean): Level | undefined {
  const granule = upper
    ? [0, 14, 12, 16][Number(get(cd[0], 23, 22))]
    : [12, 16, 14, 0][Number(get(cd[0], 7, 6))];
  if (granule === 0) return undefined;
  const inputBits = 64 - Number(upper ? get(cd[0], 21, 16) : get(cd[0], 5, 0));
  let start = 3;
  while (granule + (3 - start + 1) * (granule - 3) < inputBits) start -= 1;
  return {
    base: cd[upper ? 2 : 1] & 0xf_ffff_ffff_fff0n,
    granule,
    start,
    inputBits,
    outputBits: Math.min(SIZES[Number(get(cd[0], 34, 32))], ids.oas),
    ds: ids.ds && flag(cd[2], 58) && granule !== 16,
  };
}

function cdBad(ids: SlowIds, cd: bigint[]): boolean {
  if (!flag(cd[0], 31)) return true;
  if (ids.termModel && !flag(cd[0], 46)) return true;
  if (flag(cd[0], 44)) return true;
  const epd = [flag(cd[0], 14), flag(cd[0], 30)];
  if (!(epd[0] && epd[1]) && badEndian(ids, flag(cd[0], 15))) return true;
  if (!flag(cd[0], 41)) return true;
  if ((flag(cd[0], 43) || flag(cd[0], 42)) && ids.httu === 0) return true;
  if (flag(cd[0], 42) && ids.httu === 1) return true;
  if (flag(cd[1], 3) && !flag(cd[0], 43) && ids.httu === 3) return true;
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

/** Address in a descriptor. */
function outputOf(ids: SlowIds, level: Level, descriptor: bigint): bigint {
  const low = descriptor & 0xffff_ffff_ffffn & -(1n << BigInt(level.granule));
  if (level.granule === 16) return ids.oas >= 52 ? low | (get(descriptor, 15, 12) << 48n) : low;
  if (!level.ds) return low;
  return low | (get(descriptor, 49, 48) << 48n) | (get(descriptor, 9, 8) << 50n);
}

const isLeaf = (ids: SlowIds, level: Level, n: number, descriptor: bigint): boolean | undefined => {
  const type = get(descriptor, 1, 0);
  if (n === 3) return type === 3n ? true : undefined;
  if (type === 3n) return false;
  if (type !== 1n) return undefined;
  const first =
    level.granule === 12
      ? level.ds
        ? 0
        : 1
      : level.granule === 14
        ? level.ds
          ? 1
          : 2
        : ids.oas >= 52
          ? 1
          : 2;
  return n >= first ? true : undefined;
};

/** Walks down; `visit` gives the physical address of a descriptor, `fail` makes the fault. */
function walk(
  machine: SlowMachine,
  level: Level,
  big: boolean,
  input: bigint,
  haft: boolean,
  physical: (at: bigint, write: boolean) => bigint,
  fail: (type: number, fetch?: bigint) => Stop,
): {
  tables: bigint[];
  leaf: bigint;
  at: bigint;
  address: bigint;
  n: number;
  update: (value: bigint) => void;
} {
  const tables: bigint[] = [];
  const stride = level.granule - 3;
  const firstLsb = level.granule + (3 - level.start) * stride;
  const size = 8n << BigInt(level.inputBits - firstLsb);
  const align = level.outputBits >= 52 && size < 64n ? 64n : size;
  const down = (table: bigint, n: number): ReturnType<typeof walk> => {
    const lsb = BigInt(level.granule + (3 - n) * stride);
    const bits = n === level.start ? BigInt(level.inputBits) - lsb : BigInt(stride);
    const at = table + 8n * ((input >> lsb) & ((1n << bits) - 1n));
    const pa = physical(at, false);
    const raw = machine.read(pa);
    if (raw === undefined) throw fail(T.EABT, pa);
    const descriptor = big ? swap(raw) : raw;
    if (!flag(descriptor, 0)) throw fail(T.TRANSLATION);
    const leaf = isLeaf(machine.ids, level, n, descriptor);
    if (leaf === undefined) throw fail(T.TRANSLATION);
    const address = outputOf(machine.ids, level, descriptor);
    if (address >> BigInt(level.outputBits) !== 0n) throw fail(T.ADDR_SIZE);
    const update = (value: bigint): void => {
      if (physical(at, true) !== pa) throw new Error('the tables moved');
      machine.write(pa, big ? swap(value) : value);
    };
    if (leaf) {
      const inside = (1n << lsb) - 1n;
      return { tables, leaf: descriptor, at: pa, address: (address & ~inside) | (input & inside), n, update };
    }
    if (haft && !flag(descriptor, 10)) update(descriptor | (1n << 10n));
    tables.push(descriptor);
    return down(address, n + 1);
  };
  return down(level.base & -align, level.start);
}

function slowStage2(
  machine: SlowMachine,
  ste: bigint[],
  ipa: bigint,
  kind: 'r' | 'w' | 'x',
  privileged: boolean,
  cls: bigint,
): bigint {
  const { ids } = machine;
  const level = s2Level(ids, ste)!;
  const fail = (type: number, fetch = 0n): Stop =>
    new Stop(type, { s2: true, cls, ipa, fetch, ttWrite: cls === 1n && kind === 'w' });
  if (ipa >> BigInt(level.inputBits) !== 0n) throw fail(T.TRANSLATION);
  const ha = flag(ste[2], 56);
  const hd = ha && flag(ste[2], 55);
  const haft = ha && ids.httu === 3 && flag(ste[2], 59);
  const { leaf, address, update } = walk(machine, level, flag(ste[2], 52), ipa, haft, (at) => at, fail);
  if (!flag(leaf, 10) && !ha && !flag(ste[2], 53)) throw fail(T.ACCESS);
  const clean = hd && flag(leaf, 51) && !flag(leaf, 7);
  const xn = get(leaf, 54, 53);
  const mayExecute = ids.xnx ? (privileged ? xn === 0n || xn === 3n : xn === 0n || xn === 1n) : xn < 2n;
  const allowed = kind === 'r' ? flag(leaf, 6) : kind === 'w' ? flag(leaf, 7) || clean : mayExecute;
  if (!allowed) throw fail(T.PERMISSION);
  const device = ids.fwb && flag(ste[1], 25) ? !flag(leaf, 4) : get(leaf, 5, 4) === 0n;
  if (cls !== 2n && device && get(ste[0], 3, 1) === 7n && flag(ste[2], 54)) throw fail(T.PERMISSION);
  let updated = leaf;
  if (ha) updated |= 1n << 10n;
  if (clean && kind === 'w') updated |= 1n << 7n;
  if (updated !== leaf) update(updated);
  return address;
}

function slowStage1(
  machine: SlowMachine,
  ste: bigint[],
  cd: bigint[],
  stage2: boolean,
  address: bigint,
  kind: 'r' | 'w' | 'x',
  privileged: boolean,
): bigint {
  const { ids } = machine;
  const upper = flag(address, 55);
  const fail = (type: number, fetch = 0n): Stop => new Stop(type, { fetch, cls: type === T.EABT ? 1n : 2n });
  if (flag(cd[0], upper ? 30 : 14)) throw fail(T.TRANSLATION);
  const level = s1Level(ids, cd, upper)!;
  const top = flag(cd[0], upper ? 39 : 38) ? 55 : 63;
  const above = get(address, top, level.inputBits);
  const ones = (1n << BigInt(top - level.inputBits + 1)) - 1n;
  if (above !== (upper ? ones : 0n)) throw fail(T.TRANSLATION);
  if (ids.e0pd && !privileged && flag(cd[upper ? 2 : 1], 2)) throw fail(T.TRANSLATION);
  const ha = flag(cd[0], 43);
  const hd = ha && flag(cd[0], 42);
  const haft = ha && ids.httu === 3 && flag(cd[1], 3);
  const physical = (at: bigint, write: boolean): bigint =>
    stage2 ? slowStage2(machine, ste, at, write ? 'w' : 'r', false, 1n) : at;
  const found = walk(machine, level, flag(cd[0], 15), address, haft, physical, fail);
  const { leaf, update } = found;
  if (!flag(leaf, 10) && !ha && !flag(cd[0], 35)) throw fail(T.ACCESS);
  const had = ids.had && flag(cd[upper ? 2 : 1], 1);
  const above62 = (bit: number): boolean => !had && found.tables.some((table) => flag(table, bit));
  const clean = hd && flag(leaf, 51) && flag(leaf, 7);
  const writable = (!flag(leaf, 7) || clean) && !above62(62);
  const user = flag(leaf, 6) && !above62(61);
  const userWritable = user && writable;
  const pxn = flag(leaf, 53) || above62(59) || userWritable;
  const uxn = flag(leaf, 54) || above62(60);
  const wxn = flag(cd[0], 36);
  const pan = flag(cd[0], 40) && (user || (ids.epan && flag(cd[1], 59) && !uxn));
  let allowed: boolean;
  if (kind === 'x') allowed = privileged ? !pxn && !(wxn && writable) : !uxn && !(wxn && userWritable);
  else if (privileged) allowed = !pan && (kind === 'r' || writable);
  else allowed = kind === 'r' ? user : userWritable;
  if (!allowed) throw fail(T.PERMISSION);
  let updated = leaf;
  if (ha) updated |= 1n << 10n;
  if (clean && kind === 'w') updated &= ~(1n << 7n);
  if (updated !== leaf) update(updated);
  return found.address;
}
