/** Transactions on the translation rig, explained. */

import { explainWalk } from '../../../src/explain/walk/explain-walk.ts';
import type { WalkExplanation } from '../../../src/explain/walk/walk.ts';
import { identify, QEMU_LIKE, type IdFields } from '../../../src/smmu/identification.ts';
import { Smmu } from '../../../src/smmu/smmu.ts';
import { Transaction } from '../../../src/smmu/transaction.ts';
import { type CdFields, hiOf, loOf, S2_RW_PAGE, type SteFields } from '../../support/tables.ts';
import { type Access, Rig } from '../../support/translation-rig.ts';

/** Explains a transaction on an SMMU whose registers and memory are those of the rig. */
export function explain(
  rig: Rig,
  address: bigint,
  access: Access & { sid?: number } = {},
  ids: IdFields = {},
): WalkExplanation {
  const smmu = new Smmu({
    ids: identify(QEMU_LIKE, ids),
    memory: rig.memory,
    interrupts: { raise() {}, writeMsi: () => true },
  });
  smmu.registers.set(rig.registers);
  const { ssid, ...rest } = access;
  return explainWalk(
    smmu,
    Object.assign(new Transaction(), { sid: 1, ...rest }, ssid === undefined ? {} : { ssv: true, ssid }, {
      addrHi: hiOf(address),
      addrLo: loOf(address),
    }),
  );
}

/** `<field> <bits>` of the cause. */
export const causeOf = ({ cause }: WalkExplanation): string =>
  cause === undefined ? 'none' : `${cause.field} ${cause.bits ?? ''}`.trim();

/** A rig with stage 1 of StreamID 1 that maps 0x1000 with this leaf. */
export function withLeaf(leaf: bigint, cd: CdFields = {}, ids: IdFields = {}, tables = 0n): Rig {
  const rig = new Rig(ids);
  const table = rig.stage1();
  table.map(0x1000n, 0x8000_1000n, leaf, 3, tables);
  rig.ste(1, { Config: 5, S1ContextPtr: rig.cd({ T0SZ: 25, IPS: 4, TTB0: table.base, ...cd }) });
  return rig;
}

/** A rig with both stages of StreamID 1: VA 0x1000 is IPA 0x5_0000_1000 is PA 0x8000_1000. */
export function nested(leaf: bigint, leaf2: bigint = S2_RW_PAGE, ste: SteFields = {}): Rig {
  const rig = new Rig();
  const s2 = rig.stage2();
  s2.map(0x5_0000_1000n, 0x8000_1000n, leaf2);
  const s1 = rig.stage1();
  s1.map(0x1000n, 0x5_0000_1000n, leaf);
  const cdAt = rig.cd({ T0SZ: 25, IPS: 4, TTB0: s1.base });
  rig.ste(1, { ...rig.stage2Fields(s2), Config: 7, S1ContextPtr: cdAt, ...ste });
  return rig;
}
