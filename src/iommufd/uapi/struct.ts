/**
 * One encoder and decoder for all uAPI structures: a structure is a table of members, each with its offset and width.
 * Values are little-endian; a `u64` is a `bigint`, everything narrower a `number`.
 */

/** A member of the given C type, or `count` of them. */
export interface Member<V extends number | bigint | readonly number[]> {
  readonly offset: number;
  /** Bytes of one element. */
  readonly width: 1 | 2 | 4 | 8;
  readonly signed: boolean;
  /** Number of elements of an array, or undefined for a scalar. */
  readonly count: number | undefined;
  /** Carries the type of the value; always undefined. */
  readonly value?: V;
}

/** Members by their names in the header. */
export type Members = Readonly<Record<string, Member<number> | Member<bigint> | Member<readonly number[]>>>;

/** The values of a structure, by member name. */
export type Values<M extends Members> = {
  -readonly [K in keyof M]: M[K] extends Member<infer V> ? V : never;
};

const scalar = (offset: number, width: 1 | 2 | 4, signed = false): Member<number> => ({
  offset,
  width,
  signed,
  count: undefined,
});

export const u8 = (offset: number): Member<number> => scalar(offset, 1);
export const u16 = (offset: number): Member<number> => scalar(offset, 2);
export const u32 = (offset: number): Member<number> => scalar(offset, 4);
export const s32 = (offset: number): Member<number> => scalar(offset, 4, true);
export const u64 = (offset: number): Member<bigint> => ({
  offset,
  width: 8,
  signed: false,
  count: undefined,
});
export const u32Array = (offset: number, count: number): Member<readonly number[]> => ({
  offset,
  width: 4,
  signed: false,
  count,
});
export const u8Array = (offset: number, count: number): Member<readonly number[]> => ({
  offset,
  width: 1,
  signed: false,
  count,
});

/** A structure of the uAPI: its members, its size, and how to read and write it. */
export class Struct<M extends Members> {
  /** As in the header, without `struct`. */
  readonly name: string;
  /** In bytes, as the kernel knows it. */
  readonly size: number;
  readonly members: M;
  readonly #first: string;

  constructor(name: string, size: number, members: M) {
    this.name = name;
    this.size = size;
    this.members = members;
    this.#first = Object.keys(members)[0]!;
  }

  /**
   * A new structure; members that are not given are 0. If its first member is `size` or `argsz`, this becomes `length`.
   * @param length in bytes; shorter than the kernel's size drops members at the end, longer adds zeros.
   */
  encode(values: Partial<Values<M>> = {}, length = this.size): Uint8Array {
    const bytes = new Uint8Array(Math.max(length, this.size));
    for (const name in values) {
      const value = values[name];
      if (value !== undefined) this.set(bytes, name, value);
    }
    if (this.#first === 'size' || this.#first === 'argsz') store32(bytes, 0, length);
    return length < bytes.length ? bytes.slice(0, length) : bytes;
  }

  /** Every member; what lies beyond the end of `bytes` reads as 0. */
  decode(bytes: Uint8Array, at = 0): Values<M> {
    const values: Record<string, unknown> = {};
    for (const name in this.members) values[name] = this.get(bytes, name, at);
    return values as Values<M>;
  }

  /** One member of the structure at `bytes[at]`; what lies beyond the end reads as 0. */
  get<K extends keyof M & string>(bytes: Uint8Array, name: K, at = 0): Values<M>[K] {
    const member = this.members[name];
    if (member.count === undefined) return load(bytes, at + member.offset, member) as Values<M>[K];
    const array: number[] = [];
    for (let i = 0; i < member.count; i++)
      array.push(Number(load(bytes, at + member.offset + i * member.width, member)));
    return array as unknown as Values<M>[K];
  }

  /** Replaces one member of the structure at `bytes[at]`; bytes beyond the end are dropped. */
  set<K extends keyof M & string>(bytes: Uint8Array, name: K, value: Values<M>[K], at = 0): void {
    const member = this.members[name];
    if (member.count === undefined) {
      store(bytes, at + member.offset, member.width, value as number | bigint);
      return;
    }
    const array = value as readonly number[];
    for (let i = 0; i < member.count; i++)
      store(bytes, at + member.offset + i * member.width, member.width, array[i] ?? 0);
  }
}

/** An ioctl: its number, the structure that its argument points to, and the least size that the kernel takes. */
export class Ioctl<M extends Members, N extends string = string> extends Struct<M> {
  /** As in the header: `IOMMU_VIOMMU_ALLOC`. */
  readonly ioctl: N;
  readonly request: number;
  /** In bytes. */
  readonly minSize: number;

  constructor(ioctl: N, request: number, struct: string, minSize: number, size: number, members: M) {
    super(struct, size, members);
    this.ioctl = ioctl;
    this.request = request;
    this.minSize = minSize;
  }
}

/** Byte by byte: a DataView for each member would cost more than all the rest of a call. */
function load32(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
}

function store32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

function load(
  bytes: Uint8Array,
  at: number,
  member: { readonly width: number; readonly signed: boolean },
): number | bigint {
  const { width } = member;
  if (at + width > bytes.length) return width === 8 ? 0n : 0;
  switch (width) {
    case 1:
      return bytes[at];
    case 2:
      return bytes[at] | (bytes[at + 1] << 8);
    case 4:
      return member.signed ? load32(bytes, at) : load32(bytes, at) >>> 0;
    default:
      return (BigInt(load32(bytes, at + 4) >>> 0) << 32n) | BigInt(load32(bytes, at) >>> 0);
  }
}

function store(bytes: Uint8Array, at: number, width: number, value: number | bigint): void {
  if (at + width > bytes.length) return;
  switch (width) {
    case 1:
      bytes[at] = Number(value);
      return;
    case 2:
      bytes[at] = Number(value);
      bytes[at + 1] = Number(value) >>> 8;
      return;
    case 4:
      store32(bytes, at, Number(value));
      return;
    default: {
      const whole = BigInt.asUintN(64, BigInt(value));
      store32(bytes, at, Number(whole & 0xffff_ffffn));
      store32(bytes, at + 4, Number(whole >> 32n));
    }
  }
}
