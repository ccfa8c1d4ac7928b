/** Translation tables of the slow walker. */

import { T, Stop, flag, get, type SlowIds, type SlowMachine } from './slow-machine.ts';
import { s1Level, s2Level, worldOf, type Level } from './slow-levels.ts';

const swap = (value: bigint): bigint => {
  let out = 0n;
  for (let i = 0n; i < 8n; i++) out |= ((value >> (8n * i)) & 0xffn) << (56n - 8n * i);
  return out;
};

/** What one privilege level may do. */
export interface Rights {
  r: boolean;
  w: boolean;
  x: boolean;
}
export type Access = 'r' | 'w' | 'x';

/** What a stage is asked for: one kind of access, or for ATS what is to be granted if it can be. */
export interface Wanted {
  /** Any of these is enough. */
  any: readonly Access[];
  privileged: boolean;
}

export interface Translated {
  address: bigint;
  /** As the page is now: a clean one may not be written. */
  rights: Rights;
  log2Size: number;
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
  log2Size: number;
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
      return {
        tables,
        leaf: descriptor,
        at: pa,
        address: (address & ~inside) | (input & inside),
        log2Size: Number(lsb),
        update,
      };
    }
    if (haft && !flag(descriptor, 10)) update(descriptor | (1n << 10n));
    tables.push(descriptor);
    return down(address, n + 1);
  };
  return down(level.base & -align, level.start);
}

/** Asks for one access at one privilege level. */
export const slowStage2 = (
  machine: SlowMachine,
  ste: bigint[],
  ipa: bigint,
  kind: Access,
  privileged: boolean,
  cls: bigint,
): Translated => stage2For(machine, ste, ipa, { any: [kind], privileged }, cls);

/** Stage 2 of an IPA, for the sake of a CD (0), a stage 1 descriptor (1) or the transaction itself (2). */
export function stage2For(
  machine: SlowMachine,
  ste: bigint[],
  ipa: bigint,
  { any, privileged }: Wanted,
  cls: bigint,
): Translated {
  const { ids } = machine;
  const level = s2Level(ids, ste)!;
  const write = any.includes('w');
  const fail = (type: number, fetch = 0n): Stop =>
    new Stop(type, { s2: true, cls, ipa, fetch, ttWrite: cls === 1n && write });
  if (ipa >> BigInt(level.inputBits) !== 0n) throw fail(T.TRANSLATION);
  const ha = flag(ste[2], 56);
  const hd = ha && flag(ste[2], 55);
  const haft = ha && ids.httu === 3 && flag(ste[2], 59);
  const { leaf, address, log2Size, update } = walk(
    machine,
    level,
    flag(ste[2], 52),
    ipa,
    haft,
    (at) => at,
    fail,
  );
  if (!flag(leaf, 10) && !ha && !flag(ste[2], 53)) throw fail(T.ACCESS);
  const clean = hd && flag(leaf, 51) && !flag(leaf, 7);
  const xn = get(leaf, 54, 53);
  const mayExecute = ids.xnx ? (privileged ? xn === 0n || xn === 3n : xn === 0n || xn === 1n) : xn < 2n;
  const rights: Rights = { r: flag(leaf, 6), w: flag(leaf, 7) || clean, x: mayExecute };
  if (!any.some((access) => rights[access])) throw fail(T.PERMISSION);
  const device = ids.fwb && flag(ste[1], 25) ? !flag(leaf, 4) : get(leaf, 5, 4) === 0n;
  if (cls !== 2n && device && get(ste[0], 3, 1) === 7n && flag(ste[2], 54)) throw fail(T.PERMISSION);
  let updated = leaf;
  if (ha) updated |= 1n << 10n;
  if (clean && write) updated |= 1n << 7n;
  if (updated !== leaf) update(updated);
  return { address, rights: { ...rights, w: rights.w && (!clean || write) }, log2Size };
}

/** Stage 1 of an address. */
export function stage1For(
  machine: SlowMachine,
  ste: bigint[],
  cd: bigint[],
  stage2: boolean,
  address: bigint,
  { any, privileged }: Wanted,
): Translated {
  const { ids } = machine;
  const world = worldOf(machine, ste);
  const upper = flag(address, 55);
  const fail = (type: number, fetch = 0n): Stop => new Stop(type, { fetch, cls: type === T.EABT ? 1n : 2n });
  if (world === 'EL2' ? upper : flag(cd[0], upper ? 30 : 14)) throw fail(T.TRANSLATION);
  const level = s1Level(ids, cd, upper)!;
  const top = flag(cd[0], upper ? 39 : 38) ? 55 : 63;
  const above = get(address, top, level.inputBits);
  const ones = (1n << BigInt(top - level.inputBits + 1)) - 1n;
  if (above !== (upper ? ones : 0n)) throw fail(T.TRANSLATION);
  if (ids.e0pd && world !== 'EL2' && !privileged && flag(cd[upper ? 2 : 1], 2)) throw fail(T.TRANSLATION);
  const ha = flag(cd[0], 43);
  const hd = ha && flag(cd[0], 42);
  const haft = ha && ids.httu === 3 && flag(cd[1], 3);
  const physical = (at: bigint, write: boolean): bigint =>
    stage2 ? slowStage2(machine, ste, at, write ? 'w' : 'r', false, 1n).address : at;
  const found = walk(machine, level, flag(cd[0], 15), address, haft, physical, fail);
  const { leaf, update } = found;
  if (!flag(leaf, 10) && !ha && !flag(cd[0], 35)) throw fail(T.ACCESS);
  const had = ids.had && flag(cd[upper ? 2 : 1], 1);
  const above62 = (bit: number): boolean => !had && found.tables.some((table) => flag(table, bit));
  const clean = hd && flag(leaf, 51) && flag(leaf, 7);
  const writable = (!flag(leaf, 7) || clean) && !above62(62);
  const uxn = flag(leaf, 54) || above62(60);
  const wxn = flag(cd[0], 36);
  let rights: Rights;
  if (world === 'EL2') rights = { r: true, w: writable, x: !uxn && !(wxn && writable) };
  else {
    const user = flag(leaf, 6) && !above62(61);
    const userWritable = user && writable;
    const pxn = flag(leaf, 53) || above62(59) || userWritable;
    const pan = flag(cd[0], 40) && (user || (ids.epan && flag(cd[1], 59) && !uxn));
    rights = privileged
      ? { r: !pan, w: !pan && writable, x: !pxn && !(wxn && writable) }
      : { r: user, w: userWritable, x: !uxn && !(wxn && userWritable) };
  }
  if (!any.some((access) => rights[access])) throw fail(T.PERMISSION);
  const dirty = clean && rights.w && any.includes('w');
  let updated = leaf;
  if (ha) updated |= 1n << 10n;
  if (dirty) updated &= ~(1n << 7n);
  if (updated !== leaf) update(updated);
  return {
    address: found.address,
    rights: { ...rights, w: rights.w && (!clean || dirty) },
    log2Size: found.log2Size,
  };
}
