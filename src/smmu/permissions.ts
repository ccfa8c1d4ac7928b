import { S1_LEAF, S2_LEAF } from '../spec/descriptors.ts';

/** Accesses that a translation allows, as bits: unprivileged and privileged read, write, instruction read. */
export const PERM = { UR: 1, UW: 2, UX: 4, PR: 8, PW: 16, PX: 32 } as const;
/** From an unprivileged PERM bit to the privileged one. */
export const PRIVILEGED_SHIFT = 3;
export const PERM_UNPRIVILEGED = PERM.UR | PERM.UW | PERM.UX;
export const PERM_WRITE = PERM.UW | PERM.PW;

/** The one PERM bit that an access needs. Writes are data (13.1.4: INST counts for reads only). */
export function permissionNeeded(write: boolean, instruction: boolean, privileged: boolean): number {
  const access = write ? PERM.UW : instruction ? PERM.UX : PERM.UR;
  return privileged ? access << PRIVILEGED_SHIFT : access;
}

const S1_AP_UNPRIVILEGED = S1_LEAF.AP.put(1);
const S1_AP_READ_ONLY = S1_LEAF.AP.put(2);
const PXN = S1_LEAF.PXN.inPlace;
const UXN = S1_LEAF.UXN.inPlace;

/** What table descriptors above a leaf took away (APTable, PXNTable, UXNTable), as bits. */
export const HIERARCHY = { NoUnprivileged: 1, NoWrite: 2, PXN: 4, UXN: 8 } as const;

/**
 * Stage 1 permissions of a leaf in a regime with two privilege levels: EL1, and EL2 with E2H (13.4.1).
 * @param writableClean the leaf is read-only only because it is clean (3.13.3), so that a write may be let in.
 */
export function stage1Permissions(
  leafHi: number,
  leafLo: number,
  hierarchy: number,
  writableClean: boolean,
  WXN: boolean,
  PAN: boolean,
  EPAN: boolean,
): number {
  const unprivileged = (leafLo & S1_AP_UNPRIVILEGED) !== 0 && (hierarchy & HIERARCHY.NoUnprivileged) === 0;
  const writable =
    ((leafLo & S1_AP_READ_ONLY) === 0 || writableClean) && (hierarchy & HIERARCHY.NoWrite) === 0;
  const pxn = (leafHi & PXN) !== 0 || (hierarchy & HIERARCHY.PXN) !== 0;
  const uxn = (leafHi & UXN) !== 0 || (hierarchy & HIERARCHY.UXN) !== 0;
  let perms: number = PERM.PR;
  if (writable) perms |= PERM.PW;
  if (unprivileged) perms |= writable ? PERM.UR | PERM.UW : PERM.UR;
  // What unprivileged accesses may write, privileged ones do not execute.
  if (!pxn && (perms & PERM.UW) === 0 && !(WXN && writable)) perms |= PERM.PX;
  if (!uxn && !(WXN && (perms & PERM.UW) !== 0)) perms |= PERM.UX;
  // 5.4 PAN; EPAN extends it to what unprivileged accesses may only execute.
  if (PAN && (unprivileged || (EPAN && !uxn))) perms &= ~(PERM.PR | PERM.PW);
  return perms;
}

/** Stage 1 permissions of a leaf in plain EL2, where PRIV, AP[1] and PXN play no part (13.4.1). */
export function stage1PermissionsEl2(
  leafHi: number,
  leafLo: number,
  hierarchy: number,
  writableClean: boolean,
  WXN: boolean,
): number {
  const writable =
    ((leafLo & S1_AP_READ_ONLY) === 0 || writableClean) && (hierarchy & HIERARCHY.NoWrite) === 0;
  const xn = (leafHi & UXN) !== 0 || (hierarchy & HIERARCHY.UXN) !== 0;
  let perms: number = PERM.UR | PERM.PR;
  if (writable) perms |= PERM.UW | PERM.PW;
  if (!xn && !(WXN && writable)) perms |= PERM.UX | PERM.PX;
  return perms;
}

const S2AP_READ = S2_LEAF.S2AP.put(1);
const S2AP_WRITE = S2_LEAF.S2AP.put(2);
const XN_HIGH = S2_LEAF.XN.put(0b10);
const XN_LOW = S2_LEAF.XN.put(0b01);

/** Stage 2 permissions of a leaf (13.4.3). Without XNX only XN[1] counts. */
export function stage2Permissions(
  leafHi: number,
  leafLo: number,
  writableClean: boolean,
  XNX: boolean,
): number {
  let perms = 0;
  if ((leafLo & S2AP_READ) !== 0) perms |= PERM.UR | PERM.PR;
  if ((leafLo & S2AP_WRITE) !== 0 || writableClean) perms |= PERM.UW | PERM.PW;
  const high = (leafHi & XN_HIGH) !== 0;
  const differ = XNX && (leafHi & XN_LOW) !== 0;
  // XN=0b00 both, 0b01 unprivileged only, 0b10 none, 0b11 privileged only.
  if (!high) perms |= PERM.UX;
  if (high === differ) perms |= PERM.PX;
  return perms;
}
