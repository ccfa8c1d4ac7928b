/** Any text: kernel logs, and records in hexadecimal between or instead of log lines. */

import { explainCd } from './cd.ts';
import { explainCommand } from './command.ts';
import { explainEvent } from './event.ts';
import type { Explanation } from './explanation.ts';
import { type LogLine, readLine } from './log-line.ts';
import { type Finding, LogReader } from './log.ts';
import { explainPageRequest } from './page-request.ts';
import { explainSte } from './ste.ts';
import {
  bytesIn,
  isHex,
  isProblem,
  type Problem,
  readWords,
  RECORD_SIZE,
  type RecordKind,
  type Token,
  tokensOf,
} from './words.ts';

/** What a text says, at one place of it. */
export interface Item extends Explanation {
  /** Of the first line; both count from 1. */
  readonly line: number;
  readonly column: number;
  /** Of the last line that belongs to it, or to its last repetition. */
  readonly lastLine: number;
  /** Of the first line: seconds since boot or a date, as the log has it. */
  readonly time?: string;
  /** Device name of the SMMU, if the text gives one. */
  readonly smmu?: string;
  /** How often the same thing was said in a row. */
  readonly times: number;
}

export interface ExplainedText {
  readonly items: readonly Item[];
  /** What could not be read, in the order of the text. */
  readonly problems: readonly Problem[];
}

const EXPLAIN: Readonly<Record<RecordKind, (words: Uint32Array) => Explanation>> = {
  event: explainEvent,
  command: explainCommand,
  'page-request': explainPageRequest,
  ste: explainSte,
  cd: explainCd,
};

/** Explains the words of a record. */
export const explainRecord = (kind: RecordKind, words: Uint32Array): Explanation => EXPLAIN[kind](words);

/** "ste:", "cmd =" and so on in front of words; the mark may be left out in front of hexadecimal. */
const LABEL = /^\s*(event|ste|cd|command|cmd|page-request|pri)\s*([:=]?)(?=\s|$)/i;

function kindOf(label: string): RecordKind {
  const name = label.toLowerCase();
  if (name === 'cmd') return 'command';
  return name === 'pri' ? 'page-request' : (name as RecordKind);
}

/** Decoded lines of Linux begin with "event:" too, and raw ones with "event". */
const LINUX_EVENT = /^\s*event(?:: \w+ client:| 0x[0-9a-f]+ received)/i;

/** What words without a label are, by the bytes that they give. */
const KIND_BY_SIZE: Readonly<Record<number, RecordKind>> = { 32: 'event', 16: 'command' };

/** Words of a record, line by line. */
interface Collection {
  readonly kind: RecordKind | undefined;
  readonly start: LogLine;
  readonly lines: Token[][];
  lastLine: number;
}

class TextReader {
  readonly #log = new LogReader();
  readonly #records: Finding[] = [];
  readonly #problems: Problem[] = [];
  #open: Collection | undefined;

  take(raw: string, number: number): void {
    const line = readLine(raw, number);
    // What the driver says is a log's; the rest may be a record that somebody copied.
    if (line.smmu === undefined && this.#record(line)) return;
    this.#close();
    this.#log.take(line);
  }

  /** Takes a line of words. @returns false if it is something else */
  #record(line: LogLine): boolean {
    const { message } = line;
    const label = LINUX_EVENT.test(message) ? null : LABEL.exec(message);
    const start = label === null ? 0 : label[0].length;
    const tokens = tokensOf(message.slice(start), line.line, line.column + start);
    // Behind the time stamp of a log, only what is plainly a record is taken for one.
    const fromLog = line.column > 1;
    if (label !== null) {
      const marked = label[2] !== '';
      if (!isHex(tokens) && (fromLog || !marked)) return false;
      this.#close();
      this.#open = { kind: kindOf(label[1]), start: line, lines: [tokens], lastLine: line.line };
      return true;
    }
    if (!isHex(tokens)) return false;
    if (this.#open === undefined) {
      if (fromLog || this.#log.expects(line)) return false;
      this.#open = { kind: undefined, start: line, lines: [], lastLine: line.line };
    }
    this.#open.lines.push(tokens);
    this.#open.lastLine = line.line;
    return true;
  }

  /** Explains what was collected. */
  #close(): void {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined) return;
    const all = open.lines.flat();
    const bytes = bytesIn(all);
    const kind = open.kind ?? KIND_BY_SIZE[bytes];
    if (kind !== undefined) {
      this.#explain(kind, all, open.start, open.lastLine);
      return;
    }
    const sizes = new Set(open.lines.map((tokens) => bytesIn(tokens)));
    const each = sizes.size === 1 ? KIND_BY_SIZE[bytesIn(open.lines[0])] : undefined;
    if (each !== undefined) {
      for (const tokens of open.lines) {
        const { line, column } = tokens[0];
        this.#explain(each, tokens, { ...open.start, line, column }, line);
      }
      return;
    }
    // A few bare digits are not meant as a record.
    if (bytes < 16 && !all.some(({ text }) => /^0x/i.test(text))) return;
    const { line, column } = all[0];
    const message =
      bytes === 64
        ? "64 bytes can be an STE or a CD: write 'ste:' or 'cd:' before them"
        : `${bytes} bytes are no event record (32), command (16), STE or CD (64)`;
    this.#problems.push({ line, column, message });
  }

  #explain(kind: RecordKind, tokens: readonly Token[], start: LogLine, lastLine: number): void {
    const words = readWords(tokens, RECORD_SIZE[kind]);
    const { line, column, time, smmu } = start;
    if (!isProblem(words)) {
      this.#records.push({ line, column, lastLine, time, smmu, explanation: explainRecord(kind, words) });
      return;
    }
    this.#problems.push(tokens.length === 0 ? { ...words, line, column } : words);
  }

  finish(): ExplainedText {
    this.#close();
    const findings = [...this.#log.finish(), ...this.#records].sort((a, b) => a.line - b.line);
    const problems = [...this.#log.problems, ...this.#problems];
    return {
      items: merge(findings),
      problems: problems.sort((a, b) => a.line - b.line || a.column - b.column),
    };
  }
}

const sameAs = (a: Explanation, b: Explanation): boolean =>
  a.kind === b.kind && a.name === b.name && a.summary === b.summary && a.details.join() === b.details.join();

/** Joins what the same SMMU says several times in a row. */
function merge(findings: readonly Finding[]): Item[] {
  const items: Item[] = [];
  const newest = new Map<string | undefined, number>();
  for (const { line, column, lastLine, time, smmu, explanation } of findings) {
    const at = newest.get(smmu);
    if (at !== undefined && sameAs(items[at], explanation)) {
      items[at] = { ...items[at], lastLine, times: items[at].times + 1 };
      continue;
    }
    newest.set(smmu, items.length);
    items.push({
      line,
      column,
      lastLine,
      ...(time === undefined ? {} : { time }),
      ...(smmu === undefined ? {} : { smmu }),
      times: 1,
      ...explanation,
    });
  }
  return items;
}

/**
 * Explains whatever a text holds: kernel logs of any origin, and records in hexadecimal. Lines that have nothing to do
 * with an SMMU are passed over. It does not throw.
 */
export function explainText(text: string): ExplainedText {
  const reader = new TextReader();
  let number = 0;
  for (const line of text.split('\n')) reader.take(line, ++number);
  return reader.finish();
}
