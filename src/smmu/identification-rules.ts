/** Which ID register values can exist together (IHI 0070 6.3.1 to 6.3.8), and which of those this model can be. */

import { AIDR, IDR0, IDR1, IDR3, IDR5 } from '../spec/registers.ts';
import type { IdRegisters } from './id-registers.ts';
import { PerIdentification } from './per-identification.ts';

/** Fields that the model does not offer: each would promise registers or behaviour that are not there. */
const NOT_MODELLED = {
  IDR0: ['BTM', 'DORMHINT', 'SEV', 'ATOS', 'VMW', 'VATOS', 'RME_IMPL'],
  IDR1: ['REL', 'QUEUES_PRESET', 'TABLES_PRESET', 'ECMDQ'],
  IDR3: ['PBHA', 'MPAM', 'DPT', 'PASIDTT', 'S1PI', 'S2PI', 'S2PO', 'THE', 'MTEPERM', 'AIE'],
  IDR5: ['D128'],
} as const;

/** One sentence for each thing that is wrong; empty if the set is good. */
export const identificationProblems = (ids: IdRegisters): readonly string[] => PROBLEMS.of(ids);

const PROBLEMS = new PerIdentification(problemsOf);

function problemsOf(ids: IdRegisters): string[] {
  const problems: string[] = [];
  const must = (holds: boolean, otherwise: string): void => {
    if (!holds) problems.push(otherwise);
  };
  const d0 = read(IDR0, ids.IDR0);
  const d1 = read(IDR1, ids.IDR1);
  const d3 = read(IDR3, ids.IDR3);
  const d5 = read(IDR5, ids.IDR5);
  const { ArchMajorRev, ArchMinorRev } = read(AIDR, ids.AIDR);
  const both = d0.S1P === 1 && d0.S2P === 1;

  must(d0.S1P === 1 || d0.S2P === 1, 'S1P or S2P must be 1: an SMMU has at least one stage.');
  must(d0.TTF === 2, 'TTF must be 2: the model has AArch64 tables only.');
  must(d0.TTENDIAN !== 1, 'TTENDIAN 1 is reserved.');
  must(d0.STALL_MODEL !== 3, 'STALL_MODEL 3 is reserved.');
  must(d0.ST_LEVEL <= 1, 'ST_LEVEL must be 0 or 1.');
  must(d0.HYP === 0 || both, 'HYP needs S1P and S2P.');
  must(d0.NS1ATS === 0 || (d0.ATS === 1 && both), 'NS1ATS needs ATS, S1P and S2P.');
  must(d0.PRI === 0 || d0.ATS === 1, 'PRI needs ATS.');
  must(d0.ATSRECERR === 0 || d0.ATS === 1, 'ATSRECERR needs ATS.');
  must(d0.VMID16 === 0 || d0.S2P === 1 || d0.S1P === 1, 'VMID16 needs a stage of translation.');

  must(d1.SIDSIZE <= 32, `SIDSIZE is 0..32, not ${d1.SIDSIZE}.`);
  must(
    d1.SIDSIZE < 7 || d0.ST_LEVEL !== 0,
    'SIDSIZE of 7 or more needs two-level stream tables (ST_LEVEL 1).',
  );
  must(d1.SSIDSIZE <= 20, `SSIDSIZE is 0..20, not ${d1.SSIDSIZE}.`);
  must(d1.SSIDSIZE === 0 || d0.S1P === 1, 'SSIDSIZE needs S1P: SubstreamIDs select stage 1 contexts.');
  must(d1.CMDQS <= 19 && d1.EVENTQS <= 19 && d1.PRIQS <= 19, 'CMDQS, EVENTQS and PRIQS are 0..19.');
  must(d1.PRIQS === 0 || d0.PRI === 1, 'PRIQS needs PRI.');

  must(d3.PPS === 0 || (d0.PRI === 1 && d1.SSIDSIZE > 0), 'PPS needs PRI and SSIDSIZE.');
  must(d3.BBML <= 2, 'BBML 3 is reserved.');
  must(d3.PTWNNC === 0 || d0.S2P === 1, 'PTWNNC needs S2P.');
  must(d3.FWB === 0 || d0.S2P === 1, 'FWB needs S2P.');
  must(d3.HAD === 0 || d0.S1P === 1, 'HAD needs S1P.');
  must(d3.E0PD === 0 || d0.S1P === 1, 'E0PD needs S1P.');

  must(d5.OAS <= 6, 'OAS must be 0..6 (32 to 52 bits): 56 bits needs 128-bit descriptors.');
  must(d5.GRAN4K + d5.GRAN16K + d5.GRAN64K > 0, 'At least one of GRAN4K, GRAN16K and GRAN64K must be 1.');
  must(d5.VAX <= 1, 'VAX must be 0 or 1 (48 or 52 bits).');
  must(d5.DS === 0 || d5.VAX === 1, 'DS needs VAX 1 (52 bits).');
  must(d5.DS === 0 || d5.GRAN4K + d5.GRAN16K > 0, 'DS needs GRAN4K or GRAN16K.');
  const tablesOf52 = d5.GRAN64K === 1 || (d5.DS === 1 && d5.GRAN4K + d5.GRAN16K > 0);
  must(d5.OAS !== 6 || tablesOf52, 'OAS 6 needs GRAN64K or DS: no descriptor holds 52 bits otherwise.');
  must(d5.VAX !== 1 || tablesOf52, 'VAX 1 needs GRAN64K or DS: no table translates 52 bits otherwise.');
  must(d5.STALL_MAX === 0 || d0.STALL_MODEL !== 1, 'STALL_MAX needs a STALL_MODEL other than 1.');
  must(d0.STALL_MODEL === 1 || d5.STALL_MAX > 0, 'A STALL_MODEL with stalls needs STALL_MAX of at least 1.');

  // 6.3.8: a revision promises what became mandatory in it.
  must(ArchMajorRev === 0 && ArchMinorRev <= 4, 'AIDR must be 0..4 (SMMUv3.0 to v3.4).');
  must(ArchMinorRev >= 1 || (d5.OAS < 6 && d5.VAX === 0), '52-bit addresses need AIDR 1 (SMMUv3.1).');
  must(ArchMinorRev >= 1 || d3.XNX === 0, 'XNX needs AIDR 1 (SMMUv3.1).');
  must(ArchMinorRev < 1 || d0.S1P === 0 || d3.HAD === 1, 'SMMUv3.1 with S1P must have HAD.');
  must(ArchMinorRev < 1 || d0.S2P === 0 || d3.XNX === 1, 'SMMUv3.1 with S2P must have XNX.');
  must(ArchMinorRev < 2 || d3.RIL === 1, 'SMMUv3.2 must have RIL.');
  must(ArchMinorRev < 2 || d3.BBML >= 1, 'SMMUv3.2 must have BBML of at least 1.');
  must(ArchMinorRev < 2 || d0.S2P === 0 || d3.FWB === 1, 'SMMUv3.2 with S2P must have FWB.');
  must(ArchMinorRev < 2 || !both || d0.HYP === 1, 'SMMUv3.2 with S1P and S2P must have HYP.');
  must(ArchMinorRev < 3 || d3.E0PD === 1 || d0.S1P === 0, 'SMMUv3.3 with S1P must have E0PD.');
  must(ArchMinorRev < 3 || d0.S2P === 0 || d3.PTWNNC === 1, 'SMMUv3.3 with S2P must have PTWNNC.');
  must(ArchMinorRev < 4 || d0.S1P === 0 || d3.EPAN === 1, 'SMMUv3.4 with S1P must have EPAN.');
  must(ArchMinorRev < 4 || d0.S2P === 0, 'SMMUv3.4 with S2P needs MTEPERM, which the model does not have.');

  for (const [registerName, layout] of [
    ['IDR0', IDR0],
    ['IDR1', IDR1],
    ['IDR3', IDR3],
    ['IDR5', IDR5],
  ] as const) {
    const values = read(layout, ids[registerName]) as Record<string, number>;
    for (const name of NOT_MODELLED[registerName])
      must(values[name] === 0, `${registerName}.${name} must be 0: the model does not have it.`);
    let known = 0;
    for (const field of Object.values(layout)) known |= field.inPlace;
    must((ids[registerName] & ~known) === 0, `${registerName} has reserved bits set.`);
  }
  must(ids.IDR2 === 0, 'IDR2 must be 0: it belongs to VATOS.');
  return problems;
}

/** Values of all fields of one register. */
function read<T extends Readonly<Record<string, { of(word: number): number }>>>(
  layout: T,
  word: number,
): Record<keyof T, number> {
  const values = {} as Record<keyof T, number>;
  for (const name in layout) values[name] = layout[name].of(word);
  return values;
}
