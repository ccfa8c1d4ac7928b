/** What an exploration found, as a file; and the files of all shards put together. */

import type { Configuration } from './configurations.ts';
import type { Exploration, ExploreOptions, Shard } from './explorer.ts';
import type { Invariant } from './problem.ts';
import { scenarioText } from './scenario-text.ts';

export const RESULT_FORMAT = 'vsmmu-explore-1';

/** One exploration; plain data. */
export interface ResultEntry {
  readonly configuration: string;
  /** The limit that was set; null if none. */
  readonly limit: number | null;
  readonly shard: Shard | null;
  /** Every schedule of this many events was tried, as far as it is this shard's. */
  readonly depth: number;
  readonly end: Exploration['end'];
  readonly states: number;
  readonly transitions: number;
  readonly levels: readonly number[];
  readonly seconds: number;
  readonly violation: ResultViolation | null;
}

export interface ResultViolation {
  readonly invariant: Invariant;
  readonly text: string;
  readonly schedule: readonly string[];
  /** A scenario file that shows it. */
  readonly scenario: string;
}

export interface ResultFile {
  readonly format: typeof RESULT_FORMAT;
  readonly explorations: readonly ResultEntry[];
}

/** @param seconds that it took. */
export function resultOf(
  configuration: Configuration,
  { depth: limit, shard }: ExploreOptions,
  exploration: Exploration,
  seconds: number,
): ResultEntry {
  const { depth, end, states, transitions, levels, violation } = exploration;
  return {
    configuration: configuration.name,
    limit: Number.isFinite(limit) ? limit : null,
    shard: shard ?? null,
    depth,
    end,
    states,
    transitions,
    levels,
    seconds: Math.round(seconds * 1000) / 1000,
    violation:
      (violation && {
        invariant: violation.problem.invariant,
        text: violation.problem.text,
        schedule: violation.schedule,
        scenario: scenarioText(configuration, violation),
      }) ??
      null,
  };
}

/** The files do not make one exploration; the message says which is missing or does not fit. */
export class MergeError extends Error {
  readonly code = 'EXPLORATIONS_DIFFER';

  constructor(message: string) {
    super(message);
    this.name = 'MergeError';
  }
}

/** A file as it was read, with its name for complaints. */
export interface NamedResult {
  readonly file: string;
  readonly content: unknown;
}

/**
 * Puts the shards of the same explorations together.
 * @returns one entry a configuration. States that several shards have met are counted by each; the depth is that of the
 *   shard that got least far, the violation the shortest.
 * @throws MergeError
 */
export function mergeResults(files: readonly NamedResult[]): ResultEntry[] {
  const groups = new Map<string, { readonly file: string; readonly entry: ResultEntry }[]>();
  for (const { file, content } of files) {
    if (!isResultFile(content)) throw new MergeError(`${file} is no result of "vsmmu explore".`);
    for (const entry of content.explorations) {
      const group = groups.get(entry.configuration);
      if (group === undefined) groups.set(entry.configuration, [{ file, entry }]);
      else group.push({ file, entry });
    }
  }
  if (groups.size === 0) throw new MergeError('There is nothing to merge.');
  return [...groups.values()].map((group) => mergeGroup(group));
}

function mergeGroup(group: readonly { readonly file: string; readonly entry: ResultEntry }[]): ResultEntry {
  const [{ entry: first, file: firstFile }] = group;
  const { configuration } = first;
  const seen = new Map<number, string>();
  for (const { file, entry } of group) {
    const { shard } = entry;
    if (shard === null || first.shard === null)
      throw new MergeError(`${shard === null ? file : firstFile} is no shard of ${configuration}.`);
    if (shard.of !== first.shard.of || shard.depth !== first.shard.depth || entry.limit !== first.limit)
      throw new MergeError(
        `${file} and ${firstFile} do not have the same shards or depth of ${configuration}.`,
      );
    const other = seen.get(shard.number);
    if (other !== undefined)
      throw new MergeError(`${file} and ${other} are both shard ${shard.number} of ${configuration}.`);
    seen.set(shard.number, file);
    // What all shards explore has to be the same, unless one was stopped in it.
    const common = Math.min(shard.depth, entry.depth, first.depth) + 1;
    if (entry.levels.slice(0, common).join() !== first.levels.slice(0, common).join())
      throw new MergeError(
        `${file} and ${firstFile} found different states of ${configuration}: not the same program.`,
      );
  }
  const { of, depth: split } = first.shard!;
  for (let number = 1; number <= of; number++)
    if (!seen.has(number)) throw new MergeError(`Shard ${number}/${of} of ${configuration} is missing.`);

  const entries = group.map(({ entry }) => entry);
  const levels: number[] = [];
  for (const entry of entries)
    for (const [depth, count] of entry.levels.entries())
      levels[depth] = depth <= split ? Math.max(levels[depth] ?? 0, count) : (levels[depth] ?? 0) + count;
  const found = entries.flatMap(({ violation }) => violation ?? []);
  found.sort((a, b) => a.schedule.length - b.schedule.length);
  const ends = entries.map(({ end }) => end);
  return {
    ...first,
    shard: null,
    depth: Math.min(...entries.map(({ depth }) => depth)),
    end: (['violation', 'stopped', 'depth', 'exhausted'] as const).find((end) => ends.includes(end))!,
    states: levels.reduce((sum, count) => sum + count, 0),
    transitions: entries.reduce((sum, { transitions }) => sum + transitions, 0),
    levels,
    seconds: Math.max(...entries.map(({ seconds }) => seconds)),
    violation: found[0] ?? null,
  };
}

function isResultFile(content: unknown): content is ResultFile {
  if (typeof content !== 'object' || content === null) return false;
  const { format, explorations } = content as Partial<ResultFile>;
  return (
    format === RESULT_FORMAT && Array.isArray(explorations) && explorations.every((entry) => isEntry(entry))
  );
}

function isEntry(entry: unknown): boolean {
  if (typeof entry !== 'object' || entry === null) return false;
  const { configuration, levels, depth, states, transitions, seconds, shard, violation } =
    entry as Partial<ResultEntry>;
  const numbers = [depth, states, transitions, seconds];
  return (
    typeof configuration === 'string' &&
    numbers.every((value) => typeof value === 'number') &&
    Array.isArray(levels) &&
    (shard === null || typeof shard?.number === 'number') &&
    (violation === null || Array.isArray(violation?.schedule))
  );
}
