/** What an exploration found, as a file; and the files of all shards put together. */

import { hex32 } from '../bits/u64.ts';
import type { Configuration } from './configuration.ts';
import type { Exploration, ExploreOptions, Shard } from './exploration.ts';
import { fingerprint } from './fingerprint.ts';
import { INVARIANTS, type Invariant } from './problem.ts';
import { scenarioText } from './scenario-text.ts';

export const RESULT_FORMAT = 'vsmmu-explore-2';

/** One exploration; plain data. */
export interface ResultEntry {
  readonly configuration: string;
  /** Of all that can happen in it: another one is another configuration of the same name. */
  readonly digest: string;
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
  /** Of the program. */
  readonly version: string;
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
    digest: digestOf(configuration),
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

function digestOf({ devices, start, events, program, failures }: Configuration): string {
  const names = events.map(({ name }) => name);
  const text = JSON.stringify([devices, start, names, program, failures], (_, value: unknown) =>
    typeof value === 'bigint' ? `0x${value.toString(16)}` : value,
  );
  const { hi, lo } = fingerprint(text);
  return hex32(hi, 8) + hex32(lo, 8).slice(2);
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
  let first: { readonly file: string; readonly version: string } | undefined;
  for (const named of files) {
    const { file } = named;
    const { version, explorations } = checked(named);
    first ??= { file, version };
    if (version !== first.version)
      throw new MergeError(
        `${file} was made by vsmmu ${version}, and ${first.file} by ${first.version}: explore all with the same.`,
      );
    for (const entry of explorations) {
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
    if (entry.digest !== first.digest)
      throw new MergeError(
        `${file} and ${firstFile} have different configurations ${configuration}: not the same program.`,
      );
    if (shard.of !== first.shard.of || shard.depth !== first.shard.depth || entry.limit !== first.limit)
      throw new MergeError(
        `${file} and ${firstFile} do not have the same shards or depth of ${configuration}.`,
      );
    const other = seen.get(shard.number);
    if (other === file) throw new MergeError(`${file} is given twice.`);
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
  const missing: number[] = [];
  for (let number = 1; number <= of; number++) if (!seen.has(number)) missing.push(number);
  if (missing.length === 1) throw new MergeError(`Shard ${missing[0]}/${of} of ${configuration} is missing.`);
  if (missing.length > 1)
    throw new MergeError(`Of the ${of} shards of ${configuration}, ${listed(missing)} are missing.`);

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

/** At most ten of them. */
const listed = (numbers: readonly number[]): string =>
  numbers.length <= 10
    ? numbers.join(', ')
    : `${numbers.slice(0, 10).join(', ')} and ${numbers.length - 10} others`;

const isCount = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0;
const isText = (value: unknown): boolean => typeof value === 'string';
const isTexts = (value: unknown): boolean => Array.isArray(value) && value.every(isText);
const orNull =
  (test: (value: unknown) => boolean) =>
  (value: unknown): boolean =>
    value === null || test(value);

/** What each field has to be. */
type Shape = Readonly<Record<string, (value: unknown) => boolean>>;

/** @returns the name of the first field that is not what it has to be. */
function wrongField(value: unknown, shape: Shape): string | undefined {
  if (typeof value !== 'object' || value === null) return 'all of it';
  const fields = value as Readonly<Record<string, unknown>>;
  return Object.keys(shape).find((name) => !shape[name](fields[name]));
}

const SHARD: Shape = { number: isCount, of: isCount, depth: isCount };
function isShard(value: unknown): boolean {
  if (wrongField(value, SHARD) !== undefined) return false;
  const { number, of } = value as Shard;
  return number >= 1 && number <= of;
}

const VIOLATION: Shape = {
  invariant: (value) => isText(value) && Object.hasOwn(INVARIANTS, value as string),
  text: isText,
  schedule: isTexts,
  scenario: isText,
};
const ENTRY: Shape = {
  configuration: isText,
  digest: isText,
  limit: orNull(isCount),
  shard: orNull(isShard),
  depth: isCount,
  end: (value) => ['exhausted', 'depth', 'stopped', 'violation'].includes(value as string),
  states: isCount,
  transitions: isCount,
  levels: (value) => Array.isArray(value) && value.every(isCount),
  seconds: (value) => typeof value === 'number' && value >= 0,
  violation: orNull((value) => wrongField(value, VIOLATION) === undefined),
};

/** @throws MergeError */
function checked({ file, content }: NamedResult): ResultFile {
  const format = typeof content === 'object' && content !== null && 'format' in content && content.format;
  if (typeof format !== 'string' || !format.startsWith('vsmmu-explore-'))
    throw new MergeError(`${file} is no result of "vsmmu explore".`);
  if (format !== RESULT_FORMAT)
    throw new MergeError(`${file} has the format ${format}; this program reads ${RESULT_FORMAT}.`);
  const { version, explorations } = content as Partial<ResultFile>;
  if (!isText(version)) throw new MergeError(`${file} is damaged: version.`);
  if (!Array.isArray(explorations)) throw new MergeError(`${file} is damaged: explorations.`);
  for (const [i, entry] of explorations.entries()) {
    const wrong = wrongField(entry, ENTRY);
    if (wrong !== undefined) throw new MergeError(`${file} is damaged: exploration ${i + 1}, ${wrong}.`);
  }
  return content as ResultFile;
}
