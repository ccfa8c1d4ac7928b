/** An access of an endpoint, what it comes to, and what QEMU keeps of it. */

import { get } from './levels.ts';

export interface Access {
  readonly sid: number;
  readonly write: boolean;
  readonly iova: bigint;
}

/** What an access comes to. A record is four 64-bit words; that the Event queue can take it is not looked at. */
export interface Outcome {
  readonly pa?: bigint;
  readonly record?: readonly bigint[];
}

/** What QEMU has kept from earlier accesses of a case. */
export interface Kept {
  /** PA of a stream's first-level table, by {@link tableKey}. */
  readonly tables: ReadonlyMap<string, bigint>;
  /** Leaves, by {@link leavesKey}, through which an access went. */
  readonly reached: ReadonlySet<string>;
  /** Where a page of 4 KiB was found through two stages, by {@link pageKey}. */
  readonly pages: ReadonlyMap<string, bigint>;
}

/** What QEMU's TLB tells pages of two stages apart by. */
export const pageKey = (ste: readonly bigint[], cd: readonly bigint[], iova: bigint): string =>
  `${get(ste[2], 15, 0)} ${get(cd[0], 63, 48)} ${BigInt.asIntN(56, iova) >> 12n}`;

export const leavesKey = (leaves: readonly bigint[]): string => leaves.join(' ');

export const tableKey = (sid: number, upper: boolean): string => `${sid} ${upper ? 1 : 0}`;
