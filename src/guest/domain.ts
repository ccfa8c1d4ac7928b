/** An address space that devices are attached to: translation tables, an ASID, and the invalidations that both need. */

import { atcInv, atcInvAll, type Command } from './commands.ts';
import type { CommandQueue } from './command-queue.ts';
import type { AddressSpace } from './context-table.ts';
import { GuestDriverError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import type { Features } from './identification.ts';
import { IoPageTable, MAIR0, MAIR1, type Protection, type UnmapGather } from './io-page-table.ts';
import { asidInvalidation, rangeInvalidation } from './range-invalidation.ts';

export interface DomainOptions {
  /** log2 of the granule; by default the guest kernel's page, 4 KiB, or what comes nearest. */
  readonly granule?: 12 | 14 | 16;
  readonly iovaBits?: number;
  /** Unmapping invalidates nothing until {@link GuestDomain.flush}. */
  readonly lazy?: boolean;
  /** The device sets access flags and dirty state in the tables; needs IDR0.HTTU. */
  readonly dirtyTracking?: boolean;
}

/** A device's use of a domain. */
export interface Attachment {
  readonly sid: number;
  readonly ssid: number;
  /** The device may hold translations of its own. */
  readonly ats: boolean;
}

export interface DomainParts {
  readonly ram: GuestRam;
  readonly features: Features;
  readonly commands: CommandQueue;
  readonly asid: number;
  /** Called when the domain is freed. */
  readonly released: (domain: GuestDomain) => void;
}

const READ_WRITE: Protection = { read: true, write: true };

export class GuestDomain {
  readonly asid: number;
  readonly tables: IoPageTable;
  readonly lazy: boolean;
  readonly #dirtyTracking: boolean;
  readonly #features: Features;
  readonly #commands: CommandQueue;
  readonly #released: (domain: GuestDomain) => void;
  /** Maintained by whoever attaches. */
  readonly attachments = new Set<Attachment>();
  #freed = false;
  /** The range of leaves that is gathered, and their size. */
  #from = 0n;
  #size = 0;
  #step = 0;
  readonly #gather: UnmapGather = {
    leaf: (iova, size) => this.#gatherLeaf(iova, size),
    table: (iova, size) => this.#invalidate(iova, size, this.tables.page, false),
  };

  /** @throws GuestDriverError GUEST_OUT_OF_MEMORY. */
  constructor(parts: DomainParts, options: DomainOptions = {}) {
    const { granules, oasBits } = parts.features;
    // The guest kernel's page is the smallest that there is, so the smallest granule comes nearest.
    const granule = options.granule ?? granules[0];
    if (!granules.includes(granule))
      throw new GuestDriverError('GUEST_NO_GRANULE', `IDR5 has no granule of 2^${granule} bytes`);
    this.#features = parts.features;
    this.#commands = parts.commands;
    this.#released = parts.released;
    this.asid = parts.asid;
    this.lazy = options.lazy ?? false;
    this.#dirtyTracking = (options.dirtyTracking ?? false) && parts.features.hardwareDirty;
    this.tables = new IoPageTable(parts.ram, {
      granule,
      iovaBits: options.iovaBits ?? 48,
      oasBits,
      dirtyTracking: this.#dirtyTracking,
    });
  }

  /** What a CD says of this domain. */
  addressSpace(stall: boolean): AddressSpace {
    return {
      asid: this.asid,
      table: this.tables.root,
      granule: this.tables.granule,
      iovaBits: this.tables.iovaBits,
      mair0: MAIR0,
      mair1: MAIR1,
      stall,
      hardwareUpdate: this.#dirtyTracking,
    };
  }

  /**
   * Lets [iova, iova + size) lead to guest memory at `pa`. Nothing is sent to the device.
   * @throws GuestDriverError GUEST_BAD_ADDRESS, GUEST_ALREADY_MAPPED, GUEST_OUT_OF_MEMORY or GUEST_BAD_DOMAIN.
   */
  map(iova: bigint, pa: number, size: number, protection: Protection = READ_WRITE): void {
    this.#requireLive();
    try {
      this.tables.map(iova, pa, size, protection, this.#gather);
    } finally {
      this.#syncGathered();
    }
  }

  /**
   * Takes [iova, iova + size) out. When this returns no device reaches it any more, unless the domain is lazy.
   * @throws GuestDriverError GUEST_NOT_MAPPED if it was not mapped all through; what came before the gap is gone then.
   *   GUEST_BAD_ADDRESS, GUEST_BLOCK_SPLIT, GUEST_BAD_DOMAIN, or the command queue's.
   */
  unmap(iova: bigint, size: number): void {
    this.#requireLive();
    let done = 0;
    try {
      done = this.tables.unmap(iova, size, this.#gather);
    } finally {
      this.#syncGathered();
    }
    if (done < size)
      throw new GuestDriverError('GUEST_NOT_MAPPED', `0x${(iova + BigInt(done)).toString(16)} is not mapped`);
  }

  /** Invalidates everything of this domain: what a lazy domain does from time to time. */
  flush(): void {
    this.#requireLive();
    this.#commands.issueAndSync(asidInvalidation(this.asid, this.#features));
    const inv: Command[] = [];
    for (const { sid, ssid, ats } of this.attachments) if (ats) inv.push(atcInvAll(sid, ssid));
    if (inv.length > 0) this.#commands.issueAndSync(...inv);
  }

  /** Gives tables and ASID back. @throws GuestDriverError GUEST_DOMAIN_BUSY while a device is attached. */
  free(): void {
    this.#requireLive();
    if (this.attachments.size > 0)
      throw new GuestDriverError('GUEST_DOMAIN_BUSY', 'A device is still attached to this domain');
    this.#freed = true;
    this.#commands.issueAndSync(asidInvalidation(this.asid, this.#features));
    this.tables.free();
    this.#released(this);
  }

  #requireLive(): void {
    if (this.#freed) throw new GuestDriverError('GUEST_BAD_DOMAIN', 'The domain was freed');
  }

  #gatherLeaf(iova: bigint, size: number): void {
    if (this.lazy) return;
    const adjacent = this.#size > 0 && iova === this.#from + BigInt(this.#size) && size === this.#step;
    if (!adjacent) {
      this.#syncGathered();
      this.#from = iova;
      this.#step = size;
    }
    this.#size += size;
  }

  #syncGathered(): void {
    if (this.#size === 0) return;
    const size = this.#size;
    this.#size = 0;
    this.#invalidate(this.#from, size, this.#step, true);
  }

  /** The devices' own caches come after the SMMU's: they are refilled from there. */
  #invalidate(iova: bigint, size: number, step: number, leaf: boolean): void {
    const { granule } = this.tables;
    this.#commands.issueAndSync(
      ...rangeInvalidation(this.asid, iova, size, step, leaf, granule, this.#features),
    );
    const inv: Command[] = [];
    for (const { sid, ssid, ats } of this.attachments)
      if (ats) inv.push(atcInv(sid, ssid, iova, BigInt(size)));
    if (inv.length > 0) this.#commands.issueAndSync(...inv);
  }
}
