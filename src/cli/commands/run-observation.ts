/** `vsmmu run --trace FILE --metrics FILE`: what a run shows of its inside, written when it has ended. */

import { writeFileSync } from 'node:fs';
import { metricsOf } from '../../machine/metrics.ts';
import type { RunObservation } from '../../machine/scenario/reference-run.ts';
import { toNdjson } from '../../trace/ndjson.ts';
import { toPerfetto } from '../../trace/perfetto.ts';
import { labelled, toPrometheus, type Metric } from '../../trace/prometheus.ts';
import { TraceRing, type TraceEntry } from '../../trace/trace-ring.ts';
import { UsageError } from '../exit.ts';

export interface ObservationOptions {
  readonly trace?: string;
  readonly metrics?: string;
}

const NDJSON = /\.(?:ndjson|jsonl|json)$/;
const PERFETTO = /\.(?:pftrace|perfetto-trace|pb)$/;
const NS_PER_MS = 1_000_000;

export class ObservationFiles {
  readonly observation: RunObservation;
  readonly #options: ObservationOptions;
  readonly #trace: TraceRing | undefined;
  readonly #metrics = new Map<string, readonly Metric[]>();

  /** @throws UsageError if the name of a file does not say what should be in it. */
  constructor(options: ObservationOptions) {
    const { trace, metrics } = options;
    if (trace !== undefined && !NDJSON.test(trace) && !PERFETTO.test(trace))
      throw new UsageError(
        `--trace writes JSON lines to a file.ndjson, or for https://ui.perfetto.dev to a file.pftrace; not to "${trace}".`,
      );
    this.#options = options;
    if (trace !== undefined) this.#trace = new TraceRing(() => performance.now() * NS_PER_MS);
    this.observation = {
      trace: this.#trace,
      ...(metrics !== undefined && {
        ended: (machine, scenarioCase) => this.add(String(scenarioCase), metricsOf(machine)),
      }),
    };
  }

  /** The metrics of one case. */
  add(scenarioCase: string, metrics: readonly Metric[]): void {
    this.#metrics.set(scenarioCase, metrics);
  }

  /** Writes the files that were asked for. @param entries if not those of the observation's own ring. */
  write(entries: readonly TraceEntry[] = this.#trace?.entries ?? []): void {
    const { trace, metrics } = this.#options;
    if (trace !== undefined) writeTo(trace, NDJSON.test(trace) ? toNdjson(entries) : toPerfetto(entries));
    if (metrics !== undefined) writeTo(metrics, toPrometheus(labelled('case', this.#metrics)));
  }
}

function writeTo(file: string, content: string | Uint8Array): void {
  try {
    writeFileSync(file, content);
  } catch (error) {
    throw new UsageError(`The file cannot be written: ${(error as Error).message}`);
  }
}
