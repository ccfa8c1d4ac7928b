/** `vsmmu conformance`: replays test vectors against the model. */

import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { runVectors, type ConformanceReport } from '../../conformance/run-vectors.ts';
import { EXIT, UsageError } from '../exit.ts';

const print = (text: string): void => void process.stdout.write(`${text}\n`);

/**
 * @param files JSON lines, plain or gzip.
 * @returns 1 if a vector differs or cannot be read.
 * @throws UsageError if a file cannot be read.
 */
export function conformance(files: readonly string[], { json = false }: { readonly json?: boolean }): number {
  let failed = 0;
  for (const file of files) {
    const report = runVectors(read(file).split('\n'));
    failed += report.failed;
    if (json) print(JSON.stringify({ file, ...report }));
    else describe(file, report);
  }
  return failed === 0 ? EXIT.Fine : EXIT.Failed;
}

function describe(
  file: string,
  { passed, failed, categories, mismatches, malformed }: ConformanceReport,
): void {
  print(`${file}: ${passed} passed, ${failed} failed`);
  for (const [category, count] of Object.entries(categories))
    print(
      `  ${category.padEnd(12)} ${String(count.passed).padStart(6)} passed ${String(count.failed).padStart(6)} failed`,
    );
  for (const { line, reason } of malformed) print(`  line ${line}: ${reason}`);
  for (const { id, where, expected, got } of mismatches) {
    const place = typeof where === 'number' ? `step ${where}` : where;
    print(`  ${id}, ${place}: expected ${expected}, got ${got}`);
  }
}

function read(file: string): string {
  try {
    const bytes = readFileSync(file);
    const gzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
    return (gzip ? gunzipSync(bytes) : bytes).toString('utf8');
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${(error as Error).message}`);
  }
}
