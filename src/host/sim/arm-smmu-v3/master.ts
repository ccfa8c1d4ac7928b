/** A device as the SMMU driver sees it. */

import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import type { Errno } from '../../../iommufd/kernel.ts';
import { STE, STE_EATS } from '../../../spec/ste.ts';
import type { ArmSmmu } from './arm-smmu.ts';
import type { PagingDomain, Stage1Domain, Stage2Domain } from './domain.ts';
import { abortSte, type GuestSte, nestedSte, stage1Ste, stage2Ste, translates } from './ste.ts';

/** Where the events of a device go: captured when a nested domain is attached, with the StreamID of that moment. */
export interface Vmaster {
  /** @returns false if nobody took it, so that the host prints it. */
  report(record: Uint32Array): boolean;
}

/** A guest's STE over a parent, as a nested HWPT holds it. */
export interface NestedDomain {
  readonly words: GuestSte;
  readonly parent: Stage2Domain;
  /** The way to the guest for this device; undefined if it has no vDEVICE on the vIOMMU. */
  vmaster(): Vmaster | undefined;
}

export interface MasterOptions {
  /** PCI address, such as 0000:01:00.0. */
  readonly name: string;
  readonly smmu: ArmSmmu;
  /** Usually one. */
  readonly sids: readonly number[];
  /** The device and its path can use ATS, if the SMMU can. */
  readonly ats: boolean;
  /** Bits of PASID that the device can send; 0 if it has none. */
  readonly pasidBits: number;
  /** Its DMA is coherent even with No-Snoop, which nesting needs without IDR3.FWB. */
  readonly canwbs: boolean;
  /** Marked as a device that may stall: the driver resumes what it stalls. */
  readonly stallEnabled: boolean;
}

export class Master {
  readonly name: string;
  readonly smmu: ArmSmmu;
  readonly sids: readonly number[];
  readonly ats: boolean;
  /** Bits of PASID that the device and the SMMU can use. */
  readonly pasidBits: number;
  readonly canwbs: boolean;
  readonly stallEnabled: boolean;
  vmaster: Vmaster | undefined;
  /** The device may ask for translations: the STE says so, and its own capability follows. */
  atsEnabled = false;
  /** Takes page requests likewise. */
  pageRequests:
    ((entries: readonly Uint32Array[], answer: (success: boolean) => void) => boolean) | undefined;
  /** Takes stalled faults: a FAULT_QUEUE's object, while a HWPT with one is attached. */
  faults: ((record: Uint32Array) => boolean) | undefined;

  constructor(options: MasterOptions) {
    this.name = options.name;
    this.smmu = options.smmu;
    this.sids = options.sids;
    this.ats = options.ats && options.smmu.hasAts;
    this.pasidBits = Math.min(options.pasidBits, options.smmu.ssidBits);
    this.canwbs = options.canwbs;
    this.stallEnabled = options.stallEnabled;
    options.smmu.addMaster(this);
  }

  /** All DMA is terminated, silently. */
  attachBlocked(): void {
    this.vmaster = undefined;
    this.#write(abortSte());
  }

  /** @returns 0 or EINVAL; on failure nothing has changed. */
  attachPaging(domain: PagingDomain): Errno {
    if (domain.smmu !== this.smmu) return ERRNO.EINVAL;
    this.vmaster = undefined;
    const ste = isStage2(domain) ? stage2Ste(domain, this.ats) : stage1Ste(domain as Stage1Domain, this.ats);
    this.#write(ste);
    return 0;
  }

  /** @returns 0, EINVAL (another SMMU) or ENOENT (translates, and there is no vDEVICE); then nothing has changed. */
  attachNested(domain: NestedDomain): Errno {
    if (domain.parent.smmu !== this.smmu) return ERRNO.EINVAL;
    const vmaster = domain.vmaster();
    if (vmaster === undefined && translates(domain.words)) return ERRNO.ENOENT;
    this.vmaster = vmaster;
    this.#write(nestedSte(domain.words, domain.parent, this.ats));
    return 0;
  }

  #write(ste: Uint32Array): void {
    this.smmu.writeSte(this.sids, ste);
    this.atsEnabled = this.ats && STE.EATS.get(ste) === STE_EATS.Full;
  }

  /** A group of page requests. @returns false if nobody took it, so that the driver denies it. */
  requestPages(entries: readonly Uint32Array[], answer: (success: boolean) => void): boolean {
    return this.pageRequests?.(entries, answer) === true;
  }

  /** @returns false if nobody took it, so that the driver ends it. */
  reportPageFault(record: Uint32Array): boolean {
    return this.stallEnabled && this.faults?.(record) === true;
  }
}

const isStage2 = (domain: PagingDomain): domain is Stage2Domain => domain.table.stage === 2;
