/**
 * What a guest may be told, given the host: its stage-1 tables and CDs are read by the physical SMMU, so a feature that
 * concerns them is there only if the hardware has it. The stream table, queues and StreamIDs are ours, and need nothing.
 */

import type { Field } from '../bits/field.ts';
import { HostError } from '../iommufd/errors.ts';
import type { HostInfo } from '../iommufd/host-info.ts';
import type { IdRegisters } from '../smmu/identification.ts';
import { AIDR, IDR0, IDR1, IDR3, IDR5, OAS_BITS } from '../spec/registers.ts';

/** One ID field that the guest must see with another value. */
export interface Lowering {
  /** `IDR5.OAS` */
  readonly field: string;
  readonly from: number;
  readonly to: number;
  /** Why, as a sentence. */
  readonly why: string;
}

/** What becomes of a guest's ID registers on a host. */
export interface Fit {
  /** The registers that the guest may see. */
  readonly ids: IdRegisters;
  readonly lowered: readonly Lowering[];
  /** Why this host cannot serve any such guest, as sentences; empty if it can. */
  readonly problems: readonly string[];
}

type Register = 'IDR0' | 'IDR1' | 'IDR3' | 'IDR5';

interface Rule {
  readonly register: Register;
  readonly name: string;
  readonly field: Field;
  /** The value that the guest may have, from its own and the host's; equal to its own if that is fine. */
  readonly allow: (guest: number, host: number) => number;
  readonly why: string;
}

const atMost = (guest: number, host: number): number => Math.min(guest, host);
const never = (): number => 0;

function rules(
  register: Register,
  layout: Readonly<Record<string, Field>>,
  names: readonly string[],
  allow: Rule['allow'],
  why: string,
): Rule[] {
  return names.map((name) => ({ register, name, field: layout[name], allow, why }));
}

const NOT_IN_HARDWARE = 'the host SMMU has no more than this';
const NOT_NESTED = 'Linux does not offer it to a nested stage 1';

const RULES: readonly Rule[] = [
  ...rules('IDR0', IDR0, ['ASID16', 'CD2L', 'ATS'], atMost, NOT_IN_HARDWARE),
  ...rules('IDR0', IDR0, ['S2P', 'HYP', 'HTTU', 'BTM', 'ATOS', 'VATOS', 'NS1ATS', 'VMW'], never, NOT_NESTED),
  // 6.3.1: 0b10 is little-endian tables only, 0b11 big-endian only, 0b00 both.
  ...rules(
    'IDR0',
    IDR0,
    ['TTENDIAN'],
    (guest, host) => (host === 0 ? guest : host),
    'the host SMMU reads only such tables',
  ),
  // 6.3.1: 0b00 stalls where a CD says so, 0b01 never. Whether a device may is another question: recoverable-faults.ts.
  ...rules(
    'IDR0',
    IDR0,
    ['STALL_MODEL'],
    (guest, host) => (host === 0b00 ? guest : 0b01),
    'the host SMMU does not stall',
  ),
  ...rules('IDR0', IDR0, ['TERM_MODEL'], Math.max, 'the host SMMU can only abort'),
  ...rules('IDR0', IDR0, ['TTF'], (guest, host) => guest & host & 0b10, 'only AArch64 tables can be nested'),
  ...rules('IDR1', IDR1, ['SSIDSIZE'], atMost, NOT_IN_HARDWARE),
  ...rules(
    'IDR3',
    IDR3,
    ['RIL', 'BBML', 'HAD', 'E0PD', 'PTWNNC', 'STT', 'EPAN', 'PBHA'],
    atMost,
    NOT_IN_HARDWARE,
  ),
  ...rules(
    'IDR3',
    IDR3,
    ['XNX', 'FWB', 'MPAM', 'PPS', 'DPT', 'PASIDTT', 'S1PI', 'S2PI', 'S2PO', 'THE', 'MTEPERM', 'AIE'],
    never,
    NOT_NESTED,
  ),
  ...rules('IDR5', IDR5, ['OAS', 'GRAN4K', 'GRAN16K', 'GRAN64K', 'DS', 'VAX'], atMost, NOT_IN_HARDWARE),
  ...rules('IDR5', IDR5, ['STALL_MAX'], atMost, NOT_IN_HARDWARE),
  ...rules('IDR5', IDR5, ['D128'], never, NOT_NESTED),
];

type Fitted = Record<Register | 'AIDR', number>;

/** A field that becomes another value where something else is not there; in this order. */
interface Need {
  readonly register: keyof Fitted;
  readonly name: string;
  readonly field: Field;
  readonly holds: (fitted: Fitted) => boolean;
  readonly otherwise: (value: number) => number;
  readonly why: string;
}

const ONLY_WITH_ATS = 'it belongs to ATS';
const NO_SUCH_TABLES = 'what is left has no tables of 52 bits';
/** 48 bits. */
const OAS_48 = 5;
const SMMU_V3_0 = 0;
/** IDR0.STALL_MODEL. */
const TERMINATE_ONLY = 0b01;

/** 6.3.8: SMMUv3.0 has no 52-bit addresses at all. */
const hasTablesOf52 = ({ IDR5: word, AIDR: revision }: Fitted): boolean =>
  revision > SMMU_V3_0 && (IDR5.GRAN64K.of(word) === 1 || IDR5.DS.of(word) === 1);

const NEEDS: readonly Need[] = [
  need('IDR0', IDR0, 'ATSRECERR', ({ IDR0: word }) => IDR0.ATS.of(word) === 1, ONLY_WITH_ATS),
  need('IDR0', IDR0, 'PRI', ({ IDR0: word }) => IDR0.ATS.of(word) === 1, ONLY_WITH_ATS),
  need('IDR1', IDR1, 'PRIQS', ({ IDR0: word }) => IDR0.PRI.of(word) === 1, 'there is no PRI queue'),
  // 6.3.8: what a revision promises.
  need(
    'AIDR',
    AIDR,
    'ArchMinorRev',
    ({ IDR3: word }) => IDR3.HAD.of(word) === 1,
    'SMMUv3.1 has HAD',
    () => SMMU_V3_0,
  ),
  need(
    'IDR0',
    IDR0,
    'STALL_MODEL',
    ({ IDR5: word }) => IDR5.STALL_MAX.of(word) > 0,
    'no transaction can stall',
    () => TERMINATE_ONLY,
  ),
  need(
    'IDR5',
    IDR5,
    'STALL_MAX',
    ({ IDR0: word }) => IDR0.STALL_MODEL.of(word) !== TERMINATE_ONLY,
    'nothing stalls',
  ),
  need(
    'IDR5',
    IDR5,
    'DS',
    ({ IDR5: word, AIDR: revision }) =>
      revision > SMMU_V3_0 && IDR5.VAX.of(word) === 1 && IDR5.GRAN4K.of(word) + IDR5.GRAN16K.of(word) > 0,
    'it belongs to 52-bit addresses of the smaller granules',
  ),
  need('IDR5', IDR5, 'VAX', hasTablesOf52, NO_SUCH_TABLES),
  need('IDR5', IDR5, 'OAS', hasTablesOf52, NO_SUCH_TABLES, (OAS) => Math.min(OAS, OAS_48)),
];

function need(
  register: keyof Fitted,
  layout: Readonly<Record<string, Field>>,
  name: string,
  holds: Need['holds'],
  why: string,
  otherwise: Need['otherwise'] = () => 0,
): Need {
  return { register, name, field: layout[name], holds, otherwise, why };
}

const INDEX: Readonly<Record<Register, number>> = { IDR0: 0, IDR1: 1, IDR3: 3, IDR5: 5 };

/** @returns what a guest with these ID registers may see on this host. Lowering twice changes nothing more. */
export function fitToHost(ids: IdRegisters, host: HostInfo): Fit {
  const fitted: Fitted = {
    IDR0: ids.IDR0,
    IDR1: ids.IDR1,
    IDR3: ids.IDR3,
    IDR5: ids.IDR5,
    AIDR: ids.AIDR,
  };
  const lowered: Lowering[] = [];
  const lower = (
    { register, name, field, why }: Pick<Need, 'register' | 'name' | 'field' | 'why'>,
    to: number,
  ): void => {
    const from = field.of(fitted[register]);
    if (to === from) return;
    fitted[register] = ((fitted[register] & ~field.inPlace) | field.put(to)) >>> 0;
    lowered.push({ field: `${register}.${name}`, from, to, why });
  };
  for (const rule of RULES)
    lower(
      rule,
      rule.allow(rule.field.of(fitted[rule.register]), rule.field.of(host.idr[INDEX[rule.register]])),
    );
  for (const other of NEEDS)
    if (!other.holds(fitted)) lower(other, other.otherwise(other.field.of(fitted[other.register])));
  return { ids: { ...ids, ...fitted }, lowered, problems: problemsOf(fitted, host) };
}

function problemsOf(fitted: Fitted, host: HostInfo): string[] {
  const problems: string[] = [];
  if (IDR0.S1P.of(host.idr[0]) === 0) problems.push('The host SMMU has no stage 1 (IDR0.S1P=0).');
  if (IDR0.S2P.of(host.idr[0]) === 0) problems.push('The host SMMU has no stage 2 (IDR0.S2P=0).');
  if (IDR0.STALL_MODEL.of(host.idr[0]) === 0b10)
    problems.push('The host SMMU stalls every fault (IDR0.STALL_MODEL=0b10).');
  if (IDR0.TTF.of(fitted.IDR0) === 0)
    problems.push('Guest and host have no format of translation tables in common.');
  const { GRAN4K, GRAN16K, GRAN64K } = IDR5;
  if ((fitted.IDR5 & (GRAN4K.inPlace | GRAN16K.inPlace | GRAN64K.inPlace)) === 0)
    problems.push('Guest and host have no granule in common.');
  return problems;
}

/**
 * Makes sure that what the guest was told is true on this host.
 * @param ids the guest's ID registers, which it may have read already.
 * @throws HostError naming every difference, and what to tell the guest instead.
 */
export function requireCompatible(ids: IdRegisters, host: HostInfo): void {
  const { lowered, problems } = fitToHost(ids, host);
  if (problems.length > 0) throw new HostError('EOPNOTSUPP', 'plug', problems.join(' '));
  if (lowered.length === 0) return;
  const differences = lowered.map(
    ({ field, from, to, why }) => `${describe(field, from)} must be ${describe(field, to, false)}: ${why}`,
  );
  throw new HostError(
    'EOPNOTSUPP',
    'plug',
    `the guest was told of more than this host can do. ${differences.join('. ')}.`,
    'Plug the device before the guest starts, so that its ID registers follow the host, or lower them by the properties ril, ats, oas, ssidsize, stall and pri.',
  );
}

function describe(field: string, value: number, full = true): string {
  const text = field === 'IDR5.OAS' ? `${value} (${OAS_BITS[value]} bits)` : String(value);
  return full ? `${field}=${text}` : text;
}
