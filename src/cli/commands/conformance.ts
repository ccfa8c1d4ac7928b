/** `vsmmu conformance`: replays test vectors against the model. */

import { constants } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { runVectors, type ConformanceReport } from '../../conformance/run-vectors.ts';
import { EXIT } from '../exit.ts';

const print = (text: string): void => void process.stdout.write(`${text}\n`);
/** What is said about a line that is no vector is cut here: the line may be long. */
const MOST_REASON = 200;

/**
 * Replays files one after the other. One that cannot be read, or has no vectors, does not keep the others from being
 * replayed; what is wrong with it goes to standard error.
 * @param files JSON lines, plain or gzip.
 * @returns 2 if there was such a file, else 1 if a vector differs or a line is none, else 0
 */
export function conformance(files: readonly string[], { json = false }: { readonly json?: boolean }): number {
  let unusable = 0;
  let failed = 0;
  for (const file of files) {
    const lines = read(file);
    if (typeof lines === 'string') {
      process.stderr.write(`vsmmu: ${printable(`${file} ${lines}`)}\n`);
      unusable += 1;
      continue;
    }
    const report = runVectors(lines);
    failed += report.failed;
    if (json) print(JSON.stringify({ file, ...report }));
    else describe(file, report);
  }
  if (unusable > 0) return EXIT.Usage;
  return failed === 0 ? EXIT.Fine : EXIT.Failed;
}

function describe(
  file: string,
  { passed, failed, categories, mismatches, malformed }: ConformanceReport,
): void {
  print(printable(`${file}: ${passed} passed, ${failed} failed`));
  for (const [category, count] of Object.entries(categories))
    print(
      `  ${printable(category).padEnd(12)} ${String(count.passed).padStart(6)} passed ${String(count.failed).padStart(6)} failed`,
    );
  for (const { line, reason } of malformed)
    print(`  line ${line}: ${printable(reason.slice(0, MOST_REASON))}`);
  for (const { id, where, expected, got } of mismatches) {
    const place = typeof where === 'number' ? `step ${where}` : where;
    print(printable(`  ${id}, ${place}: expected ${expected}, got ${got}`));
  }
}

/** Text of a file that nobody has looked at, without what a terminal would do something at. */
const printable = (text: string): string =>
  text.replaceAll(/\p{Cc}/gu, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`);

/** @returns the lines of a file, or why it has none */
function read(file: string): string[] | string {
  let text: string;
  try {
    const bytes = readFileSync(file);
    const gzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
    const plain = gzip ? gunzipSync(bytes, { maxOutputLength: constants.MAX_STRING_LENGTH }) : bytes;
    text = plain.toString('utf8');
  } catch (error) {
    return `cannot be read: ${(error as Error).message}`;
  }
  const lines = (text.startsWith('\ufeff') ? text.slice(1) : text).split('\n');
  return lines.every((line) => line.trim() === '') ? 'has no vectors.' : lines;
}
