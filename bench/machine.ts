/** The SMMU that the benchmarks drive: the ID registers of QEMU's, plain memory, 4 KB pages through four levels. */

import { Memory } from '../src/memory/memory.ts';
import { QEMU_LIKE, type IdRegisters } from '../src/smmu/identification.ts';
import { Smmu } from '../src/smmu/smmu.ts';
import { Transaction, Translation } from '../src/smmu/transaction.ts';
import { OFFSET } from '../src/spec/registers.ts';
import {
  Allocator,
  PageTable,
  RW_PAGE,
  S2_RW_PAGE,
  buildCd,
  buildSte,
  ramSpace,
  writeDwords,
} from '../test/support/tables.ts';

const RAM = 0xc000_0000;
const RAM_SIZE = 32 * 2 ** 20;
const COMMANDS = 2 ** 11;
const EVENTS = 2 ** 11;
/** First address that is mapped, in steps of a page. */
const IOVA = 0x1_2340_0000n;
const DATA = 0x8000_0000n;

export type Stages = 's1' | 's2' | 'nested' | 'bypass';

/** StreamIDs; all others have V=0. */
export const STREAM = { s1: 1, s2: 2, nested: 3, bypass: 4 } as const;

export interface BenchOptions {
  readonly ids?: IdRegisters;
  /** As of {@link Smmu}. */
  readonly log2TlbEntries?: number | undefined;
}

export class BenchMachine {
  readonly memory = new Memory();
  readonly smmu: Smmu;
  readonly transaction = new Transaction();
  readonly result = new Translation();
  readonly #allocator = new Allocator(BigInt(RAM), BigInt(RAM + RAM_SIZE));
  readonly #commands: number;
  readonly #strtab: bigint;
  /** TTB0 of the stage 1 tables. */
  s1Base = 0n;
  #prod = 0;

  /** @param pages 4 KB pages that each stream maps */
  constructor(pages: number, { ids = QEMU_LIKE, log2TlbEntries }: BenchOptions = {}) {
    const { memory } = this;
    memory.addRam(0, RAM, new Uint8Array(RAM_SIZE));
    const interrupts = { raise() {}, writeMsi: () => true };
    this.smmu = new Smmu({ ids, memory, interrupts, log2TlbEntries });
    this.#strtab = this.take(64 << 8);
    this.#commands = Number(this.take(16 * COMMANDS));
    const events = this.take(32 * EVENTS);
    const { smmu } = this;
    smmu.write(OFFSET.STRTAB_BASE, 8, 0, Number(this.#strtab));
    smmu.write(OFFSET.STRTAB_BASE_CFG, 4, 0, 8);
    smmu.write(OFFSET.CMDQ_BASE, 8, 0, this.#commands + 11);
    smmu.write(OFFSET.EVENTQ_BASE, 8, 0, Number(events) + 11);
    smmu.write(OFFSET.CR2, 4, 0, 2);
    this.#build(pages);
    smmu.write(OFFSET.CR0, 4, 0, 0xd);
  }

  #build(pages: number): void {
    const space = ramSpace(this.memory, this.#allocator);
    const shape = { log2Granule: 12, inputBits: 48 } as const;
    const shape2 = { log2Granule: 12, inputBits: 44, startLevel: 0 } as const;
    const s1 = new PageTable(space, shape);
    for (let i = 0; i < pages; i++) s1.map(IOVA + BigInt(i * 4096), DATA + BigInt(i * 4096), RW_PAGE);
    const s2 = new PageTable(space, shape2);
    for (let i = 0; i < pages; i++) {
      s2.map(IOVA + BigInt(i * 4096), DATA + BigInt(i * 4096), S2_RW_PAGE);
      s2.map(DATA + BigInt(i * 4096), DATA + BigInt(i * 4096), S2_RW_PAGE);
    }
    const cd = this.#allocator.take(64n);
    const ste1 = { Config: 5, S1ContextPtr: cd } as const;
    const ste2 = { S2T0SZ: 20, S2SL0: 2, S2PS: 4, S2AA64: 1, S2R: 1, S2TTB: s2.base } as const;
    writeDwords(this.memory, cd, buildCd({ T0SZ: 16, IPS: 4, TTB0: s1.base, ASID: 1 }));
    this.s1Base = s1.base;
    this.putSte(STREAM.s1, buildSte({ ...ste1, S2VMID: 1 }));
    this.putSte(STREAM.s2, buildSte({ ...ste2, Config: 6, S2VMID: 2 }));
    this.putSte(STREAM.nested, buildSte({ ...ste1, ...ste2, Config: 7, S2VMID: 3 }));
    this.putSte(STREAM.bypass, buildSte({ Config: 4 }));
    // Stage 2 maps the tables of stage 1 one to one.
    for (let at = BigInt(RAM); at < this.#allocator.next; at += 4096n) s2.map(at, at, S2_RW_PAGE);
  }

  /** RAM of `size` bytes, a power of two, aligned to it. */
  take(size: number): bigint {
    return this.#allocator.take(BigInt(size));
  }

  putSte(sid: number, ste: bigint[]): void {
    writeDwords(this.memory, this.#strtab + BigInt(64 * sid), ste);
  }

  /** Replaces the stream table by one of two levels where all 65,536 StreamIDs are stage 1 streams. */
  manyStreams(): void {
    const { smmu } = this;
    const l1 = this.take(8 * 256);
    const cd = this.take(64);
    writeDwords(this.memory, cd, buildCd({ T0SZ: 16, IPS: 4, TTB0: this.s1Base, ASID: 1 }));
    const ste = buildSte({ Config: 5, S1ContextPtr: cd, S2VMID: 1 });
    for (let i = 0; i < 256; i++) {
      const l2 = this.take(64 * 256);
      for (let k = 0; k < 256; k++) writeDwords(this.memory, l2 + BigInt(64 * k), ste);
      writeDwords(this.memory, l1 + BigInt(8 * i), [l2 | 9n]);
    }
    smmu.write(OFFSET.CR0, 4, 0, 0xc);
    smmu.write(OFFSET.STRTAB_BASE, 8, 0, Number(l1));
    smmu.write(OFFSET.STRTAB_BASE_CFG, 4, 0, (1 << 16) | (8 << 6) | 16);
    smmu.write(OFFSET.CR0, 4, 0, 0xd);
  }

  /** Address of page `i` as the transaction's. */
  aim(sid: number, i: number, write = false): void {
    const t = this.transaction;
    t.sid = sid;
    t.addrHi = 1;
    t.addrLo = (0x2340_0000 + i * 4096) >>> 0;
    t.write = write;
  }

  /** Queues one command; `ring` makes the SMMU take all that are queued. */
  queue(w0: number, w1: number, w2: number, w3: number): void {
    const at = this.#commands + (this.#prod & (COMMANDS - 1)) * 16;
    this.memory.store64(0, at, w1, w0);
    this.memory.store64(0, at + 8, w3, w2);
    this.#prod = (this.#prod + 1) & (2 * COMMANDS - 1);
  }

  ring(): void {
    this.smmu.write(OFFSET.CMDQ_PROD, 4, 0, this.#prod);
  }

  /** Makes the SMMU take every command in the ring once more. */
  ringRound(): void {
    this.#prod = (this.#prod + COMMANDS) & (2 * COMMANDS - 1);
    this.ring();
  }

  /** Empties the event queue without looking. */
  drain(): void {
    const { smmu } = this;
    smmu.write(OFFSET.EVENTQ_CONS, 4, 0, smmu.read(OFFSET.EVENTQ_PROD, 4));
  }
}
