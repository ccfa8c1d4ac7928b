/**
 * Prints nanoseconds per operation of every row: median, best and 99th percentile of mitata's samples. Arguments: `--json` for
 * one object of medians, and a pattern to choose rows by name.
 */

import { measure } from 'mitata';
import { ROWS } from './rows.ts';

const json = process.argv.includes('--json');
const pattern = new RegExp(process.argv.slice(2).find((argument) => argument !== '--json') ?? '', 'u');
const medians: Record<string, number> = {};

if (!json)
  console.log(
    `${'row'.padEnd(26)}${'median'.padStart(9)}${'best'.padStart(9)}${'p99'.padStart(9)}   ns each`,
  );
for (const row of ROWS) {
  if (!pattern.test(row.name)) continue;
  const run = row.prepare();
  run();
  // No batches of calls: on a busy machine each would contain somebody else's time.
  const stats = await measure(run, { min_cpu_time: 300e6, batch_threshold: 0 });
  const each = (ns: number): string => (ns / row.operations).toFixed(1).padStart(9);
  medians[row.name] = stats.p50 / row.operations;
  if (!json) console.log(row.name.padEnd(26) + each(stats.p50) + each(stats.min) + each(stats.p99));
}
if (json) console.log(JSON.stringify(medians));
