/** `vsmmu explore`: every order in which things can happen to a small machine, checked. */

import { accessSync, constants, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Configuration } from '../../explore/configuration.ts';
import { CONFIGURATIONS } from '../../explore/configurations.ts';
import type { Progress, Shard } from '../../explore/exploration.ts';
import { explore as exploreAll } from '../../explore/explorer.ts';
import { INVARIANTS } from '../../explore/problem.ts';
import { mergeResults, RESULT_FORMAT, resultOf, type ResultEntry } from '../../explore/result.ts';
import { EXIT, UsageError } from '../exit.ts';
import { version } from '../version.ts';

export interface ExploreCommandOptions {
  readonly depth?: string;
  readonly seconds?: string;
  readonly json?: boolean;
  readonly shard?: string;
  readonly shardDepth?: string;
  readonly output?: string;
  readonly scenario?: string;
}

const DEFAULT_SECONDS = 60;
const DEFAULT_SHARD_DEPTH = 3;
const PROGRESS_MS = 200;
const LOG_MS = 30_000;

/**
 * @param name one configuration; all if undefined.
 * @returns 1 if something was found that must not be.
 * @throws UsageError
 */
export function explore(name: string | undefined, options: ExploreCommandOptions): number {
  const chosen = CONFIGURATIONS.filter((configuration) => name === undefined || configuration.name === name);
  if (chosen.length === 0)
    throw new UsageError(
      `There is no configuration "${name}"; there are ${CONFIGURATIONS.map((one) => one.name).join(', ')}.`,
    );
  const depth = numberOf('depth', options.depth, 0, 1000);
  const seconds =
    numberOf('seconds', options.seconds, 0, 1e9) ?? (depth === undefined ? DEFAULT_SECONDS : Infinity);
  const shard = shardOf(options);
  requirePlace(options.output);
  requirePlace(options.scenario);
  const start = performance.now();
  const entries: ResultEntry[] = [];
  for (const [i, configuration] of chosen.entries()) {
    const left = seconds - (performance.now() - start) / 1000;
    const entry = one(configuration, {
      depth: depth ?? (options.seconds === undefined ? configuration.depth : Infinity),
      seconds: left / (chosen.length - i),
      shard,
    });
    entries.push(entry);
    if (options.json !== true) describe(entry);
    // The shards of the others would find no counterpart.
    if (entry.violation !== null && shard === undefined) break;
  }
  return conclude(entries, options);
}

/** `vsmmu explore merge`: the results of all shards as one. @throws UsageError, MergeError. */
export function exploreMerge(files: readonly string[], options: ExploreCommandOptions): number {
  const entries = mergeResults(files.map((file) => ({ file, content: readJson(file) })));
  if (options.json !== true) for (const entry of entries) describe(entry);
  return conclude(entries, options);
}

interface Limits {
  readonly depth: number;
  readonly seconds: number;
  readonly shard: Shard | undefined;
}

function one(configuration: Configuration, { depth, seconds, shard }: Limits): ResultEntry {
  const start = performance.now();
  const elapsed = (): number => (performance.now() - start) / 1000;
  const line = progressLine(configuration.name, elapsed);
  const options = {
    depth,
    stop: () => elapsed() >= seconds,
    progress: line.show,
    ...(shard !== undefined && { shard }),
  };
  const exploration = exploreAll(configuration, options);
  line.clear();
  return resultOf(configuration, options, exploration, elapsed());
}

/** Prints what is left to say, writes the files. @returns the exit code. */
function conclude(
  entries: readonly ResultEntry[],
  { json, output, scenario }: ExploreCommandOptions,
): number {
  const file = { format: RESULT_FORMAT, version, explorations: entries };
  if (output !== undefined) writeFileSync(output, `${JSON.stringify(file, undefined, 2)}\n`);
  if (json === true) print(JSON.stringify(file));
  const broken = entries.find(({ violation }) => violation !== null);
  if (broken?.violation == null) return EXIT.Fine;
  const path = scenario ?? `broken-${broken.configuration}.yaml`;
  writeFileSync(path, broken.violation.scenario);
  if (json !== true) print(`\nTo see it: vsmmu run ${path}`);
  return EXIT.Failed;
}

function describe({
  configuration,
  shard,
  depth,
  end,
  states,
  transitions,
  seconds,
  violation,
}: ResultEntry): void {
  const part = shard === null ? '' : `, shard ${shard.number}/${shard.of}`;
  const all = end === 'exhausted' ? 'there are no other states' : `every order of up to ${depth} events`;
  const reach = end === 'stopped' ? `${all}, then time was up` : all;
  const rate = Math.round(transitions / Math.max(seconds, 0.001));
  print(
    `${configuration}${part}: ${count(states)} states, ${count(transitions)} transitions, ${reach}; ` +
      `${seconds.toFixed(1)} s, ${count(rate)} transitions/s`,
  );
  if (violation === null) return;
  print(`\nBroken after ${violation.schedule.length} events: ${INVARIANTS[violation.invariant]}.`);
  for (const [i, event] of violation.schedule.entries()) print(`  ${i + 1}. ${event}`);
  print(violation.text);
}

/** A line that is written over and over if someone is looking, and now and then a line for a log if not. */
function progressLine(
  name: string,
  elapsed: () => number,
): { readonly show: (progress: Progress) => void; readonly clear: () => void } {
  const { stderr } = process;
  const [every, before, after] = stderr.isTTY ? [PROGRESS_MS, '\r\u001b[K', ''] : [LOG_MS, '', '\n'];
  let last = stderr.isTTY ? -Infinity : performance.now();
  return {
    show({ depth, states, transitions, waiting }) {
      const now = performance.now();
      if (now - last < every) return;
      last = now;
      const rate = Math.round(transitions / Math.max(elapsed(), 0.001));
      stderr.write(
        `${before}${name}: depth ${depth}, ${count(states)} states, ${count(waiting)} to follow, ` +
          `${count(rate)} transitions/s, ${Math.round(elapsed())} s${after}`,
      );
    },
    clear() {
      if (last > 0) stderr.write(before);
    },
  };
}

function shardOf(options: ExploreCommandOptions): Shard | undefined {
  const { shard, shardDepth } = options;
  const depth = numberOf('shard-depth', shardDepth, 0, 100) ?? DEFAULT_SHARD_DEPTH;
  if (shard === undefined) {
    if (shardDepth !== undefined) throw new UsageError('--shard-depth says nothing without --shard.');
    return undefined;
  }
  const match = /^(\d{1,6})\/(\d{1,6})$/.exec(shard);
  const [number, of] = match === null ? [0, 0] : [Number(match[1]), Number(match[2])];
  if (number < 1 || number > of)
    throw new UsageError(`--shard is a number of how many, such as 1/8, not "${shard}".`);
  const limit = numberOf('depth', options.depth, 0, 1000) ?? Infinity;
  if (limit <= depth)
    throw new UsageError(
      `Shards part after ${depth} events (--shard-depth), and --depth ${limit} ends there: nothing would be shared.`,
    );
  return { number, of, depth };
}

/** An exploration is long, and would be lost if its result had no place. */
function requirePlace(file: string | undefined): void {
  if (file === undefined) return;
  try {
    accessSync(dirname(file), constants.W_OK);
  } catch (error) {
    throw new UsageError(`${file} cannot be written: ${(error as Error).message}`);
  }
}

function numberOf(option: string, text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value < min || value > max)
    throw new UsageError(`--${option} is a number from ${min} to ${max}, not "${text}".`);
  return value;
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError)
      throw new UsageError(`${file} is no JSON, or only a part of it: ${error.message}`);
    throw new UsageError(`${file} cannot be read: ${(error as Error).message}`);
  }
}

const print = (text: string): void => void process.stdout.write(`${text}\n`);

const count = (n: number): string => n.toLocaleString('en-US');
