/** A translator with RAM, registers and streams that a test writes by hand. */

import { Memory } from '../../src/memory/memory.ts';
import { QEMU_LIKE, type IdFields, identify } from '../../src/smmu/identification.ts';
import { EVENT, type EventStatus } from '../../src/smmu/ports.ts';
import { KIND, OUTCOME, Transaction, Translation } from '../../src/smmu/transaction.ts';
import { Translator } from '../../src/smmu/translator.ts';
import {
  Allocator,
  type CdFields,
  PageTable,
  RW_PAGE,
  S2_RW_PAGE,
  type Shape,
  type SteFields,
  buildCd,
  buildSte,
  hiOf,
  loOf,
  ramSpace,
  writeDwords,
} from './tables.ts';

export const RAM = 0x4000_0000n;
export const RAM_SIZE = 0x80_0000n;
export const STRTAB = 0x4000_0000n;
/** Where there is no RAM. */
export const NOWHERE = 0x9000_0000n;

/** An event record in the fields that tests compare; only those that the record has are there. */
export interface Seen {
  type: number;
  sid: number;
  ssid?: number;
  stall?: number;
  rnw?: boolean;
  pnu?: boolean;
  ind?: boolean;
  s2?: boolean;
  cls?: number;
  ttrnw?: boolean;
  input?: bigint;
  /** The last doubleword: IPA or FetchAddr. */
  last?: bigint;
}

export interface Access {
  write?: boolean;
  privileged?: boolean;
  instruction?: boolean;
  ssid?: number;
  kind?: (typeof KIND)[keyof typeof KIND];
  noWrite?: boolean;
  mayStall?: boolean;
}

export class Rig {
  readonly memory: Memory;
  readonly registers = new Uint32Array(64);
  readonly translator: Translator;
  readonly allocator = new Allocator(RAM + 0x1_0000n, RAM + RAM_SIZE);
  readonly result = new Translation();
  readonly records: bigint[][] = [];
  /** What the event queue says to a record. */
  status: EventStatus = EVENT.Queued;
  readonly space;

  constructor(fields: IdFields = {}, memory: Memory = new Memory()) {
    this.memory = memory;
    memory.addRam(0, Number(RAM), new Uint8Array(Number(RAM_SIZE)));
    this.space = ramSpace(memory, this.allocator);
    const ids = identify(QEMU_LIKE, fields);
    this.registers[0x20 >>> 2] = 1;
    this.registers[0x2c >>> 2] = 2;
    this.strtab(STRTAB, 8);
    this.translator = new Translator(ids, this.registers, memory, (words) => {
      if (this.status === EVENT.Queued) this.records.push([...new BigUint64Array(words.slice().buffer)]);
      return this.status;
    });
  }

  /** Sets STRTAB_BASE and STRTAB_BASE_CFG. */
  strtab(base: bigint, cfg: number): void {
    this.registers[0x80 >>> 2] = loOf(base);
    this.registers[0x84 >>> 2] = hiOf(base);
    this.registers[0x88 >>> 2] = cfg;
  }

  set cr0(value: number) {
    this.registers[0x20 >>> 2] = value;
  }

  set cr2(value: number) {
    this.registers[0x2c >>> 2] = value;
  }

  write(at: bigint, ...dwords: bigint[]): void {
    writeDwords(this.memory, at, dwords);
  }

  read(at: bigint): bigint {
    return this.space.read(at);
  }

  /** Writes an STE into the linear table at STRTAB. */
  ste(sid: number, fields: SteFields): void {
    this.write(STRTAB + 64n * BigInt(sid), ...buildSte(fields));
  }

  /** Allocates a CD. @returns its address */
  cd(fields: CdFields): bigint {
    const at = this.allocator.take(64n);
    this.write(at, ...buildCd(fields));
    return at;
  }

  /** Stage 1 tables of 4 KB pages and 39 bits. */
  stage1(shape: Shape = { log2Granule: 12, inputBits: 39 }): PageTable {
    return new PageTable(this.space, shape);
  }

  /** Stage 2 tables of 4 KB pages and 39 bits, which map all of RAM one to one. */
  stage2(): PageTable {
    const table = new PageTable(this.space, { log2Granule: 12, inputBits: 39, startLevel: 1 });
    for (let at = RAM; at < RAM + RAM_SIZE; at += 0x20_0000n) table.map(at, at, S2_RW_PAGE, 2);
    return table;
  }

  /** A stream with stage 1 alone that maps one page. @returns its table and the address of its CD */
  stage1Stream(sid: number, cd: CdFields = {}, ste: SteFields = {}): { table: PageTable; cdAt: bigint } {
    const table = this.stage1();
    table.map(0x1000n, 0x8000_1000n, RW_PAGE);
    const cdAt = this.cd({ T0SZ: 25, IPS: 4, TTB0: table.base, ASID: 1, ...cd });
    this.ste(sid, { Config: 5, S1ContextPtr: cdAt, ...ste });
    return { table, cdAt };
  }

  /** Fields of an STE with this stage 2. */
  stage2Fields(table: PageTable): SteFields {
    return { S2T0SZ: 25, S2SL0: 1, S2PS: 4, S2AA64: 1, S2R: 1, S2VMID: 9, S2TTB: table.base };
  }

  /** One transaction. @returns `ok <pa>`, `abort`, `razwi`, `stalled`, `ur` or `ca` */
  access(sid: number, address: bigint, access: Access = {}): string {
    const t = new Transaction();
    t.sid = sid;
    t.addrHi = hiOf(address);
    t.addrLo = loOf(address);
    t.ssv = access.ssid !== undefined;
    t.ssid = access.ssid ?? 0;
    t.write = access.write ?? false;
    t.privileged = access.privileged ?? false;
    t.instruction = access.instruction ?? false;
    t.kind = access.kind ?? KIND.Untranslated;
    t.noWrite = access.noWrite ?? false;
    t.mayStall = access.mayStall ?? false;
    const outcome = this.translator.translate(t, this.result);
    return this.describe(outcome);
  }

  describe(outcome: number): string {
    const pa = (BigInt(this.result.paHi) << 32n) | BigInt(this.result.paLo);
    if (outcome === OUTCOME.Ok) return `ok ${pa.toString(16)}`;
    return ['ok', 'abort', 'razwi', 'stalled', 'ur', 'ca'][outcome];
  }

  /** One CFGI or TLBI command of two 64-bit words. */
  command(w0: bigint, w1 = 0n): void {
    this.translator.invalidate(Uint32Array.of(loOf(w0), hiOf(w0), loOf(w1), hiOf(w1)), 0);
  }

  /** Takes the records that were made since. */
  events(): Seen[] {
    return this.records.splice(0).map(seen);
  }
}

function seen([d0, d1, d2, d3]: bigint[]): Seen {
  const bit = (value: bigint, at: number): boolean => ((value >> BigInt(at)) & 1n) !== 0n;
  const type = Number(d0 & 0xffn);
  const event: Seen = { type, sid: Number(d0 >> 32n) };
  if (bit(d0, 11) || type === 8) event.ssid = Number((d0 >> 12n) & 0xf_ffffn);
  if (type >= 0x0b) {
    event.rnw = bit(d1, 35);
    event.pnu = bit(d1, 33);
    event.ind = bit(d1, 34);
    event.s2 = bit(d1, 39);
    event.cls = Number((d1 >> 40n) & 3n);
    event.input = d2;
    if (bit(d1, 31)) event.stall = Number(d1 & 0xffffn);
    if (bit(d1, 44)) event.ttrnw = true;
  } else if (d2 !== 0n) event.input = d2;
  if (d3 !== 0n) event.last = d3;
  return event;
}
