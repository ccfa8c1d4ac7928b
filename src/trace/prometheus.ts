/** Counters in Prometheus' text format, version 0.0.4. */

export interface Sample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Metric {
  /** Of letters, digits and underscores; a counter's ends in `_total`. */
  readonly name: string;
  /** One sentence. */
  readonly help: string;
  readonly type: 'counter' | 'gauge';
  readonly samples: readonly Sample[];
}

/** @returns the text; a metric without samples is left out. */
export function toPrometheus(metrics: readonly Metric[]): string {
  let text = '';
  for (const { name, help, type, samples } of metrics) {
    if (samples.length === 0) continue;
    text += `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n# TYPE ${name} ${type}\n`;
    for (const { labels = {}, value } of samples) {
      const pairs = Object.entries(labels).map(([label, content]) => `${label}="${escapeLabel(content)}"`);
      text += `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${value}\n`;
    }
  }
  return text;
}

const escapeLabel = (text: string): string =>
  text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');

/** Metrics of several machines as one list: each sample gets a label that says whose it is. */
export function labelled(label: string, all: ReadonlyMap<string, readonly Metric[]>): Metric[] {
  const merged = new Map<string, Metric>();
  for (const [whose, metrics] of all)
    for (const metric of metrics) {
      const samples = metric.samples.map(({ labels, value }) => ({
        labels: { [label]: whose, ...labels },
        value,
      }));
      const before = merged.get(metric.name);
      merged.set(metric.name, { ...metric, samples: [...(before?.samples ?? []), ...samples] });
    }
  return [...merged.values()];
}
