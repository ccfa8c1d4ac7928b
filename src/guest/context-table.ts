/** A device's table of Context Descriptors, and the CDs that the driver puts there. */

import { hiOfNumber, loOfNumber } from '../bits/u64.ts';
import { CACHEABILITY, CD, CD_SIZE, CD_TG0, CD_WORDS, SHAREABILITY } from '../spec/cd.ts';
import { STE_S1FMT } from '../spec/ste.ts';
import { L1_DESCRIPTOR_SIZE, L1CD } from '../spec/stream-table.ts';
import type { EntryKind } from './entry-writer.ts';
import { GuestDriverError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import type { Features } from './identification.ts';
import type { CdTableShape } from './stream-entries.ts';

/** CDs of one leaf of a 2-level table: 64 KiB. Tables of no more than these are linear. */
const LEAF_LOG2 = 10;

export class ContextTable implements CdTableShape {
  readonly #ram: GuestRam;
  readonly address: number;
  readonly format: number;
  readonly log2Cds: number;
  readonly #size: number;
  readonly #leaves = new Map<number, number>();

  /** @param ssidBits SubstreamIDs that the device uses, capped by what the SMMU has. */
  constructor(ram: GuestRam, features: Features, ssidBits: number) {
    this.#ram = ram;
    const wanted = Math.min(ssidBits, features.ssidBits);
    const linear = !features.twoLevelCdTable || wanted <= LEAF_LOG2;
    this.log2Cds = linear ? Math.min(wanted, LEAF_LOG2) : wanted;
    this.format = linear ? STE_S1FMT.Linear : STE_S1FMT.Leaf64K;
    this.#size = linear ? 2 ** this.log2Cds * CD_SIZE : 2 ** (wanted - LEAF_LOG2) * L1_DESCRIPTOR_SIZE;
    this.address = ram.allocate(this.#size, 'a table of context descriptors');
  }

  /**
   * Address of a CD, with its leaf allocated if need be.
   * @param leafAdded called when the first level changed: it must be made to forget what it was.
   * @throws GuestDriverError GUEST_ID_RANGE or GUEST_OUT_OF_MEMORY.
   */
  cdAddress(ssid: number, leafAdded: () => void): number {
    if (ssid < 0 || ssid >= 2 ** this.log2Cds)
      throw new GuestDriverError('GUEST_ID_RANGE', `SubstreamID ${ssid} is beyond ${this.log2Cds} bits`);
    if (this.format === STE_S1FMT.Linear) return this.address + ssid * CD_SIZE;
    const i = ssid >>> LEAF_LOG2;
    let leaf = this.#leaves.get(i);
    if (leaf === undefined) {
      leaf = this.#ram.allocate(2 ** LEAF_LOG2 * CD_SIZE, 'context descriptors');
      const descriptor = new Uint32Array(2);
      L1CD.V.set(descriptor, 1);
      L1CD.L2Ptr.set(descriptor, hiOfNumber(leaf), loOfNumber(leaf));
      this.#ram.store64(this.address + i * L1_DESCRIPTOR_SIZE, descriptor[1], descriptor[0]);
      this.#leaves.set(i, leaf);
      leafAdded();
    }
    return leaf + (ssid & (2 ** LEAF_LOG2 - 1)) * CD_SIZE;
  }

  /** Gives the memory back. The STE must not lead here any more. */
  free(): void {
    for (const leaf of this.#leaves.values()) this.#ram.release(leaf, 2 ** LEAF_LOG2 * CD_SIZE);
    this.#leaves.clear();
    this.#ram.release(this.address, this.#size);
  }
}

/** What a CD says of an address space. */
export interface AddressSpace {
  readonly asid: number;
  /** Address of the first table. */
  readonly table: number;
  /** log2 of the granule, and bits of an input address. */
  readonly granule: 12 | 14 | 16;
  readonly iovaBits: number;
  /** Halves of MAIR. */
  readonly mair0: number;
  readonly mair1: number;
  /** Accesses that fault are stalled. */
  readonly stall: boolean;
  /** The device sets access flags and dirty state. */
  readonly hardwareUpdate: boolean;
}

const TG0 = { 12: CD_TG0.Granule4K, 14: CD_TG0.Granule16K, 16: CD_TG0.Granule64K } as const;

/** A CD whose lower half is the address space; the upper half is off. */
export function contextDescriptor(space: AddressSpace, features: Features): Uint32Array {
  const words = new Uint32Array(CD_WORDS);
  CD.T0SZ.set(words, 64 - space.iovaBits);
  CD.TG0.set(words, TG0[space.granule]);
  CD.IR0.set(words, CACHEABILITY.WriteBackWriteAllocate);
  CD.OR0.set(words, CACHEABILITY.WriteBackWriteAllocate);
  CD.SH0.set(words, SHAREABILITY.Inner);
  CD.EPD1.set(words, 1);
  CD.V.set(words, 1);
  CD.IPS.set(words, features.oasCode);
  CD.AA64.set(words, 1);
  CD.S.set(words, space.stall ? 1 : 0);
  CD.R.set(words, 1);
  CD.A.set(words, 1);
  CD.ASET.set(words, 1);
  CD.HA.set(words, space.hardwareUpdate ? 1 : 0);
  CD.HD.set(words, space.hardwareUpdate ? 1 : 0);
  CD.ASID.set(words, space.asid);
  CD.TTB0.set(words, hiOfNumber(space.table), loOfNumber(space.table));
  CD.MAIR0.set(words, space.mair0);
  CD.MAIR1.set(words, space.mair1);
  return words;
}

export const CD_KIND: EntryKind = {
  harmless: new Uint32Array(CD_WORDS),
  usedBits(entry) {
    const used = new Uint32Array(CD_WORDS);
    if (CD.V.get(entry) === 1) used.fill(0xffff_ffff);
    else CD.V.set(used, 1);
    return used;
  },
};
