/** Causes in translation tables: which bit of which descriptor, or which field of the STE or CD in front of them. */

import { hex64 } from '../../bits/u64.ts';
import { WORLD } from '../../smmu/stage-one.ts';
import { outsideHalf } from '../../smmu/walk-stage1.ts';
import { CD } from '../../spec/cd.ts';
import { EVENT_TYPE } from '../../spec/events.ts';
import { STE } from '../../spec/ste.ts';
import { beyondOutput, inDescriptor, inStructure, noMemory, ofDescriptor } from './cause.ts';
import { deniedByStage1, deniedByStage2, type Denial } from './denied-permission.ts';
import type { SeenWalk } from './seen-walk.ts';
import type { WalkCause } from './walk.ts';
import type { DescriptorStep, PermissionsStep, SeenFault, StageStep } from './walk-record.ts';
import { kindOf, needed, outputOf } from './walk-steps.ts';

/** What stopped the walk of either stage; undefined if its event is not one of a walk. */
export function translationCause(walk: SeenWalk, fault: SeenFault): WalkCause | undefined {
  switch (fault.type) {
    case EVENT_TYPE.F_WALK_EABT:
      return walkAbort(walk, fault);
    case EVENT_TYPE.F_TRANSLATION:
      return notMapped(walk, fault);
    case EVENT_TYPE.F_ADDR_SIZE:
      return tooLarge(walk, fault);
    case EVENT_TYPE.F_ACCESS:
      return notAccessed(walk);
    case EVENT_TYPE.F_PERMISSION:
      return refused(walk);
    default:
      return undefined;
  }
}

/** The stage that was at work when it stopped, and what it read since it began: not what the other read for it. */
function lastStage(
  walk: SeenWalk,
  s2: boolean,
): { readonly stage: StageStep; readonly last: DescriptorStep | undefined } | undefined {
  const { steps } = walk.record;
  const which = s2 ? 2 : 1;
  const at = steps.findLastIndex((step) => step.kind === 'stage' && step.stage === which);
  if (at < 0) return undefined;
  const last = steps
    .slice(at)
    .findLast((step): step is DescriptorStep => step.kind === 'descriptor' && step.stage === which);
  return { stage: steps[at] as StageStep, last };
}

const lastDescriptor = (walk: SeenWalk): DescriptorStep | undefined =>
  lastStage(walk, walk.record.fault?.s2 ?? false)?.last;

/** Where the tables of a stage begin. */
function tableBase(walk: SeenWalk, { stage, hi }: StageStep, text: string): WalkCause {
  if (stage === 2) return inStructure(walk.record.wordsOf('STE')!, 'S2TTB', STE.S2TTB, text);
  const field = walk.isUpper(hi) ? 'TTB1' : 'TTB0';
  return inStructure(walk.record.wordsOf('CD')!, field, CD[field], text);
}

function walkAbort(walk: SeenWalk, fault: SeenFault): WalkCause {
  const { stage, last } = lastStage(walk, fault.s2)!;
  if (last === undefined) return tableBase(walk, stage, `${noMemory(fault)}, where the tables should begin`);
  return inDescriptor(
    last,
    'Address',
    '[47:12]',
    `${noMemory(fault)}, where this descriptor says that the next table is`,
  );
}

function notMapped(walk: SeenWalk, fault: SeenFault): WalkCause {
  const { stage, last } = lastStage(walk, fault.s2)!;
  if (last !== undefined) {
    const geometry = fault.s2 ? walk.context.s2.table : walk.half(stage.hi).table;
    if (kindOf(last, geometry) === 'invalid')
      return inDescriptor(last, 'Valid', '[0]', 'bit 0 is 0: nothing is mapped there');
    return last.level === 3
      ? inDescriptor(last, 'Table', '[1]', 'bit 1 is 0, which is reserved at the last level')
      : inDescriptor(last, 'Table', '[1]', 'bit 1 is 0: a block, and there are none at this level');
  }
  const address = hex64(stage.hi, stage.lo);
  if (fault.s2) {
    const S2T0SZ = STE.S2T0SZ.get(walk.ste!);
    return inStructure(
      walk.record.wordsOf('STE')!,
      'S2T0SZ',
      STE.S2T0SZ,
      `S2T0SZ=${S2T0SZ}: ${address} has more than the ${64 - S2T0SZ} bits that stage 2 translates`,
    );
  }
  const cd = walk.record.wordsOf('CD')!;
  const upper = walk.isUpper(stage.hi);
  const half = walk.half(stage.hi);
  const n = upper ? 1 : 0;
  if (upper && walk.context.s1.world === WORLD.EL2)
    return inStructure(
      walk.record.wordsOf('STE')!,
      'STRW',
      STE.STRW,
      `STRW=2: ${address} has bit 55 set, and EL2 has no TTB1`,
    );
  if (half.EPD) {
    const field = `EPD${n}` as const;
    return inStructure(cd, field, CD[field], `${field}=1: ${address} belongs to TTB${n}, which is off`);
  }
  const TxSZ = `T${n}SZ` as const;
  if (outsideHalf(stage.hi, stage.lo, half.table.inputBits, upper))
    return inStructure(
      cd,
      TxSZ,
      CD[TxSZ],
      `${TxSZ}=${CD[TxSZ].get(cd.words)}: ${address} is outside the ${half.table.inputBits} bits that TTB${n} translates`,
    );
  const E0PD = `E0PD${n}` as const;
  return inStructure(cd, E0PD, CD[E0PD], `${E0PD}=1 keeps unprivileged accesses out of TTB${n}`);
}

function tooLarge(walk: SeenWalk, fault: SeenFault): WalkCause {
  const found = lastStage(walk, fault.s2);
  if (found?.last === undefined) return beyondOutput(walk);
  const { stage, last } = found;
  const geometry = fault.s2 ? walk.context.s2.table : walk.half(stage.hi).table;
  const limit = fault.s2 ? 'STE.S2PS' : 'CD.IPS';
  const leaf = kindOf(last, geometry) !== 'table';
  return inDescriptor(
    last,
    'Address',
    '[47:12]',
    `its address ${outputOf(last, geometry, leaf)} has more than the ${geometry.outputBits} bits that ${limit} and IDR5.OAS allow`,
  );
}

function notAccessed(walk: SeenWalk): WalkCause {
  const leaf = lastDescriptor(walk)!;
  const fields = leaf.stage === 1 ? 'CD.HA and CD.AFFD' : 'STE.S2HA and STE.S2AFFD';
  return inDescriptor(leaf, 'AF', '[10]', `AF=0: the page was not accessed yet, and ${fields} are both 0`);
}

function refused(walk: SeenWalk): WalkCause {
  const { steps } = walk.record;
  const leaf = lastDescriptor(walk)!;
  const { need, permissions } = steps.findLast(
    (step): step is PermissionsStep => step.kind === 'permissions',
  )!;
  const { s1, s2 } = walk.context;
  if (leaf.stage === 2 && (permissions & need) !== 0)
    return inDescriptor(
      leaf,
      'MemAttr',
      '[5:2]',
      'MemAttr makes it device memory, in which neither CDs nor stage 1 tables may lie (STE.S2PTW=1)',
    );
  const denials =
    leaf.stage === 1
      ? deniedByStage1(s1, leaf.hi, leaf.lo, leaf.hierarchy, need)
      : deniedByStage2(s2, leaf.hi, leaf.lo, need, walk.features.XNX);
  if (denials.length === 0)
    return inDescriptor(leaf, 'permissions', '[63:0]', `nothing here allows ${needed(need)}`);
  const [first, ...others] = denials;
  const also = others.map(({ text }) => text);
  if (first.inCd) {
    const field = first.field.slice('CD.'.length) as 'WXN' | 'PAN' | 'EPAN';
    return { ...inStructure(walk.record.wordsOf('CD')!, field, CD[field], first.text), also };
  }
  const bits = `[${first.bit}]`;
  const [holder, ...alike] = first.hierarchy === 0 ? [leaf] : tablesWith(walk, first);
  also.unshift(...alike.map((table) => `so does ${ofDescriptor(table)} at ${hex64(table.atHi, table.atLo)}`));
  return inDescriptor(holder, first.field, bits, first.text, also);
}

/** The table descriptors above the leaf that have the bit of a denial; there is one at least. */
const tablesWith = (walk: SeenWalk, { bit = 0 }: Denial): readonly DescriptorStep[] =>
  walk.record.steps.filter(
    (step): step is DescriptorStep =>
      step.kind === 'descriptor' &&
      step.stage === 1 &&
      step.level < 3 &&
      (step.lo & 2) !== 0 &&
      ((step.hi >>> (bit - 32)) & 1) === 1,
  );
