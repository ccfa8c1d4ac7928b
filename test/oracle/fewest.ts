import { type Quirk, WALK_DEPARTURES } from './departures.ts';

const ALL = Object.keys(WALK_DEPARTURES) as Quirk[];
/** Larger explanations are none. */
const MOST = 5;

/**
 * The fewest departures of QEMU that together explain an access.
 * @param matches whether QEMU did what the walker does with these
 * @param text what the walker does with these, in words
 * @returns undefined if there are none
 */
export function fewest(
  matches: (quirks: readonly Quirk[]) => boolean,
  text: (quirks: readonly Quirk[]) => string,
): Quirk[] | undefined {
  const single = ALL.find((quirk) => matches([quirk]));
  if (single !== undefined) return [single];
  const known = new Map<string, string>();
  const cached = (quirks: readonly Quirk[]): string => {
    const key = quirks.join(' ');
    let found = known.get(key);
    if (found === undefined) known.set(key, (found = text(quirks)));
    return found;
  };
  let relevant = ALL.filter((quirk) => changes(quirk, [[], ...subsets(ALL, 1)], cached));
  for (;;) {
    for (let size = 2; size <= Math.min(relevant.length, MOST); size++)
      for (const subset of subsets(relevant, size)) if (matches(subset)) return subset;
    // What changes nothing beside one other may do so beside two.
    const pairs = [...subsets(relevant, 2)];
    const more = ALL.filter((quirk) => relevant.includes(quirk) || changes(quirk, pairs, cached));
    if (more.length === relevant.length) return undefined;
    relevant = more;
  }
}

/** Whether a departure changes something beside one of these companies. */
function changes(
  quirk: Quirk,
  companies: readonly (readonly Quirk[])[],
  text: (quirks: readonly Quirk[]) => string,
): boolean {
  return companies.some((others) => {
    if (others.includes(quirk)) return false;
    return text([...others, quirk].toSorted()) !== text(others);
  });
}

function* subsets<T>(from: readonly T[], size: number, start = 0): Generator<T[]> {
  if (size === 0) {
    yield [];
    return;
  }
  for (let i = start; i <= from.length - size; i++)
    for (const rest of subsets(from, size - 1, i + 1)) yield [from[i], ...rest];
}
