/** A run as a person reads it: a line for each step, with the two conditions and what became of the vEVENTQ. */

import type { Reporter, RunEvent } from '../machine/report.ts';

export interface NarratorOptions {
  readonly write: (line: string) => void;
  /** Also show every call to the host and every line of the guest's log. */
  readonly verbose: boolean;
  readonly colour: boolean;
}

const ESCAPES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 } as const;

/** @returns a reporter that writes text lines. */
export function narrator({ write, verbose, colour }: NarratorOptions): Reporter {
  const paint = (style: keyof typeof ESCAPES, text: string): string =>
    colour ? `\u001b[${ESCAPES[style]}m${text}\u001b[0m` : text;
  let step = '';

  /** The step stands in the first column of the first line it causes. */
  const line = (text: string): void => {
    write(`   ${step.padEnd(26)} ${text}`.trimEnd());
    step = '';
  };
  const flush = (): void => {
    if (step !== '') line('');
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
        write('');
        write(paint('bold', `${event.number}. ${event.title}`));
        break;
      case 'step':
        flush();
        step = event.text;
        break;
      case 'state': {
        const viommu = event.viommu === null ? 'no vIOMMU' : `vIOMMU ${event.viommu}`;
        const veventq =
          event.veventq === null ? 'no vEVENTQ' : `vEVENTQ ${event.veventq.id}, depth ${event.veventq.depth}`;
        line(
          `EVENTQEN=${event.eventqen ? 1 : 0}, ${viommu.padEnd(9)} -> ${paint(event.veventq === null ? 'yellow' : 'green', veventq)}: ${event.why}`,
        );
        const attached = Object.entries(event.attached);
        if (attached.length > 0)
          line(paint('dim', attached.map(([name, what]) => `${name}: ${what}`).join(', ')));
        break;
      }
      case 'operation':
        if (verbose) line(paint('dim', `${event.operation} ${event.detail} = ${event.result}`));
        break;
      case 'dma':
        line(event.outcome === 'ok' ? event.text : paint('yellow', event.text));
        break;
      case 'event':
        line(paint('cyan', `guest reads ${event.text}`));
        if (verbose) line(paint('dim', event.words.join(' ')));
        break;
      case 'note':
        line(event.text);
        break;
      case 'guest':
        if (verbose) line(paint('dim', event.text));
        break;
      case 'expectation':
        if (!event.ok) line(paint('red', `line ${event.line}: expected ${event.text}`));
        else if (verbose) line(paint('dim', `as expected: ${event.text}`));
        break;
      case 'end':
        flush();
        write('');
        write(
          event.failed === 0
            ? paint('green', `${event.cases} cases, ${event.expectations} expectations, all met.`)
            : paint(
                'red',
                `${event.cases} cases, ${event.failed} of ${event.expectations} expectations not met.`,
              ),
        );
        break;
    }
  };
}
