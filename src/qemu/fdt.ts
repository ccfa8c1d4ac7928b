import { QemuError } from './errors.ts';

/**
 * Flattened device trees, format 17 (Devicetree Specification v0.4, chapter 5): read into a plain tree, written back.
 * Everything in the blob is big-endian.
 */

/** A node: its name with the unit address, its properties and its children, in order. */
export interface FdtNode {
  name: string;
  properties: Map<string, Uint8Array>;
  children: FdtNode[];
}

/** A region that the operating system must leave alone; not the same as /reserved-memory. */
export interface FdtReservation {
  address: bigint;
  sizeBytes: bigint;
}

export interface Fdt {
  root: FdtNode;
  reservations: FdtReservation[];
  bootCpu: number;
}

const MAGIC = 0xd00dfeed;
const VERSION = 17;
const LAST_COMPATIBLE = 16;
const HEADER_BYTES = 40;

const TOKEN = { BeginNode: 1, EndNode: 2, Property: 3, Nop: 4, End: 9 } as const;

/** Deeper trees are refused: a real one has six levels, and depth costs stack. */
const MAX_DEPTH = 64;

const bad = (what: string): QemuError =>
  new QemuError('BAD_DEVICE_TREE', `The device tree is broken: ${what}.`);

/** Text up to the next NUL, which must lie before `end`. */
function cString(blob: Uint8Array, at: number, end: number, what: string): string {
  const nul = blob.subarray(0, end).indexOf(0, at);
  if (at >= end || nul < 0) throw bad(`${what} at offset ${at} does not end`);
  return new TextDecoder('latin1').decode(blob.subarray(at, nul));
}

/**
 * Reads a blob. Properties are copied, so the result does not keep the blob alive.
 * @throws {QemuError} BAD_DEVICE_TREE if any part lies outside the blob or the structure is not well formed.
 */
export function readFdt(source: Uint8Array): Fdt {
  // A Buffer's `slice` does not copy; a Uint8Array's does.
  const blob = new Uint8Array(source.buffer, source.byteOffset, source.length);
  if (blob.length < HEADER_BYTES) throw bad(`${blob.length} bytes are too few for a header`);
  const view = new DataView(blob.buffer, blob.byteOffset, blob.length);
  const u32 = (at: number): number => view.getUint32(at);
  if (u32(0) !== MAGIC) throw bad(`magic is 0x${u32(0).toString(16)}, expected 0xd00dfeed`);
  const totalSize = u32(4);
  const version = u32(20);
  if (u32(24) > VERSION || version < LAST_COMPATIBLE) throw bad(`version ${version} is not one we can read`);
  if (totalSize > blob.length) throw bad(`it says ${totalSize} bytes, but there are ${blob.length}`);
  const stringsAt = u32(12);
  const stringsEnd = stringsAt + u32(32);
  const structAt = u32(8);
  // Before version 17 the structure block had no size of its own.
  const structEnd = version >= 17 ? structAt + u32(36) : totalSize;
  if (stringsEnd > totalSize || structEnd > totalSize || structAt % 4 !== 0) {
    throw bad('a block lies outside the blob');
  }

  const reservations: FdtReservation[] = [];
  for (let at = u32(16); ; at += 16) {
    if (at % 8 !== 0 || at + 16 > totalSize) throw bad('the memory reservation block does not end');
    const address = view.getBigUint64(at);
    const sizeBytes = view.getBigUint64(at + 8);
    if (address === 0n && sizeBytes === 0n) break;
    reservations.push({ address, sizeBytes });
  }

  const open: FdtNode[] = [];
  let root: FdtNode | undefined;
  for (let at = structAt; ;) {
    if (at + 4 > structEnd) throw bad('the structure block does not end');
    const token = u32(at);
    at += 4;
    const node = open.at(-1);
    if (token === TOKEN.BeginNode) {
      const name = cString(blob, at, structEnd, 'the node name');
      at += (name.length + 4) & ~3;
      if (node === undefined && root !== undefined) throw bad('it has two roots');
      if (open.length >= MAX_DEPTH) throw bad(`it is deeper than ${MAX_DEPTH} levels`);
      const child: FdtNode = { name, properties: new Map(), children: [] };
      if (node === undefined) root = child;
      else node.children.push(child);
      open.push(child);
    } else if (token === TOKEN.EndNode) {
      if (open.pop() === undefined) throw bad('a node ends that did not begin');
    } else if (token === TOKEN.Property) {
      if (at + 8 > structEnd) throw bad('the structure block does not end');
      const length = u32(at);
      const nameAt = stringsAt + u32(at + 4);
      at += 8;
      if (at + length > structEnd)
        throw bad(`a property of ${length} bytes lies outside the structure block`);
      if (node === undefined) throw bad('a property is outside of any node');
      node.properties.set(
        cString(blob, nameAt, stringsEnd, 'the property name'),
        blob.slice(at, at + length),
      );
      at += (length + 3) & ~3;
    } else if (token === TOKEN.End) {
      if (open.length > 0 || root === undefined) throw bad('it ends inside a node');
      return { root, reservations, bootCpu: u32(28) };
    } else if (token !== TOKEN.Nop) {
      throw bad(`token 0x${token.toString(16)} is unknown`);
    }
  }
}

/** A buffer that grows; all numbers big-endian. */
class Output {
  bytes = new Uint8Array(4096);
  view = new DataView(this.bytes.buffer);
  length = 0;

  reserve(more: number): number {
    const at = this.length;
    if (at + more > this.bytes.length) {
      const grown = new Uint8Array(Math.max(this.bytes.length * 2, at + more));
      grown.set(this.bytes);
      this.bytes = grown;
      this.view = new DataView(grown.buffer);
    }
    this.length += more;
    return at;
  }

  u32(value: number): void {
    // Reserving may replace the view.
    const at = this.reserve(4);
    this.view.setUint32(at, value);
  }

  /** Bytes, then zeros up to a multiple of four. */
  padded(bytes: Uint8Array): void {
    const at = this.reserve((bytes.length + 3) & ~3);
    this.bytes.set(bytes, at);
  }
}

/** `text` as Latin-1 with a NUL behind it. */
function nulTerminated(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length + 1);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0 || code > 0xff) throw bad(`the name ${JSON.stringify(text)} cannot be written`);
    bytes[i] = code;
  }
  return bytes;
}

/**
 * Writes a blob of version 17. Reading it back gives the same tree.
 * @param spaceBytes free space behind the strings, for a loader that adds properties (QEMU makes its own).
 */
export function writeFdt(fdt: Fdt, spaceBytes = 0): Uint8Array {
  const structure = new Output();
  const strings = new Output();
  const offsets = new Map<string, number>();
  const write = (node: FdtNode): void => {
    structure.u32(TOKEN.BeginNode);
    structure.padded(nulTerminated(node.name));
    for (const [name, value] of node.properties) {
      let offset = offsets.get(name);
      if (offset === undefined) {
        const text = nulTerminated(name);
        offset = strings.reserve(text.length);
        strings.bytes.set(text, offset);
        offsets.set(name, offset);
      }
      structure.u32(TOKEN.Property);
      structure.u32(value.length);
      structure.u32(offset);
      structure.padded(value);
    }
    for (const child of node.children) write(child);
    structure.u32(TOKEN.EndNode);
  };
  write(fdt.root);
  structure.u32(TOKEN.End);

  const reservationsAt = HEADER_BYTES;
  const structAt = reservationsAt + (fdt.reservations.length + 1) * 16;
  const stringsAt = structAt + structure.length;
  const totalSize = stringsAt + strings.length + spaceBytes;
  const blob = new Uint8Array(totalSize);
  const view = new DataView(blob.buffer);
  const header = [
    MAGIC,
    totalSize,
    structAt,
    stringsAt,
    reservationsAt,
    VERSION,
    LAST_COMPATIBLE,
    fdt.bootCpu,
    strings.length,
    structure.length,
  ];
  for (const [i, word] of header.entries()) view.setUint32(i * 4, word);
  for (const [i, { address, sizeBytes }] of fdt.reservations.entries()) {
    view.setBigUint64(reservationsAt + i * 16, address);
    view.setBigUint64(reservationsAt + i * 16 + 8, sizeBytes);
  }
  blob.set(structure.bytes.subarray(0, structure.length), structAt);
  blob.set(strings.bytes.subarray(0, strings.length), stringsAt);
  return blob;
}

/** The node at `path` ("/pcie@10000000"; a name without unit address matches if it is the only one), or undefined. */
export function findNode(fdt: Fdt, path: string): FdtNode | undefined {
  let node: FdtNode | undefined = fdt.root;
  for (const part of path.split('/').filter((name) => name !== '')) {
    const exact: FdtNode | undefined = node.children.find((child) => child.name === part);
    const bare: FdtNode[] = node.children.filter((child) => child.name.split('@')[0] === part);
    node = exact ?? (bare.length === 1 ? bare[0] : undefined);
    if (node === undefined) return undefined;
  }
  return node;
}

/** Every node whose `compatible` lists `name`, parents first. */
export function findCompatible(fdt: Fdt, name: string): FdtNode[] {
  const found: FdtNode[] = [];
  const visit = (node: FdtNode): void => {
    if (stringsOf(node.properties.get('compatible')).includes(name)) found.push(node);
    for (const child of node.children) visit(child);
  };
  visit(fdt.root);
  return found;
}

/** A property made of 32-bit cells. */
export function cells(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setUint32(i * 4, value);
  return bytes;
}

/** The cells of a property; bytes behind the last whole cell are ignored. No property, no cells. */
export function cellsOf(value: Uint8Array | undefined): number[] {
  if (value === undefined) return [];
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  return Array.from({ length: value.length >>> 2 }, (_, i) => view.getUint32(i * 4));
}

/** A property made of strings, each with a NUL behind it. */
export function strings(...values: string[]): Uint8Array {
  const parts = values.map(nulTerminated);
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** The strings of a property. */
export function stringsOf(value: Uint8Array | undefined): string[] {
  if (value === undefined || value.length === 0) return [];
  const text = new TextDecoder('latin1').decode(value);
  return text.replace(/\0$/, '').split('\0');
}
