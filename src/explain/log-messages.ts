/** What Linux's SMMUv3 driver says besides event records, in sentences. */

import { hex32 } from '../bits/u64.ts';
import { CERROR } from '../spec/commands.ts';
import { CMDQ_CONS } from '../spec/registers.ts';
import { count, type Explanation, list, type Severity } from './explanation.ts';
import { explainGerror, gerrorMeaning } from './gerror.ts';

type Match = RegExpExecArray;

interface Message {
  readonly pattern: RegExp;
  /** Explained also in a line that does not name the driver. */
  readonly distinctive?: boolean;
  readonly explain: (match: Match) => Explanation;
}

const message = (
  name: string,
  severity: Severity,
  summary: string,
  checks: readonly string[] = [],
  details: readonly string[] = [],
): Explanation => ({ kind: 'message', severity, name, summary, details, checks, fields: [] });

const fixed = (
  pattern: RegExp,
  name: string,
  severity: Severity,
  summary: string,
  checks: readonly string[] = [],
  details: readonly string[] = [],
): Message => ({ pattern, explain: () => message(name, severity, summary, checks, details) });

/** Feature bits as the driver prints them; the names are the architecture's where it has one. */
const FEATURES = [
  '2-level stream tables',
  '2-level CD tables',
  'little-endian tables',
  'big-endian tables',
  'PRI',
  'ATS',
  'SEV',
  'MSIs',
  'coherent walks',
  'stage 1',
  'stage 2',
  'stalls',
  'EL2',
  'forced stalls',
  '52-bit virtual addresses',
  'range invalidation',
] as const;

function probe(match: Match): Explanation {
  const mask = Number.parseInt(match[2], 16);
  const named = FEATURES.filter((_, bit) => ((mask >>> bit) & 1) === 1);
  return message(
    'probe',
    'info',
    `The driver found an SMMU with ${match[1]}-bit output addresses: ${list(named)}.`,
  );
}

const CERRORS: Readonly<Record<number, readonly [string, string, readonly string[]]>> = {
  [CERROR.NONE]: ['CERROR_NONE', 'no error is given, although the queue reports one', []],
  [CERROR.ILL]: [
    'CERROR_ILL',
    'the SMMU calls a command illegal',
    [
      'The next lines give the command. Linux replaces it by a CMD_SYNC: the invalidation that it asked for never happens.',
      'Does the SMMU have the feature (IDR0, IDR3.RIL) that the command needs? A vSMMU has to show the guest what the host can do.',
    ],
  ],
  [CERROR.ABT]: [
    'CERROR_ABT',
    'the SMMU could not read a command from memory',
    [
      'Is CMDQ_BASE in RAM that the SMMU can reach? Linux tries the same read again, so this may repeat for ever.',
    ],
  ],
  [CERROR.ATC_INV_SYNC]: [
    'CERROR_ATC_INV_SYNC',
    'a device did not answer an ATS invalidation in time',
    [
      'Linux repeats the CMD_SYNC. Is the device hung, unplugged, or in reset? Its translations may be stale until it is reset.',
    ],
  ],
};

function commandError(match: Match): Explanation {
  const cons = Number.parseInt(match[1], 16);
  const [name, what, checks] = CERRORS[CMDQ_CONS.ERR.of(cons)] ?? [
    'CERROR',
    `an error code that the architecture does not define (${match[2]})`,
    [],
  ];
  return message(
    name,
    'error',
    `The command queue stopped at entry ${hex32(CMDQ_CONS.RD.of(cons))} (index and wrap bit): ${what}.`,
    checks,
  );
}

function syncTimeout(match: Match): Explanation {
  const [, at, prod, cons] = match;
  return message(
    'CMD_SYNC timeout',
    'error',
    'A CMD_SYNC did not complete within a second: Linux goes on as if it had, so stale translations may be in use.',
    [
      `Did CMDQ_CONS move on? It was ${cons} with CMDQ_PROD ${prod}. If it stands still: is the queue stopped by an error (a "CMDQ error" line), or a vSMMU's host stuck in an invalidation?`,
      'An ATS device that does not answer ATC_INV holds every later CMD_SYNC up.',
      'If the SMMU writes completions by MSI, does that write reach memory coherently (dma-coherent, COHACC)?',
    ],
    [`It was waited for at queue position ${at}.`],
  );
}

const oneGerror = (pattern: RegExp, name: Parameters<typeof gerrorMeaning>[0]): Message => ({
  pattern,
  explain: () => {
    const { summary, checks } = gerrorMeaning(name);
    return message(name, 'error', `${summary.charAt(0).toUpperCase()}${summary.slice(1)} (${name}).`, checks);
  },
});

const START_UP =
  'The SMMU did not come up: devices behind it have no DMA, or unprotected DMA if firmware left it in bypass.';
const ACK =
  'Does the SMMU acknowledge in CR0ACK, IRQ_CTRLACK or GBPA what was written? A model must reflect exactly the bits it implements.';

export const MESSAGES: readonly Message[] = [
  {
    pattern: /^unexpected global error reported \((0x[0-9a-f]{1,8})\)/i,
    distinctive: true,
    explain: (match) => explainGerror(Number.parseInt(match[1], 16)),
  },
  {
    pattern: /^CMDQ error \(cons (0x[0-9a-f]{1,8})\): (.{1,60})/i,
    distinctive: true,
    explain: commandError,
  },
  fixed(/^retrying command fetch$/, 'retry', 'info', 'Linux asks the SMMU to read the same command again.'),
  {
    pattern:
      /^CMD_SYNC timeout at (0x[0-9a-f]{1,8}) \[hw ?prod (0x[0-9a-f]{1,8}), hw ?cons (0x[0-9a-f]{1,8})\]/i,
    distinctive: true,
    explain: syncTimeout,
  },
  fixed(/^CMD_SYNC timeout/, 'CMD_SYNC timeout', 'error', 'A CMD_SYNC did not complete within a second.', [
    'Is the queue stopped by an error, or does an ATS device not answer ATC_INV?',
  ]),
  fixed(
    /^CMDQ timeout/,
    'CMDQ timeout',
    'error',
    'The command queue stayed full for a second: the SMMU does not consume commands.',
    ['Is CR0.CMDQEN set, and is there a "CMDQ error" that was not acknowledged?'],
  ),
  fixed(
    /^EVTQ overflow detected/,
    'EVTQ overflow',
    'warning',
    'The event queue was full and further events were lost: there were more faults than this log shows.',
    ['Look for the one device that floods the queue; its first events in this log are the telling ones.'],
  ),
  fixed(
    /^PRIQ overflow detected/,
    'PRIQ overflow',
    'warning',
    'The PRI queue was full: page requests were answered by the SMMU itself, and devices have to ask again.',
  ),
  oneGerror(/^EVTQ write aborted/, 'EVENTQ_ABT_ERR'),
  oneGerror(/^PRIQ write aborted/, 'PRIQ_ABT_ERR'),
  oneGerror(/^GERROR MSI write aborted/, 'MSI_GERROR_ABT_ERR'),
  oneGerror(/^EVTQ MSI write aborted/, 'MSI_EVENTQ_ABT_ERR'),
  oneGerror(/^PRIQ MSI write aborted/, 'MSI_PRIQ_ABT_ERR'),
  oneGerror(/^CMDQ MSI write aborted/, 'MSI_CMDQ_ABT_ERR'),
  oneGerror(/^device has entered Service Failure Mode/, 'SFM_ERR'),
  fixed(
    /^SMMU currently enabled! Resetting/,
    'enabled at probe',
    'warning',
    'The SMMU was already translating when Linux started: after a crash kernel was entered, or firmware left it on.',
    ['DMA that was in flight is aborted from here on (GBPA.ABORT).'],
  ),
  fixed(
    /^GBPA not responding to update/,
    'GBPA',
    'error',
    'GBPA.UPDATE did not return to 0.',
    [ACK],
    [START_UP],
  ),
  fixed(/^failed to (?:clear|disable) cr0/i, 'CR0', 'error', 'CR0 could not be cleared.', [ACK], [START_UP]),
  {
    pattern: /^failed to enable (command queue|event queue|PRI queue|SMMU interface|irqs|ATS check)/i,
    explain: (match) =>
      message('enable', 'error', `The SMMU did not acknowledge in time: ${match[1]}.`, [ACK], [START_UP]),
  },
  fixed(
    /^unknown\/unsupported TT endianness/,
    'IDR0',
    'error',
    'IDR0.TTENDIAN is not one that Linux knows: usually the registers are not there and read as ones.',
    ['Is the register window mapped, and is reg in the device tree (or the IORT base address) right?'],
    [START_UP],
  ),
  fixed(
    /^(?:no translation support|AArch64 table format not supported)/,
    'IDR0',
    'error',
    'IDR0 shows no stage, or no AArch64 tables.',
    ['With registers that read as zero: is the SMMU powered and its window mapped?'],
    [START_UP],
  ),
  fixed(
    /^no (?:evtq|gerr) irq/,
    'no interrupt',
    'warning',
    'An interrupt of the SMMU is missing: its events or errors will not be seen.',
    ["Check interrupts and interrupt-names (device tree), or the GSIVs of the IORT's SMMUv3 node."],
  ),
  {
    pattern: /^(?:ias \d+-bit, )?oas (\d+)-bit \(features (0x[0-9a-f]{1,8})\)/,
    explain: probe,
  },
  {
    pattern: /^allocated (\d+) entries for (cmdq|evtq|priq)/,
    explain: (match) => {
      const queue = { cmdq: 'command', evtq: 'event', priq: 'PRI' }[match[2] as 'cmdq'];
      return message(
        'queue',
        'info',
        `The ${queue} queue has ${count(Number(match[1]), 'entry', 'entries')}.`,
      );
    },
  },
];

/** "arm_smmu_evtq_thread: 123 callbacks suppressed", which no driver name precedes. */
const SUPPRESSED = /^(arm_smmu_\w+): (\d+) callbacks suppressed/;

/** Explains a message of the driver, or undefined if it is not a known one. */
export function explainMessage(text: string, fromDriver: boolean): Explanation | undefined {
  const suppressed = SUPPRESSED.exec(text);
  if (suppressed !== null)
    return message(
      'suppressed',
      'warning',
      `${count(Number(suppressed[2]), 'more event was', 'more events were')} taken from the queue and not printed (rate limit: 10 in 5 seconds).`,
    );
  for (const { pattern, distinctive, explain } of MESSAGES) {
    if (!fromDriver && distinctive !== true) continue;
    const match = pattern.exec(text);
    if (match !== null) return explain(match);
  }
  return undefined;
}

/** A message of the driver that has no explanation here. */
export const otherMessage = (text: string): Explanation =>
  message('other', 'info', `The driver says: ${text.length > 300 ? `${text.slice(0, 300)}...` : text}`);
