/** The steps of a walk in sentences. */

import { hex32, hex64, join } from '../../bits/u64.ts';
import { effectiveSplit, strtabAlignment } from '../../smmu/stream-table.ts';
import { descriptorAddressHi, type TableGeometry } from '../../smmu/table-geometry.ts';
import { PERM } from '../../smmu/permissions.ts';
import { WORLD } from '../../smmu/stage-one.ts';
import { CD } from '../../spec/cd.ts';
import { LAST_LEVEL, S1_LEAF, S1_TABLE, S2_LEAF } from '../../spec/descriptors.ts';
import { EVENT_CLASS } from '../../spec/events.ts';
import { GBPA, OFFSET, STRTAB_BASE, STRTAB_BASE_CFG, STRTAB_FMT } from '../../spec/registers.ts';
import { STE, STE_INSTCFG, STE_PRIVCFG } from '../../spec/ste.ts';
import { L1CD, L1STD } from '../../spec/stream-table.ts';
import { explainCd } from '../cd.ts';
import { decode, type DecodedField } from '../decode.ts';
import { count, sizeOf } from '../explanation.ts';
import { explainSte } from '../ste.ts';
import { bothTypes, describeType, type MemoryType, stage1Type, stage2Type } from './memory-type.ts';
import type { SeenWalk } from './seen-walk.ts';
import type { WalkStep } from './walk.ts';
import type { DescriptorStep, LeafStep, PermissionsStep, StageStep, StructureStep } from './walk-record.ts';

const set = (fields: readonly DecodedField[]): readonly DecodedField[] => fields.filter((field) => field.set);

/** 64-bit words, lowest first. */
function dwords(words: Uint32Array): string[] {
  const found: string[] = [];
  for (let i = 0; i < words.length; i += 2) found.push(hex64(words[i + 1], words[i], 16));
  return found;
}

/** What a descriptor is for the walk. */
export type DescriptorKind = 'table' | 'page' | 'block' | 'invalid' | 'reserved';

export function kindOf({ level, lo }: DescriptorStep, geometry: TableGeometry): DescriptorKind {
  if ((lo & 1) === 0) return 'invalid';
  if (level === LAST_LEVEL) return (lo & 2) === 0 ? 'reserved' : 'page';
  if ((lo & 2) !== 0) return 'table';
  return level < geometry.firstBlockLevel ? 'reserved' : 'block';
}

/** log2 of the bytes that a leaf of a level maps. */
const log2At = (geometry: TableGeometry, level: number): number =>
  geometry.log2Granule + (LAST_LEVEL - level) * geometry.stride;

/** Address in a table or leaf descriptor. */
export function outputOf({ hi, lo, level }: DescriptorStep, geometry: TableGeometry, leaf: boolean): string {
  const log2 = leaf ? log2At(geometry, level) : geometry.log2Granule;
  const addressHi = descriptorAddressHi(geometry.highBits, hi, lo);
  if (log2 >= 32) return hex64(addressHi & -(2 ** (log2 - 32)), 0);
  return hex64(addressHi, (lo & -(1 << log2)) >>> 0);
}

/** 'unprivileged rw-, privileged r--'. */
export function allowed(permissions: number): string {
  const letters = (r: number, w: number, x: number): string =>
    `${(permissions & r) === 0 ? '-' : 'r'}${(permissions & w) === 0 ? '-' : 'w'}${(permissions & x) === 0 ? '-' : 'x'}`;
  return `unprivileged ${letters(PERM.UR, PERM.UW, PERM.UX)}, privileged ${letters(PERM.PR, PERM.PW, PERM.PX)}`;
}

const NEEDS: readonly (readonly [bit: number, name: string])[] = [
  [PERM.UR, 'unprivileged read'],
  [PERM.UW, 'unprivileged write'],
  [PERM.UX, 'unprivileged execution'],
  [PERM.PR, 'privileged read'],
  [PERM.PW, 'privileged write'],
  [PERM.PX, 'privileged execution'],
];
/** 'unprivileged read or unprivileged write'. */
export const needed = (need: number): string =>
  NEEDS.filter(([bit]) => (need & bit) !== 0)
    .map(([, name]) => name)
    .join(' or ');

/** Where the stream table is, or why it is not looked at. */
function registersStep(walk: SeenWalk): WalkStep {
  const { registers } = walk.device;
  if (!walk.smmuEnabled) {
    const abort = GBPA.ABORT.of(walk.register('GBPA')) === 1;
    return {
      kind: 'register',
      depth: 0,
      name: 'CR0, GBPA',
      text: `The SMMU is off (CR0.SMMUEN=0): all traffic ${abort ? 'is aborted (GBPA.ABORT=1)' : 'passes untranslated (GBPA.ABORT=0)'}.`,
      fields: set(decode(GBPA, Uint32Array.of(walk.register('GBPA')))),
    };
  }
  const base = OFFSET.STRTAB_BASE >>> 2;
  const cfg = walk.register('STRTAB_BASE_CFG');
  const log2 = STRTAB_BASE_CFG.LOG2SIZE.of(cfg);
  const twoLevel = walk.features.twoLevelStreamTable && STRTAB_BASE_CFG.FMT.of(cfg) === STRTAB_FMT.TwoLevel;
  const SPLIT = effectiveSplit(STRTAB_BASE_CFG.SPLIT.of(cfg));
  const written = join(STRTAB_BASE.ADDR.getHi(registers, base), STRTAB_BASE.ADDR.getLo(registers, base));
  const lowest = BigInt(strtabAlignment(log2, SPLIT, twoLevel));
  const aligned = (written >> lowest) << lowest;
  const at =
    `0x${aligned.toString(16)}` +
    (aligned === written
      ? ''
      : ` (0x${written.toString(16)} is not aligned to its size: the bits below do not count)`);
  const shape = twoLevel
    ? `has two levels, with up to ${count(2 ** SPLIT, 'STE')} below each L1STD,`
    : 'is one array';
  return {
    kind: 'register',
    depth: 0,
    name: 'STRTAB_BASE, STRTAB_BASE_CFG',
    text: `The SMMU is on (CR0.SMMUEN=1). The stream table ${shape} for 2^${log2} StreamIDs at ${at}.`,
    fields: set(decode(STRTAB_BASE_CFG, Uint32Array.of(cfg))),
  };
}

const LAYOUTS = { L1STD, STE, L1CD, CD } as const;

/** What PRIVCFG and INSTCFG make of the access. */
function overrides(walk: SeenWalk): string {
  const { PRIVCFG, INSTCFG } = walk.context;
  const found: string[] = [];
  if (PRIVCFG >= STE_PRIVCFG.Unprivileged)
    found.push(
      `Accesses count as ${PRIVCFG === STE_PRIVCFG.Privileged ? '' : 'un'}privileged (PRIVCFG=${PRIVCFG}).`,
    );
  if (INSTCFG >= STE_INSTCFG.Data)
    found.push(
      `Reads count as ${INSTCFG === STE_INSTCFG.Instruction ? 'instruction fetches' : 'data'} (INSTCFG=${INSTCFG}).`,
    );
  return found.join(' ');
}

/** Turns what was seen into steps, in order. */
class Narrator {
  readonly steps: WalkStep[] = [];
  readonly #walk: SeenWalk;
  #depth: 0 | 1 = 0;
  #type: MemoryType | undefined;
  #permissions: number | undefined;

  constructor(walk: SeenWalk) {
    this.#walk = walk;
    this.steps.push(registersStep(walk));
    for (const step of walk.record.steps) {
      if (step.kind === 'structure') this.#structure(step);
      else if (step.kind === 'stage') this.#stage(step);
      else if (step.kind === 'descriptor') this.#descriptor(step);
      else if (step.kind === 'permissions') this.#permissionsStep(step);
      else this.#leaf(step);
    }
  }

  #structure({ name, hi, lo, ipa, words }: StructureStep): void {
    const walk = this.#walk;
    const { sid, ssid } = walk.transaction;
    const said: Record<StructureStep['name'], () => string> = {
      L1STD: () =>
        L1STD.Span.get(words) === 0
          ? 'Span=0: nothing is below.'
          : `Span=${L1STD.Span.get(words)}: the STEs are at ${hex64(L1STD.L2Ptr.getHi(words), L1STD.L2Ptr.getLo(words))}.`,
      STE: () => {
        const { summary, details } = explainSte(words);
        return [summary, ...details, overrides(walk)].filter((text) => text !== '').join(' ');
      },
      L1CD: () =>
        L1CD.V.get(words) === 0
          ? 'V=0: nothing is below.'
          : `V=1: the CDs are at ${hex64(L1CD.L2Ptr.getHi(words), L1CD.L2Ptr.getLo(words))}.`,
      CD: () => {
        const { summary, details } = explainCd(words);
        return [summary, ...details].join(' ');
      },
    };
    const intermediate = ipa === undefined ? '' : ` Its IPA is ${hex64(ipa.hi, ipa.lo)}.`;
    const what =
      name === 'STE'
        ? `STE of StreamID ${hex32(sid)}`
        : name === 'CD'
          ? `CD of ${walk.transaction.ssv ? `SubstreamID ${hex32(ssid)}` : 'the stream'}`
          : name;
    this.steps.push({
      kind: 'structure',
      depth: 0,
      name: what,
      address: hex64(hi, lo),
      words: dwords(words),
      text: said[name]() + intermediate,
      fields: set(decode(LAYOUTS[name], words)),
    });
  }

  #geometry(stage: 1 | 2, inputHi: number): TableGeometry {
    return stage === 2 ? this.#walk.context.s2.table : this.#walk.half(inputHi).table;
  }

  /** The stage 1 input address decides the half; stage 2 steps do not change it. */
  #input = 0;

  #stage({ stage, hi, lo, cls }: StageStep): void {
    this.#depth = stage === 2 && cls !== EVENT_CLASS.IN ? 1 : 0;
    if (stage === 1) this.#input = hi;
    const walk = this.#walk;
    const geometry = this.#geometry(stage, hi);
    const table =
      `${geometry.inputBits} bits, pages of ${sizeOf(geometry.log2Granule)}, ` +
      `level ${geometry.startLevel} first, at ${hex64(geometry.ttbHi, geometry.ttbLo)}.`;
    const n = walk.isUpper(hi) ? 1 : 0;
    const half = walk.half(hi);
    const text =
      stage === 2
        ? cls === EVENT_CLASS.IN
          ? `${walk.nested ? 'The IPA ' : ''}${hex64(hi, lo)} goes through S2TTB: ${table}`
          : `To find the ${cls === EVENT_CLASS.CD ? 'CD' : 'stage 1 descriptor'} at IPA ${hex64(hi, lo)}, stage 2:`
        : walk.context.s1.world === WORLD.EL2 && n === 1
          ? `${hex64(hi, lo)} has bit 55 set, and EL2 has no TTB1 (STE.STRW=2).`
          : half.EPD
            ? `${hex64(hi, lo)} belongs to TTB${n}, which is off (EPD${n}=1).`
            : `${hex64(hi, lo)} goes through TTB${n}${half.TBI ? `, its top byte ignored (TBI${n}=1)` : ''}: ${table}`;
    this.steps.push({ kind: 'stage', depth: this.#depth, stage, name: `stage ${stage}`, text, fields: [] });
  }

  #descriptor(step: DescriptorStep): void {
    const { stage, level, atHi, atLo, hi, lo } = step;
    const geometry = this.#geometry(stage, this.#input);
    const words = Uint32Array.of(lo, hi);
    const kind = kindOf(step, geometry);
    const leaf = kind === 'page' || kind === 'block';
    const layout = leaf ? (stage === 1 ? S1_LEAF : S2_LEAF) : stage === 1 && kind === 'table' ? S1_TABLE : {};
    const text: Record<DescriptorKind, () => string> = {
      table: () =>
        `A table at ${outputOf(step, geometry, false)}.${stage === 1 ? this.#restrictions(step) : ''}`,
      page: () =>
        `A page of ${sizeOf(log2At(geometry, level))} at ${outputOf(step, geometry, true)}, ${this.#typeOf(step)}.`,
      block: () =>
        `A block of ${sizeOf(log2At(geometry, level))} at ${outputOf(step, geometry, true)}, ${this.#typeOf(step)}.`,
      invalid: () => 'Nothing is mapped here (bit 0 is 0).',
      reserved: () =>
        level === LAST_LEVEL
          ? 'A reserved kind: at the last level bit 1 of a page is 1.'
          : 'A reserved kind: there are no blocks at this level.',
    };
    this.steps.push({
      kind: 'descriptor',
      depth: this.#depth,
      stage,
      name: `level ${level}`,
      address: hex64(atHi, atLo),
      words: dwords(words),
      text: text[kind]() + (leaf ? this.#accessFlag(step) : ''),
      fields: set(decode(layout, words)),
    });
  }

  /** Why a leaf without AF is good all the same. */
  #accessFlag({ stage, lo }: DescriptorStep): string {
    if ((lo & S1_LEAF.AF.inPlace) !== 0) return '';
    const { HA, AFFD } = stage === 1 ? this.#walk.context.s1 : this.#walk.context.s2;
    if (HA) return ' AF is 0: the SMMU would set it (HA=1).';
    return AFFD ? ' AF is 0, which does not count (AFFD=1).' : '';
  }

  /** What a stage 1 table takes from all that lies below. */
  #restrictions({ hi }: DescriptorStep): string {
    const words = Uint32Array.of(0, hi);
    const found: string[] = [];
    const APTable = S1_TABLE.APTable.get(words);
    if ((APTable & 1) !== 0) found.push('unprivileged access (APTable[0]=1)');
    if ((APTable & 2) !== 0) found.push('writes (APTable[1]=1)');
    if (S1_TABLE.UXNTable.get(words) === 1) found.push('unprivileged execution (UXNTable=1)');
    if (S1_TABLE.PXNTable.get(words) === 1) found.push('privileged execution (PXNTable=1)');
    if (found.length === 0) return '';
    if (this.#walk.half(this.#input).HAD)
      return ' Its APTable, UXNTable and PXNTable do not count (HAD=1 in the CD).';
    return ` It takes ${found.join(', ')} from all below.`;
  }

  #typeOf({ stage, hi, lo }: DescriptorStep): string {
    const words = Uint32Array.of(lo, hi);
    const { s2 } = this.#walk.context;
    if (stage === 1) {
      const cd = this.#walk.cd!;
      const index = S1_LEAF.AttrIndx.get(words);
      const mair = ((index < 4 ? CD.MAIR0 : CD.MAIR1).get(cd) >>> (8 * (index & 3))) & 0xff;
      this.#type = stage1Type(mair);
      return `${describeType(this.#type)} (MAIR attribute ${index}, ${hex32(mair, 2)})`;
    }
    const MemAttr = S2_LEAF.MemAttr.get(words);
    const type = stage2Type(MemAttr, s2.FWB);
    const own = `${describeType(type)} (MemAttr=${hex32(MemAttr)}${s2.FWB ? ', S2FWB=1' : ''})`;
    if (this.#depth === 1 || this.#type === undefined) return own;
    return `${own}; with stage 1 ${describeType(bothTypes(this.#type, type, s2.FWB))}`;
  }

  #permissionsStep({ stage, permissions, need }: PermissionsStep): void {
    this.steps.push({
      kind: 'permissions',
      depth: this.#depth,
      stage,
      name: 'permissions',
      text: `It allows ${allowed(permissions)}; the access needs ${needed(need)}${(permissions & need) === 0 ? ', which is refused' : ''}.`,
      fields: [],
    });
  }

  #leaf({ stage, hi, lo, permissions }: LeafStep): void {
    const walk = this.#walk;
    const address = hex64(hi, lo);
    const final = stage === 2 ? this.#depth === 0 : !walk.nested;
    let text = stage === 1 ? `${walk.nested ? 'IPA' : 'PA'} ${address}.` : `PA ${address}.`;
    if (stage === 1) this.#permissions = permissions;
    else if (final && this.#permissions !== undefined)
      text += ` Both stages together allow ${allowed(permissions & this.#permissions)}.`;
    this.steps.push({
      kind: 'output',
      depth: this.#depth,
      stage,
      name: `output of stage ${stage}`,
      text,
      fields: [],
    });
    this.#depth = 0;
  }
}

/** @returns the steps of a walk, the first of them what the registers say. */
export const walkSteps = (walk: SeenWalk): readonly WalkStep[] => new Narrator(walk).steps;
