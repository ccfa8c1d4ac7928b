/** What an explanation is made of. Everything is text or a small number, so that JSON carries it as it is. */

import type { DecodedField } from './decode.ts';

export type ExplanationKind = 'event' | 'page-request' | 'command' | 'ste' | 'cd' | 'gerror' | 'message';

/** How much it matters: something failed; something may fail; it is good to know. */
export type Severity = 'error' | 'warning' | 'info';

export interface Explanation {
  readonly kind: ExplanationKind;
  readonly severity: Severity;
  /** The architecture's name of it, such as F_TRANSLATION; for messages of a driver a name of ours. */
  readonly name: string;
  /** One sentence: what happened, or what it says. */
  readonly summary: string;
  /** Further sentences: what that means. */
  readonly details: readonly string[];
  /** What to look at, the likeliest first. */
  readonly checks: readonly string[];
  readonly fields: readonly DecodedField[];
  /** Where IHI 0070 describes it. */
  readonly clause?: string;
}

/** Makes the first letter of a sentence a capital. */
export const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** The opposite, for a sentence inside another one. */
export const uncapitalized = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1);

/** 'a, b and c'. */
export function list(parts: readonly string[], word = 'and'): string {
  if (parts.length < 2) return parts.join('');
  return `${parts.slice(0, -1).join(', ')} ${word} ${parts.at(-1)}`;
}

/** '1 entry', '2 entries'. */
export const count = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`;

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** 2^log2 bytes in the largest unit that gives a whole number: '64 KiB'. */
export function sizeOf(log2: number): string {
  const unit = Math.min(Math.floor(log2 / 10), UNITS.length - 1);
  return `${2 ** (log2 - unit * 10)} ${UNITS[unit]}`;
}
