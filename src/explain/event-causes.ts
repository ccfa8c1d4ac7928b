/** Per event type: what happened, what it means, what to look at. */

import { EVENT_CLASS, type EventName } from '../spec/events.ts';
import { addressHints, ipaHints } from './address-hints.ts';
import { list } from './explanation.ts';

/** A record, read. */
export interface Facts {
  readonly type: number;
  /** 'nvme 0000:00:01.0 (StreamID 0x8)' */
  readonly device: string;
  readonly sid: number;
  /** Undefined if the transaction had none. */
  readonly ssid: number | undefined;
  /** 'unprivileged data read' */
  readonly access: string;
  readonly read: boolean;
  readonly instruction: boolean;
  readonly stage2: boolean;
  /** One of EVENT_CLASS. */
  readonly class: number;
  /** The table access was an update of flags by hardware, a write. */
  readonly hardwareUpdate: boolean;
  readonly stall: boolean;
  readonly stag: number;
  readonly reason: number;
  /** Undefined where the record was cut off before it. */
  readonly iova: bigint | undefined;
  readonly ipa: bigint | undefined;
  readonly fetchAddr: bigint | undefined;
  readonly requested: readonly string[];
}

export interface Cause {
  readonly summary: string;
  readonly details: readonly string[];
  readonly checks: readonly string[];
}

const hex = (value: bigint | undefined): string =>
  value === undefined ? '(not known)' : `0x${value.toString(16)}`;
const at = (name: string, value: bigint | undefined): string =>
  value === undefined ? `an ${name} that the text does not give` : `${name} ${hex(value)}`;
const iova = (facts: Facts): string => at('IOVA', facts.iova);
const ipa = (facts: Facts): string => at('IPA', facts.ipa);
const ended = (facts: Facts): string => (facts.stall ? 'is stalled' : 'was terminated');
const a = (text: string): string => (/^[aeiou]/.test(text) ? `an ${text}` : `a ${text}`);
/** The device's access in a sentence; 'unprivileged' begins with a vowel sound. */
const attempt = (facts: Facts): string => `${a(facts.access)} of ${iova(facts)} by ${facts.device}`;
const substream = (facts: Facts): string =>
  facts.ssid === undefined ? 'without a SubstreamID' : `with SubstreamID 0x${facts.ssid.toString(16)}`;

const NOT_SHOWN_TO_GUESTS =
  'This is the business of whoever owns stage 2 (the hypervisor): iommufd does not pass it on to a guest, it only ' +
  'shows in the log of the host.';
const GUEST_MEMORY =
  "Compare the IPA with the guest's memory map: an address outside RAM, memory that was unplugged or ballooned away, " +
  'or a device BAR (peer-to-peer DMA) that the VMM did not map into the IOAS.';

/** What the SMMU was doing for the transaction when stage 2 stopped it. */
function purpose(facts: Facts): string {
  if (facts.class === EVENT_CLASS.CD) return 'reading the context descriptor';
  if (facts.class === EVENT_CLASS.TT)
    return facts.hardwareUpdate && facts.type === 0x13
      ? 'updating a stage 1 translation table'
      : 'reading a stage 1 translation table';
  return 'translating the address that stage 1 gave, or the device itself if stage 1 is bypassed';
}

/** A stage 2 fault of any kind: `problem` says what is wrong with the IPA. */
function stage2(facts: Facts, problem: string, checks: readonly string[]): Cause {
  const pointer: readonly string[] =
    facts.class === EVENT_CLASS.CD
      ? [
          "The guest's STE.S1ContextPtr (or a first-level CD descriptor) points there: print the STE and check the pointer.",
        ]
      : facts.class === EVENT_CLASS.TT
        ? [
            "A TTBx of the guest's context descriptor or a table descriptor points there: the tables are corrupt, or were " +
              'freed while the stream still used them.',
          ]
        : [];
  return {
    summary: `${attempt(facts)} ${ended(facts)}: stage 2 ${problem} ${ipa(facts)}.`,
    details: [`The SMMU was ${purpose(facts)}.`, NOT_SHOWN_TO_GUESTS],
    checks: [...pointer, ...checks],
  };
}

const STALE =
  'The driver let the device use an address that it did not map, or not any more: look for DMA after dma_unmap_*(), ' +
  'stale descriptors or ring pointers after a reset, and lengths that run past the buffer.';
const PHYSICAL =
  'If the number is a physical address, somebody bypasses the DMA API: a driver, or firmware that left the device ' +
  'running (boot display, network boot) and needs an RMR.';
const CORRUPT_TABLES =
  'Only the kernel (or, nested, the guest) writes these tables: suspect memory corruption, or a CD that does not match ' +
  'the tables (granule, T0SZ, IPS).';

const fetchChecks = (what: string): string[] => [
  `Is the FetchAddr in RAM that the SMMU can reach? If not, the pointer to ${what} is wrong or its memory was freed.`,
  'After kexec or a crash kernel: did the old tables live in memory that is now used otherwise?',
  'If the address is sound, look for memory errors (RAS, EDAC, firmware logs) and for firewalls in the interconnect.',
];

export const CAUSES: Readonly<Record<EventName, (facts: Facts) => Cause>> = {
  F_UUT: (facts) => ({
    summary: `${facts.device} made a transaction that this SMMU does not support at all.`,
    details: [
      `The access was ${a(facts.access)} of ${iova(facts)}; the reason code is the implementation's own.`,
    ],
    checks: [
      "Look the reason up in the SMMU's technical reference manual; check the interconnect's configuration.",
    ],
  }),
  C_BAD_STREAMID: (facts) => ({
    summary: `StreamID 0x${facts.sid.toString(16)} is outside the stream table, so the transaction was aborted.`,
    details: [
      'Either the number exceeds STRTAB_BASE_CFG.LOG2SIZE, or its first-level descriptor says that no second-level ' +
        'table, or a shorter one, is there.',
    ],
    checks: [
      'Does firmware map this device to this StreamID (iommu-map, IORT ID mappings)? A hot-plugged bus may not be covered.',
      'Did a device without driver (left running by firmware) do the DMA? Linux makes second-level tables when it adds a device.',
    ],
  }),
  F_STE_FETCH: (facts) => ({
    summary: `The SMMU could not read the stream table for ${facts.device}: the read of ${hex(facts.fetchAddr)} was aborted.`,
    details: ['All traffic of this stream is aborted.'],
    checks: fetchChecks('the stream table (STRTAB_BASE, first-level descriptor)'),
  }),
  C_BAD_STE: (facts) => ({
    summary: `The Stream Table Entry of ${facts.device} is not valid, so the transaction was aborted.`,
    details: ['STE.V is 0, or the STE asks for something that is ILLEGAL or not implemented in this SMMU.'],
    checks: [
      'Print the 64 bytes of the STE and give them to `vsmmu explain --ste`.',
      'Compare the STE with the ID registers: stages, VMID16, stall model, S2FWB, EATS, granules and sizes of stage 2.',
      'During a change of STEs, Linux passes through V=0: was the device really quiet?',
    ],
  }),
  F_BAD_ATS_TREQ: (facts) => ({
    summary: `${facts.device} sent an ATS translation request for ${iova(facts)} that it may not make.`,
    details: [
      `ATS is off for this stream (STE.EATS), the stream bypasses stage 1 and 2, or the SMMU is disabled. Asked for: ${facts.requested.length === 0 ? 'no access' : list(facts.requested)}.`,
    ],
    checks: [
      'Is ATS enabled in the device (PCI ATS capability) although the STE forbids it? After kexec or VFIO hand-over it may be left on.',
      'Did the VMM show the guest an ATS capability that the vSMMU (IDR0.ATS) or the host does not back?',
    ],
  }),
  F_STREAM_DISABLED: (facts) => ({
    summary: `A transaction ${substream(facts)} from ${facts.device} was aborted: its stream does not take such traffic.`,
    details: [
      facts.ssid === undefined
        ? 'The stream has substreams and STE.S1DSS says that traffic without a SubstreamID is terminated.'
        : 'STE.S1DSS reserves SubstreamID 0 for traffic without one, so it may not be used explicitly.',
    ],
    checks: [
      facts.ssid === undefined
        ? 'The device does ordinary DMA (no PASID) while its driver has set up PASIDs only: check the default domain.'
        : 'The device was told to use PASID 0: PASIDs start at 1 on Linux.',
    ],
  }),
  F_TRANSL_FORBIDDEN: (facts) => ({
    summary: `${facts.device} sent an already translated address, ${hex(facts.iova)}, and may not do that.`,
    details: [
      'ATS is off for this stream (STE.EATS) or for the SMMU, so translated traffic is aborted (CR0.ATSCHK).',
    ],
    checks: [
      'Was ATS switched off while the device still held cached translations? ATC_INV and disabling ATS in the device come first.',
      'A device that does this without ever having had ATS is faulty or hostile.',
    ],
  }),
  C_BAD_SUBSTREAMID: (facts) => ({
    summary: `${facts.device} used a SubstreamID (PASID) that its stream does not have.`,
    details: [
      'SubstreamIDs are off (STE.S1CDMax is 0 or stage 1 is bypassed), the number is 2^S1CDMax or more, or its ' +
        'first-level CD descriptor is not valid.',
    ],
    checks: [
      'Is this PASID bound (SVA, or a domain attached to it)? It may have been released while the device still used it.',
      'Does the PCI PASID capability allow more PASIDs than STE.S1CDMax covers?',
    ],
  }),
  F_CD_FETCH: (facts) => ({
    summary: `The SMMU could not read a context descriptor for ${facts.device}: the read of ${hex(facts.fetchAddr)} was aborted.`,
    details: ['The transaction was aborted. The address is physical, after stage 2 if there is one.'],
    checks: fetchChecks('the context descriptors (STE.S1ContextPtr)'),
  }),
  C_BAD_CD: (facts) => ({
    summary: `The context descriptor of ${facts.device} is not valid, so the transaction was aborted.`,
    details: ['CD.V is 0, or the CD asks for something that is ILLEGAL or not implemented in this SMMU.'],
    checks: [
      'While a device moves from one domain to another, or its driver is unbound, Linux clears CD.V for a moment: a burst of ' +
        'these at such a time means that the device was not quiet.',
      'Print the 64 bytes of the CD and give them to `vsmmu explain --cd`; compare granule, T0SZ, IPS, ASID size and HA/HD with the ID registers.',
    ],
  }),
  F_WALK_EABT: (facts) => ({
    summary: `${attempt(facts)} was aborted: a translation table could not be read at ${hex(facts.fetchAddr)}.`,
    details: [
      facts.stage2
        ? `The table is stage 2's; the SMMU was ${purpose(facts)}.`
        : "The table is stage 1's. (A guest also gets this when stage 2 does not map the table's page.)",
    ],
    checks: fetchChecks('the table (TTBx, or the descriptor above it)'),
  }),
  F_TRANSLATION: (facts) => {
    if (facts.stage2)
      return stage2(facts, 'has no mapping for', [
        ...(facts.ipa === undefined ? [] : ipaHints(facts.ipa)),
        GUEST_MEMORY,
      ]);
    const hints = facts.iova === undefined ? [] : addressHints(facts.iova);
    return {
      summary: `${attempt(facts)} ${ended(facts)}: stage 1 has no mapping for it.`,
      details: [],
      checks: [...hints, STALE, PHYSICAL],
    };
  },
  F_ADDR_SIZE: (facts) => {
    if (facts.stage2)
      return stage2(facts, 'translates to an address that is too large, or has a table there, for', [
        CORRUPT_TABLES,
      ]);
    return {
      summary: `${attempt(facts)} ${ended(facts)}: an address is larger than stage 1 allows.`,
      details: [
        'A stage 1 descriptor holds an address beyond CD.IPS; or stage 1 is bypassed and the device itself used an ' +
          'address beyond the size of the SMMU (IDR5.OAS).',
      ],
      checks: [
        CORRUPT_TABLES,
        'If the stream bypasses stage 1: does the driver set a DMA mask larger than the machine, or is the address garbage?',
      ],
    };
  },
  F_ACCESS: (facts) => {
    if (facts.stage2)
      return stage2(facts, 'has the Access flag clear for', [
        'The hypervisor clears AF to see what is used: it has to answer.',
      ]);
    return {
      summary: `${attempt(facts)} ${ended(facts)}: the mapping's Access flag is 0.`,
      details: ['The page is mapped, but AF=0 in its descriptor and hardware does not set it (CD.HA=0).'],
      checks: [
        'Linux sets AF in every DMA mapping: such tables come from elsewhere (SVA shares those of a process, or of a guest).',
        'With SVA: does the fault reach the I/O page fault handler (stall or PRI)?',
      ],
    };
  },
  F_PERMISSION: (facts) => {
    const denied = facts.instruction ? 'be executed' : facts.read ? 'be read' : 'be written';
    if (facts.stage2)
      return stage2(
        facts,
        `does not let ${facts.class === EVENT_CLASS.IN ? `the device ${facts.read ? 'read' : 'write'}` : 'the SMMU use'}`,
        [
          facts.class === EVENT_CLASS.IN
            ? 'The guest gave the device an address that is read-only for it (ROM, flash, a page shared copy-on-write).'
            : 'With STE.S2PTW=1 this is a stage 1 table in device memory; with hardware update of flags, tables on pages that the guest may not write.',
        ],
      );
    return {
      summary: `${attempt(facts)} ${ended(facts)}: the mapping does not let it ${denied}.`,
      details: ['The page is mapped at stage 1, with less permission than this access needs.'],
      checks: [
        facts.read
          ? "Linux's stage 1 tables let everything that is mapped be read: this is a privileged page, an instruction fetch from data, or a table shared with a process (SVA) or written by a guest."
          : 'Was the buffer mapped DMA_TO_DEVICE (read-only) while the device writes it? Check the direction, and which queue the buffer was posted to.',
        'A ring or descriptor that was reused may point at a buffer of another kind.',
      ],
    };
  },
  F_TLB_CONFLICT: (facts) => ({
    summary: `${attempt(facts)} met two TLB entries for the same address.`,
    details: ["The reason code is the implementation's own; the transaction was aborted."],
    checks: [
      'A table entry was changed between block and page without break-before-make (unless IDR3.BBML allows it), or a TLBI is missing.',
    ],
  }),
  F_CFG_CONFLICT: (facts) => ({
    summary: `The SMMU found conflicting cached configuration for ${facts.device}.`,
    details: [],
    checks: ['STEs inside one STE.CONT span differ, or a CFGI_STE or CFGI_CD is missing after a change.'],
  }),
  E_PAGE_REQUEST: (facts) => ({
    summary: `The SMMU suggests that ${iova(facts)} for ${facts.device} should be made resident.`,
    details: [
      'This is only a hint; nothing failed.',
      // 7.3.19 shows its layout in a picture only.
      'The record also says how many pages (Span) and which accesses (pR, pW, pX, uR, uW, uX) are expected; where is not known here, so it is not shown.',
    ],
    checks: [],
  }),
  F_VMS_FETCH: (facts) => ({
    summary: `The SMMU could not read the Virtual Machine Structure for ${facts.device}: the read of ${hex(facts.fetchAddr)} was aborted.`,
    details: [],
    checks: fetchChecks('the VMS (STE.VMSPtr)'),
  }),
};

/** For numbers that the architecture does not name. */
export function otherCause(facts: Facts): Cause {
  const number = `0x${facts.type.toString(16).padStart(2, '0')}`;
  const own = facts.type >= 0xe0 && facts.type <= 0xef;
  return {
    summary: own
      ? `${facts.device} raised event ${number}, which is this implementation's own.`
      : `Event ${number} for ${facts.device} is not one that the architecture defines.`,
    details: [],
    checks: own
      ? ["Look the number up in the SMMU's technical reference manual."]
      : ['The record may be corrupt: check that its words are complete and in order.'],
  };
}
