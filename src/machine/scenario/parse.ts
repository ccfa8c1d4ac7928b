/** From the text of a scenario file to checked steps. Every complaint names its line and column; all are collected. */

import * as v from 'valibot';
import { isMap, isPair, isScalar, isSeq, LineCounter, parseDocument, type Node } from 'yaml';
import { Identity, type SmmuProperties } from '../../accel/properties.ts';
import { BARE_SIDS } from '../../guest/bare-guest.ts';
import type { FaultKind } from '../../iommufd/host-info.ts';
import { GUEST_DEFAULT, IdentificationError } from '../../smmu/identification.ts';
import type { EmbeddedSmmu } from '../embedded-host.ts';
import { requesterId } from '../pci-address.ts';
import { SCENARIO, STEPS, type ScenarioGuest, type Step, type StepName } from './steps.ts';

export interface ScenarioDevice {
  readonly name: string;
  readonly function: 'dma-tester' | 'nvme';
  /** `bb:dd.f` in the guest. */
  readonly at: string;
  /** What it does where a page is missing, besides aborting. */
  readonly faults: FaultKind | undefined;
}

export interface ScenarioCase {
  readonly title: string;
  readonly steps: readonly Step[];
}

export interface Scenario {
  readonly title: string;
  readonly about: string | undefined;
  readonly guest: ScenarioGuest;
  readonly host: { readonly smmu: EmbeddedSmmu };
  /** What the guest's SMMU is asked to be. */
  readonly smmu: SmmuProperties;
  readonly devices: readonly ScenarioDevice[];
  readonly cases: readonly ScenarioCase[];
}

/** One thing that is wrong with the file. Line and column count from 1. */
export interface Problem {
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

/** The file cannot be used; `problems` is not empty and in file order. */
export class ScenarioError extends Error {
  readonly code = 'SCENARIO_INVALID';
  readonly problems: readonly Problem[];

  constructor(file: string, problems: readonly Problem[]) {
    const lines = problems.map(({ line, column, message }) => `${file}:${line}:${column}: ${message}`);
    super(lines.join('\n'));
    this.name = 'ScenarioError';
    this.problems = problems;
  }
}

/**
 * Reads a scenario. YAML and JSON are both accepted.
 * @param file the name to show in errors.
 * @param guest overrides the file's own `guest`.
 * @throws ScenarioError with every problem found.
 */
export function parseScenario(text: string, file: string, guest?: ScenarioGuest): Scenario {
  const counter = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: counter,
    intAsBigInt: true,
    uniqueKeys: true,
    strict: true,
  });
  const problems: Problem[] = [];

  const at = (offset: number): { line: number; column: number } => {
    const { line, col } = counter.linePos(Math.min(offset, text.length));
    return { line, column: col };
  };
  const complain = (node: Node | null | undefined, message: string): void => {
    problems.push({ ...at(node?.range?.[0] ?? 0), message });
  };

  for (const error of [...document.errors, ...document.warnings])
    problems.push({
      ...at(error.pos[0]),
      message: error.message.split('\n')[0].replace(/ at line \d+, column \d+:?$/, ''),
    });
  if (problems.length > 0) throw new ScenarioError(file, problems);
  if (document.contents === null)
    throw new ScenarioError(file, [{ line: 1, column: 1, message: 'the file is empty' }]);

  /** The deepest node that exists along a path, or the key that the path ends with: where an issue is shown. */
  const nodeAt = (root: Node, path: readonly unknown[], key = false): Node => {
    let node = root;
    for (const [i, step] of path.entries()) {
      let next: unknown;
      if (isMap(node)) {
        const pair = node.items.find((item) => isScalar(item.key) && item.key.value === step);
        next = key && i === path.length - 1 ? pair?.key : pair?.value;
      } else if (isSeq(node)) next = node.items[Number(step)];
      if (next === null || typeof next !== 'object' || isPair(next)) return node;
      node = next as Node;
    }
    return node;
  };
  const report = (root: Node, issues: readonly v.BaseIssue<unknown>[], prefix = ''): void => {
    for (const issue of issues) {
      const path = (issue.path ?? []).map(({ key }) => key);
      const name = [prefix, ...path.map(String)].filter((part) => part !== '').join('.');
      complain(nodeAt(root, path, issue.path?.at(-1)?.origin === 'key'), describe(issue, name));
    }
  };

  const root = document.contents as Node;
  const parsed = v.safeParse(SCENARIO, document.toJS() as unknown);
  if (!parsed.success) {
    report(root, parsed.issues);
    throw new ScenarioError(file, sorted(problems));
  }
  const who = guest ?? parsed.output.guest;

  const devices = Object.entries(parsed.output.devices).map(([name, device], i) => ({
    name,
    function: device.function,
    at: device.at ?? defaultPlace(who, i + 1),
    faults: device.faults,
  }));
  const reachable = (place: string): boolean => who !== 'bare' || requesterId(place) < BARE_SIDS;
  for (const [i, device] of devices.entries()) {
    if (!reachable(device.at))
      complain(
        nodeAt(root, ['devices', device.name]),
        `devices.${device.name}: ${device.at} is not on bus 00, where a bare guest has its devices`,
      );
    if (devices.findIndex((other) => other.at === device.at) !== i)
      complain(
        nodeAt(root, ['devices', device.name]),
        `devices.${device.name}: ${device.at} is taken by another device`,
      );
  }

  const cases = parsed.output.cases.map(({ title, steps }, i) => ({
    title,
    steps: steps.flatMap((_, j) => {
      const step = parseStep(nodeAt(root, ['cases', i, 'steps', j]));
      return step === undefined ? [] : [step];
    }),
  }));
  const { accel: _, ...smmu } = parsed.output.smmu;
  try {
    void new Identity(GUEST_DEFAULT, smmu);
  } catch (error) {
    if (!(error instanceof IdentificationError)) throw error;
    for (const problem of error.problems) complain(nodeAt(root, ['smmu']), `smmu: ${problem}`);
  }
  if (problems.length > 0) throw new ScenarioError(file, sorted(problems));
  return {
    title: parsed.output.title,
    about: parsed.output.about,
    guest: who,
    host: parsed.output.host,
    smmu,
    devices,
    cases,
  };

  function parseStep(node: Node): Step | undefined {
    const { line } = at(node.range?.[0] ?? 0);
    let name: unknown;
    let value: unknown;
    let valueNode: Node = node;
    if (isScalar(node)) {
      name = node.value;
      value = {};
    } else if (isMap(node) && node.items.length === 1) {
      const [pair] = node.items;
      name = isScalar(pair.key) ? pair.key.value : undefined;
      valueNode = (pair.value as Node | null) ?? node;
      value = pair.value === null ? {} : (pair.value as Node).toJS(document);
    } else {
      complain(node, 'a step is one action, such as "probe" or "plug: nic0"');
      return undefined;
    }
    if (typeof name !== 'string' || !Object.hasOwn(STEPS, name)) {
      complain(
        node,
        `there is no action ${JSON.stringify(String(name))}; there are ${Object.keys(STEPS).join(', ')}`,
      );
      return undefined;
    }
    const action = name as StepName;
    const rule = STEPS[action];
    const possible = rule.guest === 'any' || rule.guest === who;
    if (!possible && !(rule.guest === 'embedded' && who !== 'qemu')) {
      const needed = rule.guest === 'embedded' ? 'reference or bare' : rule.guest;
      complain(node, `${action} needs --guest ${needed}; this scenario has the ${who} guest`);
      return undefined;
    }
    if (value === null) value = {};
    if (rule.short !== undefined && typeof value !== 'object') value = { [rule.short]: value };
    const result = v.safeParse(rule.schema, value);
    if (!result.success) {
      report(valueNode, result.issues, action);
      return undefined;
    }
    const step = { action, args: result.output, line } as Step;
    for (const used of devicesOf(step))
      if (!devices.some((known) => known.name === used))
        complain(valueNode, `${action}: there is no device ${JSON.stringify(used)} under "devices"`);
    if (step.action === 'move' && !reachable(step.args.at))
      complain(valueNode, `move: ${step.args.at} is not on bus 00, where a bare guest has its devices`);
    if (step.action === 'dma' && (step.args.read === undefined) === (step.args.write === undefined))
      complain(valueNode, 'dma: exactly one of read and write is expected');
    return step;
  }
}

/** Root ports for guests that have some; a bare guest has one bus. */
const defaultPlace = (guest: ScenarioGuest, number: number): string => {
  const digits = number.toString(16).padStart(2, '0');
  return guest === 'bare' ? `00:${digits}.0` : `${digits}:00.0`;
};

function devicesOf(step: Step): string[] {
  const named = 'device' in step.args && step.args.device !== undefined ? [step.args.device] : [];
  if (step.action !== 'expect') return named;
  const events = (step.args.events ?? []).flatMap((event) => event.device ?? []);
  return [...events, ...Object.keys(step.args.attached ?? {})];
}

function describe(issue: v.BaseIssue<unknown>, name: string): string {
  if (issue.type === 'strict_object' && issue.expected === 'never') return `${name} is not known here`;
  if (issue.received === 'undefined') return `${name} is missing`;
  if (issue.message.includes('expected') && !issue.message.startsWith('Invalid'))
    return `${name}: ${issue.message}`;
  return `${name}: ${issue.expected ?? 'another kind of value'} is expected, not ${issue.received}`;
}

const sorted = (problems: readonly Problem[]): Problem[] =>
  [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
