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
  // What changes nothing beside one other may do so beside two; that takes longer to find out.
  for (const others of [1, 2]) {
    const relevant = relevantBeside(others, cached);
    for (let size = 2; size <= Math.min(relevant.length, MOST); size++)
      for (const subset of subsets(relevant, size)) if (matches(subset)) return subset;
  }
  return undefined;
}

/** Departures that change something, alone or beside so many others. */
function relevantBeside(count: number, text: (quirks: readonly Quirk[]) => string): Quirk[] {
  const companies = Array.from({ length: count + 1 }, (_, size) => [...subsets(ALL, size)]).flat();
  return ALL.filter((quirk) =>
    companies.some((others) => {
      if (others.includes(quirk)) return false;
      return text([...others, quirk].toSorted()) !== text(others.toSorted());
    }),
  );
}

function* subsets<T>(from: readonly T[], size: number, start = 0): Generator<T[]> {
  if (size === 0) {
    yield [];
    return;
  }
  for (let i = start; i <= from.length - size; i++)
    for (const rest of subsets(from, size - 1, i + 1)) yield [from[i], ...rest];
}
