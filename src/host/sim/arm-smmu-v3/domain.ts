/** Domains: address spaces that the kernel builds for devices of one SMMU. */

import { hiOfNumber, loOfNumber } from '../../../bits/u64.ts';
import { CACHEABILITY, CD, CD_SIZE, CD_TG0, CD_WORDS, SHAREABILITY } from '../../../spec/cd.ts';
import {
  CMD_TLBI_NH_ASID,
  CMD_TLBI_S12_VMALL,
  COMMAND,
  COMMAND_WORDS,
  OPCODE,
} from '../../../spec/commands.ts';
import { IDR3, IDR5, OAS_BITS } from '../../../spec/registers.ts';
import type { ArmSmmu } from './arm-smmu.ts';
import { KERNEL_MAIR, PageTable, type Protection } from './page-table.ts';

/** What a kernel with 48-bit virtual addresses gives its stage 1 domains. */
const KERNEL_VA_BITS = 48;
/** 4 KiB granule without IDR5.DS: no address is wider than this. */
const MAX_OUTPUT_BITS = 48;

/** A domain that maps I/O virtual addresses as the kernel says. */
export abstract class PagingDomain {
  readonly smmu: ArmSmmu;
  abstract readonly table: PageTable;

  constructor(smmu: ArmSmmu) {
    this.smmu = smmu;
  }

  /** Greatest address that can be mapped. */
  get apertureLast(): number {
    return 2 ** this.table.inputBits - 1;
  }

  /** Smallest page, in bytes. */
  readonly pageSize = 4096;

  map(iova: number, pa: number, size: number, protection: Protection, blocks: boolean): void {
    if (this.table.map(iova, pa, size, protection, blocks)) this.flush();
  }

  /** Removes mappings; when this returns, no device can use them any more. */
  unmap(iova: number, size: number): void {
    this.table.unmap(iova, size);
    this.flush();
  }

  /** Drops everything the SMMU holds of this domain. */
  abstract flush(): void;

  /** Gives back tables and tags; nothing is attached any more. */
  abstract free(): void;
}

/** The kernel's ordinary choice: stage 1 with one context descriptor. */
export class Stage1Domain extends PagingDomain {
  readonly kind = 'stage1';
  override readonly table: PageTable;
  readonly asid: number;
  /** Physical address. */
  readonly contextDescriptor: number;

  constructor(smmu: ArmSmmu) {
    super(smmu);
    this.table = new PageTable(smmu.host, { stage: 1, inputBits: KERNEL_VA_BITS });
    this.asid = smmu.asids.allocate();
    this.contextDescriptor = smmu.host.allocate(CD_SIZE);
    const cd = new Uint32Array(CD_WORDS);
    CD.V.set(cd, 1);
    CD.T0SZ.set(cd, 64 - KERNEL_VA_BITS);
    CD.TG0.set(cd, CD_TG0.Granule4K);
    CD.IR0.set(cd, CACHEABILITY.WriteBackWriteAllocate);
    CD.OR0.set(cd, CACHEABILITY.WriteBackWriteAllocate);
    CD.SH0.set(cd, SHAREABILITY.Inner);
    CD.EPD1.set(cd, 1);
    CD.IPS.set(cd, IDR5.OAS.of(smmu.ids.IDR5));
    CD.AA64.set(cd, 1);
    CD.R.set(cd, 1);
    CD.A.set(cd, 1);
    CD.ASET.set(cd, 1);
    CD.ASID.set(cd, this.asid);
    CD.TTB0.set(cd, hiOfNumber(this.table.root), loOfNumber(this.table.root));
    CD.MAIR0.set(cd, KERNEL_MAIR.lo);
    CD.MAIR1.set(cd, KERNEL_MAIR.hi);
    for (let i = 0; i < CD_WORDS; i += 2) smmu.host.store64(this.contextDescriptor + i * 4, cd[i + 1], cd[i]);
  }

  override flush(): void {
    const command = new Uint32Array(COMMAND_WORDS);
    COMMAND.Opcode.set(command, OPCODE.CMD_TLBI_NH_ASID);
    CMD_TLBI_NH_ASID.ASID.set(command, this.asid);
    this.smmu.submit(command, 1);
  }

  override free(): void {
    this.flush();
    this.table.free();
    this.smmu.host.free(this.contextDescriptor, CD_SIZE);
    this.smmu.asids.free(this.asid);
  }
}

/** A nest parent: stage 2, input and output as wide as the SMMU's output addresses. */
export class Stage2Domain extends PagingDomain {
  readonly kind = 'stage2';
  override readonly table: PageTable;
  readonly vmid: number;
  /** STE.S2PS. */
  readonly outputSize: number;
  readonly fwb: boolean;

  constructor(smmu: ArmSmmu) {
    super(smmu);
    this.fwb = IDR3.FWB.of(smmu.ids.IDR3) === 1;
    const bits = Math.min(OAS_BITS[IDR5.OAS.of(smmu.ids.IDR5)], MAX_OUTPUT_BITS);
    this.outputSize = OAS_BITS.findIndex((size) => size === bits);
    this.table = new PageTable(smmu.host, { stage: 2, inputBits: bits, fwb: this.fwb });
    this.vmid = smmu.vmids.allocate();
  }

  override flush(): void {
    const command = new Uint32Array(COMMAND_WORDS);
    COMMAND.Opcode.set(command, OPCODE.CMD_TLBI_S12_VMALL);
    CMD_TLBI_S12_VMALL.VMID.set(command, this.vmid);
    this.smmu.submit(command, 1);
  }

  override free(): void {
    this.flush();
    this.table.free();
    this.smmu.vmids.free(this.vmid);
  }
}
