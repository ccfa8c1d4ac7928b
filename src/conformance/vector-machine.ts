import { hiOf, hiOfNumber, loOf } from '../bits/u64.ts';
import { MEM_OK } from '../memory/memory.ts';
import { QEMU_LIKE } from '../smmu/identification.ts';
import { Smmu } from '../smmu/smmu.ts';
import { OUTCOME, Transaction, Translation } from '../smmu/transaction.ts';
import { EVENT_SIZE } from '../spec/events.ts';
import { EVENTQ_CONS, EVENTQ_PROD, OFFSET } from '../spec/registers.ts';
import { SparseRam } from '../memory/sparse-ram.ts';
import { type DmaResult, type Step, type StepResult, VECTOR_RAM, type Vector } from './vector.ts';

/** What a vector may touch of its RAM. Honest ones need less than 4 MiB. */
const MOST_RAM = 256 * 2 ** 20;
/** The vectors' reset value of GBPA, which the architecture leaves open. */
const GBPA_RESET = 0x1000;

/** The system that the vectors describe: 6 GiB of RAM from 1 GiB, and an SMMU with the ID registers they were made for. */
export class VectorMachine {
  readonly #ram = new SparseRam(VECTOR_RAM.first, VECTOR_RAM.size);
  readonly #smmu = new Smmu({
    ids: QEMU_LIKE,
    memory: this.#ram,
    interrupts: { raise() {}, writeMsi: () => false },
  });
  readonly #transaction = new Transaction();
  readonly #translation = new Translation();
  readonly #record = new Uint8Array(EVENT_SIZE);

  /** Back to reset, with the vector's memory. @throws RangeError if it touches more than 256 MiB of RAM */
  prepare(vector: Vector): void {
    this.#ram.clear();
    this.#smmu.reset();
    this.#smmu.registers[OFFSET.GBPA >>> 2] = GBPA_RESET;
    for (const [address, bytes] of vector.mem) this.#poke(address, bytes);
  }

  /** The SMMU in its present state. */
  get smmu(): Smmu {
    return this.#smmu;
  }

  /** Does one step. @throws RangeError as {@link VectorMachine.prepare} does */
  step(step: Step, vector: Vector): StepResult {
    this.#limit();
    switch (step[0]) {
      case 'w32':
        this.#smmu.write(Number(step[1]), 4, 0, Number(step[2]));
        return null;
      case 'w64': {
        const value = BigInt(step[2]);
        this.#smmu.write(Number(step[1]), 8, hiOf(value), loOf(value));
        return null;
      }
      case 'r32':
        return this.read(Number(step[1]));
      case 'mem':
        this.#poke(step[1], step[2]);
        return null;
      case 'dma':
        return this.#dma(step[1], step[2] === 'w', BigInt(step[3]), vector.eventq.log2);
      default:
        return this.#drain(vector);
    }
  }

  /** Offset of a register, undefined if there is none of that name. */
  offsetOf(name: string): number | undefined {
    return Object.hasOwn(OFFSET, name) ? OFFSET[name as keyof typeof OFFSET] : undefined;
  }

  /** The 32 bits at an offset, as text. */
  read(offset: number): string {
    return hex(this.#smmu.read(offset, 4));
  }

  /** Whether CMDQ_CONS.ERR means anything (6.3.28). */
  get commandError(): boolean {
    return ((this.#smmu.read(OFFSET.GERROR, 4) ^ this.#smmu.read(OFFSET.GERRORN, 4)) & 1) !== 0;
  }

  #limit(): void {
    if (this.#ram.touched > MOST_RAM) throw new RangeError('The vector touches more than 256 MiB of RAM.');
  }

  #poke(address: string, bytes: string): void {
    this.#limit();
    const at = Number(address);
    const data = new Uint8Array(bytes.length / 2);
    for (let i = 0; i < data.length; i++) data[i] = Number.parseInt(bytes.slice(2 * i, 2 * i + 2), 16);
    this.#ram.writeBytes(hiOfNumber(at), at % 0x1_0000_0000, data);
  }

  #dma(sid: number, write: boolean, iova: bigint, log2: number): DmaResult {
    const transaction = this.#transaction;
    const result = this.#translation;
    const before = this.#smmu.read(OFFSET.EVENTQ_PROD, 4);
    transaction.sid = sid;
    transaction.write = write;
    transaction.addrHi = hiOf(iova);
    transaction.addrLo = loOf(iova);
    const outcome = this.#smmu.translate(transaction, result);
    const ev = (this.#smmu.read(OFFSET.EVENTQ_PROD, 4) - before) & (2 ** (log2 + 1) - 1);
    if (outcome !== OUTCOME.Ok || !this.#ram.contains(result.paHi, result.paLo)) return { ok: false, ev };
    return { ok: true, pa: `0x${(result.paHi * 0x1_0000_0000 + result.paLo).toString(16)}`, ev };
  }

  /** Takes all records out of the queue, as a driver does. */
  #drain(vector: Vector): StepResult {
    const { log2 } = vector.eventq;
    const base = Number(vector.eventq.base);
    const pointer = 2 ** (log2 + 1) - 1;
    const prod = this.#smmu.read(OFFSET.EVENTQ_PROD, 4);
    let cons = this.#smmu.read(OFFSET.EVENTQ_CONS, 4) & pointer;
    const records: (string | null)[] = [];
    while (cons !== (prod & pointer) && records.length <= 2 ** log2) {
      const at = base + (cons & (2 ** log2 - 1)) * EVENT_SIZE;
      const status = this.#ram.readBytes(hiOfNumber(at), at % 0x1_0000_0000, this.#record);
      records.push(status === MEM_OK ? bytesToHex(this.#record) : null);
      cons = (cons + 1) & pointer;
    }
    // Index and wrap, and the acknowledgement of an overflow.
    const acknowledged = (prod & pointer & EVENTQ_CONS.RD.inPlace) | (prod & EVENTQ_PROD.OVFLG.inPlace);
    this.#smmu.write(OFFSET.EVENTQ_CONS, 4, 0, acknowledged >>> 0);
    return records;
  }
}

const hex = (value: number): string => `0x${value.toString(16)}`;

const bytesToHex = (bytes: Uint8Array): string => {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
};
