/** `vsmmu explain`: records and kernel logs in sentences. */

import { readFileSync } from 'node:fs';
import { formatExplanation, formatText } from '../../explain/format.ts';
import { explainRecord, explainText } from '../../explain/text.ts';
import { isProblem, parseRecord, type RecordKind } from '../../explain/words.ts';
import { EXIT, UsageError } from '../exit.ts';

export interface ExplainOptions {
  readonly event?: boolean;
  readonly ste?: boolean;
  readonly cd?: boolean;
  readonly command?: boolean;
  readonly fields?: boolean;
  readonly json?: boolean;
}

const KINDS = ['event', 'ste', 'cd', 'command'] as const satisfies readonly RecordKind[];
/** More than any kernel's log buffer. */
const MAX_TEXT_BYTES = 64 << 20;

const print = (text: string): void => void process.stdout.write(`${text}\n`);

/**
 * @param what words of one record if its kind is given; else files, `-` or nothing for standard input.
 * @returns 1 if something could not be understood, or nothing was found.
 * @throws UsageError
 */
export function explain(what: readonly string[], options: ExplainOptions): number {
  const kinds = KINDS.filter((kind) => options[kind] === true);
  if (kinds.length > 1) throw new UsageError(`--${kinds.join(' and --')} exclude each other.`);
  const width = process.stdout.isTTY ? process.stdout.columns : 100;
  const format = { width, allFields: options.fields === true };
  const [kind] = kinds;
  if (kind !== undefined) return explainWords(kind, what.join(' '), options.json === true, format);

  let found = 0;
  let problems = 0;
  for (const file of what.length === 0 ? ['-'] : what) {
    const text = explainText(read(file));
    found += text.items.length;
    problems += text.problems.length;
    if (options.json === true) {
      for (const item of text.items) print(JSON.stringify(item));
      for (const problem of text.problems) print(JSON.stringify({ kind: 'problem', ...problem }));
    } else print(formatText(text, format));
  }
  return found > 0 && problems === 0 ? EXIT.Fine : EXIT.Failed;
}

function explainWords(
  kind: RecordKind,
  text: string,
  json: boolean,
  format: { readonly width: number; readonly allFields: boolean },
): number {
  const words = parseRecord(kind, text);
  if (isProblem(words)) throw new UsageError(`--${kind}: column ${words.column}: ${words.message}.`);
  const explanation = explainRecord(kind, words);
  if (json) print(JSON.stringify(explanation));
  else print([explanation.name, ...formatExplanation(explanation, format)].join('\n'));
  return EXIT.Fine;
}

function read(file: string): string {
  try {
    const bytes = readFileSync(file === '-' ? 0 : file);
    if (bytes.length > MAX_TEXT_BYTES)
      throw new UsageError(
        `${file} has ${bytes.length >>> 20} MiB; at most ${MAX_TEXT_BYTES >>> 20} are read.`,
      );
    return bytes.toString('utf8');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${file} cannot be read: ${(error as Error).message}`);
  }
}
