import type { Step } from '../../src/conformance/vector.ts';
import { RAM_END, RAM_FIRST } from './oracle-case.ts';

const ENABLE_BITS = 0xd;

/** Memory and the registers that translation depends on, as the steps of a case leave them. Nothing is cached. */
export class CaseState {
  readonly #words = new Map<bigint, bigint>();
  readonly #registers = new Map<number, number>([[0x44, 0x1000]]);

  /** Before the first step. */
  constructor(mem: readonly (readonly [string, string])[]) {
    for (const [address, bytes] of mem) this.#poke(BigInt(address), bytes);
  }

  /** Does what the step writes. */
  apply(step: Step): void {
    if (step[0] === 'mem') this.#poke(BigInt(step[1]), step[2]);
    if (step[0] === 'w32') this.#write(Number(step[1]), Number(step[2]));
    if (step[0] === 'w64') {
      const value = BigInt(step[2]);
      this.#write(Number(step[1]), Number(value & 0xffff_ffffn));
      this.#write(Number(step[1]) + 4, Number(value >> 32n));
    }
  }

  #write(offset: number, value: number): void {
    if (offset === 0x44) {
      // 6.3.14: only with UPDATE.
      if (value >= 0x8000_0000) this.#registers.set(offset, value - 0x8000_0000);
    } else this.#registers.set(offset, offset === 0x20 ? value & ENABLE_BITS : value);
  }

  register(offset: number): bigint {
    return BigInt(this.#registers.get(offset) ?? 0);
  }

  /** The 64-bit word at a multiple of 8, or undefined if nothing answers there. */
  read(at: bigint): bigint | undefined {
    if (at < BigInt(RAM_FIRST) || at >= BigInt(RAM_END)) return undefined;
    return this.#words.get(at) ?? 0n;
  }

  #poke(address: bigint, bytes: string): void {
    const data = Buffer.from(bytes, 'hex');
    const whole = address % 8n === 0n ? data.length & ~7 : 0;
    for (let i = 0; i < whole; i += 8) this.#words.set(address + BigInt(i), data.readBigUInt64LE(i));
    for (let i = whole; i < data.length; i++) {
      const at = address + BigInt(i);
      const word = at & ~7n;
      const shift = 8n * (at & 7n);
      const rest = (this.#words.get(word) ?? 0n) & ~(0xffn << shift);
      this.#words.set(word, rest | (BigInt(data[i]) << shift));
    }
  }
}
