/** Commands (IHI 0070 chapter 4) in sentences. */

import { hex32, hex64, join } from '../bits/u64.ts';
import {
  ATC_INV_SIZE_ALL,
  CFGI_ALL_RANGE,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_STE_RANGE,
  CMD_DPTI_PA,
  CMD_PREFETCH_ADDR,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_SYNC,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  COMMAND,
  COMMAND_WORDS,
  COMMANDS,
  type CommandName,
  PRI_RESP,
  SYNC_CS,
  TLBI_RANGE,
} from '../spec/commands.ts';
import { decode } from './decode.ts';
import type { Explanation } from './explanation.ts';

type Words = Uint32Array;

const BY_OPCODE = new Map(COMMANDS.map((spec) => [spec.opcode, spec]));
const COMMON = CMD_CFGI_CD;

const sid = (words: Words): string => `StreamID ${hex32(COMMON.StreamID.get(words))}`;
const ssid = (words: Words): string => `SubstreamID ${hex32(COMMON.SubstreamID.get(words))}`;
const asid = (words: Words): string => `ASID ${hex32(CMD_TLBI_NH_ASID.ASID.get(words))}`;
const vmid = (words: Words): string => `VMID ${hex32(CMD_TLBI_NH_ASID.VMID.get(words))}`;
const leafOnly = (words: Words): boolean => COMMON.Leaf.get(words) === 1;
const LOG2_GRANULE = [12, 12, 14, 16] as const;

/** The addresses of a TLBI by address (4.4.1.1). */
function range(words: Words): string {
  const { Address } = CMD_TLBI_NH_VA;
  const first = join(Address.getHi(words), Address.getLo(words));
  const tg = TLBI_RANGE.TG.get(words);
  const last = leafOnly(words) ? 'leaf entries' : 'entries of all levels';
  if (tg === 0) return `${last} for address ${hex64(Address.getHi(words), Address.getLo(words))}`;
  const granule = 1n << BigInt(LOG2_GRANULE[tg]);
  const pages = BigInt(TLBI_RANGE.NUM.get(words) + 1) << BigInt(TLBI_RANGE.SCALE.get(words));
  const end = BigInt.asUintN(64, first + pages * granule - 1n);
  const level = TLBI_RANGE.TTL.get(words);
  return (
    `${last} for 0x${first.toString(16)}..0x${end.toString(16)} (${pages} ${pages === 1n ? 'page' : 'pages'} of ${granule / 1024n} KiB` +
    `${level === 0 ? '' : `, leaf at level ${level}`})`
  );
}

function sync(words: Words): string {
  const { MSIAddress, MSIData } = CMD_SYNC;
  const hi = MSIAddress.getHi(words);
  const lo = MSIAddress.getLo(words);
  switch (CMD_SYNC.CS.get(words)) {
    case SYNC_CS.None:
      return ', without any signal';
    case SYNC_CS.IRQ:
      if (hi === 0 && lo === 0) return ' and signals the cmd-sync interrupt';
      return ` and writes ${hex32(MSIData.get(words))} to ${hex64(hi, lo)}`;
    case SYNC_CS.SEV:
      return ' and wakes processors that wait for an event (SEV)';
    default:
      return ' (CS=3 is reserved: CERROR_ILL)';
  }
}

function priResponse(words: Words): string {
  const { PRGIndex, Resp } = CMD_PRI_RESP;
  const answers: Record<number, string> = {
    [PRI_RESP.ResponseFailure]: 'failure',
    [PRI_RESP.InvalidRequest]: 'invalid request',
    [PRI_RESP.Success]: 'success',
  };
  const answer = answers[Resp.get(words)] ?? 'a reserved response (CERROR_ILL)';
  return `Answers page request group ${PRGIndex.get(words)} of ${sid(words)} with ${answer}.`;
}

function resume(words: Words): string {
  const stag = hex32(CMD_RESUME.STAG.get(words));
  const what =
    CMD_RESUME.Ac.get(words) === 1
      ? 'Retries'
      : CMD_RESUME.Ab.get(words) === 1
        ? 'Aborts'
        : 'Ends (reads return zero, writes are ignored)';
  return `${what} the stalled transaction ${stag} of ${sid(words)}.`;
}

function configurationRange(words: Words): string {
  const log2 = CMD_CFGI_STE_RANGE.Range.get(words);
  if (log2 === CFGI_ALL_RANGE) return 'Drops all cached configuration, of all StreamIDs (CMD_CFGI_ALL).';
  const n = 2 ** (log2 + 1);
  const first = Math.floor(CMD_CFGI_STE_RANGE.StreamID.get(words) / n) * n;
  return `Drops cached configuration of StreamIDs ${hex32(first)}..${hex32(first + n - 1)}.`;
}

function atcInvalidation(words: Words): string {
  const size = CMD_ATC_INV.Size.get(words);
  const { Address } = CMD_ATC_INV;
  const what =
    size >= ATC_INV_SIZE_ALL
      ? 'everything'
      : `2^${size} pages at ${hex64(Address.getHi(words), Address.getLo(words))}`;
  return `Tells the device of ${sid(words)} to forget ${what} in its address translation cache (ATS).`;
}

const SENTENCES: Readonly<Record<CommandName, (words: Words) => string>> = {
  CMD_PREFETCH_CONFIG: (w) => `Suggests to fetch the configuration of ${sid(w)}.`,
  CMD_PREFETCH_ADDR: (w) =>
    `Suggests to translate ahead for ${sid(w)}, from ${hex64(CMD_PREFETCH_ADDR.Addr.getHi(w), CMD_PREFETCH_ADDR.Addr.getLo(w))} on.`,
  CMD_CFGI_STE: (w) =>
    `Drops the cached STE of ${sid(w)} and its CDs${leafOnly(w) ? '' : ', and its first-level descriptor'}.`,
  CMD_CFGI_STE_RANGE: configurationRange,
  CMD_CFGI_CD: (w) =>
    `Drops the cached CD of ${sid(w)}, ${ssid(w)}${leafOnly(w) ? '' : ', and its first-level descriptor'}.`,
  CMD_CFGI_CD_ALL: (w) => `Drops all cached CDs of ${sid(w)}.`,
  CMD_CFGI_VMS_PIDM: (w) => `Drops the cached PARTID map of ${vmid(w)}.`,
  CMD_TLBI_NH_ALL: (w) => `Drops all stage 1 translations of ${vmid(w)}.`,
  CMD_TLBI_NH_ASID: (w) => `Drops the non-global stage 1 translations of ${asid(w)}, ${vmid(w)}.`,
  CMD_TLBI_NH_VA: (w) => `Drops stage 1 translations of ${asid(w)}, ${vmid(w)}: ${range(w)}.`,
  CMD_TLBI_NH_VAA: (w) => `Drops stage 1 translations of any ASID, ${vmid(w)}: ${range(w)}.`,
  CMD_TLBI_EL3_ALL: () => 'Drops all EL3 translations; only in a Secure queue.',
  CMD_TLBI_EL3_VA: (w) => `Drops EL3 translations: ${range(w)}; only in a Secure queue.`,
  CMD_TLBI_EL2_ALL: () => 'Drops all EL2 translations.',
  CMD_TLBI_EL2_ASID: (w) => `Drops EL2 translations of ${asid(w)}.`,
  CMD_TLBI_EL2_VA: (w) => `Drops EL2 translations of ${asid(w)}: ${range(w)}.`,
  CMD_TLBI_EL2_VAA: (w) => `Drops EL2 translations of any ASID: ${range(w)}.`,
  CMD_TLBI_S12_VMALL: (w) => `Drops all translations of ${vmid(w)}, both stages.`,
  CMD_TLBI_S2_IPA: (w) => `Drops stage 2 translations of ${vmid(w)}: ${range(w)}.`,
  CMD_TLBI_NSNH_ALL: () => 'Drops all Non-secure translations that are not EL2.',
  CMD_ATC_INV: atcInvalidation,
  CMD_PRI_RESP: priResponse,
  CMD_RESUME: resume,
  CMD_STALL_TERM: (w) => `Ends all stalled transactions of ${sid(w)} with an abort.`,
  CMD_SYNC: (w) => `Waits until all commands before it have taken effect${sync(w)}.`,
  CMD_TLBI_S_EL2_ALL: () => 'Drops all Secure EL2 translations; only in a Secure queue.',
  CMD_TLBI_S_EL2_ASID: (w) => `Drops Secure EL2 translations of ${asid(w)}; only in a Secure queue.`,
  CMD_TLBI_S_EL2_VA: (w) => `Drops Secure EL2 translations: ${range(w)}; only in a Secure queue.`,
  CMD_TLBI_S_EL2_VAA: (w) => `Drops Secure EL2 translations: ${range(w)}; only in a Secure queue.`,
  CMD_TLBI_S_S12_VMALL: (w) => `Drops all Secure translations of ${vmid(w)}; only in a Secure queue.`,
  CMD_TLBI_S_S2_IPA: (w) => `Drops Secure stage 2 translations: ${range(w)}; only in a Secure queue.`,
  CMD_TLBI_SNH_ALL: () => 'Drops all Secure translations that are not EL2; only in a Secure queue.',
  CMD_DPTI_ALL: () => 'Drops all cached device permission table entries.',
  CMD_DPTI_PA: (w) =>
    `Drops cached device permissions of physical address ${hex64(CMD_DPTI_PA.Address.getHi(w), CMD_DPTI_PA.Address.getLo(w))}.`,
};

/** What could make the SMMU call this command illegal, seen from the words alone. */
function suspicions(name: CommandName, words: Words): string[] {
  const found: string[] = [];
  const spec = BY_OPCODE.get(COMMAND.Opcode.get(words));
  if (spec !== undefined && 'SSec' in spec.fields && COMMON.SSec.get(words) === 1)
    found.push('SSec=1 is illegal in a Non-secure queue.');
  if (name.startsWith('CMD_TLBI_S_') || name === 'CMD_TLBI_SNH_ALL' || name.includes('_EL3_'))
    found.push('This command is illegal in a Non-secure queue.');
  if (
    spec !== undefined &&
    'TG' in spec.fields &&
    TLBI_RANGE.TG.get(words) !== 0 &&
    TLBI_RANGE.NUM.get(words) === 0 &&
    TLBI_RANGE.SCALE.get(words) === 0 &&
    TLBI_RANGE.TTL.get(words) === 0
  )
    found.push('TG is set while NUM, SCALE and TTL are all 0: reserved with range invalidation (IDR3.RIL).');
  if (name.startsWith('CMD_ATC') || name === 'CMD_PRI_RESP')
    found.push(
      `Illegal if the SMMU has no ${name === 'CMD_PRI_RESP' ? 'PRI (IDR0.PRI)' : 'ATS (IDR0.ATS)'}.`,
    );
  if (name.startsWith('CMD_TLBI_EL2')) found.push('Illegal if the SMMU has no EL2 (IDR0.HYP).');
  if (name === 'CMD_TLBI_S2_IPA' || name === 'CMD_TLBI_S12_VMALL')
    found.push('Illegal if the SMMU has no stage 2 (IDR0.S2P).');
  if (name === 'CMD_RESUME' || name === 'CMD_STALL_TERM')
    found.push('Illegal if the SMMU cannot stall (IDR0.STALL_MODEL is 1).');
  return found;
}

/**
 * Explains a command.
 * @param words the four 32-bit words of the command
 */
export function explainCommand(words: Uint32Array): Explanation {
  const command = new Uint32Array(COMMAND_WORDS);
  command.set(words.subarray(0, COMMAND_WORDS));
  const opcode = COMMAND.Opcode.get(command);
  const spec = BY_OPCODE.get(opcode);
  if (spec === undefined)
    return {
      kind: 'command',
      severity: 'info',
      name: 'UNKNOWN',
      summary: `Opcode ${hex32(opcode, 2)} is not a command that the architecture defines.`,
      details: [],
      checks: ['The queue may have been overwritten, or the SMMU read a slot that was not filled in yet.'],
      fields: decode(COMMAND, command),
    };
  return {
    kind: 'command',
    severity: 'info',
    name: spec.name,
    summary: SENTENCES[spec.name](command),
    details: suspicions(spec.name, command),
    checks: [],
    fields: decode({ ...COMMAND, ...spec.fields }, command),
    clause: spec.clause,
  };
}
