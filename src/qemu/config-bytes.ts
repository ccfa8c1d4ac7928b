/** Configuration space as bytes, and which of their bits software can change. */
export class ConfigBytes {
  readonly size: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #writable: Uint8Array;

  constructor(size: number) {
    this.size = size;
    this.#bytes = new Uint8Array(size);
    this.#view = new DataView(this.#bytes.buffer);
    this.#writable = new Uint8Array(size);
  }

  /** Lets software change the bits of `mask`, in `width` bytes from `offset`. */
  allowWrites(offset: number, width: 1 | 2 | 4, mask: number): void {
    for (let i = 0; i < width; i++) this.#writable[offset + i] = (mask >>> (8 * i)) & 0xff;
  }

  get8(offset: number): number {
    return this.#bytes[offset];
  }

  get16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  get32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  /** Sets a value whether or not software could. */
  set8(offset: number, value: number): void {
    this.#bytes[offset] = value;
  }

  set16(offset: number, value: number): void {
    this.#view.setUint16(offset, value, true);
  }

  set32(offset: number, value: number): void {
    this.#view.setUint32(offset, value, true);
  }

  /** Reads as software does; bytes outside read as 0. */
  read(offset: number, into: Uint8Array): void {
    into.fill(0);
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  /** Writes as software does: bits that it cannot change keep their value, bytes outside are dropped. */
  write(offset: number, from: Uint8Array): void {
    const end = Math.min(from.length, this.size - offset);
    for (let i = 0; i < end; i++) {
      const mask = this.#writable[offset + i];
      this.#bytes[offset + i] = (this.#bytes[offset + i] & ~mask) | (from[i] & mask);
    }
  }

  /** Everything that software can change becomes 0, as after a reset. */
  reset(): void {
    for (let i = 0; i < this.size; i++) this.#bytes[i] &= ~this.#writable[i];
  }
}
