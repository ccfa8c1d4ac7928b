/** A tiny NVMe driver and the memory it works in. Offsets and codes are literals on purpose: a second source. */

import type { NvmeFunction } from '../../../../../src/host/sim/functions/nvme.ts';
import type { PciBus } from '../../../../../src/host/sim/pci-function.ts';
import { OUTCOME, type Outcome } from '../../../../../src/smmu/transaction.ts';

const PAGE = 4096;

/** 8 MiB of memory whose I/O virtual addresses cross 4 GiB in the middle; pages can be taken away. */
export class FakeBus implements PciBus {
  readonly bytes = new Uint8Array(8 << 20);
  readonly view = new DataView(this.bytes.buffer);
  readonly base = 0xffc0_0000;
  readonly missing = new Set<number>();
  readonly interrupts: string[] = [];
  transfers = 0;
  onInterrupt: (() => void) | undefined;

  iova(offset: number): bigint {
    return BigInt(this.base + offset);
  }

  /** Offset in `bytes` of an IOVA, or -1 if its page is not mapped. */
  #at(iova: number): number {
    const offset = iova - this.base;
    const ok = offset >= 0 && offset < this.bytes.length && !this.missing.has(Math.floor(offset / PAGE));
    return ok ? offset : -1;
  }

  #each(hi: number, lo: number, size: number, use: (at: number, done: number, n: number) => void): Outcome {
    this.transfers += 1;
    const start = hi * 2 ** 32 + lo;
    for (let done = 0; done < size;) {
      const at = this.#at(start + done);
      if (at < 0) return OUTCOME.Abort;
      const n = Math.min(size - done, PAGE - (at % PAGE));
      use(at, done, n);
      done += n;
    }
    return OUTCOME.Ok;
  }

  read(hi: number, lo: number, into: Uint8Array): Outcome {
    return this.#each(hi, lo, into.length, (at, done, n) => into.set(this.bytes.subarray(at, at + n), done));
  }

  write(hi: number, lo: number, from: Uint8Array): Outcome {
    return this.#each(hi, lo, from.length, (at, done, n) =>
      this.bytes.set(from.subarray(done, done + n), at),
    );
  }

  interrupt(index: 'intx' | 'msi' | 'msix', vector: number): void {
    this.interrupts.push(`${index}${vector}`);
    this.onInterrupt?.();
  }
}

export interface Command {
  opcode: number;
  nsid?: number;
  prp1?: bigint;
  prp2?: bigint;
  cdw10?: number;
  cdw11?: number;
  cdw12?: number;
  cdw13?: number;
  /** Bits 15:8 of dword 0: FUSE and PSDT. */
  flags?: number;
}

export interface Completion {
  cid: number;
  /** SCT and SC, without Do Not Retry and phase. */
  status: number;
  dnr: boolean;
  result: number;
  sqHead: number;
  sqId: number;
}

interface Pair {
  sq: number;
  cq: number;
  size: number;
  tail: number;
  head: number;
  phase: number;
}

/** Offsets of things in FakeBus memory. Data buffers are the caller's, from DATA on. */
const ADMIN_SQ = 0x0000;
const ADMIN_CQ = 0x1_0000;
const IO_QUEUES = 0x2_0000;
const IO_STRIDE = 0x1_0000;
export const DATA = 0x20_0000;

export class Driver {
  readonly bus = new FakeBus();
  readonly device: NvmeFunction;
  readonly pairs: Pair[] = [];
  #cid = 0;

  constructor(device: NvmeFunction) {
    this.device = device;
    device.connect(this.bus);
  }

  read32(offset: number): number {
    const bytes = new Uint8Array(4);
    this.device.regionRead(0, offset, bytes);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  write32(offset: number, value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    this.device.regionWrite(0, offset, bytes);
  }

  write64(offset: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    this.device.regionWrite(0, offset, bytes);
  }

  config(offset: number, size: 1 | 2 | 4): number {
    const bytes = new Uint8Array(4);
    this.device.regionRead(7, offset, bytes.subarray(0, size));
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    this.device.regionWrite(7, offset, bytes.subarray(0, size));
  }

  /** Memory and bus master on; MSI with one vector unless `intx`. */
  enablePci(intx = false): void {
    this.writeConfig(0x04, 2, 0x0006);
    if (!intx) this.writeConfig(this.capability(0x05) + 2, 2, 0x0001);
  }

  /** Offset of a capability, 0 if absent. */
  capability(id: number): number {
    let at = this.config(0x34, 1);
    for (let n = 0; n < 48 && at !== 0; n++) {
      if (this.config(at, 1) === id) return at;
      at = this.config(at + 1, 1);
    }
    return 0;
  }

  /** Sets the admin queues up and enables the controller, as Linux does. @returns CSTS */
  enable(entries = 32, mps = 0): number {
    this.bus.bytes.fill(0, ADMIN_CQ, ADMIN_CQ + entries * 16);
    this.pairs[0] = { sq: ADMIN_SQ, cq: ADMIN_CQ, size: entries, tail: 0, head: 0, phase: 1 };
    this.write32(0x24, ((entries - 1) << 16) | (entries - 1));
    this.write64(0x28, this.bus.iova(ADMIN_SQ));
    this.write64(0x30, this.bus.iova(ADMIN_CQ));
    const cc = (4 << 20) | (6 << 16) | (mps << 7);
    this.write32(0x14, cc);
    this.write32(0x14, cc | 1);
    return this.read32(0x1c);
  }

  /** Puts a command into a queue without ringing. @returns its identifier */
  put(qid: number, command: Command): number {
    const pair = this.pairs[qid];
    const at = pair.sq + pair.tail * 64;
    const view = this.bus.view;
    this.bus.bytes.fill(0, at, at + 64);
    const cid = this.#cid++ & 0xffff;
    view.setUint32(at, ((cid << 16) | ((command.flags ?? 0) << 8) | command.opcode) >>> 0, true);
    view.setUint32(at + 4, command.nsid ?? 0, true);
    view.setBigUint64(at + 24, command.prp1 ?? 0n, true);
    view.setBigUint64(at + 32, command.prp2 ?? 0n, true);
    view.setUint32(at + 40, command.cdw10 ?? 0, true);
    view.setUint32(at + 44, command.cdw11 ?? 0, true);
    view.setUint32(at + 48, command.cdw12 ?? 0, true);
    view.setUint32(at + 52, command.cdw13 ?? 0, true);
    pair.tail = (pair.tail + 1) % pair.size;
    return cid;
  }

  ring(qid: number): void {
    this.write32(0x1000 + qid * 8, this.pairs[qid].tail);
  }

  /** Takes completions that were posted; rings the head doorbell unless told not to. */
  take(qid: number, most = Infinity, acknowledge = true): Completion[] {
    const pair = this.pairs[qid];
    const found: Completion[] = [];
    while (found.length < most) {
      const at = pair.cq + pair.head * 16;
      const last = this.bus.view.getUint32(at + 12, true);
      if (((last >>> 16) & 1) !== pair.phase) break;
      found.push({
        cid: last & 0xffff,
        status: (last >>> 17) & 0x7ff,
        dnr: last >>> 31 === 1,
        result: this.bus.view.getUint32(at, true),
        sqHead: this.bus.view.getUint16(at + 8, true),
        sqId: this.bus.view.getUint16(at + 10, true),
      });
      pair.head = (pair.head + 1) % pair.size;
      if (pair.head === 0) pair.phase ^= 1;
    }
    if (acknowledge && found.length > 0) this.write32(0x1000 + qid * 8 + 4, pair.head);
    return found;
  }

  /** One command, start to end. */
  submit(qid: number, command: Command): Completion {
    const cid = this.put(qid, command);
    this.ring(qid);
    const found = this.take(qid);
    if (found.length !== 1 || found[0].cid !== cid)
      throw new Error(`Expected one completion of ${cid}, got ${JSON.stringify(found)}`);
    return found[0];
  }

  /** Creates I/O queue pair `qid` of `size` entries. */
  createIo(qid = 1, size = 64, interrupts = true): void {
    const sq = IO_QUEUES + (2 * qid - 2) * IO_STRIDE;
    const cq = sq + IO_STRIDE;
    this.bus.bytes.fill(0, cq, cq + size * 16);
    this.pairs[qid] = { sq, cq, size, tail: 0, head: 0, phase: 1 };
    const cdw10 = ((size - 1) << 16) | qid;
    const made = [
      this.submit(0, { opcode: 5, prp1: this.bus.iova(cq), cdw10, cdw11: interrupts ? 3 : 1 }),
      this.submit(0, { opcode: 1, prp1: this.bus.iova(sq), cdw10, cdw11: (qid << 16) | 1 }),
    ];
    if (made.some((completion) => completion.status !== 0)) throw new Error(JSON.stringify(made));
  }

  /** Read or Write of whole 512-byte blocks at an LBA, one PRP per page from `offset` on; lists at 0x1c0000. */
  transfer(write: boolean, lba: number, offset: number, bytes: number, listAt = 0x1c_0000): Completion {
    const first = Math.min(bytes, PAGE - (offset % PAGE));
    const pages: bigint[] = [];
    for (let at = offset + first; at < offset + bytes; at += PAGE) pages.push(this.bus.iova(at));
    let prp2 = 0n;
    if (pages.length === 1) prp2 = pages[0];
    else if (pages.length > 1) {
      prp2 = this.bus.iova(listAt);
      this.putList(listAt, pages);
    }
    return this.submit(1, {
      opcode: write ? 1 : 2,
      nsid: 1,
      prp1: this.bus.iova(offset),
      prp2,
      cdw10: lba,
      cdw12: bytes / 512 - 1,
    });
  }

  /** Lays PRP entries out from an offset on; the last slot of each page chains to the next page if more follow. */
  putList(at: number, entries: readonly bigint[]): void {
    let left = [...entries];
    while (left.length > 0) {
      const slots = (PAGE - (at % PAGE)) / 8;
      const chained = left.length > slots;
      const here = chained ? left.slice(0, slots - 1) : left;
      here.forEach((entry, i) => this.bus.view.setBigUint64(at + i * 8, entry, true));
      left = left.slice(here.length);
      if (chained) {
        const next = at - (at % PAGE) + PAGE;
        this.bus.view.setBigUint64(at + (slots - 1) * 8, this.bus.iova(next), true);
        at = next;
      }
    }
  }
}
