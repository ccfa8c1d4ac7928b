import type { DmaResult, Step, StepResult } from '../../src/conformance/vector.ts';
import {
  ENDPOINTS,
  type Endpoint,
  TESTDEV_FAILED,
  eduDma,
  enableEndpoint,
  enablePorts,
  testdevWrite,
} from './endpoints.ts';
import {
  type CaseResult,
  EVENT_BYTES,
  FINAL_REGISTERS,
  type OracleCase,
  RAM_END,
  RAM_FIRST,
  toHex,
} from './oracle-case.ts';
import type { Script } from './qtest-script.ts';

/** The virt machine's SMMU. */
const SMMU = 0x0905_0000;
const EVENTQ_PROD = SMMU + 0x100a8;
const EVENTQ_CONS = SMMU + 0x100ac;

/** Pages at the end of RAM that are the driver's own: zeros, and one for each edu to put its buffer. */
const ZEROS = RAM_END - 0x1000;
const DUMP = RAM_END - 0x1_0000;

export const PAGE = 0x1000;

const number = ([word]: readonly string[]): number => Number(word);

/** One case on a QEMU that was just reset. */
export class CaseRun {
  readonly #case: OracleCase;
  readonly #script: Script;
  readonly #dirty: Set<number>;
  readonly #data: readonly number[];
  /** Reads so far of each edu; each has a word of its buffer. */
  readonly #reads = new Map<Endpoint, DmaSlot[]>();
  /** The last write to each place in a page, if it is not known yet what it changed. */
  readonly #writes = new Map<number, DmaSlot>();

  constructor(given: OracleCase, script: Script, dirty: Set<number>) {
    this.#case = given;
    this.#script = script;
    this.#dirty = dirty;
    this.#data = given.data.map(Number);
  }

  async run(): Promise<CaseResult> {
    const { steps, mem, eventq } = this.#case;
    this.#script.addAll(enablePorts());
    for (const endpoint of this.#endpoints()) this.#script.addAll(enableEndpoint(endpoint));
    this.#zeroBuffers();
    for (const [address, bytes] of mem) this.#poke(Number(address), bytes);
    this.#mark();
    this.#touch(Number(eventq.base), 2 * EVENT_BYTES * 2 ** eventq.log2);
    const out: StepResult[] = [];
    for (const step of steps) out.push(await this.#step(step));
    const final: Record<string, string> = {};
    for (const [name, offset] of Object.entries(FINAL_REGISTERS)) {
      this.#script.add(`readl ${SMMU + offset}`, (words) => {
        final[name] = toHex(number(words));
      });
    }
    this.#findAll();
    this.#dumpBuffers();
    await this.#script.run();
    // Results of reads and of registers are known only now.
    return { out: out.map((result) => (result instanceof Later ? result.value : result)), final };
  }

  #endpoints(): Set<Endpoint> {
    const used = new Set<Endpoint>();
    for (const step of this.#case.steps) {
      if (step[0] !== 'dma') continue;
      const endpoint = ENDPOINTS.get(step[1]);
      if (endpoint === undefined || endpoint.reads !== (step[2] === 'r'))
        throw new RangeError(`${this.#case.id}: no endpoint does "${step.join(' ')}"`);
      used.add(endpoint);
      if (endpoint.reads) this.#reads.set(endpoint, []);
    }
    return used;
  }

  async #step(step: Step): Promise<StepResult> {
    switch (step[0]) {
      case 'w32':
        this.#script.add(`writel ${SMMU + Number(step[1])} ${Number(step[2])}`);
        return null;
      case 'w64':
        this.#script.add(`writeq ${SMMU + Number(step[1])} ${BigInt(step[2])}`);
        return null;
      case 'r32': {
        const later = new Later();
        this.#script.add(`readl ${SMMU + Number(step[1])}`, (words) => {
          later.value = toHex(number(words));
        });
        return later as never;
      }
      case 'mem':
        this.#poke(Number(step[1]), step[2]);
        return null;
      case 'dma':
        return this.#dma(step[1], BigInt(step[3])) as never;
      default:
        return this.#drain();
    }
  }

  #poke(address: number, bytes: string): void {
    const size = bytes.length / 2;
    this.#script.add(`write ${address} ${size} 0x${bytes}`);
    this.#touch(address, size);
  }

  #touch(address: number, size: number): void {
    const first = Math.max(address, RAM_FIRST);
    const last = Math.min(address + size, RAM_END);
    for (let page = first - (first % PAGE); page < last; page += PAGE) this.#dirty.add(page);
  }

  /** Every word of a data page says where it is. */
  #mark(): void {
    for (const page of this.#data) {
      this.#touch(page, PAGE);
      const words = new Uint32Array(PAGE / 4);
      for (let i = 0; i < words.length; i++) words[i] = markerOf(page + 4 * i);
      this.#script.add(`b64write ${page} ${PAGE} ${Buffer.from(words.buffer).toString('base64')}`);
    }
  }

  #dma(sid: number, iova: bigint): Later {
    const endpoint = ENDPOINTS.get(sid)!;
    const later = new Later();
    const result = new DmaSlot(later);
    this.#find(placeOf(iova));
    this.#script.add(`readl ${EVENTQ_PROD}`, (words) => {
      result.before = number(words);
    });
    if (endpoint.reads) {
      const reads = this.#reads.get(endpoint)!;
      this.#script.addAll(eduDma(endpoint, 'read', iova, 4 * reads.length, 4));
      reads.push(result);
    } else {
      this.#script.addAll(testdevWrite(endpoint, iova), (words) => {
        result.ok = number(words) !== TESTDEV_FAILED;
      });
      this.#writes.set(placeOf(iova), result);
    }
    const wrap = 2 ** (this.#case.eventq.log2 + 1);
    this.#script.add(`readl ${EVENTQ_PROD}`, (words) => {
      result.finish((number(words) - result.before) & (wrap - 1));
    });
    return later;
  }

  /** Before an access to that place in a page: finds what the write before it changed, and changes it back. */
  #find(place: number): void {
    const write = this.#writes.get(place);
    if (write === undefined) return;
    this.#writes.delete(place);
    for (const page of this.#data) {
      const at = page + place;
      this.#script.add(`readl ${at}`, (words) => {
        if (number(words) !== markerOf(at)) write.changed(at);
      });
      this.#script.add(`writel ${at} ${markerOf(at)}`);
    }
  }

  /** After the case: finds what all other writes changed. */
  #findAll(): void {
    if (this.#writes.size === 0) return;
    for (const page of this.#data) {
      this.#script.add(`b64read ${page} ${PAGE}`, ([text]) => {
        const bytes = Buffer.from(text, 'base64');
        for (const [place, write] of this.#writes)
          if (bytes.readUInt32LE(place) !== markerOf(page + place)) write.changed(page + place);
      });
    }
  }

  async #drain(): Promise<StepResult> {
    const { log2, base } = this.#case.eventq;
    const pointer = 2 ** (log2 + 1) - 1;
    let prod = 0;
    let cons = 0;
    this.#script.add(`readl ${EVENTQ_PROD}`, (words) => {
      prod = number(words);
    });
    this.#script.add(`readl ${EVENTQ_CONS}`, (words) => {
      cons = number(words) & pointer;
    });
    await this.#script.run();
    const records: (string | null)[] = [];
    while (cons !== (prod & pointer) && records.length <= 2 ** log2) {
      const i = records.length;
      const at = Number(base) + (cons & (2 ** log2 - 1)) * EVENT_BYTES;
      records.push(null);
      if (at >= RAM_FIRST && at + EVENT_BYTES <= RAM_END) {
        this.#script.add(`read ${at} ${EVENT_BYTES}`, ([bytes]) => {
          records[i] = bytes.slice(2);
        });
      }
      cons = (cons + 1) & pointer;
    }
    this.#script.add(`writel ${EVENTQ_CONS} ${((prod & pointer) | (prod & 0x8000_0000)) >>> 0}`);
    await this.#script.run();
    return records;
  }

  /** Before the case, while the SMMU is off: edu's buffer does not change at a reset. */
  #zeroBuffers(): void {
    for (const endpoint of this.#reads.keys())
      this.#script.addAll(eduDma(endpoint, 'read', BigInt(ZEROS), 0, PAGE));
  }

  /** After the case: the SMMU is turned off, and each edu writes its buffer to RAM. */
  #dumpBuffers(): void {
    this.#script.add(`writel ${SMMU + 0x20} 0`);
    // GBPA: UPDATE, and no ABORT.
    this.#script.add(`writel ${SMMU + 0x44} 0x80000000`);
    let at = DUMP;
    for (const [endpoint, reads] of this.#reads) {
      const bytes = 4 * reads.length;
      this.#script.addAll(eduDma(endpoint, 'write', BigInt(at), 0, bytes));
      this.#script.add(`read ${at} ${bytes}`, ([text]) => {
        const data = Buffer.from(text.slice(2), 'hex');
        for (const [i, result] of reads.entries()) result.gotWord(data.readUInt32LE(4 * i));
      });
      this.#touch(at, bytes);
      at += PAGE;
    }
  }
}

/** A result that is not known yet. */
class Later {
  value: StepResult = null;
}

/** The result of an access, as it becomes known. */
class DmaSlot {
  before = 0;
  ok = false;
  pa: number | undefined;
  readonly #later: Later;
  #events = 0;

  constructor(later: Later) {
    this.#later = later;
  }

  finish(events: number): void {
    this.#events = events;
    this.#write();
  }

  /** What a write changed. */
  changed(at: number): void {
    this.pa = at;
    this.#write();
  }

  /** What a read got: the place of a data page, or zero if it failed. */
  gotWord(word: number): void {
    this.ok = word >= 0x8000_0000;
    if (this.ok) this.pa = (word - 0x8000_0000) * 4;
    this.#write();
  }

  #write(): void {
    const { ok, pa } = this;
    const result: DmaResult = ok
      ? { ok, pa: pa === undefined ? 'unknown' : toHex(pa), ev: this.#events }
      : { ok, ev: this.#events };
    this.#later.value = result;
  }
}

/** Every granule keeps the low 12 bits of an address. */
const placeOf = (iova: bigint): number => Number(iova & 0xffcn);
const markerOf = (at: number): number => 0x8000_0000 + Math.floor(at / 4);
