/** Explanations as plain text. */

import type { DecodedField } from './decode.ts';
import type { Explanation } from './explanation.ts';
import type { ExplainedText, Item } from './text.ts';
import type { Problem } from './words.ts';

export interface FormatOptions {
  /** Columns, at least 40. Default 100. */
  readonly width?: number;
  /** Every field with its bits too; by default those that are not zero, of structures only. */
  readonly allFields?: boolean;
}

/** Breaks a text into lines; continuation lines start in the column where its first word does. */
export function wrap(text: string, indent: string, width: number): string[] {
  const rest = ' '.repeat(indent.length);
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(' ')) {
    const started = line.length > indent.length;
    if (started && line.length + 1 + word.length > width) {
      lines.push(line);
      line = rest + word;
    } else line += started ? ` ${word}` : word;
  }
  lines.push(line);
  return lines;
}

/** Fields in as many columns as fit. */
function fieldLines(fields: readonly DecodedField[], width: number): string[] {
  return wrap(fields.map(({ name, value }) => `${name}=${value}`).join(' '), '  ', width);
}

function allFieldLines(fields: readonly DecodedField[]): string[] {
  const nameWidth = Math.max(...fields.map(({ name }) => name.length));
  const bitsWidth = Math.max(...fields.map(({ bits }) => bits.length));
  return fields.map(
    ({ name, bits, value }) => `  ${bits.padStart(bitsWidth)} ${name.padEnd(nameWidth)} ${value}`,
  );
}

/** An explanation as lines: what happened, what it means, what to check, and the fields. */
export function formatExplanation(explanation: Explanation, options: FormatOptions = {}): string[] {
  const width = Math.max(40, options.width ?? 100);
  const { kind, fields } = explanation;
  const lines = wrap([explanation.summary, ...explanation.details].join(' '), '  ', width);
  if (explanation.checks.length > 0) lines.push('  Check:');
  for (const check of explanation.checks) lines.push(...wrap(check, '  - ', width));
  const set = fields.filter((field) => field.set);
  if (options.allFields === true && fields.length > 0) lines.push(...allFieldLines(fields));
  else if ((kind === 'ste' || kind === 'cd') && set.length > 0) lines.push(...fieldLines(set, width));
  return lines;
}

/** 'line 9 to 15, at 2.387067, 3e000000.smmuv3' */
function place(item: Item): string {
  const lines = item.lastLine === item.line ? `line ${item.line}` : `lines ${item.line} to ${item.lastLine}`;
  const parts = [lines];
  if (item.time !== undefined) parts.push(`at ${item.time}`);
  if (item.smmu !== undefined) parts.push(item.smmu);
  return parts.join(', ');
}

/** One item with its heading; what is only good to know takes no heading of its own. */
export function formatItem(item: Item, options: FormatOptions = {}): string[] {
  const times = item.times > 1 ? `, ${item.times} times` : '';
  const width = Math.max(40, options.width ?? 100);
  if (item.kind === 'message' && item.severity === 'info')
    return wrap(`${place(item)}${times}: ${item.summary}`, '', width);
  const clause = item.clause === undefined ? '' : `, IHI 0070 ${item.clause}`;
  return [`${item.name}${times} (${place(item)}${clause})`, ...formatExplanation(item, options)];
}

/** 'line:column: message' */
export const formatProblem = (problem: Problem): string =>
  `${problem.line}:${problem.column}: ${problem.message}`;

/** How many of what, for texts with more than one event. */
function totals(items: readonly Item[]): string[] {
  const counts = new Map<string, number>();
  let total = 0;
  for (const { kind, name, times } of items) {
    if (kind !== 'event') continue;
    total += times;
    counts.set(name, (counts.get(name) ?? 0) + times);
  }
  if (total < 2) return [];
  const each = Array.from(counts, ([name, n]) => `${n} ${name}`).sort(
    (a, b) => parseInt(b, 10) - parseInt(a, 10),
  );
  return ['', `${total} events: ${each.join(', ')}.`];
}

/** Everything that a text says, ready to print; ends without a line break. */
export function formatText(text: ExplainedText, options: FormatOptions = {}): string {
  const lines: string[] = [];
  let compact = true;
  for (const item of text.items) {
    const formatted = formatItem(item, options);
    const short = item.kind === 'message' && item.severity === 'info';
    if (lines.length > 0 && !(short && compact)) lines.push('');
    compact = short;
    lines.push(...formatted);
  }
  lines.push(...totals(text.items));
  if (text.problems.length > 0) {
    if (lines.length > 0) lines.push('');
    lines.push(
      'Not understood (line:column):',
      ...text.problems.map((problem) => `  ${formatProblem(problem)}`),
    );
  }
  if (lines.length === 0) lines.push('Nothing about an SMMUv3 was found.');
  return lines.join('\n');
}
