/** One conformance vector: a line of JSON. What it means is described with {@link parseVector}. */

export type Step =
  | readonly ['w32' | 'w64', offset: string, value: string]
  | readonly ['r32', offset: string]
  | readonly ['mem', address: string, hexBytes: string]
  | readonly ['dma', sid: number, direction: 'r' | 'w', iova: string]
  | readonly ['drain'];

export interface DmaResult {
  readonly ok: boolean;
  readonly pa?: string;
  readonly ev: number;
}

/** What a step gives: nothing, a register value, a DMA result, or raw event records (null: outside RAM). */
export type StepResult = null | string | DmaResult | readonly (string | null)[];

export interface Expectation {
  readonly out: readonly StepResult[];
  readonly final: Readonly<Record<string, string>>;
  /** One list per drain: a 32-byte mask per event, null to compare all of it. */
  readonly masks: readonly (readonly (string | null)[])[];
}

export interface Vector {
  readonly id: string;
  readonly name: string;
  readonly cat: string;
  readonly mem: readonly (readonly [address: string, hexBytes: string])[];
  readonly eventq: { readonly base: string; readonly log2: number };
  readonly steps: readonly Step[];
  /** What the architecture says. */
  readonly expected: Expectation;
}

const HEX = /^(?:0x)?[0-9a-f]+$/iu;
const isHex = (value: unknown): value is string => typeof value === 'string' && HEX.test(value);
const isBytes = (value: unknown): value is string =>
  typeof value === 'string' && value.length % 2 === 0 && /^[0-9a-f]*$/iu.test(value);

function isStep(step: unknown): step is Step {
  if (!Array.isArray(step)) return false;
  switch (step[0]) {
    case 'w32':
    case 'w64':
      return isHex(step[1]) && isHex(step[2]);
    case 'r32':
      return isHex(step[1]);
    case 'mem':
      return isHex(step[1]) && isBytes(step[2]);
    case 'dma':
      return Number.isInteger(step[1]) && (step[2] === 'r' || step[2] === 'w') && isHex(step[3]);
    case 'drain':
      return true;
    default:
      return false;
  }
}

/**
 * Parses one line. Fields: `id`, `name`, `cat`; `mem`: [address, hex bytes] of RAM at the start; `eventq`: {base, log2} for the
 * drain steps; `steps`; `out`: one result per step; `final`: registers after the last; `masks`: one list per drain. A vector
 * with `disputed` is one where the implementation that it was recorded on departs from the architecture: `disputed.arch`
 * then has the `out`, `final` and `masks` that count.
 * @throws SyntaxError saying what is wrong
 */
export function parseVector(line: string): Vector {
  const json: unknown = JSON.parse(line);
  if (typeof json !== 'object' || json === null) throw new SyntaxError('A vector is an object.');
  const vector = json as Record<string, unknown>;
  const { id, name, cat, mem, eventq, steps, disputed } = vector;
  if (typeof id !== 'string' || typeof cat !== 'string')
    throw new SyntaxError('A vector has an id and a cat.');
  const fail = (what: string): never => {
    throw new SyntaxError(`Vector ${id}: ${what}`);
  };
  if (
    !Array.isArray(mem) ||
    !mem.every((piece) => Array.isArray(piece) && isHex(piece[0]) && isBytes(piece[1]))
  )
    fail('mem is a list of [address, hex bytes].');
  if (!Array.isArray(steps) || !steps.every(isStep))
    fail('a step is not one of w32, w64, r32, mem, dma, drain.');
  const queue = eventq as { base?: unknown; log2?: unknown } | undefined;
  if (queue === undefined || !isHex(queue.base) || !Number.isInteger(queue.log2))
    fail('eventq is {base, log2}.');
  const arch = (disputed as { arch?: unknown } | undefined)?.arch;
  const expected = (arch ?? vector) as Partial<Expectation>;
  if (!Array.isArray(expected.out) || expected.out.length !== (steps as unknown[]).length)
    fail('out has one result per step.');
  if (typeof expected.final !== 'object' || expected.final === null) fail('final has registers.');
  return {
    id,
    name: typeof name === 'string' ? name : id,
    cat,
    mem: mem as Vector['mem'],
    eventq: queue as Vector['eventq'],
    steps: steps as Vector['steps'],
    expected: {
      out: expected.out as Expectation['out'],
      final: expected.final as Expectation['final'],
      masks: expected.masks ?? [],
    },
  };
}
