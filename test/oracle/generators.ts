import { Random } from '../support/random.ts';
import { CaseBuilder, isNowhere } from './generate/case-builder.ts';
import { changesCase, mixCase } from './generate/changes.ts';
import { cmdqCase, evtqCase } from './generate/queues.ts';
import { cr0Case, gbpaCase, gerrorCase } from './generate/registers.ts';
import { cdCase, steCase, strtabCase } from './generate/structures.ts';
import { walkCase } from './generate/walks.ts';
import { CaseState } from './case-state.ts';
import type { Quirk } from './departures.ts';
import type { OracleCase } from './oracle-case.ts';
import { destinationOf } from './walker.ts';

/** Fills a builder with one case and says what is special about it. */
type Template = (builder: CaseBuilder) => string;

/** By category: templates, one of which is taken. */
export const TEMPLATES: Readonly<Record<string, Readonly<Record<string, Template>>>> = {
  gbpa: { gbpa: gbpaCase },
  cr0: { cr0: cr0Case },
  cmdq: { commands: cmdqCase },
  evtq: { events: evtqCase },
  gerror: { errors: gerrorCase },
  tlb: { changes: changesCase },
  mix: { mix: mixCase },
  strtab: { table: strtabCase },
  ste: { fields: steCase },
  cd: { fields: cdCase },
  s1walk: { s1: (builder) => walkCase(builder, 5) },
  s2walk: { s2: (builder) => walkCase(builder, 6) },
  nested: { nested: (builder) => walkCase(builder, 7) },
};

/** The case of a seed: the same seed gives the same case. */
export function generate(cat: string, seed: number): OracleCase {
  for (let attempt = 0; ; attempt++) {
    const random = new Random(seed + attempt * 0x9e37_79b9);
    const builder = new CaseBuilder(random);
    const names = Object.keys(TEMPLATES[cat]);
    const name = random.pick(names);
    try {
      const variant = TEMPLATES[cat][name](builder);
      return visible(builder.finish(`${cat}-${seed}`, cat, variant === '' ? name : `${name}.${variant}`));
    } catch (error) {
      // No room for what the dice asked for: throw them again.
      if (!(error instanceof RangeError) || attempt > 20) throw error;
    }
  }
}

/** Ways that let more through. */
const PERMISSIVE: readonly (readonly Quirk[])[] = [
  [],
  ['ap1', 'aptable-hit'],
  ['block-level'],
  ['s2ha'],
  ['l2-span'],
  ['s2ptw'],
  ['tbi1'],
];

/** Without the accesses that lead to neither a page of data nor nowhere: what they met cannot be seen, and they might change it. */
function visible(given: OracleCase): OracleCase {
  const state = new CaseState(given.mem);
  const data = new Set(given.data.map((page) => BigInt(page)));
  const steps = given.steps.filter((step) => {
    state.apply(step);
    if (step[0] !== 'dma') return true;
    const access = { sid: step[1], write: step[2] === 'w', iova: BigInt(step[3]) };
    return PERMISSIVE.every((quirks) => {
      const to = destinationOf(state, access, new Set(quirks));
      return to === undefined || data.has(to & -0x1000n) || isNowhere(to);
    });
  });
  return { ...given, steps };
}
