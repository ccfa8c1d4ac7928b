/** Context Descriptors (IHI 0070 5.4) in sentences. */

import { hex32, hex64 } from '../bits/u64.ts';
import { CD, CD_TG0, CD_TG1, CD_WORDS } from '../spec/cd.ts';
import { OAS_BITS } from '../spec/registers.ts';
import { decode } from './decode.ts';
import { type Explanation, sizeOf } from './explanation.ts';

const GRANULE0: Readonly<Record<number, number>> = {
  [CD_TG0.Granule4K]: 12,
  [CD_TG0.Granule64K]: 16,
  [CD_TG0.Granule16K]: 14,
};
const GRANULE1: Readonly<Record<number, number>> = {
  [CD_TG1.Granule4K]: 12,
  [CD_TG1.Granule64K]: 16,
  [CD_TG1.Granule16K]: 14,
};

interface Half {
  readonly name: string;
  readonly disabled: boolean;
  readonly log2Granule: number | undefined;
  readonly TxSZ: number;
  readonly table: string;
}

const halves = (cd: Uint32Array): readonly [Half, Half] => [
  {
    name: 'lower',
    disabled: CD.EPD0.get(cd) === 1,
    log2Granule: GRANULE0[CD.TG0.get(cd)],
    TxSZ: CD.T0SZ.get(cd),
    table: hex64(CD.TTB0.getHi(cd), CD.TTB0.getLo(cd)),
  },
  {
    name: 'upper',
    disabled: CD.EPD1.get(cd) === 1,
    log2Granule: GRANULE1[CD.TG1.get(cd)],
    TxSZ: CD.T1SZ.get(cd),
    table: hex64(CD.TTB1.getHi(cd), CD.TTB1.getLo(cd)),
  },
];

function halfSentence(half: Half): string {
  if (half.disabled) return `The ${half.name} half of addresses is not translated (F_TRANSLATION).`;
  const granule =
    half.log2Granule === undefined ? 'a reserved granule' : `pages of ${sizeOf(half.log2Granule)}`;
  return `The ${half.name} half has ${64 - half.TxSZ} bits and ${granule}; its tables start at ${half.table}.`;
}

function faults(cd: Uint32Array): string {
  if (CD.S.get(cd) === 1) return 'Faults stall the transaction and are recorded (S=1).';
  const fate = CD.A.get(cd) === 1 ? 'abort the transaction' : 'make reads return zero and writes vanish';
  return `Faults ${fate} and are ${CD.R.get(cd) === 1 ? '' : 'not '}recorded (S, A, R).`;
}

/** What looks wrong, seen from the words alone. */
function suspicions(cd: Uint32Array): string[] {
  if (cd.every((word) => word === 0)) return ['All words are 0: the descriptor was never written.'];
  if (CD.V.get(cd) === 0)
    return ['Linux clears V while it replaces a descriptor: a device that does DMA then gets C_BAD_CD.'];
  const found: string[] = [];
  if (CD.AA64.get(cd) === 0) found.push('AA64=0 asks for AArch32 tables, which few SMMUs have.');
  for (const half of halves(cd)) {
    if (half.disabled) continue;
    if (half.log2Granule === undefined)
      found.push(`The granule of the ${half.name} half is a reserved value: ILLEGAL.`);
    if (half.TxSZ < 16 || half.TxSZ > 39)
      found.push(
        `The size of the ${half.name} half (TxSZ=${half.TxSZ}) is outside 16..39: ILLEGAL unless the SMMU has small tables or 52-bit addresses.`,
      );
  }
  if (CD.EPD0.get(cd) === 1 && CD.EPD1.get(cd) === 1)
    found.push('Both halves are off: every address faults.');
  if (CD.HD.get(cd) === 1 && CD.HA.get(cd) === 0) found.push('HD=1 without HA=1 has no effect.');
  if (CD.S.get(cd) === 0 && CD.R.get(cd) === 0)
    found.push('R=0: translation faults leave no trace in the event queue.');
  return found;
}

/**
 * Explains a Context Descriptor.
 * @param words the sixteen 32-bit words of the descriptor; missing ones count as zero
 */
export function explainCd(words: Uint32Array): Explanation {
  const cd = new Uint32Array(CD_WORDS);
  cd.set(words.subarray(0, CD_WORDS));
  const valid = CD.V.get(cd) === 1;
  const asid = hex32(CD.ASID.get(cd));
  const details: string[] = [];
  if (valid) {
    for (const half of halves(cd)) details.push(halfSentence(half));
    details.push(`Addresses that come out have at most ${OAS_BITS[CD.IPS.get(cd)]} bits (IPS).`, faults(cd));
    if (CD.HD.get(cd) === 1 && CD.HA.get(cd) === 1)
      details.push('Hardware marks pages as accessed and dirty (HA, HD).');
    else if (CD.HA.get(cd) === 1) details.push('Hardware marks pages as accessed (HA).');
    if (CD.ASET.get(cd) === 0)
      details.push(
        'Its translations take part in broadcast invalidation by processors (ASET=0), as for SVA.',
      );
  }
  return {
    kind: 'cd',
    severity: 'info',
    name: 'CD',
    summary: valid
      ? `The descriptor is valid: stage 1 translations of ASID ${asid}.`
      : 'The descriptor is not valid (V=0): transactions that use it are aborted and reported as C_BAD_CD.',
    details,
    checks: suspicions(cd),
    fields: decode(CD, cd),
    clause: '5.4',
  };
}
