/** Writes protocol buffers: the few wire types that a Perfetto trace needs. */

const VARINT = 0;
const BYTES = 2;

/** A message that grows. Fields come out in the order in which they were put. */
export class ProtobufWriter {
  #bytes = new Uint8Array(256);
  #length = 0;
  readonly #utf8 = new TextEncoder();

  /** What was written so far; valid until more is. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** An unsigned number: a safe integer, or a bigint below 2^64. */
  uint(field: number, value: number | bigint): void {
    this.#varint((field << 3) | VARINT);
    this.#varint(value);
  }

  text(field: number, value: string): void {
    this.#lengthDelimited(field, this.#utf8.encode(value));
  }

  message(field: number, write: (inner: ProtobufWriter) => void): void {
    const inner = new ProtobufWriter();
    write(inner);
    this.#lengthDelimited(field, inner.bytes);
  }

  #lengthDelimited(field: number, bytes: Uint8Array): void {
    this.#varint((field << 3) | BYTES);
    this.#varint(bytes.length);
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #varint(value: number | bigint): void {
    this.#reserve(10);
    let rest = value;
    while (rest >= 0x80) {
      const low = typeof rest === 'bigint' ? Number(rest & 0x7fn) : rest % 0x80;
      this.#bytes[this.#length++] = low | 0x80;
      rest = typeof rest === 'bigint' ? rest >> 7n : Math.floor(rest / 0x80);
    }
    this.#bytes[this.#length++] = Number(rest);
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(2 * this.#bytes.length, this.#length + more));
    larger.set(this.bytes);
    this.#bytes = larger;
  }
}
