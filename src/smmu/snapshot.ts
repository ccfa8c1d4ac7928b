/**
 * An SMMU as text: its registers by name, and the little that is not in registers. What it caches is not in it, and
 * need not be: an SMMU may forget at any time. Guest memory is not in it either.
 */

import { hex64, hiOf, loOf, parseU64 } from '../bits/u64.ts';
import { OFFSET, PAGE_SIZE, REGISTERS, type RegisterSpec } from '../spec/registers.ts';
import { identificationProblems } from './identification-rules.ts';
import type { IdRegisters } from './identification.ts';
import { implementedBits, wordOf, type RegisterValue } from './register-file.ts';
import type { Smmu } from './smmu.ts';

export interface SmmuSnapshot {
  /** ID registers by name, in hexadecimal. */
  readonly ids: Readonly<Record<string, string>>;
  /** All other registers that are not zero. */
  readonly registers: Readonly<Record<string, string>>;
  /** An ATC_INV was not answered, which the next CMD_SYNC has to say (4.7.3). */
  readonly atcInvTimeout: boolean;
}

/** A snapshot may be wrong in any number of places; the message is for people. */
const SHOWN_PROBLEMS = 10;
const SHOWN_CHARACTERS = 150;
const shorten = (text: string): string =>
  text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}...` : text;

/** A snapshot cannot be taken now, or cannot be used. */
export class SnapshotError extends Error {
  override readonly name = 'SnapshotError';
  /** `SNAPSHOT_IMPOSSIBLE`: not now, or not here. `SNAPSHOT_INVALID`: the snapshot is not one. */
  readonly code: 'SNAPSHOT_IMPOSSIBLE' | 'SNAPSHOT_INVALID';
  /** One sentence for each reason. */
  readonly problems: readonly string[];

  constructor(code: SnapshotError['code'], problems: readonly string[]) {
    const what =
      code === 'SNAPSHOT_INVALID' ? 'This is no snapshot to restore from.' : 'No snapshot is possible.';
    const more = problems.length - SHOWN_PROBLEMS;
    const shown = problems.slice(0, SHOWN_PROBLEMS).map(shorten).join(' ');
    super(`${what} ${shown}${more > 0 ? ` And ${more} more.` : ''}`);
    this.code = code;
    this.problems = problems;
  }
}

const ID_NAMES = ['IDR0', 'IDR1', 'IDR2', 'IDR3', 'IDR4', 'IDR5', 'IIDR', 'AIDR'] as const;
/** What follows from the ID registers, or from the model. */
const CONSTANT = /^(?:IDR\d|IIDR|AIDR|PIDR\d|CIDR\d)$/;
const STATE = REGISTERS.filter(({ name }) => !CONSTANT.test(name));

/** @throws SnapshotError while transactions are stalled: endpoints wait for an answer that only this device can give. */
export function saveSmmu(smmu: Smmu): SmmuSnapshot {
  if (smmu.stalled > 0)
    throw new SnapshotError('SNAPSHOT_IMPOSSIBLE', [
      `${smmu.stalled} transactions are stalled: the guest has to resume or terminate them first.`,
    ]);
  const registers: Record<string, string> = {};
  for (const spec of STATE) {
    const page = spec.offset < PAGE_SIZE ? smmu.registers : smmu.page1;
    const at = wordOf(spec.offset);
    const hi = spec.width === 64 ? page[at + 1] : 0;
    if (hi !== 0 || page[at] !== 0) registers[spec.name] = hex64(hi, page[at]);
  }
  const ids = Object.fromEntries(ID_NAMES.map((name) => [name, hex64(0, smmu.ids[name])]));
  return { ids, registers, atcInvTimeout: smmu.atcInvTimeout };
}

/** The ID registers of a snapshot. @throws SnapshotError if no SMMU of ours can have them. */
export function idsOf(snapshot: SmmuSnapshot): IdRegisters {
  const problems: string[] = [];
  const value = (name: string): number => word(snapshot.ids, name, problems);
  const ids = Object.fromEntries(ID_NAMES.map((name) => [name, value(name)])) as unknown as IdRegisters;
  if (problems.length === 0) problems.push(...identificationProblems(ids));
  if (problems.length > 0) throw new SnapshotError('SNAPSHOT_INVALID', problems);
  return ids;
}

/**
 * Puts an SMMU with the same ID registers into the state of a snapshot; {@link Smmu.resume} then lets it go on.
 * @throws SnapshotError naming everything that no SMMU can be in; the SMMU is as before then.
 */
export function restoreSmmu(smmu: Smmu, snapshot: SmmuSnapshot): void {
  const ids = idsOf(snapshot);
  const differing = ID_NAMES.filter((name) => ids[name] !== smmu.ids[name]);
  if (differing.length > 0)
    throw new SnapshotError('SNAPSHOT_IMPOSSIBLE', [`The SMMU here has another ${differing.join(', ')}.`]);
  const problems: string[] = [];
  const known = new Map<string, RegisterSpec>(STATE.map((spec) => [spec.name, spec]));
  const values: RegisterValue[] = [];
  for (const [name, text] of Object.entries(snapshot.registers)) {
    const spec = known.get(name);
    const value = parseU64(text);
    if (spec === undefined) problems.push(`There is no register "${name}".`);
    else if (value === undefined) problems.push(`${name} is no number.`);
    else values.push({ spec, hi: hiOf(value), lo: loOf(value) });
  }
  for (const { spec, hi, lo } of values)
    if ((lo & ~implementedBits(spec, 0, ids)) !== 0 || (hi & ~implementedBits(spec, 1, ids)) !== 0)
      problems.push(`${spec.name} has bits that this SMMU does not have.`);
  const of = (offset: number): number => values.find(({ spec }) => spec.offset === offset)?.lo ?? 0;
  // Our Updates are complete when the write returns: the two never differ.
  if (of(OFFSET.CR0) !== of(OFFSET.CR0ACK)) problems.push('CR0 and CR0ACK differ.');
  if (of(OFFSET.IRQ_CTRL) !== of(OFFSET.IRQ_CTRLACK)) problems.push('IRQ_CTRL and IRQ_CTRLACK differ.');
  if (of(OFFSET.GBPA) >>> 31 !== 0) problems.push('GBPA.UPDATE is set, and never reads 1.');
  if (problems.length > 0) throw new SnapshotError('SNAPSHOT_INVALID', problems);
  smmu.restore(values, snapshot.atcInvTimeout);
}

function word(from: Readonly<Record<string, string>>, name: string, problems: string[]): number {
  const value = parseU64(from[name] ?? '');
  if (value !== undefined && value < 1n << 32n) return Number(value);
  problems.push(`${name} is missing, or no 32-bit number.`);
  return 0;
}
