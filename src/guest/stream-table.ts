/** The driver's stream table: linear, or with second levels that appear when a StreamID is first wanted. */

import { hiOfNumber, loOfNumber } from '../bits/u64.ts';
import { STRTAB_BASE, STRTAB_BASE_CFG, STRTAB_FMT } from '../spec/registers.ts';
import { STE_SIZE, STE_WORDS } from '../spec/ste.ts';
import { L1_DESCRIPTOR_SIZE, L1STD } from '../spec/stream-table.ts';
import { GuestDriverError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import { type Features, STRTAB_SPLIT } from './identification.ts';
import type { KernelLog } from './kernel-log.ts';
import { abortSte } from './stream-entries.ts';

/** The driver makes no more first-level descriptors than this. */
const MAX_L1_LOG2 = 17;

export class StreamTable {
  readonly #ram: GuestRam;
  readonly #sidBits: number;
  /** Halves of STRTAB_BASE, and STRTAB_BASE_CFG. */
  readonly baseHi: number;
  readonly baseLo: number;
  readonly config: number;
  readonly #at: number;
  readonly #twoLevel: boolean;
  /** Addresses of the second-level tables, by the upper bits of the StreamID. */
  readonly #second = new Map<number, number>();

  /** Allocates the table. Every STE aborts, or is out of reach. @throws GuestDriverError GUEST_OUT_OF_MEMORY. */
  constructor(ram: GuestRam, features: Features, log: KernelLog) {
    this.#ram = ram;
    this.#twoLevel = features.twoLevelStreamTable;
    const base = new Uint32Array(2);
    const config = new Uint32Array(1);
    if (this.#twoLevel) {
      const l1Log2 = Math.min(features.sidBits - STRTAB_SPLIT, MAX_L1_LOG2);
      this.#sidBits = l1Log2 + STRTAB_SPLIT;
      if (this.#sidBits < features.sidBits)
        log.warn(`2-level strtab only covers ${this.#sidBits}/${features.sidBits} bits of SID`);
      this.#at = ram.allocate(2 ** l1Log2 * L1_DESCRIPTOR_SIZE, 'the first-level stream table');
      STRTAB_BASE_CFG.FMT.set(config, STRTAB_FMT.TwoLevel);
      STRTAB_BASE_CFG.SPLIT.set(config, STRTAB_SPLIT);
    } else {
      this.#sidBits = features.sidBits;
      this.#at = ram.allocate(2 ** this.#sidBits * STE_SIZE, 'the linear stream table');
      this.#fill(this.#at, 2 ** this.#sidBits);
    }
    STRTAB_BASE_CFG.LOG2SIZE.set(config, this.#sidBits);
    STRTAB_BASE.ADDR.set(base, hiOfNumber(this.#at), loOfNumber(this.#at));
    STRTAB_BASE.RA.set(base, 1);
    this.baseHi = base[1];
    this.baseLo = base[0];
    this.config = config[0];
  }

  /** The StreamID can be looked up by the device. */
  inRange(sid: number): boolean {
    return sid >= 0 && sid < 2 ** this.#sidBits;
  }

  /**
   * Makes sure that the StreamID has an STE, and that it aborts if it is new. A new second level needs no invalidation:
   * the descriptor was invalid, and the device keeps nothing of those.
   * @throws GuestDriverError GUEST_ID_RANGE or GUEST_OUT_OF_MEMORY.
   */
  prepare(sid: number): void {
    if (!this.inRange(sid))
      throw new GuestDriverError('GUEST_ID_RANGE', `StreamID ${sid} is beyond ${this.#sidBits} bits`);
    if (!this.#twoLevel) return;
    const block = Math.floor(sid / 2 ** STRTAB_SPLIT);
    if (this.#second.has(block)) return;
    const stes = 2 ** STRTAB_SPLIT;
    const at = this.#ram.allocate(stes * STE_SIZE, 'a second-level stream table');
    this.#fill(at, stes);
    const descriptor = new Uint32Array(2);
    L1STD.Span.set(descriptor, STRTAB_SPLIT + 1);
    L1STD.L2Ptr.set(descriptor, hiOfNumber(at), loOfNumber(at));
    this.#ram.store64(this.#at + block * L1_DESCRIPTOR_SIZE, descriptor[1], descriptor[0]);
    this.#second.set(block, at);
  }

  /** Address of the STE of a StreamID that was prepared. */
  steAddress(sid: number): number {
    if (!this.#twoLevel) return this.#at + sid * STE_SIZE;
    const split = 2 ** STRTAB_SPLIT;
    const at = this.#second.get(Math.floor(sid / split));
    if (at === undefined) throw new GuestDriverError('GUEST_ID_RANGE', `StreamID ${sid} was not prepared`);
    return at + (sid % split) * STE_SIZE;
  }

  #fill(at: number, stes: number): void {
    const ste = abortSte();
    for (let i = 0; i < stes; i++) this.#ram.storeWords(at + i * STE_SIZE, ste, STE_WORDS);
  }
}
