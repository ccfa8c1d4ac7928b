/** Reads protocol buffers by the encoding guide, for tests of the writer. */

export interface Field {
  readonly field: number;
  /** A varint, or the bytes of a length-delimited field. */
  readonly value: bigint | Uint8Array;
}

export function decodeMessage(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw new RangeError('a varint does not end');
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const field = Number(key >> 3n);
    if ((key & 7n) === 0n) fields.push({ field, value: varint() });
    else if ((key & 7n) === 2n) {
      const length = Number(varint());
      if (at + length > bytes.length) throw new RangeError('a field is longer than its message');
      fields.push({ field, value: bytes.subarray(at, at + length) });
      at += length;
    } else throw new RangeError(`wire type ${key & 7n}`);
  }
  return fields;
}
