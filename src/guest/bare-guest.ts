/**
 * A guest without a driver: every call is one register write, one entry stored to memory, or one command. What the
 * reference driver does in one go can be taken apart with it, and done in another order. Nothing here waits or checks.
 */

import { hiOfNumber, loOfNumber } from '../bits/u64.ts';
import type { Memory } from '../memory/memory.ts';
import { CD, CD_SIZE, CD_TG0, CD_WORDS, SHAREABILITY } from '../spec/cd.ts';
import { COMMAND_SIZE, COMMAND_WORDS, OPCODE, TLBI_TG } from '../spec/commands.ts';
import { DESCRIPTOR, DESCRIPTOR_SIZE, DESCRIPTOR_TYPE, S1_AP, S1_LEAF } from '../spec/descriptors.ts';
import { EVENT_SIZE, EVENT_WORDS } from '../spec/events.ts';
import { CMDQ_BASE, CR0, EVENTQ_PROD, GBPA, IRQ_CTRL, OFFSET, STRTAB_BASE_CFG } from '../spec/registers.ts';
import { STE, STE_CONFIG, STE_SIZE, STE_WORDS } from '../spec/ste.ts';
import {
  cfgiAll,
  cfgiCd,
  cfgiCdAll,
  cfgiSte,
  cfgiSteRange,
  command,
  type Command,
  sync,
  tlbiAsid,
  tlbiVa,
} from './commands.ts';
import { decodeEvent, type GuestEvent } from './event.ts';
import { advance, distance, indexOf, pointerOf } from './queue-pointer.ts';
import type { RegisterAccess } from './register-port.ts';

/** Guest-physical RAM of a bare guest. Everything it uses is in the first 128 KiB. */
export const BARE_RAM = { base: 0x20_0000, size: 0x20_0000 } as const;
/** Address spaces (an ASID, a CD and a root of page tables each), and frames that their page can be mapped to. */
export const BARE_SPACES = 3;
export const BARE_FRAMES = 4;
/** Stream tables, of {@link BARE_SIDS} entries each. */
export const BARE_STREAM_TABLES = 2;
export const BARE_SIDS = 256;
export const MAX_BARE_EVENTQ_LOG2 = 6;

/** The one page that address spaces map. As a guest-physical address it is {@link IDENTITY_FRAME}. */
export const BARE_PAGE = 0x21_f000;
/** A page that is RAM, and that no address space maps. It lies before {@link BARE_PAGE}. */
export const BARE_HOLE = 0x21_e000;

const { base } = BARE_RAM;
const AT = {
  commands: base + 0x8000,
  events: base + 0x9000,
  cds: base + 0xa000,
  spaces: base + 0xb000,
  frames: base + 0x1_8000,
} as const;
const LOG2_COMMANDS = 3;
const EVENT_PLACE = 0x800;
const PAGE = 0x1000;
/** 25 bits: a walk starts at level 2, of which the second entry is used. */
const T0SZ = 39;
const LOG2_BLOCK = 21;
/** Range fields for two pages of 4 KiB (4.4.1.1). */
const TWO_PAGES = { num: 1, scale: 0, ttl: 0, tg: TLBI_TG.Granule4K } as const;

/** First word of every frame, so that a read tells where it went. */
export const frameMark = (frame: number): number => 0x4652_0000 + frame;
/** What a read of {@link BARE_PAGE} finds that was not translated. */
export const IDENTITY_FRAME = BARE_FRAMES;

export type SteChoice = 'abort' | 'bypass' | 'translate' | 'invalid';

export interface BareGuestOptions {
  readonly registers: RegisterAccess;
  /** With RAM at {@link BARE_RAM}. */
  readonly memory: Memory;
}

export class BareGuest {
  readonly #registers: RegisterAccess;
  readonly #memory: Memory;
  #eventqLog2 = 0;
  #eventqPlace = 0;
  /** Which stream table STEs are stored to. */
  streamTable = 0;

  constructor({ registers, memory }: BareGuestOptions) {
    this.#registers = registers;
    this.#memory = memory;
  }

  /** RAM as it is before anything: all STEs abort, address space n maps the page to frame n. */
  loadMemory(): void {
    for (let table = 0; table < BARE_STREAM_TABLES; table++)
      for (let sid = 0; sid < BARE_SIDS; sid++) this.#store(steAddress(table, sid), ste('abort', 0));
    for (let space = 0; space < BARE_SPACES; space++) {
      this.storeCd(space, space);
      const level2 = rootOf(space) + (BARE_RAM.base >>> LOG2_BLOCK) * DESCRIPTOR_SIZE;
      const words = new Uint32Array(2);
      DESCRIPTOR.Valid.set(words, 1);
      DESCRIPTOR.Table.set(words, 1);
      DESCRIPTOR.Address.set(words, 0, rootOf(space) + PAGE);
      this.#store(level2, words);
      this.storePage(space, space);
    }
    const store = (at: number, mark: number): void => this.#store(at, Uint32Array.of(mark, 0));
    for (let frame = 0; frame < BARE_FRAMES; frame++) store(AT.frames + frame * PAGE, frameMark(frame));
    store(BARE_PAGE, frameMark(IDENTITY_FRAME));
  }

  /**
   * Points the SMMU at queues and a stream table, enables the command queue and interrupts: what a driver does before
   * it enables anything else. CR0 must be 0.
   */
  setUp(): void {
    this.#write64(OFFSET.STRTAB_BASE, steAddress(this.streamTable, 0));
    this.#write(OFFSET.STRTAB_BASE_CFG, STRTAB_BASE_CFG.LOG2SIZE.put(Math.log2(BARE_SIDS)));
    this.#write64(OFFSET.CMDQ_BASE, AT.commands + CMDQ_BASE.LOG2SIZE.put(LOG2_COMMANDS));
    this.#write(OFFSET.CMDQ_PROD, 0);
    this.#write(OFFSET.CMDQ_CONS, 0);
    this.#write(OFFSET.IRQ_CTRL, IRQ_CTRL.EVENTQ_IRQEN.inPlace | IRQ_CTRL.GERROR_IRQEN.inPlace);
    this.moveEventQueue(this.#eventqLog2, this.#eventqPlace);
    this.setCr0({ cmdqen: true });
  }

  /** Changes bits of CR0, all in one write. */
  setCr0(change: {
    readonly smmuen?: boolean | undefined;
    readonly eventqen?: boolean | undefined;
    readonly cmdqen?: boolean | undefined;
  }): void {
    let cr0 = this.#read(OFFSET.CR0);
    const set = (bit: number, on: boolean | undefined): void => {
      if (on !== undefined) cr0 = on ? cr0 | bit : cr0 & ~bit;
    };
    set(CR0.SMMUEN.inPlace, change.smmuen);
    set(CR0.EVENTQEN.inPlace, change.eventqen);
    set(CR0.CMDQEN.inPlace, change.cmdqen);
    this.#write(OFFSET.CR0, cr0);
  }

  /** What happens to DMA while SMMUEN=0. */
  setGbpa(abort: boolean): void {
    const rest = this.#read(OFFSET.GBPA) & ~GBPA.ABORT.inPlace;
    this.#write(OFFSET.GBPA, rest | GBPA.UPDATE.inPlace | GBPA.ABORT.put(abort ? 1 : 0));
  }

  /** Gives the event queue another size or one of two places, empty. EVENTQEN must be 0. */
  moveEventQueue(log2Size: number, place: number): void {
    this.#eventqLog2 = log2Size;
    this.#eventqPlace = place;
    this.#write64(OFFSET.EVENTQ_BASE, this.#eventqBase + CMDQ_BASE.LOG2SIZE.put(log2Size));
    this.#write(OFFSET.EVENTQ_PROD, 0);
    this.#write(OFFSET.EVENTQ_CONS, 0);
  }

  /** Points the SMMU at the other stream table. SMMUEN must be 0. */
  moveStreamTable(table: number): void {
    this.streamTable = table;
    this.#write64(OFFSET.STRTAB_BASE, steAddress(table, 0));
  }

  /** Replaces an STE of the current stream table, without telling the SMMU. */
  storeSte(sid: number, choice: SteChoice, space = 0): void {
    this.#store(steAddress(this.streamTable, sid), ste(choice, space));
  }

  /** Has the CD of an address space use the page tables of another. */
  storeCd(space: number, root: number): void {
    const cd = new Uint32Array(CD_WORDS);
    CD.V.set(cd, 1);
    CD.T0SZ.set(cd, T0SZ);
    CD.TG0.set(cd, CD_TG0.Granule4K);
    CD.SH0.set(cd, SHAREABILITY.Inner);
    CD.EPD1.set(cd, 1);
    CD.AA64.set(cd, 1);
    CD.R.set(cd, 1);
    CD.A.set(cd, 1);
    CD.ASET.set(cd, 1);
    CD.ASID.set(cd, asidOf(space));
    CD.TTB0.set(cd, hiOfNumber(rootOf(root)), loOfNumber(rootOf(root)));
    CD.MAIR0.set(cd, 0xff);
    this.#store(AT.cds + space * CD_SIZE, cd);
  }

  /** Maps the page to a frame, or to nothing, in the page tables of an address space. */
  storePage(root: number, frame: number | undefined): void {
    const words = new Uint32Array(2);
    if (frame !== undefined) {
      const at = AT.frames + frame * PAGE;
      DESCRIPTOR.Address.set(words, 0, at);
      words[0] |= DESCRIPTOR_TYPE.Page | S1_LEAF.AF.inPlace | S1_LEAF.nG.inPlace | S1_LEAF.AP.put(S1_AP.Rw);
      words[0] |= S1_LEAF.SH.put(SHAREABILITY.Inner);
    }
    this.#store(rootOf(root) + PAGE + ((BARE_PAGE >>> 12) & 0x1ff) * DESCRIPTOR_SIZE, words);
  }

  /**
   * CMD_CFGI_STE, or CMD_CFGI_ALL.
   * @param log2 CMD_CFGI_STE_RANGE instead, of so many StreamIDs around this one.
   */
  invalidateSte(sid: number | undefined, log2 = 0): void {
    this.#issue(sid === undefined ? cfgiAll() : log2 === 0 ? cfgiSte(sid) : cfgiSteRange(sid, log2));
  }

  /** CMD_CFGI_CD, or CMD_CFGI_CD_ALL. */
  invalidateCd(sid: number, all = false): void {
    this.#issue(all ? cfgiCdAll(sid) : cfgiCd(sid, 0, true));
  }

  /** CMD_TLBI_NH_ASID, or CMD_TLBI_NSNH_ALL. */
  invalidateTlb(space: number | undefined): void {
    this.#issue(
      space === undefined
        ? command(OPCODE.CMD_TLBI_NSNH_ALL)
        : tlbiAsid(OPCODE.CMD_TLBI_NH_ASID, asidOf(space)),
    );
  }

  /**
   * CMD_TLBI_NH_VA for the page of an address space, or CMD_TLBI_NH_VAA for that of all.
   * @param range names it as the second page of a range of two; needs IDR3.RIL.
   */
  invalidatePage(space: number | undefined, range: boolean): void {
    const opcode = space === undefined ? OPCODE.CMD_TLBI_NH_VAA : OPCODE.CMD_TLBI_NH_VA;
    const asid = space === undefined ? 0 : asidOf(space);
    this.#issue(
      range
        ? tlbiVa(opcode, asid, BigInt(BARE_HOLE), true, TWO_PAGES)
        : tlbiVa(opcode, asid, BigInt(BARE_PAGE), true),
    );
  }

  /** CMD_SYNC. */
  sync(): void {
    this.#issue(sync());
  }

  /**
   * Reads events and moves CONS; acknowledges an overflow when the queue is empty.
   * @param limit how many at most.
   */
  takeEvents(limit = Infinity): { readonly events: GuestEvent[]; readonly overflow: boolean } {
    const events = this.pendingEvents().slice(0, limit);
    const prod = this.#read(OFFSET.EVENTQ_PROD);
    const old = this.#read(OFFSET.EVENTQ_CONS);
    const log2 = this.#eventqLog2;
    const cons = advance(pointerOf(old, log2), events.length, log2);
    const empty = cons === pointerOf(prod, log2);
    const flag = (empty ? prod : old) & EVENTQ_PROD.OVFLG.inPlace;
    const overflow = empty && ((prod ^ old) & EVENTQ_PROD.OVFLG.inPlace) !== 0;
    this.#write(OFFSET.EVENTQ_CONS, (cons | flag) >>> 0);
    return { events, overflow };
  }

  /** The events in the queue, oldest first; nothing is taken. */
  pendingEvents(): GuestEvent[] {
    const log2 = this.#eventqLog2;
    const prod = pointerOf(this.#read(OFFSET.EVENTQ_PROD), log2);
    const cons = pointerOf(this.#read(OFFSET.EVENTQ_CONS), log2);
    const count = Math.min(distance(prod, cons, log2), 2 ** log2);
    const record = new Uint32Array(EVENT_WORDS);
    const events: GuestEvent[] = [];
    for (let i = 0; i < count; i++) {
      const at = this.#eventqBase + indexOf(advance(cons, i, log2), log2) * EVENT_SIZE;
      this.#memory.loadWords(hiOfNumber(at), loOfNumber(at), record, EVENT_WORDS);
      events.push(decodeEvent(record, () => undefined));
    }
    return events;
  }

  get #eventqBase(): number {
    return AT.events + this.#eventqPlace * EVENT_PLACE;
  }

  #issue(words: Command): void {
    const prod = this.#read(OFFSET.CMDQ_PROD);
    const at = AT.commands + indexOf(prod, LOG2_COMMANDS) * COMMAND_SIZE;
    this.#store(at, words.subarray(0, COMMAND_WORDS));
    this.#write(OFFSET.CMDQ_PROD, advance(prod, 1, LOG2_COMMANDS));
  }

  #store(at: number, words: Uint32Array): void {
    this.#memory.storeWords(hiOfNumber(at), loOfNumber(at), words, words.length);
  }

  #read(offset: number): number {
    return this.#registers.read(offset, 4) >>> 0;
  }

  #write(offset: number, value: number): void {
    this.#registers.write(offset, 4, 0, value >>> 0);
  }

  #write64(offset: number, value: number): void {
    this.#registers.write(offset, 8, hiOfNumber(value), loOfNumber(value));
  }
}

const steAddress = (table: number, sid: number): number => base + (table * BARE_SIDS + sid) * STE_SIZE;
const rootOf = (space: number): number => AT.spaces + space * 2 * PAGE;
/** The address space whose CD is at this guest-physical address, if one is. */
export function bareSpaceOf(gpa: number): number | undefined {
  const space = (gpa - AT.cds) / CD_SIZE;
  return Number.isInteger(space) && space >= 0 && space < BARE_SPACES ? space : undefined;
}

const asidOf = (space: number): number => space + 1;

function ste(choice: SteChoice, space: number): Uint32Array {
  const words = new Uint32Array(STE_WORDS);
  if (choice === 'invalid') return words;
  STE.V.set(words, 1);
  if (choice === 'bypass') STE.Config.set(words, STE_CONFIG.Bypass);
  if (choice !== 'translate') return words;
  STE.Config.set(words, STE_CONFIG.S1);
  STE.S1ContextPtr.set(words, 0, AT.cds + space * CD_SIZE);
  return words;
}
