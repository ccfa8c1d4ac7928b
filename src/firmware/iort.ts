/**
 * The I/O Remapping Table (Arm DEN 0049): which SMMU stands behind which PCI root complex, which StreamID a requester
 * has, and which memory a root complex reaches how.
 */

import { ACPI_HEADER_SIZE, AcpiError, type AcpiHeader, readAcpiTable, writeAcpiTable } from './acpi-table.ts';

export const IORT_NODE = {
  ItsGroup: 0,
  NamedComponent: 1,
  RootComplex: 2,
  SmmuV1V2: 3,
  SmmuV3: 4,
  Pmcg: 5,
  ReservedMemory: 6,
} as const;

/** Input IDs from `inputBase` on, `count` of them, become IDs from `outputBase` on at another node. */
export interface IdMapping {
  readonly inputBase: number;
  readonly count: number;
  readonly outputBase: number;
  /** The node that takes the output IDs, as an index into {@link Iort.nodes}. */
  readonly target: number;
  /** Bit 0: a single mapping, for the node's own messages. */
  readonly flags: number;
}

export interface IortNode {
  /** {@link IORT_NODE} */
  readonly type: number;
  readonly revision: number;
  readonly identifier: number;
  /** What stands between the node's header and its mappings. */
  readonly data: Uint8Array;
  readonly mappings: readonly IdMapping[];
}

export interface Iort {
  readonly header: AcpiHeader;
  readonly nodes: readonly IortNode[];
}

const SIGNATURE = 'IORT';
/** Number of nodes, offset of the first, reserved. */
const NODES_HEADER_SIZE = 12;
const NODE_HEADER_SIZE = 16;
const MAPPING_SIZE = 20;

/** A root complex's memory access properties: bytes 0..3 coherent at all, 4 hints, 5..6 reserved, 7 flags. */
const MEMORY_ACCESS_FLAGS = 7;

/** Memory access flags of a root complex. */
export const MEMORY_ACCESS = {
  /** There is a coherent path to memory (CPM). */
  CoherentPath: 1 << 0,
  /** Its accesses are cacheable and shareable unless the SMMU says otherwise (DACS). */
  CacheableAttributes: 1 << 1,
  /** They are coherent write-back whatever attributes they ask for (CANWBS). */
  ForcedWriteBack: 1 << 2,
} as const;

/**
 * Reads the table.
 * @throws {AcpiError} if a node or mapping does not lie inside the table, or refers to what is no node.
 */
export function readIort(bytes: Uint8Array): Iort {
  const { header, table } = readAcpiTable(bytes, SIGNATURE);
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  const word = (at: number): number => {
    if (at + 4 > table.length) throw new AcpiError(`IORT: offset ${at} is beyond its ${table.length} bytes.`);
    return view.getUint32(at, true);
  };
  const count = word(ACPI_HEADER_SIZE);
  const starts: number[] = [];
  let at = word(ACPI_HEADER_SIZE + 4);
  for (let n = 0; n < count; n++) {
    word(at + NODE_HEADER_SIZE - 4);
    const length = view.getUint16(at + 1, true);
    // A node has at least its header, so this ends, whatever the count says.
    if (length < NODE_HEADER_SIZE || at + length > table.length)
      throw new AcpiError(`IORT: node ${n} has ${length} bytes at offset ${at}.`);
    starts.push(at);
    at += length;
  }
  const nodeAt = (offset: number): number => {
    const index = starts.indexOf(offset);
    if (index < 0) throw new AcpiError(`IORT: a mapping refers to offset ${offset}, where no node begins.`);
    return index;
  };
  const nodes = starts.map((start, n): IortNode => {
    const length = view.getUint16(start + 1, true);
    const mappingCount = word(start + 8);
    const mappingsAt = mappingCount === 0 ? length : word(start + 12);
    if (mappingsAt < NODE_HEADER_SIZE || mappingsAt + mappingCount * MAPPING_SIZE > length)
      throw new AcpiError(`IORT: the ${mappingCount} mappings of node ${n} do not fit into it.`);
    const mappings = Array.from({ length: mappingCount }, (_, m): IdMapping => {
      const mapping = start + mappingsAt + m * MAPPING_SIZE;
      return {
        inputBase: word(mapping),
        // Stored is one less.
        count: word(mapping + 4) + 1,
        outputBase: word(mapping + 8),
        target: nodeAt(word(mapping + 12)),
        flags: word(mapping + 16),
      };
    });
    return {
      type: table[start],
      revision: table[start + 3],
      identifier: word(start + 4),
      data: table.slice(start + NODE_HEADER_SIZE, start + mappingsAt),
      mappings,
    };
  });
  return { header, nodes };
}

const sizeOf = ({ data, mappings }: IortNode): number =>
  NODE_HEADER_SIZE + data.length + mappings.length * MAPPING_SIZE;

/**
 * Writes the table, its nodes one behind the other.
 * @throws {AcpiError} if a mapping refers to a node that is not there, or a node is too large.
 */
export function writeIort({ header, nodes }: Iort): Uint8Array {
  const first = ACPI_HEADER_SIZE + NODES_HEADER_SIZE;
  const starts: number[] = [];
  let end = first;
  for (const node of nodes) {
    starts.push(end);
    end += sizeOf(node);
  }
  const body = new Uint8Array(end - ACPI_HEADER_SIZE);
  const view = new DataView(body.buffer);
  view.setUint32(0, nodes.length, true);
  view.setUint32(4, first, true);
  for (const [n, node] of nodes.entries()) {
    const start = starts[n] - ACPI_HEADER_SIZE;
    const size = sizeOf(node);
    if (size > 0xffff) throw new AcpiError(`IORT: node ${n} would have ${size} bytes.`);
    view.setUint8(start, node.type);
    view.setUint16(start + 1, size, true);
    view.setUint8(start + 3, node.revision);
    view.setUint32(start + 4, node.identifier, true);
    view.setUint32(start + 8, node.mappings.length, true);
    const mappingsAt = NODE_HEADER_SIZE + node.data.length;
    view.setUint32(start + 12, node.mappings.length === 0 ? 0 : mappingsAt, true);
    body.set(node.data, start + NODE_HEADER_SIZE);
    for (const [m, mapping] of node.mappings.entries()) {
      const target = starts[mapping.target];
      if (target === undefined)
        throw new AcpiError(`IORT: a mapping of node ${n} refers to node ${mapping.target}.`);
      const at = start + mappingsAt + m * MAPPING_SIZE;
      view.setUint32(at, mapping.inputBase, true);
      view.setUint32(at + 4, mapping.count - 1, true);
      view.setUint32(at + 8, mapping.outputBase, true);
      view.setUint32(at + 12, target, true);
      view.setUint32(at + 16, mapping.flags, true);
    }
  }
  return writeAcpiTable(header, body);
}

/** @returns the memory access flags of a root complex, {@link MEMORY_ACCESS}. */
export function memoryAccessOf(node: IortNode): number {
  return node.type === IORT_NODE.RootComplex ? (node.data[MEMORY_ACCESS_FLAGS] ?? 0) : 0;
}

/**
 * The same machine with root complexes whose DMA is coherent and written back whatever a device asks for. That is what
 * Linux wants of a machine whose SMMU cannot force it (no S2FWB) before it lets a guest have a stage of its own. The
 * table's OEM revision is one higher, so that Linux prefers it to the firmware's.
 */
export function withForcedWriteBack({ header, nodes }: Iort): Iort {
  return {
    header: { ...header, oemRevision: header.oemRevision + 1 },
    nodes: nodes.map((node) => {
      if (node.type !== IORT_NODE.RootComplex) return node;
      const data = node.data.slice();
      data[MEMORY_ACCESS_FLAGS] =
        MEMORY_ACCESS.CoherentPath | MEMORY_ACCESS.CacheableAttributes | MEMORY_ACCESS.ForcedWriteBack;
      return { ...node, data };
    }),
  };
}
