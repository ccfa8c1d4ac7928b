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
  /** Names and values. */
  readonly final: readonly (readonly [name: string, value: string])[];
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

/** Guest RAM of the system that vectors describe; nothing answers anywhere else. */
export const VECTOR_RAM = { first: 0x4000_0000, size: 0x1_8000_0000 } as const;

/** The architecture's largest queue: log2 of its entries (6.3.29). */
const MAX_LOG2_QUEUE = 19;
const HEX = /^0x[0-9a-f]{1,16}$/iu;
const BYTES = /^(?:[0-9a-f]{2})*$/iu;
const RECORD = /^[0-9a-f]{64}$/iu;

const isBytes = (value: unknown): value is string => typeof value === 'string' && BYTES.test(value);
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isCount = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 0;

/** A number as vectors write them, in hexadecimal or plain, as hexadecimal text; undefined if it is none of that many bits. */
function hexOf(value: unknown, bits: number): string | undefined {
  let text: string;
  if (typeof value === 'string' && HEX.test(value)) text = value;
  else if (isCount(value) && Number.isSafeInteger(value)) text = `0x${value.toString(16)}`;
  else return undefined;
  return BigInt(text) >> BigInt(bits) === 0n ? text : undefined;
}

/** A piece of memory, if it is in RAM. */
function pieceOf(address: unknown, bytes: unknown): readonly [address: string, hexBytes: string] | undefined {
  const at = hexOf(address, 52);
  if (at === undefined || !isBytes(bytes)) return undefined;
  const from = Number(at);
  const end = VECTOR_RAM.first + VECTOR_RAM.size;
  return from >= VECTOR_RAM.first && from + bytes.length / 2 <= end ? [at, bytes] : undefined;
}

function stepOf(step: unknown): Step | undefined {
  if (!Array.isArray(step)) return undefined;
  const [action, ...given] = step as readonly unknown[];
  switch (action) {
    case 'w32':
    case 'w64': {
      const offset = hexOf(given[0], 32);
      const value = hexOf(given[1], action === 'w32' ? 32 : 64);
      return offset === undefined || value === undefined ? undefined : [action, offset, value];
    }
    case 'r32': {
      const offset = hexOf(given[0], 32);
      return offset === undefined ? undefined : [action, offset];
    }
    case 'mem': {
      const piece = pieceOf(given[0], given[1]);
      return piece === undefined ? undefined : [action, ...piece];
    }
    case 'dma': {
      const [sid, direction] = given;
      const iova = hexOf(given[2], 64);
      if (!isCount(sid) || sid >= 2 ** 32 || iova === undefined) return undefined;
      return direction === 'r' || direction === 'w' ? [action, sid, direction, iova] : undefined;
    }
    case 'drain':
      return [action];
    default:
      return undefined;
  }
}

/** Whether a result is one that this step can have. */
function resultOf(action: Step[0], result: unknown): StepResult | undefined {
  switch (action) {
    case 'r32':
      return hexOf(result, 32);
    case 'dma': {
      if (!isObject(result) || typeof result['ok'] !== 'boolean' || !isCount(result['ev'])) return undefined;
      const { ok, ev } = result;
      if (!ok) return { ok, ev };
      const pa = hexOf(result['pa'], 52);
      return pa === undefined ? undefined : { ok, pa, ev };
    }
    case 'drain':
      return isRecords(result) ? result : undefined;
    default:
      return result === null ? null : undefined;
  }
}

/** Records, or masks of records. */
const isRecords = (value: unknown): value is readonly (string | null)[] =>
  Array.isArray(value) &&
  value.every((record) => record === null || (typeof record === 'string' && RECORD.test(record)));

/** Every element as `one` makes it, or undefined if it makes nothing of one of them. */
function everyOf<T>(list: unknown, one: (value: unknown, i: number) => T | undefined): T[] | undefined {
  if (!Array.isArray(list)) return undefined;
  const all: T[] = [];
  for (const [i, value] of list.entries()) {
    const made = one(value, i);
    if (made === undefined) return undefined;
    all.push(made);
  }
  return all;
}

/**
 * Parses one line. Fields: `id`, `name`, `cat`; `mem`: [address, hex bytes] of RAM at the start; `eventq`: {base, log2} for the
 * drain steps; `steps`; `out`: one result per step; `final`: registers after the last; `masks`: one list per drain. A vector
 * with `disputed` is one where the implementation that it was recorded on departs from the architecture: `disputed.arch`
 * then has the `out`, `final` and `masks` that count. Numbers are hexadecimal with 0x, or plain. Other fields are ignored.
 * @throws SyntaxError saying what is wrong
 */
export function parseVector(line: string): Vector {
  const json: unknown = JSON.parse(line);
  if (!isObject(json)) throw new SyntaxError('A vector is an object.');
  const { id, name, cat, disputed } = json;
  if (typeof id !== 'string' || typeof cat !== 'string')
    throw new SyntaxError('A vector has an id and a cat.');
  const need = <T>(value: T | undefined, what: string): T => {
    if (value === undefined) throw new SyntaxError(`Vector ${id}: ${what}`);
    return value;
  };
  const mem = everyOf(json['mem'], (piece) =>
    Array.isArray(piece) ? pieceOf(piece[0] as unknown, piece[1] as unknown) : undefined,
  );
  const steps = need(
    everyOf(json['steps'], stepOf),
    'a step is not one of w32, w64, r32, mem (in RAM), dma, drain, or a number of it is out of range.',
  );
  // Without `arch` nobody knows what is right.
  const arch = disputed === undefined ? json : isObject(disputed) ? disputed['arch'] : undefined;
  const expected = need(isObject(arch) ? arch : undefined, 'disputed has arch, with what is right.');
  return {
    id,
    name: typeof name === 'string' ? name : id,
    cat,
    mem: need(mem, 'mem is a list of [address, hex bytes], in RAM.'),
    eventq: need(eventqOf(json['eventq']), `eventq is {base, log2}, and log2 0 to ${MAX_LOG2_QUEUE}.`),
    steps,
    expected: {
      out: need(outOf(expected['out'], steps), 'out has one result per step, of the kind that it gives.'),
      final: need(finalOf(expected['final']), 'final has registers, which are numbers.'),
      masks: need(
        everyOf(expected['masks'] ?? [], (masks) => (isRecords(masks) ? masks : undefined)),
        'masks has a list of 32-byte masks per drain.',
      ),
    },
  };
}

function eventqOf(queue: unknown): Vector['eventq'] | undefined {
  if (!isObject(queue)) return undefined;
  const base = hexOf(queue['base'], 64);
  const { log2 } = queue;
  // The base as written: its high bits may be beyond what the SMMU has.
  return base !== undefined && isCount(log2) && log2 <= MAX_LOG2_QUEUE ? { base, log2 } : undefined;
}

function outOf(out: unknown, steps: readonly Step[]): StepResult[] | undefined {
  if (!Array.isArray(out) || out.length !== steps.length) return undefined;
  return everyOf(out, (result, i) => resultOf(steps[i][0], result));
}

function finalOf(final: unknown): [string, string][] | undefined {
  if (!isObject(final)) return undefined;
  return everyOf(Object.entries(final), (entry) => {
    const [name, value] = entry as [string, unknown];
    const hex = hexOf(value, 32);
    return hex === undefined ? undefined : ([name, hex] as [string, string]);
  });
}
