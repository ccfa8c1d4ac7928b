/** An MSI capability, as bytes that software writes and as the interrupts that follow from them. */

import type { ConfigBytes } from './config-bytes.ts';
import { CAPABILITY } from './pci-config.ts';

const CONTROL = 2;
const ADDRESS_LO = 4;
const ADDRESS_HI = 8;

const ENABLE = 0x0001;
const CAPABLE_SHIFT = 1;
const ENABLED_SHIFT = 4;
const IS_64BIT = 0x0080;
const MASKABLE = 0x0100;

/** The form of the capability: what its Message Control says, and nothing else does. */
export interface MsiForm {
  /** Vectors that the function can use: a power of two, 1..32. */
  readonly vectors: number;
  readonly is64: boolean;
  /** Each vector has a mask bit and a pending bit. */
  readonly maskable: boolean;
}

/** Reads the form out of Message Control. Reserved encodings count as 32 vectors. */
export const msiForm = (control: number): MsiForm => ({
  vectors: 2 ** Math.min((control >>> CAPABLE_SHIFT) & 7, 5),
  is64: (control & IS_64BIT) !== 0,
  maskable: (control & MASKABLE) !== 0,
});

/** Bytes that a capability of this form takes. */
export const msiSize = ({ is64, maskable }: MsiForm): number => (is64 ? 14 : 10) + (maskable ? 10 : 0);

export class MsiCapability {
  readonly form: MsiForm;
  readonly #config: ConfigBytes;
  readonly #offset: number;
  readonly #data: number;
  /** Offset of the mask bits; the pending bits follow. */
  readonly #mask: number;

  /** Lays the capability out at `offset`, with everything off; the next pointer is the caller's. */
  constructor(config: ConfigBytes, offset: number, form: MsiForm) {
    this.form = form;
    this.#config = config;
    this.#offset = offset;
    this.#data = offset + (form.is64 ? 12 : 8);
    this.#mask = this.#data + 4;
    config.set8(offset, CAPABILITY.Msi);
    config.set16(
      offset + CONTROL,
      (Math.log2(form.vectors) << CAPABLE_SHIFT) |
        (form.is64 ? IS_64BIT : 0) |
        (form.maskable ? MASKABLE : 0),
    );
    config.allowWrites(offset + CONTROL, 2, ENABLE | (7 << ENABLED_SHIFT));
    config.allowWrites(offset + ADDRESS_LO, 4, 0xffff_fffc);
    if (form.is64) config.allowWrites(offset + ADDRESS_HI, 4, 0xffff_ffff);
    config.allowWrites(this.#data, 2, 0xffff);
    if (form.maskable) config.allowWrites(this.#mask, 4, 2 ** form.vectors - 1);
  }

  get enabled(): boolean {
    return (this.#config.get16(this.#offset + CONTROL) & ENABLE) !== 0;
  }

  /** Vectors that software gave; never more than the function can use, whatever was written. */
  get vectors(): number {
    const log2 = (this.#config.get16(this.#offset + CONTROL) >>> ENABLED_SHIFT) & 7;
    return Math.min(2 ** log2, this.form.vectors);
  }

  get addressLo(): number {
    return this.#config.get32(this.#offset + ADDRESS_LO);
  }

  get addressHi(): number {
    return this.form.is64 ? this.#config.get32(this.#offset + ADDRESS_HI) : 0;
  }

  /** What to write for a vector: its number replaces the low bits of the data. */
  data(vector: number): number {
    const low = this.vectors - 1;
    return (this.#config.get16(this.#data) & ~low) | (vector & low);
  }

  masked(vector: number): boolean {
    return this.form.maskable && ((this.#config.get32(this.#mask) >>> vector) & 1) !== 0;
  }

  /** Remembers an interrupt of a masked vector where software can see it. */
  setPending(vector: number): void {
    this.#config.set32(this.#mask + 4, (this.#config.get32(this.#mask + 4) | (1 << vector)) >>> 0);
  }

  /** Vectors with a pending interrupt that are not masked any more; they are not pending any more either. */
  takeUnmasked(): number[] {
    if (!this.form.maskable) return [];
    const pending = this.#config.get32(this.#mask + 4);
    const ready = pending & ~this.#config.get32(this.#mask);
    this.#config.set32(this.#mask + 4, (pending & ~ready) >>> 0);
    const vectors: number[] = [];
    for (let vector = 0; vector < this.form.vectors; vector++)
      if (((ready >>> vector) & 1) !== 0) vectors.push(vector);
    return vectors;
  }

  /** Forgets what is pending. */
  clearPending(): void {
    if (this.form.maskable) this.#config.set32(this.#mask + 4, 0);
  }
}
