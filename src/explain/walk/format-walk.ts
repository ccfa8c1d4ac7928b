/** The explanation of a walk as plain text. */

import { type FormatOptions, wrap } from '../format.ts';
import { sentence } from '../explanation.ts';
import type { WalkCause, WalkExplanation, WalkStep } from './walk.ts';

/** 'AF [10] of the level 3 descriptor of stage 1 at 0x40012008: AF=0 ...' */
function causeLines({ field, of, address, bits, text, also }: WalkCause, width: number): string[] {
  const which = bits === undefined ? '' : ` ${bits}`;
  const where = field.startsWith(`${of}.`) ? '' : ` of ${of}`;
  const place = address === undefined ? '' : ` at ${address}`;
  return [
    ...wrap(`${field}${which}${where}${place}: ${text}.`, '  ', width),
    ...also.flatMap((other) => wrap(`and ${other}.`, '  ', width)),
  ];
}

function stepLines(step: WalkStep, width: number): string[] {
  const margin = step.depth === 1 ? '      ' : '  ';
  const { kind, name, address, words = [], text, fields, depth } = step;
  const list = fields.map((field) => `${field.name}=${field.value}`).join(' ');
  if (kind === 'register' || kind === 'stage') return wrap(text, margin, width);
  if (kind === 'structure')
    return [
      ...wrap(`${name} at ${address}: ${text}`, margin, width),
      ...wrap(words.join(' '), `${margin}    `, width),
      ...(list === '' ? [] : wrap(list, `${margin}    `, width)),
    ];
  const inner = `${margin}  `;
  if (kind === 'descriptor')
    return wrap(
      `${name} at ${address} = ${words[0]}: ${text}${list === '' || depth === 1 ? '' : ` ${list}`}`,
      inner,
      width,
    );
  return wrap(sentence(text), inner, width);
}

/**
 * The explanation of a walk, ready to print: the outcome, its cause, and the way there. What stage 2 does for the sake of
 * CDs and stage 1 tables is indented further. Ends without a line break.
 */
export function formatWalk(walk: WalkExplanation, options: Pick<FormatOptions, 'width'> = {}): string {
  const width = Math.max(40, options.width ?? 100);
  const lines = wrap(walk.summary, '', width);
  if (walk.cause !== undefined) lines.push('', 'Cause:', ...causeLines(walk.cause, width));
  lines.push('', 'The way:');
  for (const step of walk.steps) lines.push(...stepLines(step, width));
  return lines.join('\n');
}
