/** The way through a table to a leaf. */

import type { PageTable, TableSpace } from '../../support/tables.ts';

/** A leaf, and the tables above it. */
export interface Path {
  readonly stage: 1 | 2;
  readonly input: bigint;
  readonly level: number;
  readonly log2Size: number;
  /** PA of the descriptor of each level, from the first one walked to the leaf. */
  readonly descriptors: readonly bigint[];
}

/** The addresses of the descriptors down to a level, in the table's own space. */
function* descend(table: PageTable, space: TableSpace, input: bigint, level: number): Generator<bigint> {
  const { log2Granule, inputBits } = table.shape;
  let at = table.base;
  for (let n = table.startLevel; n <= level; n++) {
    const lsb = BigInt(table.log2Size(n));
    const bits = n === table.startLevel ? BigInt(inputBits) - lsb : BigInt(log2Granule - 3);
    const where = at + 8n * ((input >> lsb) & ((1n << bits) - 1n));
    yield where;
    at = space.read(where) & 0xffff_ffff_ffffn & -(1n << BigInt(log2Granule));
  }
}

/** Whether a leaf can be put there: no other leaf on the way, nothing in its slot. */
export function isFree(table: PageTable, space: TableSpace, input: bigint, level: number): boolean {
  let n = table.startLevel;
  for (const where of descend(table, space, input, level)) {
    const descriptor = space.read(where);
    if (descriptor === 0n) return true;
    if (n === level || (descriptor & 3n) !== 3n) return false;
    n += 1;
  }
  return false;
}

/** The way to a leaf that was mapped. @param physical the PA of an address of the table's space */
export function pathOf(
  table: PageTable,
  space: TableSpace,
  input: bigint,
  level: number,
  stage: 1 | 2,
  physical: (at: bigint) => bigint,
): Path {
  const descriptors = [...descend(table, space, input, level)].map(physical);
  return { stage, input, level, log2Size: table.log2Size(level), descriptors };
}
