/** Why a field makes an STE or a CD ILLEGAL (IHI 0070 5.2.2, 5.4.2), given what the SMMU has. */

import { hex32, hex64 } from '../../bits/u64.ts';
import type { CdField } from '../../smmu/cd-legality.ts';
import type { Features } from '../../smmu/features.ts';
import { exceeds, type SteField } from '../../smmu/ste-legality.ts';
import { CD } from '../../spec/cd.ts';
import { STE } from '../../spec/ste.ts';

type Reason = (words: Uint32Array, features: Features) => string;
type Reasons<Name extends string> = Readonly<Partial<Record<Name, Reason>>>;

const STALLS: Readonly<Record<number, string>> = {
  0b00: 'stalls and terminates',
  0b01: 'never stalls (IDR0.STALL_MODEL=1)',
  0b10: 'always stalls (IDR0.STALL_MODEL=2)',
};
const stallReason =
  (name: string): Reason =>
  (_words, features) =>
    `${name} does not fit an SMMU that ${STALLS[features.STALL_MODEL]}`;

const HTTU: readonly string[] = ['does not write to tables', 'sets the access flag only'];
const httuReason =
  (name: string): Reason =>
  (_words, features) =>
    `${name}=1 asks for hardware updates, and this SMMU ${HTTU[features.HTTU] ?? 'has all of them'} (IDR0.HTTU=${features.HTTU})`;

const GRANULES: readonly (readonly [log2: number, name: string])[] = [
  [12, '4 KiB'],
  [14, '16 KiB'],
  [16, '64 KiB'],
];
const granuleReason =
  (name: string, value: (words: Uint32Array) => number): Reason =>
  (words, features) => {
    const offered = GRANULES.filter(([log2]) => (features.granules & (1 << log2)) !== 0).map(([, n]) => n);
    return `${name}=${value(words)} is no granule that this SMMU has: it has ${offered.join(', ')} (IDR5)`;
  };

const endianReason =
  (name: string): Reason =>
  (_words, features) =>
    `${name} asks for a byte order of tables that this SMMU lacks (IDR0.TTENDIAN=${features.TTENDIAN})`;

const AARCH32 = 'asks for AArch32 tables, and this SMMU has AArch64 tables only (IDR0.TTF)';

const STE_REASONS: Reasons<SteField> = {
  V: () => 'V=0: the entry is not valid',
  Config: (ste, { S1P, S2P }) => {
    const config = STE.Config.get(ste);
    const lacks = (config & 1) !== 0 && !S1P ? 'stage 1 (IDR0.S1P=0)' : 'stage 2 (IDR0.S2P=0)';
    return `Config=${config} asks for ${lacks}${S1P && S2P ? '' : ', which this SMMU does not have'}`;
  },
  EATS: (ste) =>
    STE.EATS.get(ste) === 2
      ? 'EATS=2 (split-stage ATS) needs both stages, no stalls (S2S=0) and IDR0.NS1ATS=0'
      : `EATS=${STE.EATS.get(ste)} does not go with stalls at stage 2 (S2S=1)`,
  STRW: (ste) => `STRW=${STE.STRW.get(ste)} is reserved`,
  S1STALLD: stallReason('S1STALLD=1'),
  S1CDMax: (ste, { SSIDSIZE }) =>
    `S1CDMax=${STE.S1CDMax.get(ste)} is more SubstreamIDs than this SMMU has (IDR1.SSIDSIZE=${SSIDSIZE})`,
  S1Fmt: (ste) =>
    `S1Fmt=${STE.S1Fmt.get(ste)} asks for CDs in two levels, which this SMMU does not have (IDR0.CD2L=0)`,
  S1ContextPtr: (ste, { oasBits }) =>
    `S1ContextPtr ${hex64(STE.S1ContextPtr.getHi(ste), STE.S1ContextPtr.getLo(ste))} has more than the ${oasBits} bits of a physical address (IDR5.OAS)`,
  S2S: (ste, features) => stallReason(`S2S=${STE.S2S.get(ste)}`)(ste, features),
  S2AA64: () => `S2AA64=0 ${AARCH32}`,
  S2HA: httuReason('S2HA'),
  S2HD: httuReason('S2HD'),
  S2HAFT: () => 'S2HAFT=1 needs S2HA=1',
  S2TG: granuleReason('S2TG', (ste) => STE.S2TG.get(ste)),
  S2TTB: (ste, features) => {
    const hi = STE.S2TTB.getHi(ste);
    const bits = features.outputBits(STE.S2PS.get(ste));
    const limit = exceeds(hi & 0xf_ffff, bits)
      ? `${bits} bits that S2PS=${STE.S2PS.get(ste)} allows`
      : '48 bits that this granule has with S2DS=0';
    return `S2TTB ${hex64(hi, STE.S2TTB.getLo(ste))} is beyond the ${limit}`;
  },
  S2T0SZ: (ste) => `S2T0SZ=${STE.S2T0SZ.get(ste)} is outside what granule and address sizes allow`,
  S2SL0: (ste) =>
    `S2SL0=${STE.S2SL0.get(ste)} names no level from which tables of this granule resolve the ${64 - STE.S2T0SZ.get(ste)} bits of S2T0SZ=${STE.S2T0SZ.get(ste)}`,
  S2ENDI: endianReason('S2ENDI'),
  S2VMID: (ste) => `S2VMID=${hex32(STE.S2VMID.get(ste))} has more than 8 bits (IDR0.VMID16=0)`,
};

const tableReason =
  (name: 'TTB0' | 'TTB1'): Reason =>
  (cd, features) => {
    const hi = CD[name].getHi(cd);
    const bits = features.outputBits(CD.IPS.get(cd));
    const limit = exceeds(hi & 0xf_ffff, bits)
      ? `${bits} bits that IPS=${CD.IPS.get(cd)} allows`
      : '48 bits that this granule has with DS=0';
    return `${name} ${hex64(hi, CD[name].getLo(cd))} is beyond the ${limit}`;
  };
const sizeReason =
  (name: 'T0SZ' | 'T1SZ'): Reason =>
  (cd) =>
    `${name}=${CD[name].get(cd)} is outside what granule and address sizes allow`;

const CD_REASONS: Reasons<CdField> = {
  V: () => 'V=0: the descriptor is not valid',
  S: (cd, features) => {
    const S = CD.S.get(cd);
    if (S === 1 && features.STALL_MODEL === 0) return 'S=1 asks for stalls, which STE.S1STALLD=1 forbids';
    return stallReason(`S=${S}`)(cd, features);
  },
  A: () => 'A=0 asks for terminated reads to return zero, and this SMMU can only abort (IDR0.TERM_MODEL=1)',
  ENDI: endianReason('ENDI'),
  AA64: () => `AA64=0 ${AARCH32}`,
  HA: httuReason('HA'),
  HD: httuReason('HD'),
  HAFT: () => 'HAFT=1 needs HA=1',
  ASID: (cd) => `ASID=${hex32(CD.ASID.get(cd))} has more than 8 bits (IDR0.ASID16=0)`,
  TG0: granuleReason('TG0', (cd) => CD.TG0.get(cd)),
  T0SZ: sizeReason('T0SZ'),
  TTB0: tableReason('TTB0'),
  TG1: granuleReason('TG1', (cd) => CD.TG1.get(cd)),
  T1SZ: sizeReason('T1SZ'),
  TTB1: tableReason('TTB1'),
};

/** Half a sentence. */
export const illegalSteReason = (field: SteField, ste: Uint32Array, features: Features): string =>
  STE_REASONS[field]?.(ste, features) ?? `${field} has a value that is ILLEGAL`;

/** Half a sentence. */
export const illegalCdReason = (field: CdField, cd: Uint32Array, features: Features): string =>
  CD_REASONS[field]?.(cd, features) ?? `${field} has a value that is ILLEGAL`;
