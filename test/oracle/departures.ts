/** Ways in which QEMU 11.1.3's SMMUv3 departs from the architecture with single accesses. */

export interface Departure {
  /** What QEMU does, and what is right. */
  readonly reason: string;
  /** Where IHI 0070 says so. */
  readonly clause: string;
}

/**
 * By name; the walker (walker.ts) can take on each of them. Those that are seen most come first, as they are tried in this
 * order.
 */
export const WALK_DEPARTURES = {
  'ipa-low': {
    reason: 'QEMU fills bits [11:0] of the IPA field of records of stage 2; they are RES0.',
    clause: '7.3, 7.3.15',
  },
  's2-hit': {
    reason:
      'QEMU finds a permission fault of stage 2 in its TLB and then has no IPA, or with stage 2 alone no record; both belong to the record however the fault was found.',
    clause: '7.3.13, 7.3.16, 16.2',
  },
  'bypass-size': {
    reason:
      'QEMU aborts without a record when stage 1 is bypassed and the address is beyond the OAS; that is F_ADDR_SIZE of stage 1.',
    clause: '3.4, 7.3.14',
  },
  'next-table-s2': {
    reason:
      'QEMU reports faults of stage 2 on tables of stage 1 other than the first as of stage 1, with the address of the table; they have S2=1, and F_WALK_EABT the address of the descriptor of stage 2.',
    clause: '7.3.12, 7.3.13, 3.12',
  },
  'rnw-of-fetch': {
    reason:
      'QEMU says RnW=1 in records of stage 2 with CLASS CD or TT, of writes as well; RnW is that of the transaction.',
    clause: '7.3.12 to 7.3.16',
  },
  's1-table-base': {
    reason:
      "QEMU sends the base of a stage 1 table through stage 2, aligns the output, and adds the index; it is each descriptor's address that is translated.",
    clause: '3.3.2, 7.3.22',
  },
  's1-table-ips': {
    reason:
      'QEMU cuts the PA of the first table of stage 1 to IPS when there are two stages, and reads somewhere else; IPS is the size of what stage 1 gives, which is an IPA.',
    clause: '5.4 IPS, 3.4.3',
  },
  'table-size': {
    reason:
      'QEMU does not compare the address of a next-level table with IPS or S2PS, and reads there; that is an Address size fault.',
    clause: '5.4 IPS, 3.4.3, 7.3.14',
  },
  'size-last': {
    reason:
      'QEMU looks at Access flag and permissions of a leaf before the size of its address; Address size faults come first.',
    clause: '7.3.22',
  },
  ap1: {
    reason: 'QEMU does not look at AP[1] and APTable[0]; PCIe requests without PASID are unprivileged.',
    clause: '13.4.1, 13.7',
  },
  'aptable-early': {
    reason:
      'QEMU looks at APTable where the table is, before what is wrong further down; F_PERMISSION comes last.',
    clause: '7.3.22',
  },
  'aptable-hit': {
    reason:
      'QEMU does not keep APTable in its TLB: after a read, a write to a page that it makes read-only goes through.',
    clause: '5.4 HAD0, 16.2',
  },
  's2-hit-read': {
    reason:
      'QEMU does not look at read permission of stage 2 in its TLB: after a write, a read of a write-only page goes through.',
    clause: '16.2',
  },
  'ttb-with-cd': {
    reason:
      'QEMU sends both TTBs through stage 2 when it reads a CD; only the table that an access uses is read.',
    clause: '5.4.2, 5.4.1.1',
  },
  'ttb-kept': {
    reason:
      'QEMU keeps the output of stage 2 for TTBx with the CD, so that TLBI alone does not drop it; it is translation data.',
    clause: '3.21.1, 16.2.2',
  },
  's2-concatenated': {
    reason: 'QEMU reads only the first of the concatenated first-level tables of stage 2.',
    clause: '5.2 S2TTB, S2SL0',
  },
  'block-level': {
    reason:
      'QEMU takes a block descriptor at any level; where the granule has no blocks the encoding is reserved, and a Translation fault.',
    clause: '7.3.13',
  },
  tbi1: {
    reason: 'QEMU ignores CD.TBI1 and goes by TBI0 for both halves.',
    clause: '5.4 TBI, 3.4.1',
  },
  's2-t0sz-ps': {
    reason: 'QEMU takes an IPA size larger than S2PS for ILLEGAL; the limit is the IAS.',
    clause: '5.2 S2T0SZ, 5.2.2',
  },
  's2sl0-high': {
    reason:
      'QEMU takes an S2SL0 of too high a level for S2T0SZ, and reports F_TRANSLATION; it is ILLEGAL, C_BAD_STE.',
    clause: '5.2 S2SL0, 5.2.1',
  },
  s2ha: {
    reason: 'QEMU ignores S2HA and S2HD; without HTTU they are ILLEGAL, C_BAD_STE.',
    clause: '5.2 S2HA, 5.2.2',
  },
  s2ptw: {
    reason: 'QEMU ignores S2PTW; with it a table or CD in Device memory is F_PERMISSION of stage 2.',
    clause: '5.2 S2PTW',
  },
  s1cdmax: {
    reason: 'QEMU takes S1CDMax other than 0 for ILLEGAL; it is IGNORED without SubstreamIDs.',
    clause: '5.2 S1CDMax',
  },
  s1stalld: {
    reason: 'QEMU takes S1STALLD for ILLEGAL without stage 1, too; it is IGNORED then.',
    clause: '5.2 S1STALLD, 5.2.2',
  },
  s1contextptr: {
    reason:
      'QEMU reads a CD beyond the OAS, and reports F_CD_FETCH; with stage 1 alone such a pointer is ILLEGAL, C_BAD_STE.',
    clause: '3.4.3, 5.2.2',
  },
  'cd-fetch-place': {
    reason: 'QEMU puts FetchAddr of F_CD_FETCH into the third doubleword; it belongs into the last.',
    clause: '7.3.10',
  },
  ttrnw: {
    reason: 'QEMU does not set TTRnW of F_PERMISSION with CLASS=TT.',
    clause: '7.3.16',
  },
  recinvsid: {
    reason: 'QEMU records C_BAD_STREAMID without CR2.RECINVSID.',
    clause: '6.3.12, 7.3.3',
  },
  'l2-span': {
    reason:
      'QEMU takes 2^Span STEs behind an L1STD and reports C_BAD_STE beyond, and takes Span above SPLIT + 1; there are 2^(Span-1), beyond is C_BAD_STREAMID, and so is such a Span.',
    clause: '5.1.1, 7.3.3',
  },
  'combined-block': {
    reason:
      "QEMU keeps what it found through two stages by the smaller leaf, and TLBI_NH_VA with another address of stage 1's block does not drop it; any address in the block does.",
    clause: '4.4.1, 16.2.2',
  },
} as const satisfies Record<string, Departure>;

export type Quirk = keyof typeof WALK_DEPARTURES;
