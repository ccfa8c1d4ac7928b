/** A schedule as a scenario file, for `vsmmu run` to play. */

import type { Configuration } from './configuration.ts';
import type { Violation } from './exploration.ts';
import { INVARIANTS } from './problem.ts';
import type { Action } from './world.ts';

/** @returns YAML. Played again it breaks the same invariant, as long as the fault is there. */
export function scenarioText({ name, devices }: Configuration, violation: Violation): string {
  const { problem, schedule, actions, byUse } = violation;
  const lines = [
    `# Found by "vsmmu explore ${name}" after ${schedule.length} events: ${schedule.join(', ')}.`,
    `# ${oneLine(problem.text)}`,
    `title: ${quoted(`Broken: ${INVARIANTS[problem.invariant]}`)}`,
    'guest: bare',
    'devices:',
    ...devices.map((device) => `  ${device.name}: { at: '${device.at}' }`),
    'cases:',
    `  - title: ${quoted(schedule.join(', '))}`,
    '    steps:',
    ...actions.map((action) => `      - ${stepText(action)}`),
  ];
  if (byUse) lines.push('      - check');
  return `${lines.join('\n')}\n`;
}

function stepText({ action, args }: Action): string {
  const given = Object.entries(args).filter(([, value]) => value !== undefined);
  if (given.length === 0) return action;
  return `${action}: { ${given.map(([key, value]) => `${key}: ${valueText(value)}`).join(', ')} }`;
}

function valueText(value: unknown): string {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  return typeof value === 'string' && !/^[A-Za-z_][\w-]*$/.test(value) ? quoted(value) : String(value);
}

const quoted = (text: string): string => `'${oneLine(text).replaceAll("'", "''")}'`;

const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ');
