/** Compares what a scenario expects with what is. */

import type { Expectation, ExpectedEvent } from './steps.ts';

/** What an expectation is compared with. */
export interface Observed {
  readonly eventqen: boolean;
  readonly viommu: boolean;
  /** Depth, or undefined if there is no vEVENTQ. */
  readonly veventq: number | undefined;
  readonly attached: Readonly<Record<string, string>>;
  /** Number of live host objects by kind; kinds without any are absent. */
  readonly objects: Readonly<Record<string, number>>;
  readonly ioctls: number;
  /** Faults that wait for the guest's answer, where it is known. */
  readonly waiting?: number;
  /** Properties as the guest sees them, where they are known. */
  readonly smmu?: Readonly<Record<string, string | number>>;
  readonly overflow: boolean;
  readonly warnings: readonly string[];
  readonly events: readonly ObservedEvent[];
  readonly dmesg: readonly string[];
}

export interface ObservedEvent {
  readonly type: string;
  /** Name of the device in the scenario; undefined if no plugged device has the StreamID. */
  readonly device: string | undefined;
  readonly iova: bigint;
  readonly access: 'read' | 'write';
  readonly stage: 1 | 2;
  readonly ssid: number;
  readonly stall: boolean;
}

/** One compared fact. */
export interface Verdict {
  readonly ok: boolean;
  /** As a sentence: what was expected and, unless it is so, what is. */
  readonly text: string;
}

/** @returns a verdict for every field that the expectation names. */
export function compare(expected: Expectation, observed: Observed): Verdict[] {
  const verdicts: Verdict[] = [];
  const check = (what: string, wanted: unknown, found: unknown): void => {
    const ok = wanted === found;
    verdicts.push({
      ok,
      text: `${what} is ${show(wanted)}${ok ? '' : ` was expected, but it is ${show(found)}`}`,
    });
  };

  if (expected.eventqen !== undefined) check('EVENTQEN', expected.eventqen, observed.eventqen);
  if (expected.viommu !== undefined) check('the existence of a vIOMMU', expected.viommu, observed.viommu);
  if (expected.veventq !== undefined) check('the vEVENTQ', expected.veventq, observed.veventq ?? 'none');
  for (const [device, what] of Object.entries(expected.attached ?? {}))
    check(`the attachment of ${device}`, what, observed.attached[device] ?? 'none');
  if (expected.objects !== undefined) {
    const named = Object.entries(expected.objects);
    if (named.length === 0) check('the list of host objects', '{}', JSON.stringify(observed.objects));
    for (const [kind, count] of named)
      check(`the number of ${kind} objects`, count, observed.objects[kind] ?? 0);
  }
  for (const [property, value] of Object.entries(expected.smmu ?? {}))
    check(`the property ${property}`, value, observed.smmu?.[property]);
  if (expected.waiting !== undefined)
    check('the number of faults that wait', expected.waiting, observed.waiting ?? 0);
  if (expected.overflow !== undefined) check('overflow', expected.overflow, observed.overflow);
  if (expected.warnings !== undefined) {
    check('the number of warnings', expected.warnings, observed.warnings.length);
    if (expected.warnings !== observed.warnings.length)
      for (const text of observed.warnings) verdicts.push({ ok: false, text: `the guest warns: ${text}` });
  }
  if (expected.ioctls !== undefined)
    verdicts.push({
      ok: observed.ioctls <= expected.ioctls,
      text: `at most ${expected.ioctls} calls to the host: there were ${observed.ioctls}`,
    });
  if (expected.events !== undefined) verdicts.push(...compareEvents(expected.events, observed.events));
  if (expected.dmesg !== undefined) {
    const pattern = expected.dmesg;
    const ok = observed.dmesg.some((line) => matches(pattern, line));
    verdicts.push({ ok, text: `the guest's log ${ok ? 'has' : 'lacks'} ${pattern}` });
  }
  return verdicts;
}

function compareEvents(expected: readonly ExpectedEvent[], found: readonly ObservedEvent[]): Verdict[] {
  if (expected.length !== found.length) {
    const list = found.length === 0 ? 'there are none' : `there are ${found.map(showEvent).join('; ')}`;
    return [{ ok: false, text: `${expected.length} events were expected; ${list}` }];
  }
  if (expected.length === 0) return [{ ok: true, text: 'no event' }];
  return expected.map((event, i) => {
    const actual = found[i];
    const wrong = (Object.keys(event) as (keyof ExpectedEvent)[]).filter((key) => event[key] !== actual[key]);
    const text = showEvent({ ...actual, ...definedOf(event) });
    return wrong.length === 0
      ? { ok: true, text }
      : { ok: false, text: `${text} was expected, but the event is ${showEvent(actual)}` };
  });
}

const definedOf = (event: ExpectedEvent): Partial<ObservedEvent> =>
  Object.fromEntries(Object.entries(event).filter(([, value]) => value !== undefined));

const showEvent = ({ type, device, access, iova, stage }: ObservedEvent): string =>
  `${type} of ${device ?? 'an unknown device'}, ${access} 0x${iova.toString(16)}, stage ${stage}`;

const show = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

/** A text that must appear, or a regular expression between slashes. */
export function matches(pattern: string, line: string): boolean {
  const expression = /^\/(.*)\/$/s.exec(pattern);
  return expression === null ? line.includes(pattern) : new RegExp(expression[1]).test(line);
}
