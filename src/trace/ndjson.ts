/** A trace as JSON lines: one object an entry, oldest first; addresses and other numbers are hexadecimal text. */

import { valueName } from './event-names.ts';
import type { TraceEntry, TraceValue } from './trace-ring.ts';

/** @returns lines, each with its line feed: `{"time":12,"event":"smmuv3_read_mmio","addr":"0x20",...}`. */
export function toNdjson(entries: readonly TraceEntry[]): string {
  let text = '';
  for (const { time, event, values, names } of entries) {
    const line: Record<string, TraceValue> = { time, event };
    for (const [i, value] of values.entries()) {
      const { name, decimal } = valueName(event, names, i);
      line[name] = typeof value === 'string' || decimal ? value : `0x${value.toString(16)}`;
    }
    text += `${JSON.stringify(line)}\n`;
  }
  return text;
}
