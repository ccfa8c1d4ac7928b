/**
 * Bit-fields of structures that are arrays of little-endian 32-bit words. Bits are counted through the whole
 * structure, as IHI 0070 counts them, so a wrong width breaks one field and not all that follow.
 */

/** A field of at most 32 bits that lies inside one 32-bit word. */
export class Field {
  readonly hi: number;
  readonly lo: number;
  readonly word: number;
  readonly shift: number;
  /** Mask of the value, before it is shifted into place. */
  readonly mask: number;

  constructor(hi: number, lo: number) {
    if (hi < lo || hi >>> 5 !== lo >>> 5) throw new RangeError(`[${hi}:${lo}] is not inside one 32-bit word`);
    this.hi = hi;
    this.lo = lo;
    this.word = lo >>> 5;
    this.shift = lo & 31;
    this.mask = (2 ** (hi - lo + 1) - 1) >>> 0;
  }

  /** Value of this field in the structure that starts at `words[at]`. */
  get(words: Uint32Array, at = 0): number {
    return ((words[at + this.word] >>> this.shift) & this.mask) >>> 0;
  }

  /** Replaces this field; bits of `value` beyond the field's width are dropped. */
  set(words: Uint32Array, value: number, at = 0): void {
    const i = at + this.word;
    words[i] = (words[i] & ~(this.mask << this.shift)) | ((value & this.mask) << this.shift);
  }

  /** Value of this field in the 32-bit word that holds it. */
  of(word: number): number {
    return ((word >>> this.shift) & this.mask) >>> 0;
  }

  /** `value` shifted into place in the 32-bit word that holds this field. */
  put(value: number): number {
    return ((value & this.mask) << this.shift) >>> 0;
  }

  /** The bits that this field occupies in the 32-bit word that holds it. */
  get inPlace(): number {
    return (this.mask << this.shift) >>> 0;
  }
}

/** A field of one 64-bit word whose bits keep their place: an address, or any value wider than 32 bits. */
export class Span {
  readonly hi: number;
  readonly lo: number;
  /** Index of the 32-bit word that holds the low half. */
  readonly word: number;
  readonly loMask: number;
  readonly hiMask: number;

  constructor(hi: number, lo: number) {
    if (hi < lo || hi >>> 6 !== lo >>> 6) throw new RangeError(`[${hi}:${lo}] is not inside one 64-bit word`);
    this.hi = hi;
    this.lo = lo;
    this.word = (lo >>> 6) * 2;
    let mask = 0n;
    for (let bit = lo & 63; bit <= (hi & 63); bit++) mask |= 1n << BigInt(bit);
    this.loMask = Number(mask & 0xffff_ffffn);
    this.hiMask = Number(mask >> 32n);
  }

  /** Low half of the field, in place. */
  getLo(words: Uint32Array, at = 0): number {
    return (words[at + this.word] & this.loMask) >>> 0;
  }

  /** High half of the field, in place. */
  getHi(words: Uint32Array, at = 0): number {
    return (words[at + this.word + 1] & this.hiMask) >>> 0;
  }

  /** Replaces the field; bits of the value outside the field are dropped. */
  set(words: Uint32Array, valueHi: number, valueLo: number, at = 0): void {
    const i = at + this.word;
    words[i] = (words[i] & ~this.loMask) | (valueLo & this.loMask);
    words[i + 1] = (words[i + 1] & ~this.hiMask) | (valueHi & this.hiMask);
  }
}

/** Bits [hi:lo] of a structure, or one bit. */
export const bits = (hi: number, lo: number = hi): Field => new Field(hi, lo);

/** Bits [hi:lo] of a structure, kept in place as two 32-bit halves. */
export const address = (hi: number, lo: number): Span => new Span(hi, lo);

/** A table of fields: what the architecture calls a structure or a register. */
export type Layout = Readonly<Record<string, Field | Span>>;
