/**
 * Which bits deny an access. Found by asking the device's own permission functions what they would say with one bit
 * changed: whatever alone makes the difference is the answer, and if nothing does alone, the smallest set that does.
 */

import {
  HIERARCHY,
  stage1Permissions,
  stage1PermissionsEl2,
  stage2Permissions,
} from '../../smmu/permissions.ts';
import { type StageOne, WORLD } from '../../smmu/stage-one.ts';
import type { StageTwo } from '../../smmu/stage-two.ts';
import { S1_LEAF, S2_LEAF } from '../../spec/descriptors.ts';

/** A bit that denies, or helps to. */
export interface Denial {
  /** 'AP[2]', 'CD.WXN' ... */
  readonly field: string;
  /** HIERARCHY bit if it is in a table descriptor above; 0 if it is in the leaf. */
  readonly hierarchy: number;
  /** It is a field of the CD. */
  readonly inCd: boolean;
  /** Bit number in the descriptor. */
  readonly bit?: number;
  /** The value that denies, and why. */
  readonly text: string;
}

/** What stage 1 permissions are made of. */
interface S1State {
  hi: number;
  lo: number;
  hierarchy: number;
  WXN: boolean;
  PAN: boolean;
  EPAN: boolean;
}

interface Change<State> {
  readonly denial: Denial;
  readonly applies: (state: State) => boolean;
  readonly apply: (state: State) => void;
}

const table = (field: string, bit: number, hierarchy: number, text: string): Change<S1State> => ({
  denial: { field, bit, hierarchy, inCd: false, text },
  applies: (state) => (state.hierarchy & hierarchy) !== 0,
  apply: (state) => (state.hierarchy &= ~hierarchy),
});
const inCd = (field: 'WXN' | 'PAN' | 'EPAN', text: string): Change<S1State> => ({
  denial: { field: `CD.${field}`, hierarchy: 0, inCd: true, text },
  applies: (state) => state[field],
  apply: (state) => (state[field] = false),
});

const AP_WRITE = S1_LEAF.AP.put(2);
const AP_UNPRIVILEGED = S1_LEAF.AP.put(1);
const UXN = S1_LEAF.UXN.inPlace;
const PXN = S1_LEAF.PXN.inPlace;

/** What can stand in the way at stage 1, what is wider first: the leaf comes last. */
const STAGE1: readonly Change<S1State>[] = [
  table('APTable[1]', 62, HIERARCHY.NoWrite, 'APTable[1]=1 takes writes away from all below'),
  table(
    'APTable[0]',
    61,
    HIERARCHY.NoUnprivileged,
    'APTable[0]=1 takes unprivileged access away from all below',
  ),
  table('UXNTable', 60, HIERARCHY.UXN, 'UXNTable=1 takes unprivileged execution away from all below'),
  table('PXNTable', 59, HIERARCHY.PXN, 'PXNTable=1 takes privileged execution away from all below'),
  inCd('PAN', 'PAN=1 keeps privileged accesses from pages that unprivileged ones reach'),
  inCd('EPAN', 'EPAN=1 extends PAN to pages that unprivileged accesses may execute'),
  inCd('WXN', 'WXN=1: what may be written is not executed'),
  {
    denial: {
      field: 'UXN',
      bit: 54,
      hierarchy: 0,
      inCd: false,
      text: 'UXN=1: unprivileged accesses may not execute',
    },
    applies: ({ hi }) => (hi & UXN) !== 0,
    apply: (state) => (state.hi &= ~UXN),
  },
  {
    denial: {
      field: 'PXN',
      bit: 53,
      hierarchy: 0,
      inCd: false,
      text: 'PXN=1: privileged accesses may not execute',
    },
    applies: ({ hi }) => (hi & PXN) !== 0,
    apply: (state) => (state.hi &= ~PXN),
  },
  {
    denial: { field: 'AP[2]', bit: 7, hierarchy: 0, inCd: false, text: 'AP[2]=1: the page is read-only' },
    applies: ({ lo }) => (lo & AP_WRITE) !== 0,
    apply: (state) => (state.lo &= ~AP_WRITE),
  },
  {
    denial: {
      field: 'AP[1]',
      bit: 6,
      hierarchy: 0,
      inCd: false,
      text: 'AP[1]=0: the page is for privileged accesses only',
    },
    applies: ({ lo }) => (lo & AP_UNPRIVILEGED) === 0,
    apply: (state) => (state.lo |= AP_UNPRIVILEGED),
  },
  {
    denial: {
      field: 'AP[1]',
      bit: 6,
      hierarchy: 0,
      inCd: false,
      text: 'AP[1]=1 with AP[2]=0: what unprivileged accesses may write, privileged ones do not execute',
    },
    applies: ({ lo }) => (lo & (AP_UNPRIVILEGED | AP_WRITE)) === AP_UNPRIVILEGED,
    apply: (state) => (state.lo &= ~AP_UNPRIVILEGED),
  },
];

interface S2State {
  hi: number;
  lo: number;
}
const S2AP_READ = S2_LEAF.S2AP.put(1);
const S2AP_WRITE = S2_LEAF.S2AP.put(2);
const XN_HIGH = S2_LEAF.XN.put(0b10);
const XN_LOW = S2_LEAF.XN.put(0b01);

const STAGE2: readonly Change<S2State>[] = [
  {
    denial: { field: 'S2AP[0]', bit: 6, hierarchy: 0, inCd: false, text: 'S2AP[0]=0: no reads' },
    applies: ({ lo }) => (lo & S2AP_READ) === 0,
    apply: (state) => (state.lo |= S2AP_READ),
  },
  {
    denial: { field: 'S2AP[1]', bit: 7, hierarchy: 0, inCd: false, text: 'S2AP[1]=0: no writes' },
    applies: ({ lo }) => (lo & S2AP_WRITE) === 0,
    apply: (state) => (state.lo |= S2AP_WRITE),
  },
  {
    denial: { field: 'XN[1]', bit: 54, hierarchy: 0, inCd: false, text: 'XN[1]=1 forbids this execution' },
    applies: ({ hi }) => (hi & XN_HIGH) !== 0,
    apply: (state) => (state.hi &= ~XN_HIGH),
  },
  {
    denial: {
      field: 'XN[0]',
      bit: 53,
      hierarchy: 0,
      inCd: false,
      text: 'XN[0]=1 with XN[1]=0: only unprivileged accesses may execute',
    },
    applies: ({ hi }) => (hi & XN_LOW) !== 0,
    apply: (state) => (state.hi &= ~XN_LOW),
  },
];

/** The smallest set of changes that lets the access in, in their order; empty if there is none. */
function smallest<State extends object>(
  state: State,
  changes: readonly Change<State>[],
  allowed: (state: State) => boolean,
): readonly Denial[] {
  const possible = changes.filter(({ applies }) => applies(state));
  const permits = (chosen: readonly Change<State>[]): boolean => {
    const changed = { ...state };
    for (const { apply } of chosen) apply(changed);
    return allowed(changed);
  };
  let sets: readonly (readonly Change<State>[])[] = [[]];
  for (let size = 1; size <= possible.length; size++) {
    sets = sets.flatMap((set) =>
      possible.slice(possible.indexOf(set.at(-1) as Change<State>) + 1).map((change) => [...set, change]),
    );
    const found = sets.find((set) => permits(set));
    if (found !== undefined) return found.map(({ denial }) => denial);
  }
  return [];
}

/** The bits that keep an access from a stage 1 leaf. @param need the PERM bits of which one is wanted */
export function deniedByStage1(
  s1: StageOne,
  hi: number,
  lo: number,
  hierarchy: number,
  need: number,
): readonly Denial[] {
  const { WXN, PAN, EPAN, HD, world } = s1;
  const allowed = (state: S1State): boolean => {
    const clean = HD && (state.hi & S1_LEAF.DBM.inPlace) !== 0 && (state.lo & AP_WRITE) !== 0;
    const permissions =
      world === WORLD.EL2
        ? stage1PermissionsEl2(state.hi, state.lo, state.hierarchy, clean, state.WXN)
        : stage1Permissions(state.hi, state.lo, state.hierarchy, clean, state.WXN, state.PAN, state.EPAN);
    return (permissions & need) !== 0;
  };
  return smallest({ hi, lo, hierarchy, WXN, PAN, EPAN }, STAGE1, allowed);
}

/** The bits that keep an access from a stage 2 leaf. */
export function deniedByStage2(
  s2: StageTwo,
  hi: number,
  lo: number,
  need: number,
  XNX: boolean,
): readonly Denial[] {
  const allowed = (state: S2State): boolean => {
    const clean = s2.HD && (state.hi & S2_LEAF.DBM.inPlace) !== 0 && (state.lo & S2AP_WRITE) === 0;
    return (stage2Permissions(state.hi, state.lo, clean, XNX) & need) !== 0;
  };
  return smallest({ hi, lo }, STAGE2, allowed);
}
