/** A run as a person reads it: a table with a row for each step, and why the vEVENTQ is or is not there. */

import type { EventAccount } from '../machine/event-account.ts';
import type { Reporter, RunEvent, VeventqState } from '../machine/report.ts';

export interface NarratorOptions {
  readonly write: (line: string) => void;
  /** Also show every call to the host and every line of the guest's log. */
  readonly verbose: boolean;
  readonly colour: boolean;
}

const ESCAPES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 } as const;
type Style = keyof typeof ESCAPES;

const STEP_WIDTH = 25;
const COLUMNS = [
  ['EVENTQEN', 8],
  ['vIOMMU', 6],
  ['vEVENTQ', 13],
] as const;

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`;

const LOSSES = {
  host_queue_full: 'for which the host had no room',
  crowded_out: 'that gave way to other devices',
  guest_refused: "that the guest's queue did not take",
  queue_closed: 'when the vEVENTQ was closed',
} as const;

/** What was lost, and whose it was as far as anyone can tell; undefined if nothing was. */
function lossText({ delivered, lost, devices }: EventAccount): string | undefined {
  const parts: string[] = [];
  for (const cause of Object.keys(LOSSES) as (keyof typeof LOSSES)[]) {
    if (lost[cause] === 0) continue;
    const whose =
      cause === 'host_queue_full'
        ? []
        : Object.entries(devices).flatMap(([name, { lost: own }]) =>
            own[cause] === 0 ? [] : [`${name}: ${own[cause]}`],
          );
    parts.push(`${lost[cause]} ${LOSSES[cause]}${whose.length === 0 ? '' : ` (${whose.join(', ')})`}`);
  }
  if (parts.length === 0) return undefined;
  return `Of the events ${delivered} came to the guest. Lost: ${parts.join('; ')}.`;
}

/** @returns a reporter that writes lines of text. A step's row is written when the next one begins. */
export function narrator({ write, verbose, colour }: NarratorOptions): Reporter {
  const paint = (style: Style, text: string): string =>
    colour ? `\u001b[${ESCAPES[style]}m${text}\u001b[0m` : text;

  let step: string | undefined;
  let texts: string[] = [];
  /** Lines that need the whole width, for below the row. */
  let below: string[] = [];
  let state: VeventqState | undefined;
  let shown = '';

  const columns = (values: readonly string[]): string =>
    values.map((value, i) => value.padEnd(COLUMNS[i][1])).join('  ');
  const margin = ' '.repeat(3 + STEP_WIDTH + 2 + columns(['', '', '']).length + 2);

  const flush = (): void => {
    if (step === undefined && texts.length === 0) return;
    const { eventqen, viommu, veventq } = state ?? { eventqen: false, viommu: null, veventq: null };
    const queue = veventq === null ? '-' : `${veventq.id}, depth ${veventq.depth}`;
    const now = columns([eventqen ? '1' : '0', viommu === null ? '-' : String(viommu), queue]);
    const head = `   ${(step ?? '').padEnd(STEP_WIDTH)}  ${paint(veventq === null ? 'yellow' : 'green', now)}`;
    write(`${head}  ${texts[0] ?? ''}`.trimEnd());
    for (const text of texts.slice(1)) write(margin + text);
    for (const line of below) write(line === '' ? '' : `      ${line}`);
    step = undefined;
    texts = [];
    below = [];
  };

  return (event: RunEvent): void => {
    switch (event.kind) {
      case 'scenario':
        write(paint('bold', event.title));
        if (event.about !== null) write(event.about);
        write(`Guest: ${event.guest}. Host: ${event.host}.`);
        break;
      case 'case':
        flush();
        state = undefined;
        shown = '';
        write('');
        write(paint('bold', `${event.number}. ${event.title}`));
        write(
          paint('dim', `   ${' '.repeat(STEP_WIDTH)}  ${columns(COLUMNS.map(([name]) => name))}`.trimEnd()),
        );
        break;
      case 'step':
        flush();
        step = event.text;
        break;
      case 'state': {
        state = event;
        const attached = Object.entries(event.attached).map(([name, what]) => `${name}: ${what}`);
        const now = `${event.why} ${attached.join(', ')}`;
        if (now === shown) break;
        shown = now;
        if (event.change !== 'kept') texts.push(event.why);
        if (attached.length > 0) texts.push(paint('dim', `Attached: ${attached.join(', ')}.`));
        break;
      }
      case 'operation':
        if (!verbose) break;
        texts.push(event.text, paint('dim', `   ${event.operation} ${event.detail} = ${event.result}`));
        break;
      case 'dma':
        texts.push(event.outcome === 'ok' ? event.text : paint('yellow', event.text));
        break;
      case 'event':
        texts.push(paint('cyan', `The guest reads: ${event.text}`));
        if (verbose) texts.push(paint('dim', event.words.join(' ')));
        break;
      case 'note':
        texts.push(event.text);
        break;
      case 'walk':
        below.push(...event.text.split('\n'));
        break;
      case 'host':
        // Of the lines about one event, the decoded one is enough.
        if (verbose || / event: /.test(event.text)) texts.push(paint('dim', `The host logs: ${event.text}`));
        break;
      case 'guest':
        if (verbose) texts.push(paint('dim', event.text));
        break;
      case 'expectation':
        if (!event.ok) texts.push(paint('red', `Line ${event.line}: ${event.text}`));
        else if (verbose) texts.push(paint('dim', `As expected: ${event.text}`));
        break;
      case 'events': {
        const losses = lossText(event);
        if (losses === undefined) break;
        flush();
        write(`   ${paint('yellow', losses)}`);
        break;
      }
      case 'end':
        flush();
        write('');
        write(
          event.failed === 0
            ? paint(
                'green',
                `${count(event.cases, 'case')}, ${count(event.expectations, 'expectation')}, all met.`,
              )
            : paint(
                'red',
                `${count(event.cases, 'case')}, ${event.failed} of ${count(event.expectations, 'expectation')} not met.`,
              ),
        );
        break;
    }
  };
}
